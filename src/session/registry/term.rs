//! Until when a session may stay: its end, the warning before it, how both are moved, and who said nothing for how
//! long.

use crate::gate::admission::User;
use crate::gate::refresh::Pace;
use crate::reason::Reason;
use crate::session::deadlines::End;
use crate::session::reaper::SWEEP;
use crate::session::registry::{Entry, Registry, Stay, lock};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The client is to be told that its end is near.
pub const WARN: u8 = 1;

/// The backend is to be told of a new end.
pub const NOTICE: u8 = 2;

/// What sessions are shown out or called for beside their end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// So long before its end a session is called to warn its client; zero: never.
    pub warn_before: Duration,
    /// A session without packets of the application for so long is over; zero: never.
    pub idle_timeout: Duration,
}

impl Habits {
    /// How often to look for idle sessions: often enough that none stays for a quarter longer.
    pub fn idle_sweep(&self) -> Option<Duration> {
        let shortest = Duration::from_millis(100);
        (!self.idle_timeout.is_zero()).then(|| (self.idle_timeout / 4).clamp(shortest, SWEEP))
    }

    /// Sweeps that an idle session lives through.
    fn patience(&self, every: Duration) -> u32 {
        u32::try_from(self.idle_timeout.as_millis().div_ceil(every.as_millis().max(1))).unwrap_or(u32::MAX)
    }

    /// When to warn of an end: no earlier than half-way, so that short rights leave some peace.
    fn warning(&self, now: Instant, end: &End) -> Option<End> {
        let left = end.mono.saturating_duration_since(now);
        let before = self.warn_before.min(left / 2);
        let before_ms = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        (!before.is_zero()).then(|| End {
            wall_ms: end.wall_ms - before_ms.min(end.wall_ms),
            mono: end.mono - before,
            ..*end
        })
    }
}

/// One session's place in time.
#[derive(Default)]
pub(super) struct Term {
    end: Option<End>,
    /// When its right began, from where `max_lifetime` counts.
    since: Option<Instant>,
    warning: Option<Box<End>>,
    pace: Option<Box<Pace>>,
}

impl Entry {
    /// Its name in the log.
    pub fn name(&self) -> &str {
        self.card.name()
    }

    /// When the session ends, in unix seconds, and how many seconds that is from now.
    pub fn ends(&self, now: Instant) -> Option<(u64, u64)> {
        let end = lock(&self.term).end?;
        let left = end.mono.saturating_duration_since(now);
        Some((end.wall_ms / 1000, left.as_secs() + u64::from(left.subsec_millis() >= 500)))
    }

    /// Which of its credentials the session lives by: another number with each refresh.
    pub fn turn(&self) -> u32 {
        self.turn.load(Ordering::Acquire)
    }

    /// Whether the client may ask for a later end now; counts.
    pub fn may_refresh(&self, now: Instant) -> bool {
        lock(&self.term).pace.get_or_insert_default().take(now)
    }

    /// Asks the task that owns the session for something.
    pub fn call(&self, what: u8) {
        self.calls.fetch_or(what, Ordering::AcqRel);
        self.waker.wake();
    }

    /// What it is asked for.
    #[inline]
    pub fn called(&self) -> u8 {
        self.calls.load(Ordering::Acquire)
    }

    /// It is done.
    pub fn answered(&self, what: u8) {
        self.calls.fetch_and(!what, Ordering::AcqRel);
    }

    /// For the one task that owns the session: something of `what` is asked for.
    pub fn poll_called(&self, cx: &mut Context<'_>, what: u8) -> Poll<u8> {
        self.waker.register(cx.waker());
        match self.called() & what {
            0 => Poll::Pending,
            called => Poll::Ready(called),
        }
    }

    /// The application said something.
    #[inline]
    pub fn active(&self) {
        self.idle.store(0, Ordering::Relaxed);
    }
}

impl Stay {
    /// The session has a user and an end from now on.
    pub fn admit(&mut self, user: User, end: End) {
        let _ = self.entry.user.set(user);
        if let Some(ip) = self.waits.take() {
            lock(&self.registry.0.waiting).leave(ip);
        }
        let mut term = lock(&self.entry.term);
        self.registry.withdraw(&self.entry, &mut term);
        let now = now();
        term.since = Some(now);
        self.entry.active();
        self.registry.place(&self.entry, &mut term, end, now);
    }

    pub(super) fn forget_end(&self) {
        self.registry.withdraw(&self.entry, &mut lock(&self.entry.term));
    }
}

impl Registry {
    /// Moves the end of a session that is still inside; `end` is told when its right began. What is due already is not
    /// moved: of a refresh and a cut at the same time exactly one happens.
    ///
    /// # Errors
    /// Why the session ends instead.
    pub fn extend(&self, entry: &Arc<Entry>, end: impl FnOnce(Instant) -> End) -> Result<End, Reason> {
        let mut term = lock(&entry.term);
        if let Some(reason) = entry.ended() {
            return Err(reason);
        }
        let (Some(old), Some(since)) = (term.end, term.since) else { return Err(Reason::CredentialMissing) };
        if !self.withdraw(entry, &mut term) {
            return Err(old.reason);
        }
        entry.answered(WARN);
        entry.turn.fetch_add(1, Ordering::AcqRel);
        let end = end(since);
        self.place(entry, &mut term, end, now());
        Ok(end)
    }

    /// The next end or warning, for the reaper.
    pub fn next_end(&self) -> Option<Instant> {
        let (end, warning) = (lock(&self.0.deadlines).next(), lock(&self.0.warnings).next());
        end.into_iter().chain(warning).min()
    }

    /// Calls everybody whose end is near.
    pub(super) fn warn(&self, now: Instant, now_ms: u64) {
        let due = lock(&self.0.warnings).due(now, now_ms);
        for entry in due {
            entry.call(WARN);
        }
    }

    /// How often [`Registry::sweep_idle`] is to be called.
    pub fn idle_sweep(&self) -> Option<Duration> {
        self.0.habits.idle_sweep()
    }

    /// Shows out everybody whose application said nothing for too long.
    pub fn sweep_idle(&self) {
        let Some(every) = self.idle_sweep() else { return };
        let patience = self.0.habits.patience(every);
        for shard in &self.0.shards {
            for entry in lock(shard).values().filter(|entry| entry.user().is_some()) {
                let quiet = entry.idle.load(Ordering::Relaxed).saturating_add(1);
                entry.idle.store(quiet, Ordering::Relaxed);
                if quiet > patience {
                    entry.end(Reason::Idle);
                }
            }
        }
    }

    fn place(&self, entry: &Arc<Entry>, term: &mut Term, end: End, now: Instant) {
        let inner = &self.0;
        let mut first = lock(&inner.deadlines).insert(entry.number, &end, (entry.clone(), end.reason));
        term.end = Some(end);
        if let Some(warning) = inner.habits.warning(now, &end) {
            first |= lock(&inner.warnings).insert(entry.number, &warning, entry.clone());
            term.warning = Some(Box::new(warning));
        }
        if first {
            inner.earlier.notify_one();
        }
    }

    /// `false`: the end was due, or there was none.
    fn withdraw(&self, entry: &Entry, term: &mut Term) -> bool {
        if let Some(warning) = term.warning.take() {
            lock(&self.0.warnings).remove(entry.number, &warning);
        }
        term.end.take().is_some_and(|end| lock(&self.0.deadlines).remove(entry.number, &end))
    }
}

/// The runtime's clock, which timers are set by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
