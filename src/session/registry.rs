//! The table of everybody who is inside.

pub mod ebb;
pub mod revoke;
mod sought;
pub mod term;
mod waiting;

use crate::gate::admission::{MAX_NAMESPACES, User};
use crate::protocol::engineio::Version;
use crate::reason::Reason;
use crate::session::deadlines::Deadlines;
use crate::session::mailbox::Mailbox;
use crate::session::recovery::Owners;
use crate::session::registry::ebb::Tide;
use crate::session::registry::revoke::Card;
use crate::session::registry::term::{Habits, Term};
use crate::session::registry::waiting::Waiting;
use futures_util::task::AtomicWaker;
use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const SHARDS: usize = 16;

/// Sids whose end the client has not been told yet.
const MAX_FAREWELLS: usize = 10_000;

/// For so long the next request of an ended session is told why.
const FAREWELL: Duration = Duration::from_secs(60);

/// Bounds on the number of sessions.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Sessions of any kind.
    pub sessions: usize,
    /// Sessions without a user yet.
    pub unauthenticated: usize,
    /// The same from one address (IPv6: from one /64).
    pub unauthenticated_per_ip: usize,
}

/// A handle on the table.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    capacity: Capacity,
    hasher: RandomState,
    shards: [Mutex<HashMap<Box<str>, Arc<Entry>>>; SHARDS],
    open: AtomicUsize,
    numbers: AtomicU64,
    waiting: Mutex<Waiting>,
    habits: Habits,
    deadlines: Mutex<Deadlines<(Arc<Entry>, Reason)>>,
    warnings: Mutex<Deadlines<Arc<Entry>>>,
    earlier: Notify,
    tide: Tide,
    farewells: Mutex<HashMap<Box<str>, (Reason, Instant)>>,
    recovery: Mutex<Owners>,
}

/// One session, as others see it.
pub struct Entry {
    sid: Box<str>,
    number: u64,
    /// Digest of the credential that came with the handshake: the same again needs no second look.
    pub credential: Option<[u8; 32]>,
    /// The Engine.IO revision that its polling bodies are written in.
    pub version: Version,
    /// Its client cannot take binary polling bodies (protocol 3).
    pub b64: bool,
    mailbox: Mutex<Option<Mailbox>>,
    posting: AtomicBool,
    user: OnceLock<User>,
    card: Card,
    term: Mutex<Term>,
    ended: AtomicU8,
    calls: AtomicU8,
    waker: AtomicWaker,
    quiet_client: AtomicU16,
    quiet_upstream: AtomicU16,
    /// Sweeps without a byte after which a leg is dead; 0: not watched.
    patience: AtomicU16,
    /// Sweeps without a packet of the application.
    idle: AtomicU32,
    /// Counts the credentials that it has lived by.
    turn: AtomicU32,
}

impl Entry {
    /// The session id. A secret: never log it.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// The user, once admitted.
    pub fn user(&self) -> Option<&User> {
        self.user.get()
    }

    /// Where its requests go; `None` for a session on a WebSocket, which takes none.
    pub fn mailbox(&self) -> Option<Mailbox> {
        lock(&self.mailbox).clone()
    }

    /// The session is on a WebSocket from now on.
    pub fn close_mailbox(&self) {
        *lock(&self.mailbox) = None;
    }

    /// Marks a POST as under way; `false` where one is already. Undone by [`Entry::posted`].
    pub fn begin_post(&self) -> bool {
        !self.posting.swap(true, Ordering::AcqRel)
    }

    /// The POST has been answered.
    pub fn posted(&self) {
        self.posting.store(false, Ordering::Release);
    }

    /// Shows the session out; the first reason stands.
    pub fn end(&self, reason: Reason) {
        let index = Reason::ALL.iter().position(|r| *r == reason).unwrap_or(0) as u8 + 1;
        if self.ended.compare_exchange(0, index, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }

    /// Why it has to end, if it has to.
    pub fn ended(&self) -> Option<Reason> {
        let index = self.ended.load(Ordering::Acquire);
        Reason::ALL.get(usize::from(index).checked_sub(1)?).copied()
    }

    /// For the one task that owns the session.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Reason> {
        if let Some(reason) = self.ended() {
            return Poll::Ready(reason);
        }
        self.waker.register(cx.waker());
        self.ended().map_or(Poll::Pending, Poll::Ready)
    }

