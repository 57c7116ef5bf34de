use super::*;
use crate::auth::identity::Identity;
use crate::auth::jose::MAX_TOKEN;
use crate::auth::revocation::Revocations;
use crate::auth::rules::Material;
use crate::auth::statement::Heard;
use crate::auth::testing::{
    ISSUER, NOW, OTHER_RSA, P256, RSA, SECRET, b64, claims, hmac_token, issuer, jwks, verifier, with,
};
use crate::config::model::issuers::Issuer;
use serde_json::json;

const OTHER: &str = "https://other.example.com/";
const DAY: u64 = 86_400;

fn section(name: &str, lenient: bool) -> Issuer {
    let logout = Section { audience: vec!["client-1".into(), "client-2".into()], lenient, ..Section::default() };
    Issuer { issuer: Some(name.into()), logout: Some(logout), ..issuer(&["RS256", "ES256"]) }
}

/// [`ISSUER`] strict, [`OTHER`] lenient, and one that may log nobody out.
fn gate() -> Verifier {
    let silent = Issuer { logout: None, ..section("https://silent.example.com/", false) };
    let keys = || Material::Jwks(jwks(&[RSA.jwk(), P256.jwk()]));
    let other = || Material::Jwks(jwks(&[OTHER_RSA.jwk()]));
    verifier(&[(section(ISSUER, false), keys()), (section(OTHER, true), other()), (silent, keys())]).0
}

fn said(changes: Value) -> Value {
    let events = json!({ EVENT: {} });
    let base =
        json!({"iss": ISSUER, "aud": "client-1", "iat": NOW - 2, "exp": NOW + 118, "jti": "j1", "events": events});
    with(with(base, json!({"sub": "alice", "sid": "s1"})), changes)
}

fn token(changes: Value) -> String {
    RSA.with_header(json!({"typ": "logout+jwt"}), &said(changes))
}

fn refused(token: &str) -> Reason {
    match gate().logout(token, DAY, NOW) {
        Err(refusal) => refusal.reason,
        Ok(logout) => panic!("taken: {logout:?}"),
    }
}

fn content(logout: &Logout) -> Vec<(Kind, String, u64)> {
    let all = logout.revocations();
    assert!(all.iter().all(|r| r.reason == Reason::LoggedOut && r.until == NOW - 2 + DAY + 300));
    all.into_iter().map(|r| (r.kind, format!("{} {}", r.issuer, r.value), r.not_before)).collect()
}

#[test]
fn a_good_logout_token_withdraws_the_login_or_all_of_the_user() {
    let of = |value: &str| format!("{ISSUER} {value}");
    let login = (Kind::Sid, of("s1"), ALL);
    for (changes, expected) in [
        (json!({}), vec![login.clone(), (Kind::SubWithoutSid, of("alice"), NOW - 2)]),
        (json!({"sub": null}), vec![login.clone()]),
        (json!({"sid": null}), vec![(Kind::Sub, of("alice"), NOW - 2)]),
        (json!({"sid": null, "sub": 7}), vec![(Kind::Sub, of("7"), NOW - 2)]),
        (json!({"aud": ["somebody", "client-2"], "extra": {"a": [1]}, "nbf": NOW}), {
            vec![login.clone(), (Kind::SubWithoutSid, of("alice"), NOW - 2)]
        }),
    ] {
        let logout = gate().logout(&token(changes.clone()), DAY, NOW).unwrap_or_else(|e| panic!("{changes}: {e:?}"));
        assert_eq!((content(&logout), logout.index), (expected, 0), "{changes}");
    }
}

