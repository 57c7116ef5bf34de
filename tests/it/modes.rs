//! The other ways to speak: protocol 3, raw Engine.IO, refusals by HTTP, a token as subprotocol, the probe.

use crate::support::backend::{Backend, open_packet};
use crate::support::client::Ask;
use crate::support::frames::{BINARY, Frame};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{self, token};
use crate::support::until;
use siogate::config::model::{Config, OnReject, Protocol};

const V3_POLLING: &str = "/socket.io/?EIO=3&transport=polling&b64=1";
const V3_WEBSOCKET: &str = "/socket.io/?EIO=3&transport=websocket";

#[tokio::test]
async fn a_bad_credential_in_the_handshake_is_answered_as_configured() {
    let backend = Backend::start().await;
    let bad = tokens::expired("alice");
    let gate = Gate::with(&backend, |config| config.socketio.on_reject = OnReject::Http).await;
    for ask in [Ask::get(POLLING), Ask::upgrade(WEBSOCKET), Ask::get(V3_POLLING), Ask::upgrade(V3_WEBSOCKET)] {
        let answer = gate.ask(ask.bearer(&bad)).await;
        assert_eq!((answer.status, answer.reason().as_str()), (401, "token_expired"));
        assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="siogate", error="invalid_token""#));
    }
    let gate = Gate::of(&backend).await;
    let (mut ws, open) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&bad)).await;
    assert!(open.starts_with("0{"));
    ws.send("40").await;
    assert_eq!(ws.text().await, r#"44{"message":"token expired","data":{"code":"token_expired"}}"#);
    let poller = Poller::open(&gate, |ask| ask.bearer(&bad)).await;
    // The client repeats its header with each request, and is not refused for it before it was told.
    let post = Ask::post(&poller.target(), "40/chat,").bearer(&bad);
    assert_eq!(poller.ask(post).await.text(), "ok");
    let answer = poller.ask(Ask::get(&poller.target()).bearer(&bad)).await;
    assert_eq!(answer.text(), r#"44/chat,{"message":"token expired","data":{"code":"token_expired"}}"#);
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn protocol_3_has_no_place_for_a_token_but_the_handshake() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for ask in [Ask::get(V3_POLLING), Ask::upgrade(V3_WEBSOCKET)] {
        let answer = gate.ask(ask).await;
        assert_eq!((answer.status, answer.reason().as_str()), (401, "credential_missing"));
    }
    // A bad one is told to the application behind OPEN, since it asks for nothing.
    let bad = tokens::expired("alice");
    let refusal = r#"44{"message":"token expired","code":"token_expired"}"#;
    let (mut ws, _) = gate.session(Ask::upgrade(V3_WEBSOCKET).bearer(&bad)).await;
    assert_eq!(ws.text().await, refusal);
    let poller = Poller::begin(&gate, V3_POLLING, |ask| ask.bearer(&bad)).await;
    assert_eq!(poller.get().await.text(), format!("{}:{refusal}", refusal.len()));
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn protocol_3_works_on_both_transports() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let (mut ws, open) = gate.session(Ask::upgrade(V3_WEBSOCKET).bearer(&token("alice"))).await;
    assert!(open.starts_with("0{\"sid\":\"backendsid"), "its socket id is the session id: {open}");
    assert_eq!(ws.text().await, "40", "it is in / without asking");
    let link = backend.link().await;
    assert!(link.head.target.contains("EIO=3"), "{:?}", link.head);
    ws.send("2").await;
    assert_eq!(ws.text().await, "3", "heartbeats go from end to end");
    ws.send("40/admin?a=1,").await;
    assert!(ws.text().await.starts_with("40/admin"));
    ws.send("40").await;
    assert_eq!(ws.closed().await, (1002, "protocol_error".into()), "it is in / already");

    let poller = Poller::begin(&gate, V3_POLLING, |ask| ask.bearer(&token("alice"))).await;
    assert!(poller.sid.starts_with("backendsid"));
    let mut link = backend.link().await;
    assert!(link.head.target.ends_with("&b64=1"));
    assert_eq!(poller.get().await.text(), "2:40");
    assert_eq!(poller.post("7:42[\"\u{f6}\"]1:2").await.text(), "ok");
    assert_eq!(link.text().await, "42[\"\u{f6}\"]", "lengths count UTF-16 units");
    assert_eq!(link.text().await, "2");
    assert_eq!(poller.get().await.text(), "7:42[\"\u{f6}\"]1:3");
    link.write(Frame::new(BINARY, [4, 1, 2, 3]).plain());
    assert_eq!(poller.get().await.text(), "6:b4AQID");
    for bad in ["", "x", "3:42", "99999999999999999999:4", "-1:4", "1:2junk"] {
        let poller = Poller::begin(&gate, V3_POLLING, |ask| ask.bearer(&token("alice"))).await;
        backend.link().await;
        assert_eq!(poller.post(bad).await.text(), "ok", "{bad:?}");
        assert_eq!(poller.get().await.code(), 1, "{bad:?}");
    }
}

#[tokio::test]
async fn p22_a_token_in_a_namespaces_query_stays_at_the_gate() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let (mut ws, _) = gate.session(Ask::upgrade(V3_WEBSOCKET).bearer(&token("alice"))).await;
    let mut link = backend.link().await;
    ws.send(&format!("40/admin?token={}&a=1&%74oken=x,", token("alice"))).await;
    assert_eq!(link.text().await, "40/admin?a=1,");
}