    /// Both sides beat from now on: end the session when one is silent for `quiet`.
    pub fn watch(&self, quiet: Duration, sweep: Duration) {
        let sweeps = quiet.as_millis().div_ceil(sweep.as_millis().max(1)) + 1;
        self.patience.store(u16::try_from(sweeps).unwrap_or(u16::MAX - 1), Ordering::Relaxed);
    }

    /// Bytes came from the client.
    #[inline]
    pub fn heard_client(&self) {
        self.quiet_client.store(0, Ordering::Relaxed);
    }

    /// Bytes came from the backend.
    #[inline]
    pub fn heard_upstream(&self) {
        self.quiet_upstream.store(0, Ordering::Relaxed);
    }

    fn sweep(&self) {
        let patience = self.patience.load(Ordering::Relaxed);
        if patience == 0 {
            return;
        }
        for leg in [&self.quiet_client, &self.quiet_upstream] {
            let quiet = leg.load(Ordering::Relaxed).saturating_add(1);
            leg.store(quiet, Ordering::Relaxed);
            if quiet > patience {
                self.end(Reason::Idle);
            }
        }
    }
}

/// Somebody who wants in.
pub struct Newcomer<'a> {
    /// The Engine.IO session id.
    pub sid: &'a str,
    /// The Engine.IO revision.
    pub version: Version,
    /// The client cannot take binary polling bodies.
    pub b64: bool,
    /// Digest of the handshake's credential.
    pub credential: Option<[u8; 32]>,
    /// Where requests go, for one that polls.
    pub mailbox: Option<Mailbox>,
    /// What operators are told of it.
    pub card: Card,
    /// The client's address, for one that has no user yet.
    pub waits: Option<IpAddr>,
}

/// Being inside. Dropping it is the only way out of the registry.
pub struct Stay {
    registry: Registry,
    entry: Arc<Entry>,
    waits: Option<IpAddr>,
    recovery_ids: VecDeque<String>,
}

impl Registry {
    /// An empty table.
    pub fn new(capacity: Capacity) -> Self {
        Self::with(capacity, Habits::default())
    }

    /// The same, which does more than to end sessions in time.
    pub fn with(capacity: Capacity, habits: Habits) -> Self {
        Self(Arc::new(Inner {
            capacity,
            habits,
            hasher: RandomState::new(),
            shards: Default::default(),
            open: AtomicUsize::new(0),
            numbers: AtomicU64::new(1),
            waiting: Mutex::default(),
            deadlines: Mutex::default(),
            warnings: Mutex::default(),
            earlier: Notify::new(),
            tide: Tide::default(),
            farewells: Mutex::default(),
            recovery: Mutex::new(Owners::new(capacity.sessions.saturating_mul(2).clamp(1, 1_000_000))),
        }))
    }

    /// Lets a session in.
    ///
    /// # Errors
    /// [`Reason::TooManyConnections`]; [`Reason::UpstreamRefused`] where the sid (a backend's own) is taken.
    pub fn enter(&self, newcomer: Newcomer<'_>) -> Result<Stay, Reason> {
        let Newcomer { sid, version, b64, credential, mailbox, card, waits } = newcomer;
        let inner = &self.0;
        if inner.open.fetch_add(1, Ordering::AcqRel) >= inner.capacity.sessions {
            inner.open.fetch_sub(1, Ordering::AcqRel);
            return Err(Reason::TooManyConnections);
        }
        let waits = waits.map(waiting::bucket);
        if waits.is_some_and(|ip| !lock(&inner.waiting).enter(ip, inner.capacity)) {
            inner.open.fetch_sub(1, Ordering::AcqRel);
            return Err(Reason::TooManyConnections);
        }
        let entry = Arc::new(Entry {
            sid: sid.into(),
            number: inner.numbers.fetch_add(1, Ordering::Relaxed),
            credential,
            version,
            b64,
            mailbox: Mutex::new(mailbox),
            posting: AtomicBool::new(false),
            user: OnceLock::new(),
            card,
            term: Mutex::default(),
            ended: AtomicU8::new(0),
            calls: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            quiet_client: AtomicU16::new(0),
            quiet_upstream: AtomicU16::new(0),
            patience: AtomicU16::new(0),
            idle: AtomicU32::new(0),
            turn: AtomicU32::new(0),
        });
        // From here on the stay's drop undoes what was counted.
        let stay = Stay { registry: self.clone(), entry, waits, recovery_ids: VecDeque::new() };
        let mut shard = self.shard(sid);
        if shard.contains_key(sid) {
            drop(shard);
            return Err(Reason::UpstreamRefused);
        }
        shard.insert(sid.into(), stay.entry.clone());
        drop(shard);
        Ok(stay)
    }

