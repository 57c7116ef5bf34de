//! Key servers come late, go away, change and lie; nobody gets in by it, and nobody is kept out for longer than needed.

use crate::support::backend::Backend;
use crate::support::client::Ask;
use crate::support::gate::{Gate, config};
use crate::support::jwks::{Keys, Mood, jwks};
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{ISSUER, Key, claims};
use crate::support::until;
use serde_json::json;
use siogate::config::model::issuers::Issuer;
use siogate::config::model::{Config, OnReject};

/// A gate whose issuer publishes its keys there.
async fn gate(backend: &Backend, keys: &Keys) -> Gate {
    gate_with(backend, keys, |_| {}).await
}

async fn gate_with(backend: &Backend, keys: &Keys, change: impl FnOnce(&mut Config)) -> Gate {
    let mut config: Config = config(&[&backend.url]);
    config.admin.listen = "127.0.0.1:0".into();
    config.issuer = vec![Issuer {
        issuer: Some(ISSUER.into()),
        jwks_url: Some(keys.url.clone()),
        audience: vec!["chat".into()],
        ..Issuer::default()
    }];
    change(&mut config);
    Gate::start(config).await
}

async fn ready(gate: &Gate) -> (u16, String) {
    let answer = gate.admin(Ask { host: Some("localhost".into()), ..Ask::get("/readyz") }).await;
    (answer.status, answer.text())
}

async fn becomes_ready(gate: &Gate) {
    until("keys are there", || gate.context.keys.ready()).await;
    assert_eq!(ready(gate).await, (200, "ready\n".into()));
}

