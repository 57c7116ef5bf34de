//! A Redis, whatever its shape: one line of communication that is made when it is needed and made anew when it is
//! lost. A question, with all that it takes to ask it, is waited for once `timeout`.

mod dialler;

use crate::config::redis_url::RedisUrl;
use crate::store::redis::dialler::{Dialler, Line};
use ::redis::aio::{ConnectionLike, PubSubSink, PubSubStream};
use ::redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use ::redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value};
use futures_util::StreamExt;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, timeout};

/// After a connection could not be made, others are told so for this long instead of trying too.
const PAUSE: Duration = Duration::from_millis(200);

/// A subscription that is silent for this long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(5);

/// How many keys a server looks at for one answer of a scan.
const SCAN_STEP: usize = 500;

/// The store cannot be asked, or does not answer: nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unavailable(String);

/// What is stored under a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value, cut one byte after the bound of the question.
    pub value: Vec<u8>,
    /// How long it will stay; `None`: until somebody removes it.
    pub ttl: Option<Duration>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("len", &self.value.len()).field("ttl", &self.ttl).finish()
    }
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    /// Counts the lines, so that one that failed is not taken for its successor.
    number: u64,
    failed: Option<(Instant, Unavailable)>,
}

impl State {
    fn line(&self) -> Option<(Line, u64)> {
        self.line.clone().map(|line| (line, self.number))
    }

    /// Why none is made now.
    fn pause(&self) -> Option<Unavailable> {
        self.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE).map(|(_, error)| error.clone())
    }

    fn made(&mut self, line: Line) -> (Line, u64) {
        self.number = self.number.wrapping_add(1);
        (self.line, self.failed) = (Some(line.clone()), None);
        (line, self.number)
    }
}

/// What is done where the line is found lost while asking.
enum Lost {
    AskAgain,
    IsTheEnd,
}

struct Inner {
    dialler: Dialler,
    shown: String,
    timeout: Duration,
    /// Never held while waiting: whoever hangs up must not wait for whoever dials.
    state: Mutex<State>,
    /// Held by the one that dials.
    dialling: tokio::sync::Mutex<()>,
}

/// A handle; clones share the connection.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.0.shown)
    }
}

impl Redis {
    /// Connects to nothing yet. `ca`: PEM, trusted instead of the system's roots; `timeout` bounds every question.
    ///
    /// # Errors
    /// Where the client refuses the address or the certificates.
    pub fn open(url: &RedisUrl, ca: Option<Vec<u8>>, timeout: Duration) -> Result<Self, String> {
        let dialler = Dialler::new(url, ca, timeout).map_err(|e| said(&e))?;
        let (state, dialling) = (Mutex::default(), tokio::sync::Mutex::default());
        let inner = Inner { dialler, shown: url.shown(), timeout, state, dialling };
        Ok(Self(Arc::new(inner)))
    }

    /// Where it is, for the log.
    pub fn shown(&self) -> &str {
        &self.0.shown
    }

    /// A key's value and how long it stays; `None`: there is no such key. Of a value longer than `most` only
    /// `most + 1` bytes are fetched.
    ///
    /// # Errors
    /// [`Unavailable`], as for all of these.
    pub async fn get(&self, key: &str, most: usize) -> Result<Option<Entry>, Unavailable> {
        let mut ask = Pipeline::new();
        ask.cmd("GETRANGE").arg(key).arg(0).arg(most).cmd("PTTL").arg(key);
        let (value, ttl): (Vec<u8>, i64) = self.ask(&ask).await?;
        Ok(match ttl {
            // -2: no such key; -1: no end.
            ..=-2 => None,
            ttl => Some(Entry { value, ttl: u64::try_from(ttl).ok().map(Duration::from_millis) }),
        })
    }

