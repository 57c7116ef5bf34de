//! Session cookies against the running gate, with a real Redis: what comes in, what does not, and in which words.

use crate::support::backend::Backend;
use crate::support::client::{Answer, Ask};
use crate::support::gate::{Gate, SESSION_SECRETS};
use crate::support::poller::{POLLING, WEBSOCKET};
use crate::support::redis::{Server, installed, open};
use crate::support::tokens::now;
use crate::support::within;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use siogate::config::model::vouchers::SessionStore;
use siogate::config::model::{Config, OnReject, Route, RouteAuth};
use std::time::Duration;

const ID: &str = "q7Yx0m1k2b3c4d5e6f7g8h9i0jKLMNOP";
const ALICE: &[u8] = br#"{"cookie":{"path":"/"},"passport":{"user":"alice"}}"#;
const HOUR: Duration = Duration::from_secs(3600);

fn signature(id: &str, secret: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, id.as_bytes()).as_ref().to_vec()
}

fn encoded(value: &str) -> String {
    format!("connect.sid={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
}

fn signed(id: &str, secret: &str) -> String {
    encoded(&format!("s:{id}.{}", STANDARD_NO_PAD.encode(signature(id, secret))))
}

fn good() -> String {
    signed(ID, SESSION_SECRETS[0])
}

struct Scene {
    redis: Server,
    gate: Gate,
    backend: Backend,
}

/// A gate with a store that knows alice's session.
async fn scene(change: impl FnOnce(&mut Config)) -> Scene {
    let redis = Server::start().await;
    redis.redis().set(&format!("sess:{ID}"), ALICE, HOUR).await.unwrap();
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.session_store = vec![SessionStore {
            redis_url: Some(redis.url.clone()),
            recheck: Duration::from_millis(300),
            timeout: Duration::from_millis(500),
            ..SessionStore::default()
        }];
        config.socketio.on_reject = OnReject::Http;
        config.credentials.sources = vec!["header:authorization".into()];
        change(config);
    })
    .await;
    Scene { redis, gate, backend }
}

impl Scene {
    async fn ask(&self, cookies: &[&str]) -> Answer {
        let ask = cookies.iter().fold(Ask::get(POLLING), |ask, cookie| ask.with("cookie", cookie));
        self.gate.ask(ask).await
    }

    async fn word(&self, cookies: &[&str]) -> (u16, String) {
        let answer = self.ask(cookies).await;
        (answer.status, if answer.status == 200 { String::new() } else { answer.reason() })
    }
}

#[tokio::test]
async fn c01_a_forged_session_cookie_gets_in_nowhere() {
    if !installed() {
        return;
    }
    let scene = scene(|_| {}).await;
    assert_eq!(scene.word(&[&good()]).await.0, 200);
    let mac = signature(ID, SESSION_SECRETS[0]);
    let forged = [
        signed(ID, "somebody else's secret"),
        encoded(&format!("s:{ID}.{}", STANDARD.encode(&mac))),
        encoded(&format!("s:{ID}.{}", URL_SAFE_NO_PAD.encode(signature(ID, "x")))),
        encoded(&format!("s:{ID}x.{}", STANDARD_NO_PAD.encode(&mac))),
        encoded(&format!("s:{ID}.{}", STANDARD_NO_PAD.encode(&mac[..31]))),
        encoded(&format!("s:{ID}.")),
    ];
    for cookie in &forged {
        assert_eq!(scene.word(&[cookie]).await, (401, "signature_invalid".into()), "{cookie}");
    }
    for cookie in [encoded(ID), encoded(&format!("s:{ID}")), "connect.sid=%ff".into(), encoded(&"s".repeat(5000))] {
        assert_eq!(scene.word(&[&cookie]).await, (401, "credential_malformed".into()), "{cookie:.80}");
    }
    assert_eq!(scene.backend.accepted(), 1, "the backend saw the good one only");
}

