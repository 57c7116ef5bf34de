//! Where credentials may stand, and the issuers whose tokens are believed.

use crate::config::duration;
use crate::config::model::revocation::Logout;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[credentials]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// Places, most trusted first: `auth:KEY`, `header:NAME`, `query:NAME`, `cookie:NAME`, `subprotocol:NAME`.
    pub sources: Vec<String>,
    /// Pass the credential that was verified on to the backend; whatever else stands in one of these places is taken out.
    pub forward: bool,
}

impl Default for Credentials {
    fn default() -> Self {
        let sources = ["auth:token", "header:authorization", "query:token", "cookie:token"];
        Self { sources: sources.map(String::from).to_vec(), forward: false }
    }
}

/// `[[issuer]]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Issuer {
    /// The exact `iss`. Required unless a shared secret is used.
    pub issuer: Option<String>,
    /// Where the keys are; absent: discovery at the issuer.
    pub jwks_url: Option<String>,
    /// Keys from a JWKS file.
    pub jwks_file: Option<PathBuf>,
    /// One public key from a PEM file.
    pub key_file: Option<PathBuf>,
    /// Name of the environment variable with a shared secret.
    pub secret_env: Option<String>,
    /// File with a shared secret.
    pub secret_file: Option<PathBuf>,
    /// Environment variable with the previous secret, still accepted.
    pub previous_secret_env: Option<String>,
    /// File with the previous secret, still accepted.
    pub previous_secret_file: Option<PathBuf>,
    /// Accepted audiences; `[]` = not checked, with a warning at start unless a secret is used.
    pub audience: Vec<String>,
    /// Accepted algorithms; `[]` = RS256, ES256, EdDSA for keys and HS256 for a secret.
    pub algorithms: Vec<String>,
    /// Clock skew allowed, at most 300 s.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// The claim that says who: `sub`, `id`, `user.id`.
    pub subject: String,
    /// Accepted `typ` headers; `[]` = any but logout and security-event tokens.
    pub typ: Vec<String>,
    /// Longest age by `iat`; absent: unbounded.
    #[serde(with = "duration::optional")]
    pub max_age: Option<Duration>,
    /// Keep using old keys for this long while the key server is away.
    #[serde(with = "duration")]
    pub max_stale: Duration,
    /// PEM file with certificate authorities for the key server, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Hosts besides the issuer's own from which discovery may name the keys.
    pub jwks_hosts: Vec<String>,
    /// Fetch keys over plain HTTP from other than loopback addresses.
    pub allow_http: bool,
    /// OpenID Connect Back-Channel Logout; absent: the issuer's logouts are not listened to.
    pub logout: Option<Logout>,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            issuer: None,
            jwks_url: None,
            jwks_file: None,
            key_file: None,
            secret_env: None,
            secret_file: None,
            previous_secret_env: None,
            previous_secret_file: None,
            audience: Vec::new(),
            algorithms: Vec::new(),
            leeway: Duration::from_secs(5),
            subject: "sub".into(),
            typ: Vec::new(),
            max_age: None,
            max_stale: Duration::from_secs(24 * 3600),
            ca_file: None,
            jwks_hosts: Vec::new(),
            allow_http: false,
            logout: None,
        }
    }
}