fn raw(config: &mut Config) {
    config.socketio.protocol = Protocol::EngineIo;
    config.credentials.sources = ["header:authorization", "query:token", "cookie:token"].map(String::from).to_vec();
}

#[tokio::test]
async fn raw_engine_io_is_relayed_unread_and_needs_its_token_at_once() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, raw).await;
    for ask in [Ask::get(POLLING), Ask::upgrade(WEBSOCKET), Ask::get(POLLING).bearer(&tokens::expired("alice"))] {
        let answer = gate.ask(ask).await;
        assert_eq!(answer.status, 401);
    }
    assert!(backend.is_untouched());
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    let mut link = backend.link().await;
    // What is no Socket.IO packet is the backend's own business.
    for text in ["4hello", "40", "40", "4{}", "45x"] {
        ws.send(text).await;
        assert_eq!(link.text().await, text);
    }
    ws.write(Frame::new(BINARY, b"bytes").masked()).await;
    assert_eq!(link.next().await.unwrap().payload, b"bytes");
    ws.write(Frame::text("4x").plain()).await;
    assert_eq!(ws.closed().await, (1002, "protocol_error".into()), "frames are still frames");

    let poller = Poller::open(&gate, |ask| ask.bearer(&token("alice"))).await;
    let mut link = backend.link().await;
    assert_eq!(poller.post("4hello\x1ebAQID").await.text(), "ok");
    assert_eq!(link.text().await, "4hello");
    assert_eq!(link.next().await.unwrap().payload, [1, 2, 3]);
    link.send("4world");
    let mut fetched = String::new();
    while !fetched.contains("4world") {
        fetched += &poller.get().await.text();
    }
    assert!(fetched.starts_with("bAQID"), "what it echoed, in order: {fetched}");
}

#[tokio::test]
async fn a_token_may_come_as_a_subprotocol() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.credentials.sources = vec!["subprotocol:bearer".into()]).await;
    let alice = token("alice");
    let ask = Ask::upgrade(WEBSOCKET).with("sec-websocket-protocol", &format!("bearer, {alice}"));
    let (ws, _) = gate.session(ask).await;
    assert_eq!(ws.answer.header("sec-websocket-protocol"), Some("bearer"));
    let head = backend.link().await.head;
    assert_eq!((head.only("x-auth-subject"), head.all("sec-websocket-protocol")), ("alice", vec![]));
}

#[tokio::test]
async fn the_backends_timings_are_learned_by_a_handshake_without_a_word() {
    let open = open_packet("probed").replace("25000", "12345").replace("1000000", "5000");
    let backend = Backend::with(crate::support::backend::Script::default().opens(&open)).await;
    let gate = Gate::with(&backend, |config| config.socketio.probe = true).await;
    let link = backend.link().await;
    assert_eq!(link.head.target, "/socket.io/?EIO=4&transport=websocket");
    until("they are learned", || gate.context.max_payload() == 5000).await;
    let poller = Poller::open(&gate, |ask| ask).await;
    assert_eq!((&poller.open["pingInterval"], &poller.open["maxPayload"]), (&12345.into(), &5000.into()));
    assert_eq!(poller.post(&"4".repeat(5001)).await.status, 200, "before there is a user another bound counts");
    let mut link = link;
    assert!(link.rest().await.iter().all(|frame| frame.opcode == 8), "it connects to no namespace");
}
