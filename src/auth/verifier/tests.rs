use super::*;
use crate::auth::jose::{Algorithm, Header};
use crate::auth::keys::KeySet;
use crate::auth::rules::Material;
use crate::auth::testing::{
    ED, ISSUER, NOW, OTHER_RSA, P256, P384, Pair, RSA, SECRET, b64, claims, everything, fetched, hmac_token, issuer,
    jwks, secret, secret_issuer, verifier, with,
};
use crate::config::model::Issuer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::time::{Duration, Instant};

fn refusal(verifier: &Verifier, token: &str) -> Refusal {
    let refusal = verifier.verify(token, NOW).expect_err(token);
    assert_clean(&refusal, token);
    refusal
}

fn reason(verifier: &Verifier, token: &str) -> Reason {
    refusal(verifier, token).reason
}

/// No detail holds a part of the token or the subject.
fn assert_clean(refusal: &Refusal, token: &str) {
    for part in token.split('.').filter(|part| part.len() >= 12) {
        assert!(!refusal.detail.contains(part), "{}", refusal.detail);
    }
    assert!(!refusal.detail.contains("alice"), "{}", refusal.detail);
    assert!(!refusal.detail.chars().any(|c| c.is_control()), "{}", refusal.detail);
}

fn pairs() -> [&'static Pair; 4] {
    [&RSA, &P256, &P384, &ED]
}

#[test]
fn a_good_token_becomes_an_identity() {
    let more = json!({"jti": "j-1", "sid": "s-1", "email": "a@example.com", "nbf": NOW});
    let identity = everything().verify(&RSA.token(&claims(more)), NOW).unwrap();
    assert_eq!(&*identity.issuer, ISSUER);
    assert_eq!(&*identity.subject, "alice");
    assert_eq!((identity.expires_at, identity.ends_at), (NOW + 600, NOW + 605));
    assert_eq!((identity.jti.as_deref(), identity.session.as_deref()), (Some("j-1"), Some("s-1")));
    assert_eq!(identity.issued_at, Some(NOW - 60));
    assert_eq!(identity.claims.get("email"), Some(&json!("a@example.com")));
}

#[test]
fn an_identity_keeps_what_the_mapping_reads_and_says_the_same_with_it() {
    let mapping = HeaderMapping::compile(
        [("x-a", "email"), ("x-b", "user.id"), ("x-c", "https://a.example/roles"), ("x-d", "$claims")],
        &["groups", "deep.er"],
    )
    .unwrap();
    let token = RSA.token(&claims(json!({
        "email": "a@example.com", "user": {"id": 7}, "https://a.example/roles": ["x"], "groups": ["y"],
        "deep": {"er": 1}, "emails": "no", "use": "no", "https://a": {"example/roles": 1}, "picture": "x".repeat(2000),
    })));
    let all = everything().verify(&token, NOW).unwrap();
    let kept = everything().keeping(&mapping).verify(&token, NOW).unwrap();
    assert_eq!(mapping.headers(&kept, "s"), mapping.headers(&all, "s"));
    assert_eq!(mapping.claims(&kept), mapping.claims(&all));
    let names: Vec<_> = kept.claims.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["deep", "email", "groups", "https://a", "https://a.example/roles", "user"]);
}

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_others() {
    for (pair, alg) in [
        (&*RSA, "RS256"),
        (&RSA, "RS384"),
        (&RSA, "RS512"),
        (&RSA, "PS256"),
        (&RSA, "PS384"),
        (&RSA, "PS512"),
        (&P256, "ES256"),
        (&P384, "ES384"),
        (&ED, "EdDSA"),
        (&ED, "Ed25519"),
    ] {
        let key = with(pair.jwk(), json!({"alg": alg}));
        let gate = fetched(issuer(&[alg]), &[key]);
        let header = json!({"alg": alg, "kid": pair.kid}).to_string();
        let token = pair.raw(alg, &header, &claims(json!({})).to_string());
        assert_eq!(&*gate.verify(&token, NOW).unwrap().subject, "alice", "{alg}");

        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[10] ^= 1;
        assert_eq!(reason(&gate, &format!("{message}.{}", b64(&bytes))), Reason::SignatureInvalid, "{alg}");
        assert_eq!(reason(&gate, &format!("{message}.")), Reason::SignatureInvalid, "{alg}: empty");
        let other = pair.raw(alg, &header, &claims(json!({"sub": "bob"})).to_string());
        let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
        assert_eq!(reason(&gate, &swapped), Reason::SignatureInvalid, "{alg}: another payload");
    }
    for alg in ["HS256", "HS384", "HS512"] {
        let (gate, _) = verifier(&[(secret_issuer(&[alg]), secret(SECRET))]);
        let token = hmac_token(alg, SECRET.as_bytes(), json!({}), &claims(json!({})));
        assert_eq!(&*gate.verify(&token, NOW).unwrap().subject, "alice", "{alg}");
        let forged = hmac_token(alg, b"0123456789abcdef", json!({}), &claims(json!({})));
        assert_eq!(reason(&gate, &forged), Reason::SignatureInvalid, "{alg}");
        let other = if alg == "HS256" { "HS512" } else { "HS256" };
        let token = hmac_token(other, SECRET.as_bytes(), json!({}), &claims(json!({})));
        assert_eq!(reason(&gate, &token), Reason::AlgorithmNotAllowed, "{alg}");
    }
}

