//! Polling bodies against captured bytes, and round trips.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const MANY: usize = 1_000_000;

fn text(t: &str) -> Packet {
    Packet::text(t)
}

fn binary(data: &[u8]) -> Packet {
    Packet::Binary(Bytes::copy_from_slice(data))
}

fn read(v: Version, binary_body: bool, body: &[u8]) -> Result<Vec<Packet>, PayloadError> {
    decode(v, binary_body, Bytes::copy_from_slice(body), MANY)
}

#[test]
fn captured_bodies_read_and_write_to_the_byte() {
    let header = r#"451-["bin",{"_placeholder":true,"num":0}]"#;
    let v3_header = r#"451-/admin,["bin",{"_placeholder":true,"num":0}]"#;
    let cases: Vec<(Version, Vec<Packet>, Vec<u8>)> = vec![
        (Version::V4, vec![text("40{\"token\":\"T\"}")], b"40{\"token\":\"T\"}".to_vec()),
        (Version::V4, vec![text(header), binary(&[9, 8])], format!("{header}\u{1e}bCQg=").into_bytes()),
        (Version::V4, vec![binary(&[1, 2, 3]), text("430[\"ack:a\"]")], b"bAQID\x1e430[\"ack:a\"]".to_vec()),
        (Version::V3, vec![text("40/admin?token=T,")], b"17:40/admin?token=T,".to_vec()),
        (Version::V3, vec![text(v3_header), binary(&[9, 8])], format!("48:{v3_header}6:b4CQg=").into_bytes()),
        (Version::V3, vec![text("6")], b"1:6".to_vec()),
    ];
    for (v, packets, body) in cases {
        let encoded = encode(v, true, &packets);
        assert_eq!(encoded, Encoded { content_type: TEXT, body: body.clone().into() });
        assert_eq!(read(v, false, &body), Ok(packets));
    }
}

#[test]
fn revision_3_binary_bodies_read_and_write_to_the_byte() {
    let packets = vec![text("4hello"), binary(&[1, 2, 3, 4])];
    let body = b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04";
    assert_eq!(encode(Version::V3, false, &packets), Encoded { content_type: OCTETS, body: body.as_slice().into() });
    assert_eq!(read(Version::V3, true, body), Ok(packets));
}

#[test]
fn revision_3_counts_utf16_units_in_text_and_bytes_in_binary() {
    let packet = text("4é😀€");
    let body = encode(Version::V3, true, std::slice::from_ref(&packet)).body;
    assert_eq!(body, "5:4é😀€");
    assert_eq!(read(Version::V3, false, &body), Ok(vec![packet.clone()]));
    let both = vec![packet, binary(&[0])];
    let body = encode(Version::V3, false, &both).body;
    assert_eq!(body.get(..4), Some(b"\x00\x01\x00\xff".as_slice()));
    assert_eq!(read(Version::V3, true, &body), Ok(both));
}

#[test]
fn text_only_bodies_of_revision_3_are_text_even_without_b64() {
    assert_eq!(encode(Version::V3, false, &[text("6")]).content_type, TEXT);
}

#[test]
fn p16_revision_4_takes_no_binary_body() {
    assert_eq!(read(Version::V4, true, b"4a"), Err(PayloadError::BinaryBody));
}

