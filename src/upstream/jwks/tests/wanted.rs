//! A token names a key that is not there: who waits, how long, and how often is fetched.

use super::*;
use futures_util::future::join_all;

#[tokio::test(start_paused = true)]
async fn j27_an_unknown_key_fetches_at_once_and_the_waiter_learns_of_it() {
    let fake = Fake::saying([body("a"), body("a b")]).slow(Duration::from_millis(300));
    let (fetcher, store) = start(&fake);
    fetcher.first_load().await;
    advance(Duration::from_secs(100)).await;
    let began = Instant::now();
    let wanted = join_all((0..100).map(|_| fetcher.want(3, Some("b")))).await;
    // One asked, the others came while it was being asked or after it had been: none starts another fetch.
    assert!(wanted[0]);
    assert_eq!(began.elapsed(), Duration::from_millis(300));
    assert_eq!(store.current().as_deref(), Some("a b"));
    assert_eq!(fake.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_comes_during_a_fetch_waits_for_it() {
    let fake = Fake::saying([body("a")]).slow(Duration::from_millis(1500));
    let (fetcher, _store) = start(&fake);
    let wanted = join_all((0..200).map(|i| {
        let fetcher = fetcher.clone();
        async move { fetcher.want(3, Some(&format!("k{i}"))).await }
    }))
    .await;
    assert!(wanted.iter().all(|ok| *ok));
    assert_eq!(fake.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_two_seconds() {
    let fake = Fake::saying([body("a")]).slow(Duration::from_secs(9));
    let (fetcher, _store) = start(&fake);
    let began = Instant::now();
    assert!(!fetcher.want(3, Some("a")).await);
    assert_eq!(began.elapsed(), PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn j26_ten_thousand_unknown_keys_in_five_seconds_are_at_most_two_fetches() {
    let fake = Fake::saying([body("a")]).slow(Duration::from_millis(200));
    let (fetcher, _store) = start(&fake);
    fetcher.first_load().await;
    advance(Duration::from_secs(60)).await;
    let before = fake.count();
    let began = Instant::now();
    let mut waiting = JoinSet::new();
    for batch in 0..50 {
        for i in 0..200 {
            let fetcher = fetcher.clone();
            waiting.spawn(async move { fetcher.want(3, Some(&format!("random-{batch}-{i}"))).await });
        }
        settle().await;
        advance(Duration::from_millis(100)).await;
        settle().await;
    }
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert!((1..=2).contains(&(fake.count() - before)), "{}", fake.count());
    waiting.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn j26_waiters_are_capped() {
    let fake = Fake::saying([body("a")]).slow(Duration::from_secs(1));
    let (fetcher, _store) = start(&fake);
    let wanted = join_all((0..1000).map(|_| fetcher.want(3, None))).await;
    assert_eq!(wanted.iter().filter(|ok| **ok).count(), MAX_WAITERS);
}

#[tokio::test(start_paused = true)]
async fn a_wish_within_thirty_seconds_is_kept_for_later_and_nobody_waits_for_it() {
    let fake = Fake::saying([body("a")]);
    let (fetcher, store) = start(&fake);
    fetcher.first_load().await;
    advance(Duration::from_secs(60)).await;
    assert!(fetcher.want(3, Some("x")).await);
    assert_eq!(fake.count(), 2);
    advance(Duration::from_secs(10)).await;
    fake.then(body("a y"));
    let began = Instant::now();
    assert!(!fetcher.want(3, Some("y")).await);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(fake.count(), 2);
    advance(Duration::from_secs(21)).await;
    settle().await;
    assert_eq!(store.current().as_deref(), Some("a y"));
    assert_eq!(fake.count(), 3);
    assert!(fake.pauses()[1] >= 30.0);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_fetch_did_not_bring_is_not_asked_for_again_soon() {
    let fake = Fake::saying([body("a")]);
    let (fetcher, _store) = start(&fake);
    fetcher.first_load().await;
    advance(Duration::from_secs(60)).await;
    fetcher.want(3, Some("old")).await;
    advance(Duration::from_secs(40)).await;
    assert!(!fetcher.want(3, Some("old")).await);
    settle().await;
    assert_eq!(fake.count(), 2);
    advance(Duration::from_secs(21)).await;
    assert!(fetcher.want(3, Some("old")).await);
    assert_eq!(fake.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_looked_just_before_the_keys_came_is_told_to_look_again() {
    let fake = Fake::saying([body("a")]);
    let (fetcher, _store) = start(&fake);
    fetcher.first_load().await;
    assert!(fetcher.want(3, Some("a")).await);
}
