//! Nothing outlives a session: ten thousand of them come and go, and everything is back where it was.

use crate::support::backend::Backend;
use crate::support::client::{Ask, Conn, Ws};
use crate::support::gate::{Gate, config};
use crate::support::ms;
use crate::support::poller::{Poller, WEBSOCKET};
use crate::support::tokens::{changed, hs256};
use futures_util::future::join_all;
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const SESSIONS: usize = 10_000;
/// Says that this process was started for the one test, so that descriptors are its own.
const ALONE: &str = "SIOGATE_TEST_ALONE";

/// What a client may leave behind.
#[derive(PartialEq, Debug)]
struct Left {
    sessions: usize,
    deadlines: usize,
    unauthenticated: usize,
    tasks: usize,
    descriptors: usize,
    backend: usize,
}

impl Left {
    fn now(gate: &Gate, backend: &Backend) -> Left {
        let context = &gate.context;
        Left {
            sessions: context.registry.len(),
            deadlines: context.registry.deadlines(),
            unauthenticated: context.registry.unauthenticated(),
            tasks: context.tasks.len(),
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            backend: backend.accepted() - backend.closed(),
        }
    }
}

#[test]
fn ten_thousand_sessions_leave_nothing_behind() {
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().unwrap();
        let name = "leaks::ten_thousand_sessions_leave_nothing_behind";
        let run = Command::new(this).args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(come_and_go());
}

async fn come_and_go() {
    let backend = Backend::start().await;
    let mut config = config(&[&backend.url]);
    // Busy machines take their time: nothing here is about deadlines.
    config.socketio.connect_deadline = Duration::from_secs(60);
    config.upstream.connect_timeout = Duration::from_secs(30);
    config.limits.max_unauthenticated_per_ip = SESSIONS;
    let gate = Gate::start(config).await;
    let size = wave_size();
    wave(&gate, 16, true).await;
    let before = settled(&gate, &backend, |left| left.sessions == 0 && left.tasks == 0 && left.backend == 0).await;
    let (started, mut done) = (Instant::now(), 0);
    while done < SESSIONS {
        let n = size.min(SESSIONS - done);
        wave(&gate, n, (done / size).is_multiple_of(8)).await;
        done += n;
    }
    let after = settled(&gate, &backend, |left| *left == before).await;
    assert_eq!(after, before, "after {done} sessions in {:?}", started.elapsed());
    // Most of them got as far as the backend.
    assert!(backend.accepted() > SESSIONS / 2, "{}", backend.accepted());
}

/// Each session needs four descriptors, polling ones a few more for a moment.
fn wave_size() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(1024);
    (soft.saturating_sub(200) / 8).clamp(32, 400)
}

async fn settled(gate: &Gate, backend: &Backend, done: impl Fn(&Left) -> bool) -> Left {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let left = Left::now(gate, backend);
        if done(&left) || Instant::now() > patience {
            return left;
        }
        sleep(ms(10)).await;
    }
}

/// What a session was when it was cut.
enum Client {
    Socket(Ws),
    Poll(Conn),
    Idle(Poller),
}

impl Client {
    /// Walks away: most without a word, pollers must say so.
    async fn leave(self) {
        match self {
            Client::Socket(ws) => drop(ws),
            Client::Poll(held) => drop(held),
            Client::Idle(poller) => {
                assert_eq!(poller.post("1").await.text(), "ok");
            }
        }
    }
}

/// So many sessions of all kinds at once. They leave by themselves; or half of those who have a token run into its end.
/// So does a poller whose connection was gone before its poll was held: nobody has seen it leave.
async fn wave(gate: &Gate, n: usize, expires: bool) {
    let exp = gate.context.clock.unix() + 600;
    let claims = changed("alice", "exp", json!(exp));
    let token = hs256(&claims);
    let all = join_all((0..n).map(|i| come(gate, &token, i))).await;
    let stays = |i: &usize| expires && i % 16 < 8 && i % 4 != 3;
    let (staying, leaving): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(i, _)| stays(i));
    join_all(leaving.into_iter().map(|(_, client)| client.leave())).await;
    let registry = &gate.context.registry;
    let begun = Instant::now();
    let mut expired = false;
    while !registry.is_empty() {
        if !expired && (expires || begun.elapsed() > Duration::from_secs(1)) {
            gate.context.clock.shift(700_000);
            expired = true;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{} sessions do not end", registry.len());
        sleep(ms(5)).await;
    }
    drop(staying);
}

async fn come(gate: &Gate, token: &str, i: usize) -> Client {
    let connect = format!(r#"40{{"token":"{token}"}}"#);
    match i % 8 {
        0 => Client::Socket(gate.session(Ask::upgrade(WEBSOCKET).bearer(token)).await.0),
        1 => {
            let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(token)).await;
            ws.send("40").await;
            ws.text().await;
            Client::Socket(ws)
        }
        2 => {
            let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
            ws.send(&connect).await;
            ws.text().await;
            Client::Socket(ws)
        }
        3 => Client::Socket(gate.session(Ask::upgrade(WEBSOCKET)).await.0),
        4 => Client::Idle(Poller::connected(gate, token).await),
        5 => Client::Poll(Poller::connected(gate, token).await.hold().await),
        6 => {
            let poller = Poller::open(gate, |ask| ask).await;
            poller.post(&connect).await;
            let mut ws = poller.upgrade().await;
            ws.text().await;
            Client::Socket(ws)
        }
        _ => {
            let poller = Poller::open(gate, |ask| ask).await;
            // A WebSocket that never probes, and is gone again.
            drop(poller.probe().await);
            Client::Idle(poller)
        }
    }
}
