use super::*;
use crate::auth::testing::b64;
use proptest::prelude::*;

const GOOD: &str = r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#;

fn token(header: &str, payload: &str) -> String {
    format!("{}.{}.{}", b64(header), b64(payload), b64("signature"))
}

fn fault(token: &str) -> Fault {
    Compact::parse(token).err().unwrap_or_else(|| panic!("accepted: {token}"))
}

#[test]
fn a_plain_token_is_taken_apart() {
    let text = token(GOOD, r#"{"sub":"a"}"#);
    let parsed = Compact::parse(&text).ok().unwrap();
    assert_eq!(parsed.header, Header { alg: Algorithm::Rs256, kid: Some("k".into()), typ: Some("JWT".into()) });
    assert_eq!(parsed.claims["sub"], "a");
    assert_eq!(parsed.signature, b"signature");
    assert_eq!(parsed.signing_input, text.rsplit_once('.').unwrap().0.as_bytes());
}

#[test]
fn j01_only_exact_names_of_supported_algorithms_are_known() {
    for name in
        ["none", "None", "NONE", "nOnE", "rs256", "Rs256", "RS256 ", "", "ES512", "ES256K", "HS1", "eddsa", "dir"]
    {
        assert_eq!(Algorithm::parse(name), None, "{name}");
        for header in [format!(r#"{{"alg":"{name}"}}"#), format!(r#"{{"alg":"{name}","typ":"JWT"}}"#)] {
            let unsigned = format!("{}.{}.", b64(&header), b64("{}"));
            assert_eq!(fault(&unsigned).reason, Reason::AlgorithmNotAllowed, "{header}");
            assert_eq!(fault(&token(&header, "{}")).reason, Reason::AlgorithmNotAllowed, "{header}");
        }
    }
    assert_eq!(fault(&token("{}", "{}")).reason, Reason::AlgorithmNotAllowed, "no alg at all");
    for alg in ["1", "null", r#"["RS256"]"#, r#"{"a":1}"#] {
        assert_eq!(fault(&token(&format!(r#"{{"alg":{alg}}}"#), "{}")).reason, Reason::CredentialMalformed);
    }
}

#[test]
fn j31_both_names_of_ed25519_are_one_algorithm() {
    assert_eq!(Algorithm::parse("EdDSA"), Algorithm::parse("Ed25519"));
    for (name, alg) in Algorithm::NAMES {
        assert_eq!(Algorithm::parse(name), Some(*alg));
        assert_eq!(Algorithm::parse(alg.name()), Some(*alg));
    }
}

#[test]
fn j05_a_kid_is_a_short_string() {
    let kid = |value: &str| format!(r#"{{"alg":"RS256","kid":{value}}}"#);
    assert!(Compact::parse(&token(&kid(&format!("{:?}", "k".repeat(MAX_KID))), "{}")).is_ok());
    for bad in [format!("{:?}", "k".repeat(MAX_KID + 1)), "7".into(), "null".into(), "[]".into(), "{}".into()] {
        assert_eq!(fault(&token(&kid(&bad), "{}")).reason, Reason::CredentialMalformed, "{bad}");
    }
}

#[test]
fn j07_a_crit_header_is_refused_whatever_it_says() {
    for crit in [r#"["exp"]"#, r#"["b64"]"#, "[]", r#""x""#, "null", "1", r#"["http://example.com/UNDEFINED"]"#] {
        let header = format!(r#"{{"alg":"RS256","crit":{crit}}}"#);
        let fault = fault(&token(&header, "{}"));
        assert_eq!((fault.reason, fault.detail.as_str()), (Reason::CredentialMalformed, "the token's header has crit"));
    }
}

#[test]
fn j08_unencoded_compressed_encrypted_and_nested_tokens_are_refused() {
    for more in [
        r#""b64":false,"crit":["b64"]"#,
        r#""b64":false"#,
        r#""b64":true"#,
        r#""zip":"DEF""#,
        r#""enc":"A128GCM""#,
        r#""cty":"JWT""#,
        r#""cty":"jwt""#,
        r#""cty":"application/JWT""#,
        r#""cty":1"#,
        r#""typ":1"#,
    ] {
        let header = format!(r#"{{"alg":"HS256",{more}}}"#);
        assert_eq!(fault(&token(&header, "{}")).reason, Reason::CredentialMalformed, "{more}");
    }
    // RFC 7797 section 4.2: the payload stands there unencoded.
    let rfc7797 =
        "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19.$.02.A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY";
    assert_eq!(fault(rfc7797).reason, Reason::CredentialMalformed);
    assert!(Compact::parse(&token(r#"{"alg":"RS256","cty":"json"}"#, "{}")).is_ok());
}

#[test]
fn j09_only_three_parts_of_base64url_are_a_token() {
    let good = token(GOOD, "{}");
    let (head, rest) = good.split_once('.').unwrap();
    let polyglot = format!(r#"{{"payload":"{rest}","protected":"{head}"}}"#);
    for bad in [
        "".into(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a".into(),
        "opaque-token".into(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.a.b"),
        format!("{good}.a"),
        head.to_owned(),
        format!("{head}."),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("\u{feff}{good}"),
        format!("{good}="),
        format!("{good}=="),
        good.replace('.', "%2E"),
        good.replacen('e', "é", 1),
        format!("Bearer {good}"),
        polyglot,
        "null".into(),
        format!("{head}.{}+.{}", b64("{}"), b64("s")),
        format!("{head}.{}/.{}", b64("{}"), b64("s")),
        // One sixth of a byte too many, and trailing bits that say nothing.
        format!("{head}.{}.A", b64("{}")),
        format!("{head}.{}.AB", b64("{}")),
    ] {
        assert_eq!(fault(&bad).reason, Reason::CredentialMalformed, "{bad:?}");
    }
}

#[test]
fn j10_a_repeated_name_is_refused_in_any_spelling_and_depth() {
    for header in [
        r#"{"alg":"RS256","alg":"RS256"}"#,
        r#"{"alg":"RS256","x":1,"x":1}"#,
        r#"{"alg":"RS256","x":{"y":1,"y":2}}"#,
        r#"{"alg":"RS256","\u0061lg":"none"}"#,
        r#"{"alg":"RS256","x":[{"y":1,"\u0079":2}]}"#,
    ] {
        assert_eq!(fault(&token(header, "{}")).detail, "the token's header repeats a member name", "{header}");
    }
    for payload in [
        r#"{"role":"user","role":"admin"}"#,
        r#"{"role":"user","\u0072ole":"admin"}"#,
        r#"{"exp":1,"exp":9999999999}"#,
        r#"{"realm":{"roles":[],"roles":["admin"]}}"#,
    ] {
        assert_eq!(fault(&token(GOOD, payload)).detail, "the token's payload repeats a member name", "{payload}");
    }
    assert!(Compact::parse(&token(GOOD, r#"{"a":{"x":1},"b":{"x":1},"c":[{"x":1},{"x":1}]}"#)).is_ok());
}

#[test]
fn j20_size_and_depth_are_bounded_before_anything_is_read() {
    let long = format!("{}.{}.{}", b64(GOOD), "e".repeat(1_000_000), b64("s"));
    assert!(fault(&long).detail.starts_with("the token has 1000"), "{}", fault(&long).detail);
    assert_eq!(fault(&".".repeat(1_000_000)).reason, Reason::CredentialMalformed);
    let fill = MAX_TOKEN - token(GOOD, "{}").len();
    let exact = format!("{}.{}.{}{}", b64(GOOD), b64("{}"), b64("signature"), "A".repeat(fill / 4 * 4));
    assert!(exact.len() <= MAX_TOKEN && Compact::parse(&exact).is_ok());
    assert!(Compact::parse(&format!("{exact}AAAA")).is_err());

    let deep = |n: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(Compact::parse(&token(GOOD, &deep(100))).is_ok());
    assert_eq!(fault(&token(GOOD, &deep(2000))).detail, "the token's payload is not valid JSON");
}

#[test]
fn only_a_json_object_is_a_header_or_a_payload() {
    for bad in [
        "",
        "null",
        "1",
        "[]",
        r#""x""#,
        "{",
        "{}x",
        "{} {}",
        "{'a':1}",
        r#"{"a":1e999}"#,
        "{\"a\":\"\u{1}\"}",
        "\u{feff}{}",
    ] {
        assert_eq!(fault(&token(GOOD, bad)).reason, Reason::CredentialMalformed, "{bad}");
        assert_eq!(fault(&token(bad, "{}")).reason, Reason::CredentialMalformed, "{bad}");
    }
    let binary = format!("{}.{}.{}", b64(GOOD), b64([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), b64("s"));
    assert_eq!(fault(&binary).reason, Reason::CredentialMalformed, "not UTF-8");
}

#[test]
fn j06_key_hints_are_not_even_read() {
    let header = r#"{"alg":"RS256","jku":"http://127.0.0.1:1/","x5u":7,"jwk":{"kty":"oct","k":"AA"},"x5c":["x"]}"#;
    let text = token(header, "{}");
    let parsed = Compact::parse(&text).ok().unwrap();
    assert_eq!(parsed.header, Header { alg: Algorithm::Rs256, kid: None, typ: None });
}

#[test]
fn what_is_shown_is_escaped_and_cut() {
    assert_eq!(shown("a\r\nb\u{1b}[31m\"é"), r#""a\r\nb\u{1b}[31m\"\u{e9}""#);
    assert_eq!(shown(&"x".repeat(1000)), format!("\"{}…\"", "x".repeat(64)));
}

#[test]
fn media_types_are_compared_without_case_and_prefix() {
    for name in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        assert_eq!(media_type(name), "application/at+jwt");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _parsed = Compact::parse(&text);
    }

    #[test]
    fn no_header_or_payload_makes_the_parser_panic(header in ".{0,100}", payload in ".{0,100}") {
        let _parsed = Compact::parse(&token(&header, &payload));
    }

    #[test]
    fn strict_reading_agrees_with_serde_where_nothing_is_repeated(text in r#"\{("[a-c]":(-?[0-9]{1,25}|"[ -~]{0,3}"|null|true|\[\]|\{\}),?){0,4}\}"#) {
        match object(text.as_bytes()) {
            Ok(members) => prop_assert_eq!(Value::Object(members), serde_json::from_str::<Value>(&text).unwrap()),
            Err(JsonFault::Invalid) => prop_assert!(serde_json::from_str::<Value>(&text).is_err()),
            Err(JsonFault::NotObject) => prop_assert!(false),
            Err(JsonFault::Repeated) => {}
        }
    }
}
