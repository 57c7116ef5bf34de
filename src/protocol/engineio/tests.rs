//! Engine.IO packets against captured bytes.

use super::*;
use proptest::prelude::*;

fn ws(v: Version, text: bool, data: &[u8]) -> Result<Packet, PacketError> {
    Packet::from_ws(v, text, Bytes::copy_from_slice(data))
}

#[test]
fn text_messages_keep_their_bytes() {
    for v in [Version::V3, Version::V4] {
        for (text, kind) in [
            ("0{\"sid\":\"x\"}", Kind::Open),
            ("1", Kind::Close),
            ("2", Kind::Ping),
            ("2probe", Kind::Ping),
            ("3probe", Kind::Pong),
            ("42[\"é😀\"]", Kind::Message),
            ("4", Kind::Message),
            ("5", Kind::Upgrade),
            ("6", Kind::Noop),
        ] {
            let packet = ws(v, true, text.as_bytes()).unwrap();
            assert_eq!(packet.kind(), kind, "{text}");
            assert_eq!(packet.to_ws(v), (true, Bytes::copy_from_slice(text.as_bytes())));
            assert_eq!(packet.body(), Some(&text[1..]));
        }
    }
}

#[test]
fn binary_is_bare_in_revision_4_and_typed_in_revision_3() {
    let data = Bytes::from_static(&[9, 8]);
    assert_eq!(ws(Version::V4, false, &data), Ok(Packet::Binary(data.clone())));
    assert_eq!(ws(Version::V4, false, &[]), Ok(Packet::Binary(Bytes::new())));
    assert_eq!(ws(Version::V3, false, &[4, 9, 8]), Ok(Packet::Binary(data.clone())));
    assert_eq!(ws(Version::V3, false, &[2, 9, 8]), Err(PacketError::UnknownType));
    assert_eq!(ws(Version::V3, false, &[]), Err(PacketError::Empty));
    let packet = Packet::Binary(data);
    assert_eq!(packet.kind(), Kind::Message);
    assert_eq!(packet.to_ws(Version::V4), (false, Bytes::from_static(&[9, 8])));
    assert_eq!(packet.to_ws(Version::V3), (false, Bytes::from_static(&[4, 9, 8])));
}

#[test]
fn binary_may_come_as_base64_text() {
    let data = Packet::Binary(Bytes::from_static(&[9, 8]));
    assert_eq!(ws(Version::V4, true, b"bCQg="), Ok(data.clone()));
    assert_eq!(ws(Version::V4, true, b"bCQg"), Ok(data.clone()));
    // Node's decoder ignores bits behind the last byte.
    assert_eq!(ws(Version::V4, true, b"bCQh="), Ok(data.clone()));
    assert_eq!(ws(Version::V4, true, b"b"), Ok(Packet::Binary(Bytes::new())));
    assert_eq!(ws(Version::V3, true, b"b4CQg="), Ok(data.clone()));
    assert_eq!(ws(Version::V3, true, b"b2CQg="), Err(PacketError::UnknownType));
    assert_eq!(ws(Version::V3, true, b"b"), Err(PacketError::UnknownType));
    assert_eq!(ws(Version::V4, true, b"b*"), Err(PacketError::BadBase64));
    assert_eq!(ws(Version::V4, true, b"bCQg=CQg="), Err(PacketError::BadBase64));
    assert_eq!(data.to_text(Version::V4), "bCQg=");
    assert_eq!(data.to_text(Version::V3), "b4CQg=");
}

#[test]
fn what_is_no_packet_is_refused() {
    for v in [Version::V3, Version::V4] {
        assert_eq!(ws(v, true, b""), Err(PacketError::Empty));
        assert_eq!(ws(v, true, b"7"), Err(PacketError::UnknownType));
        assert_eq!(ws(v, true, b"abc"), Err(PacketError::UnknownType));
        assert_eq!(ws(v, true, "٠".as_bytes()), Err(PacketError::UnknownType));
        assert_eq!(ws(v, true, b"4\xff"), Err(PacketError::NotUtf8));
    }
}

