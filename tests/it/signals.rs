//! Shared Signals from outside: what a transmitter is answered, and what happens to the sockets.

use crate::support::backend::Backend;
use crate::support::client::{Ask, Conn};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{ISSUER, Key, now, token};
use serde_json::{Value, json};
use siogate::config::model::revocation::Transmitter;
use siogate::config::model::{Config, OnReject};
use std::path::Path;

const PATH: &str = "/.siogate/events";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

fn with_transmitter(config: &mut Config, dir: &Path, key: &Key) {
    let file = dir.join("signals.json");
    std::fs::write(&file, json!({"keys": [key.jwk()]}).to_string()).unwrap();
    config.socketio.on_reject = OnReject::Http;
    config.transmitter = vec![Transmitter {
        issuer: "https://signals.test/".into(),
        jwks_file: Some(file),
        audience: vec!["gate".into()],
        speaks_for: vec![ISSUER.into()],
        ..Transmitter::default()
    }];
}

fn event(key: &Key, changes: Value) -> Ask {
    let subject = json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"});
    let mut said = json!({"iss": "https://signals.test/", "aud": "gate", "iat": now(), "jti": "e1", "sub_id": subject});
    said["events"] = json!({ REVOKED: {} });
    said.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Ask::post(PATH, key.typed("secevent+jwt", &said)).but("content-type", "application/secevent+jwt")
}

#[tokio::test]
async fn a_session_revoked_elsewhere_ends_here() {
    let (backend, dir, key) = (Backend::start().await, tempfile::tempdir().unwrap(), Key::es256("k1"));
    let gate = Gate::with(&backend, |config| with_transmitter(config, dir.path(), &key)).await;
    let (alice, bob) = (token("alice"), token("bob"));
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&alice)).await;
    let bob = Poller::connected(&gate, &bob).await;
    for _ in 0..2 {
        let answer = gate.ask(event(&key, json!({})).with("origin", "https://evil.test")).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(ws.closed().await, (4401, "revoked".into()));
    assert_eq!(gate.ask(Ask::get(POLLING).bearer(&alice)).await.reason(), "revoked");
    assert_eq!(bob.post("42[1]").await.text(), "ok");
}

#[tokio::test]
async fn what_is_not_believed_is_answered_in_the_words_of_rfc_8935() {
    let (backend, dir, key) = (Backend::start().await, tempfile::tempdir().unwrap(), Key::es256("k1"));
    let gate = Gate::with(&backend, |config| with_transmitter(config, dir.path(), &key)).await;
    let inside = Poller::connected(&gate, &token("alice")).await;
    let good = event(&key, json!({}));
    for (what, ask, word) in [
        ("another issuer", event(&key, json!({"iss": "https://other.test/"})), "invalid_issuer"),
        ("another audience", event(&key, json!({"aud": "other"})), "invalid_audience"),
        ("another key", event(&Key::es256("k1"), json!({})), "invalid_key"),
        ("an unknown key", event(&Key::es256("k2"), json!({})), "invalid_key"),
        ("no events", event(&key, json!({"events": 1})), "invalid_request"),
        ("no token", Ask { body: b"x".to_vec(), ..good.clone() }.but("content-length", "1"), "invalid_request"),
        ("another type", good.clone().but("content-type", "application/json"), "invalid_request"),
    ] {
        let answer = gate.ask(ask).await;
        assert_eq!((answer.status, &answer.json()["err"]), (400, &json!(word)), "{what} {answer:?}");
        assert!(answer.json()["description"].is_string(), "{what}");
    }
    assert_eq!(inside.post("42[1]").await.text(), "ok");
    // Where nobody may tell, nobody is listened to.
    let deaf = Gate::of(&backend).await;
    assert_eq!(deaf.ask(good).await.status, 404);
}

