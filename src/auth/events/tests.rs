use super::*;
use crate::auth::keys::{KeySet, KeyStore};
use crate::auth::rules::Material;
use crate::auth::testing::{ISSUER, NOW, OTHER_RSA, RSA, claims, issuer, jwks, with};
use serde_json::json;

const DAY: u64 = 86_400;
const SIGNALS: &str = "https://signals.example.com/";
const OTHER: &str = "https://other.example.com/";

fn gate_with(change: impl FnOnce(&mut Section)) -> Verifier {
    let mut section = Section {
        issuer: SIGNALS.into(),
        audience: vec!["gate".into()],
        algorithms: vec!["RS256".into()],
        speaks_for: vec![ISSUER.into()],
        ..Section::default()
    };
    change(&mut section);
    let other = Issuer { issuer: Some(OTHER.into()), ..issuer(&["RS256"]) };
    let store = KeyStore::new(3);
    let mut rules = Vec::new();
    for (index, section) in [issuer(&["RS256"]), other, keys_of(&section)].iter().enumerate() {
        let key = if index == 2 { OTHER_RSA.jwk() } else { RSA.jwk() };
        rules.push(IssuerRules::build(section, &Material::Remote).unwrap().rules);
        store.replace(index, KeySet::from_jwks(&jwks(&[key]), rules[index].algorithms()).unwrap().0, NOW);
    }
    let token = (!section.token_env.is_empty()).then(|| "the transmitter's".into());
    let transmitter = Transmitter::new(&section, rules.pop().unwrap(), token);
    Verifier::new(rules, store).hearing(vec![transmitter])
}

fn gate() -> Verifier {
    gate_with(|_| {})
}

fn alice() -> Value {
    json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"})
}

fn said(changes: Value) -> Value {
    let base = json!({"iss": SIGNALS, "aud": "gate", "iat": NOW - 2, "jti": "e1", "sub_id": alice()});
    with(with(base, json!({"events": { SESSION_REVOKED: {"event_timestamp": NOW - 10} }})), changes)
}

fn token(changes: Value) -> String {
    OTHER_RSA.with_header(json!({"typ": "secevent+jwt"}), &said(changes))
}

fn taken(changes: Value) -> Vec<(Kind, String, u64)> {
    let news = gate().event(&token(changes.clone()), None, DAY, NOW).unwrap_or_else(|e| panic!("{changes}: {e:?}"));
    let all = news.revocations.into_iter();
    all.map(|r| {
        assert_eq!((&*r.issuer, r.reason, r.until), (ISSUER, Reason::Revoked, NOW - 2 + DAY + 300));
        (r.kind, r.value.to_string(), r.not_before)
    })
    .collect()
}

fn refused(token: &str) -> Reason {
    match gate().event(token, None, DAY, NOW) {
        Err(refusal) => refusal.reason,
        Ok(news) => panic!("taken: {news:?}"),
    }
}

#[test]
fn a_revoked_session_and_a_changed_credential_withdraw_what_the_subject_was_given_until_then() {
    let sub = |at| vec![(Kind::Sub, "alice".to_owned(), at)];
    let opaque = |id: &str| json!({"format": "opaque", "id": id});
    let complex = |session: Value| json!({"format": "complex", "user": alice(), "session": session});
    let changed = |kind: &str| json!({ CREDENTIAL_CHANGE: {"change_type": kind, "credential_type": "password"} });
    let drafted = json!({ SESSION_REVOKED: {"subject": alice(), "event_timestamp": NOW - 10} });
    for (changes, expected) in [
        (json!({}), sub(NOW - 10)),
        (json!({"events": { SESSION_REVOKED: {} }}), sub(NOW - 2)),
        // A clock that runs ahead, or milliseconds.
        (json!({"events": { SESSION_REVOKED: {"event_timestamp": (NOW - 10) * 1000} }}), sub(NOW - 2)),
        (json!({"sub_id": null, "events": drafted}), sub(NOW - 10)),
        (json!({"sub_id": opaque("alice")}), sub(NOW - 10)),
        (json!({"events": changed("update")}), sub(NOW - 2)),
        (json!({"events": changed("revoke")}), sub(NOW - 2)),
        (json!({"events": changed("create")}), vec![]),
        (json!({"sub_id": complex(opaque("s1"))}), {
            vec![(Kind::Sid, "s1".into(), ALL), (Kind::SubWithoutSid, "alice".into(), NOW - 10)]
        }),
        (json!({"sub_id": {"format": "complex", "session": opaque("s1")}}), vec![(Kind::Sid, "s1".into(), ALL)]),
        (json!({"sub_id": {"format": "complex", "user": alice(), "device": opaque("d1")}}), sub(NOW - 10)),
        (json!({"sub_id": {"format": "jwt_id", "iss": ISSUER, "jti": "t1"}}), vec![(Kind::Token, "t1".into(), ALL)]),
        // What means nothing here.
        (json!({"sub_id": {"format": "email", "email": "alice@example.com"}}), vec![]),
        (json!({"sub_id": {"format": "complex", "tenant": opaque("t")}}), vec![]),
        (
            json!({"events": {"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": "x"}}}),
            vec![],
        ),
        (json!({"events": {}, "sub_id": null}), vec![]),
    ] {
        assert_eq!(taken(changes.clone()), expected, "{changes}");
    }
}