#[test]
fn debug_shows_neither_tokens_nor_session_ids() {
    let packet = Packet::text("40{\"token\":\"hush\"}");
    assert_eq!(format!("{packet:?}"), "Message(text, 18 bytes)");
    let open = Open::parse(br#"{"sid":"hush","pingInterval":1,"pingTimeout":2}"#).unwrap();
    assert!(!format!("{open:?}").contains("hush"));
}

#[test]
fn open_packets_of_both_servers_survive_to_the_byte() {
    for text in [
        r#"{"sid":"2lJtyTD8VuZRZcwyAAAA","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
        r#"{"sid":"xkb5_Nw3My_8zWZkAAAB","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#,
    ] {
        let open = Open::parse(text.as_bytes()).unwrap();
        assert_eq!(Rest(text.as_bytes()).open().as_ref(), Some(&open), "read without JSON");
        assert_eq!(open.text(), format!("0{text}"));
        assert_eq!(open.packet(), Packet::text(format!("0{text}")));
    }
}

#[test]
fn open_is_tolerant_of_what_it_does_not_know_and_strict_on_what_it_needs() {
    let open = Open::parse(br#" {"x":[1],"pingTimeout":2,"pingInterval":1,"sid":"s","maxPayload":null} "#).unwrap();
    assert_eq!(open, Open { sid: "s".into(), upgrades: vec![], ping_interval: 1, ping_timeout: 2, max_payload: None });
    for bad in [
        "",
        "null",
        "{}",
        r#"{"sid":"","pingInterval":1,"pingTimeout":2}"#,
        r#"{"sid":1,"pingInterval":1,"pingTimeout":2}"#,
        r#"{"sid":"s","pingInterval":-1,"pingTimeout":2}"#,
        r#"{"sid":"s","pingInterval":1}"#,
        r#"{"sid":"s","pingInterval":1,"pingTimeout":2}x"#,
    ] {
        assert_eq!(Open::parse(bad.as_bytes()), Err(OpenError), "{bad}");
    }
}

proptest! {
    #[test]
    fn what_is_read_without_json_is_what_json_says(
        sid in "[a-zA-Z0-9_ \\\\\"\u{e9}-]{0,4}",
        upgrades in prop_oneof![Just(""), Just("\"websocket\""), Just("\"a\",\"b\""), Just("1"), Just(" ")],
        interval in "-?[0-9]{1,2}|[0-9]{17,21}|1e3|1\\.0",
        payload in prop_oneof![Just(""), Just(",\"maxPayload\":5"), Just(",\"maxPayload\":null"), Just(",\"x\":1")],
        end in "[} ]{1,2}",
    ) {
        let text = format!(
            "{{\"sid\":\"{sid}\",\"upgrades\":[{upgrades}],\"pingInterval\":{interval},\"pingTimeout\":20{payload}{end}"
        );
        if let Some(open) = Rest(text.as_bytes()).open() {
            prop_assert_eq!(Some(open), serde_json::from_str(&text).ok());
        }
    }

    #[test]
    fn reading_a_websocket_message_never_panics(text: bool, data: Vec<u8>) {
        for v in [Version::V3, Version::V4] {
            if let Ok(packet) = ws(v, text, &data) {
                let _ = (packet.kind(), packet.body(), packet.is_empty());
                let (t, bytes) = packet.to_ws(v);
                prop_assert_eq!(Packet::from_ws(v, t, bytes), Ok(packet.clone()));
                prop_assert_eq!(Packet::from_ws(v, true, packet.to_text(v)), Ok(packet));
            }
        }
    }

    #[test]
    fn reading_an_open_packet_never_panics(data: Vec<u8>) {
        let _ = Open::parse(&data);
    }
}
