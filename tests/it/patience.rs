//! Slow, silent and many: everybody has so much time and room, and then it is given to somebody else.

use crate::support::backend::{Backend, Script, open_packet};
use crate::support::certs::Certs;
use crate::support::client::{Ask, Conn};
use crate::support::gate::{Gate, hurried};
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{expired, token};
use crate::support::{ms, until};
use siogate::config::model::{Config, Route, RouteAuth, ServerTls};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

fn open(config: &mut Config) {
    config.http.route = vec![Route { path: "/".into(), auth: RouteAuth::Pass, websocket: true }];
}

#[tokio::test]
async fn p27_a_head_that_drips_and_a_connection_that_is_idle_are_closed() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, hurried).await;
    let started = Instant::now();
    let mut drip = gate.conn().await;
    drip.write("GET /socket.io/ HTTP/1.1\r\nhost: gate.test\r\n").await;
    while drip.try_write("x: y\r\n").await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(5), "it goes on for ever");
        sleep(ms(20)).await;
    }
    let mut silent = gate.conn().await;
    assert!(silent.rest().await.is_empty());
    let mut kept = gate.conn().await;
    assert_eq!(kept.ask(Ask::get("/")).await.status, 404);
    assert!(kept.rest().await.is_empty());
    until("nothing is left", || gate.context.tasks.is_empty()).await;
}

#[tokio::test]
async fn p28_a_body_that_stops_moving_is_408_on_plain_http_too() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        open(config);
        hurried(config);
    })
    .await;
    let mut conn = gate.conn().await;
    conn.write(Ask::new("POST", "/upload").with("content-length", "100").bytes()).await;
    conn.write("half").await;
    let answer = conn.answer().await;
    assert_eq!((answer.status, answer.closes()), (408, true));
    until("the backend's connection is closed", || backend.closed() == 1).await;
    // One that moves, however slowly, arrives.
    let mut conn = gate.conn().await;
    conn.write(Ask::new("POST", "/upload").with("content-length", "8").bytes()).await;
    for piece in ["ab", "cd", "ef", "gh"] {
        sleep(ms(150)).await;
        conn.write(piece).await;
    }
    assert_eq!(conn.answer().await.status, 200);
    let (head, body) = backend.requests().pop().unwrap();
    assert_eq!((head.method.as_str(), body.as_slice()), ("POST", b"abcdefgh".as_slice()));
}

#[tokio::test]
async fn p28_a_client_that_does_not_take_its_answer_is_cut() {
    let large = "x".repeat(48_000_000);
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{large}", large.len());
    let backend = Backend::with(Script::default().plain(move |_| reply.clone().into_bytes())).await;
    let gate = Gate::with(&backend, |config| {
        open(config);
        config.limits.write_timeout = ms(400);
    })
    .await;
    let mut conn = gate.conn().await;
    conn.write(Ask::get("/large").bytes()).await;
    until("the answer is under way", || !backend.requests().is_empty()).await;
    until("the connection is given up", || gate.context.tasks.is_empty()).await;
    until("the backend's too", || backend.closed() == 1).await;
    drop(conn);
}