#[test]
fn l01_what_is_no_security_event_is_refused() {
    for (what, token) in [
        ("an access token", OTHER_RSA.token(&claims(json!({"iss": SIGNALS, "aud": "gate", "jti": "t"})))),
        ("a logout token", OTHER_RSA.with_header(json!({"typ": "logout+jwt"}), &said(json!({})))),
        ("one without a type", OTHER_RSA.with_header(json!({"typ": null}), &said(json!({})))),
        ("one without events", token(json!({"events": null}))),
        ("events in a list", token(json!({"events": [SESSION_REVOKED]}))),
        ("an event that is none", token(json!({"events": { SESSION_REVOKED: true }}))),
        ("one about nobody", token(json!({"sub_id": null}))),
        ("one about a list", token(json!({"sub_id": [alice()]}))),
        ("one without a format", token(json!({"sub_id": {"iss": ISSUER, "sub": "alice"}}))),
        ("one without a sub", token(json!({"sub_id": {"format": "iss_sub", "iss": ISSUER}}))),
        ("one of an empty sub", token(json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": ""}}))),
        ("a session that is none", token(json!({"sub_id": {"format": "complex", "user": alice(), "session": "s1"}}))),
        ("one without a name", token(json!({"jti": null}))),
        ("one of no time", token(json!({"iat": null}))),
    ] {
        assert_eq!(refused(&token), Reason::ClaimRejected, "{what}");
    }
    assert_eq!(refused(&token(json!({"iat": NOW - DAY - 5}))), Reason::TokenExpired);
    assert_eq!(refused(&token(json!({"exp": NOW - 5}))), Reason::TokenExpired);
    assert_eq!(refused(&token(json!({"iat": NOW + 6}))), Reason::TokenNotYetValid);
    assert_eq!(refused(&token(json!({"aud": "somebody"}))), Reason::AudienceMismatch);
    assert_eq!(refused(&token(json!({ "iss": OTHER }))), Reason::IssuerUnknown);
    let header = json!({"alg": "RS256", "kid": "rsa-2", "typ": "secevent+jwt"}).to_string();
    assert_eq!(refused(&RSA.raw("RS256", &header, &said(json!({})).to_string())), Reason::SignatureInvalid);
}

#[test]
fn l01_a_transmitter_is_no_issuer() {
    let token = OTHER_RSA.token(&claims(json!({ "iss": SIGNALS })));
    assert_eq!(gate().verify(&token, NOW).unwrap_err().reason, Reason::IssuerUnknown);
    let token = OTHER_RSA.token(&claims(json!({})));
    assert_eq!(gate().verify(&token, NOW).unwrap_err().reason, Reason::KeyUnknown);
}

#[test]
fn l04_a_transmitter_speaks_of_the_users_it_may_speak_of() {
    let of = |issuer: &str| json!({"sub_id": {"format": "iss_sub", "iss": issuer, "sub": "alice"}});
    for issuer in [OTHER, SIGNALS, "https://login.example.com", ""] {
        assert_eq!(refused(&token(of(issuer))), Reason::ClaimRejected, "{issuer}");
    }
    let opaque = json!({"sub_id": {"format": "opaque", "id": "alice"}});
    let both = gate_with(|section| section.speaks_for.push(OTHER.into()));
    assert!(both.event(&token(of(OTHER)), None, DAY, NOW).is_ok());
    assert!(both.event(&token(opaque), None, DAY, NOW).is_err(), "nobody can tell whose");
}

#[test]
fn a_transmitter_that_has_a_token_has_to_show_it() {
    let gate = gate_with(|section| section.token_env = "TOKEN".into());
    for bearer in [None, Some(""), Some("wrong"), Some("the transmitter"), Some("the transmitter's ")] {
        let refusal = gate.event(&token(json!({})), bearer, DAY, NOW).unwrap_err();
        assert_eq!(refusal.reason, Reason::CredentialMissing, "{bearer:?}");
    }
    assert!(gate.event(&token(json!({})), Some("the transmitter's"), DAY, NOW).is_ok());
}
