//! Keys are loaded, refreshed and kept while answers are bad.

use super::*;

#[tokio::test(start_paused = true)]
async fn keys_are_there_after_the_first_load() {
    let fake = Fake::saying([body("a b")]).slow(Duration::from_millis(100));
    let (fetcher, store) = start(&fake);
    assert!(!fetcher.ready());
    assert!(fetcher.first_load().await);
    assert!(fetcher.ready());
    assert_eq!(store.current().as_deref(), Some("a b"));
    assert_eq!(fake.asked(0).location.text, URL);
    let status = &fetcher.status()[0];
    assert_eq!((status.index, status.keys, status.fetches, status.failures), (3, 2, 1, 0));
    assert_eq!(status.age, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn no_issuers_means_ready() {
    let fetcher = KeyFetcher::start(Vec::new());
    assert!(fetcher.first_load().await);
    assert!(!fetcher.want(0, None).await);
}

#[tokio::test(start_paused = true)]
async fn a_first_load_that_fails_is_told_and_tried_again_with_growing_pauses() {
    let fake = Fake::saying([down()]);
    let (fetcher, store) = start(&fake);
    assert!(!fetcher.first_load().await);
    while fake.count() < 9 {
        advance(Duration::from_millis(500)).await;
        settle().await;
    }
    for (pause, expected) in fake.pauses().into_iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]) {
        assert!(pause >= expected * 0.9 && pause <= expected * 1.1 + 0.6, "{pause} for {expected}");
    }
    let status = fetcher.status().remove(0);
    assert_eq!((status.age, status.failures), (None, 9));
    assert!(status.last_error.unwrap().contains("status 500"));
    fake.then(body("a"));
    advance(Duration::from_secs(70)).await;
    settle().await;
    assert!(fetcher.ready());
    assert_eq!(store.current().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn refreshes_follow_max_age_and_304_keeps_the_keys() {
    let fake = Fake::saying([aged("a b", Some(1000)), unmodified()]);
    let (fetcher, store) = start(&fake);
    fetcher.first_load().await;
    advance(Duration::from_secs(715)).await;
    settle().await;
    assert_eq!(fake.count(), 1);
    advance(Duration::from_secs(170)).await;
    settle().await;
    assert_eq!(fake.count(), 2);
    assert_eq!(fake.asked(0).validators, Validators::default());
    assert_eq!(fake.asked(1).validators.etag.unwrap(), "\"3\"");
    // Published once more, so that the store knows that they are fresh.
    assert_eq!(store.0.lock().unwrap().as_slice(), ["a b", "a b"]);
    assert!(fetcher.status()[0].age.unwrap() < Duration::from_secs(171));
}

#[tokio::test(start_paused = true)]
async fn j24_j28_an_answer_without_usable_keys_never_replaces_good_ones() {
    for bad in [body(""), body("<html>"), down(), Err(FetchError::Failed("slow".into())), Err(FetchError::Status(302))]
    {
        let fake = Fake::saying([body("a b"), bad]);
        let (fetcher, store) = start(&fake);
        fetcher.first_load().await;
        advance(Duration::from_secs(1000)).await;
        settle().await;
        let status = fetcher.status().remove(0);
        assert_eq!((fake.count(), status.failures, status.keys), (2, 1, 2));
        assert_eq!(store.current().as_deref(), Some("a b"));
        assert!(fetcher.ready(), "old keys keep admitting");
        // And the bad answer's ETag is not believed in.
        fake.then(body("c"));
        advance(Duration::from_secs(2)).await;
        settle().await;
        assert_eq!(fake.asked(2).validators.etag.unwrap(), "\"3\"");
        assert_eq!(store.current().as_deref(), Some("c"));
    }
}

#[tokio::test(start_paused = true)]
async fn j28_keys_that_are_too_old_make_us_unready() {
    let fake = Fake::saying([body("a"), down()]);
    let (fetcher, _store) = start(&fake);
    fetcher.first_load().await;
    for _ in 0..59 {
        advance(Duration::from_secs(60)).await;
        settle().await;
    }
    assert!(fetcher.ready());
    for _ in 0..3 {
        advance(Duration::from_secs(60)).await;
        settle().await;
    }
    assert!(!fetcher.ready());
}

#[tokio::test(start_paused = true)]
async fn a_304_to_a_first_request_is_a_failure() {
    let (fetcher, _store) = start(&Fake::saying([unmodified()]));
    assert!(!fetcher.first_load().await);
}

#[tokio::test(start_paused = true)]
async fn issuers_do_not_wait_for_each_other() {
    let (slow, quick) = (Fake::saying([body("a")]).slow(Duration::from_secs(9)), Fake::saying([body("b")]));
    let (first, second) = (Store::default(), Store::default());
    let sources = vec![source(&slow, &first), KeySource { index: 4, ..source(&quick, &second) }];
    let fetcher = KeyFetcher::start(sources);
    assert!(fetcher.want(4, None).await);
    assert_eq!(second.current().as_deref(), Some("b"));
    assert!(!fetcher.ready());
    assert!(fetcher.first_load().await);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_tasks() {
    let fake = Fake::saying([body("a")]);
    let (fetcher, _store) = start(&fake);
    fetcher.first_load().await;
    drop(fetcher.clone());
    advance(Duration::from_secs(1000)).await;
    settle().await;
    assert_eq!(fake.count(), 2);
    drop(fetcher);
    advance(Duration::from_secs(5000)).await;
    settle().await;
    assert_eq!(fake.count(), 2);
}
