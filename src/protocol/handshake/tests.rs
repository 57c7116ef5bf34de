//! Queries as clients write them, as attackers write them, and as the backend gets them.

use super::*;
use proptest::prelude::*;

fn query(raw: &str) -> Query {
    Query::parse(raw).unwrap()
}

#[test]
fn captured_queries_are_understood() {
    let q = query("x=1&EIO=4&transport=polling&t=0mirla5k&sid=tWMQSDFANHpjCgWKAAAB");
    assert_eq!((q.eio, q.transport, q.b64, q.jsonp), (Some(Version::V4), Some(Transport::Polling), false, false));
    assert_eq!(q.sid.as_deref(), Some("tWMQSDFANHpjCgWKAAAB"));
    assert_eq!(q.get_all("x"), ["1"]);
    let q = query("token=T&EIO=3&transport=polling&t=Q83zcR7&b64=1");
    assert_eq!((q.eio, q.b64, q.sid.as_deref()), (Some(Version::V3), true, None));
    let q = query("EIO=4&transport=polling&j=0");
    assert!(q.jsonp);
    let q = query("EIO=4&transport=websocket");
    assert_eq!(q.transport, Some(Transport::Websocket));
}

#[test]
fn p12_unknown_versions_and_transports_are_none() {
    for raw in ["", "EIO=", "EIO=5", "EIO=4.0", "EIO=04", "EIO=%204", "eio=4"] {
        assert_eq!(query(raw).eio, None, "{raw}");
    }
    for raw in ["", "transport=", "transport=abc", "transport=webtransport", "transport=Polling"] {
        assert_eq!(query(raw).transport, None, "{raw}");
    }
}

#[test]
fn p12_an_empty_sid_is_a_handshake() {
    assert_eq!(query("sid=").sid, None);
    assert_eq!(query("sid").sid, None);
}

#[test]
fn p12_duplicates_are_refused_in_any_spelling() {
    for raw in
        ["sid=good&sid=bad", "sid=a&%73id=a", "s%69d=&sid=a", "sid&sid=a", "sid=a&x=1&sid=a", "%73%69%64=a&&sid=b"]
    {
        assert_eq!(Query::parse(raw), Err(QueryError::Duplicate("sid")), "{raw}");
    }
    assert_eq!(Query::parse("EIO=3&EIO=4"), Err(QueryError::Duplicate("EIO")));
    assert_eq!(Query::parse("transport=polling&%74ransport=websocket"), Err(QueryError::Duplicate("transport")));
    assert_eq!(Query::parse("b64=1&b64="), Err(QueryError::Duplicate("b64")));
    assert_eq!(Query::parse("j=1&j=2"), Err(QueryError::Duplicate("j")));
}

#[test]
fn encoded_names_are_the_names() {
    let q = query("%45IO=%34&tr%61nsport=p%6flling&%73id=%61b");
    assert_eq!((q.eio, q.transport, q.sid.as_deref()), (Some(Version::V4), Some(Transport::Polling), Some("ab")));
}

#[test]
fn other_duplicates_are_kept_in_order() {
    let q = query("room=a&room=b&token=1&to%6ben=2");
    assert_eq!(q.get_all("room"), ["a", "b"]);
    assert_eq!(q.get_all("token"), ["1", "2"]);
    assert_eq!(q.get_all("none"), [""; 0]);
    assert_eq!(q.upstream("/a/", &["token"]), "/a/?room=a&room=b&transport=websocket");
}

#[test]
fn p12_controls_and_broken_escapes_are_refused() {
    for raw in ["a=%00", "a%0a=1", "a=%0D%0AX", "a=%7f", "a=%c2%85"] {
        assert_eq!(Query::parse(raw), Err(QueryError::Control), "{raw}");
    }
    for raw in ["a=%", "a=%4", "a=%zz", "%=1", "a=%+1", "a=%ff", "a=%c3", "a=%ed%a0%80", "a=%4&b=4"] {
        assert_eq!(Query::parse(raw), Err(QueryError::BadEscape), "{raw}");
    }
    for raw in ["a=b c", "a=\t", "a=\0", "a=é", "a=1#sid=2", "a=\u{7f}"] {
        assert_eq!(Query::parse(raw), Err(QueryError::RawCharacter), "{raw:?}");
    }
}

