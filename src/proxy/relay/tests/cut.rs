//! The gate ends a session: what is under way, what is said last, and how soon it is over.

use super::*;
use crate::config::model::OnExpiry;
use crate::proxy::relay::leaving::{LAST_FRAME, LAST_WORDS};

#[tokio::test(start_paused = true)]
async fn p38_an_idle_session_is_cut_with_4401_and_the_backend_leg_is_closed_as_a_transport() {
    let mut rig = Rig::plain();
    rig.join("").await;
    let start = Instant::now();
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
    assert!(rig.gate.context.registry.find("sid").is_none(), "the sid is unknown at once");
    // No 41: recovery keeps working. The backend answers and is the first to close: the port at our end is free again.
    let close = rig.backend.next().await;
    assert_eq!((close.opcode, &close.payload[..]), (Opcode::Close, &[3, 233][..]));
    rig.backend.hears_nothing().await;
    let answer = rig.backend.frame(Opcode::Close, b"\x03\xe9");
    rig.backend.send(answer).await;
    rig.backend.shutdown().await;
    rig.ended("gate", "token_expired").await;
    assert!(start.elapsed() < LAST_WORDS);
}

#[tokio::test(start_paused = true)]
async fn p38_a_cut_is_over_soon_also_where_nobody_reads_or_closes() {
    let mut rig = Rig::plain();
    let flood = rig.backend.frame(Opcode::Text, vec![b'x'; 20 * MEGABYTE]);
    rig.backend.flood(&flood).await;
    let flood = rig.client.text(&"x".repeat(900_000)).repeat(4);
    rig.client.flood(&flood).await;
    let start = Instant::now();
    rig.entry.end(Reason::TokenExpired);
    let Rig { relay, gate, client, backend, entry } = rig;
    relay.await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    drop((client, backend, entry));
    gate.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn p38_a_large_frame_under_way_is_finished_before_the_close_frame() {
    for (start, rest) in [(1, 0), (20, MEGABYTE), (70_000, 3 * MEGABYTE)] {
        let mut rig = Rig::plain();
        let frame = rig.backend.frame(Opcode::Text, [b"42".to_vec(), vec![b'x'; rest.max(300)]].concat());
        let next = rig.backend.text("42[\"never\"]");
        rig.backend.send(&frame[..start]).await;
        rig.backend.hears_nothing().await;
        rig.entry.end(Reason::TokenExpired);
        let Rig { client, backend, .. } = &mut rig;
        let rest = [&frame[start..], &next].concat();
        let client = async {
            // One byte is no frame yet: nothing of it was passed on.
            if start > 1 {
                assert!(client.bytes(frame.len()).await == frame);
            }
            client.is_closed().await
        };
        let (_, close) = tokio::join!(backend.flood(&rest), client);
        assert_eq!(close, (4401, "token_expired".into()), "after {start} bytes");
        rig.ended("gate", "token_expired").await;
    }
}

#[tokio::test(start_paused = true)]
async fn p36_a_frame_without_end_is_not_collected_at_the_cut() {
    let mut rig = Rig::plain();
    // A terabyte is announced.
    let mut endless = vec![0x81, 127];
    endless.extend((1u64 << 40).to_be_bytes());
    endless.extend(vec![b'x'; 64 * MEGABYTE]);
    rig.backend.send(&endless[..100]).await;
    rig.client.bytes(100).await;
    rig.entry.end(Reason::TokenExpired);
    let sent = rig.backend.flood(&endless[100..]).await;
    assert!(sent < 4 * MEGABYTE, "{sent} bytes were taken for a client that reads nothing");
    let rest = rig.client.rest().await;
    assert!(rest.iter().all(|byte| *byte == b'x'), "nothing is put into the middle of a frame");
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn p38_a_frame_that_does_not_come_to_its_end_is_not_waited_for() {
    let mut rig = Rig::plain();
    let frame = rig.backend.text("42[\"half\"]");
    rig.backend.send(&frame[..5]).await;
    assert_eq!(rig.client.bytes(5).await, &frame[..5]);
    let start = Instant::now();
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.rest().await, b"", "no close frame in the middle of another one");
    assert!(start.elapsed() <= LAST_FRAME);
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_every_namespace_is_told_before_the_close() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    for reason in [Reason::TokenExpired, Reason::MaxSession] {
        let mut rig = Rig::new(Setup { config, ..Setup::default() });
        for namespace in ["", "/a", "/b"] {
            rig.join(namespace).await;
        }
        rig.backend.say("41/b,").await;
        assert_eq!(rig.client.hears().await, "41/b,");
        rig.entry.end(reason);
        assert_eq!(rig.client.hears().await, "41/a,");
        assert_eq!(rig.client.hears().await, "41");
        assert_eq!(rig.client.is_closed().await, (4401, reason.word().into()));
        assert_eq!(rig.backend.is_closed().await.0, 1001);
        rig.ended("gate", reason.word()).await;
    }
    let mut rig = Rig::new(Setup { config, ..Setup::default() });
    rig.join("").await;
    rig.entry.end(Reason::Draining);
    assert_eq!(rig.client.is_closed().await, (1012, "draining".into()), "they shall come back");
    rig.ended("gate", "draining").await;
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_nothing_is_put_between_a_packet_and_its_attachments() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    let mut rig = Rig::new(Setup { config, ..Setup::default() });
    rig.join("").await;
    rig.backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.client.hears().await, "451-[\"bin\",{}]");
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_the_attachments_of_a_packet_under_way_come_first() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    // The cut falls behind so many bytes, of which the client has some; what follows the packet was said too late.
    let packet = |wire: &Wire| {
        let parts = [
            wire.text("452-[\"bin\",{},{}]"),
            wire.fragment(false, Opcode::Binary, [1; 200]),
            wire.frame(Opcode::Ping, b"between"),
            wire.fragment(true, Opcode::Continuation, b"one"),
            wire.text("2"),
            wire.frame(Opcode::Binary, b""),
        ];
        parts.concat()
    };
    let length = packet(&Rig::plain().backend).len();
    for cut in [7, 18, 19, 20, 21, 22, 23, 150, 223, 224, 230, 233, 240, length - 2, length - 1, length] {
        let mut rig = Rig::new(Setup { config, ..Setup::default() });
        rig.join("").await;
        let bytes = packet(&rig.backend);
        rig.backend.send(&bytes[..cut]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.entry.end(Reason::TokenExpired);
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.backend.send(&[&bytes[cut..], &rig.backend.text("42[\"too late\"]")].concat()).await;
        assert_eq!(rig.client.bytes(length).await, bytes, "cut at {cut}");
        assert_eq!(rig.client.hears().await, "41", "cut at {cut}");
        assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
        rig.ended("gate", "token_expired").await;
    }
}
