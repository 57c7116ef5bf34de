//! A gate that is asked to stop lets everybody leave, in time, and leaves nothing behind.

use crate::support::backend::{Backend, Script};
use crate::support::client::Ask;
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::token;
use crate::support::{until, within};
use siogate::config::model::{Route, RouteAuth};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

#[tokio::test]
async fn p50_everybody_is_shown_out_under_load_and_the_process_ends_in_time() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.admin.listen = "127.0.0.1:0".into();
        config.http.route = vec![Route { path: "/".into(), auth: RouteAuth::Pass, websocket: true }];
    })
    .await;
    let alice = token("alice");
    let (mut sockets, mut held, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..40 {
        sockets.push(gate.session(Ask::upgrade(WEBSOCKET).bearer(&alice)).await.0);
        let poller = Poller::connected(&gate, &alice).await;
        held.push((poller.hold().await, poller));
        waiting.push(gate.session(Ask::upgrade(WEBSOCKET)).await.0);
    }
    sockets.push(gate.session(Ask::upgrade("/own")).await.0);
    let idle = Poller::connected(&gate, &alice).await;
    let mut keep_alive = gate.conn().await;
    assert_eq!(keep_alive.ask(Ask::get("/a")).await.status, 200);
    let (context, addr) = (gate.context.clone(), gate.addr.clone());
    let admin = gate.admin.clone();
    let started = Instant::now();
    let down = gate.drain();
    for mut ws in sockets.into_iter().chain(waiting) {
        assert_eq!(ws.closed().await, (1012, "draining".into()));
    }
    for (mut held, _) in held {
        let answer = held.answer().await;
        assert_eq!((answer.status, answer.reason().as_str()), (503, "draining"));
        assert_eq!(answer.header("retry-after"), Some("2"));
    }
    assert!(keep_alive.rest().await.is_empty());
    within("the gate is down", down).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(context.registry.is_empty() && context.registry.deadlines() == 0 && context.tasks.is_empty());
    assert!(TcpStream::connect(&addr).await.is_err() && TcpStream::connect(&admin).await.is_err());
    // The last handle on the pool of plain connections.
    drop(context);
    until("no connection to the backend is left", || backend.closed() == backend.accepted()).await;
    drop(idle);
}

#[tokio::test]
async fn p50_a_drain_waits_for_a_request_that_is_under_way_and_admits_nobody_else() {
    let backend = Backend::with(Script::default().switch(|_| Vec::new())).await;
    let gate = Gate::with(&backend, |config| {
        config.admin.listen = "127.0.0.1:0".into();
        config.server.drain_timeout = Duration::from_secs(3);
        config.upstream.connect_timeout = Duration::from_secs(1);
    })
    .await;
    // The backend does not answer: this handshake is under way for a second.
    let mut slow = gate.conn().await;
    slow.write(Ask::get(POLLING).bearer(&token("alice")).bytes()).await;
    until("it is under way", || !backend.requests().is_empty()).await;
    let mut late = gate.conn().await;
    late.write("GET ").await;
    let admin = gate.admin.clone();
    let context = gate.context.clone();
    let down = gate.drain();
    until("the drain has begun", || context.is_draining()).await;
    let ask = Ask { host: Some("localhost".into()), ..Ask::get("/readyz") };
    let answer = crate::support::client::Conn::open(&admin).await.ask(ask).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "draining\n"));
    let rest = format!("{POLLING} HTTP/1.1\r\nhost: gate.test\r\n\r\n");
    let _ = late.try_write(rest).await;
    if let Some(answer) = late.try_answer().await {
        assert_eq!((answer.status, answer.reason().as_str()), (503, "draining"));
    }
    assert_eq!(slow.answer().await.reason(), "upstream_unavailable");
    within("the gate is down", down).await.unwrap();
    assert!(context.tasks.is_empty());
}

#[tokio::test]
async fn p50_who_does_not_leave_is_left_behind_at_the_deadline() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.server.drain_timeout = Duration::from_millis(400);
        config.http.route = vec![Route { path: "/".into(), auth: RouteAuth::Pass, websocket: false }];
    })
    .await;
    // Half a request that will never be whole.
    let mut half = gate.conn().await;
    half.write(Ask::new("POST", "/a").with("content-length", "10").bytes()).await;
    let mut deaf = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await.0;
    let context = gate.context.clone();
    let started = Instant::now();
    within("the gate is down", gate.drain()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(context.tasks.is_empty());
    assert_eq!(deaf.closed().await, (1012, "draining".into()));
}
