//! The backend believes the identity headers, so only the gate may write them.

use crate::support::backend::{Backend, Script};
use crate::support::client::{Ask, Head};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{self, token};
use serde_json::json;
use siogate::config::model::identity::Assertion;
use siogate::config::model::{Config, Route, RouteAuth};

const NAMES: [&str; 6] =
    ["x-auth-subject", "x-auth-issuer", "x-auth-expires", "x-auth-session", "x-auth-email", "x-siogate-assertion"];

fn everything(config: &mut Config) {
    config.identity.headers.insert("x-auth-email".into(), "email".into());
    config.identity.assertion = Some(Assertion::default());
    config.http.route = vec![
        Route { path: "/pass".into(), auth: RouteAuth::Pass, websocket: true },
        Route { path: "/require".into(), auth: RouteAuth::Require, websocket: true },
        Route { path: "/optional".into(), auth: RouteAuth::Optional, websocket: false },
    ];
}

/// Every spelling that some backend folds into the header's name.
fn disguised(mut ask: Ask) -> Ask {
    for name in NAMES {
        let (upper, capital) = (name.to_uppercase(), name.replace("x-auth", "X-Auth"));
        for spelling in [
            name.to_owned(),
            upper.clone(),
            capital,
            name.replace('-', "_"),
            upper.replace('-', "_"),
            name.replace('-', "."),
            name.replacen('-', "_", 1),
            name.to_owned(),
        ] {
            ask = ask.with(&spelling, "mallory");
        }
    }
    ask
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// What a backend that folds names finds under one of them.
fn folded<'a>(head: &'a Head, name: &str) -> Vec<&'a str> {
    head.headers.iter().filter(|(n, _)| fold(n) == name).map(|(_, v)| v.as_str()).collect()
}

fn is_alice(head: &Head) {
    assert_eq!(folded(head, "x-auth-subject"), ["alice"], "{head:?}");
    assert_eq!(folded(head, "x-auth-issuer"), [tokens::ISSUER]);
    assert_eq!(folded(head, "x-auth-expires").len(), 1);
    assert_eq!(folded(head, "x-siogate-assertion").len(), 1);
    // The token has no such claim, and nobody else has a say.
    assert_eq!(folded(head, "x-auth-email"), [""; 0]);
    assert!(!format!("{head:?}").contains("mallory"), "{head:?}");
}

#[tokio::test]
async fn p01_identity_headers_in_every_disguise_are_replaced_by_the_gates_own() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, everything).await;
    let (_ws, _) = gate.session(disguised(Ask::upgrade(WEBSOCKET)).bearer(&token("alice"))).await;
    is_alice(&backend.link().await.head);

    Poller::open(&gate, |ask| disguised(ask).bearer(&token("alice"))).await;
    is_alice(&backend.link().await.head);

    // The token comes with CONNECT; the headers were the handshake's.
    let (mut ws, _) = gate.session(disguised(Ask::upgrade(WEBSOCKET))).await;
    assert!(backend.requests().len() == 2, "not before CONNECT");
    ws.send(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
    is_alice(&backend.link().await.head);

    let poller = Poller::open(&gate, disguised).await;
    poller.post(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
    is_alice(&backend.link().await.head);
}

#[tokio::test]
async fn p01_on_plain_http_too_and_where_nobody_is_asked() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, everything).await;
    for target in ["/pass/a", "/optional/a", "/pass/ws", "/socket.io/socket.io.js"] {
        let ask = if target.ends_with("ws") { Ask::upgrade(target) } else { Ask::get(target) };
        let _ = gate.ask(disguised(ask)).await;
        let (head, _) = backend.requests().pop().unwrap();
        for name in NAMES {
            assert_eq!(folded(&head, name), [""; 0], "{target} {head:?}");
        }
    }
    for target in ["/require/a", "/optional/a", "/require/ws"] {
        let ask = if target.ends_with("ws") { Ask::upgrade(target) } else { Ask::get(target) };
        gate.ask(disguised(ask).bearer(&token("alice"))).await;
        is_alice(&backend.requests().pop().unwrap().0);
    }
}

#[tokio::test]
async fn p01_trailers_carry_nothing_to_the_backend() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, everything).await;
    let mut conn = gate.conn().await;
    let head = Ask::new("POST", "/require/a")
        .bearer(&token("alice"))
        .with("transfer-encoding", "chunked")
        .with("trailer", "x-auth-subject")
        .with("te", "trailers");
    conn.write(head.bytes()).await;
    conn.write("3\r\nabc\r\n0\r\nx-auth-subject: mallory\r\nx_auth_email: m@x\r\n\r\n").await;
    assert_eq!(conn.answer().await.status, 200);
    let (head, body) = backend.requests().pop().unwrap();
    is_alice(&head);
    assert_eq!(body, b"abc");
    assert_eq!(head.all("trailer"), [""; 0]);
    assert_eq!(head.all("te"), [""; 0]);
}

