//! What a token's header may say: extensions, keys of its own, and what kind of token it is.

use super::*;

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
