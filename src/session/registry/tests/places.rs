//! Who is inside and how many may be, whatever state they leave in.

use super::*;
use std::sync::Barrier;

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
