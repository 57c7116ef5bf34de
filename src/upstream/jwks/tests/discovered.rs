//! Keys whose place an issuer's document says.

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
