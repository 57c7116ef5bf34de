//! A session ends when the verifier would refuse its token: on every transport, by both clocks, for both peers.

use crate::support::backend::{Backend, Link};
use crate::support::client::{Ask, Ws};
use crate::support::frames::{CLOSE, Frame, TEXT};
use crate::support::gate::Gate;
use crate::support::poller::{Poller, WEBSOCKET};
use crate::support::tokens::{self, changed, hs256, short, token};
use crate::support::{ms, until};
use serde_json::json;
use siogate::config::model::{Config, OnExpiry, Route, RouteAuth};
use std::time::{Duration, Instant};

const HOUR: i64 = 3_600_000;

fn stay_down(config: &mut Config) {
    config.socketio.on_expiry = OnExpiry::Disconnect;
}

/// Later, for the gate.
fn jump(gate: &Gate) {
    gate.context.clock.shift(HOUR);
}

/// The backend is told by a closed transport, never by a packet: recovery has to work.
async fn is_closed_as_a_transport(link: &mut Link, name: &str) {
    let frames = link.rest().await;
    let goodbyes = |f: &&Frame| f.opcode == TEXT && (f.payload == b"1" || f.payload.starts_with(b"41"));
    assert!(frames.iter().find(goodbyes).is_none(), "{name} {frames:?}");
    assert!(frames.iter().any(|f| f.opcode == CLOSE && f.as_close().0 == 1001), "{name} {frames:?}");
}

async fn nothing_is_left(gate: &Gate) {
    let registry = &gate.context.registry;
    until("nothing is left", || registry.is_empty() && registry.deadlines() == 0).await;
}

/// Three sessions by WebSocket: the token in the handshake, in CONNECT, and one that was upgraded.
async fn by_websocket(gate: &Gate, backend: &Backend) -> Vec<(&'static str, Ws, Link)> {
    let alice = token("alice");
    let (mut header, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&alice)).await;
    header.send("40").await;
    header.text().await;
    let one = backend.link().await;
    let (mut connect, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    connect.send(&format!(r#"40{{"token":"{alice}"}}"#)).await;
    connect.text().await;
    let two = backend.link().await;
    let poller = Poller::connected(gate, &alice).await;
    let mut upgraded = poller.upgrade().await;
    upgraded.send("40/admin,").await;
    upgraded.text().await;
    vec![("header", header, one), ("connect", connect, two), ("upgraded", upgraded, backend.link().await)]
}

#[tokio::test]
async fn p38_a_websocket_is_closed_with_4401_and_the_word() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let sessions = by_websocket(&gate, &backend).await;
    jump(&gate);
    for (name, mut ws, mut link) in sessions {
        assert_eq!(ws.closed().await, (4401, "token_expired".into()), "{name}");
        is_closed_as_a_transport(&mut link, name).await;
    }
    nothing_is_left(&gate).await;
}

#[tokio::test]
async fn p38_who_is_to_stay_down_is_told_so_in_each_namespace_first() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, stay_down).await;
    let sessions = by_websocket(&gate, &backend).await;
    jump(&gate);
    for (name, mut ws, mut link) in sessions {
        if name == "upgraded" {
            assert_eq!(ws.text().await, "41/admin,");
        }
        assert_eq!(ws.text().await, "41", "{name}");
        assert_eq!(ws.closed().await, (4401, "token_expired".into()), "{name}");
        is_closed_as_a_transport(&mut link, name).await;
    }
    nothing_is_left(&gate).await;
}

#[tokio::test]
async fn p39_a_held_poll_is_answered_401_and_then_the_sid_is_unknown() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut link = backend.link().await;
    let mut held = poller.hold().await;
    jump(&gate);
    let answer = held.answer().await;
    assert_eq!((answer.status, answer.code(), answer.reason().as_str()), (401, 4, "token_expired"));
    assert_eq!(answer.json()["message"], "token expired");
    let answer = poller.get().await;
    assert_eq!((answer.status, answer.code()), (400, 1));
    is_closed_as_a_transport(&mut link, "polling").await;
    nothing_is_left(&gate).await;
}

#[tokio::test]
async fn p39_without_a_held_poll_the_next_request_is_told_once() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let mut pollers = Vec::new();
    for _ in 0..4 {
        pollers.push(Poller::connected(&gate, &token("alice")).await);
        backend.link().await;
    }
    jump(&gate);
    nothing_is_left(&gate).await;
    let get = pollers[0].get().await;
    let post = pollers[1].post(r#"42["late"]"#).await;
    for answer in [get, post] {
        assert_eq!((answer.status, answer.code(), answer.reason().as_str()), (401, 4, "token_expired"));
    }
    let upgrade = pollers[2].probe().await.err().unwrap();
    assert_eq!((upgrade.status, upgrade.closes()), (401, true));
    // The old token with the old sid says the same as no token.
    let with_token = pollers[3].ask(Ask::get(&pollers[3].target()).bearer(&token("alice"))).await;
    assert_eq!(with_token.reason(), "token_expired");
    for poller in &pollers {
        assert_eq!(poller.get().await.code(), 1);
    }
    assert!(backend.requests().len() == 4);
}