#[tokio::test]
async fn p28_a_peer_that_falls_silent_ends_the_session_on_both_sides() {
    let open = open_packet("silent").replace("25000", "200").replace("20000", "200");
    let backend = Backend::with(Script::default().opens(&open)).await;
    let gate = Gate::of(&backend).await;
    let started = Instant::now();
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    let mut link = backend.link().await;
    // The backend pings and is not answered, or does not ping: the gate looks every five seconds.
    let closed = timeout(Duration::from_secs(25), async {
        loop {
            match ws.conn.frame().await {
                Some(frame) if frame.opcode == 8 => return frame.as_close(),
                Some(_) => {}
                None => panic!("no close frame"),
            }
        }
    });
    assert_eq!(closed.await.expect("closed in time"), (4400, "idle".into()));
    assert!(started.elapsed() > ms(400));
    assert!(link.rest().await.iter().any(|frame| frame.opcode == 8));
    drop(ws);
    until("nothing is left", || gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_gates_own_pings_is_gone() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.socketio.ping_interval = Some(ms(100));
        config.socketio.ping_timeout = Some(ms(150));
    })
    .await;
    let (mut dead, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    let (mut live, open) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    assert!(open.contains(r#""pingInterval":100,"pingTimeout":150"#), "{open}");
    for _ in 0..6 {
        assert_eq!(live.text().await, "2");
        live.send("3").await;
    }
    assert_eq!(dead.text().await, "2");
    dead.closed().await;
    assert_eq!(gate.context.registry.len(), 1);
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p31_sessions_without_a_user_are_counted_by_address_and_together() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.limits.max_unauthenticated = 5;
        config.limits.max_unauthenticated_per_ip = 3;
    })
    .await;
    let from = |ask: Ask, address: &str| ask.with("x-forwarded-for", address);
    let is_full = |answer: crate::support::client::Answer, name: &str| {
        assert_eq!((answer.status, answer.reason().as_str()), (503, "too_many_connections"), "{name}");
        assert_eq!(answer.header("retry-after"), Some("2"));
    };
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(gate.session(from(Ask::upgrade(WEBSOCKET), "198.51.100.1")).await.0);
    }
    is_full(gate.ask(from(Ask::get(POLLING), "198.51.100.1")).await, "one address");
    is_full(gate.ask(from(Ask::upgrade(WEBSOCKET), "198.51.100.1")).await, "one address, by WebSocket");
    inside.push(gate.session(from(Ask::upgrade(WEBSOCKET), "2001:db8::1")).await.0);
    inside.push(gate.session(from(Ask::upgrade(WEBSOCKET), "2001:db8::ffff:2")).await.0);
    is_full(gate.ask(from(Ask::get(POLLING), "198.51.100.2")).await, "all together");
    assert_eq!(gate.context.registry.unauthenticated(), 5);
    // Who shows a credential needs no such place, and who is admitted gives his back.
    let alice = from(Ask::upgrade(WEBSOCKET), "198.51.100.1").bearer(&token("alice"));
    let (_alice, _) = gate.session(alice).await;
    inside[0].send(&format!(r#"40{{"token":"{}"}}"#, token("bob"))).await;
    assert!(inside[0].text().await.starts_with("40{"));
    assert_eq!(gate.context.registry.unauthenticated(), 4);
    assert_eq!(gate.ask(from(Ask::get(POLLING), "198.51.100.1")).await.status, 200);
    is_full(gate.ask(from(Ask::get(POLLING), "198.51.100.1")).await, "full again");
    // Who leaves gives it back, too.
    inside.truncate(1);
    until("they have left", || gate.context.registry.unauthenticated() == 1).await;
    assert_eq!(gate.ask(from(Ask::get(POLLING), "198.51.100.1")).await.status, 200);
}

#[tokio::test]
async fn p31_who_does_not_connect_in_time_is_shown_out_whatever_else_he_says() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, hurried).await;
    let (mut silent, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    let (mut busy, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    let (mut half, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    busy.send(&format!(r#"40{{"token":"{}"}}"#, expired("alice"))).await;
    half.write(&crate::support::frames::Frame::text("40{\"token\":\"").masked()[..9]).await;
    let (idle, held) = (Poller::open(&gate, |ask| ask).await, Poller::open(&gate, |ask| ask).await);
    let mut get = held.hold().await;
    let upgraded = Poller::open(&gate, |ask| ask).await;
    let mut upgraded = upgraded.upgrade().await;
    for (name, ws) in [("silent", &mut silent), ("busy", &mut busy), ("half", &mut half), ("upgraded", &mut upgraded)] {
        assert_eq!(ws.closed().await, (4400, "connect_timeout".into()), "{name}");
    }
    let answer = get.answer().await;
    assert_eq!((answer.status, answer.reason().as_str()), (400, "connect_timeout"));
    assert_eq!(held.get().await.code(), 1);
    assert_eq!(idle.get().await.reason(), "connect_timeout", "told with the next request");
    assert_eq!(idle.get().await.code(), 1, "once");
    until("nothing is left", || gate.context.registry.is_empty()).await;
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn max_sessions_counts_everybody_and_no_backend_is_dialled_in_vain() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.limits.max_sessions = 2).await;
    let (first, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    let _second = Poller::open(&gate, |ask| ask).await;
    for ask in [
        Ask::upgrade(WEBSOCKET),
        Ask::upgrade(WEBSOCKET).bearer(&token("bob")),
        Ask::get(POLLING).bearer(&token("bob")),
    ] {
        let answer = gate.ask(ask).await;
        assert_eq!((answer.status, answer.reason().as_str()), (503, "too_many_connections"));
    }
    assert_eq!(backend.accepted(), 1);
    drop(first);
    until("one has left", || gate.context.registry.len() == 1).await;
    gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("bob"))).await;
}

#[tokio::test]
async fn p30_half_a_tls_handshake_is_given_up_and_disturbs_nobody() {
    let certs = Certs::new();
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.server.tls = Some(ServerTls { cert: certs.path("cert.pem"), key: certs.path("key.pem") });
    })
    .await;
    let mut half = Vec::new();
    for _ in 0..50 {
        let mut conn = gate.conn().await;
        conn.write([0x16, 3, 1]).await;
        half.push(conn);
    }
    let mut plain = gate.conn().await;
    plain.write(Ask::get("/").bytes()).await;
    assert!(!plain.rest().await.starts_with(b"HTTP"));
    assert_eq!(Conn::tls(&gate.addr, certs.client()).await.unwrap().ask(Ask::get("/")).await.status, 404);
    until("they are given up", || gate.context.tasks.is_empty()).await;
    drop(half);
}