#[test]
fn j01_unsigned_tokens_are_refused() {
    let gate = everything();
    for alg in ["none", "None", "NONE", "nOnE", "", "RS256 ", "rs256", "ES512", "HS256k"] {
        let header = json!({"alg": alg, "kid": "rsa-1"}).to_string();
        let unsigned = format!("{}.{}.", b64(&header), b64(claims(json!({})).to_string()));
        assert_eq!(reason(&gate, &unsigned), Reason::AlgorithmNotAllowed, "{alg}");
        let signed = RSA.raw("RS256", &header, &claims(json!({})).to_string());
        assert_eq!(reason(&gate, &signed), Reason::AlgorithmNotAllowed, "{alg}");
    }
}

#[test]
fn j02_a_public_key_never_verifies_an_hmac() {
    let secrets = [
        RSA.public_pem.clone().into_bytes(),
        RSA.public_pem.trim().as_bytes().to_vec(),
        RSA.jwk().to_string().into_bytes(),
        RSA.bare().to_string().into_bytes(),
        RSA.bare()["n"].as_str().unwrap().as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(RSA.bare()["n"].as_str().unwrap()).unwrap(),
        Vec::new(),
    ];
    let with_secret = verifier(&[
        (issuer(&["RS256"]), Material::Pem(RSA.public_pem.clone().into())),
        (secret_issuer(&["HS256"]), secret(SECRET)),
    ]);
    for key in secrets {
        for header in [json!({"kid": "rsa-1"}), json!({})] {
            let token = hmac_token("HS256", &key, header, &claims(json!({})));
            assert_eq!(reason(&everything(), &token), Reason::AlgorithmNotAllowed);
            assert_eq!(reason(&with_secret.0, &token), Reason::SignatureInvalid);
        }
    }
}

#[test]
fn j02_a_shared_secret_does_not_speak_for_an_issuer_with_keys() {
    let (gate, _) = verifier(&[
        (issuer(&["RS256"]), Material::Pem(RSA.public_pem.clone().into())),
        (secret_issuer(&["HS256"]), secret(SECRET)),
    ]);
    let by_secret = hmac_token("HS256", SECRET.as_bytes(), json!({}), &claims(json!({})));
    let by_key = RSA.token(&claims(json!({})));
    let (by_secret, by_key) = (gate.verify(&by_secret, NOW).unwrap(), gate.verify(&by_key, NOW).unwrap());
    assert_eq!((&*by_secret.issuer, &*by_key.issuer), ("", ISSUER));
    assert!(!by_secret.same_user(&by_key), "whatever iss the secret's owner wrote into the token");
}

