//! The last sessions that ended, for operators who ask what became of somebody.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Endings that are remembered of sessions with a user, and the same number of those without one: whoever may not in
/// does not make the others forgotten.
pub const REMEMBERED: usize = 1000;

/// Bytes of a detail that are kept.
const MAX_DETAIL: usize = 256;

/// A session that is over: what its record says.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its place among all, in the order in which they ended.
    pub number: u64,
    /// Its name in the log and for the backend.
    pub session: Arc<str>,
    /// The client's address.
    pub client: IpAddr,
    /// `polling` or `websocket`: how it began.
    pub transport: &'static str,
    /// Who, where that was known.
    pub subject: Option<Arc<str>>,
    /// Whose word it was.
    pub issuer: Option<Arc<str>>,
    /// `client`, `upstream` or `gate`.
    pub by: &'static str,
    /// The reason word, empty where the gate did not end it.
    pub reason: &'static str,
    /// For the operator only.
    pub detail: Option<Box<str>>,
    /// Messages to the backend.
    pub to_upstream: u64,
    /// Messages to the client.
    pub to_client: u64,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
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
    /// Remembers one, whose `number` is given here.
    pub fn note(&self, mut ended: Ended) {
        if let Some(detail) = &mut ended.detail
            && detail.len() > MAX_DETAIL
        {
            let end = (0..=MAX_DETAIL).rev().find(|at| detail.is_char_boundary(*at)).unwrap_or(0);
            *detail = detail[..end].into();
        }
        let mut rings = self.rings();
        rings.numbers += 1;
        ended.number = rings.numbers;
        let ring = if ended.subject.is_some() { &mut rings.users } else { &mut rings.strangers };
        // Freed by whoever is not waited for.
        let _oldest = if ring.len() >= REMEMBERED { ring.pop_front() } else { None };
        ring.push_back(ended);
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

    fn ended(subject: Option<&str>, detail: &str) -> Ended {
        Ended {
            number: 0,
            session: "name".into(),
            client: IpAddr::from([127, 0, 0, 1]),
            transport: "polling",
            subject: subject.map(Into::into),
            issuer: None,
            by: "gate",
            reason: "kicked",
            detail: Some(detail.into()),
            to_upstream: 0,
            to_client: 0,
            started: Instant::now(),
            ended: Instant::now(),
        }
    }

    fn numbers(page: &[Ended]) -> Vec<u64> {
        page.iter().map(|ended| ended.number).collect()
    }

    #[test]
    fn strangers_do_not_make_users_forgotten_and_both_are_bounded() {
        let endings = Endings::default();
        endings.note(ended(Some("ada"), ""));
        for _ in 0..2 * REMEMBERED {
            endings.note(ended(None, ""));
        }
        let all = endings.page(u64::MAX, usize::MAX, |_| true);
        assert_eq!((all.len(), all.last().map(|last| last.number)), (REMEMBERED + 1, Some(1)));
        for _ in 0..2 * REMEMBERED {
            endings.note(ended(Some("bob"), ""));
        }
        assert_eq!(endings.page(u64::MAX, usize::MAX, |_| true).len(), 2 * REMEMBERED);
        assert!(endings.page(u64::MAX, usize::MAX, |e| e.subject.as_deref() == Some("ada")).is_empty());
    }

    #[test]
    fn pages_go_back_in_time_through_both_kinds() {
        let endings = Endings::default();
        for subject in [Some("ada"), None, Some("bob"), None, Some("ada")] {
            endings.note(ended(subject, ""));
        }
        assert_eq!(numbers(&endings.page(u64::MAX, 2, |_| true)), [5, 4]);
        assert_eq!(numbers(&endings.page(4, 2, |_| true)), [3, 2]);
        assert_eq!(numbers(&endings.page(2, 2, |_| true)), [1]);
        assert_eq!(numbers(&endings.page(u64::MAX, 9, |e| e.subject.as_deref() == Some("ada"))), [5, 1]);
    }

    #[test]
    fn a_long_detail_is_cut_between_two_characters() {
        let endings = Endings::default();
        endings.note(ended(None, &format!("x{}", "ä".repeat(1000))));
        let page = endings.page(u64::MAX, 1, |_| true);
        assert_eq!(page[0].detail.as_deref(), Some(&*format!("x{}", "ä".repeat(127))));
    }
}