    /// The session with this id.
    pub fn find(&self, sid: &str) -> Option<Arc<Entry>> {
        self.shard(sid).get(sid).cloned()
    }

    /// Why a session that is gone has ended, told once.
    pub fn farewell(&self, sid: &str) -> Option<Reason> {
        lock(&self.0.farewells).remove(sid).map(|(reason, _)| reason)
    }

    /// Open sessions.
    pub fn len(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// True when nobody is inside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions without a user.
    pub fn unauthenticated(&self) -> usize {
        lock(&self.0.waiting).total
    }

    /// Sessions with a deadline ahead.
    pub fn deadlines(&self) -> usize {
        lock(&self.0.deadlines).len()
    }

    /// Everybody, for a drain.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.0.shards.iter().flat_map(|s| lock(s).values().cloned().collect::<Vec<_>>()).collect()
    }

    /// True where the backend gave this recovery id to this user.
    pub fn owns_recovery(&self, pid: &str, user: &User) -> bool {
        lock(&self.0.recovery).owns(pid, user)
    }

    /// Resolves when the next end has moved forward.
    pub async fn earlier(&self) {
        self.0.earlier.notified().await;
    }

    /// Shows out everybody whose time is over; returns how many.
    pub fn reap(&self, now: Instant, now_ms: u64) -> usize {
        let due = lock(&self.0.deadlines).due(now, now_ms);
        for (entry, reason) in &due {
            entry.end(*reason);
        }
        self.warn(now, now_ms);
        due.len()
    }

    /// Looks for dead legs and forgets old farewells.
    pub fn sweep(&self, now: Instant) {
        for shard in &self.0.shards {
            for entry in lock(shard).values() {
                entry.sweep();
            }
        }
        lock(&self.0.farewells).retain(|_, (_, until)| *until > now);
    }

    fn shard(&self, sid: &str) -> MutexGuard<'_, HashMap<Box<str>, Arc<Entry>>> {
        // Only to spread the locks: the map inside hashes with a key.
        let sum = sid.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        lock(&self.0.shards[sum % SHARDS])
    }
}

impl Stay {
    /// What others see of this session.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The table that this session stands in.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The backend gave this session a recovery id.
    pub fn recovery_id(&mut self, pid: String) {
        if let Some(user) = self.entry.user() {
            lock(&self.registry.0.recovery).remember(Instant::now(), &pid, user);
            // A client that joins and leaves a namespace again and again gets a new one each time.
            if self.recovery_ids.len() == MAX_NAMESPACES {
                self.recovery_ids.pop_front();
            }
            self.recovery_ids.push_back(pid);
        }
    }

    /// Leaves the table before this guard is dropped: the sid is unknown from now on.
    pub fn leave(&self) {
        let mut shard = self.registry.shard(&self.entry.sid);
        if shard.get(&self.entry.sid).is_some_and(|e| e.number == self.entry.number) {
            shard.remove(&self.entry.sid);
        }
    }

    /// The client's next request shall be told why the session ended.
    pub fn say_farewell(&self, now: Instant, reason: Reason) {
        let mut farewells = lock(&self.registry.0.farewells);
        if farewells.len() < MAX_FAREWELLS {
            farewells.insert(self.entry.sid.clone(), (reason, now + FAREWELL));
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let inner = &self.registry.0;
        if let Some(ip) = self.waits.take() {
            lock(&inner.waiting).leave(ip);
        }
        self.forget_end();
        if let (Some(user), false) = (self.entry.user(), self.recovery_ids.is_empty()) {
            let mut recovery = lock(&inner.recovery);
            for pid in &self.recovery_ids {
                recovery.remember(Instant::now(), pid, user);
            }
        }
        self.leave();
        inner.tide.fell_from(inner.open.fetch_sub(1, Ordering::AcqRel));
    }
}

/// A panic elsewhere must not lock everybody out: the data under these locks is valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