#[test]
fn j03_the_token_does_not_choose_the_algorithm_of_a_key() {
    let ps256 = |header: Value| RSA.raw("PS256", &header.to_string(), &claims(json!({})).to_string());
    let token = ps256(json!({"alg": "PS256", "kid": "rsa-1"}));
    let no_alg = with(RSA.bare(), json!({"kid": "rsa-1"}));
    for (key, names, expected) in [
        (no_alg.clone(), &["RS256"][..], Reason::AlgorithmNotAllowed),
        (no_alg.clone(), &["RS256", "PS256"], Reason::AlgorithmNotAllowed),
        (RSA.jwk(), &["RS256", "PS256"], Reason::AlgorithmNotAllowed),
    ] {
        assert_eq!(reason(&fetched(issuer(names), &[key]), &token), expected, "{names:?}");
    }
    assert!(fetched(issuer(&["PS256", "RS256"]), &[no_alg]).verify(&token, NOW).is_ok());
    // The header lies about what was done: a PS256 signature called RS256.
    let gate = fetched(issuer(&["RS256"]), &[RSA.jwk()]);
    assert_eq!(reason(&gate, &ps256(json!({"alg": "RS256", "kid": "rsa-1"}))), Reason::SignatureInvalid);
}

#[test]
fn j04_an_encryption_key_verifies_nothing() {
    for more in [json!({"use": "enc"}), json!({"use": null, "key_ops": ["encrypt"]}), json!({"alg": "RSA-OAEP"})] {
        let gate = fetched(issuer(&[]), &[with(RSA.jwk(), more.clone()), P256.jwk()]);
        assert_eq!(reason(&gate, &RSA.token(&claims(json!({})))), Reason::KeyUnknown, "{more}");
    }
}

#[test]
fn j05_a_kid_is_only_compared() {
    let gate = everything();
    for kid in [
        "../../etc/passwd",
        "' OR 1=1 --",
        "\0",
        "__proto__",
        "constructor",
        "http://127.0.0.1:1/",
        "RSA-1",
        "rsa-1 ",
        "",
        "\r\nX: y",
        "\u{1b}[31m",
    ] {
        let refused = refusal(&gate, &RSA.with_header(json!({"kid": kid}), &claims(json!({}))));
        assert_eq!(refused.reason, Reason::KeyUnknown, "{kid}");
        assert_eq!(refused.need_key, Some(NeedKey { issuer: 0, kid: Some(kid.into()) }));
    }
    let long = RSA.with_header(json!({"kid": "k".repeat(300)}), &claims(json!({})));
    assert_eq!(reason(&gate, &long), Reason::CredentialMalformed);
}

#[test]
fn j06_a_key_inside_of_the_token_is_ignored() {
    let gate = fetched(issuer(&[]), &[OTHER_RSA.jwk()]);
    for header in [
        json!({"jwk": RSA.jwk()}),
        json!({"jwk": RSA.jwk(), "kid": OTHER_RSA.kid}),
        json!({"jku": "http://127.0.0.1:1/jwks.json", "kid": OTHER_RSA.kid}),
        json!({"x5u": "http://127.0.0.1:1/x.pem", "x5c": ["AA"], "kid": OTHER_RSA.kid}),
    ] {
        let token = RSA.with_header(header.clone(), &claims(json!({})));
        assert!(matches!(reason(&gate, &token), Reason::KeyUnknown | Reason::SignatureInvalid), "{header}");
    }
    // Beside a good signature they change nothing.
    let token = OTHER_RSA.with_header(json!({"jwk": RSA.jwk(), "jku": "http://127.0.0.1:1/"}), &claims(json!({})));
    assert!(gate.verify(&token, NOW).is_ok());
}