#[test]
fn l01_what_is_no_logout_token_is_refused() {
    for (what, token) in [
        ("an access token", RSA.with_header(json!({"typ": "at+jwt"}), &claims(json!({})))),
        ("an ID token", RSA.token(&claims(json!({"aud": "client-1", "nonce": "n", "sid": "s1", "jti": "j"})))),
        ("a logout token by type only", RSA.with_header(json!({"typ": "logout+jwt"}), &said(json!({"events": null})))),
        ("one of another type", RSA.with_header(json!({"typ": "JWT"}), &said(json!({})))),
        ("a security event", RSA.with_header(json!({"typ": "secevent+jwt"}), &said(json!({})))),
        ("one without a type", RSA.with_header(json!({"typ": null}), &said(json!({})))),
        ("one with a nonce", token(json!({"nonce": "n"}))),
        ("one about nobody", token(json!({"sub": null, "sid": null}))),
        ("one about nobody in particular", token(json!({"sub": "", "sid": ""}))),
        ("one about something else", token(json!({"sub": ["alice"]}))),
        ("one about somebody very long", token(json!({"sub": "a".repeat(1025)}))),
    ] {
        assert_eq!(refused(&token), Reason::ClaimRejected, "{what}");
    }
    // A nonce that is null is one, too.
    let text = said(json!({})).to_string().replacen('{', r#"{"nonce":null,"#, 1);
    let header = json!({"alg": "RS256", "kid": "rsa-1", "typ": "logout+jwt"}).to_string();
    assert_eq!(refused(&RSA.raw("RS256", &header, &text)), Reason::ClaimRejected);
}

#[test]
fn l01_a_logout_token_is_no_credential() {
    let (verifier, _) = verifier(&[(issuer(&["RS256"]), Material::Jwks(jwks(&[RSA.jwk()])))]);
    for (header, changes) in [
        (json!({"typ": "logout+jwt"}), json!({"aud": "chat", "exp": NOW + 600})),
        (json!({"typ": "application/Logout+JWT"}), json!({"aud": "chat", "events": null})),
        (json!({"typ": "secevent+jwt"}), json!({"aud": "chat", "events": null})),
        (json!({}), json!({"aud": "chat"})),
        (json!({"typ": null}), json!({"aud": "chat", "events": {}})),
        (json!({"typ": "at+jwt"}), json!({"aud": "chat", "events": []})),
    ] {
        let token = RSA.with_header(header.clone(), &said(changes.clone()));
        assert_eq!(verifier.verify(&token, NOW).unwrap_err().reason, Reason::ClaimRejected, "{header} {changes}");
    }
}

#[test]
fn l02_a_statement_is_heard_once_while_it_is_good() {
    let (heard, gate) = (Heard::default(), gate());
    let logout = |changes| gate.logout(&token(changes), DAY, NOW).unwrap();
    let first = logout(json!({}));
    assert!(heard.first(first.index, &first.statement, NOW));
    for later in [0, 1, 122] {
        assert!(!heard.first(first.index, &logout(json!({"sub": "bob"})).statement, NOW + later), "{later}");
    }
    let other = logout(json!({"jti": "j2"}));
    assert!(heard.first(other.index, &other.statement, NOW));
    assert!(heard.first(1, &first.statement, NOW), "another issuer's j1 is another statement");
    // However many there are, they take no more memory.
    for n in 0..25_000 {
        let statement = Statement { jti: n.to_string().into(), ..first.statement.clone() };
        assert!(heard.first(0, &statement, NOW));
    }
}

#[test]
fn l03_an_old_logout_token_logs_nobody_out() {
    for (changes, reason) in [
        (json!({"iat": NOW - 3600, "exp": NOW + 600}), Reason::TokenExpired),
        (json!({"iat": NOW - 305, "exp": NOW + 600}), Reason::TokenExpired),
        (json!({"exp": NOW - 5}), Reason::TokenExpired),
        (json!({"exp": 0}), Reason::TokenExpired),
        (json!({"iat": NOW + 6}), Reason::TokenNotYetValid),
        (json!({"iat": NOW as f64 + 5.5}), Reason::TokenNotYetValid),
        (json!({"nbf": NOW + 6}), Reason::TokenNotYetValid),
        (json!({"exp": null}), Reason::ClaimRejected),
        (json!({"iat": null}), Reason::ClaimRejected),
        (json!({"iat": "now"}), Reason::ClaimRejected),
        (json!({"exp": -1}), Reason::ClaimRejected),
        (json!({"jti": null}), Reason::ClaimRejected),
        (json!({"jti": ""}), Reason::ClaimRejected),
        (json!({"jti": {}}), Reason::ClaimRejected),
    ] {
        assert_eq!(refused(&token(changes.clone())), reason, "{changes}");
    }
    for changes in [json!({"iat": NOW - 304, "exp": NOW + 600}), json!({"exp": NOW - 4}), json!({"iat": NOW + 5})] {
        assert!(gate().logout(&token(changes.clone()), DAY, NOW).is_ok(), "{changes}");
    }
    let endless = gate().logout(&token(json!({"exp": u64::MAX})), u64::MAX, NOW).unwrap();
    assert_eq!((endless.statement.stale_at, endless.until), (NOW + 303, u64::MAX));
}

#[test]
fn l03_an_older_provider_may_leave_out_exp_and_typ_where_that_is_configured() {
    for (header, changes, fine) in [
        (json!({"typ": "JWT"}), json!({"exp": null}), true),
        (json!({"typ": null}), json!({"exp": null}), true),
        (json!({"typ": "logout+jwt"}), json!({"exp": null}), true),
        (json!({"typ": "at+jwt"}), json!({}), false),
        (json!({"typ": "JWT"}), json!({"exp": null, "iat": NOW - 305}), false),
        (json!({"typ": "JWT"}), json!({"exp": NOW - 5}), false),
        (json!({"typ": "JWT"}), json!({"events": null}), false),
        (json!({"typ": "JWT"}), json!({"nonce": "n"}), false),
    ] {
        let said = with(said(json!({ "iss": OTHER })), changes.clone());
        let answer = gate().logout(&OTHER_RSA.with_header(header.clone(), &said), DAY, NOW);
        assert_eq!(answer.is_ok(), fine, "{header} {changes} {answer:?}");
    }
}

#[test]
fn l04_an_issuer_logs_out_its_own_users_only() {
    // Signed by one, in the name of the other.
    assert_eq!(refused(&token(json!({ "iss": OTHER }))), Reason::KeyUnknown);
    let silent = json!({"iss": "https://silent.example.com/"});
    for iss in [silent, json!({"iss": "https://login.example.com"}), json!({"iss": "https://nobody.example.com/"})] {
        assert_eq!(refused(&token(iss.clone())), Reason::IssuerUnknown, "{iss}");
    }
    assert_eq!(refused(&token(json!({"iss": [ISSUER]}))), Reason::ClaimRejected);
    assert_eq!(refused(&token(json!({ "iss": null }))), Reason::ClaimRejected);
    // The same user and login at two issuers.
    let table = Revocations::new(10);
    for revocation in gate().logout(&token(json!({})), DAY, NOW).unwrap().revocations() {
        table.insert(&revocation, NOW);
    }
    let at = |issuer: &str, sid: Option<&str>| Identity {
        issuer: issuer.into(),
        subject: "alice".into(),
        expires_at: NOW + 600,
        ends_at: NOW + 600,
        jti: None,
        session: sid.map(Into::into),
        issued_at: Some(NOW - 10),
        claims: Default::default(),
        hold: None,
    };
    assert_eq!(table.find(&at(ISSUER, Some("s1")), NOW), Some(Reason::LoggedOut));
    assert_eq!(table.find(&at(ISSUER, None), NOW), Some(Reason::LoggedOut));
    assert_eq!(table.find(&at(ISSUER, Some("s2")), NOW), None, "another login of the same user");
    assert_eq!(table.find(&at(OTHER, Some("s1")), NOW), None);
    assert_eq!(table.find(&at(OTHER, None), NOW), None);
}

#[test]
fn l04_it_is_for_us_and_signed_as_agreed() {
    for aud in
        [json!(null), json!("chat"), json!([]), json!(["client-3"]), json!({"client-1": 1}), json!(["client-1", 1])]
    {
        let reason = refused(&token(json!({ "aud": aud })));
        assert!(matches!(reason, Reason::AudienceMismatch | Reason::ClaimRejected), "{aud} {reason}");
    }
    let header = |alg: &str| json!({"alg": alg, "kid": "rsa-1", "typ": "logout+jwt"}).to_string();
    let body = said(json!({})).to_string();
    for (what, token, reason) in [
        ("none", format!("{}.{}.", b64(header("none")), b64(&body)), Reason::AlgorithmNotAllowed),
        ("PS256", RSA.raw("PS256", &header("PS256"), &body), Reason::AlgorithmNotAllowed),
        (
            "HS256",
            hmac_token("HS256", SECRET.as_bytes(), json!({"typ": "logout+jwt"}), &said(json!({}))),
            Reason::AlgorithmNotAllowed,
        ),
        ("another key", OTHER_RSA.raw("RS256", &header("RS256"), &body), Reason::SignatureInvalid),
        ("an unknown key", OTHER_RSA.with_header(json!({"typ": "logout+jwt"}), &said(json!({}))), Reason::KeyUnknown),
        ("encrypted", format!("{}.a.b.c.d", b64(header("RS256"))), Reason::CredentialMalformed),
        ("long", "a".repeat(MAX_TOKEN + 1), Reason::CredentialMalformed),
        ("nothing", String::new(), Reason::CredentialMalformed),
    ] {
        assert_eq!(refused(&token), reason, "{what}");
    }
    let changed = token(json!({})).replace('.', ".e30").replacen(".e30", ".", 1);
    assert!(gate().logout(&changed, DAY, NOW).is_err());
}

#[test]
fn l05_events_is_an_object_with_the_logout_event_which_is_one_too() {
    for events in [
        json!([EVENT]),
        json!(EVENT),
        json!({}),
        json!({ EVENT: null }),
        json!({ EVENT: [] }),
        json!({ EVENT: "" }),
        json!({ EVENT: true }),
        json!({"http://schemas.openid.net/event/backchannel-logout/": {}}),
        json!([{ EVENT: {} }]),
    ] {
        assert_eq!(refused(&token(json!({ "events": events }))), Reason::ClaimRejected, "{events}");
    }
    for events in [json!({EVENT: {}, "https://other": null}), json!({EVENT: {"more": [1, 2]}})] {
        assert!(gate().logout(&token(json!({ "events": events })), DAY, NOW).is_ok(), "{events}");
    }
}

#[test]
fn l07_what_costs_nothing_is_checked_before_the_signature_and_before_keys_are_asked_for() {
    let (verifier, _) = verifier(&[(section(ISSUER, false), Material::Remote)]);
    let logout = |changes| verifier.logout(&token(changes), DAY, NOW).unwrap_err();
    for changes in [
        json!({"aud": "x"}),
        json!({"iat": 1}),
        json!({"exp": 1}),
        json!({"events": {}}),
        json!({"nonce": 1}),
        json!({"sub": null, "sid": null}),
        json!({"jti": null}),
    ] {
        let refusal = logout(changes.clone());
        assert!(refusal.need_key.is_none() && refusal.reason != Reason::KeysUnavailable, "{changes}: {refusal:?}");
    }
    assert!(logout(json!({})).need_key.is_some());
}

#[test]
fn an_issuer_that_ends_tokens_early_needs_no_longer_memory() {
    let section = Issuer { max_age: Some(std::time::Duration::from_secs(3600)), ..section(ISSUER, false) };
    let (verifier, _) = verifier(&[(section, Material::Jwks(jwks(&[RSA.jwk()])))]);
    let logout = verifier.logout(&token(json!({})), DAY, NOW).unwrap();
    assert!(logout.revocations().iter().all(|r| r.until == NOW - 2 + 3600 + 300));
}