    /// Stores a value for `ttl`.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), Unavailable> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64 / 2);
        let mut ask = Pipeline::new();
        ask.cmd("SET").arg(key).arg(value).arg("PX").arg(millis).ignore();
        self.ask(&ask).await
    }

    /// Tells all subscribers of `channel`.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn publish(&self, channel: &str, message: &[u8]) -> Result<(), Unavailable> {
        let mut ask = Pipeline::new();
        ask.cmd("PUBLISH").arg(channel).arg(message).ignore();
        self.ask(&ask).await
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn ping(&self) -> Result<(), Unavailable> {
        match self.0.dialler {
            // It would be asked on all its nodes.
            Dialler::Cluster(..) => self.get("siogate", 0).await.map(drop),
            _ => self.ask(Pipeline::new().cmd("PING").ignore()).await,
        }
    }

    /// The keys that begin with `prefix`. In a cluster the prefix must hold a `{hash tag}`, so that all of them
    /// are on one node.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn scan(&self, prefix: &str) -> Result<Vec<String>, Unavailable> {
        let pattern = format!("{}*", escaped(prefix));
        let (mut found, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let mut ask = ::redis::cmd("SCAN");
            ask.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
            // The cursor of a server that was lost means nothing to another one.
            let answer = self.question(Lost::IsTheEnd, |line| step(line, &ask, prefix)).await?;
            let (next, keys): (u64, Vec<String>) = read(answer)?;
            found.extend(keys);
            if next == 0 {
                // A scan may name a key twice.
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// Hears what is published in `channel` from now on.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription, Unavailable> {
        let subscribed = async {
            let mut pubsub = match &self.0.dialler {
                Dialler::One(client) => client.get_async_pubsub().await?,
                Dialler::Sentinel(client) => {
                    let client = client.lock().await.async_get_client().await?;
                    client.get_async_pubsub().await?
                }
                // A cluster hands messages on to all of its nodes.
                Dialler::Cluster(_, nodes) => {
                    let mut nodes = nodes.iter();
                    let first = nodes.next().ok_or(RedisError::from((::redis::ErrorKind::Client, "no node")))?;
                    let mut tried = first.get_async_pubsub().await;
                    for node in nodes {
                        if tried.is_err() {
                            tried = node.get_async_pubsub().await;
                        }
                    }
                    tried?
                }
            };
            pubsub.subscribe(channel).await?;
            Ok::<_, RedisError>(pubsub.split())
        };
        match timeout(self.0.timeout, subscribed).await {
            Ok(Ok((sink, stream))) => Ok(Subscription { sink, stream, patience: self.0.timeout }),
            Ok(Err(error)) => Err(Unavailable(said(&error))),
            Err(_) => Err(self.late()),
        }
    }

    async fn ask<T: FromRedisValue>(&self, ask: &Pipeline) -> Result<T, Unavailable> {
        let asked = |line| async move {
            match line {
                Line::One(mut one) => ask.query_async::<T>(&mut one).await,
                Line::Cluster(mut cluster) => ask.query_async::<T>(&mut cluster).await,
            }
        };
        self.question(Lost::AskAgain, asked).await
    }

    /// Asks on the line there is or on one made for it, again on a new one where `lost` says so, and waits for all
    /// of that together no longer than allowed. Hangs up on a line that is lost, and on one that had at least half
    /// of the time to answer: one that was long in the making is left to the next question.
    async fn question<T, F>(&self, lost: Lost, ask: impl Fn(Line) -> F) -> Result<T, Unavailable>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (mut again, mut asked) = (matches!(lost, Lost::AskAgain), None);
        let whole = async {
            loop {
                let (line, number) = self.line().await?;
                asked = Some((number, Instant::now()));
                match ask(line).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if error.is_io_error() || error.is_unrecoverable_error() => {
                        self.hang_up(number);
                        asked = None;
                        if !again {
                            return Err(Unavailable(said(&error)));
                        }
                        // It was a line of a minute ago: the server may be there again.
                        again = false;
                    }
                    Err(error) => return Err(Unavailable(said(&error))),
                }
            }
        };
        let answer = timeout(self.0.timeout, whole).await;
        answer.unwrap_or_else(|_| {
            if let Some((number, _)) = asked.filter(|(_, at)| at.elapsed() >= self.0.timeout / 2) {
                self.hang_up(number);
            }
            Err(self.late())
        })
    }

    /// The line, made where there is none; whoever comes meanwhile waits for the same one.
    async fn line(&self) -> Result<(Line, u64), Unavailable> {
        if let Some(line) = self.state(|state| state.line()) {
            return Ok(line);
        }
        let _dialling = self.0.dialling.lock().await;
        match self.state(|state| (state.line(), state.pause())) {
            (Some(line), _) => return Ok(line),
            (None, Some(failed)) => return Err(failed),
            (None, None) => {}
        }
        // Should this be given up half way.
        self.state(|state| state.failed = Some((Instant::now(), Unavailable("connecting".into()))));
        match self.0.dialler.dial(self.0.timeout).await {
            Ok(line) => Ok(self.state(|state| state.made(line))),
            Err(error) => {
                let error = Unavailable(said(&error));
                self.state(|state| state.failed = Some((Instant::now(), error.clone())));
                Err(error)
            }
        }
    }

    fn hang_up(&self, number: u64) {
        self.state(|state| {
            if state.number == number {
                state.line = None;
            }
        });
    }

    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn late(&self) -> Unavailable {
        Unavailable(format!("no answer in {:?}", self.0.timeout))
    }
}

/// What is published in one channel.
pub struct Subscription {
    sink: PubSubSink,
    stream: PubSubStream,
    patience: Duration,
}

impl Subscription {
    /// The next message; `None`: the connection is lost, and with it perhaps messages.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match timeout(SILENCE, self.stream.next()).await {
                Ok(message) => return message.map(|m| m.get_payload_bytes().to_vec()),
                Err(_) => match timeout(self.patience, self.sink.ping::<Value>()).await {
                    Ok(Ok(_)) => {}
                    _ => return None,
                },
            }
        }
    }
}

async fn step(line: Line, ask: &Cmd, prefix: &str) -> Result<Value, RedisError> {
    match line {
        Line::One(mut one) => one.req_packed_command(ask).await,
        Line::Cluster(mut cluster) => {
            let node = SingleNodeRoutingInfo::SpecificNode(Route::with_key(prefix, SlotAddr::Master));
            cluster.route_command(ask.clone(), RoutingInfo::SingleNode(node)).await
        }
    }
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, Unavailable> {
    T::from_redis_value(value).map_err(|_| Unavailable("an answer of another type".into()))
}

/// A prefix means itself, whatever it holds.
fn escaped(prefix: &str) -> String {
    prefix.chars().fold(String::with_capacity(prefix.len()), |mut all, c| {
        if "*?[]\\^-".contains(c) {
            all.push('\\');
        }
        all.push(c);
        all
    })
}

/// One line of bounded length. Commands, and with them keys, are not part of these errors.
fn said(error: &RedisError) -> String {
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
