//! When a session ends and why: its time, the reaper, silence, farewells.

use super::*;
use crate::session::clock::Clock;
use crate::session::reaper;
use futures_util::task::noop_waker;
use std::future::poll_fn;

#[test]
fn admitting_again_moves_the_end_and_leaves_nothing_behind() {
    let registry = Registry::new(ROOMY);
    let now = Instant::now();
    let mut stay = registry.enter(stranger("a", "192.0.2.1")).unwrap();
    stay.admit(user("alice"), ends_in(now, 10));
    stay.admit(user("alice"), ends_in(now, 20));
    assert_eq!((registry.deadlines(), registry.unauthenticated()), (1, 0));
    assert_eq!(registry.reap(now + Duration::from_secs(10), 1_010_000), 0);
    assert_eq!(registry.reap(now + Duration::from_secs(20), 1_020_000), 1);
    drop(stay);
    assert_empty(&registry);
}

#[test]
fn p38_reaping_ends_whoever_is_due_in_order_and_nobody_else() {
    let registry = Registry::new(ROOMY);
    let now = Instant::now();
    let mut stays = Vec::new();
    for (sid, seconds) in [("c", 30), ("a", 10), ("b", 20), ("z", 90_000)] {
        let mut stay = registry.enter(newcomer(sid)).unwrap();
        stay.admit(user(sid), ends_in(now, seconds));
        stays.push(stay);
    }
    let ended = || {
        let mut sids: Vec<_> =
            registry.all().iter().filter(|e| e.ended().is_some()).map(|e| e.sid().to_owned()).collect();
        sids.sort();
        sids
    };
    assert_eq!(registry.next_end(), Some(now + Duration::from_secs(10)));
    assert_eq!(registry.reap(now + Duration::from_millis(9_999), 1_009_999), 0);
    assert_eq!(registry.reap(now + Duration::from_secs(10), 1_010_000), 1);
    assert_eq!(ended(), ["a"]);
    assert_eq!(registry.next_end(), Some(now + Duration::from_secs(20)));
    // The wall clock was set forward by an hour.
    assert_eq!(registry.reap(now + Duration::from_secs(11), 1_011_000 + 3_600_000), 2);
    assert_eq!(ended(), ["a", "b", "c"]);
    // It was set back by an hour; the day of monotonic time ends the last one.
    assert_eq!(registry.reap(now + DAY, 0), 1);
    let reasons: Vec<_> = stays.iter().map(|s| s.entry().ended().unwrap()).collect();
    assert_eq!(reasons, [Reason::TokenExpired, Reason::TokenExpired, Reason::TokenExpired, Reason::MaxSession]);
    drop(stays);
    assert_empty(&registry);
}

#[test]
fn the_first_reason_stands_and_wakes_the_sessions_task() {
    let registry = Registry::new(ROOMY);
    for reason in Reason::ALL {
        let stay = registry.enter(newcomer("a")).unwrap();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(stay.entry().poll_ended(&mut cx).is_pending());
        stay.entry().end(*reason);
        stay.entry().end(Reason::Kicked);
        stay.entry().end(Reason::Draining);
        assert_eq!(stay.entry().poll_ended(&mut cx), Poll::Ready(*reason));
        assert_eq!(stay.entry().ended(), Some(*reason));
    }
}

#[tokio::test]
async fn an_end_that_comes_while_the_task_waits_wakes_it() {
    let registry = Registry::new(ROOMY);
    let stay = registry.enter(newcomer("a")).unwrap();
    let entry = stay.entry().clone();
    let waiter = tokio::spawn(async move { poll_fn(|cx| entry.poll_ended(cx)).await });
    tokio::task::yield_now().await;
    registry.find("a").unwrap().end(Reason::Kicked);
    assert_eq!(waiter.await.unwrap(), Reason::Kicked);
}

#[test]
fn a_farewell_is_told_once_and_forgotten_after_a_minute() {
    let registry = Registry::new(ROOMY);
    let now = Instant::now();
    let stay = registry.enter(newcomer("a")).unwrap();
    stay.say_farewell(now, Reason::TokenExpired);
    drop(stay);
    assert_eq!(registry.farewell("b"), None);
    assert_eq!(registry.farewell("a"), Some(Reason::TokenExpired));
    assert_eq!(registry.farewell("a"), None);
    registry.enter(newcomer("a")).unwrap().say_farewell(now, Reason::Draining);
    registry.sweep(now + FAREWELL - Duration::from_millis(1));
    assert_eq!(lock(&registry.0.farewells).len(), 1);
    registry.sweep(now + FAREWELL);
    assert_eq!(registry.farewell("a"), None);
}

#[test]
fn p31_farewells_are_bounded() {
    let registry = Registry::new(Capacity { sessions: usize::MAX, ..ROOMY });
    for i in 0..MAX_FAREWELLS + 10 {
        registry.enter(newcomer(&i.to_string())).unwrap().say_farewell(Instant::now(), Reason::Idle);
    }
    assert_eq!(lock(&registry.0.farewells).len(), MAX_FAREWELLS);
}