#[test]
fn the_backend_gets_users_pairs_and_what_engineio_needs() {
    for (raw, drop, expected) in [
        ("EIO=4&transport=polling&t=x", &[][..], "EIO=4&transport=websocket"),
        ("x=1&EIO=4&transport=polling&t=x&sid=s&y=2", &[], "x=1&y=2&EIO=4&transport=websocket"),
        ("token=T&x=1&EIO=4&transport=polling", &["token"], "x=1&EIO=4&transport=websocket"),
        ("to%6ben=T&EIO=4&transport=websocket", &["token"], "EIO=4&transport=websocket"),
        ("EIO=3&transport=polling&b64=1&x=1", &[], "x=1&EIO=3&transport=websocket&b64=1"),
        ("EIO=4&transport=polling&b64=1&j=2", &[], "EIO=4&transport=websocket"),
        ("a=b+c&d=%2b&e=%26f%3D&g&%C3%A9=%23;", &[], "a=b%20c&d=%2B&e=%26f%3D&g=&%C3%A9=%23%3B&transport=websocket"),
        ("__proto__=x&a.b[]=1&=v", &[], "__proto__=x&a.b%5B%5D=1&=v&transport=websocket"),
    ] {
        assert_eq!(query(raw).upstream("", drop), format!("?{expected}"), "{raw}");
    }
}

#[test]
fn p14_logs_see_no_value_that_could_be_a_secret() {
    let q = query("token=hush1&access_token=hush2&e=&EIO=4&transport=polling&t=hush3&sid=tWMQSDFANHpjCgWKAAAB");
    assert_eq!(q.redacted(&["token"]), "token=(credential)&access_token=…&e=&EIO=4&transport=polling&t=…&sid=tWMQSD…");
    assert!(!format!("{q:?}").contains("hush"));
    assert_eq!(query("transport=hush&EIO=hush&sid=").redacted(&[]), "transport=…&EIO=…&sid=");
}

#[test]
fn error_bodies_are_engineios() {
    use EngineError::*;
    for (index, error) in
        [TransportUnknown, UnknownSid, BadHandshakeMethod, BadRequest, Forbidden, UnsupportedVersion].iter().enumerate()
    {
        assert_eq!(usize::from(error.code()), index);
        assert_eq!(error.body(), format!("{{\"code\":{index},\"message\":\"{}\"}}", error.message()));
        assert_eq!(error.status(), if *error == Forbidden { 403 } else { 400 });
    }
}

proptest! {
    #[test]
    fn reading_never_panics(raw: String, near in "([a-zA-Z0-9%&=+;]|sid|EIO|j=){0,20}") {
        for raw in [raw, near] {
            if let Ok(query) = Query::parse(&raw) {
                let _ = (query.redacted(&["a"]), query.get_all("sid"));
            }
        }
    }

    #[test]
    fn what_goes_upstream_reads_as_what_came(
        pairs in proptest::collection::vec(("[^\\p{Cc}]{0,6}", "[^\\p{Cc}]{0,6}"), 0..6),
        eio in prop_oneof![Just("EIO=3"), Just("EIO=4"), Just("x=1")],
        b64: bool,
    ) {
        let mut raw = String::new();
        for (name, value) in pairs.iter().filter(|(name, _)| !is_engine(name)) {
            raw.push_str(if raw.is_empty() { "" } else { "&" });
            push_pair(&mut raw, name, value);
        }
        let user = raw.clone();
        raw = format!("{raw}&{eio}&transport=polling&sid=s&t=1{}", if b64 { "&b64=1" } else { "" });
        let first = Query::parse(&raw).unwrap();
        let text = first.upstream("", &[]);
        let text = text.strip_prefix('?').unwrap();
        prop_assert!(text.starts_with(&user));
        let second = Query::parse(text).unwrap();
        prop_assert_eq!(second.upstream("", &[]), first.upstream("", &[]));
        prop_assert_eq!(second.eio, first.eio);
        prop_assert_eq!(second.transport, Some(Transport::Websocket));
        prop_assert_eq!(second.sid.as_deref(), None);
    let users = |q: &Query| {
        let pairs = q.pairs().filter(|(n, _)| !is_engine(n));
        pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<Vec<_>>()
    };
        prop_assert_eq!(users(&second), users(&first));
    }
}
