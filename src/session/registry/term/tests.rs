use super::*;
use crate::protocol::engineio::Version;
use crate::session::registry::revoke::Card;
use crate::session::registry::{Capacity, Newcomer};
use std::sync::Barrier;

const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);

fn registry(habits: Habits) -> Registry {
    Registry::with(Capacity { sessions: 1000, unauthenticated: 1000, unauthenticated_per_ip: 1000 }, habits)
}

fn inside(registry: &Registry, start: Instant, seconds: u64) -> Stay {
    let card = Card::new("name".into(), [192, 0, 2, 1].into(), 1_000);
    let newcomer =
        Newcomer { sid: "a", version: Version::V4, b64: false, credential: None, mailbox: None, card, waits: None };
    let mut stay = registry.enter(newcomer).unwrap();
    stay.admit(User { issuer: "idp".into(), subject: "alice".into() }, end(start, seconds));
    stay
}

fn end(start: Instant, seconds: u64) -> End {
    End::of(start, 1_000_000, 1_000 + seconds, DAY)
}

/// Reaps at so many seconds behind the start.
fn reap(registry: &Registry, start: Instant, seconds: u64) -> usize {
    registry.reap(start + SECOND * u32::try_from(seconds).unwrap(), 1_000_000 + seconds * 1000)
}

#[test]
fn a_moved_end_is_the_only_one() {
    let (registry, start) = (registry(Habits::default()), Instant::now());
    let stay = inside(&registry, start, 10);
    let entry = stay.entry().clone();
    assert_eq!(registry.extend(&entry, |_| end(start, 20)), Ok(end(start, 20)));
    assert_eq!(entry.ends(start), Some((1_020, 20)));
    assert_eq!((reap(&registry, start, 19), entry.ended()), (0, None));
    assert_eq!((reap(&registry, start, 20), entry.ended()), (1, Some(Reason::TokenExpired)));
    assert_eq!(registry.extend(&entry, |_| end(start, 30)), Err(Reason::TokenExpired));
    drop(stay);
    assert!(lock(&registry.0.deadlines).is_empty() && lock(&registry.0.warnings).is_empty());
    assert_eq!(registry.extend(&entry, |_| end(start, 30)), Err(Reason::TokenExpired), "it is gone");
    assert!(lock(&registry.0.deadlines).is_empty());
}

#[test]
fn nobody_without_an_end_or_who_has_left_gets_one() {
    let (registry, start) = (registry(Habits::default()), Instant::now());
    let stay = inside(&registry, start, 10);
    let entry = stay.entry().clone();
    drop(stay);
    assert_eq!(registry.extend(&entry, |_| end(start, 20)), Err(Reason::CredentialMissing));
    assert!(registry.is_empty() && registry.next_end().is_none());
}

#[test]
fn a_refresh_racing_the_cut_has_exactly_one_outcome() {
    for round in 0..2_000 {
        let (registry, start) = (registry(Habits::default()), Instant::now());
        let stay = inside(&registry, start, 10);
        let (entry, barrier) = (stay.entry().clone(), Barrier::new(2));
        let granted = std::thread::scope(|scope| {
            let reaper = scope.spawn(|| {
                barrier.wait();
                reap(&registry, start, 10)
            });
            barrier.wait();
            let granted = registry.extend(&entry, |_| end(start, 20)).is_ok();
            assert_eq!(reaper.join().unwrap(), usize::from(!granted), "round {round}");
            granted
        });
        assert_eq!(entry.ended().is_none(), granted, "round {round}");
    }
}

#[test]
fn a_warning_comes_once_for_each_end_and_no_earlier_than_half_way() {
    let habits = Habits { warn_before: SECOND * 30, ..Habits::default() };
    let (registry, start) = (registry(habits), Instant::now());
    let stay = inside(&registry, start, 100);
    let entry = stay.entry().clone();
    let warned = |seconds| {
        reap(&registry, start, seconds);
        let warned = entry.called() & WARN != 0;
        entry.answered(WARN);
        warned
    };
    assert!(!warned(69) && warned(70) && !warned(99));
    registry.extend(&entry, |_| end(start, 200)).unwrap();
    assert!(!warned(169) && warned(170));
    // One that is not told yet is not told of an end that is no more.
    entry.call(WARN);
    registry.extend(&entry, |_| end(start, 20)).unwrap();
    assert_eq!(entry.called(), 0);
    assert!(!warned(9) && warned(11) && entry.ended().is_none());
    assert_eq!(reap(&registry, start, 20), 1);
    drop(stay);
    assert!(registry.next_end().is_none() && lock(&registry.0.warnings).is_empty());
}

#[test]
fn who_says_nothing_is_shown_out_within_a_quarter_more() {
    let registry = registry(Habits { idle_timeout: SECOND * 2, ..Habits::default() });
    assert_eq!(registry.idle_sweep(), Some(SECOND / 2));
    let stay = inside(&registry, Instant::now(), 100);
    let entry = stay.entry();
    for _ in 0..20 {
        registry.sweep_idle();
        registry.sweep_idle();
        entry.active();
    }
    for _ in 0..4 {
        registry.sweep_idle();
        assert_eq!(entry.ended(), None);
    }
    registry.sweep_idle();
    assert_eq!(entry.ended(), Some(Reason::Idle));
    assert_eq!(Habits { idle_timeout: DAY, ..Habits::default() }.idle_sweep(), Some(SWEEP));
    assert_eq!(Habits::default().idle_sweep(), None);
}
