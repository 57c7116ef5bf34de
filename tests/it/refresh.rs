//! The event that asks for a later end carries a token: it reaches no backend, however it is written.

use crate::support::backend::{Backend, Link};
use crate::support::client::{Ask, Ws};
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, Frame, TEXT};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::token;

const V3_POLLING: &str = "/socket.io/?EIO=3&transport=polling&b64=1";
const V3_WEBSOCKET: &str = "/socket.io/?EIO=3&transport=websocket";
const MARK: &str = "42[\"behind\"]";

/// What socket.io-parser, of any version, or python-socketio reads as the event, with a token in it.
const SPELLINGS: [&str; 16] = [
    "42[\"siogate:refresh\",\"S3CRET\"]",
    "427[\"siogate:refresh\",\"S3CRET\"]",
    "42/admin,7[\"siogate:refresh\",{\"token\":\"S3CRET\"}]",
    "42/admin?x=1,[\"siogate:refresh\",\"S3CRET\"]",
    "42/,[\"siogate:refresh\",\"S3CRET\"]",
    "42 [\"siogate:refresh\",\"S3CRET\"]",
    "42\u{feff}\t7 [\"siogate:refresh\",\"S3CRET\"]",
    "421 2[ \"siogate:refresh\" , \"S3CRET\" ] ",
    "42123456789012345678901234567890[\"siogate:refresh\",\"S3CRET\"]",
    "42[\n\t\"siogate:refresh\",\"S3CRET\"]",
    "42[\"\\u0073iogate\\u003Arefres\\u0068\",\"S3CRET\"]",
    "420-[\"siogate:refresh\",\"S3CRET\"]",
    "42\u{661}[\"siogate:refresh\",\"S3CRET\"]",
    "450-[\"siogate:refresh\",\"S3CRET\"]",
    "451-[\"siogate:refresh\",{\"_placeholder\":true,\"num\":0}]",
    "451-/admin,7[ \"\\u0073iogate:refresh\",{\"_placeholder\":true,\"num\":0},\"S3CRET\"]",
];

async fn gate(backend: &Backend) -> Gate {
    Gate::with(backend, |config| config.session.refresh.enabled = true).await
}

/// Everything up to what was said behind it, or up to the end of the session.
async fn heard(link: &mut Link) -> Vec<Frame> {
    let mut heard = Vec::new();
    while let Some(frame) = link.next().await {
        if frame.payload == MARK.as_bytes() || frame.opcode == CLOSE {
            break;
        }
        heard.push(frame);
    }
    heard
}

fn is_secret(frame: &Frame) -> bool {
    let text = String::from_utf8_lossy(&frame.payload);
    text.contains("S3CRET") || text.contains("refresh") || text.contains("efres")
}

async fn entered(gate: &Gate, base: &str) -> Ws {
    gate.session(Ask::upgrade(base).bearer(&token("alice"))).await.0
}

#[tokio::test]
async fn in_no_spelling_does_it_reach_the_backend_by_websocket() {
    let backend = Backend::start().await;
    let gate = gate(&backend).await;
    for base in [WEBSOCKET, V3_WEBSOCKET] {
        for spelling in SPELLINGS {
            let mut ws = entered(&gate, base).await;
            let mut link = backend.link().await;
            let attached: &[u8] = if base == WEBSOCKET { b"S3CRET" } else { b"\x04S3CRET" };
            let mut bytes = Frame::text(spelling).masked();
            if spelling.starts_with("451") {
                bytes.extend(Frame::new(BINARY, attached).masked());
            }
            bytes.extend(Frame::text(MARK).masked());
            ws.write(bytes).await;
            let heard = heard(&mut link).await;
            assert!(!heard.iter().any(is_secret), "{base} {spelling} {heard:?}");
        }
    }
}

#[tokio::test]
async fn in_no_spelling_does_it_reach_the_backend_by_polling() {
    let backend = Backend::start().await;
    let gate = gate(&backend).await;
    for base in [POLLING, V3_POLLING] {
        for spelling in SPELLINGS {
            let poller = Poller::begin(&gate, base, |ask| ask.bearer(&token("alice"))).await;
            let mut link = backend.link().await;
            let attached = if base == POLLING { "bUzNDUkVU" } else { "b4UzNDUkVU" };
            let packets = ["42[\"before\"]", spelling, attached, MARK];
            let packets = packets.into_iter().filter(|packet| *packet != attached || spelling.starts_with("451"));
            let body: Vec<_> = match base {
                POLLING => packets.map(str::to_owned).collect(),
                _ => packets.map(|packet| format!("{}:{packet}", packet.encode_utf16().count())).collect(),
            };
            poller.post(&body.join(if base == POLLING { "\x1e" } else { "" })).await;
            let heard = heard(&mut link).await;
            assert_eq!(
                heard.first(),
                Some(&Frame { masked: true, ..Frame::text("42[\"before\"]") }),
                "{base} {spelling}"
            );
            assert!(!heard.iter().any(is_secret), "{base} {spelling} {heard:?}");
        }
    }
}

#[tokio::test]
async fn in_whatever_pieces_and_of_whatever_length_it_stays_at_the_gate() {
    let backend = Backend::start().await;
    let gate = gate(&backend).await;
    for length in [6, 100, 125, 126, 60_000, 65_535, 70_000] {
        let event = format!("42/admin,7[\"siogate:refresh\",\"S3CRET{}\"]", "x".repeat(length - 6));
        for cut in [0, 1, 2, 3, 9, 12, 20, 30, event.len()] {
            let (first, rest) = event.split_at(cut);
            let (second, third) = rest.split_at(rest.len() / 2);
            let mut ws = entered(&gate, WEBSOCKET).await;
            let mut link = backend.link().await;
            ws.write(Frame::part(TEXT, false, first).masked()).await;
            ws.write(Frame::part(CONTINUATION, false, second).masked()).await;
            // Too long a message ends the session before its last part.
            let _ = ws.conn.try_write(Frame::part(CONTINUATION, true, third).masked()).await;
            let _ = ws.conn.try_write(Frame::text(MARK).masked()).await;
            let heard = heard(&mut link).await;
            assert!(!heard.iter().any(is_secret), "{length} cut at {cut}: {} frames", heard.len());
        }
    }
}

#[tokio::test]
async fn in_the_spelling_of_clients_it_is_answered_and_in_others_refused() {
    let backend = Backend::start().await;
    let gate = gate(&backend).await;
    let good = token("alice");
    for (spelling, want) in [
        ("427[\"siogate:refresh\",\"T\"]", Some("437[{\"expires_at\":")),
        ("42/admin,7[ \"siogate:refresh\", {\"token\": \"T\"}]", Some("43/admin,7[{\"expires_at\":")),
        ("427[\"\\u0073iogate:refresh\",\"T\"]", Some("437[{\"expires_at\":")),
        ("427 [\"siogate:refresh\",\"T\"]", Some("437[{\"message\":\"the credential is malformed\"")),
        ("420-[\"siogate:refresh\",\"T\"]", Some("430[{\"message\":\"the credential is malformed\"")),
        ("450-[\"siogate:refresh\",\"T\"]", None),
        ("451-7[\"siogate:refresh\",{\"_placeholder\":true,\"num\":0}]", None),
    ] {
        let mut ws = entered(&gate, WEBSOCKET).await;
        ws.send(&spelling.replace('T', &good)).await;
        match want {
            Some(want) => {
                let answer = ws.text().await;
                assert!(answer.starts_with(want), "{spelling} {answer}");
            }
            None => assert_eq!(ws.closed().await, (1002, "protocol_error".into()), "{spelling}"),
        }
    }
}
