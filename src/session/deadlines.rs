//! When each session ends, by two clocks, in order. Pure: `now` is an argument.
//!
//! A session ends when the wall clock reaches its token's end, or when its budget of monotonic time
//! is spent, whichever comes first. So neither a clock that is set back nor one that stands still
//! during a suspend keeps anybody inside.

use crate::reason::Reason;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The end of one session, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Milliseconds since the epoch.
    pub wall_ms: u64,
    /// The same moment, as the monotonic clock saw it coming.
    pub mono: Instant,
    /// Why it ends then.
    pub reason: Reason,
}

impl End {
    /// The end of a session that begins now with a right until `ends_at` (unix seconds) and may live
    /// no longer than `max_lifetime`.
    pub fn of(now: Instant, now_ms: u64, ends_at: u64, max_lifetime: Duration) -> End {
        let cap_ms = u64::try_from(max_lifetime.as_millis()).unwrap_or(u64::MAX);
        let token_ms = ends_at.saturating_mul(1000).saturating_sub(now_ms);
        let (left, reason) =
            if token_ms <= cap_ms { (token_ms, Reason::TokenExpired) } else { (cap_ms, Reason::MaxSession) };
        let mono = now.checked_add(Duration::from_millis(left)).unwrap_or(now);
        End { wall_ms: now_ms.saturating_add(left), mono, reason }
    }
}

/// An ordered set of ends; `T` is what is handed back when one is due.
#[derive(Debug)]
pub struct Deadlines<T> {
    mono: BTreeMap<(Instant, u64), T>,
    wall: BTreeMap<(u64, u64), Instant>,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self { mono: BTreeMap::new(), wall: BTreeMap::new() }
    }
}

impl<T> Deadlines<T> {
    /// Adds the session with this number; `true` where it is now the first to end.
    pub fn insert(&mut self, number: u64, end: &End, value: T) -> bool {
        let first = self.mono.first_key_value().is_none_or(|((at, _), _)| end.mono < *at);
        self.mono.insert((end.mono, number), value);
        self.wall.insert((end.wall_ms, number), end.mono);
        first
    }

    /// Forgets a session that ended otherwise; `false` where it was due already.
    pub fn remove(&mut self, number: u64, end: &End) -> bool {
        self.wall.remove(&(end.wall_ms, number));
        self.mono.remove(&(end.mono, number)).is_some()
    }

    /// The next end by the monotonic clock.
    pub fn next(&self) -> Option<Instant> {
        self.mono.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out every session that is due by either clock. The wall entry of one that was due by the
    /// monotonic clock stays until [`Deadlines::remove`].
    pub fn due(&mut self, now: Instant, now_ms: u64) -> Vec<T> {
        let mut due = Vec::new();
        while let Some(entry) = self.mono.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        while let Some(entry) = self.wall.first_entry() {
            if entry.key().0 > now_ms {
                break;
            }
            let (_, number) = *entry.key();
            let mono = entry.remove();
            due.extend(self.mono.remove(&(mono, number)));
        }
        due
    }

    /// Sessions with a deadline ahead.
    pub fn len(&self) -> usize {
        self.mono.len()
    }

    /// True when nobody has a deadline.
    pub fn is_empty(&self) -> bool {
        self.mono.is_empty() && self.wall.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn end(now: Instant, secs: u64) -> End {
        End::of(now, 1_000_000, 1_000 + secs, DAY)
    }

    #[test]
    fn sessions_come_out_at_their_end_and_not_before() {
        let now = Instant::now();
        let mut d = Deadlines::default();
        assert!(d.insert(1, &end(now, 10), "a"));
        assert!(d.insert(2, &end(now, 5), "b"));
        assert!(!d.insert(3, &end(now, 7), "c"));
        assert!(d.due(now + Duration::from_millis(4_999), 1_004_999).is_empty());
        assert_eq!(d.due(now + Duration::from_secs(7), 1_007_000), ["b", "c"]);
        d.remove(1, &end(now, 10));
        assert!(d.is_empty());
    }

    #[test]
    fn p38_a_clock_set_forward_ends_sessions_and_one_set_back_keeps_nobody() {
        let now = Instant::now();
        let mut d = Deadlines::default();
        d.insert(1, &end(now, 10), "forward");
        assert_eq!(d.due(now, 1_000_000 + 3_600_000), ["forward"]);
        d.insert(2, &end(now, 10), "back");
        assert!(d.due(now + Duration::from_secs(9), 1_000_000 - 900_000).is_empty());
        assert_eq!(d.due(now + Duration::from_secs(10), 1_000_000 - 900_000), ["back"]);
        d.remove(2, &end(now, 10));
        assert!(d.is_empty());
    }

    #[test]
    fn j12_a_token_without_end_is_capped() {
        let now = Instant::now();
        let end = End::of(now, 1_000_000, u64::MAX, DAY);
        assert_eq!((end.mono, end.reason), (now + DAY, Reason::MaxSession));
        let past = End::of(now, 1_000_000, 5, DAY);
        assert_eq!((past.mono, past.reason), (now, Reason::TokenExpired));
    }

    /// A naive list that does the same.
    #[derive(Default)]
    struct Model(Vec<(u64, End)>);

    impl Model {
        fn due(&mut self, now: Instant, now_ms: u64) -> Vec<u64> {
            let (due, rest) = self.0.iter().partition(|(_, end)| end.mono <= now || end.wall_ms <= now_ms);
            self.0 = rest;
            let due: Vec<(u64, End)> = due;
            due.into_iter().map(|(number, _)| number).collect()
        }
    }

    proptest! {
        #[test]
        fn p38_two_clocks_going_anywhere_give_what_a_naive_list_gives(
            steps in proptest::collection::vec((0u8..4, 0u64..8, 0u64..100, -50i64..100), 0..80),
        ) {
            let start = Instant::now();
            let (mut now, mut now_ms) = (start, 1_000_000u64);
            let (mut deadlines, mut model) = (Deadlines::default(), Model::default());
            let mut ends = std::collections::HashMap::new();
            for (step, number, mono, wall) in steps {
                match step {
                    0 | 1 if !ends.contains_key(&number) => {
                        let end = End {
                            wall_ms: now_ms + mono,
                            mono: now + Duration::from_millis(mono),
                            reason: Reason::TokenExpired,
                        };
                        let first = model.0.iter().all(|(_, other)| end.mono < other.mono);
                        prop_assert_eq!(deadlines.insert(number, &end, number), first);
                        model.0.push((number, end));
                        ends.insert(number, end);
                    }
                    2 => if let Some(end) = ends.remove(&number) {
                        deadlines.remove(number, &end);
                        model.0.retain(|(n, _)| *n != number);
                    }
                    _ => {
                        now += Duration::from_millis(mono);
                        now_ms = now_ms.saturating_add_signed(wall);
                        let mut due = deadlines.due(now, now_ms);
                        let mut want = model.due(now, now_ms);
                        due.sort_unstable();
                        want.sort_unstable();
                        prop_assert_eq!(due, want);
                    }
                }
                prop_assert_eq!(deadlines.len(), model.0.len());
                prop_assert_eq!(deadlines.next(), model.0.iter().map(|(_, end)| end.mono).min());
            }
            for (number, end) in ends {
                deadlines.remove(number, &end);
            }
            prop_assert!(deadlines.is_empty());
        }
    }
}
