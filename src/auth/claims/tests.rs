use super::*;
use crate::auth::testing::{ISSUER, NOW};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

fn identity(claims: Value) -> Identity {
    let Value::Object(claims) = claims else { panic!("an object") };
    Identity {
        issuer: ISSUER.into(),
        subject: "alice".into(),
        expires_at: NOW + 600,
        ends_at: NOW + 605,
        jti: None,
        session: None,
        issued_at: None,
        claims: claims.into(),
        hold: None,
    }
}

fn mapping(pairs: &[(&str, &str)], allowed: &[&str]) -> HeaderMapping {
    HeaderMapping::compile(pairs.iter().copied(), allowed).unwrap()
}

fn value(claim: &str, identity: &Identity) -> Option<String> {
    let headers = mapping(&[("x-auth-it", claim)], &[]).headers(identity, "gate-sid");
    headers.first().map(|(_, value)| value.to_str().unwrap().to_owned())
}

#[test]
fn the_default_headers_say_who_and_until_when() {
    let config = crate::config::model::identity::IdentityOut::default();
    let mapping = HeaderMapping::compile(&config.headers, &config.claims).unwrap();
    let headers: BTreeMap<_, _> = mapping
        .headers(&identity(json!({"sub": "mallory", "iss": "https://evil/", "exp": 1})), "gate-sid")
        .into_iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("x-auth-expires", (NOW + 600).to_string()),
        ("x-auth-issuer", ISSUER.into()),
        ("x-auth-session", "gate-sid".into()),
        ("x-auth-subject", "alice".into()),
    ];
    assert_eq!(
        headers,
        expected.map(|(name, value)| (name.to_owned(), value)).into(),
        "the identity's, not the claims'"
    );
}

#[test]
fn an_unnamed_issuer_gives_no_header() {
    let nameless = Identity { issuer: "".into(), ..identity(json!({"iss": "https://evil/"})) };
    assert_eq!(value("iss", &nameless), None);
    let mapping = mapping(&[("x-auth-claims", "$claims")], &["iss"]);
    assert!(mapping.headers(&nameless, "").is_empty());
}

#[test]
fn j32_j33_claims_become_one_safe_value_or_none() {
    for (claim, expected) in [
        (json!("a@example.com"), Some("a@example.com")),
        (json!("a b, c"), Some("a b, c")),
        (json!("a\r\nX-Admin: 1"), Some("a%0D%0AX-Admin: 1")),
        (json!("\0\u{1b}\t\u{7f}"), Some("%00%1B%09%7F")),
        (json!("José ☃"), Some("Jos%C3%A9 %E2%98%83")),
        (json!("100%41"), Some("100%2541")),
        (json!("  a "), Some("%20%20a%20")),
        (json!("  "), Some("%20%20")),
        (json!("\"quoted\""), Some("\"quoted\"")),
        (json!(""), None),
        (json!(42), Some("42")),
        (json!(-1.5), Some("-1.5")),
        (json!(true), Some("true")),
        (json!(null), None),
        (json!({"a": 1}), None),
        (json!(["a", "b"]), Some("a,b")),
        (json!(["a,b", "c\r\n", "%2C", 1, false]), Some("a%2Cb,c%0D%0A,%252C,1,false")),
        (json!(["a", ["admin"]]), None),
        (json!(["a", {"admin": 1}]), None),
        (json!(["a", null]), None),
        (json!([]), None),
        (json!("x".repeat(MAX_VALUE + 1)), None),
        (json!("é".repeat(MAX_VALUE / 6 + 1)), None),
        (json!(vec!["x"; MAX_VALUE]), None),
    ] {
        assert_eq!(value("it", &identity(json!({"it": claim}))).as_deref(), expected, "{claim}");
    }
    assert_eq!(value("it", &identity(json!({}))), None);
}

#[test]
fn j32_a_hostile_subject_or_session_stays_inside_of_its_header() {
    let hostile = Identity { subject: "a\r\nX: y".into(), issuer: "b\nc".into(), ..identity(json!({})) };
    assert_eq!(value("sub", &hostile).as_deref(), Some("a%0D%0AX: y"));
    assert_eq!(value("iss", &hostile).as_deref(), Some("b%0Ac"));
    let session = mapping(&[("x-s", "$session")], &[]).headers(&hostile, "s\r\n");
    assert_eq!(session[0].1, "s%0D%0A");
}

