//! A Redis, whatever its shape: one line of communication that is made when it is needed, made anew when it is
//! lost, and never waited for longer than `timeout`.

mod dialler;

use crate::config::redis_url::RedisUrl;
use crate::store::redis::dialler::{Dialler, Line};
use ::redis::aio::{ConnectionLike, PubSubSink, PubSubStream};
use ::redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use ::redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value};
use futures_util::StreamExt;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;

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

struct Inner {
    dialler: Dialler,
    shown: String,
    timeout: Duration,
    state: Mutex<State>,
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
        let inner = Inner { dialler, shown: url.shown(), timeout, state: Mutex::default() };
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
        match self.line().await? {
            // A cluster would be asked on all its nodes.
            (Line::Cluster(_), _) => self.get("siogate", 0).await.map(drop),
            (Line::One(_), _) => self.ask(Pipeline::new().cmd("PING").ignore()).await,
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
            let (line, number) = self.line().await?;
            let answer = self.bounded(number, step(line, &ask, prefix)).await?;
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

    /// Asks; once more on a new line where the old one was found lost.
    async fn ask<T: FromRedisValue>(&self, ask: &Pipeline) -> Result<T, Unavailable> {
        let mut last = None;
        for _ in 0..2 {
            let (line, number) = self.line().await?;
            let known = last.replace(number);
            let asked = async {
                match line {
                    Line::One(mut one) => ask.query_async::<T>(&mut one).await,
                    Line::Cluster(mut cluster) => ask.query_async::<T>(&mut cluster).await,
                }
            };
            match self.bounded(number, asked).await {
                // A line of a minute ago: the server may be there again.
                Err(_) if known.is_none() && self.0.state.lock().await.line.is_none() => {}
                answer => return answer,
            }
        }
        Err(Unavailable("the connection is lost".into()))
    }

    /// Waits no longer than allowed, and hangs up on a line that is lost or dumb.
    async fn bounded<T>(
        &self,
        number: u64,
        asked: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Unavailable> {
        let (failed, lost) = match timeout(self.0.timeout, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => (Unavailable(said(&error)), error.is_io_error() || error.is_unrecoverable_error()),
            Err(_) => (self.late(), true),
        };
        if lost {
            let mut state = self.0.state.lock().await;
            if state.number == number {
                state.line = None;
            }
        }
        Err(failed)
    }

    /// The line, made where there is none; whoever comes meanwhile waits for the same one.
    async fn line(&self) -> Result<(Line, u64), Unavailable> {
        let made = async {
            let mut state = self.0.state.lock().await;
            if let Some(line) = &state.line {
                return Ok((line.clone(), state.number));
            }
            if let Some((at, error)) = &state.failed
                && at.elapsed() < PAUSE
            {
                return Err(error.clone());
            }
            // Should this be given up half way.
            state.failed = Some((Instant::now(), Unavailable("connecting".into())));
            match self.0.dialler.dial(self.0.timeout).await {
                Ok(line) => {
                    state.line = Some(line.clone());
                    state.number = state.number.wrapping_add(1);
                    state.failed = None;
                    Ok((line, state.number))
                }
                Err(error) => {
                    let error = Unavailable(said(&error));
                    state.failed = Some((Instant::now(), error.clone()));
                    Err(error)
                }
            }
        };
        timeout(self.0.timeout, made).await.unwrap_or_else(|_| Err(self.late()))
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
