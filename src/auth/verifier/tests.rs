//! Every rule of the verifier, with tokens that are signed as an attacker or an odd issuer would.

mod algorithms;
mod claims;
mod header;
mod issuers;
mod keys;
mod times;

use super::*;
use crate::auth::jose::Algorithm;
use crate::auth::keys::KeySet;
use crate::auth::rules::Material;
use crate::auth::testing::{
    ED, ISSUER, NOW, OTHER_RSA, P256, P384, Pair, RSA, SECRET, b64, claims, everything, fetched, hmac_token, issuer,
    jwks, secret, secret_issuer, verifier, with,
};
use crate::config::model::issuers::Issuer;
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