#[test]
fn claims_are_found_by_name_and_by_path() {
    let Value::Object(claims) = json!({
        "a": {"b": {"c": 1}, "x.y": 4, "": 6},
        "a.b": {"d": 2},
        "https://example.com/claims": {"roles": 3},
        "": 5
    }) else {
        unreachable!()
    };
    for (path, expected) in [
        ("a.b.c", Some(json!(1))),
        ("a.b.d", Some(json!(2))),
        ("https://example.com/claims.roles", Some(json!(3))),
        ("a.x.y", Some(json!(4))),
        ("a.b", Some(json!({"d": 2}))),
        ("a.", Some(json!(6))),
        ("a.b.c.d", None),
        ("b", None),
        (".a", None),
        ("a..b", None),
    ] {
        assert_eq!(lookup(&claims, path), expected.as_ref(), "{path}");
    }
}

#[test]
fn named_claims_travel_as_one_json_object() {
    let map = mapping(&[("x-auth-claims", "$claims")], &["sub", "exp", "iss", "roles", "user.id", "missing"]);
    let claims = json!({"sub": "mallory", "exp": 1, "iss": "evil", "roles": ["a"], "user": {"id": 7}, "secret": "s"});
    let headers = map.headers(&identity(claims), "");
    let decoded: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&headers[0].1).unwrap()).unwrap();
    let expected = json!({"sub": "alice", "exp": NOW + 600, "iss": ISSUER, "roles": ["a"], "user.id": 7});
    assert_eq!(decoded, expected);
    assert!(mapping(&[("x-auth-claims", "$claims")], &[]).headers(&identity(json!({"a": 1})), "").is_empty());
    let large = identity(json!({"roles": "x".repeat(MAX_VALUE)}));
    let only = mapping(&[("x-auth-claims", "$claims")], &["roles"]);
    assert!(only.headers(&large, "").is_empty());
}

#[test]
fn p01_every_spelling_a_backend_may_fold_is_protected() {
    let mut map = mapping(&[("X-Auth-Subject", "sub"), ("x-auth-email", "email")], &[]);
    map.protect("X-Siogate-Assertion");
    for name in [
        "x-auth-subject",
        "X-AUTH-SUBJECT",
        "X_Auth_Subject",
        "x.auth-subject",
        "x_auth.subject",
        "x-auth-email",
        "x-siogate-assertion",
        "X_SIOGATE_ASSERTION",
    ] {
        assert!(map.protects(name), "{name}");
    }
    for name in ["x-auth-subjects", "x-auth-subjec", "xauthsubject", "x--auth-subject", "authorization", ""] {
        assert!(!map.protects(name), "{name}");
    }
    assert!(is_protected("X_Real_IP", &["x-real-ip"]));
}

#[test]
fn mappings_that_would_break_a_request_are_refused_together() {
    let bad = [
        ("connection", "sub"),
        ("Transfer_Encoding", "sub"),
        ("sec-websocket-key", "sub"),
        ("x-forwarded-for", "sub"),
        ("x y", "sub"),
        ("", "sub"),
        ("x-a", ""),
        ("x-b", "$nope"),
        ("x-c", "sub"),
        ("X_C", "sub"),
    ];
    let problems = HeaderMapping::compile(bad, &[] as &[&str]).unwrap_err();
    assert_eq!(problems.len(), bad.len() - 1, "{problems:#?}");
    assert!(problems[7].contains("$session"), "{}", problems[7]);
}

#[test]
fn mapped_claims_of_an_assertion_cannot_stand_for_its_own() {
    let map = mapping(
        &[("x-a", "sub"), ("x-b", "email"), ("x-c", "email"), ("x-d", "aud"), ("x-e", "$claims"), ("x-f", "none")],
        &["roles", "idp", "jti"],
    );
    let claims = identity(
        json!({"sub": "m", "email": "e", "aud": "x", "roles": {"a": [1]}, "idp": "x", "jti": "j", "none": null}),
    );
    assert_eq!(map.claims(&claims), [("email".to_owned(), json!("e")), ("roles".to_owned(), json!({"a": [1]}))]);
}

proptest! {
    #[test]
    fn j32_every_text_survives_the_way_to_the_backend(text in "\\PC{1,20}|[\\x00-\\x7f]{1,20}") {
        let sent = value("it", &identity(json!({"it": text}))).unwrap();
        prop_assert!(sent.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && sent.trim() == sent, "{}", sent);
        prop_assert_eq!(percent_decode_str(&sent).decode_utf8().unwrap(), text);
    }

    #[test]
    fn j32_every_list_survives_the_way_to_the_backend(list in prop::collection::vec("[a, %\\r\\né]{0,6}", 2..5)) {
        let sent = value("it", &identity(json!({"it": list}))).unwrap();
        let back: Vec<_> = sent.split(',').map(|item| percent_decode_str(item).decode_utf8().unwrap().into_owned()).collect();
        prop_assert_eq!(back, list);
    }
}