#[test]
fn j07_j08_well_signed_extensions_are_refused() {
    let gate = everything();
    for header in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"crit": "x"}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"b64": true}),
        json!({"zip": "DEF"}),
        json!({"enc": "A128GCM"}),
        json!({"cty": "JWT"}),
    ] {
        let token = RSA.with_header(header.clone(), &claims(json!({})));
        assert_eq!(reason(&gate, &token), Reason::CredentialMalformed, "{header}");
    }
}

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
fn j12_far_and_odd_ends_neither_panic_nor_overflow() {
    let gate = everything();
    for exp in ["18446744073709551615", "18446744073709551616", "1e18", "1.8e19", "1e300", "9007199254740993"] {
        let payload = claims(json!({"exp": "EXP"})).to_string().replace("\"EXP\"", exp);
        let token = RSA.raw("RS256", &json!({"alg": "RS256", "kid": "rsa-1"}).to_string(), &payload);
        let identity = gate.verify(&token, NOW).unwrap();
        assert!(identity.ends_at >= identity.expires_at && identity.expires_at > NOW, "{exp}");
        if identity.ends_at == u64::MAX {
            assert!(gate.verify(&token, u64::MAX - 1).is_ok(), "{exp}");
        }
        assert_eq!(gate.verify(&token, u64::MAX).unwrap_err().reason, Reason::TokenExpired, "{exp}");
    }
    let payload = claims(json!({"exp": "EXP"})).to_string().replace("\"EXP\"", "1e999");
    let token = RSA.raw("RS256", &json!({"alg": "RS256", "kid": "rsa-1"}).to_string(), &payload);
    assert_eq!(reason(&gate, &token), Reason::CredentialMalformed);
    let ancient = RSA.token(&claims(json!({"exp": 0})));
    assert_eq!(gate.verify(&ancient, 0).unwrap_err().reason, Reason::TokenNotYetValid, "iat lies ahead of 1970");
}

#[test]
fn j12_the_end_is_the_first_second_that_is_refused() {
    for (leeway, max_age, change) in [
        (5, None, json!({})),
        (0, None, json!({})),
        (300, None, json!({})),
        (5, None, json!({"exp": NOW as f64 + 600.75})),
        (5, Some(120), json!({})),
        (0, Some(120), json!({"iat": NOW as f64 - 0.5})),
        (5, Some(100_000), json!({})),
        (0, None, json!({"exp": 1, "iat": 0})),
    ] {
        let section = Issuer {
            leeway: Duration::from_secs(leeway),
            max_age: max_age.map(Duration::from_secs),
            ..issuer(&["RS256"])
        };
        let gate = fetched(section, &[RSA.jwk()]);
        let token = RSA.token(&claims(change.clone()));
        // From the first second at which it is good on.
        let from = change["exp"].as_u64().map_or(NOW, |exp| exp.saturating_sub(1));
        let ends_at = gate.verify(&token, from).unwrap().ends_at;
        assert!(gate.verify(&token, ends_at - 1).is_ok(), "{leeway} {max_age:?} {change}");
        for late in [ends_at, ends_at + 1, u64::MAX] {
            let refused = gate.verify(&token, late).unwrap_err();
            assert_eq!(refused.reason, Reason::TokenExpired, "{leeway} {max_age:?} {change} at {late}");
            assert_eq!(refused.need_key, None);
        }
    }
}

