//! Rules about what the backend is told of the user.

use super::*;
use crate::config::model::identity::Assertion;

#[test]
fn p01_identity_headers_are_names_that_nothing_else_means() {
    let with = |list: &[(&str, &str)]| {
        let headers = list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        paths(|c| c.identity.headers = headers)
    };
    assert!(with(&[("x-auth-email", "email"), ("X-User", "user.id"), ("x-s", "$session")]).is_empty());
    for bad in [
        "host",
        "Host",
        "connection",
        "cookie",
        "set_cookie",
        "authorization",
        "content-length",
        "content.length",
        "Transfer-Encoding",
        "transfer_encoding",
        "upgrade",
        "sec-websocket-key",
        "sec_websocket_accept",
        "x-forwarded-for",
        "x_forwarded_proto",
        "forwarded",
        "origin",
        "te",
        "keep-alive",
        "expect",
        "sec-fetch-site",
        "traceparent",
    ] {
        assert_eq!(with(&[(bad, "sub")]).len(), 1, "{bad}");
    }
    assert_eq!(with(&[("x a", "sub"), ("x-b", ""), ("x-c", "$x"), ("x-d", "a..b")]).len(), 4);
    assert_eq!(with(&[("x-auth-user", "sub"), ("X_Auth.User", "email")]).len(), 1);
    assert_eq!(
        paths(|c| {
            c.credentials.sources = strings(&["header:X-Token"]);
            c.identity.headers = [("x_token".to_string(), "sub".to_string())].into();
        }),
        ["identity.headers.x_token"]
    );
}

#[test]
fn p25_the_assertion_has_a_header_and_names_of_its_own() {
    let with = |assertion: Assertion| paths(|c| c.identity.assertion = Some(assertion));
    assert!(with(Assertion::default()).is_empty());
    assert_eq!(
        with(Assertion { header: "X_Auth_Subject".into(), ..Assertion::default() }),
        ["identity.assertion.header"]
    );
    assert_eq!(with(Assertion { header: "cookie".into(), ..Assertion::default() }), ["identity.assertion.header"]);
    assert_eq!(with(Assertion { audience: " ".into(), ..Assertion::default() }), ["identity.assertion.audience"]);
    assert_eq!(with(Assertion { issuer: String::new(), ..Assertion::default() }), ["identity.assertion.issuer"]);
}

#[test]
fn claims_for_the_backend_are_named() {
    assert_eq!(paths(|c| c.identity.claims = strings(&["email", "", "$session"])).len(), 2);
    let claims = |c: &mut Config| {
        c.identity.headers.insert("x-auth-claims".into(), "$claims".into());
    };
    assert_eq!(warned(claims), ["identity.headers.x-auth-claims"]);
}
