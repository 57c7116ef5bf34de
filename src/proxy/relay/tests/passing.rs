//! What is not for the gate passes as it came, in order and in pieces of any size.

use super::*;
use proptest::prelude::*;

/// Traffic of one side that holds every form of frame, and nothing that is taken out.
fn traffic(wire: &Wire, long: usize) -> Vec<u8> {
    use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
    let parts = [
        wire.text("2"),
        wire.text(""),
        wire.text(&format!("42[\"{}\"]", "x".repeat(125))),
        wire.text(&format!("42[\"{}\"]", "y".repeat(long))),
        wire.frame(Ping, b"are you there"),
        wire.text("452-[\"bin\",{},{}]"),
        wire.frame(Binary, [0; 300]),
        wire.frame(Pong, b""),
        wire.fragment(false, Binary, b"a"),
        wire.fragment(false, Continuation, b""),
        wire.frame(Ping, b"between fragments"),
        wire.fragment(true, Continuation, [1; 5000]),
        wire.fragment(false, Text, b"42[\"in pieces"),
        wire.fragment(true, Continuation, b"\"]"),
        wire.text("451-[\"bin\",{}]"),
        wire.text("bAQID"),
        wire.text("461-7[{}]"),
        wire.frame(Binary, b""),
        wire.text("6"),
        wire.frame(Close, [0x03, 0xe8]),
    ];
    parts.concat()
}

#[tokio::test(start_paused = true)]
async fn frames_pass_byte_for_byte_in_pieces_of_any_size() {
    for piece in [1, 2, 3, 7, 14, 100, 4096, 65_536, usize::MAX] {
        let mut rig = Rig::plain();
        let long = if piece < 100 { 1000 } else { 70_000 };
        let (up, down) = (traffic(&rig.client, long), traffic(&rig.backend, long));
        let Rig { client, backend, .. } = &mut rig;
        for upwards in [true, false] {
            let (from, to, bytes) =
                if upwards { (&mut *client, &mut *backend, &up) } else { (&mut *backend, &mut *client, &down) };
            let sent = async {
                for part in bytes.chunks(piece.min(bytes.len())) {
                    from.send(part).await;
                    if piece < 100 {
                        tokio::task::yield_now().await;
                    }
                }
            };
            let ((), got) = tokio::join!(sent, to.bytes(bytes.len()));
            assert!(got == *bytes, "pieces of {piece}");
        }
        let gate = rig.ended("client", "").await;
        assert_eq!(gate.messages(), (13, 13));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_watch_anything_passes() {
    let mut rig = Rig::new(Setup { watch: Watch::Frames, ..Setup::default() });
    let bytes = [rig.client.frame(Opcode::Binary, b"stray"), rig.client.text("40{\"token\":\"bad\"}")].concat();
    rig.client.send(&bytes).await;
    assert_eq!(rig.backend.bytes(bytes.len()).await, bytes);
    rig.backend.say("40{}").await;
    assert_eq!(rig.client.hears().await, "40{}");
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_comes_first_and_the_greeting_before_that() {
    let (a, b) = (Wire::new(Writer::Client).0, Wire::new(Writer::Server).0);
    let mut rig = Rig::new(Setup {
        client: [a.text("42[1]"), a.text("40/x,{\"a\":1}"), a.text("42[2]")[..3].to_vec()].concat(),
        upstream: [b.text("40{\"sid\":\"s\"}"), b.text("42[3]")[..1].to_vec()].concat(),
        greeting: b.text("0{}"),
        ..Setup::default()
    });
    assert_eq!(rig.client.hears().await, "0{}");
    assert_eq!(rig.client.hears().await, "40{\"sid\":\"s\"}");
    assert_eq!(rig.backend.hears().await, "42[1]");
    assert_eq!(rig.backend.hears().await, "40/x,{\"a\":1}");
    rig.client.send(&a.text("42[2]")[3..]).await;
    rig.backend.send(&b.text("42[3]")[1..]).await;
    assert_eq!(rig.backend.hears().await, "42[2]");
    assert_eq!(rig.client.hears().await, "42[3]");
    rig.ended("client", "").await;
}

/// What one side says in the random test: its frames, and what of them is passed on untouched.
fn said(client: bool) -> impl Strategy<Value = Vec<(String, bool)>> {
    let text = prop_oneof![
        4 => "42\\[\"[a-z]{0,200}\"\\]".prop_map(|s| (s, false)),
        1 => "[236]".prop_map(|s| (s, false)),
        1 => Just(("451-[{}]".to_owned(), true)),
        1 => if client { "40/[a-z]{8},\\{\"token\":5\\}" } else { "42\\[0\\]" }.prop_map(|s| (s, false)),
    ];
    proptest::collection::vec(text, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever both sides say at once, in whatever pieces: what is not for the gate passes in order, and the
    /// gate's own answers stand between packets.
    #[test]
    fn any_traffic_in_any_pieces_stays_whole(
        up in said(true),
        down in said(false),
        cuts in proptest::collection::vec((any::<bool>(), 1usize..60), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::plain();
            let refused = up.iter().filter(|(text, _)| text.starts_with("40")).count();
            if refused > 10 {
                return;
            }
            let stream = |wire: &Wire, said: &[(String, bool)]| {
                let mut bytes = Vec::new();
                for (text, binary) in said {
                    bytes.extend(wire.text(text));
                    if *binary {
                        bytes.extend(wire.frame(Opcode::Binary, b"attached"));
                    }
                }
                bytes
            };
            let (up_bytes, down_bytes) = (stream(&rig.client, &up), stream(&rig.backend, &down));
            let (mut up_left, mut down_left) = (&up_bytes[..], &down_bytes[..]);
            for (client, n) in cuts {
                let (wire, left) =
                    if client { (&mut rig.client, &mut up_left) } else { (&mut rig.backend, &mut down_left) };
                let (now, later) = left.split_at(n.min(left.len()));
                wire.send(now).await;
                *left = later;
                tokio::task::yield_now().await;
            }
            rig.client.send(up_left).await;
            rig.backend.send(down_left).await;
            let passed: Vec<_> = up.iter().filter(|(text, _)| !text.starts_with("40")).cloned().collect();
            let want = stream(&rig.client, &passed);
            assert_eq!(rig.backend.bytes(want.len()).await, want);
            let (mut got, mut answers, mut attached) = (Vec::new(), 0, false);
            while got.len() < down_bytes.len() || answers < refused {
                let frame = rig.client.next().await;
                if frame.payload.starts_with(b"44") {
                    assert!(!attached, "between a packet and its attachment");
                    answers += 1;
                    continue;
                }
                attached = frame.payload.starts_with(b"45");
                got.extend(rig.backend.frame(frame.opcode, &frame.payload));
            }
            assert_eq!(got, down_bytes);
            rig.client.hears_nothing().await;
            rig.backend.hears_nothing().await;
            rig.ended("client", "").await;
        });
    }
}
