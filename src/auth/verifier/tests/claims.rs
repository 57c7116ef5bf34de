//! What the claims must hold: types, the audience, the subject.

use super::*;

#[test]
fn j10_well_signed_repeated_claims_are_refused() {
    let gate = everything();
    let payload = |role: &str| {
        let good = claims(json!({"role": "user"})).to_string();
        format!("{},{role}:\"admin\"}}", good.strip_suffix('}').unwrap())
    };
    let header = json!({"alg": "RS256", "kid": "rsa-1"}).to_string();
    for name in [r#""role""#, r#""\u0072ole""#, r#""sub""#, r#""iss""#] {
        let token = RSA.raw("RS256", &header, &payload(name));
        assert_eq!(reason(&gate, &token), Reason::CredentialMalformed, "{name}");
    }
    assert!(gate.verify(&RSA.raw("RS256", &header, &payload(r#""other""#)), NOW).is_ok());
}

#[test]
fn j11_required_claims_have_their_types() {
    use Reason::{AudienceMismatch, ClaimRejected, IssuerUnknown};
    let gate = everything();
    for (change, expected) in [
        (json!({"exp": null}), ClaimRejected),
        (json!({"exp": "1800000000"}), ClaimRejected),
        (json!({"exp": true}), ClaimRejected),
        (json!({"exp": [NOW + 60]}), ClaimRejected),
        (json!({"exp": {}}), ClaimRejected),
        (json!({"exp": -1}), ClaimRejected),
        (json!({"exp": -0.5}), ClaimRejected),
        (json!({"iss": null}), ClaimRejected),
        (json!({"iss": 7}), ClaimRejected),
        (json!({"iss": [ISSUER]}), ClaimRejected),
        (json!({"iss": ["https://evil.example.com/", ISSUER]}), ClaimRejected),
        (json!({"iss": {"a": ISSUER}}), ClaimRejected),
        (json!({"iss": ""}), IssuerUnknown),
        (json!({"aud": null}), ClaimRejected),
        (json!({"aud": 7}), ClaimRejected),
        (json!({"aud": {"chat": 1}}), ClaimRejected),
        (json!({"aud": ["chat", 7]}), ClaimRejected),
        (json!({"aud": [["chat"]]}), ClaimRejected),
        (json!({"aud": []}), AudienceMismatch),
        (json!({"aud": ""}), AudienceMismatch),
        (json!({"nbf": "0"}), ClaimRejected),
        (json!({"nbf": false}), ClaimRejected),
        (json!({"iat": "0"}), ClaimRejected),
        (json!({"iat": []}), ClaimRejected),
        (json!({"jti": []}), ClaimRejected),
        (json!({"sid": {"a": 1}}), ClaimRejected),
        (json!({"jti": "x".repeat(1025)}), ClaimRejected),
    ] {
        assert_eq!(reason(&gate, &RSA.token(&claims(change.clone()))), expected, "{change}");
    }
    // A claim that is there and null is there.
    let header = json!({"alg": "RS256", "kid": "rsa-1"}).to_string();
    for name in ["exp", "iss", "aud", "nbf", "iat"] {
        let payload = claims(json!({name: "NULL"})).to_string().replace("\"NULL\"", "null");
        assert_eq!(reason(&gate, &RSA.raw("RS256", &header, &payload)), ClaimRejected, "{name}");
    }
}

#[test]
fn j16_the_audience_has_to_name_us() {
    let section = Issuer { audience: vec!["chat".into(), "chat-v2".into()], ..issuer(&[]) };
    let gate = fetched(section, &[RSA.jwk()]);
    for (aud, good) in [
        (json!("chat"), true),
        (json!("chat-v2"), true),
        (json!(["api", "chat"]), true),
        (json!("api"), false),
        (json!("CHAT"), false),
        (json!("chat,api"), false),
        (json!("chat "), false),
        (json!(["api", "other"]), false),
        (json!(["cha", "t"]), false),
    ] {
        let outcome = gate.verify(&RSA.token(&claims(json!({"aud": aud}))), NOW).err().map(|refused| refused.reason);
        assert_eq!(outcome, (!good).then_some(Reason::AudienceMismatch), "{aud}");
    }
    let unchecked = fetched(Issuer { audience: Vec::new(), ..issuer(&[]) }, &[RSA.jwk()]);
    assert!(!unchecked.issuers()[0].checks_audience());
    for aud in [json!("api"), json!(null), json!(7)] {
        assert!(unchecked.verify(&RSA.token(&claims(json!({"aud": aud}))), NOW).is_ok());
    }
}

#[test]
fn rfc9700_a_token_bound_to_a_key_is_no_bearer_token() {
    let gate = everything();
    for cnf in [json!({"jkt": "x"}), json!({"x5t#S256": "x"}), json!({}), json!("x")] {
        assert_eq!(reason(&gate, &RSA.token(&claims(json!({"cnf": cnf})))), Reason::ClaimRejected, "{cnf}");
    }
}

#[test]
fn the_subject_is_a_name_or_a_whole_number_wherever_it_stands() {
    for (path, change, expected) in [
        ("sub", json!({}), Some("alice")),
        ("id", json!({"id": 42}), Some("42")),
        ("id", json!({"id": -7}), Some("-7")),
        ("id", json!({"id": u64::MAX}), Some("18446744073709551615")),
        ("user.id", json!({"user": {"id": "u-1"}}), Some("u-1")),
        ("user.id", json!({"user.id": "flat", "user": {"id": "deep"}}), Some("flat")),
        ("https://example.com/user.id", json!({"https://example.com/user": {"id": "u-2"}}), Some("u-2")),
        ("sub", json!({"sub": "né ☃"}), Some("né ☃")),
        ("sub", json!({"sub": null}), None),
        ("sub", json!({"sub": ""}), None),
        ("sub", json!({"sub": true}), None),
        ("sub", json!({"sub": ["alice"]}), None),
        ("sub", json!({"sub": {"toString": "alice"}}), None),
        ("id", json!({"id": 1.5}), None),
        ("id", json!({"id": 1e30}), None),
        ("id", json!({}), None),
        ("user.id", json!({"user": "alice"}), None),
        ("user.id", json!({"user": ["id"]}), None),
    ] {
        let gate = fetched(Issuer { subject: path.into(), ..issuer(&[]) }, &[RSA.jwk()]);
        let outcome = gate.verify(&RSA.token(&claims(change.clone())), NOW);
        match expected {
            Some(subject) => assert_eq!(&*outcome.unwrap().subject, subject, "{path} {change}"),
            None => assert_eq!(outcome.unwrap_err().reason, Reason::ClaimRejected, "{path} {change}"),
        }
    }
    let gate = everything();
    assert!(gate.verify(&RSA.token(&claims(json!({"sub": "x".repeat(1024)}))), NOW).is_ok());
    assert_eq!(reason(&gate, &RSA.token(&claims(json!({"sub": "x".repeat(1025)})))), Reason::ClaimRejected);
    // Numbers beyond 64 bits would become the same fraction.
    let header = json!({"alg": "RS256", "kid": "rsa-1"}).to_string();
    let payload = claims(json!({"sub": "BIG"})).to_string().replace("\"BIG\"", "123456789012345678901234567890");
    assert_eq!(reason(&gate, &RSA.raw("RS256", &header, &payload)), Reason::ClaimRejected);
}
