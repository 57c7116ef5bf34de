//! CONNECT spellings, heads and captured packets.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const V3: Version = Version::V3;
const V4: Version = Version::V4;

/// The packet that the backend is sent for a client's message `4…`.
fn sent_on(v: Version, message: &str) -> Result<String, ConnectError> {
    parse_connect(v, message.strip_prefix('4').unwrap()).map(|connect| connect.serialise(v))
}

/// Every spelling of the measured table, in its order; what several packets in a row mean is the gate's to say.
#[test]
fn every_measured_spelling_of_connect_has_one_meaning_or_none() {
    let a = Ok(r#"40{"token":"A"}"#);
    let admin = Ok(r#"40/admin,{"token":"A"}"#);
    let rows: &[(&str, Result<&str, ConnectError>)] = &[
        (r#"40{"token":"A"}"#, a),
        (r#"40/,{"token":"A"}"#, a),
        (r#"400{"token":"A"}"#, Err(ConnectError::NotObject)),
        (r#"4012{"token":"A"}"#, Err(ConnectError::NotObject)),
        (r#"40 {"token":"A"}"#, Err(ConnectError::NotObject)),
        (r#"40/admin,{"token":"A"}"#, admin),
        (r#"40/admin{"token":"A"}"#, Err(ConnectError::Namespace)),
        (r#"40/admin,7{"token":"A"}"#, Err(ConnectError::NotObject)),
        ("40/admin", Ok("40/admin,")),
        (r#"40/admin?token=Q,{"token":"A"}"#, Err(ConnectError::Query)),
        (r#"40{"token":"A","token":"B"}"#, Err(ConnectError::DuplicateKey)),
        (r#"40{"__proto__":{"token":"P"}}"#, Ok(r#"40{"__proto__":{"token":"P"}}"#)),
        (r#"40{"\u0074oken":"A"}"#, a),
        (r#"40{"token":{"toString":1}}"#, Ok(r#"40{"token":{"toString":1}}"#)),
        ("40[]", Err(ConnectError::NotObject)),
        ("40null", Err(ConnectError::NotObject)),
        (r#"40"A""#, Err(ConnectError::NotObject)),
        (r#"40{"token":"A"}junk"#, Err(ConnectError::Json)),
        ("40\t{\"token\":\"A\"}", Err(ConnectError::NotObject)),
        ("40\u{a0}{\"token\":\"A\"}", Err(ConnectError::NotObject)),
        (r#"40{"token":"A"} "#, Err(ConnectError::Json)),
        (r#"4٠{"token":"A"}"#, Err(ConnectError::NotConnect)),
        // `bMHs…`, `<307b…>` (binary), `2`, `2probe`, `3`, `5`, `6`, `0{…}`, `7` and an empty frame are no message.
        (r#"450-["x"]"#, Err(ConnectError::NotConnect)),
        (r#"42["hello"]"#, Err(ConnectError::NotConnect)),
        ("41", Err(ConnectError::NotConnect)),
        ("41/admin,", Err(ConnectError::NotConnect)),
        ("40", Ok("40")),
        ("4", Err(ConnectError::NotConnect)),
        (r#"44{"message":"x"}"#, Err(ConnectError::NotConnect)),
        (r#"40/dynamo,{"a":1}"#, Ok(r#"40/dynamo,{"a":1}"#)),
        (r#"40//,{"a":1}"#, Ok(r#"40//,{"a":1}"#)),
        (r#"40/admin/,{"a":1}"#, Ok(r#"40/admin/,{"a":1}"#)),
        (r#"40/ADMIN,{"a":1}"#, Ok(r#"40/ADMIN,{"a":1}"#)),
        (r#"40/%61dmin,{"a":1}"#, Ok(r#"40/%61dmin,{"a":1}"#)),
        (r#"40 /admin,{"a":1}"#, Err(ConnectError::NotObject)),
    ];
    for (message, expected) in rows {
        let expected = expected.as_ref().map(|text| (*text).to_owned()).map_err(|error| *error);
        assert_eq!(sent_on(V4, message), expected, "{message:?}");
    }
}

#[test]
fn measured_frames_that_are_no_message_or_no_connect() {
    use crate::protocol::engineio::{Kind, Packet};
    use bytes::Bytes;
    for (text, frame, kind) in [
        (true, b"bMHsidG9rZW4iOiJBIn0=".as_slice(), Some(Kind::Message)),
        (false, b"0{\"token\":\"A\"}", Some(Kind::Message)),
        (true, b"2probe", Some(Kind::Ping)),
        (true, b"2", Some(Kind::Ping)),
        (true, b"3", Some(Kind::Pong)),
        (true, b"5", Some(Kind::Upgrade)),
        (true, b"6", Some(Kind::Noop)),
        (true, b"0{\"sid\":\"x\"}", Some(Kind::Open)),
        (true, b"7", None),
        (true, b"", None),
    ] {
        let packet = Packet::from_ws(V4, text, Bytes::from_static(frame)).ok();
        assert_eq!(packet.as_ref().map(Packet::kind), kind, "{frame:?}");
        // Binary data is never mistaken for a CONNECT in text.
        let is_message_text = packet.as_ref().is_some_and(|p| p.kind() == Kind::Message && p.body().is_some());
        assert!(!is_message_text, "{frame:?}");
    }
}

#[test]
fn json_inside_the_data_may_be_spelled_as_json_allows() {
    for (message, expected) in [
        (r#"40{ "token" : "A" }"#, r#"40{"token":"A"}"#),
        (r#"40{"url":"\/x","n":[1,2.5,true,null]}"#, r#"40{"n":[1,2.5,true,null],"url":"/x"}"#),
        ("40{}", "40{}"),
        (r#"40/é,{"s":"a\u0000,é\ud83d\ude00"}"#, "40/é,{\"s\":\"a\\u0000,é😀\"}"),
    ] {
        assert_eq!(sent_on(V4, message), Ok(expected.to_owned()), "{message}");
    }
}

#[test]
fn malformed_data_is_refused() {
    for (data, error) in [
        ("{", ConnectError::Json),
        ("}", ConnectError::NotObject),
        ("{}{}", ConnectError::Json),
        ("{}\n{}", ConnectError::Json),
        ("{'a':1}", ConnectError::Json),
        (r#"{"a":1,}"#, ConnectError::Json),
        (r#"{"a":1e400}"#, ConnectError::Json),
        (r#"{"a":"\ud800"}"#, ConnectError::Json),
        (r#"{"token":"A","\u0074oken":"A"}"#, ConnectError::DuplicateKey),
        (r#"{"user":{"token":"A","token":"A"}}"#, ConnectError::DuplicateKey),
        ("\u{feff}{}", ConnectError::NotObject),
        ("\0{}", ConnectError::NotObject),
    ] {
        assert_eq!(parse_connect(V4, &format!("0{data}")), Err(error), "{data}");
    }
    let deep = format!("0{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(parse_connect(V4, &deep), Err(ConnectError::Json));
}

#[test]
fn p10_namespaces_that_servers_read_differently_are_refused() {
    for v in [V3, V4] {
        for ns in
            ["/a b", "/a\tb", "/a\0", "/a\u{7f}", "/a\u{a0}", "/a\u{2028}", "/a\"b", "/a\\b", "/a#b", "/a[b", "/a{b"]
        {
            assert_eq!(parse_connect(v, &format!("0{ns},")), Err(ConnectError::Namespace), "{v:?} {ns:?}");
        }
    }
    for ns in ["//admin", "/x/../admin", "/x/%2e%2E", "/./admin", "/x/.%2e/y"] {
        assert_eq!(parse_connect(V3, &format!("0{ns},")), Err(ConnectError::Namespace), "{ns}");
    }
}

#[test]
fn protocol_3_names_a_query_and_no_data() {
    let connect = parse_connect(V3, "0/admin?token=Q&x={1},").unwrap();
    assert_eq!((connect.namespace.as_str(), connect.query.as_deref()), ("/admin", Some("token=Q&x={1}")));
    assert_eq!(connect.serialise(V3), "40/admin?token=Q&x={1},");
    for (message, expected) in [
        ("40", Ok("40")),
        ("40/", Ok("40")),
        ("40/admin", Ok("40/admin,")),
        ("40/admin,", Ok("40/admin,")),
        ("40/admin?x=y", Ok("40/admin?x=y,")),
        ("40/?x=y,", Ok("40/?x=y,")),
        ("40/admin?,", Ok("40/admin?,")),
        ("40/admin?x=#,", Err(ConnectError::Query)),
        ("40/admin?x= y,", Err(ConnectError::Query)),
        ("40/admin?x=y,{}", Err(ConnectError::NotObject)),
        ("40{}", Err(ConnectError::NotObject)),
        ("40?x=y", Err(ConnectError::NotObject)),
    ] {
        assert_eq!(sent_on(V3, message), expected.map(str::to_owned), "{message}");
    }
}

#[test]
fn debug_of_connect_shows_neither_data_nor_query() {
    for (v, text) in [(V4, r#"0/a,{"hush":"hush"}"#), (V3, "0/a?token=hush,")] {
        let shown = format!("{:?}", parse_connect(v, text).unwrap());
        assert!(shown.contains("/a") && !shown.contains("hush"), "{shown}");
    }
}

#[test]
fn refusals_and_farewells_are_spelled_as_the_servers_spell_them() {
    assert_eq!(connect_error(V4, "/", "nope", "c"), r#"44{"message":"nope","data":{"code":"c"}}"#);
    assert_eq!(connect_error(V4, "/a", "\"", "c"), r#"44/a,{"message":"\"","data":{"code":"c"}}"#);
    assert_eq!(connect_error(V3, "/a", "nope", "c"), r#"44/a,{"message":"nope","code":"c"}"#);
    assert_eq!(disconnect("/"), "41");
    assert_eq!(disconnect("/admin"), "41/admin,");
}

#[test]
fn heads_of_captured_packets() {
    let h = |kind, attachments| Some(Head { kind, attachments });
    for (message, expected) in [
        (r#"0{"sid":"x"}"#, h(SioKind::Connect, 0)),
        ("1", h(SioKind::Disconnect, 0)),
        (r#"20["hello","a"]"#, h(SioKind::Event, 0)),
        (r#"30["ack:a"]"#, h(SioKind::Ack, 0)),
        (r#"4{"message":"x"}"#, h(SioKind::ConnectError, 0)),
        (r#"51-["bin",{"_pla"#, h(SioKind::BinaryEvent, 1)),
        ("51-/admin,[\"bin\"", h(SioKind::BinaryEvent, 1)),
        (r#"61-867["x",{"_p"#, h(SioKind::BinaryAck, 1)),
        ("50-[", h(SioKind::BinaryEvent, 0)),
        ("54294967295-[", h(SioKind::BinaryEvent, u32::MAX)),
        ("54294967296-[", None),
        ("599999999999999", None),
        ("5-[", None),
        ("501-[", None),
        ("51", None),
        ("5 1-[", None),
        ("51e1-[", None),
        ("50x10-[", None),
        ("5-1-[", None),
        ("5٠-[", None),
        ("7", None),
        ("", None),
        ("x", None),
    ] {
        assert_eq!(head(message.as_bytes()), expected, "{message}");
        let cut = message.as_bytes().get(..16).unwrap_or(message.as_bytes());
        assert_eq!(head(cut), expected, "{message}, cut");
    }
}

#[test]
fn answers_to_connect_are_read() {
    let own = |s: &str| Some(s.to_owned());
    for (text, expected) in [
        (r#"0{"sid":"CKth"}"#, Some((ROOT.to_owned(), own("CKth"), None))),
        (r#"0{"sid":"7UTJ","pid":"Y8g1"}"#, Some((ROOT.to_owned(), own("7UTJ"), own("Y8g1")))),
        (r#"0/admin,{"sid":"Gp8a","pid":7}"#, Some(("/admin".to_owned(), own("Gp8a"), None))),
        (r#"0{"sid":"a\u0062"}"#, Some((ROOT.to_owned(), own("ab"), None))),
        (r#"0{"sid":"é"}"#, Some((ROOT.to_owned(), own("é"), None))),
        (r#"0{"sid":"a\"}"#, None),
        ("0{\"sid\":\"a\u{1}\"}", None),
        ("0", Some((ROOT.to_owned(), None, None))),
        ("0/admin,", Some(("/admin".to_owned(), None, None))),
        ("0{", None),
        ("2[\"x\"]", None),
        ("", None),
    ] {
        assert_eq!(parse_connected(text), expected, "{text}");
    }
}

#[test]
fn the_namespace_of_any_packet() {
    for (text, expected) in [
        (r#"2["hello"]"#, "/"),
        (r#"20["hello"]"#, "/"),
        ("23/,[]", "/"),
        (r#"2/admin,0["/x,"]"#, "/admin"),
        (r#"51-/admin,["bin"]"#, "/admin"),
        (r#"51-["bin","/x,"]"#, "/"),
        ("1/admin,", "/admin"),
        ("1/admin", "/admin"),
        ("1", "/"),
        (r#"4/deny,{"message":"/x,"}"#, "/deny"),
        (r#"2/admin?x=y,["e"]"#, "/admin?x=y"),
        ("", "/"),
        ("é/x", "/"),
    ] {
        assert_eq!(namespace_of(text), expected, "{text}");
    }
}

#[test]
fn p17_long_connects_take_linear_time() {
    let keys: Vec<String> = (0..100_000).map(|i| format!("\"{i}\":{i}")).collect();
    let start = Instant::now();
    let connect = parse_connect(V4, &format!("0{{{}}}", keys.join(","))).unwrap();
    assert_eq!(connect.data.map(|data| data.len()), Some(100_000));
    assert!(parse_connect(V4, &format!("0/{}", "/../".repeat(250_000))).is_ok());
    assert!(parse_connect(V3, &format!("0{}", "/..x".repeat(250_000))).is_ok());
    assert!(start.elapsed() < Duration::from_secs(10));
}

fn data() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    });
    proptest::collection::btree_map(any::<String>(), value, 0..5).prop_map(|m| m.into_iter().collect())
}

proptest! {
    #[test]
    fn what_serialise_writes_is_read_back(ns in "/|/[a-zA-Z0-9_/é%-]{1,12}", data in proptest::option::of(data())) {
        let connect = Connect { namespace: ns, query: None, data };
        let text = connect.serialise(V4);
        prop_assert_eq!(parse_connect(V4, &text[1..]), Ok(connect));
    }

    #[test]
    fn what_serialise_writes_for_protocol_3_is_read_back(
        ns in "/|/[a-zA-Z0-9_é%-]{1,12}",
        query in proptest::option::of("[a-z0-9=&%?/é.-]{0,12}"),
    ) {
        let connect = Connect { namespace: ns, query, data: None };
        let text = connect.serialise(V3);
        prop_assert_eq!(parse_connect(V3, &text[1..]), Ok(connect));
    }

    #[test]
    fn whatever_is_accepted_is_sent_on_in_a_spelling_that_is_accepted_too(
        text in "0?(/[a-z?%.,#é]{0,5})?,?[0-9 \t]?(\\{(\"[ab]\":[1-2],?){0,2}\\})?[ x]?",
    ) {
        for v in [V3, V4] {
            if let Ok(connect) = parse_connect(v, &text) {
                let canonical = connect.serialise(v);
                prop_assert_eq!(parse_connect(v, &canonical[1..]), Ok(connect));
            }
        }
    }

    #[test]
    fn reading_never_panics(text: String, bytes: Vec<u8>) {
        for v in [V3, V4] {
            let _ = parse_connect(v, &text);
            let _ = parse_connect(v, &format!("0{text}"));
            let _ = parse_connect(v, &format!("0/{text}"));
        }
        let _ = (namespace_of(&text), parse_connected(&text), parse_connected(&format!("0{text}")));
        let _ = (head(&bytes), head(text.as_bytes()));
    }
}