/// How a login with this token is answered: in the header, and in CONNECT.
async fn login(gate: &Gate, token: &str) -> (u16, String) {
    let answer = gate.ask(Ask::get(POLLING).bearer(token)).await;
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    ws.send(&format!(r#"40{{"token":"{token}"}}"#)).await;
    let frame = ws.next().await.unwrap();
    let said = if frame.opcode == 8 { format!("{:?}", frame.as_close()) } else { frame.as_text().to_owned() };
    (answer.status, said)
}

async fn is_in(gate: &Gate, token: &str) {
    let (status, said) = login(gate, token).await;
    assert!(status == 200 && said.starts_with("40{"), "{status} {said}");
}

#[tokio::test]
async fn tokens_of_both_families_verify_by_published_keys() {
    let (es, rs) = (Key::es256("es"), Key::rs256("rs"));
    let keys = Keys::start(jwks(&[&es, &rs])).await;
    let backend = Backend::start().await;
    let gate = gate(&backend, &keys).await;
    is_in(&gate, &es.sign(&claims("alice"))).await;
    is_in(&gate, &rs.sign(&claims("alice"))).await;
    // The name of one key with the signature of the other.
    let other = Key::es256("es");
    let (status, said) = login(&gate, &other.sign(&claims("alice"))).await;
    assert!(status == 200 && said.contains("signature_invalid"), "{said}");
    assert_eq!(keys.fetches(), 1);
}

#[tokio::test]
async fn a_key_server_that_is_down_at_the_start_is_503_and_not_401_until_it_comes() {
    let key = Key::es256("k1");
    let keys = Keys::down(jwks(&[&key])).await;
    let backend = Backend::start().await;
    let gate = gate(&backend, &keys).await;
    let token = key.sign(&claims("alice"));
    assert!(!gate.context.keys.first_load().await);
    assert_eq!(ready(&gate).await, (503, "keys_unavailable\n".into()));
    let answer = gate.ask(Ask::get(POLLING).bearer(&token)).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "keys_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("2"));
    let answer = gate.ask(Ask::upgrade(WEBSOCKET).bearer(&token)).await;
    assert_eq!((answer.status, answer.closes()), (503, true));
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    ws.send(&format!(r#"40{{"token":"{token}"}}"#)).await;
    assert_eq!(ws.closed().await, (4503, "keys_unavailable".into()));
    let poller = Poller::open(&gate, |ask| ask).await;
    poller.post(&format!(r#"40{{"token":"{token}"}}"#)).await;
    let answer = poller.get().await;
    assert!(answer.status == 503 && answer.reason() == "keys_unavailable", "{answer:?}");
    assert!(backend.is_untouched());
    keys.rise().await;
    becomes_ready(&gate).await;
    is_in(&gate, &token).await;
}

#[tokio::test]
async fn a_key_server_that_goes_away_later_keeps_nobody_out() {
    let key = Key::es256("k1");
    let keys = Keys::start(jwks(&[&key])).await;
    let backend = Backend::start().await;
    let gate = gate(&backend, &keys).await;
    becomes_ready(&gate).await;
    keys.fall().await;
    // An unknown key makes the gate look, in vain.
    let stranger = Key::es256("k2").sign(&claims("mallory"));
    let (status, said) = login(&gate, &stranger).await;
    assert!(status == 200 && said.contains("key_unknown"), "{said}");
    is_in(&gate, &key.sign(&claims("alice"))).await;
    assert_eq!(ready(&gate).await.0, 200);
}

#[tokio::test]
async fn a_new_key_is_fetched_when_its_first_token_comes() {
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    let keys = Keys::start(jwks(&[&old])).await;
    let backend = Backend::start().await;
    let gate = gate(&backend, &keys).await;
    becomes_ready(&gate).await;
    is_in(&gate, &old.sign(&claims("alice"))).await;
    keys.mood(jwks(&[&old, &new]));
    is_in(&gate, &new.sign(&claims("alice"))).await;
    assert_eq!(keys.fetches(), 2);
}

#[tokio::test]
async fn j26_random_key_ids_do_not_make_the_gate_a_hammer() {
    let key = Key::es256("k1");
    let keys = Keys::start(jwks(&[&key])).await;
    let backend = Backend::start().await;
    let gate = gate_with(&backend, &keys, |config| config.socketio.on_reject = OnReject::Http).await;
    becomes_ready(&gate).await;
    let mut conn = gate.conn().await;
    let mut random = Key::es256("");
    for n in 0..300 {
        random.kid = format!("random-{n}");
        let answer = conn.ask(Ask::get(POLLING).bearer(&random.sign(&claims("mallory")))).await;
        assert_eq!((answer.status, answer.reason().as_str()), (401, "key_unknown"));
    }
    assert!(keys.fetches() <= 2, "{}", keys.fetches());
    is_in(&gate, &key.sign(&claims("alice"))).await;
}

#[tokio::test]
async fn j24_j28_bad_answers_never_replace_good_keys_and_are_never_keys() {
    let (key, other) = (Key::es256("k1"), Key::es256("k2"));
    let moods = || {
        vec![
            ("500", Mood::Status(500)),
            ("204", Mood::Status(204)),
            ("redirect", Mood::Redirect("http://169.254.169.254/".into())),
            ("empty", Mood::Body(r#"{"keys":[]}"#.into())),
            ("no keys", Mood::Body("{}".into())),
            ("HTML", Mood::Body("<html>please log in</html>".into())),
            (
                "a shared secret",
                Mood::Body(json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}).to_string()),
            ),
            ("10 MB", Mood::Body(" ".repeat(10_000_000))),
            ("endless", Mood::Endless),
        ]
    };
    let all = moods().into_iter().map(|(name, mood)| {
        let (key, other) = (&key, &other);
        async move {
            let backend = Backend::start().await;
            // From the start:
            let keys = Keys::start(mood.clone()).await;
            let poisoned = gate(&backend, &keys).await;
            assert!(!poisoned.context.keys.first_load().await, "{name}");
            let (status, said) = login(&poisoned, &key.sign(&claims("alice"))).await;
            assert!(status == 503 && said.contains("keys_unavailable"), "{name} {status} {said}");
            // And later:
            let keys = Keys::start(jwks(&[key])).await;
            let gate = gate(&backend, &keys).await;
            becomes_ready(&gate).await;
            keys.mood(mood);
            let (_, said) = login(&gate, &other.sign(&claims("mallory"))).await;
            assert!(said.contains("key_unknown"), "{name} {said}");
            is_in(&gate, &key.sign(&claims("alice"))).await;
        }
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn a_key_server_that_is_silent_holds_a_login_up_for_seconds_and_no_longer() {
    let key = Key::es256("k1");
    let keys = Keys::start(Mood::Silent).await;
    let backend = Backend::start().await;
    let gate = gate(&backend, &keys).await;
    let started = std::time::Instant::now();
    let answer = gate.ask(Ask::get(POLLING).bearer(&key.sign(&claims("alice")))).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "keys_unavailable"));
    assert!(started.elapsed() < std::time::Duration::from_secs(4));
}
