//! When a token begins and ends, to the second.

use super::*;

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
