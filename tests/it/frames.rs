//! WebSocket frames that break RFC 6455: a close code and a word, before anything is reserved for them.

use crate::support::backend::Backend;
use crate::support::client::{Ask, Ws};
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, Frame, MASK, PING, PONG, TEXT};
use crate::support::gate::Gate;
use crate::support::poller::{Poller, WEBSOCKET};
use crate::support::tokens::token;
use crate::support::until;

/// A masked head of this length form and nothing behind it.
fn claims(opcode: u8, form: u8, length: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, 0x80 | form][..], length, &MASK].concat()
}

fn masked(frame: Frame) -> Vec<u8> {
    frame.masked()
}

fn rsv(bits: u8) -> Vec<u8> {
    Frame { rsv: bits, ..Frame::text("42[1]") }.masked()
}

const BROKEN: (u16, &str) = (1002, "protocol_error");
const LONG: (u16, &str) = (1009, "payload_too_large");

/// What ends a session in every state.
fn bad_frames() -> Vec<(&'static str, Vec<u8>, (u16, &'static str))> {
    let part = |opcode, fin, text: &str| Frame::part(opcode, fin, text).masked();
    vec![
        ("unmasked", Frame::text("42[1]").plain(), BROKEN),
        ("reserved bit 1: compression that nobody agreed on", rsv(4), BROKEN),
        ("reserved bit 2", rsv(2), BROKEN),
        ("reserved bit 3", rsv(1), BROKEN),
        ("reserved opcode 3", masked(Frame::new(3, "x")), BROKEN),
        ("reserved opcode 11", masked(Frame::new(11, "x")), BROKEN),
        ("fragmented ping", part(PING, false, "x"), BROKEN),
        ("fragmented close", part(CLOSE, false, ""), BROKEN),
        ("long ping", masked(Frame::new(PING, [0; 126])), BROKEN),
        ("long pong", masked(Frame::new(PONG, [0; 70_000])), BROKEN),
        ("continuation of nothing", part(CONTINUATION, true, "x"), BROKEN),
        ("text within text", [part(TEXT, false, "42["), part(TEXT, true, "1]")].concat(), BROKEN),
        ("binary within text", [part(TEXT, false, "42["), part(BINARY, true, "1]")].concat(), BROKEN),
        ("5 bytes in the form for 126", claims(TEXT, 126, &[0, 5]), BROKEN),
        ("65535 bytes in the form for more", claims(TEXT, 127, &[0, 0, 0, 0, 0, 0, 255, 255]), BROKEN),
        ("2^63 bytes", claims(TEXT, 127, &[0x80, 0, 0, 0, 0, 0, 0, 0]), BROKEN),
        ("2^64 - 1 bytes", claims(TEXT, 127, &[255; 8]), BROKEN),
        ("2^63 - 1 bytes", claims(TEXT, 127, &[0x7f, 255, 255, 255, 255, 255, 255, 255]), LONG),
        ("2^40 bytes", claims(TEXT, 127, &[0, 0, 1, 0, 0, 0, 0, 0]), LONG),
        ("a binary message that nothing announced", masked(Frame::new(BINARY, "x")), BROKEN),
        ("base64 that nothing announced", masked(Frame::text("bAQID")), BROKEN),
        ("a CONNECT that is not UTF-8", masked(Frame::new(TEXT, b"40{\"token\":\"\xff\"}")), BROKEN),
    ]
}

async fn fresh(gate: &Gate) -> Ws {
    gate.session(Ask::upgrade(WEBSOCKET)).await.0
}

/// Admitted, connected, and relayed.
async fn relayed(gate: &Gate) -> Ws {
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    ws.send("40").await;
    assert!(ws.text().await.starts_with("40{"));
    ws
}

