use super::*;
use crate::upstream::support::Server;
use futures_util::future::{BoxFuture, join_all};
use http::HeaderValue;
use std::collections::VecDeque;
use tokio::time::advance;

const URL: &str = "https://login.example/keys";

/// A key server made of answers; the last one is repeated.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Result<Fetched, FetchError>>,
    asked: Vec<(FetchRequest, Instant)>,
    delay: Duration,
}

impl Fake {
    fn saying(answers: impl IntoIterator<Item = Result<Fetched, FetchError>>) -> Self {
        let fake = Self::default();
        fake.0.lock().unwrap().answers = answers.into_iter().collect();
        fake
    }

    fn slow(self, delay: Duration) -> Self {
        self.0.lock().unwrap().delay = delay;
        self
    }

    fn then(&self, answer: Result<Fetched, FetchError>) {
        self.0.lock().unwrap().answers = [answer].into();
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().asked.len()
    }

    fn asked(&self, n: usize) -> FetchRequest {
        self.0.lock().unwrap().asked[n].0.clone()
    }

    /// Seconds between the fetches.
    fn pauses(&self) -> Vec<f64> {
        let script = self.0.lock().unwrap();
        script.asked.windows(2).map(|w| (w[1].1 - w[0].1).as_secs_f64()).collect()
    }
}

impl Fetch for Fake {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let (answer, delay) = {
            let mut script = self.0.lock().unwrap();
            script.asked.push((request.clone(), Instant::now()));
            let answer = match script.answers.len() {
                0 | 1 => script.answers.front().cloned(),
                _ => script.answers.pop_front(),
            };
            (answer.unwrap_or(Err(FetchError::Status(500))), script.delay)
        };
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer
        })
    }
}

fn body(text: &str) -> Result<Fetched, FetchError> {
    aged(text, None)
}

fn aged(text: &str, max_age: Option<u64>) -> Result<Fetched, FetchError> {
    let validators =
        Validators { etag: HeaderValue::from_str(&format!("\"{}\"", text.len())).ok(), last_modified: None };
    Ok(Fetched::Body {
        body: Bytes::copy_from_slice(text.as_bytes()),
        validators,
        max_age: max_age.map(Duration::from_secs),
    })
}

fn unmodified() -> Result<Fetched, FetchError> {
    Ok(Fetched::NotModified { max_age: None })
}

fn down() -> Result<Fetched, FetchError> {
    Err(FetchError::Status(500))
}

/// Everything that was published. Bodies are `a b c`: three keys; anything with `<` is unusable, as is nothing.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<String>>>);

impl Store {
    fn publish(&self) -> Publish {
        let store = self.clone();
        Arc::new(move |body| {
            let text = String::from_utf8(body.to_vec()).map_err(|e| e.to_string())?;
            let keys = text.split_whitespace().count();
            if keys == 0 || text.contains('<') {
                return Err("no usable key".into());
            }
            store.0.lock().unwrap().push(text);
            Ok(keys)
        })
    }

    fn current(&self) -> Option<String> {
        self.0.lock().unwrap().last().cloned()
    }
}

fn source(fake: &Fake, store: &Store) -> KeySource {
    KeySource {
        index: 3,
        name: "login".into(),
        place: Place::Known(Location::parse(URL, false).unwrap()),
        max_stale: Duration::from_secs(3600),
        fetch: Arc::new(fake.clone()),
        publish: store.publish(),
    }
}

