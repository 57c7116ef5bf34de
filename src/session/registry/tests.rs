use super::*;
use crate::session::clock::Clock;
use crate::session::deadlines::End;
use crate::session::reaper;
use futures_util::task::noop_waker;
use std::future::poll_fn;
use std::sync::Barrier;

const ROOMY: Capacity = Capacity { sessions: 1000, unauthenticated: 1000, unauthenticated_per_ip: 1000 };
const DAY: Duration = Duration::from_secs(86_400);

fn newcomer(sid: &str) -> Newcomer<'_> {
    let card = Card::new(sid.into(), [192, 0, 2, 1].into(), 1_000);
    Newcomer { sid, version: Version::V4, b64: false, credential: None, mailbox: None, card, waits: None }
}

fn stranger<'a>(sid: &'a str, ip: &str) -> Newcomer<'a> {
    Newcomer { waits: Some(ip.parse().unwrap()), ..newcomer(sid) }
}

fn user(subject: &str) -> User {
    User { issuer: "idp".into(), subject: subject.into() }
}

fn ends_in(now: Instant, seconds: u64) -> End {
    End::of(now, 1_000_000, 1_000 + seconds, DAY)
}

/// Nobody is inside, and nothing remembers that anybody was.
fn assert_empty(registry: &Registry) {
    assert_eq!((registry.len(), registry.unauthenticated(), registry.deadlines()), (0, 0, 0));
    assert!(registry.is_empty() && registry.all().is_empty() && registry.next_end().is_none());
    assert!(lock(&registry.0.waiting).by_ip.is_empty());
    assert!(lock(&registry.0.deadlines).is_empty(), "by either clock");
    assert!(registry.0.shards.iter().all(|shard| lock(shard).is_empty()));
}

#[test]
fn a_session_is_found_by_its_sid_from_entering_to_leaving() {
    let registry = Registry::new(ROOMY);
    assert!(registry.find("a").is_none());
    let stay = registry.enter(newcomer("a")).unwrap();
    assert_eq!(registry.find("a").unwrap().sid(), "a");
    assert_eq!((registry.len(), registry.all().len()), (1, 1));
    stay.leave();
    assert!(registry.find("a").is_none());
    assert_eq!(registry.len(), 1, "it still counts while it says its last words");
    drop(stay);
    assert_empty(&registry);
}

#[test]
fn p31_no_more_sessions_than_allowed_and_a_place_is_free_again_at_once() {
    let registry = Registry::new(Capacity { sessions: 2, ..ROOMY });
    let first = registry.enter(newcomer("a")).unwrap();
    let _second = registry.enter(newcomer("b")).unwrap();
    for _ in 0..10 {
        assert_eq!(registry.enter(newcomer("c")).err(), Some(Reason::TooManyConnections));
    }
    drop(first);
    let _third = registry.enter(newcomer("c")).unwrap();
    assert_eq!(registry.enter(newcomer("d")).err(), Some(Reason::TooManyConnections));
}

#[test]
fn p31_strangers_have_a_budget_of_their_own() {
    let registry = Registry::new(Capacity { unauthenticated: 2, ..ROOMY });
    let mut first = registry.enter(stranger("a", "192.0.2.1")).unwrap();
    let _second = registry.enter(stranger("b", "192.0.2.2")).unwrap();
    assert_eq!(registry.enter(stranger("c", "192.0.2.3")).err(), Some(Reason::TooManyConnections));
    let _known = registry.enter(newcomer("known")).unwrap();
    assert_eq!((registry.len(), registry.unauthenticated()), (3, 2));
    first.admit(user("alice"), ends_in(Instant::now(), 60));
    assert_eq!(registry.unauthenticated(), 1);
    let _third = registry.enter(stranger("c", "192.0.2.3")).unwrap();
}

#[test]
fn p31_strangers_are_counted_by_address_and_ipv6_by_its_64() {
    let registry = Registry::new(Capacity { unauthenticated_per_ip: 1, ..ROOMY });
    let pairs = [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.2", "::ffff:192.0.2.2", true),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
        ("2001:db8:1:3::1", "2001:db8:1:4::1", false),
        ("192.0.2.3", "192.0.2.4", false),
    ];
    for (first, second, same) in pairs {
        let _first = registry.enter(stranger("a", first)).unwrap();
        let second = registry.enter(stranger("b", second));
        assert_eq!(second.is_err(), same, "{first}");
    }
    assert_empty(&registry);
}

#[test]
fn p14_a_sid_that_is_taken_stays_with_whom_it_belongs_to() {
    let registry = Registry::new(ROOMY);
    let first = registry.enter(newcomer("a")).unwrap();
    assert_eq!(registry.enter(stranger("a", "192.0.2.1")).err(), Some(Reason::UpstreamRefused));
    assert_eq!((registry.len(), registry.unauthenticated()), (1, 0), "what was counted is undone");
    assert!(Arc::ptr_eq(&registry.find("a").unwrap(), first.entry()));
    // A session that has left must not take a later one of the same sid with it.
    first.leave();
    let second = registry.enter(newcomer("a")).unwrap();
    drop(first);
    assert!(Arc::ptr_eq(&registry.find("a").unwrap(), second.entry()));
    drop(second);
    assert_empty(&registry);
}

#[test]
fn dropping_a_stay_restores_every_count_in_whatever_state() {
    let registry = Registry::new(ROOMY);
    let now = Instant::now();
    drop(registry.enter(newcomer("a")).unwrap());
    drop(registry.enter(stranger("a", "192.0.2.1")).unwrap());
    let mut stay = registry.enter(stranger("a", "192.0.2.1")).unwrap();
    stay.admit(user("alice"), ends_in(now, 60));
    assert_eq!(registry.deadlines(), 1);
    drop(stay);
    let mut stay = registry.enter(newcomer("a")).unwrap();
    stay.admit(user("alice"), ends_in(now, 60));
    assert_eq!(registry.reap(now + Duration::from_secs(60), 0), 1);
    stay.leave();
    drop(stay);
    assert_empty(&registry);
}

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