#[tokio::test]
async fn p39_a_poller_that_is_to_stay_down_fetches_its_disconnect() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, stay_down).await;
    let (held, idle) = (Poller::connected(&gate, &token("alice")).await, Poller::connected(&gate, &token("bob")).await);
    held.post("40/admin,").await;
    assert!(held.get().await.text().starts_with("40/admin,"));
    let mut get = held.hold().await;
    jump(&gate);
    let answer = get.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "41/admin,\x1e41"));
    assert_eq!(held.get().await.code(), 1);
    assert_eq!(idle.get().await.text(), "41");
    assert_eq!(idle.get().await.code(), 1);
    nothing_is_left(&gate).await;
}

#[tokio::test]
async fn p39_in_the_middle_of_an_upgrade_both_transports_end() {
    for goodbye in [false, true] {
        let backend = Backend::start().await;
        let gate = Gate::with(&backend, |config| {
            if goodbye {
                stay_down(config)
            }
        })
        .await;
        let poller = Poller::connected(&gate, &token("alice")).await;
        let mut ws = poller.probe().await.unwrap();
        ws.send("2probe").await;
        assert_eq!(ws.text().await, "3probe");
        jump(&gate);
        ws.closed().await;
        let answer = poller.get().await;
        match goodbye {
            true => assert_eq!(answer.text(), "41"),
            false => assert_eq!((answer.status, answer.reason().as_str()), (401, "token_expired")),
        }
        assert_eq!(poller.get().await.code(), 1);
        nothing_is_left(&gate).await;
    }
}

#[tokio::test]
async fn p39_nothing_passes_after_the_end() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&short("alice", 2))).await;
    let link = backend.link().await;
    ws.send("40").await;
    ws.text().await;
    let ends = tokens::read_claims(&short("alice", 0))["exp"].as_u64().unwrap() + 2;
    // Both sides chatter on as fast as they may.
    let mut last = 0;
    loop {
        let sent = ws.conn.try_write(Frame::text(r#"42["tick"]"#).masked()).await;
        link.send(r#"42["tock"]"#);
        match ws.next().await {
            Some(frame) if frame.opcode == CLOSE => {
                assert_eq!(frame.as_close(), (4401, "token_expired".into()));
                break;
            }
            Some(_) => last = tokens::now(),
            None => panic!("closed without a word"),
        }
        if sent.is_err() {
            break;
        }
    }
    assert!(last <= ends && tokens::now() <= ends + 1, "{last} {ends}");
}

#[tokio::test]
async fn p38_a_clock_that_is_set_back_keeps_nobody() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let started = Instant::now();
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&short("alice", 2))).await;
    gate.context.clock.shift(-HOUR);
    assert_eq!(ws.closed().await, (4401, "token_expired".into()));
    assert!(started.elapsed() < Duration::from_secs(4));
    // And who comes now is judged by the clock as it is.
    let answer = gate
        .ask(Ask::get("/socket.io/?EIO=3&transport=polling").bearer(&hs256(&changed("a", "iat", json!(null)))))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn j12_no_token_outlives_the_longest_lifetime() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.session.max_lifetime = ms(400)).await;
    for exp in [json!(u64::MAX), json!(1_000_000_000_000_000_000_u64), json!(tokens::now() + 600)] {
        let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&hs256(&changed("alice", "exp", exp)))).await;
        assert_eq!(ws.closed().await, (4401, "max_session".into()));
    }
    let poller = Poller::connected(&gate, &token("alice")).await;
    let answer = poller.hold().await.answer().await;
    assert_eq!((answer.status, answer.reason().as_str()), (401, "max_session"));
}

#[tokio::test]
async fn a_token_that_expires_between_open_and_connect_is_refused_there() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    jump(&gate);
    ws.send(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
    let refusal = ws.text().await;
    assert_eq!(refusal, r#"44{"message":"token expired","data":{"code":"token_expired"}}"#);
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn leeway_is_part_of_the_right_to_be_inside() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.issuer[0].leeway = Duration::from_secs(60)).await;
    let late = hs256(&changed("alice", "exp", json!(tokens::now() - 30)));
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&late)).await;
    gate.context.clock.shift(20_000);
    ws.send("40").await;
    assert!(ws.text().await.starts_with("40{"));
    gate.context.clock.shift(15_000);
    assert_eq!(ws.closed().await, (4401, "token_expired".into()));
}

#[tokio::test]
async fn an_applications_own_websocket_ends_with_its_token_too() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.http.route = vec![Route { path: "/ws".into(), auth: RouteAuth::Optional, websocket: true }];
    })
    .await;
    let (mut ws, _) = gate.session(Ask::upgrade("/ws").bearer(&token("alice"))).await;
    let (mut anonymous, _) = gate.session(Ask::upgrade("/ws")).await;
    jump(&gate);
    assert_eq!(ws.closed().await, (4401, "token_expired".into()));
    anonymous.send("42[1]").await;
    assert_eq!(anonymous.text().await, "42[1]", "no token, no end");
}
