//! What the backend is told of a user.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `[identity]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityOut {
    /// The header for each claim; `$session` is the gate's session id, `$claims` base64url JSON of `identity.claims`.
    pub headers: BTreeMap<String, String>,
    /// Claims that `$claims` may carry.
    pub claims: Vec<String>,
    /// The signed assertion; absent: none is sent.
    pub assertion: Option<Assertion>,
}

impl Default for IdentityOut {
    fn default() -> Self {
        let headers = [
            ("x-auth-subject", "sub"),
            ("x-auth-issuer", "iss"),
            ("x-auth-expires", "exp"),
            ("x-auth-session", "$session"),
        ];
        Self {
            headers: headers.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            claims: Vec::new(),
            assertion: None,
        }
    }
}

/// `[identity.assertion]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Assertion {
    /// The header that carries it.
    pub header: String,
    /// PKCS#8 PEM with an Ed25519 or P-256 key; absent: a new one at every start.
    pub key_file: Option<PathBuf>,
    /// `iss` of the assertion.
    pub issuer: String,
    /// `aud` of the assertion.
    pub audience: String,
}

impl Default for Assertion {
    fn default() -> Self {
        Self {
            header: "x-siogate-assertion".into(),
            key_file: None,
            issuer: "siogate".into(),
            audience: "backend".into(),
        }
    }
}