#[tokio::test]
async fn a_transmitter_without_keys_keeps_nobody_out_and_an_issuer_without_keys_does() {
    let (backend, key) = (Backend::start().await, Key::es256("k1"));
    // Nobody listens where the keys should be.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nowhere}/jwks.json");
    let with_deaf = |config: &mut Config| {
        config.admin.listen = "127.0.0.1:0".into();
        config.socketio.on_reject = OnReject::Http;
        config.transmitter = vec![Transmitter {
            issuer: "https://signals.test/".into(),
            jwks_url: Some(url.clone()),
            allow_http: true,
            audience: vec!["gate".into()],
            speaks_for: vec![ISSUER.into()],
            ..Transmitter::default()
        }];
    };
    let ready = || Ask { host: Some("localhost".into()), ..Ask::get("/readyz") };
    let gate = Gate::with(&backend, with_deaf).await;
    let answer = gate.ask(event(&key, json!({}))).await;
    assert_eq!((answer.status, answer.reason()), (503, "keys_unavailable".into()));
    let answer = gate.admin(ready()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ready\ntransmitter_keys_unavailable\n"));
    Poller::connected(&gate, &token("alice")).await;
    let metrics = gate.admin(Ask { host: Some("localhost".into()), ..Ask::get("/metrics") }).await.text();
    assert!(metrics.contains(r#"siogate_jwks_age_seconds{issuer="https://signals.test/"} -1"#), "{metrics}");

    let gate = Gate::with(&backend, |config| {
        with_deaf(config);
        let issuer = &mut config.issuer[0];
        (issuer.secret_env, issuer.jwks_url, issuer.allow_http) = (None, Some(url.clone()), true);
        issuer.algorithms = vec!["ES256".into()];
    })
    .await;
    let answer = gate.admin(ready()).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "keys_unavailable\ntransmitter_keys_unavailable\n"));
}

#[tokio::test]
async fn l02_l03_an_event_counts_once_and_an_old_or_hostile_one_never() {
    let (backend, dir, key) = (Backend::start().await, tempfile::tempdir().unwrap(), Key::es256("k1"));
    let gate = Gate::with(&backend, |config| with_transmitter(config, dir.path(), &key)).await;
    let inside = Poller::connected(&gate, &token("alice")).await;
    let deep = json!({"format": "complex", "user": (0..200).fold(json!(1), |inner, _| json!([inner]))});
    for (what, changes) in [
        ("an old one", json!({"iat": now() - 8 * 86_400})),
        ("one of tomorrow", json!({"iat": now() + 86_400})),
        ("one without a name", json!({"jti": ""})),
        ("one without a time", json!({"iat": null})),
        ("one that has ended", json!({"exp": now() - 60})),
        ("events in a list", json!({"events": [REVOKED]})),
        ("an event that is none", json!({"events": {REVOKED: "now"}})),
        ("a user in depths", json!({"sub_id": deep})),
        ("a user that is no text", json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": ["alice"]}})),
        ("a user too long", json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "x".repeat(1025)}})),
        ("somebody else's user", json!({"sub_id": {"format": "iss_sub", "iss": "https://x/", "sub": "alice"}})),
    ] {
        let answer = gate.ask(event(&key, changes)).await;
        assert_eq!(answer.status, 400, "{what} {answer:?}");
        assert_eq!((answer.status, &answer.json()["err"]), (400, &json!("invalid_request")), "{what} {answer:?}");
        assert!(!answer.text().contains("alice"), "{what}");
    }
    let long = gate.ask(event(&key, json!({"pad": "x".repeat(40_000)}))).await;
    assert_eq!((long.status, long.closes()), (413, true));
    assert_eq!(inside.post("42[1]").await.text(), "ok");
    assert!(gate.context.revoker.table().is_empty());
    // The same name again, with somebody else in it: acknowledged, and nothing more.
    let bob = json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "bob"}});
    for changes in [json!({}), bob] {
        assert_eq!(gate.ask(event(&key, changes)).await.status, 202);
    }
    assert_eq!(gate.context.revoker.table().len(), 1);
    assert_eq!(gate.ask(Ask::get(&inside.target())).await.reason(), "revoked");
    Poller::connected(&gate, &token("bob")).await;
}

#[tokio::test]
async fn l07_a_flood_of_events_is_listened_to_less_and_less_and_the_transmitter_is_not() {
    let (backend, dir, key) = (Backend::start().await, tempfile::tempdir().unwrap(), Key::es256("k1"));
    let gate = Gate::with(&backend, |config| {
        with_transmitter(config, dir.path(), &key);
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let forged = event(&Key::es256("k1"), json!({})).with("x-forwarded-for", "192.0.2.1");
    let mut conn = Conn::open(&gate.addr).await;
    let mut refused = 0;
    loop {
        let answer = conn.ask(forged.clone()).await;
        if answer.status == 429 {
            assert_eq!((answer.header("retry-after"), answer.closes()), (Some("1"), true));
            break;
        }
        assert_eq!(answer.status, 400, "{answer:?}");
        refused += 1;
        assert!(refused < 1000, "nobody may go on");
    }
    assert!(refused >= 50, "{refused} were looked at");
    // Not even what is signed well is looked at from there, and from elsewhere all of it is.
    let named = |n: usize| event(&key, json!({"jti": format!("e{n}")}));
    assert_eq!(gate.ask(named(0).with("x-forwarded-for", "192.0.2.1")).await.status, 429);
    for n in 0..200 {
        assert_eq!(gate.ask(named(n).with("x-forwarded-for", "192.0.2.2")).await.status, 202);
    }
}