#[test]
fn j13_tokens_of_the_future_and_of_old_age_are_refused() {
    use Reason::{ClaimRejected, TokenExpired, TokenNotYetValid};
    let section = Issuer { max_age: Some(Duration::from_secs(3600)), ..issuer(&["RS256"]) };
    let gate = fetched(section, &[RSA.jwk()]);
    for (change, expected) in [
        (json!({"nbf": NOW + 500}), Some(TokenNotYetValid)),
        (json!({"nbf": NOW + 6}), Some(TokenNotYetValid)),
        (json!({"nbf": NOW + 5}), None),
        (json!({"nbf": NOW as f64 + 5.1}), Some(TokenNotYetValid)),
        (json!({"nbf": 0}), None),
        (json!({"nbf": u64::MAX}), Some(TokenNotYetValid)),
        (json!({"iat": NOW + 6}), Some(TokenNotYetValid)),
        (json!({"iat": NOW + 5}), None),
        (json!({"iat": u64::MAX}), Some(TokenNotYetValid)),
        (json!({"iat": NOW - 3604}), None),
        (json!({"iat": NOW - 3605}), Some(TokenExpired)),
        (json!({"iat": 0}), Some(TokenExpired)),
        (json!({"iat": null}), Some(ClaimRejected)),
        (json!({"exp": NOW - 4}), None),
        (json!({"exp": NOW - 5}), Some(TokenExpired)),
    ] {
        let outcome = gate.verify(&RSA.token(&claims(change.clone())), NOW).err().map(|refused| refused.reason);
        assert_eq!(outcome, expected, "{change}");
    }
    assert!(everything().verify(&RSA.token(&claims(json!({"iat": null}))), NOW).is_ok(), "iat is optional");
}

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
fn j17_tokens_of_other_kinds_are_refused() {
    let gate = everything();
    let event = "http://schemas.openid.net/event/backchannel-logout";
    for (header, change) in [
        (json!({"typ": "logout+jwt"}), json!({})),
        (json!({"typ": "Logout+JWT"}), json!({})),
        (json!({"typ": "application/logout+jwt"}), json!({})),
        (json!({"typ": "secevent+jwt"}), json!({})),
        (json!({"typ": "APPLICATION/secevent+jwt"}), json!({})),
        (json!({}), json!({"events": {event: {}}})),
        (json!({"typ": null}), json!({"events": {event: {}}, "sid": "s"})),
        (json!({"typ": "at+jwt"}), json!({"events": []})),
    ] {
        let token = RSA.with_header(header.clone(), &claims(change.clone()));
        assert_eq!(reason(&gate, &token), Reason::ClaimRejected, "{header} {change}");
    }
    for (allowed, typ, good) in [
        (&["at+jwt"][..], json!("at+jwt"), true),
        (&["at+jwt"], json!("application/at+JWT"), true),
        (&["application/at+jwt"], json!("AT+JWT"), true),
        (&["at+jwt"], json!("JWT"), false),
        (&["at+jwt"], json!(null), false),
        (&["at+jwt"], json!("logout+jwt"), false),
        (&["at+jwt", "JWT"], json!("jwt"), true),
        (&[], json!(null), true),
        (&[], json!("anything"), true),
    ] {
        let section = Issuer { typ: allowed.iter().map(ToString::to_string).collect(), ..issuer(&[]) };
        let gate = fetched(section, &[RSA.jwk()]);
        let outcome = gate.verify(&RSA.with_header(json!({"typ": typ}), &claims(json!({}))), NOW);
        assert_eq!(outcome.is_ok(), good, "{allowed:?} {typ}");
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
fn j19_a_malleable_signature_makes_another_text_and_the_same_identity() {
    let n = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let n: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&n[at..at + 2], 16).unwrap()).collect();
    let gate = everything();
    let token = P256.token(&claims(json!({"jti": "j", "sid": "s"})));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i32::from(n[at]) - i32::from(bytes[32 + at]) - borrow;
        borrow = i32::from(digit < 0);
        bytes[32 + at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    let twin = format!("{message}.{}", b64(&bytes));
    assert_ne!(twin, token);
    assert_eq!(gate.verify(&twin, NOW).unwrap(), gate.verify(&token, NOW).unwrap());
}

#[test]
fn j25_keys_of_one_kid_are_all_tried() {
    let twins = [with(OTHER_RSA.jwk(), json!({"kid": "rsa-1"})), RSA.jwk(), with(P256.jwk(), json!({"kid": "rsa-1"}))];
    let gate = fetched(issuer(&[]), &twins);
    assert!(gate.verify(&RSA.token(&claims(json!({}))), NOW).is_ok());
    assert!(gate.verify(&OTHER_RSA.with_header(json!({"kid": "rsa-1"}), &claims(json!({}))), NOW).is_ok());
    assert!(gate.verify(&P256.with_header(json!({"kid": "rsa-1"}), &claims(json!({}))), NOW).is_ok());
    let no_kid = |pair: &Pair| pair.with_header(json!({"kid": null}), &claims(json!({})));
    assert!(gate.verify(&no_kid(&RSA), NOW).is_ok(), "few enough keys to try");

    let many: Vec<_> = (0..5).map(|at| with(OTHER_RSA.jwk(), json!({"kid": format!("k{at}")}))).collect();
    let crowd = fetched(issuer(&[]), &[many, vec![P256.jwk()]].concat());
    let refused = refusal(&crowd, &no_kid(&OTHER_RSA));
    assert_eq!((refused.reason, refused.need_key), (Reason::KeyUnknown, None), "another fetch would not help");
    assert!(crowd.verify(&no_kid(&P256), NOW).is_ok());
}

#[test]
fn j26_only_fetched_issuers_ask_for_keys() {
    let token = OTHER_RSA.token(&claims(json!({})));
    let need = |kid: Option<&str>| Some(NeedKey { issuer: 0, kid: kid.map(String::from) });
    let remote = fetched(issuer(&[]), &[RSA.jwk()]);
    assert_eq!(refusal(&remote, &token).need_key, need(Some("rsa-2")));
    // A bad signature under a known kid is no reason to fetch; where no kid decides, a key may have been replaced.
    let forged = OTHER_RSA.with_header(json!({"kid": "rsa-1"}), &claims(json!({})));
    let refused = refusal(&remote, &forged);
    assert_eq!((refused.reason, refused.need_key), (Reason::SignatureInvalid, None));
    let nameless = OTHER_RSA.with_header(json!({"kid": null}), &claims(json!({})));
    let refused = refusal(&remote, &nameless);
    assert_eq!((refused.reason, refused.need_key), (Reason::SignatureInvalid, need(None)));

    for material in [Material::Jwks(jwks(&[RSA.jwk()])), Material::Pem(RSA.public_pem.clone().into())] {
        let (gate, _) = verifier(&[(issuer(&[]), material)]);
        assert!(gate.verify(&RSA.token(&claims(json!({}))), NOW).is_ok());
        for bad in [&token, &forged, &nameless] {
            assert_eq!(refusal(&gate, bad).need_key, None);
        }
    }
}

#[test]
fn j27_a_new_set_counts_at_once() {
    let (gate, store) = verifier(&[(issuer(&[]), Material::Remote)]);
    let set = |pair: &Pair| KeySet::from_jwks(&jwks(&[pair.jwk()]), &[Algorithm::Rs256]).unwrap().0;
    let (old, new) = (RSA.token(&claims(json!({}))), OTHER_RSA.token(&claims(json!({}))));
    let unloaded = refusal(&gate, &old);
    assert_eq!(unloaded.reason, Reason::KeysUnavailable);
    assert_eq!(unloaded.need_key, Some(NeedKey { issuer: 0, kid: None }));
    store.replace(0, set(&RSA), NOW);
    assert!(gate.verify(&old, NOW).is_ok());
    assert_eq!(reason(&gate, &new), Reason::KeyUnknown);
    store.replace(0, set(&OTHER_RSA), NOW);
    assert!(gate.verify(&new, NOW).is_ok());
    assert_eq!(reason(&gate, &old), Reason::KeyUnknown);
}

#[test]
fn j28_stale_keys_serve_until_max_stale() {
    for max_stale in [0, 60] {
        let section = Issuer { max_stale: Duration::from_secs(max_stale), ..issuer(&[]) };
        let (gate, store) = verifier(&[(section, Material::Remote)]);
        let set = KeySet::from_jwks(&jwks(&[RSA.jwk()]), &[Algorithm::Rs256]).unwrap().0;
        store.replace(0, set, NOW - 1_000_000);
        let token = RSA.token(&claims(json!({})));
        assert!(gate.verify(&token, NOW).is_ok(), "old, but no fetch failed");
        store.fail(0, NOW);
        if max_stale > 0 {
            assert!(gate.verify(&token, NOW + max_stale - 1).is_ok());
        }
        let refused = gate.verify(&token, NOW + max_stale).unwrap_err();
        assert_eq!(refused.reason, Reason::KeysUnavailable, "503, not 401");
        assert_eq!(refused.need_key, Some(NeedKey { issuer: 0, kid: None }));
        store.confirm(0, NOW);
        assert!(gate.verify(&token, NOW + max_stale).is_ok());
    }
}

#[test]
fn j31_both_names_of_ed25519_verify_under_either_configuration() {
    for configured in ["EdDSA", "Ed25519"] {
        for published in [json!("EdDSA"), json!("Ed25519"), json!(null)] {
            let gate = fetched(issuer(&[configured]), &[with(ED.jwk(), json!({"alg": published}))]);
            for said in ["EdDSA", "Ed25519"] {
                let token = ED.with_header(json!({"alg": said}), &claims(json!({})));
                assert!(gate.verify(&token, NOW).is_ok(), "{configured} {published} {said}");
            }
        }
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
fn the_previous_secret_is_good_during_rotation() {
    let previous = "previous-previous-previous-previous";
    let both = Material::Secrets(vec![SECRET.into(), previous.into()]);
    let (gate, _) = verifier(&[(secret_issuer(&[]), both)]);
    for (key, good) in [(SECRET, true), (previous, true), ("another-another-another-another-another", false)] {
        for header in [json!({}), json!({"kid": "whatever"})] {
            let token = hmac_token("HS256", key.as_bytes(), header, &claims(json!({})));
            assert_eq!(gate.verify(&token, NOW).is_ok(), good);
        }
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
fn every_changed_character_of_a_token_is_noticed() {
    let (by_secret, _) = verifier(&[(secret_issuer(&[]), secret(SECRET))]);
    let secret_token = hmac_token("HS256", SECRET.as_bytes(), json!({}), &claims(json!({})));
    for (gate, token) in [(everything(), ED.token(&claims(json!({})))), (by_secret, secret_token)] {
        assert!(gate.verify(&token, NOW).is_ok());
        for at in 0..token.len() {
            for with in ["A", "B", "_", "."] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, with);
                assert!(changed == token || gate.verify(&changed, NOW).is_err(), "{with} at {at}");
            }
            assert!(gate.verify(&token[..at], NOW).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn no_issuer_at_all_lets_nobody_in() {
    let (gate, _) = verifier(&[]);
    for pair in pairs() {
        assert_eq!(reason(&gate, &pair.token(&claims(json!({})))), Reason::AlgorithmNotAllowed);
    }
}

#[test]
fn j34_no_refusal_says_what_the_token_says() {
    let marker = "alice-marker-0123456789";
    let long = format!("{marker}{}", "A".repeat(100));
    let gate = everything();
    for change in [
        json!({"exp": 1}),
        json!({"exp": marker}),
        json!({"cnf": marker}),
        json!({"sub": [marker]}),
        json!({"jti": [marker]}),
        json!({"events": marker}),
        json!({"nbf": NOW + 900, "email": marker}),
    ] {
        let refused = gate.verify(&RSA.token(&claims(change.clone())), NOW).unwrap_err();
        assert!(!refused.detail.contains("marker"), "{change}: {}", refused.detail);
    }
    // What helps an operator is shown, but never long enough for a token.
    for token in [
        RSA.token(&claims(json!({"iss": long}))),
        RSA.token(&claims(json!({"aud": long}))),
        RSA.with_header(json!({"kid": long}), &claims(json!({}))),
        RSA.with_header(json!({"alg": long}), &claims(json!({}))),
    ] {
        let detail = gate.verify(&token, NOW).unwrap_err().detail;
        assert!(detail.len() < 200 && !detail.contains(&"A".repeat(60)), "{detail}");
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

/// Run with `cargo test --release --lib auth::verifier::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_one_verification() {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    let time = |what: &str, once: &mut dyn FnMut()| {
        let rounds = 5_000;
        (0..rounds / 10).for_each(|_| once());
        let start = Instant::now();
        (0..rounds).for_each(|_| once());
        println!("{what:24} {:6.2} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    };
    let gate = everything();
    for pair in pairs() {
        let token = pair.token(&claims(json!({})));
        time(&format!("{} here", pair.alg), &mut || assert!(gate.verify(&token, NOW).is_ok()));
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(pair.jwk()).unwrap();
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        let mut validation = Validation::new(pair.alg.parse().unwrap());
        validation.validate_exp = false;
        validation.set_audience(&["chat"]);
        let mut library = || assert!(decode::<Value>(&token, &key, &validation).is_ok());
        time(&format!("{} jsonwebtoken", pair.alg), &mut library);
    }
    let (gate, _) = verifier(&[(secret_issuer(&[]), secret(SECRET))]);
    let token = hmac_token("HS256", SECRET.as_bytes(), json!({}), &claims(json!({})));
    time("HS256 here", &mut || assert!(gate.verify(&token, NOW).is_ok()));
}
