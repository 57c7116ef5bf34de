//! Frames that are none, and messages that are too long.

use super::*;

#[tokio::test(start_paused = true)]
async fn p35_broken_client_frames_close_with_1002_and_long_messages_with_1009() {
    let config: fn(&mut Config) = |config| config.socketio.max_payload = Some(1000);
    let make = |wire: &Wire| {
        let unmasked = {
            let mut frame = wire.text("42[]");
            frame[1] &= 0x7f;
            frame
        };
        let mut reserved = wire.text("42[]");
        reserved[0] |= 0x40;
        let two = [
            wire.fragment(false, Opcode::Text, vec![b'4'; 600]),
            wire.fragment(true, Opcode::Continuation, vec![b'2'; 600]),
        ];
        let (bad, long) = ((1002, "protocol_error"), (1009, "payload_too_large"));
        let empty_first =
            [wire.fragment(false, Opcode::Text, b""), wire.fragment(true, Opcode::Continuation, b"bgqR0eXBl")];
        vec![
            (unmasked, bad),
            (reserved, bad),
            (wire.frame(Opcode::Binary, b"stray"), bad),
            (wire.text("bc3RyYXk="), bad),
            (empty_first.concat(), bad),
            (wire.fragment(true, Opcode::Continuation, b"x"), bad),
            (wire.frame(Opcode::Text, [b'4', b'0', 0xff]), bad),
            (wire.text("40{\"a\":1,\"a\":2}"), bad),
            (wire.text(&"x".repeat(1001)), long),
            (two.concat(), long),
        ]
    };
    let count = make(&Wire::new(Writer::Client).0).len();
    for case in 0..count {
        for pieces in [false, true] {
            let mut rig = Rig::new(Setup { config, ..Setup::default() });
            let good = rig.client.text("42[\"good\"]");
            let (bad, (code, word)) = make(&rig.client).swap_remove(case);
            // The good frame's beginning is on its way before the rest comes with the bad one.
            let all = [good.clone(), bad].concat();
            let cut = if pieces { 9 } else { 0 };
            rig.client.send(&all[..cut]).await;
            assert_eq!(rig.backend.bytes(cut).await, &good[..cut]);
            rig.client.flood(&all[cut..]).await;
            assert_eq!(rig.client.is_closed().await, (code, word.into()), "case {case}");
            let rest = rig.backend.bytes(good.len() - cut).await;
            assert_eq!(rest, &good[cut..], "case {case}: what came before it is passed on");
            if !(word == "payload_too_large" && case == count - 1) {
                assert_eq!(rig.backend.is_closed().await, (1001, String::new()), "case {case}");
            }
            rig.ended("gate", word).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_backend_frames_close_with_4503_behind_what_was_good() {
    for pieces in [false, true] {
        let mut rig = Rig::plain();
        let good = rig.backend.text("42[\"good\"]");
        let all = [good.clone(), vec![0xc1, 0]].concat();
        let cut = if pieces { 7 } else { 0 };
        rig.backend.send(&all[..cut]).await;
        assert_eq!(rig.client.bytes(cut).await, &good[..cut]);
        rig.backend.send(&all[cut..]).await;
        assert_eq!(rig.client.bytes(good.len() - cut).await, &good[cut..]);
        assert_eq!(rig.client.is_closed().await, (4503, "upstream_unavailable".into()));
        rig.ended("gate", "upstream_unavailable").await;
    }
}
