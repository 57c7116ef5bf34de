//! Tokens and session ids are seen by nobody but the gate; strangers' text cannot write a log line.

use crate::support::backend::{Backend, Script};
use crate::support::client::{Answer, Ask};
use crate::support::gate::Gate;
use crate::support::logs::Logs;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{self, changed, hs256, token};
use crate::support::until;
use serde_json::{Value, json};
use siogate::config::model::{Config, LogFormat, OnReject, Route, RouteAuth};

fn with_routes(config: &mut Config) {
    config.http.route = vec![
        Route { path: "/".into(), auth: RouteAuth::Optional, websocket: true },
        Route { path: "/deny".into(), auth: RouteAuth::Deny, websocket: false },
    ];
}

/// Everything a user can do with a token, good and bad, in every place.
async fn exercise(gate: &Gate, tokens: &[String]) -> Vec<String> {
    let mut sids = Vec::new();
    for token in tokens {
        let encoded: String = token.bytes().map(|b| format!("%{b:02X}")).collect();
        for query in [format!("token={token}"), format!("%74oken={token}"), format!("token={encoded}")] {
            let poller = Poller::open(gate, |ask| Ask { target: format!("{POLLING}&a=1&{query}"), ..ask }).await;
            poller.post("40").await;
            poller.get().await;
            gate.get(&format!("/plain?{query}&a=1")).await;
            gate.ask(Ask::upgrade(&format!("/ws?{query}"))).await;
            gate.get(&format!("{POLLING}&{query}&token=second")).await;
            gate.get(&format!("{POLLING}&transport=polling&{query}")).await;
            sids.push(poller.sid);
        }
        let poller = Poller::open(gate, |ask| ask).await;
        poller.post(&format!(r#"40{{"token":"{token}"}}"#)).await;
        poller.get().await;
        for ask in [
            Ask::upgrade(WEBSOCKET).bearer(token),
            Ask::upgrade(WEBSOCKET).with("cookie", &format!("token={token}")),
            Ask::get("/plain").with("authorization", &format!("Bearer {token} {token}")),
            Ask::get("/deny/a").bearer(token),
        ] {
            gate.ask(ask).await;
        }
        sids.push(poller.sid);
    }
    until("everything has ended", || gate.context.registry.unauthenticated() < 100).await;
    sids
}

#[tokio::test]
async fn p22_a_token_in_the_query_reaches_neither_backend_nor_log() {
    let logs = Logs::capture(LogFormat::Json);
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_routes).await;
    let all =
        [token("alice"), tokens::expired("bob"), tokens::tampered(&token("carol")), "x.y.not-a-token-at-all".into()];
    let sids = exercise(&gate, &all).await;
    gate.stop().await;
    let requests = backend.requests();
    assert!(requests.len() >= 10);
    let text = logs.text();
    assert!(text.lines().count() > 40, "{text}");
    for secret in all.iter().chain(&sids) {
        for (head, body) in &requests {
            let whole = format!("{head:?}{}", String::from_utf8_lossy(body));
            assert!(!whole.contains(secret.as_str()), "{whole}");
        }
        for part in secret.split('.').filter(|part| part.len() > 12) {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }
    for (head, _) in &requests {
        assert!(!head.target.contains("oken"), "{head:?}");
        assert!(
            head.target.contains("a=1")
                || head.target.starts_with("/ws")
                || !head.target.contains('&')
                || head.target.ends_with("EIO=4&transport=websocket"),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn p22_an_answer_to_a_token_in_the_query_is_kept_by_nobody() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_routes).await;
    let alice = token("alice");
    for target in
        [format!("{POLLING}&token={alice}"), format!("/plain?token={alice}"), format!("/plain?%74oken={alice}")]
    {
        let answer = gate.get(&target).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{target}");
        assert!(["no-store", "private"].contains(&answer.header("cache-control").unwrap()), "{answer:?}");
    }
    let answer = gate.get("/plain?a=token").await;
    assert_eq!((answer.header("referrer-policy"), answer.header("cache-control")), (None, None));
}

#[tokio::test]
async fn p43_what_strangers_write_stays_one_field_of_one_line() {
    for format in [LogFormat::Json, LogFormat::Text] {
        let logs = Logs::capture(format);
        let backend = Backend::start().await;
        let gate = Gate::with(&backend, |config| {
            with_routes(config);
            config.socketio.on_reject = OnReject::Http;
        })
        .await;
        let nasty = "alice\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{1b}[2J\u{202e}\u{2028}";
        let (ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&hs256(&changed(nasty, "x", json!(1))))).await;
        drop(ws);
        for claim in ["iss", "aud", "sub"] {
            gate.ask(Ask::get(POLLING).bearer(&hs256(&changed("alice", claim, json!(nasty))))).await;
        }
        let kid = json!({"alg": "HS256", "kid": nasty}).to_string();
        let crafted = format!("{}.{}.AAAA", tokens::b64(kid), tokens::b64(nasty));
        gate.ask(Ask::get(POLLING).bearer(&crafted)).await;
        gate.ask(Ask::get(POLLING).with("origin", "https://evil\u{1b}[2J.test")).await;
        gate.ask(Ask::get(POLLING).with("user-agent", "\u{1b}[2J")).await;
        gate.get("/plain/%1b%5b2J?x=%0d%0a").await;
        gate.stop().await;
        let text = logs.text();
        let controls = |c: char| c.is_control() && c != '\n' && !(c == '\u{1b}' && format == LogFormat::Text);
        assert!(!text.contains(controls) && !text.contains(['\u{202e}', '\u{2028}']), "{text:?}");
        assert!(!text.contains("\u{1b}[2J"), "{text:?}");
        for line in text.lines() {
            assert!(!line.trim_start().starts_with(r#"{"level":"ERROR"#), "{line}");
            if format == LogFormat::Json {
                let record: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                assert_ne!(record["message"], "forged");
            }
        }
    }
}

#[tokio::test]
async fn p47_refusals_have_fixed_words_and_no_others() {
    let script = Script::default().switch(|_| b"HTTP/1.1 500 X\r\ncontent-length: 5\r\n\r\nstack".to_vec());
    let backend = Backend::with(script).await;
    let gate = Gate::with(&backend, |config| {
        with_routes(config);
        config.credentials.sources.retain(|source| !source.starts_with("auth:"));
        config.socketio.on_reject = OnReject::Http;
    })
    .await;
    let with = |token: String| Ask::get(POLLING).bearer(&token);
    let invalid = r#"Bearer realm="siogate", error="invalid_token""#;
    let cases = [
        (
            Ask::get(POLLING),
            401,
            r#"{"code":4,"message":"no credential was sent","reason":"credential_missing"}"#,
            Some(r#"Bearer realm="siogate""#),
        ),
        (
            with("x".into()),
            401,
            r#"{"code":4,"message":"the credential is malformed","reason":"credential_malformed"}"#,
            Some(r#"Bearer realm="siogate", error="invalid_request""#),
        ),
        (
            with(tokens::expired("a")),
            401,
            r#"{"code":4,"message":"token expired","reason":"token_expired"}"#,
            Some(invalid),
        ),
        (
            with(tokens::tampered(&token("a"))),
            401,
            r#"{"code":4,"message":"invalid token signature","reason":"signature_invalid"}"#,
            Some(invalid),
        ),
        (
            with(hs256(&changed("a", "aud", json!("b")))),
            401,
            r#"{"code":4,"message":"token is for another audience","reason":"audience_mismatch"}"#,
            Some(invalid),
        ),
        (
            with(hs256(&changed("a", "iss", json!("b")))),
            401,
            r#"{"code":4,"message":"unknown token issuer","reason":"issuer_unknown"}"#,
            Some(invalid),
        ),
        (
            with(hs256(&changed("a", "exp", json!("soon")))),
            401,
            r#"{"code":4,"message":"token claim not acceptable","reason":"claim_rejected"}"#,
            Some(invalid),
        ),
        (
            with(hs256(&changed("a", "nbf", json!(tokens::now() + 500)))),
            401,
            r#"{"code":4,"message":"token not yet valid","reason":"token_not_yet_valid"}"#,
            Some(invalid),
        ),
        (
            with(token("a")),
            502,
            r#"{"code":4,"message":"the server refused the connection","reason":"upstream_refused"}"#,
            None,
        ),
        (
            Ask::get(POLLING).with("origin", "https://evil.test"),
            403,
            r#"{"code":4,"message":"origin not allowed","reason":"origin_not_allowed"}"#,
            None,
        ),
        (Ask::get("/deny/a"), 403, r#"{"message":"forbidden"}"#, None),
        (Ask::get("/socket.io/x"), 404, r#"{"message":"not found"}"#, None),
        (Ask::new("TRACE", "/"), 405, r#"{"message":"method not allowed"}"#, None),
        (Ask::get("/socket.io/?EIO=4&transport=x"), 400, r#"{"code":0,"message":"Transport unknown"}"#, None),
        (Ask::get(&format!("{POLLING}&sid=x")), 400, r#"{"code":1,"message":"Session ID unknown"}"#, None),
    ];
    for (ask, status, body, challenge) in cases {
        let what = format!("{} {:?}", ask.target, ask.headers);
        let answer: Answer = gate.ask(ask).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{what}");
        assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("server"), None);
    }
}

#[tokio::test]
async fn p23_the_configured_order_decides_between_places_good_or_bad() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.socketio.on_reject = OnReject::Http).await;
    type Put = fn(Ask, &str) -> Ask;
    let places: [(&str, Put); 3] = [
        ("header", |ask, token| ask.bearer(token)),
        ("query", |ask, token| Ask { target: format!("{}&token={token}", ask.target), ..ask }),
        ("cookie", |ask, token| ask.with("cookie", &format!("token={token}"))),
    ];
    let (alice, bad) = (token("alice"), tokens::expired("mallory"));
    for (i, (first, put_first)) in places.iter().enumerate() {
        for (second, put_second) in places.iter().skip(i + 1) {
            let (_ws, _) = gate.session(put_second(put_first(Ask::upgrade(WEBSOCKET), &alice), &bad)).await;
            let head = backend.link().await.head;
            assert_eq!(head.only("x-auth-subject"), "alice", "{first} before {second}");
            assert!(!format!("{head:?}").contains(&bad), "the one that did not count does not go on either");
            let answer = gate.ask(put_second(put_first(Ask::upgrade(WEBSOCKET), &bad), &alice)).await;
            assert_eq!((answer.status, answer.reason().as_str()), (401, "token_expired"), "{first} before {second}");
        }
        let twice = gate.ask(put_first(put_first(Ask::get(POLLING), &alice), &bad)).await;
        assert_eq!((twice.status, twice.reason().as_str()), (401, "credential_malformed"), "two in {first}");
        let same = gate.ask(put_first(put_first(Ask::get(POLLING), &alice), &alice)).await;
        assert_eq!(same.status, 200, "the same twice in {first} is one");
    }
}

#[tokio::test]
async fn p23_a_connect_beside_a_handshakes_credential_must_be_of_the_same_user() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for (connect, expected) in [(token("mallory"), "subject_mismatch"), (tokens::expired("alice"), "token_expired")] {
        let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
        ws.send(&format!(r#"40{{"token":"{connect}"}}"#)).await;
        let refusal = ws.text().await;
        assert!(refusal.starts_with("44{") && refusal.contains(expected), "{refusal}");
        ws.send(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
        assert!(ws.text().await.starts_with("40{"));
    }
    // A bad one in the handshake does not stand in the way of a good one in CONNECT.
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&tokens::expired("alice"))).await;
    ws.send(&format!(r#"40{{"token":"{}"}}"#, token("bob"))).await;
    assert!(ws.text().await.starts_with("40{"));
}
