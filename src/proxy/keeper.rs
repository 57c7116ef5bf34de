//! Asks again, while sockets live, those who vouched for them; ends the sockets whose right is gone.
//!
//! One question for equal credentials, whatever the number of their sockets. Sessions of plain JWTs are not in here.

use crate::auth::cache::Fingerprint;
use crate::auth::identity::{Identity, NEVER};
use crate::auth::vouch::{Asked, Hold, Voucher};
use crate::gate::admission::User;
use crate::proxy::context::Context;
use crate::proxy::timers::{at, now};
use crate::random;
use crate::reason::Reason;
use crate::session::registry::Entry;
use crate::vouch::{Again, Pace};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Questions on their way at once to one who is asked: whoever hangs keeps nobody else waiting.
const AT_ONCE: usize = 64;

/// After a question without answer the next one comes no later.
const RETRY: Duration = Duration::from_secs(2);

/// Just behind the end of a stored session, when the store has forgotten it.
const BEHIND: Duration = Duration::from_millis(5);

type Key = (Voucher, Fingerprint, Option<usize>);

/// Everybody who is asked about.
#[derive(Default)]
pub struct Keeper {
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Default)]
struct State {
    last: u64,
    numbers: HashMap<Key, u64>,
    watched: HashMap<u64, Watched>,
    queues: HashMap<Voucher, Queue>,
}

/// What one voucher is to be asked.
#[derive(Default)]
struct Queue {
    due: BTreeSet<(Instant, u64)>,
    /// Questions on their way.
    asked: usize,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.asked < AT_ONCE
    }
}

/// One credential and the sockets that live by it.
struct Watched {
    hold: Arc<Hold>,
    /// Each with the turn in which it lives by this credential.
    sessions: Vec<(Weak<Entry>, u32)>,
    /// Until when the last answer holds.
    until: Option<Instant>,
    /// Since when nobody answers.
    failing: Option<Instant>,
    due: Instant,
}

impl Keeper {
    /// A session lives by this identity from now on.
    pub fn watch(&self, entry: &Arc<Entry>, identity: &Identity, pace: Pace, now: Instant, unix: u64) {
        let Some(hold) = &identity.hold else { return };
        let mut state = self.state();
        let state = &mut *state;
        let key = key(hold);
        let number = *state.numbers.entry(key).or_insert_with(|| {
            state.last = state.last.wrapping_add(1);
            state.last
        });
        let until = until(identity, now, unix);
        let watched = state.watched.entry(number).or_insert_with(|| {
            let due = next(hold.voucher, pace, until, now);
            state.queues.entry(hold.voucher).or_default().due.insert((due, number));
            Watched { hold: hold.clone(), sessions: Vec::new(), until, failing: None, due }
        });
        // Kept short where the same client comes and goes.
        if watched.sessions.len() == watched.sessions.capacity() {
            watched.sessions.retain(|session| living(session).is_some());
        }
        watched.sessions.push((Arc::downgrade(entry), entry.turn()));
        let queue = state.queues.get(&hold.voucher);
        if queue.and_then(|queue| queue.due.first()).is_some_and(|(_, first)| *first == number) {
            self.earlier.notify_one();
        }
    }

    /// Credentials that are watched.
    pub fn len(&self) -> usize {
        self.state().watched.len()
    }