#[tokio::test]
async fn p02_a_connection_header_removes_neither_the_gates_headers_nor_what_decisions_rest_on() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        everything(config);
        config.credentials.forward = true;
        config.socketio.allowed_origins = vec!["https://app.test".into()];
    })
    .await;
    let listed = "Upgrade, x-auth-subject, X_AUTH_SUBJECT, x-siogate-assertion, x-forwarded-for, authorization, cookie, origin, host, x-mine";
    let ask = |ask: Ask| {
        ask.but("connection", listed)
            .bearer(&token("alice"))
            .with("cookie", "a=1")
            .with("origin", "https://app.test")
            .with("x-mine", "gone")
            .with("x-other", "kept")
    };
    let (_ws, _) = gate.session(ask(Ask::upgrade(WEBSOCKET))).await;
    gate.ask(ask(Ask::get("/require/a"))).await;
    for (head, _) in backend.requests() {
        is_alice(&head);
        assert_eq!(head.only("cookie"), "a=1");
        assert_eq!(head.only("origin"), "https://app.test");
        assert_eq!(head.only("x-forwarded-for"), "127.0.0.1");
        assert_eq!(head.only("x-other"), "kept");
        assert_eq!(head.all("authorization").len(), 1);
        assert_eq!(head.all("x-mine"), [""; 0]);
    }
}

#[tokio::test]
async fn p03_hop_by_hop_headers_end_at_the_gate_both_ways() {
    let script = Script::default().plain(|_| {
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-secret, keep-alive\r\nkeep-alive: timeout=5\r\nx-secret: 1\r\nproxy-authenticate: Basic\r\ntrailer: x\r\nupgrade: h2c\r\nproxy-connection: x\r\nx-open: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nok".to_vec()
    });
    let backend = Backend::with(script).await;
    let gate = Gate::with(&backend, everything).await;
    let answer = gate
        .ask(
            Ask::get("/pass/a")
                .with("connection", "keep-alive, x-drop")
                .with("keep-alive", "timeout=9")
                .with("te", "trailers, deflate")
                .with("trailer", "x")
                .with("proxy-authorization", "Basic eA==")
                .with("proxy-connection", "keep-alive")
                .with("http2-settings", "AAMAAABk")
                .with("x-drop", "1")
                .with("x-keep", "1"),
        )
        .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    for name in ["keep-alive", "x-secret", "proxy-authenticate", "trailer", "upgrade", "proxy-connection"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-open"), Some("1"));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    let (head, _) = backend.requests().pop().unwrap();
    let hop = [
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "proxy-authorization",
        "proxy-connection",
        "http2-settings",
        "x-drop",
        "upgrade",
    ];
    for name in hop {
        assert_eq!(head.all(name), [""; 0], "{name}");
    }
    assert_eq!(head.only("x-keep"), "1");
}

#[tokio::test]
async fn p24_the_credential_stays_at_the_gate_unless_it_is_to_be_forwarded() {
    let backend = Backend::start().await;
    let alice = token("alice");
    for forward in [false, true] {
        let gate = Gate::with(&backend, |config| config.credentials.forward = forward).await;
        let cookie = format!("a=1; token={alice}; b=2");
        let ways: [(&str, Ask); 3] = [
            ("authorization", Ask::upgrade(WEBSOCKET).bearer(&alice)),
            ("cookie", Ask::upgrade(WEBSOCKET).with("cookie", &cookie)),
            ("query", Ask::upgrade(&format!("{WEBSOCKET}&token={alice}&room=1"))),
        ];
        for (way, ask) in ways {
            let (_ws, _) = gate.session(ask).await;
            let head = backend.link().await.head;
            assert_eq!(format!("{head:?}").contains(&alice), forward, "{way} {head:?}");
            match way {
                "cookie" => assert!(head.only("cookie").starts_with("a=1;") && head.only("cookie").ends_with("b=2")),
                "query" => assert!(head.target.contains("room=1")),
                _ => {}
            }
        }
        let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
        ws.send(&format!(r#"40{{"token":"{alice}","room":"1"}}"#)).await;
        let connect = backend.link().await.text().await;
        assert_eq!(connect.contains(&alice), forward);
        assert!(connect.contains(r#""room":"1""#));
    }
}

#[tokio::test]
async fn p24_a_credential_that_nobody_verified_never_goes_on() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        everything(config);
        config.credentials.forward = true;
    })
    .await;
    let (alice, forged) = (token("alice"), token("mallory").replace('.', ".e"));
    // The header decides; what stands in a place behind it is not looked at.
    let ask = |ask: Ask| ask.bearer(&alice).with("cookie", &format!("token={forged}; a=1"));
    let (_ws, _) = gate.session(ask(Ask::upgrade(&format!("{WEBSOCKET}&token={forged}")))).await;
    let _tunnel = gate
        .ws(ask(Ask::upgrade(&format!("/require/ws?token={forged}&b=2"))))
        .await
        .unwrap_or_else(|answer| panic!("{}", answer.status));
    gate.ask(ask(Ask::get(&format!("/require/a?token={forged}&b=2")))).await;
    // The handshake's is bad and CONNECT's is good.
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&forged)).await;
    ws.send(&format!(r#"40{{"token":"{alice}"}}"#)).await;
    let mut heads: Vec<_> = Vec::new();
    for _ in 0..3 {
        heads.push(backend.link().await.head);
    }
    heads.extend(backend.requests().into_iter().map(|(head, _)| head));
    for head in heads {
        assert!(!format!("{head:?}").contains(&forged), "{head:?}");
        is_alice(&head);
    }
    // Where nobody is asked who it is, the backend does its own looking.
    gate.ask(Ask::get("/pass/a").bearer(&forged)).await;
    assert!(format!("{:?}", backend.requests().pop()).contains(&forged));
}

#[tokio::test]
async fn p25_the_assertion_verifies_by_the_published_key_and_says_who_and_for_how_long() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, everything).await;
    let claims = tokens::changed("alice", "email", json!("alice@example.test"));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (_ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&tokens::hs256(&claims))).await;
        seen.push(backend.link().await.head);
    }
    let published = gate.get("/.well-known/siogate/jwks.json").await;
    assert_eq!((published.status, published.header("content-type")), (200, Some("application/json")));
    let jwks = published.json();
    assert!(jwks["keys"][0].get("d").is_none(), "the public half only");
    let mut ids = Vec::new();
    for head in &seen {
        let assertion = head.only("x-siogate-assertion");
        let said = tokens::verify(assertion, &jwks).expect("a good signature");
        assert_eq!((&said["iss"], &said["aud"], &said["sub"]), (&json!("siogate"), &json!("backend"), &json!("alice")));
        assert_eq!((&said["idp"], &said["email"]), (&json!(tokens::ISSUER), &json!("alice@example.test")));
        assert_eq!(said["sid"], json!(head.only("x-auth-session")));
        assert!(said["exp"].as_u64().unwrap() <= tokens::now() + 60);
        assert_eq!(tokens::verify(&tokens::tampered(assertion), &jwks), None);
        ids.push(said["jti"].clone());
    }
    assert_ne!(ids[0], ids[1]);
    let other = Gate::with(&backend, everything).await;
    let others = other.get("/.well-known/siogate/jwks.json").await.json();
    assert_eq!(tokens::verify(seen[0].only("x-siogate-assertion"), &others), None, "another gate's key");
}

