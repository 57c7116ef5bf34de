use super::*;
use crate::proxy::support::Wire;
use proptest::prelude::*;
use std::time::Duration;
use tokio::time::timeout;

const MOMENT: Duration = Duration::from_millis(50);

/// What a client writes is read here.
fn leg(max_message: u64) -> (Leg, Wire) {
    let (wire, stream) = Wire::new(Writer::Client);
    (Leg::new(stream, Writer::Client, BytesMut::new(), max_message), wire)
}

async fn message(leg: &mut Leg) -> (bool, Vec<u8>) {
    match leg.next().await {
        Ok(Incoming::Message { text, data }) => (text, data.to_vec()),
        Ok(Incoming::Closed) => panic!("closed"),
        Err(error) => panic!("{error}"),
    }
}

async fn error(leg: &mut Leg) -> FrameError {
    match leg.next().await {
        Err(LegError::Frame(error)) => error,
        _ => panic!("no error"),
    }
}

fn text(text: &str) -> (bool, Vec<u8>) {
    (true, text.as_bytes().to_vec())
}

#[tokio::test(start_paused = true)]
async fn messages_are_read_whole_whatever_their_frames() {
    let (mut leg, mut wire) = leg(1_000_000);
    wire.say("42[]").await;
    assert_eq!(message(&mut leg).await, text("42[]"));
    wire.send(wire.frame(Opcode::Binary, [0; 70_000])).await;
    assert_eq!(message(&mut leg).await, (false, vec![0; 70_000]));
    let parts = [
        wire.fragment(false, Opcode::Text, "4"),
        wire.frame(Opcode::Ping, "in between"),
        wire.fragment(false, Opcode::Continuation, ""),
        wire.frame(Opcode::Pong, ""),
        wire.fragment(true, Opcode::Continuation, "2[]"),
        wire.text(""),
    ];
    wire.send(parts.concat()).await;
    assert_eq!(message(&mut leg).await, text("42[]"));
    assert_eq!(message(&mut leg).await, text(""));
    let pong = wire.next().await;
    assert_eq!((pong.opcode, pong.payload), (Opcode::Pong, b"in between".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_leg_to_a_backend_masks_and_one_to_a_client_does_not() {
    for writes in [Writer::Client, Writer::Server] {
        let (mut wire, stream) = Wire::new(writes);
        let mut leg = Leg::new(stream, writes, BytesMut::new(), 100);
        leg.push(Opcode::Text, b"hello");
        leg.push_packet(Version::V4, &Packet::text("42[]"));
        leg.push_packet(Version::V3, &Packet::Binary(Bytes::from_static(b"x")));
        leg.push_close(4401, "token_expired");
        leg.flush().await.unwrap();
        // The far end checks the masking of what it reads.
        assert_eq!((wire.hears().await, wire.hears().await), ("hello".into(), "42[]".into()));
        assert_eq!(wire.next().await.payload, [4, b'x'], "protocol 3 has a type byte");
        assert_eq!(wire.next().await.payload, b"\x11\x31token_expired");
    }
}

#[tokio::test(start_paused = true)]
async fn p35_a_message_is_bounded_as_a_whole_before_it_is_there() {
    let (mut whole, mut wire) = leg(1000);
    wire.send(wire.text(&"x".repeat(1000))).await;
    assert_eq!(message(&mut whole).await.1.len(), 1000);
    // Only the head of it.
    wire.send(&wire.text(&"x".repeat(1001))[..8]).await;
    assert_eq!(error(&mut whole).await, FrameError::TooLong);
    let (mut pieces, mut wire) = leg(1000);
    wire.send(wire.fragment(false, Opcode::Text, vec![b'x'; 990])).await;
    wire.send(wire.frame(Opcode::Ping, [b'p'; 125])).await;
    wire.send(wire.fragment(false, Opcode::Continuation, vec![b'x'; 10])).await;
    wire.send(wire.fragment(true, Opcode::Continuation, b"")).await;
    assert_eq!(message(&mut pieces).await.1.len(), 1000, "a ping is no part of the message");
    wire.send(wire.fragment(false, Opcode::Text, vec![b'x'; 990])).await;
    wire.send(wire.fragment(true, Opcode::Continuation, vec![b'x'; 11])).await;
    assert_eq!(error(&mut pieces).await, FrameError::TooLong);
    let (mut short, mut wire) = leg(10);
    wire.send(wire.text("42[\"longer\"]")).await;
    assert!(timeout(MOMENT, short.next()).await.unwrap().is_err());
    short.bound(100);
    assert_eq!(message(&mut short).await, text("42[\"longer\"]"));
}

#[tokio::test(start_paused = true)]
async fn p35_frames_out_of_order_are_refused() {
    let wire = Wire::new(Writer::Client).0;
    let start = wire.fragment(false, Opcode::Text, "4");
    for bad in [wire.fragment(true, Opcode::Continuation, "x"), [&start[..], &wire.text("42")].concat()] {
        let (mut leg, mut wire) = leg(1000);
        wire.send(&bad).await;
        assert_eq!(error(&mut leg).await, FrameError::Order);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_a_close_frame_or_the_end_of_the_stream() {
    let (mut closed, mut wire) = leg(1000);
    wire.send([wire.text("last"), wire.frame(Opcode::Close, b"")].concat()).await;
    assert_eq!(message(&mut closed).await, text("last"));
    assert!(matches!(closed.next().await, Ok(Incoming::Closed)));
    let (mut ended, mut wire) = leg(1000);
    wire.send(&wire.text("half")[..7]).await;
    drop(wire);
    assert!(matches!(ended.next().await, Ok(Incoming::Closed) | Err(LegError::Io(_))));
}

#[tokio::test(start_paused = true)]
async fn it_is_whole_between_messages_and_hands_on_what_it_has_read_beyond() {
    let (mut leg, mut wire) = leg(1000);
    let next = wire.text("42[\"next\"]");
    wire.send([&wire.text("42[]"), &next[..9]].concat()).await;
    assert_eq!(message(&mut leg).await, text("42[]"));
    assert!(leg.is_whole());
    leg.push(Opcode::Text, b"x");
    assert!(!leg.is_whole(), "something is still to be written");
    leg.flush().await.unwrap();
    assert!(leg.is_whole());
    assert_eq!(leg.into_parts().1, next[..9]);
    let (mut leg, mut wire) = self::leg(1000);
    wire.send(wire.fragment(false, Opcode::Text, "4")).await;
    assert!(timeout(MOMENT, leg.next()).await.is_err());
    assert!(!leg.is_whole(), "in the middle of a message");
}

#[tokio::test(start_paused = true)]
async fn p28_who_pings_and_does_not_read_the_pongs_is_not_read_either() {
    let (mut leg, mut wire) = leg(1000);
    let reader = tokio::spawn(async move { while let Ok(Incoming::Message { .. }) = leg.next().await {} });
    let flood = wire.frame(Opcode::Ping, [b'p'; 125]).repeat(100_000);
    let sent = wire.flood(&flood).await;
    assert!(sent < 4_000_000, "{sent} of {} bytes were taken", flood.len());
    drop(wire);
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_and_writing_can_be_given_up_and_taken_up_again() {
    let (mut leg, mut wire) = leg(1_000_000);
    let frame = wire.text("42[\"slowly\"]");
    for byte in &frame[..frame.len() - 1] {
        wire.send([*byte]).await;
        assert!(timeout(MOMENT, leg.next()).await.is_err());
    }
    wire.send(&frame[frame.len() - 1..]).await;
    assert_eq!(message(&mut leg).await, text("42[\"slowly\"]"));
    let long = "x".repeat(3_000_000);
    leg.push(Opcode::Text, long.as_bytes());
    leg.push(Opcode::Text, b"behind");
    let mut got = Vec::new();
    while timeout(MOMENT, leg.flush()).await.is_err() {
        got.extend(wire.bytes(10_000).await);
    }
    drop(leg);
    got.extend(wire.rest().await);
    let sender = Wire::new(Writer::Server).0;
    assert!(got == [sender.text(&long), sender.text("behind")].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_in_any_pieces_give_the_same_messages(
        messages in proptest::collection::vec(proptest::collection::vec(".{0,40}", 1..4), 0..10),
        pieces in proptest::collection::vec(1usize..40, 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut leg, mut wire) = leg(1_000_000);
            let mut bytes = Vec::new();
            for fragments in &messages {
                for (i, fragment) in fragments.iter().enumerate() {
                    let opcode = if i == 0 { Opcode::Text } else { Opcode::Continuation };
                    bytes.extend(wire.fragment(i + 1 == fragments.len(), opcode, fragment));
                }
            }
            let sender = async {
                let (mut left, mut pieces) = (&bytes[..], pieces.iter().cycle());
                while !left.is_empty() {
                    let (now, later) = left.split_at(left.len().min(*pieces.next().unwrap()));
                    wire.send(now).await;
                    tokio::task::yield_now().await;
                    left = later;
                }
            };
            let reader = async {
                for fragments in &messages {
                    assert_eq!(message(&mut leg).await, text(&fragments.concat()));
                }
            };
            tokio::join!(sender, reader);
        });
    }
}
