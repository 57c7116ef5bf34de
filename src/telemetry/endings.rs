//! The last sessions that ended, for operators who ask what became of somebody.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::telemetry::facts::Facts;

/// Endings that are remembered of sessions with a user, and the same number of those without one: whoever may not in
/// does not make the others forgotten.
pub const REMEMBERED: usize = 1000;

/// Bytes of a detail that are kept.
const MAX_DETAIL: usize = 256;

/// A session that is over.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its place among all, in the order in which they ended.
    pub number: u64,
    /// When it ended.
    pub ended: Instant,
    /// What its record says.
    pub facts: Facts,
}

/// The last of them.
#[derive(Debug, Default)]
pub struct Endings(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    numbers: u64,
    users: VecDeque<Ended>,
    strangers: VecDeque<Ended>,
}

impl Endings {
    /// Remembers one that has just ended.
    pub fn note(&self, mut facts: Facts, ended: Instant) {
        if let Some(detail) = &mut facts.detail {
            if detail.len() > MAX_DETAIL {
                detail.truncate((0..=MAX_DETAIL).rev().find(|at| detail.is_char_boundary(*at)).unwrap_or(0));
            }
            detail.shrink_to_fit();
        }
        let mut rings = self.rings();
        rings.numbers += 1;
        let number = rings.numbers;
        let ring = if facts.subject.is_some() { &mut rings.users } else { &mut rings.strangers };
        let oldest = if ring.len() >= REMEMBERED { ring.pop_front() } else { None };
        ring.push_back(Ended { number, ended, facts });
        // Freed when nobody has to wait for that.
        drop(rings);
        drop(oldest);
    }

    /// The last `limit` before the number `before` of which `wanted` says so, the last one first.
    pub fn page(&self, before: u64, limit: usize, wanted: impl Fn(&Ended) -> bool) -> Vec<Ended> {
        let rings = self.rings();
        let of = |ring: &VecDeque<Ended>| -> Vec<Ended> {
            ring.iter().rev().filter(|e| e.number < before && wanted(e)).take(limit).cloned().collect()
        };
        let mut page = of(&rings.users);
        page.extend(of(&rings.strangers));
        drop(rings);
        page.sort_unstable_by_key(|ended| std::cmp::Reverse(ended.number));
        page.truncate(limit);
        page
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(endings: &Endings, subject: Option<&str>, detail: &str) {
        let mut facts = Facts::new("name".into(), [127, 0, 0, 1].into(), "polling");
        facts.subject = subject.map(Into::into);
        facts.detail = Some(detail.into());
        endings.note(facts, Instant::now());
    }

    fn numbers(page: &[Ended]) -> Vec<u64> {
        page.iter().map(|ended| ended.number).collect()
    }

    #[test]
    fn strangers_do_not_make_users_forgotten_and_both_are_bounded() {
        let endings = Endings::default();
        note(&endings, Some("ada"), "");
        for _ in 0..2 * REMEMBERED {
            note(&endings, None, "");
        }
        let all = endings.page(u64::MAX, usize::MAX, |_| true);
        assert_eq!((all.len(), all.last().map(|last| last.number)), (REMEMBERED + 1, Some(1)));
        for _ in 0..2 * REMEMBERED {
            note(&endings, Some("bob"), "");
        }
        assert_eq!(endings.page(u64::MAX, usize::MAX, |_| true).len(), 2 * REMEMBERED);
        assert!(endings.page(u64::MAX, usize::MAX, |e| e.facts.subject.as_deref() == Some("ada")).is_empty());
    }

    #[test]
    fn pages_go_back_in_time_through_both_kinds() {
        let endings = Endings::default();
        for subject in [Some("ada"), None, Some("bob"), None, Some("ada")] {
            note(&endings, subject, "");
        }
        assert_eq!(numbers(&endings.page(u64::MAX, 2, |_| true)), [5, 4]);
        assert_eq!(numbers(&endings.page(4, 2, |_| true)), [3, 2]);
        assert_eq!(numbers(&endings.page(2, 2, |_| true)), [1]);
        assert_eq!(numbers(&endings.page(u64::MAX, 9, |e| e.facts.subject.as_deref() == Some("ada"))), [5, 1]);
    }

    #[test]
    fn a_long_detail_is_cut_between_two_characters() {
        let endings = Endings::default();
        note(&endings, None, &format!("x{}", "ä".repeat(1000)));
        let page = endings.page(u64::MAX, 1, |_| true);
        assert_eq!(page[0].facts.detail.as_deref(), Some(&*format!("x{}", "ä".repeat(127))));
    }
}
