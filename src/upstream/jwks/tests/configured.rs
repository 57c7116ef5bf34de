//! From a section of the configuration to keys over a real connection.

use super::*;
use crate::upstream::support::Server;

#[test]
fn a_source_is_made_for_issuers_whose_keys_are_fetched_only() {
    let make = |issuer: Issuer| KeySource::from_config(0, &issuer, Store::default().publish());
    let fetched = Issuer { issuer: Some("https://login.example/".into()), ..Issuer::default() };
    assert!(matches!(make(fetched.clone()).unwrap().unwrap().place, Place::Discovered { .. }));
    let known = Issuer { jwks_url: Some(URL.into()), ..fetched.clone() };
    assert!(matches!(make(known).unwrap().unwrap().place, Place::Known(_)));
    let secret = Issuer { secret_env: Some("S".into()), ..Issuer::default() };
    assert!(make(secret).unwrap().is_none());
    let file = Issuer { jwks_file: Some("k.json".into()), ..fetched.clone() };
    assert!(make(file).unwrap().is_none());
    assert!(make(Issuer::default()).is_err());
    let plain = Issuer { jwks_url: Some("http://login.example/k".into()), ..fetched };
    assert!(make(plain.clone()).is_err());
    assert!(make(Issuer { allow_http: true, ..plain }).unwrap().is_some());
}

#[tokio::test]
async fn keys_come_over_a_real_connection() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 3\r\n\r\na b").await;
    let issuer = Issuer { jwks_url: Some(format!("{}/k", server.url())), ..Issuer::default() };
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
    let issuer = Issuer { issuer: Some(server.url()), ..Issuer::default() };
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