fn start(fake: &Fake) -> (KeyFetcher, Store) {
    let store = Store::default();
    (KeyFetcher::start(vec![source(fake, &store)]), store)
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

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

mod discovered {
    use super::*;

    fn place() -> Place {
        Place::Discovered { issuer: "https://login.example/".into(), hosts: Vec::new(), allow_http: false }
    }

    fn document(issuer: &str, keys: &str) -> Result<Fetched, FetchError> {
        body(&format!(r#"{{"issuer":"{issuer}","jwks_uri":"{keys}"}}"#))
    }

    fn start(fake: &Fake) -> (KeyFetcher, Store) {
        let store = Store::default();
        (KeyFetcher::start(vec![KeySource { place: place(), ..source(fake, &store) }]), store)
    }

    #[tokio::test(start_paused = true)]
    async fn the_keys_are_found_by_the_document_which_is_read_once() {
        let fake = Fake::saying([document("https://login.example/", "https://login.example/k"), body("a")]);
        let (fetcher, store) = start(&fake);
        assert!(fetcher.first_load().await);
        assert_eq!(store.current().as_deref(), Some("a"));
        assert_eq!(fake.asked(0).location.path_and_query, "/.well-known/openid-configuration");
        assert_eq!(fake.asked(1).location.path_and_query, "/k");
        advance(Duration::from_secs(1000)).await;
        settle().await;
        assert_eq!(fake.asked(2).location.path_and_query, "/k");
        assert_eq!(fake.count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oauth_document_is_the_second_choice() {
        let good = document("https://login.example/", "https://login.example/k");
        let fake = Fake::saying([Err(FetchError::Status(404)), good, body("a")]);
        let (fetcher, _store) = start(&fake);
        assert!(fetcher.first_load().await);
        assert_eq!(fake.asked(1).location.path_and_query, "/.well-known/oauth-authorization-server");
    }

    #[tokio::test(start_paused = true)]
    async fn j29_j30_a_document_that_lies_makes_the_issuer_unusable() {
        for lie in [
            document("https://login.example", "https://login.example/k"),
            document("https://evil.example/", "https://login.example/k"),
            document("https://login.example/", "http://169.254.169.254/k"),
            document("https://login.example/", "https://169.254.169.254/k"),
            document("https://login.example/", "https://evil.example/k"),
            body("<html>"),
            down(),
        ] {
            let fake = Fake::saying([lie]);
            let (fetcher, store) = start(&fake);
            assert!(!fetcher.first_load().await);
            assert_eq!(store.current(), None);
            let places = fake.0.lock().unwrap();
            assert!(places.asked.iter().all(|(r, _)| r.location.path_and_query.contains("/.well-known/")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_document_is_read_again() {
        let old = document("https://login.example/", "https://login.example/old");
        let new = document("https://login.example/", "https://login.example/new");
        let fake = Fake::saying([old, body("a"), down(), new, body("b")]);
        let (fetcher, store) = start(&fake);
        fetcher.first_load().await;
        advance(Duration::from_secs(1000)).await;
        settle().await;
        advance(Duration::from_secs(2)).await;
        settle().await;
        assert_eq!(store.current().as_deref(), Some("b"));
        assert_eq!(fake.asked(4).location.path_and_query, "/new");
        assert_eq!(fake.asked(4).validators, Validators::default());
    }
}

#[test]
fn a_source_is_made_for_issuers_whose_keys_are_fetched_only() {
    let make = |issuer: model::Issuer| KeySource::from_config(0, &issuer, Store::default().publish());
    let fetched = model::Issuer { issuer: Some("https://login.example/".into()), ..model::Issuer::default() };
    assert!(matches!(make(fetched.clone()).unwrap().unwrap().place, Place::Discovered { .. }));
    let known = model::Issuer { jwks_url: Some(URL.into()), ..fetched.clone() };
    assert!(matches!(make(known).unwrap().unwrap().place, Place::Known(_)));
    let secret = model::Issuer { secret_env: Some("S".into()), ..model::Issuer::default() };
    assert!(make(secret).unwrap().is_none());
    let file = model::Issuer { jwks_file: Some("k.json".into()), ..fetched.clone() };
    assert!(make(file).unwrap().is_none());
    assert!(make(model::Issuer::default()).is_err());
    let plain = model::Issuer { jwks_url: Some("http://login.example/k".into()), ..fetched };
    assert!(make(plain.clone()).is_err());
    assert!(make(model::Issuer { allow_http: true, ..plain }).unwrap().is_some());
}

#[tokio::test]
async fn keys_come_over_a_real_connection() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 3\r\n\r\na b").await;
    let issuer = model::Issuer { jwks_url: Some(format!("{}/k", server.url())), ..model::Issuer::default() };
    let store = Store::default();
    let source = KeySource::from_config(0, &issuer, store.publish()).unwrap().unwrap();
    let fetcher = KeyFetcher::start(vec![source]);
    assert!(fetcher.first_load().await);
    assert_eq!(store.current().as_deref(), Some("a b"));
}

#[tokio::test]
async fn a_rotation_is_followed_over_real_connections() {
    use crate::upstream::support::{header_of, read_head};
    use tokio::io::AsyncWriteExt;
    // Document, old keys; then, because the ETag no longer fits, the new ones.
    let server = Server::start(|mut stream, n| async move {
        let head = read_head(&mut stream).await;
        let me = format!("http://{}", header_of(&head, "host").unwrap());
        let (tag, body) = match n {
            0 => ("", format!(r#"{{"issuer":"{me}","jwks_uri":"{me}/k"}}"#)),
            1 => ("ETag: old\r\n", "a".to_string()),
            _ => {
                assert_eq!(header_of(&head, "if-none-match"), Some("old"));
                ("ETag: new\r\n", "a b".to_string())
            }
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let issuer = model::Issuer { issuer: Some(server.url()), ..model::Issuer::default() };
    let store = Store::default();
    let fetcher = KeyFetcher::start(vec![KeySource::from_config(0, &issuer, store.publish()).unwrap().unwrap()]);
    assert!(fetcher.first_load().await);
    assert_eq!(store.current().as_deref(), Some("a"));
    // Right after a load the answer is "look again", and the fetch follows.
    assert!(fetcher.want(0, Some("b")).await);
    while store.current().as_deref() != Some("a b") {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.seen(), 3);
}
