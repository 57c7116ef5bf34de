//! The sections about rights that are withdrawn before their end.

use crate::config::duration;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[revocation]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Revocation {
    /// For so long a user, login or issuer stays revoked: at least as long as the longest life of your tokens.
    #[serde(with = "duration")]
    pub remember: Duration,
    /// Revocations remembered at once; more push out what would be forgotten first, which is logged as an error.
    pub max_entries: usize,
    /// The Redis by which replicas share them: `redis://`, `rediss://`, `unix:`, `redis+sentinel://` or
    /// `redis+cluster://`; absent: each process has its own, and forgets them when it ends.
    pub redis_url: Option<String>,
    /// Name of the environment variable with the same, where it holds a password.
    pub redis_url_env: Option<String>,
    /// PEM file with the certificate authorities for that Redis, instead of the system's.
    pub redis_ca_file: Option<PathBuf>,
    /// What keys and channel begin with, the same for all replicas; a cluster needs the `{}` in it.
    pub key_prefix: String,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            remember: Duration::from_secs(30 * 24 * 3600),
            max_entries: 100_000,
            redis_url: None,
            redis_url_env: None,
            redis_ca_file: None,
            key_prefix: "siogate:{revocations}:".into(),
        }
    }
}

/// `[issuer.logout]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Logout {
    /// Accepted `aud` of logout tokens: the client ids that the provider knows your applications by; required.
    pub audience: Vec<String>,
    /// How long after its `iat` a logout token is listened to.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// Accept what providers sent before the errata of 2023: no `exp`, no `typ`, or `typ` JWT.
    pub lenient: bool,
}

impl Default for Logout {
    fn default() -> Self {
        Self { audience: Vec::new(), max_age: Duration::from_secs(300), lenient: false }
    }
}

/// `[[transmitter]]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Transmitter {
    /// The exact `iss` of its security events; required.
    pub issuer: String,
    /// Where its keys are; required unless they are in a file.
    pub jwks_url: Option<String>,
    /// Keys from a JWKS file.
    pub jwks_file: Option<PathBuf>,
    /// PEM file with certificate authorities for the key server, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Fetch keys over plain HTTP from other than loopback addresses.
    pub allow_http: bool,
    /// Accepted `aud` of its events: what the stream was made for; required.
    pub audience: Vec<String>,
    /// Accepted algorithms; `[]` = RS256, ES256, EdDSA.
    pub algorithms: Vec<String>,
    /// Issuers whose users it may speak of; `[]` = the issuer of its own name.
    pub speaks_for: Vec<String>,
    /// Name of the environment variable with the bearer token that it sends; `""`: none is asked for.
    pub token_env: String,
    /// How long after its `iat` an event is listened to.
    #[serde(with = "duration")]
    pub max_age: Duration,
}

impl Default for Transmitter {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            jwks_url: None,
            jwks_file: None,
            ca_file: None,
            allow_http: false,
            audience: Vec::new(),
            algorithms: Vec::new(),
            speaks_for: Vec::new(),
            token_env: String::new(),
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}