#[test]
fn one_post_at_a_time() {
    let registry = Registry::new(ROOMY);
    let stay = registry.enter(newcomer("a")).unwrap();
    let entry = stay.entry();
    assert!(entry.begin_post());
    assert!(!entry.begin_post() && !entry.begin_post());
    entry.posted();
    assert!(entry.begin_post());
}

#[test]
fn a_session_on_a_websocket_takes_no_requests() {
    let registry = Registry::new(ROOMY);
    let (mailbox, mut receiver) = tokio::sync::mpsc::channel(1);
    let stay = registry.enter(Newcomer { mailbox: Some(mailbox), ..newcomer("a") }).unwrap();
    assert!(stay.entry().mailbox().is_some());
    stay.entry().close_mailbox();
    assert!(stay.entry().mailbox().is_none());
    assert!(matches!(receiver.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)));
}

#[test]
fn p51_recovery_ids_belong_to_the_sessions_user_and_are_bounded() {
    let registry = Registry::new(ROOMY);
    let mut stay = registry.enter(newcomer("a")).unwrap();
    stay.recovery_id("before anybody is known".into());
    stay.admit(user("alice"), ends_in(Instant::now(), 60));
    for i in 0..10_000 {
        stay.recovery_id(format!("p{i}"));
    }
    assert_eq!(stay.recovery_ids.len(), MAX_NAMESPACES);
    drop(stay);
    assert!(registry.owns_recovery("p9999", &user("alice")));
    assert!(!registry.owns_recovery("p9999", &user("bob")));
    assert!(!registry.owns_recovery("before anybody is known", &user("alice")));
}

/// Many threads open, look up, admit, end and drop sessions, while others reap and sweep.
#[test]
fn p31_under_stress_every_count_comes_back_to_zero() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 400;
    let capacity = Capacity { sessions: 60, unauthenticated: 40, unauthenticated_per_ip: 12 };
    let registry = Registry::new(capacity);
    let barrier = Barrier::new(THREADS + 1);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (registry, barrier, done) = (&registry, &barrier, &done);
            scope.spawn(move || {
                barrier.wait();
                let mut inside = Vec::new();
                for round in 0..ROUNDS {
                    // Sids collide between threads, addresses too.
                    let sid = format!("{}", (round * 7 + thread) % 97);
                    let ip = format!("2001:db8::{}:0:0:0:{thread}", round % 5);
                    let newcomer = if round % 3 == 0 { newcomer(&sid) } else { stranger(&sid, &ip) };
                    if let Ok(mut stay) = registry.enter(newcomer) {
                        if round % 2 == 0 {
                            stay.admit(user(&sid), ends_in(Instant::now(), (round % 4) as u64));
                            stay.recovery_id(sid.clone());
                        }
                        inside.push(stay);
                    }
                    assert!(registry.len() <= capacity.sessions + THREADS);
                    assert!(registry.unauthenticated() <= capacity.unauthenticated);
                    if let Some(entry) = registry.find(&sid) {
                        entry.end(Reason::Kicked);
                    }
                    if round % 5 == 0
                        && let Some(stay) = inside.pop()
                    {
                        stay.say_farewell(Instant::now(), Reason::Idle);
                        stay.leave();
                    }
                    if inside.len() > 8 {
                        inside.clear();
                    }
                }
                drop(inside);
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        barrier.wait();
        while done.load(Ordering::SeqCst) < THREADS {
            registry.reap(Instant::now() + Duration::from_secs(1), 1_001_000);
            registry.sweep(Instant::now());
            registry.all().iter().for_each(|entry| entry.heard_client());
            std::thread::yield_now();
        }
    });
    assert_empty(&registry);
    // All of it can be had again.
    let all: Vec<_> = (0..capacity.sessions).map(|i| registry.enter(newcomer(&i.to_string())).unwrap()).collect();
    assert_eq!(registry.len(), capacity.sessions);
    drop(all);
    assert_empty(&registry);
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

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_when_half_of_many_sessions_have_gone_and_not_for_a_few() {
    let registry = Registry::new(Capacity { sessions: 5000, ..ROOMY });
    let given = Arc::new(AtomicUsize::new(0));
    let counting = given.clone();
    let watch = tokio::spawn(ebb::run(registry.clone(), move || {
        counting.fetch_add(1, Ordering::Relaxed);
    }));
    let enter = |n: usize| (0..n).map(|i| registry.enter(newcomer(&i.to_string())).unwrap()).collect::<Vec<_>>();
    let rest = || tokio::time::sleep(Duration::from_secs(10));
    let mut few = enter(1000);
    registry.mark();
    few.clear();
    rest().await;
    assert_eq!(given.load(Ordering::Relaxed), 0);
    for _ in 0..2 {
        let mut many = enter(3000);
        registry.mark();
        many.truncate(1501);
        registry.mark();
        rest().await;
        assert_eq!(given.swap(0, Ordering::Relaxed), 0, "half are still here");
        many.truncate(10);
        rest().await;
        assert_eq!(given.swap(0, Ordering::Relaxed), 3);
        drop(many);
        rest().await;
        assert_eq!(given.load(Ordering::Relaxed), 0, "once for each ebb");
    }
    watch.abort();
    let mut passer = ebb::Passer::default();
    (0..3).for_each(|_| passer.pass());
}
