//! OpenID Connect and OAuth discovery: from an issuer to the address of its keys, believing as little as possible.

use crate::upstream::target::{Location, TargetError};
use serde::Deserialize;

/// Why a discovery document cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Not the JSON it should be.
    #[error("not a discovery document: {0}")]
    Json(String),
    /// Another issuer: a mix-up, or an attack.
    #[error("the document is for the issuer {found:?}, not {expected:?}")]
    Issuer {
        /// What it says.
        found: String,
        /// What is configured.
        expected: String,
    },
    /// An address that may not be used.
    #[error("jwks_uri: {0}")]
    Address(#[from] TargetError),
    /// A host that is neither the issuer's nor listed.
    #[error("jwks_uri is on {0:?}, which is neither the issuer's host nor in jwks_hosts")]
    Host(String),
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// Where an issuer's document may be: OpenID Connect Discovery section 4, then RFC 8414 section 3.
///
/// # Errors
/// Where the issuer is not an http(s) address without a query.
pub fn documents(issuer: &str, allow_http: bool) -> Result<[Location; 2], TargetError> {
    let base = Location::parse(issuer, allow_http)?;
    let path = base.path_and_query.split('?').next().unwrap_or_default().trim_end_matches('/').to_string();
    let scheme = if base.target.tls { "https" } else { "http" };
    let host = base.target.authority.to_str().unwrap_or_default();
    let at = |path_and_query: String| Location {
        text: format!("{scheme}://{host}{path_and_query}"),
        path_and_query,
        ..base.clone()
    };
    let openid = at(format!("{path}/.well-known/openid-configuration"));
    let oauth = at(format!("/.well-known/oauth-authorization-server{path}"));
    Ok([openid, oauth])
}

/// The address of the keys, from the document of `issuer`. `hosts` are allowed besides the issuer's own.
///
/// # Errors
/// Where the document is not about this issuer to the byte, or points elsewhere than allowed.
pub fn read(body: &[u8], issuer: &str, hosts: &[String], allow_http: bool) -> Result<Location, DiscoveryError> {
    let document: Document = serde_json::from_slice(body).map_err(|e| DiscoveryError::Json(e.to_string()))?;
    if document.issuer != issuer {
        let found = document.issuer.chars().take(200).collect();
        return Err(DiscoveryError::Issuer { found, expected: issuer.to_string() });
    }
    let location = Location::parse(&document.jwks_uri, allow_http)?;
    let home = Location::parse(issuer, allow_http)?;
    let host = &location.target.host;
    let authority = location.target.authority.as_bytes();
    let listed = hosts.iter().any(|h| h.eq_ignore_ascii_case(host) || h.as_bytes().eq_ignore_ascii_case(authority));
    // An issuer reached by TLS does not send us away from it.
    if (home.target.tls && !location.target.tls) || !(listed || *host == home.target.host) {
        return Err(DiscoveryError::Host(host.clone()));
    }
    Ok(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://login.example/";

    fn document(issuer: &str, jwks_uri: &str) -> Vec<u8> {
        serde_json::json!({"issuer": issuer, "jwks_uri": jwks_uri, "token_endpoint": "x"}).to_string().into_bytes()
    }

    #[test]
    fn documents_are_where_the_standards_put_them() {
        let paths = |issuer: &str| documents(issuer, false).unwrap().map(|l| l.path_and_query);
        let root = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];
        assert_eq!(paths("https://login.example/"), root);
        assert_eq!(paths("https://login.example"), root);
        assert_eq!(
            paths("https://login.example/realms/a/"),
            ["/realms/a/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/realms/a"]
        );
        assert!(documents("http://login.example", false).is_err());
        assert!(documents("accounts", false).is_err());
    }

    #[test]
    fn the_keys_of_the_issuer_itself_are_found() {
        let location = read(&document(ISSUER, "https://login.example/keys"), ISSUER, &[], false).unwrap();
        assert_eq!(location.path_and_query, "/keys");
    }

    #[test]
    fn j30_the_document_must_name_the_issuer_to_the_byte() {
        for other in
            ["https://login.example", "https://LOGIN.example/", "https://evil.example/", "", "https://login.example//"]
        {
            let result = read(&document(other, "https://login.example/keys"), ISSUER, &[], false);
            assert!(matches!(result, Err(DiscoveryError::Issuer { .. })), "{other}");
        }
        let doubled = r#"{"issuer":"https://login.example/","issuer":"https://login.example/","jwks_uri":"https://login.example/"}"#;
        assert!(read(doubled.as_bytes(), ISSUER, &[], false).is_err());
    }

    #[test]
    fn j29_the_keys_must_be_on_an_allowed_host() {
        let at = |uri: &str, hosts: &[&str]| {
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            read(&document(ISSUER, uri), ISSUER, &hosts, false)
        };
        for inward in [
            "http://169.254.169.254/latest",
            "https://169.254.169.254/",
            "http://login.example/keys",
            "http://127.0.0.1/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://login.example.evil/",
            "https://login.example@evil/",
            "https://sub.login.example/",
            "file:///etc/passwd",
            "/keys",
            "",
        ] {
            assert!(at(inward, &[]).is_err(), "{inward}");
        }
        assert!(at("https://keys.example/a", &["KEYS.example"]).is_ok());
        assert!(at("https://keys.example:8443/a", &["keys.example:8443"]).is_ok());
        assert!(at("https://keys.example:8443/a", &["keys.example:9"]).is_err());
        assert!(at("http://127.0.0.1/a", &["127.0.0.1"]).is_err());
    }

    #[test]
    fn what_is_not_a_document_is_refused() {
        for bad in
            ["", "<html>", "[]", "{}", r#"{"issuer":5,"jwks_uri":"x"}"#, r#"{"issuer":"https://login.example/"}"#]
        {
            assert!(matches!(read(bad.as_bytes(), ISSUER, &[], false), Err(DiscoveryError::Json(_))), "{bad}");
        }
    }
}
