//! Whose token it is: look-alikes, several issuers, and sections that cannot work.

use super::*;
use crate::auth::jose::Header;

#[test]
fn j14_an_issuers_key_is_good_for_that_issuer_alone() {
    let other = "https://other.example.com/";
    let sections =
        [(issuer(&[]), Material::Remote), (Issuer { issuer: Some(other.into()), ..issuer(&[]) }, Material::Remote)];
    let (gate, store) = verifier(&sections);
    let same_kid = |pair: &Pair| with(pair.jwk(), json!({"kid": "same"}));
    for (index, pair) in [&RSA, &OTHER_RSA].into_iter().enumerate() {
        let (set, _) = KeySet::from_jwks(&jwks(&[same_kid(pair)]), gate.issuers()[index].algorithms()).unwrap();
        store.replace(index, set, NOW);
    }
    let token = |pair: &Pair, iss: Value| pair.with_header(json!({"kid": "same"}), &claims(json!({"iss": iss})));
    assert_eq!(&*gate.verify(&token(&RSA, json!(ISSUER)), NOW).unwrap().issuer, ISSUER);
    assert_eq!(&*gate.verify(&token(&OTHER_RSA, json!(other)), NOW).unwrap().issuer, other);
    for bad in [token(&RSA, json!(other)), token(&OTHER_RSA, json!(ISSUER))] {
        assert_eq!(reason(&gate, &bad), Reason::SignatureInvalid);
    }
    for iss in [json!([ISSUER, other]), json!([ISSUER])] {
        assert_eq!(reason(&gate, &token(&RSA, iss)), Reason::ClaimRejected);
    }
}

#[test]
fn j15_look_alike_issuers_are_unknown() {
    let gate = everything();
    for iss in [
        "https://login.example.com",
        "https://login.example.com//",
        "https://LOGIN.example.com/",
        "HTTPS://login.example.com/",
        "https://login.example.com/ ",
        "https://login.example.com./",
        "https://login.example.com:443/",
        "http://login.example.com/",
        "https://login.exаmple.com/",
        "https://login.example.com/\0",
        "https://login.example.com/%2F",
    ] {
        let refused = refusal(&gate, &RSA.token(&claims(json!({"iss": iss}))));
        assert_eq!((refused.reason, refused.need_key), (Reason::IssuerUnknown, None), "{iss}");
    }
}