#[test]
fn a_leg_that_is_silent_for_too_long_ends_the_session_and_one_that_speaks_does_not() {
    let sweep = Duration::from_secs(5);
    let quiet = Duration::from_secs(45);
    for silent in ["client", "upstream", "nobody"] {
        let registry = Registry::new(ROOMY);
        let stay = registry.enter(newcomer("a")).unwrap();
        let entry = stay.entry();
        let mut at = Instant::now();
        for _ in 0..1000 {
            registry.sweep(at);
        }
        assert_eq!(entry.ended(), None, "not watched yet");
        entry.heard_client();
        entry.heard_upstream();
        entry.watch(quiet, sweep);
        let begun = at;
        let mut ended_after = None;
        for _ in 0..100 {
            at += sweep;
            // Each leg speaks as rarely as it may.
            if at.duration_since(begun).as_secs().is_multiple_of(45) {
                if silent != "client" {
                    entry.heard_client();
                }
                if silent != "upstream" {
                    entry.heard_upstream();
                }
            }
            registry.sweep(at);
            if entry.ended().is_some() {
                ended_after.get_or_insert(at.duration_since(begun));
            }
        }
        match silent {
            "nobody" => assert_eq!(ended_after, None),
            _ => {
                let after = ended_after.unwrap();
                assert!(after > quiet && after <= quiet + 2 * sweep, "{silent}: {after:?}");
                assert_eq!(entry.ended(), Some(Reason::Idle));
            }
        }
    }
}

#[test]
fn a_long_heartbeat_is_watched_as_well() {
    let registry = Registry::new(ROOMY);
    let stay = registry.enter(newcomer("a")).unwrap();
    let hour = Duration::from_secs(3600);
    stay.entry().watch(hour, Duration::from_secs(5));
    for _ in 0..720 {
        registry.sweep(Instant::now());
    }
    assert_eq!(stay.entry().ended(), None);
    for _ in 0..10 {
        registry.sweep(Instant::now());
    }
    assert_eq!(stay.entry().ended(), Some(Reason::Idle));
    let ages = Duration::from_secs(u64::MAX);
    stay.entry().watch(ages, Duration::ZERO);
}

/// A session of its own end, watched by the reaper; returns the time it was ended at and why.
async fn ended_at(registry: &Registry, sid: &str, end: End) -> (tokio::time::Instant, Reason) {
    let mut stay = registry.enter(newcomer(sid)).unwrap();
    stay.admit(user(sid), end);
    let entry = stay.entry().clone();
    let reason = poll_fn(|cx| entry.poll_ended(cx)).await;
    (tokio::time::Instant::now(), reason)
}

fn off_by(at: tokio::time::Instant, wanted: Instant) -> Duration {
    let at = at.into_std();
    at.checked_duration_since(wanted).unwrap_or_else(|| wanted.duration_since(at))
}

#[tokio::test(start_paused = true)]
async fn p38_the_reaper_ends_sessions_at_their_end_also_one_that_comes_later_and_ends_earlier() {
    let (registry, clock) = (Registry::new(ROOMY), Clock::default());
    let reaper = tokio::spawn(reaper::run(registry.clone(), clock.clone()));
    let start = tokio::time::Instant::now().into_std();
    let end = |ms: u64| End {
        wall_ms: clock.unix_ms() + 1_000_000,
        mono: start + Duration::from_millis(ms),
        reason: Reason::TokenExpired,
    };
    let later = async {
        // The reaper sleeps towards the first one by now.
        tokio::task::yield_now().await;
        ended_at(&registry, "b", end(300)).await
    };
    let ((first, _), (second, why)) = tokio::join!(ended_at(&registry, "a", end(90_250)), later);
    assert!(off_by(second, start + Duration::from_millis(300)) <= Duration::from_millis(2));
    assert!(off_by(first, start + Duration::from_millis(90_250)) <= Duration::from_millis(2));
    assert_eq!(why, Reason::TokenExpired);
    assert_empty(&registry);
    reaper.abort();
}

#[tokio::test(start_paused = true)]
async fn p38_the_reaper_notices_a_wall_clock_that_was_set_within_a_second() {
    let (registry, clock) = (Registry::new(ROOMY), Clock::default());
    let reaper = tokio::spawn(reaper::run(registry.clone(), clock.clone()));
    let start = tokio::time::Instant::now();
    let end = End::of(start.into_std(), clock.unix_ms(), clock.unix() + 3600, DAY);
    let set = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        clock.shift(3_700_000);
    };
    let ((at, reason), ()) = tokio::join!(ended_at(&registry, "a", end), set);
    assert_eq!(reason, Reason::TokenExpired);
    let took = at - start;
    assert!(took >= Duration::from_secs(10) && took <= Duration::from_millis(11_010), "{took:?}");
    reaper.abort();
}
