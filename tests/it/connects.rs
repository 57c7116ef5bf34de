//! CONNECT: one spelling, one meaning, one user; everything else is refused before the backend hears of it.

use crate::support::backend::{Backend, Script};
use crate::support::client::{Ask, Ws};
use crate::support::frames::{BINARY, Frame};
use crate::support::gate::{Gate, hurried};
use crate::support::poller::{Poller, WEBSOCKET};
use crate::support::tokens::{self, changed, hs256, token};
use crate::support::until;
use serde_json::json;

async fn fresh(gate: &Gate) -> Ws {
    gate.session(Ask::upgrade(WEBSOCKET)).await.0
}

fn connect(namespace: &str, sub: &str) -> String {
    format!(r#"40{namespace}{{"token":"{}"}}"#, token(sub))
}

fn refused(namespace: &str, message: &str, word: &str) -> String {
    format!(r#"44{namespace}{{"message":"{message}","data":{{"code":"{word}"}}}}"#)
}

#[tokio::test]
async fn odd_spellings_of_connect_are_a_protocol_error() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let object = format!(r#"{{"token":"{}"}}"#, token("alice"));
    let spellings = [
        format!("400{object}"),
        format!("4012{object}"),
        format!("40 {object}"),
        format!("40\t{object}"),
        format!("40\u{a0}{object}"),
        format!("40/admin{object}"),
        format!("40/admin,7{object}"),
        format!("40/admin?token=Q,{object}"),
        format!("40 /admin,{object}"),
        format!("40/adm\u{7f}in,{object}"),
        format!("40/a b,{object}"),
        format!("40admin,{object}"),
        format!("40{object}junk"),
        format!("40{object}{object}"),
        format!("40{object},"),
        format!(r#"40{{"token":"{}","token":"x"}}"#, token("alice")),
        format!(r#"40{{"token":"x","\u0074oken":"{}"}}"#, token("alice")),
        "40[]".into(),
        "40null".into(),
        "40true".into(),
        r#"40"A""#.into(),
        "401".into(),
        "40{".into(),
        format!("40{}{}", r#"{"a":"#.repeat(400), "}".repeat(400)),
        "4\u{660}{}".into(),
        "bMHsidG9rZW4iOiJBIn0=".into(),
        r#"450-["x"]"#.into(),
        r#"42["hello"]"#.into(),
        r#"430["ack"]"#.into(),
        "41".into(),
        r#"44{"message":"x"}"#.into(),
        "4".into(),
        "49".into(),
        "7".into(),
        "2".into(),
        "2probe".into(),
    ];
    for text in &spellings {
        let mut ws = fresh(&gate).await;
        ws.send(text).await;
        // What stands behind it does not count any more.
        let _ = ws.conn.try_write(Frame::text(&connect("", "alice")).masked()).await;
        assert_eq!(ws.closed().await, (1002, "protocol_error".into()), "{text}");
        let poller = Poller::open(&gate, |ask| ask).await;
        assert_eq!(poller.post(text).await.text(), "ok", "{text}");
        assert_eq!(poller.get().await.code(), 1, "{text}");
    }
    let mut ws = fresh(&gate).await;
    let msgpack = [b"\x83\xa4type\x00\xa4data\x81\xa5token\xa1T\xa3nsp\xa1/".as_slice()].concat();
    ws.write(Frame::new(BINARY, msgpack).masked()).await;
    assert_eq!(ws.closed().await, (1002, "protocol_error".into()), "msgpack");
    until("nothing is left", || gate.context.registry.is_empty()).await;
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn the_spellings_that_are_certain_arrive_as_the_gate_writes_them() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let t = token("alice");
    for (sent, arrives) in [
        (format!(r#"40{{"token":"{t}"}}"#), "40{}"),
        (format!(r#"40/,{{"token":"{t}"}}"#), "40{}"),
        (format!(r#"40/admin,{{"token":"{t}"}}"#), "40/admin,{}"),
        (format!(r#"40{{"\u0074oken":"{t}","a":[1,{{"b":null}}]}}"#), r#"40{"a":[1,{"b":null}]}"#),
        (format!(r#"40{{"token":"Bearer {t}","__proto__":{{"x":1}}}}"#), r#"40{"__proto__":{"x":1}}"#),
        (
            format!(r#"40{{"a":1.50,"token":"{t}","z":12345678901234567890}}"#),
            r#"40{"a":1.5,"z":12345678901234567890}"#,
        ),
    ] {
        for packets in
            [vec![sent.clone()], vec!["3".into(), "5".into(), "6".into(), r#"0{"sid":"x"}"#.into(), sent.clone()]]
        {
            let mut ws = fresh(&gate).await;
            for packet in &packets {
                ws.send(packet).await;
            }
            assert!(ws.text().await.starts_with("40"), "{sent}");
            assert_eq!(backend.link().await.text().await, arrives, "{sent}");
        }
    }
}

#[tokio::test]
async fn every_refusal_has_its_word_and_the_client_may_try_again() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let t = |claim, value| hs256(&changed("alice", claim, value));
    let good = token("alice");
    let cases = [
        ("40".to_owned(), "no credential was sent", "credential_missing"),
        ("40{}".into(), "no credential was sent", "credential_missing"),
        (r#"40{"token":""}"#.into(), "no credential was sent", "credential_missing"),
        (r#"40{"token":null}"#.into(), "no credential was sent", "credential_missing"),
        (r#"40{"token":5}"#.into(), "the credential is malformed", "credential_malformed"),
        (r#"40{"token":{"toString":1}}"#.into(), "the credential is malformed", "credential_malformed"),
        (r#"40{"token":"a.b"}"#.into(), "the credential is malformed", "credential_malformed"),
        (format!(r#"40{{"token":"{}"}}"#, tokens::expired("alice")), "token expired", "token_expired"),
        (format!(r#"40{{"token":"{}"}}"#, tokens::tampered(&good)), "invalid token signature", "signature_invalid"),
        (
            format!(r#"40{{"token":"{}"}}"#, t("nbf", json!(tokens::now() + 100))),
            "token not yet valid",
            "token_not_yet_valid",
        ),
        (
            format!(r#"40{{"token":"{}"}}"#, t("aud", json!("other"))),
            "token is for another audience",
            "audience_mismatch",
        ),
        (format!(r#"40{{"token":"{}"}}"#, t("iss", json!("other"))), "unknown token issuer", "issuer_unknown"),
        (format!(r#"40{{"token":"{}"}}"#, t("sub", json!(null))), "token claim not acceptable", "claim_rejected"),
    ];
    for (packet, message, word) in &cases {
        let mut ws = fresh(&gate).await;
        ws.send(packet).await;
        assert_eq!(ws.text().await, refused("", message, word), "{packet}");
        ws.send(&packet.replacen("40", "40/admin,", 1)).await;
        assert_eq!(ws.text().await, refused("/admin,", message, word), "{packet}");
        let poller = Poller::open(&gate, |ask| ask).await;
        assert_eq!(poller.post(packet).await.text(), "ok");
        assert_eq!(poller.get().await.text(), refused("", message, word), "{packet}");
        assert_eq!(backend.accepted(), 0, "{packet}");
    }
    let mut ws = fresh(&gate).await;
    ws.send("40").await;
    ws.text().await;
    ws.send(&connect("", "alice")).await;
    assert!(ws.text().await.starts_with("40{"));
}

#[tokio::test]
async fn nobody_tries_for_ever() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for (packet, code, word) in [
        ("40".to_owned(), 4401, "credential_missing"),
        (format!(r#"40{{"token":"{}"}}"#, tokens::expired("alice")), 4401, "token_expired"),
    ] {
        let mut ws = fresh(&gate).await;
        for _ in 0..10 {
            ws.send(&packet).await;
            assert!(ws.text().await.contains(word));
        }
        ws.send(&packet).await;
        assert_eq!(ws.closed().await, (code, word.into()));
    }
}

#[tokio::test]
async fn connect_never_sent_ends_at_the_deadline_and_the_backend_never_knew() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, hurried).await;
    let mut ws = fresh(&gate).await;
    assert_eq!(ws.closed().await, (4400, "connect_timeout".into()));
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn connect_sent_twice_ends_the_session_and_the_backend_sees_one() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for second in [connect("", "alice"), connect("", "mallory"), "40".into(), connect("/,", "alice")] {
        // Back to back, and after the first was answered, on both transports.
        let mut ws = fresh(&gate).await;
        ws.write([Frame::text(&connect("", "alice")).masked(), Frame::text(&second).masked()].concat()).await;
        assert_eq!(ws.closed().await, (1002, "protocol_error".into()), "{second}");
        let mut ws = fresh(&gate).await;
        ws.send(&connect("", "alice")).await;
        assert!(ws.text().await.starts_with("40{"));
        ws.send(&second).await;
        assert_eq!(ws.closed().await, (1002, "protocol_error".into()), "{second}");
        let poller = Poller::open(&gate, |ask| ask).await;
        poller.post(&format!("{}\x1e{second}", connect("", "alice"))).await;
        assert_eq!(poller.get().await.code(), 1);
    }
    until("all are gone", || backend.closed() == backend.accepted()).await;
    for _ in 0..backend.accepted() {
        let frames = backend.link().await.rest().await;
        assert!(frames.iter().filter(|f| f.payload.starts_with(b"40")).count() <= 1, "{frames:?}");
    }
}

#[tokio::test]
async fn after_a_disconnect_the_namespace_may_be_joined_again() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let mut ws = fresh(&gate).await;
    for _ in 0..3 {
        for namespace in ["", "/admin,"] {
            ws.send(&connect(namespace, "alice")).await;
            assert!(ws.text().await.starts_with(&format!("40{namespace}{{")));
        }
        ws.send("41/admin,").await;
        ws.send("41").await;
    }
    assert_eq!(backend.accepted(), 1, "one session, one connection");
}

#[tokio::test]
async fn p51_every_namespace_is_the_same_users() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let mut ws = fresh(&gate).await;
    ws.send(&connect("/first,", "alice")).await;
    assert!(ws.text().await.starts_with("40/first,{"));
    let mut link = backend.link().await;
    assert_eq!(link.text().await, "40/first,{}");
    ws.send("40/second,").await;
    assert!(ws.text().await.starts_with("40/second,{"));
    ws.send(&connect("/third,", "alice")).await;
    assert!(ws.text().await.starts_with("40/third,{"));
    let mismatch = refused("/fourth,", "credential belongs to another subject", "subject_mismatch");
    ws.send(&connect("/fourth,", "mallory")).await;
    assert_eq!(ws.text().await, mismatch);
    ws.send(&format!(r#"40/fifth,{{"token":"{}"}}"#, tokens::expired("alice"))).await;
    assert_eq!(ws.text().await, refused("/fifth,", "token expired", "token_expired"));
    // In pieces, as base64, as what a fragment hides: the same.
    let hidden = connect("/fourth,", "mallory");
    let (a, b) = hidden.split_at(1);
    ws.write([Frame::part(1, false, a).masked(), Frame::part(0, true, b).masked()].concat()).await;
    assert_eq!(ws.text().await, mismatch);
    ws.send(r#"42/second,["still"]"#).await;
    assert_eq!(ws.text().await, r#"42/second,["still"]"#);
    let seen: Vec<String> = link.waiting().iter().map(|f| f.as_text().to_owned()).collect();
    assert_eq!(seen, ["40/second,", "40/third,{}", r#"42/second,["still"]"#]);
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn a_connect_during_the_upgrade_counts_where_it_may_stand() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    // By POST, while the probe is under way: the stock client does so every time.
    let poller = Poller::open(&gate, |ask| ask).await;
    let mut ws = poller.probe().await.unwrap();
    ws.send("2probe").await;
    assert_eq!(poller.post(&connect("", "alice")).await.text(), "ok");
    assert_eq!(ws.text().await, "3probe");
    ws.send("5").await;
    assert!(ws.text().await.starts_with("40{"), "answered on the transport that it is on by then");
    ws.send(r#"42["a"]"#).await;
    assert_eq!(ws.text().await, r#"42["a"]"#);
    // On the socket that only probes: that socket is closed, the session polls on.
    let poller = Poller::open(&gate, |ask| ask).await;
    let mut ws = poller.probe().await.unwrap();
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    ws.send(&connect("", "mallory")).await;
    ws.conn.finish().await;
    assert!(ws.conn.rest().await.is_empty());
    assert_eq!(backend.accepted(), 1);
    poller.post(&connect("", "alice")).await;
    assert!(poller.get().await.text().starts_with("40{"));
    // A second WebSocket for a session that has one already.
    let mut first = poller.probe().await.unwrap();
    first.send("2probe").await;
    assert_eq!(first.text().await, "3probe");
    let mut second = poller.probe().await.unwrap();
    assert!(second.conn.rest().await.is_empty());
    first.send("5").await;
    first.send(r#"42["b"]"#).await;
    assert_eq!(first.text().await, r#"42["b"]"#);
}

#[tokio::test]
async fn a_recovery_id_is_good_for_the_user_who_got_it() {
    let backend = Backend::with(Script::default().silent()).await;
    let gate = Gate::of(&backend).await;
    let mut ws = fresh(&gate).await;
    ws.send(&connect("", "alice")).await;
    let mut link = backend.link().await;
    assert_eq!(link.text().await, "40{}");
    link.send(r#"40{"sid":"socket","pid":"alices-secret"}"#);
    assert!(ws.text().await.contains("alices-secret"), "as it came");
    drop(ws);
    link.rest().await;
    for (sub, pid, arrives) in [
        ("alice", "alices-secret", r#"40{"pid":"alices-secret","offset":"o1"}"#),
        ("mallory", "alices-secret", "40{}"),
        ("alice", "guessed", "40{}"),
    ] {
        let packet = format!(r#"40{{"pid":"{pid}","offset":"o1","token":"{}"}}"#, token(sub));
        let mut ws = fresh(&gate).await;
        ws.send(&packet).await;
        let arrived = backend.link().await.text().await;
        let same = |a: &str, b: &str| {
            serde_json::from_str::<serde_json::Value>(&a[2..]).unwrap()
                == serde_json::from_str::<serde_json::Value>(&b[2..]).unwrap()
        };
        assert!(same(&arrived, arrives), "{sub} {pid} {arrived}");
        let poller = Poller::open(&gate, |ask| ask.bearer(&token(sub))).await;
        poller.post(&packet).await;
        let arrived = backend.link().await.text().await;
        assert!(same(&arrived, arrives), "{sub} {pid} {arrived}");
    }
}