#[test]
fn j14_j26_what_no_key_could_change_is_refused_before_any_key_is_asked_for() {
    let (empty, _) = verifier(&[(issuer(&["RS256"]), Material::Remote)]);
    for gate in [empty, fetched(issuer(&["RS256"]), &[RSA.jwk()])] {
        for (token, expected) in [
            (OTHER_RSA.token(&claims(json!({"iss": "https://evil.example.com/"}))), Reason::IssuerUnknown),
            (P256.token(&claims(json!({}))), Reason::AlgorithmNotAllowed),
            (
                RSA.raw("RS512", r#"{"alg":"RS512","kid":"new"}"#, &claims(json!({})).to_string()),
                Reason::AlgorithmNotAllowed,
            ),
        ] {
            let refused = refusal(&gate, &token);
            assert_eq!((refused.reason, refused.need_key), (expected, None));
        }
    }
}

#[test]
fn j14_rules_judge_the_issuer_again_after_the_signature() {
    let rules = IssuerRules::build(&issuer(&[]), &Material::Remote).unwrap().rules;
    let header = Header { alg: Algorithm::Rs256, kid: None, typ: None };
    let judged = |iss: Value| rules.judge(&header, claims(json!({"iss": iss})).as_object().unwrap(), NOW);
    assert!(judged(json!(ISSUER)).is_ok());
    for (iss, expected) in [
        (json!("https://login.example.com"), Reason::IssuerUnknown),
        (json!([ISSUER]), Reason::ClaimRejected),
        (json!(null), Reason::ClaimRejected),
    ] {
        assert_eq!(judged(iss.clone()).unwrap_err().reason, expected, "{iss}");
    }
}

#[test]
fn a_secret_issuer_checks_iss_and_aud_only_where_named() {
    let token = |change: Value| hmac_token("HS256", SECRET.as_bytes(), json!({}), &claims(change));
    let (open, _) = verifier(&[(secret_issuer(&[]), secret(SECRET))]);
    for change in [json!({}), json!({"iss": null, "aud": null}), json!({"iss": 7}), json!({"iss": "x"})] {
        assert_eq!(&*open.verify(&token(change), NOW).unwrap().issuer, "");
    }
    assert_eq!(reason(&open, &token(json!({"exp": null}))), Reason::ClaimRejected, "exp is always required");

    let (strict, _) = verifier(&[(issuer(&["HS256"]), secret(SECRET))]);
    assert_eq!(&*strict.verify(&token(json!({})), NOW).unwrap().issuer, ISSUER);
    for (change, expected) in [
        (json!({"iss": "x"}), Reason::IssuerUnknown),
        (json!({"iss": null}), Reason::ClaimRejected),
        (json!({"iss": [ISSUER]}), Reason::ClaimRejected),
        (json!({"aud": "x"}), Reason::AudienceMismatch),
    ] {
        assert_eq!(reason(&strict, &token(change.clone())), expected, "{change}");
    }
}

#[test]
fn of_several_issuers_the_one_that_came_farthest_tells_why() {
    let other = "other-other-other-other-other-other";
    let named = Issuer { audience: vec!["api".into()], ..secret_issuer(&[]) };
    for sections in [
        [(named.clone(), secret(SECRET)), (secret_issuer(&[]), secret(other))],
        [(secret_issuer(&[]), secret(other)), (named, secret(SECRET))],
    ] {
        let (gate, _) = verifier(&sections);
        let token = |key: &str| hmac_token("HS256", key.as_bytes(), json!({}), &claims(json!({})));
        assert_eq!(reason(&gate, &token(SECRET)), Reason::AudienceMismatch);
        assert!(gate.verify(&token(other), NOW).is_ok());
        assert_eq!(reason(&gate, &token("x")), Reason::SignatureInvalid);
    }
    // One issuer in two sections, one of them without keys yet: they may still come.
    let (gate, store) = verifier(&[(issuer(&[]), Material::Remote), (issuer(&[]), Material::Remote)]);
    store.replace(0, KeySet::from_jwks(&jwks(&[RSA.jwk()]), &[Algorithm::Rs256]).unwrap().0, NOW);
    let forged = OTHER_RSA.with_header(json!({"kid": "rsa-1"}), &claims(json!({})));
    let refused = refusal(&gate, &forged);
    assert_eq!(refused.reason, Reason::SignatureInvalid);
    assert_eq!(refused.need_key, Some(NeedKey { issuer: 1, kid: None }));
    let expired = RSA.token(&claims(json!({"exp": 1})));
    assert_eq!(refusal(&gate, &expired).need_key, None, "the signature is good, keys would change nothing");
}

#[test]
fn no_issuer_at_all_lets_nobody_in() {
    let (gate, _) = verifier(&[]);
    for pair in pairs() {
        assert_eq!(reason(&gate, &pair.token(&claims(json!({})))), Reason::AlgorithmNotAllowed);
    }
}

#[test]
fn sections_that_cannot_work_are_refused_with_all_their_problems() {
    let pem = || Material::Pem(RSA.public_pem.clone().into());
    let problems = |section: &Issuer, material: &Material| {
        let problems = IssuerRules::build(section, material).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
    };
    let bad = Issuer {
        issuer: None,
        algorithms: vec!["RS257".into()],
        leeway: Duration::from_secs(301),
        subject: String::new(),
        audience: vec![String::new()],
        typ: vec!["Logout+JWT".into()],
        ..Issuer::default()
    };
    assert_eq!(problems(&bad, &Material::Remote), ["issuer", "algorithms", "leeway", "subject", "audience", "typ"]);
    for (names, material, expected) in [
        (&["HS256"][..], Material::Remote, &["algorithms"][..]),
        (&["RS256", "HS256"], Material::Remote, &["algorithms"]),
        (&["RS256"], secret(SECRET), &["algorithms"]),
        (&["none"], secret(SECRET), &["algorithms"]),
        (&["ES256"], pem(), &["key_file"]),
        (&["RS256"], Material::Jwks(b"{}".to_vec()), &["jwks_file"]),
        (&["HS512"], secret("0123456789abcdef0123456789abcdef"), &["secret_file"]),
        (&["HS256"], secret(SECRET), &[]),
        (&["Ed25519", "EdDSA", "PS512"], Material::Remote, &[]),
        (&[], pem(), &[]),
    ] {
        assert_eq!(problems(&issuer(names), &material), expected, "{names:?}");
    }
    assert_eq!(problems(&Issuer { issuer: Some(String::new()), ..issuer(&[]) }, &Material::Remote), ["issuer"]);
    let section = Issuer { secret_env: Some("JWT_SECRET".into()), ..secret_issuer(&[]) };
    assert_eq!(problems(&section, &secret("short")), ["secret_env"]);
}
