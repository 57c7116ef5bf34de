//! Backends that are away, broken or hostile: no tunnel, no hang, and a word for it.

use crate::support::backend::{Backend, Script, open_packet, switching};
use crate::support::certs::Certs;
use crate::support::client::{Ask, Conn, Ws};
use crate::support::frames::{Frame, TEXT};
use crate::support::gate::{Gate, config, hurried};
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::token;
use crate::support::{ms, until};
use futures_util::future::join_all;
use siogate::config::model::ServerTls;
use std::sync::atomic::Ordering;
use tempfile::TempDir;

/// What is refused on each of the four ways in: the word, and status and close code that go with it.
async fn is_refused(backend: &Backend, gate: &Gate, name: &str, word: &str) {
    let (status, code) = if word == "upstream_refused" { (502, 4502) } else { (503, 4503) };
    let alice = token("alice");
    let connect = format!(r#"40{{"token":"{alice}"}}"#);

    let answer = gate.ask(Ask::upgrade(WEBSOCKET).bearer(&alice)).await;
    assert_eq!((answer.status, answer.reason().as_str(), answer.closes()), (status, word, true), "{name}");
    let answer = gate.ask(Ask::get(POLLING).bearer(&alice)).await;
    assert_eq!((answer.status, answer.reason().as_str()), (status, word), "{name}");

    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    ws.send(&connect).await;
    assert_eq!(ws.closed().await, (code, word.to_owned()), "{name}");
    let poller = Poller::open(gate, |ask| ask).await;
    let mut held = poller.hold().await;
    let posted = poller.post(&connect).await;
    let held = held.answer().await;
    assert_eq!((held.status, held.reason().as_str()), (status, word), "{name} {posted:?}");
    assert_eq!(poller.get().await.code(), 1, "{name}");

    // One connection for each, used for nothing else and closed.
    until(name, || backend.accepted() == 4 && backend.closed() == 4 && gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn p07_p09_only_a_flawless_101_opens_a_tunnel() {
    let plain = |text: &'static str| Script::default().switch(move |_| text.as_bytes().to_vec()).hangs_up();
    let patched = |from: &'static str, to: &'static str| {
        Script::default().switch(move |head| {
            let flawless = String::from_utf8(switching(head, "")).unwrap();
            assert!(flawless.contains(from));
            flawless.replace(from, to).into_bytes()
        })
    };
    let more = |line: &'static str| Script::default().switch(move |head| switching(head, line));
    for (name, script) in [
        ("101 without accept", patched("Sec-WebSocket-Accept", "X-Accept")),
        ("101 with a wrong accept", patched("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: a")),
        ("101 without upgrade", patched("Upgrade: websocket\r\n", "")),
        ("101 to h2c", patched("Upgrade: websocket\r\n", "Upgrade: h2c\r\n")),
        ("101 without connection", patched("Connection: Upgrade\r\n", "")),
        ("101 in HTTP/1.0", patched("HTTP/1.1 101", "HTTP/1.0 101")),
        ("101 with an extension", more("Sec-WebSocket-Extensions: permessage-deflate\r\n")),
        ("101 with a subprotocol nobody offered", more("Sec-WebSocket-Protocol: chat\r\n")),
        ("200", plain("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")),
        ("204", plain("HTTP/1.1 204 No Content\r\n\r\n")),
        ("302", plain("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")),
        ("401", plain("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")),
        ("426", plain("HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 8\r\ncontent-length: 0\r\n\r\n")),
        ("500 with a page", plain("HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nstack\r\n0\r\n\r\n")),
        ("garbage", plain("SSH-2.0-OpenSSH_9.6\r\n")),
        ("half a head", plain("HTTP/1.1 101 Switching Protocols\r\nUpgr")),
        (
            "a head without end",
            Script::default()
                .switch(|_| format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(20_000)).into_bytes())
                .hangs_up(),
        ),
        ("another packet than OPEN", Script::default().opens(r#"42["hello"]"#)),
        ("an OPEN that is no JSON", Script::default().opens("0nonsense")),
    ] {
        let backend = Backend::with(script).await;
        let gate = Gate::with(&backend, hurried).await;
        is_refused(&backend, &gate, name, "upstream_refused").await;
    }
}

#[tokio::test]
async fn p07_a_backend_that_says_nothing_or_only_half_of_it_is_unavailable() {
    let cases = [
        ("no answer", Script::default().switch(|_| Vec::new()).greeting(|_| Vec::new())),
        ("closes without an answer", Script::default().switch(|_| Vec::new()).hangs_up()),
        ("no OPEN", Script::default().greeting(|_| Vec::new())),
        ("half an OPEN", Script::default().greeting(|_| Frame::text(&open_packet("abc")).plain()[..20].to_vec())),
        ("closes before its OPEN", Script::default().greeting(|_| Vec::new()).hangs_up()),
        ("a close frame for an OPEN", Script::default().greeting(|_| Frame::close(1011, "").plain())),
        ("a masked OPEN", Script::default().greeting(|_| Frame::text(&open_packet("abc")).masked())),
    ];
    let all = cases.map(|(name, script)| async move {
        let backend = Backend::with(script).await;
        let gate = Gate::with(&backend, hurried).await;
        is_refused(&backend, &gate, name, "upstream_unavailable").await;
    });
    join_all(all).await;
}

#[tokio::test]
async fn a_backend_sid_that_could_mean_something_else_is_refused() {
    for sid in ["__proto__/..", "a b", "", "\u{f6}"] {
        let backend = Backend::with(Script::default().opens(&open_packet(sid))).await;
        let gate = Gate::of(&backend).await;
        let answer = gate.ask(Ask::get(POLLING).bearer(&token("alice"))).await;
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_refused"), "{sid}");
        assert!(gate.context.registry.is_empty());
    }
}

#[tokio::test]
async fn two_sessions_never_share_a_sid() {
    let backend = Backend::with(Script::default().opens(&open_packet("always-the-same"))).await;
    let gate = Gate::of(&backend).await;
    let first = Poller::connected(&gate, &token("alice")).await;
    let answer = gate.ask(Ask::get(POLLING).bearer(&token("mallory"))).await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_refused"));
    first.post(r#"42["still","here"]"#).await;
    assert_eq!(first.get().await.text(), r#"42["still","here"]"#);
}

#[tokio::test]
async fn p07_a_backend_that_dies_in_mid_frame_ends_its_session_and_no_other() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let alice = token("alice");
    let (mut other, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&alice)).await;
    let _other_link = backend.link().await;
    let half = || Frame::new(TEXT, "42[\"".repeat(100)).plain()[..150].to_vec();

    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&alice)).await;
    let link = backend.link().await;
    link.write(half());
    link.cut();
    // A frame cannot be completed, so no close frame may follow: the connection just ends.
    let rest = ws.conn.rest().await;
    assert!(half().starts_with(&rest), "{rest:?}");
    drop(ws);

    let poller = Poller::connected(&gate, &alice).await;
    let link = backend.link().await;
    let mut held = poller.hold().await;
    link.write(half());
    link.cut();
    assert_eq!(held.answer().await.code(), 1);
    assert_eq!(poller.get().await.code(), 1);

    until("both are gone", || gate.context.registry.len() == 1).await;
    other.send(r#"42["still","here"]"#).await;
    assert_eq!(other.text().await, r#"42["still","here"]"#);
}

#[tokio::test]
async fn a_backend_that_breaks_the_websocket_protocol_ends_its_session() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("a reserved bit", vec![0xc1, 1, b'2']),
        ("a reserved opcode", vec![0x83, 1, b'2']),
        ("a masked frame", Frame::text("2").masked()),
        ("a fragmented ping", vec![0x09, 0]),
        ("a continuation of nothing", vec![0x80, 1, b'2']),
        ("a length that is not the shortest", vec![0x81, 126, 0, 1, b'2']),
        ("a length of 2^63", [&[0x81, 127, 0x80][..], &[0; 7]].concat()),
    ];
    for (name, bytes) in broken {
        let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
        backend.link().await.write(bytes.clone());
        assert_eq!(ws.closed().await, (4503, "upstream_unavailable".into()), "{name}");
        let poller = Poller::connected(&gate, &token("alice")).await;
        let mut held = poller.hold().await;
        backend.link().await.write(bytes);
        let held = held.answer().await;
        assert!(held.status == 503 || held.code() == 1, "{name} {held:?}");
        until(name, || gate.context.registry.is_empty()).await;
    }
}

#[tokio::test]
async fn what_the_backend_closes_is_closed_and_its_last_words_arrive() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    let mut link = backend.link().await;
    link.send("41");
    link.close(4321, "as the application says");
    assert_eq!(ws.text().await, "41");
    assert_eq!(ws.closed().await, (4321, "as the application says".into()));
    assert!(link.rest().await.iter().any(|frame| frame.opcode == 8), "the close handshake is the peers' own");

    let poller = Poller::connected(&gate, &token("alice")).await;
    let link = backend.link().await;
    link.send(r#"42["last"]"#);
    link.close(1000, "");
    assert_eq!(poller.get().await.text(), r#"42["last"]"#);
    assert_eq!(poller.get().await.code(), 1);
    until("both are gone", || gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn p18_what_open_offers_is_what_the_gate_can_do() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::open(&gate, |ask| ask.bearer(&token("alice"))).await;
    assert_eq!(poller.open["upgrades"], serde_json::json!(["websocket"]));
    assert_eq!(poller.open["pingInterval"], 25000);
    assert_eq!(poller.answer.header("content-length").unwrap(), poller.answer.body.len().to_string());
    let (_ws, open) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    assert!(open.contains(r#""upgrades":[]"#) && !open.contains("webtransport"), "{open}");
    let answer = gate.get("/socket.io/?EIO=4&transport=webtransport").await;
    assert_eq!((answer.status, answer.code()), (400, 0));
}

#[tokio::test]
async fn backends_take_turns_and_a_dead_one_is_passed_over() {
    let (one, two, dead) = (Backend::start().await, Backend::start().await, Backend::start().await);
    let urls = [one.url.clone(), dead.url.clone(), two.url.clone()];
    dead.die().await;
    let gate = Gate::start(config(&urls.each_ref().map(String::as_str))).await;
    for _ in 0..12 {
        let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
        ws.send("40").await;
        assert!(ws.text().await.starts_with("40{"));
    }
    assert!(one.accepted() >= 3 && two.accepted() >= 3 && one.accepted() + two.accepted() == 12);
}

#[tokio::test]
async fn without_any_backend_the_answer_is_503_and_the_gate_recovers() {
    let backend = Backend::start().await;
    let url = backend.url.clone();
    backend.die().await;
    let gate = Gate::start(config(&[&url])).await;
    let answer = gate.ask(Ask::get(POLLING).bearer(&token("alice"))).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "upstream_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("2"));
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    ws.send(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
    assert_eq!(ws.closed().await, (4503, "upstream_unavailable".into()));

    let address = url.strip_prefix("http://").unwrap().to_owned();
    let _again = Backend::at(&address, Script::default()).await;
    Poller::connected(&gate, &token("alice")).await;
}

#[tokio::test]
async fn a_backend_may_live_on_a_unix_socket() {
    let dir = TempDir::new().unwrap();
    let backend = Backend::unix(Script::default(), &dir.path().join("app.sock")).await;
    let gate = Gate::with(&backend, |config| {
        config.server.listen.push(format!("unix:{}", dir.path().join("gate.sock").display()));
        config.http.route = vec![siogate::config::model::Route {
            path: "/".into(),
            auth: siogate::config::model::RouteAuth::Pass,
            websocket: false,
        }];
    })
    .await;
    Poller::connected(&gate, &token("alice")).await;
    assert_eq!(backend.link().await.head.only("x-auth-subject"), "alice");
    // And so may the gate.
    let door = format!("unix:{}", dir.path().join("gate.sock").display());
    let answer = Conn::open(&door).await.ask(Ask::get("/a")).await;
    assert_eq!(answer.text(), "backend");
    gate.stop().await;
    assert!(!dir.path().join("gate.sock").exists(), "its file goes with the door");
}

#[tokio::test]
async fn tls_is_spoken_on_both_sides_and_both_sides_are_verified() {
    let (certs, strangers) = (Certs::new(), Certs::new());
    let backend = Backend::tls(Script::default(), certs.server()).await;
    let tls = |config: &mut siogate::config::model::Config| {
        config.server.tls = Some(ServerTls { cert: certs.path("cert.pem"), key: certs.path("key.pem") });
        config.upstream.ca_file = Some(certs.path("ca.pem"));
    };
    let gate = Gate::with(&backend, tls).await;
    let conn = Conn::tls(&gate.addr, certs.client()).await.unwrap();
    let mut ws =
        Ws::open(conn, Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await.unwrap_or_else(|a| panic!("{a:?}"));
    assert!(ws.text().await.starts_with("0{"));
    ws.send("40").await;
    assert!(ws.text().await.starts_with("40{"));
    let head = backend.link().await.head;
    assert_eq!((head.only("x-auth-subject"), head.only("x-forwarded-proto")), ("alice", "https"));
    assert!(Conn::tls(&gate.addr, strangers.client()).await.is_err(), "not that authority's certificate");

    // A backend of an authority that nobody named is no backend.
    let other = Backend::tls(Script::default(), strangers.server()).await;
    let gate = Gate::with(&other, tls).await;
    let answer =
        Conn::tls(&gate.addr, certs.client()).await.unwrap().ask(Ask::get(POLLING).bearer(&token("alice"))).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "upstream_unavailable"));
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn p28_a_client_that_does_not_read_stops_its_own_backend_and_nobody_elses() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.limits.max_queue = 200_000).await;
    let alice = token("alice");
    let (mut other, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&alice)).await;
    let _link = backend.link().await;

    let (_ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&alice)).await;
    let by_ws = backend.link().await;
    let poller = Poller::connected(&gate, &alice).await;
    let by_polling = backend.link().await;
    for link in [&by_ws, &by_polling] {
        for _ in 0..1000 {
            link.write(Frame::text(&format!("42[\"{}\"]", "x".repeat(65_000))).plain());
        }
    }
    for (name, link) in [("websocket", by_ws), ("polling", by_polling)] {
        let mut before = u64::MAX;
        loop {
            let now = link.written.load(Ordering::Relaxed);
            if now == before {
                break;
            }
            before = now;
            tokio::time::sleep(ms(300)).await;
        }
        // Two socket buffers and the queue, not the 65 MB that the backend wants to say.
        assert!(before < 30_000_000, "{name}: the backend was rid of {before} bytes");
    }
    other.send(r#"42["still","here"]"#).await;
    assert_eq!(other.text().await, r#"42["still","here"]"#);
    assert!(poller.get().await.text().len() <= 1_000_000, "one answer is no longer than maxPayload");
}