#[tokio::test]
async fn p35_before_there_is_a_user() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let more = [
        ("65537 bytes", claims(TEXT, 127, &[0, 0, 0, 0, 0, 1, 0, 1]), LONG),
        ("text that is not UTF-8", masked(Frame::new(TEXT, b"\xff")), BROKEN),
        ("an empty message", masked(Frame::text("")), BROKEN),
        ("a packet of no type", masked(Frame::text("7")), BROKEN),
        ("a ping the wrong way round", masked(Frame::text("2")), BROKEN),
        (
            "65537 bytes in pieces",
            [
                Frame::part(TEXT, false, [b'4'; 40_000]).masked(),
                Frame::part(CONTINUATION, true, [b'4'; 30_000]).masked(),
            ]
            .concat(),
            LONG,
        ),
    ];
    for (name, bytes, (code, word)) in bad_frames().into_iter().chain(more) {
        let mut ws = fresh(&gate).await;
        ws.write(&bytes).await;
        assert_eq!(ws.closed().await, (code, word.to_owned()), "{name}");
    }
    until("nothing is left", || gate.context.registry.is_empty()).await;
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p35_in_the_relay() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let more = [
        ("1000001 bytes", claims(TEXT, 127, &[0, 0, 0, 0, 0, 15, 66, 65]), LONG),
        (
            "1000001 bytes in pieces",
            [Frame::part(TEXT, false, [b'4'; 999_999]).masked(), claims(CONTINUATION, 2, &[])].concat(),
            LONG,
        ),
        ("a CONNECT of 65537 bytes", Frame::text(&format!("40{}", "x".repeat(65_535))).masked(), LONG),
    ];
    for (name, bytes, (code, word)) in bad_frames().into_iter().chain(more) {
        let mut ws = relayed(&gate).await;
        let mut link = backend.link().await;
        ws.send(r#"42["before"]"#).await;
        assert_eq!(ws.text().await, r#"42["before"]"#);
        ws.write(bytes).await;
        assert_eq!(ws.closed().await, (code, word.to_owned()), "{name}");
        let frames = link.rest().await;
        assert_eq!(frames[1].as_text(), r#"42["before"]"#, "{name}");
        assert!(frames.iter().all(|f| f.rsv == 0 && f.masked && [0, 1, 2, 8].contains(&f.opcode)), "{name} {frames:?}");
    }
    until("nothing is left", || gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn p35_on_a_socket_that_only_probes_they_end_that_socket_alone() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let more = ["3", "42[1]", "2", "", "7", "0{}", "40"]
        .map(|text| ("another packet than a probe", masked(Frame::text(text)), BROKEN));
    for (name, bytes, _) in bad_frames().into_iter().chain(more) {
        for probed in [false, true] {
            let mut ws = poller.probe().await.unwrap();
            if probed {
                ws.send("2probe").await;
                assert_eq!(ws.text().await, "3probe");
            }
            ws.write(&bytes).await;
            // A half frame may be waited for; the rest is refused at once.
            ws.conn.finish().await;
            ws.conn.rest().await;
            poller.post(r#"42["alive"]"#).await;
            assert_eq!(poller.get().await.text(), r#"42["alive"]"#, "{name} {probed}");
        }
    }
    let mut ws = poller.upgrade().await;
    ws.send(r#"42["upgraded"]"#).await;
    assert_eq!(ws.text().await, r#"42["upgraded"]"#);
}

#[tokio::test]
async fn half_a_frame_and_then_nothing_leaves_nothing() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let whole = Frame::text(r#"42["half a frame"]"#).masked();
    for cut in [1, 2, 5, 6, whole.len() - 1] {
        let mut ws = relayed(&gate).await;
        let mut link = backend.link().await;
        ws.write(&whole[..cut]).await;
        drop(ws);
        let frames = link.rest().await;
        assert!(!frames.iter().any(|f| f.payload.starts_with(b"42")), "{cut}");
        let mut ws = fresh(&gate).await;
        ws.write(&whole[..cut]).await;
        drop(ws);
    }
    until("nothing is left", || gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn frames_may_come_byte_by_byte_and_in_pieces() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let mut ws = fresh(&gate).await;
    let connect = format!(r#"40{{"token":"{}"}}"#, token("alice"));
    let (head, tail) = connect.as_bytes().split_at(1);
    // A ping may stand between the pieces, and is answered.
    let pieces = [
        Frame::part(TEXT, false, head).masked(),
        Frame::new(PING, "now").masked(),
        Frame::part(CONTINUATION, false, "").masked(),
        Frame::part(CONTINUATION, true, tail).masked(),
    ];
    for byte in pieces.concat() {
        ws.write([byte]).await;
    }
    assert_eq!(ws.next().await.unwrap(), Frame::new(PONG, "now"));
    assert!(ws.text().await.starts_with("40{"));
    let mut link = backend.link().await;
    assert!(link.text().await.starts_with("40"));

    let pieces = [
        Frame::part(TEXT, false, "451-[\"bin\",{\"_placeholder\"").masked(),
        Frame::part(CONTINUATION, true, ":true,\"num\":0}]").masked(),
        Frame::part(BINARY, false, "by").masked(),
        Frame::new(PING, "").masked(),
        Frame::part(CONTINUATION, true, "tes").masked(),
        Frame::text("42[\"after\"]").masked(),
        Frame::part(TEXT, false, "4").masked(),
        Frame::part(CONTINUATION, true, "0/admin,").masked(),
    ];
    for byte in pieces.concat() {
        ws.write([byte]).await;
    }
    let mut seen: Vec<(u8, Vec<u8>)> = Vec::new();
    while seen.last().is_none_or(|(_, payload)| payload != b"40/admin,") {
        let frame = link.next().await.unwrap();
        match (frame.opcode, seen.last_mut()) {
            (PING, _) => {}
            (CONTINUATION, Some((_, message))) => message.extend(frame.payload),
            _ => seen.push((frame.opcode, frame.payload)),
        }
    }
    let texts: Vec<_> = seen.iter().map(|(opcode, payload)| (*opcode, String::from_utf8_lossy(payload))).collect();
    assert_eq!(texts[0], (TEXT, "451-[\"bin\",{\"_placeholder\":true,\"num\":0}]".into()));
    assert_eq!(texts[1], (BINARY, "bytes".into()));
    assert_eq!(texts[2], (TEXT, "42[\"after\"]".into()));
    assert_eq!(texts[3], (TEXT, "40/admin,".into()));
}

#[tokio::test]
async fn p34_compression_is_not_agreed_on_with_anybody() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for ask in [Ask::upgrade(WEBSOCKET).bearer(&token("alice")), Ask::upgrade(WEBSOCKET)] {
        // `Ws::open` asserts that the answer names no extension.
        let offer = "permessage-deflate; client_max_window_bits";
        let (mut ws, _) = gate.session(ask.with("sec-websocket-extensions", offer)).await;
        ws.send(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
        assert!(ws.text().await.starts_with("40{"));
        assert_eq!(backend.link().await.head.all("sec-websocket-extensions"), [""; 0]);
    }
}

#[tokio::test]
async fn p37_frames_that_come_with_the_handshake_arrive_once_and_after_it() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let (connect, event) = (Frame::text("40").masked(), Frame::text(r#"42["early"]"#).masked());
    for early in [[connect.clone(), event.clone()].concat(), [&connect[..], &event[..9]].concat()] {
        let mut conn = gate.conn().await;
        let request = Ask::upgrade(WEBSOCKET).bearer(&token("alice"));
        conn.write([&request.bytes()[..], &early].concat()).await;
        assert_eq!(conn.answer().await.status, 101);
        conn.write(&[&connect[..], &event].concat()[early.len()..]).await;
        let mut link = backend.link().await;
        assert_eq!(link.text().await, "40");
        assert_eq!(link.text().await, r#"42["early"]"#);
        assert!(conn.frame().await.unwrap().as_text().starts_with("0{"));
        conn.frame().await.unwrap();
        assert_eq!(conn.frame().await.unwrap().as_text(), r#"42["early"]"#);
        assert!(link.waiting().is_empty());
    }
    // And where the gate itself has to answer first.
    let mut conn = gate.conn().await;
    let connect = Frame::text(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).masked();
    conn.write([&Ask::upgrade(WEBSOCKET).bytes()[..], &connect, &event].concat()).await;
    assert_eq!(conn.answer().await.status, 101);
    let mut link = backend.link().await;
    assert!(link.text().await.starts_with("40"));
    assert_eq!(link.text().await, r#"42["early"]"#);
}

#[tokio::test]
async fn p37_what_comes_behind_a_refused_handshake_is_read_by_nobody() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.socketio.on_reject = siogate::config::model::OnReject::Http).await;
    let mut conn = gate.conn().await;
    let follower = Ask::get(WEBSOCKET).bearer(&token("alice")).bytes();
    conn.write([Ask::upgrade(WEBSOCKET).bearer("x.y.z").bytes(), follower].concat()).await;
    assert_eq!(conn.answer().await.status, 401);
    assert!(conn.rest().await.is_empty());
    assert!(backend.is_untouched());
}