#[tokio::test]
async fn c02_a_signed_id_that_is_no_key_is_never_asked_for() {
    if !installed() {
        return;
    }
    let scene = scene(|_| {}).await;
    scene.redis.cli(&["CONFIG", "RESETSTAT"]).await;
    let ids = ["*", "sess:*", "a b", "a\r\nFLUSHALL", "{a}", "é", &"x".repeat(300)];
    for id in ids {
        let cookie = signed(id, SESSION_SECRETS[0]);
        assert_eq!(scene.word(&[&cookie]).await, (401, "credential_malformed".into()), "{id:.40}");
    }
    assert!(!scene.redis.cli(&["INFO", "commandstats"]).await.contains("cmdstat_getrange"));
}

#[tokio::test]
async fn c03_c06_hostile_sessions_and_those_of_nobody_are_refused() {
    if !installed() {
        return;
    }
    let scene = scene(|_| {}).await;
    let long = format!(r#"{{"a":"{}","passport":{{"user":"alice"}}}}"#, "x".repeat(300 * 1024));
    let deep = format!(r#"{{"a":{}{},"passport":{{"user":"alice"}}}}"#, "[".repeat(500), "]".repeat(500));
    let cases: [(&[u8], &str); 9] = [
        (b"", "claim_rejected"),
        (b"[]", "claim_rejected"),
        (br#"{"passport":{"user":"a"},"passport":{"user":"alice"}}"#, "claim_rejected"),
        (br#"{"passport":{"user":{"id":1}}}"#, "claim_rejected"),
        (b"{\"passport\":{\"user\":\"\xff\"}}", "claim_rejected"),
        (long.as_bytes(), "claim_rejected"),
        (deep.as_bytes(), "claim_rejected"),
        (br#"{"cookie":{},"passport":{}}"#, "credential_missing"),
        (b"{}", "credential_missing"),
    ];
    for (session, word) in cases {
        scene.redis.redis().set(&format!("sess:{ID}"), session, HOUR).await.unwrap();
        assert_eq!(scene.word(&[&good()]).await, (401, word.into()), "{:.60}", String::from_utf8_lossy(session));
    }
    scene.redis.cli(&["DEL", &format!("sess:{ID}")]).await;
    assert_eq!(scene.word(&[&good()]).await, (401, "logged_out".into()));
    scene.redis.cli(&["LPUSH", &format!("sess:{ID}"), "x"]).await;
    assert_eq!(scene.word(&[&good()]).await, (503, "keys_unavailable".into()));
}

#[tokio::test]
async fn c04_a_store_that_does_not_answer_is_503_and_no_refusal() {
    if !installed() {
        return;
    }
    let mut scene = scene(|config| {
        config.http.route = vec![Route { path: "/".into(), auth: RouteAuth::Require, websocket: false }];
    })
    .await;
    scene.redis.freeze(true);
    let answer = within("an answer", scene.ask(&[&good()])).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "keys_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("2"));
    scene.redis.freeze(false);
    scene.redis.kill().await;
    for target in [POLLING, "/api"] {
        let answer = scene.gate.ask(Ask::get(target).with("cookie", &good())).await;
        assert_eq!((answer.status, answer.reason().as_str()), (503, "keys_unavailable"));
    }
    let answer = scene.gate.ws(Ask::upgrade(WEBSOCKET).with("cookie", &good())).await.err().unwrap();
    assert_eq!(answer.status, 503);
    // A forged one is refused without the store.
    assert_eq!(scene.word(&[&signed(ID, "x")]).await, (401, "signature_invalid".into()));
}

#[tokio::test]
async fn c05_two_session_cookies_are_none() {
    if !installed() {
        return;
    }
    let scene = scene(|_| {}).await;
    let (good, other) = (good(), signed("abc", SESSION_SECRETS[0]));
    for pair in [[&good, &other], [&other, &good], [&good, &good]] {
        let joined = format!("{}; theme=dark; {}", pair[0], pair[1]);
        assert_eq!(scene.word(&[&joined]).await, (401, "credential_malformed".into()));
        assert_eq!(scene.word(&[pair[0], pair[1]]).await, (401, "credential_malformed".into()));
    }
    assert_eq!(scene.word(&[&format!("theme=dark; {good}; x=y")]).await.0, 200);
}

#[tokio::test]
async fn c07_c08_an_old_secret_verifies_and_the_cookie_goes_on_unless_told_otherwise() {
    if !installed() {
        return;
    }
    for forward in [true, false] {
        let scene = scene(|config| config.session_store[0].forward = forward).await;
        let cookies = format!("theme=dark; {}; a=b", signed(ID, SESSION_SECRETS[1]));
        assert_eq!(scene.ask(&[&cookies]).await.status, 200);
        let expected = if forward { cookies.as_str() } else { "theme=dark; a=b" };
        let link = scene.backend.link().await;
        assert_eq!((link.head.only("cookie"), link.head.only("x-auth-subject")), (expected, "alice"));
        let metrics = scene.gate.context.metrics.render().unwrap();
        assert!(metrics.contains(r#"session_cookies_total{store="express-session",secret="1"} 1"#), "{metrics}");
    }
}

#[tokio::test]
async fn a_socket_of_a_route_ends_with_its_session_too() {
    if !installed() {
        return;
    }
    let scene = scene(|config| {
        config.http.route = vec![Route { path: "/live".into(), auth: RouteAuth::Require, websocket: true }];
    })
    .await;
    let mut ws = scene.gate.ws(Ask::upgrade("/live").with("cookie", &good())).await.unwrap_or_else(|a| panic!("{a:?}"));
    scene.redis.cli(&["DEL", &format!("sess:{ID}")]).await;
    assert_eq!(within("the end", ws.closed()).await, (4401, "logged_out".to_owned()));
}

#[tokio::test]
async fn a_user_of_the_redis_needs_to_read_and_nothing_else() {
    if !installed() {
        return;
    }
    let server = Server::on_port(crate::support::redis::free_port(), &[]).await;
    server.redis().set(&format!("sess:{ID}"), ALICE, HOUR).await.unwrap();
    let rights = ["ACL", "SETUSER", "gate", "on", ">pw", "+getrange", "+pttl", "+ping", "~sess:*"];
    assert_eq!(server.cli(&rights).await, "OK");
    let redis = open(&server.url.replace("redis://", "redis://gate:pw@"));
    redis.ping().await.unwrap();
    assert_eq!(redis.get(&format!("sess:{ID}"), 100).await.unwrap().unwrap().value, ALICE);
    assert!(redis.get("other", 100).await.is_err());
    assert!(redis.set("sess:x", b"1", HOUR).await.is_err());
}

#[tokio::test]
async fn a_revoked_user_of_a_store_gets_in_by_a_later_login_where_the_session_says_when_it_began() {
    if !installed() {
        return;
    }
    for dated in [false, true] {
        let scene = scene(|config| {
            config.admin.listen = "127.0.0.1:0".into();
            config.session_store[0].issued_at = dated.then(|| "/loginAt".into());
        })
        .await;
        let login = |at: u64| json!({"passport": {"user": "alice"}, "loginAt": at * 1000}).to_string();
        let log_in = |id: &'static str, at: u64| {
            let (redis, session) = (scene.redis.redis(), login(at));
            async move { redis.set(&format!("sess:{id}"), session.as_bytes(), HOUR).await.unwrap() }
        };
        log_in(ID, now() - 60).await;
        log_in("another-browser-of-alice", now() - 60).await;
        let (mut ws, _) = scene.gate.session(Ask::upgrade(WEBSOCKET).with("cookie", &good())).await;
        let body = json!({"issuer": "express-session", "subject": "alice", "not_before": now() - 30}).to_string();
        let ask = Ask::post("/api/revocations", &body).but("content-type", "application/json");
        let answer = scene.gate.admin(Ask { host: Some("localhost".into()), ..ask }).await;
        assert_eq!((answer.status, &answer.json()["ended"]), (200, &json!(1)), "{answer:?}");
        assert_eq!(ws.closed().await, (4401, "revoked".into()));
        // Also those of which no socket was open.
        let other = signed("another-browser-of-alice", SESSION_SECRETS[0]);
        for cookie in [&good(), &other] {
            assert_eq!(scene.word(&[cookie]).await, (401, "revoked".into()));
        }
        log_in("the-new-login-of-alice", now()).await;
        let new = signed("the-new-login-of-alice", SESSION_SECRETS[0]);
        let expected = if dated { (200, String::new()) } else { (401, "revoked".into()) };
        assert_eq!(scene.word(&[&new]).await, expected, "dated: {dated}");
    }
}
