//! Shares revocations with the other replicas through a Redis: published for speed, and kept there under keys with
//! an end for those who start later or were away.
//!
//! A key's name is the hash of what it holds, so nobody overwrites anybody. Whoever comes (back) reads them all and
//! adds what only it knows: what was revoked while Redis was away is in the table here, and so it is not lost.

use crate::auth::revocation::{Revocation, Revocations, message};
use crate::session::revoker::{Origin, Revoker};
use crate::store::redis::{Redis, Subscription, Unavailable};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Revocations taken here that wait to be published; more are found in the table.
pub const WAITING: usize = 65_536;

/// Keys read or written at once.
const AT_ONCE: usize = 64;

/// Between attempts to reach Redis: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The keys are looked through this often also while nothing is wrong: somebody may have removed some.
const AGAIN: Duration = Duration::from_secs(300);

/// What is shared, and where.
pub struct Sharing {
    redis: Redis,
    prefix: String,
    channel: String,
    revoker: Arc<Revoker>,
    taken: mpsc::Receiver<Revocation>,
    /// True while everything is known to everybody.
    level: watch::Sender<bool>,
}

impl Sharing {
    /// Through this Redis, under keys that begin with `prefix`. `taken`: what the revoker takes.
    pub fn new(redis: Redis, prefix: &str, revoker: Arc<Revoker>, taken: mpsc::Receiver<Revocation>) -> Self {
        let channel = format!("{prefix}channel");
        let keys = format!("{prefix}key:");
        Self { redis, prefix: keys, channel, revoker, taken, level: watch::Sender::new(false) }
    }

    /// Tells whether everything is known to everybody.
    pub fn level(&self) -> watch::Receiver<bool> {
        self.level.subscribe()
    }

    /// Where that is, and whether it answers.
    pub async fn ping(&self) -> (&str, Result<(), Unavailable>) {
        (self.redis.shown(), self.redis.ping().await)
    }

    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let lost = match self.redis.subscribe(&self.channel).await {
                Ok(subscription) => self.share(subscription).await,
                Err(error) => error.to_string(),
            };
            self.revoker.shared(false);
            if self.level.send_replace(false) || pause == FIRST_PAUSE {
                tracing::warn!(redis = self.redis.shown(), error = lost, "revocations are not shared with others now");
            }
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Shares while the connection holds; returns why it does not.
    async fn share(&mut self, mut subscription: Subscription) -> String {
        // What waits here stands in the table, too.
        while self.taken.try_recv().is_ok() {}
        let Self { redis, prefix, channel, revoker, taken, level } = self;
        let shelf = Shelf { redis, prefix, channel, revoker };
        let mut batch = Vec::new();
        loop {
            let count = shelf.revoker.taken();
            let mut levelled = pin!(shelf.level());
            let mut done = false;
            let mut again = pin!(sleep_until(Instant::now() + AGAIN));
            loop {
                tokio::select! {
                    message = subscription.next() => match message {
                        Some(message) => shelf.hear(&message),
                        None => return "the connection is lost".into(),
                    },
                    got = taken.recv_many(&mut batch, AT_ONCE) => {
                        let full = taken.len() + got >= WAITING;
                        if let Err(error) = shelf.tell_all(&batch).await {
                            return error.to_string();
                        }
                        batch.clear();
                        let count = shelf.revoker.taken();
                        if taken.is_empty() && !full {
                            shelf.revoker.told(count);
                        }
                        // Some found no place.
                        if full {
                            break;
                        }
                    }
                    result = levelled.as_mut(), if !done => match result {
                        Ok(keys) => {
                            done = true;
                            shelf.revoker.told(count);
                            shelf.revoker.shared(true);
                            if !level.send_replace(true) {
                                tracing::info!(redis = shelf.redis.shown(), keys, "revocations are shared");
                            }
                        }
                        Err(error) => return error.to_string(),
                    },
                    () = again.as_mut() => break,
                }
            }
        }
    }
}

/// Where revocations stand for others.
struct Shelf<'a> {
    redis: &'a Redis,
    prefix: &'a str,
    channel: &'a str,
    revoker: &'a Revoker,
}

impl Shelf<'_> {
    /// Takes what others have said, and says what they have not; returns how many keys there were.
    async fn level(&self) -> Result<usize, Unavailable> {
        let keys = self.redis.scan(self.prefix).await?;
        let failed = self.read(keys.clone()).await;
        if !failed.is_empty() {
            // Was the line lost for a moment, or is there something else under these keys?
            self.redis.ping().await?;
            let failed = self.read(failed).await;
            self.redis.ping().await?;
            failed.iter().for_each(|_| self.revoker.misheard());
        }
        let known: HashSet<&str> = keys.iter().filter_map(|key| key.strip_prefix(self.prefix)).collect();
        let unsaid = all(self.revoker.table()).into_iter().filter(|r| !known.contains(name(r).as_str()));
        let unsaid: Vec<_> = unsaid.collect();
        self.tell_all(&unsaid).await?;
        Ok(keys.len())
    }

    /// Takes what stands under these keys; returns those that could not be read.
    async fn read(&self, keys: Vec<String>) -> Vec<String> {
        let read = |key: String| async move { (self.redis.get(&key, message::MAX_MESSAGE).await, key) };
        let reads: Vec<_> = keys.into_iter().map(read).collect();
        let mut entries = stream::iter(reads).buffer_unordered(AT_ONCE);
        let mut failed = Vec::new();
        while let Some((entry, key)) = entries.next().await {
            match entry {
                Ok(Some(entry)) => self.hear(&entry.value),
                // It has come to its end meanwhile.
                Ok(None) => {}
                Err(_) => failed.push(key),
            }
        }
        failed
    }

    async fn tell_all(&self, all: &[Revocation]) -> Result<(), Unavailable> {
        stream::iter(all).map(Ok).try_for_each_concurrent(AT_ONCE, |revocation| self.tell(revocation)).await
    }

    async fn tell(&self, revocation: &Revocation) -> Result<(), Unavailable> {
        let left = revocation.until.saturating_sub(self.revoker.now());
        if left == 0 {
            return Ok(());
        }
        let (message, key) = (message::write(revocation), format!("{}{}", self.prefix, name(revocation)));
        self.redis.set(&key, message.as_bytes(), Duration::from_secs(left)).await?;
        self.redis.publish(self.channel, message.as_bytes()).await
    }

    fn hear(&self, message: &[u8]) {
        match message::read(message, self.revoker.now()) {
            Ok(revocation) => drop(self.revoker.note(&revocation, Origin::Replica)),
            Err(why) => {
                self.revoker.misheard();
                tracing::debug!(why, "what another replica said is no revocation");
            }
        }
    }
}

fn name(revocation: &Revocation) -> String {
    message::name(message::write(revocation).as_bytes())
}

fn all(table: &Revocations) -> Vec<Revocation> {
    table.list(None, usize::MAX).into_iter().map(|(_, revocation)| revocation).collect()
}