    /// True where nobody is watched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn next_due(&self) -> Option<Instant> {
        let state = self.state();
        let ready = state.queues.values().filter(|queue| queue.has_room());
        ready.filter_map(|queue| queue.due.first()).map(|(at, _)| *at).min()
    }

    /// Takes the questions that are due. Whoever has no socket any more is forgotten.
    fn take(&self, now: Instant) -> Vec<(u64, Arc<Hold>)> {
        let mut state = self.state();
        let mut taken = Vec::new();
        let vouchers: Vec<_> = state.queues.keys().copied().collect();
        vouchers.into_iter().for_each(|voucher| state.take(voucher, now, &mut taken));
        taken
    }

    /// Acts upon an answer; returns who has to go and why.
    fn answered(&self, number: u64, answer: Again, pace: Pace, now: Instant, unix: u64) -> Vec<(Arc<Entry>, Reason)> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(watched) = state.watched.get_mut(&number) else { return Vec::new() };
        if let Some(queue) = state.queues.get_mut(&watched.hold.voucher) {
            queue.asked = queue.asked.saturating_sub(1);
        }
        let all = |watched: &Watched| watched.sessions.iter().filter_map(living).collect::<Vec<_>>();
        let over = watched.until.is_some_and(|until| until <= now);
        let reason = match answer {
            Again::Holds(identity) => {
                let user = User::of(&identity);
                watched.failing = None;
                watched.until = until(&identity, now, unix);
                let strangers =
                    all(watched).into_iter().filter(|entry| entry.user().is_some_and(|known| *known != user));
                let strangers = strangers.map(|entry| (entry, Reason::SubjectMismatch)).collect();
                let due = next(watched.hold.voucher, pace, watched.until, now);
                state.again(number, due);
                return strangers;
            }
            // What went when its time was over was not taken from anybody.
            Again::Over(Reason::LoggedOut, _) if over => Reason::TokenExpired,
            Again::Over(reason, _) => reason,
            // A call-out has said itself how long its word holds.
            Again::Unknown(_) if over && matches!(watched.hold.voucher, Voucher::Callout(_)) => Reason::TokenExpired,
            Again::Unknown(_) => {
                // From when it was due: that a queue is long gives nobody more time.
                let since = *watched.failing.get_or_insert(watched.due);
                let end = since.checked_add(pace.grace).unwrap_or(now);
                if now < end {
                    let stated = watched.until.filter(|_| matches!(watched.hold.voucher, Voucher::Callout(_)));
                    let due = (now + pace.recheck.min(RETRY)).min(end).min(stated.unwrap_or(end));
                    state.again(number, due);
                    return Vec::new();
                }
                Reason::KeysUnavailable
            }
        };
        let gone = all(watched).into_iter().map(|entry| (entry, reason)).collect();
        state.forget(number);
        gone
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, voucher: Voucher, now: Instant, taken: &mut Vec<(u64, Arc<Hold>)>) {
        while let Some(queue) = self.queues.get_mut(&voucher).filter(|queue| queue.has_room())
            && let Some((at, number)) = queue.due.first().copied()
            && at <= now
        {
            queue.due.remove(&(at, number));
            let Some(watched) = self.watched.get_mut(&number) else { continue };
            watched.sessions.retain(|session| living(session).is_some());
            if watched.sessions.is_empty() {
                self.forget(number);
            } else {
                queue.asked += 1;
                taken.push((number, watched.hold.clone()));
            }
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(watched) = self.watched.remove(&number) {
            if let Some(queue) = self.queues.get_mut(&watched.hold.voucher) {
                queue.due.remove(&(watched.due, number));
            }
            self.numbers.remove(&key(&watched.hold));
        }
    }

    fn again(&mut self, number: u64, due: Instant) {
        if let Some(watched) = self.watched.get_mut(&number) {
            watched.due = due;
            self.queues.entry(watched.hold.voucher).or_default().due.insert((due, number));
        }
    }
}

/// A session that is there, and was not refreshed with another credential.
fn living((session, turn): &(Weak<Entry>, u32)) -> Option<Arc<Entry>> {
    session.upgrade().filter(|entry| entry.turn() == *turn)
}

/// Call-outs may see more of a request than its token: only what is shared is known to be equal.
fn key(hold: &Hold) -> Key {
    (hold.voucher, hold.digest, hold.asked.as_ref().map(|asked| std::ptr::from_ref::<Asked>(asked) as usize))
}

fn until(identity: &Identity, now: Instant, unix: u64) -> Option<Instant> {
    let left = (identity.expires_at != NEVER).then(|| identity.expires_at.saturating_sub(unix))?;
    now.checked_add(Duration::from_secs(left))
}

/// When to ask next: within `recheck`, spread; before a word's end, or just behind that of a stored session.
fn next(voucher: Voucher, pace: Pace, until: Option<Instant>, now: Instant) -> Instant {
    let mut byte = [0u8; 1];
    let _ = random::fill(&mut byte);
    // 0.6 to 0.9: the answer takes its time too.
    let spread = now + pace.recheck.mul_f64(0.6 + f64::from(byte[0]) / 255.0 * 0.3);
    let Some(until) = until else { return spread };
    let left = until.saturating_duration_since(now);
    let end = match voucher {
        Voucher::Store(_) => until + BEHIND,
        // Its end is the session's.
        Voucher::Introspection(_) => return spread,
        Voucher::Callout(_) if left > Duration::from_secs(1) => now + left.mul_f64(0.8),
        Voucher::Callout(_) => until,
    };
    spread.min(end)
}

/// Runs for as long as it is polled.
pub async fn run(context: Arc<Context>) {
    let keeper = &context.keeper;
    let mut questions = JoinSet::new();
    let mut asked = HashMap::new();
    loop {
        for (number, hold) in keeper.take(now()) {
            let (context, voucher) = (context.clone(), hold.voucher);
            let question = async move { context.vouchers.again(&hold, context.clock.unix()).await };
            asked.insert(questions.spawn(question).id(), (number, voucher));
        }
        let next = keeper.next_due();
        tokio::select! {
            () = at(next) => {}
            () = keeper.earlier.notified() => {}
            Some(done) = questions.join_next_with_id(), if !questions.is_empty() => {
                let (id, answer) = match done {
                    Ok(done) => done,
                    // One that broke says nothing; its sessions are asked about again.
                    Err(broken) => (broken.id(), Again::Unknown("the question broke".into())),
                };
                let Some((number, voucher)) = asked.remove(&id) else { continue };
                let why = match &answer {
                    Again::Over(_, why) | Again::Unknown(why) => Some(why.clone()),
                    Again::Holds(_) => None,
                };
                let pace = context.vouchers.pace(voucher);
                for (entry, reason) in keeper.answered(number, answer, pace, now(), context.clock.unix()) {
                    tracing::debug!(reason = reason.word(), why, "no longer vouched for");
                    entry.end(reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