#[tokio::test]
async fn p25_the_key_may_be_the_operators() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = tokens::Key::es256("");
    std::fs::write(file.path(), key.pkcs8_pem()).unwrap();
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        let key_file = Some(file.path().to_owned());
        config.identity.assertion = Some(Assertion { key_file, audience: "app".into(), ..Assertion::default() });
    })
    .await;
    let jwks = gate.get("/.well-known/siogate/jwks.json").await.json();
    assert_eq!((&jwks["keys"][0]["x"], &jwks["keys"][0]["alg"]), (&key.jwk()["x"], &json!("ES256")));
    let (_ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    let head = backend.link().await.head;
    let said = tokens::verify(head.only("x-siogate-assertion"), &jwks).expect("a good signature");
    assert_eq!((&said["aud"], &said["sub"]), (&json!("app"), &json!("alice")));
}

#[tokio::test]
async fn p25_without_an_assertion_there_is_no_key_to_publish() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    assert_eq!(gate.get("/.well-known/siogate/jwks.json").await.status, 404);
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn the_backend_sees_nothing_of_a_client_until_its_token_is_verified() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::open(&gate, |ask| ask).await;
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    let (mut bad, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&tokens::expired("alice"))).await;
    bad.send("40").await;
    assert!(bad.text().await.contains("token_expired"));
    poller.post("40{}").await;
    assert!(poller.get().await.text().contains("credential_missing"));
    gate.get(&format!("{POLLING}&token=x")).await;
    ws.send(&format!(r#"40{{"token":"{}"}}"#, tokens::tampered(&token("alice")))).await;
    assert!(ws.text().await.contains("signature_invalid"));
    assert!(backend.is_untouched());
    ws.send(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
    assert!(ws.text().await.starts_with("40{"));
    assert_eq!(backend.accepted(), 1);
}