#[test]
fn malformed_bodies_are_refused() {
    for v in [Version::V3, Version::V4] {
        assert_eq!(read(v, false, b""), Err(PayloadError::Empty));
        assert_eq!(read(v, false, b"1:\xff"), Err(PayloadError::NotUtf8));
    }
    for (body, error) in [
        ("\u{1e}", PayloadError::Packet(PacketError::Empty)),
        ("4a\u{1e}", PayloadError::Packet(PacketError::Empty)),
        ("4a\u{1e}7", PayloadError::Packet(PacketError::UnknownType)),
        ("b_-", PayloadError::Packet(PacketError::BadBase64)),
    ] {
        assert_eq!(read(Version::V4, false, body.as_bytes()), Err(error), "{body:?}");
    }
    for (body, error) in [
        ("6", PayloadError::BadLength),
        (":6", PayloadError::BadLength),
        ("2:6", PayloadError::BadLength),
        ("-1:6", PayloadError::BadLength),
        ("+1:6", PayloadError::BadLength),
        ("1 :6", PayloadError::BadLength),
        ("1:61", PayloadError::BadLength),
        ("2:4😀", PayloadError::BadLength),
        ("2:4😀6", PayloadError::BadLength),
        ("00000000001:6", PayloadError::BadLength),
        ("99999999999999999999999:6", PayloadError::BadLength),
        ("0:", PayloadError::Packet(PacketError::Empty)),
    ] {
        assert_eq!(read(Version::V3, false, body.as_bytes()), Err(error), "{body:?}");
    }
    for body in [
        b"\x02\x01\xff4".as_slice(),
        b"\x00\xff4",
        b"\x00\x0a\xff4",
        b"\x00\x02\xff4",
        b"\x00\x01",
        b"\x00",
        b"\x00\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff4",
    ] {
        assert_eq!(read(Version::V3, true, body), Err(PayloadError::BadLength), "{body:?}");
    }
    assert_eq!(read(Version::V3, true, b"\x00\x01\xff\xff"), Err(PayloadError::NotUtf8));
    assert_eq!(read(Version::V3, true, b"\x01\x01\xff\x02"), Err(PayloadError::Packet(PacketError::UnknownType)));
}

#[test]
fn p17_the_packet_count_is_bounded() {
    for (v, body) in [(Version::V4, "6\u{1e}6\u{1e}6"), (Version::V3, "1:61:61:6")] {
        assert_eq!(decode(v, false, body.into(), 3).map(|p| p.len()), Ok(3));
        assert_eq!(decode(v, false, body.into(), 2), Err(PayloadError::TooManyPackets));
    }
}

/// Quadratic behaviour would need minutes here; the bound is generous for slow machines.
#[test]
fn p17_a_hundred_thousand_packets_take_linear_time() {
    let packets: Vec<Packet> = (0..100_000).map(|_| text("4é")).collect();
    let with_binary: Vec<Packet> = packets.iter().cloned().chain([binary(&[1])]).collect();
    let start = Instant::now();
    for (v, b64, packets) in
        [(Version::V4, false, &with_binary), (Version::V3, true, &with_binary), (Version::V3, false, &with_binary)]
    {
        let encoded = encode(v, b64, packets);
        let back = decode(v, encoded.content_type == OCTETS, encoded.body, MANY);
        assert_eq!(back.as_ref(), Ok(packets));
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

fn packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        // Everything but the separator, which JSON never holds unescaped.
        "[0-6][^\u{1e}]{0,20}".prop_map(Packet::text),
        "4[aé€😀\u{10ffff}]{0,8}".prop_map(Packet::text),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|data| Packet::Binary(data.into())),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(packets in proptest::collection::vec(packet(), 1..12), b64: bool) {
        for v in [Version::V3, Version::V4] {
            let encoded = encode(v, b64, &packets);
            let bound: usize = packets.iter().map(|p| encoded_len(v, b64, p)).sum();
            prop_assert!(encoded.body.len() <= bound);
            let back = decode(v, encoded.content_type == OCTETS, encoded.body, packets.len());
            prop_assert_eq!(back.as_ref(), Ok(&packets));
        }
    }

    #[test]
    fn reading_arbitrary_bytes_never_panics(body: Vec<u8>, binary_body: bool, max_packets in 0_usize..5) {
        for v in [Version::V3, Version::V4] {
            if let Ok(packets) = decode(v, binary_body, body.clone().into(), max_packets) {
                prop_assert!(packets.len() <= max_packets);
            }
        }
    }

    #[test]
    fn reading_nearly_right_bytes_never_panics(
        v3 in "([0-9]{1,3}:[0-6b]?[4aé😀]{0,4}){0,4}",
        v4 in "([0-7b]?[aé😀=]{0,4}\u{1e}?){0,4}",
        binary in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), 2_u8..10, Just(0x34), Just(0xff)], 0..30),
    ) {
        let _ = read(Version::V3, false, v3.as_bytes());
        let _ = read(Version::V4, false, v4.as_bytes());
        let _ = read(Version::V3, true, &binary);
    }
}
