//! Those who may vouch for a user besides issuers of JWTs.

use crate::config::duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// `[[session_store]]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SessionStore {
    /// The issuer that its users get, in `x-auth-issuer` and in the log.
    pub issuer: String,
    /// The name of the session cookie, as express-session's `name`.
    pub cookie: String,
    /// Environment variables with the secrets that the cookie may be signed with, newest first.
    pub secret_env: Vec<String>,
    /// Files with more of them.
    pub secret_file: Vec<PathBuf>,
    /// The Redis, without a password: `redis://host:6379/0`, `rediss://` (TLS), `unix:/path`,
    /// `redis+sentinel://host,host/master`, `redis+cluster://host,host`.
    pub redis_url: Option<String>,
    /// Environment variable with the same, which may have a password: `redis://user:password@host`.
    pub redis_url_env: Option<String>,
    /// PEM file with certificate authorities for the Redis, instead of the system's.
    pub redis_ca_file: Option<PathBuf>,
    /// What the store writes before a session's id.
    pub prefix: String,
    /// JSON pointers to the user in the session; the first that is there says who. Where none is, nobody is logged in.
    pub subject: Vec<String>,
    /// JSON pointer to when the user logged in, in unix seconds or milliseconds: a login later than a revocation of its
    /// user is let in. Without it none is until the revocation is forgotten.
    pub issued_at: Option<String>,
    /// Claims, each with the JSON pointer to it in the session.
    pub claims: BTreeMap<String, String>,
    /// A live socket's session is looked at again within this time.
    #[serde(with = "duration")]
    pub recheck: Duration,
    /// Live sockets stay for so long while the Redis does not answer.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// The Redis must answer within this time.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Pass the cookie on to the backend, which finds its own session by it.
    pub forward: bool,
}

impl Default for SessionStore {
    fn default() -> Self {
        Self {
            issuer: "express-session".into(),
            cookie: "connect.sid".into(),
            secret_env: Vec::new(),
            secret_file: Vec::new(),
            redis_url: None,
            redis_url_env: None,
            redis_ca_file: None,
            prefix: "sess:".into(),
            subject: vec!["/passport/user".into(), "/user/id".into()],
            issued_at: None,
            claims: BTreeMap::new(),
            recheck: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            timeout: Duration::from_secs(2),
            forward: true,
        }
    }
}

/// How a client says who it is (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// In the Authorization header.
    #[default]
    Basic,
    /// In the form.
    Post,
}

/// Which tokens an endpoint is asked about.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// Those that are no JWT of an `[[issuer]]`.
    #[default]
    Opaque,
    /// Every token; no `[[issuer]]` is asked.
    All,
}

/// `[[introspection]]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Introspection {
    /// The endpoint (RFC 7662); required.
    pub url: String,
    /// The issuer that its users get, and the exact `iss` where an answer has one; required.
    pub issuer: String,
    /// Who the gate is to the endpoint; required.
    pub client_id: String,
    /// Environment variable with the client's secret.
    pub client_secret_env: Option<String>,
    /// File with the client's secret.
    pub client_secret_file: Option<PathBuf>,
    /// How the gate says who it is.
    pub auth: ClientAuth,
    /// Accepted audiences; `[]` = not checked.
    pub audience: Vec<String>,
    /// Scopes that a token must have, all of them.
    pub scope: Vec<String>,
    /// The member that says who.
    pub subject: String,
    /// Which tokens are asked about.
    pub tokens: Tokens,
    /// A good answer is believed for so long, and never beyond its `exp`.
    #[serde(with = "duration")]
    pub cache: Duration,
    /// A bad one for so long.
    #[serde(with = "duration")]
    pub negative_cache: Duration,
    /// A live socket's token is asked about again within this time.
    #[serde(with = "duration")]
    pub recheck: Duration,
    /// Live sockets stay for so long while the endpoint does not answer.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// The endpoint must answer within this time.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// PEM file with certificate authorities for the endpoint, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Ask over plain HTTP on other than loopback addresses.
    pub allow_http: bool,
}

impl Default for Introspection {
    fn default() -> Self {
        Self {
            url: String::new(),
            issuer: String::new(),
            client_id: String::new(),
            client_secret_env: None,
            client_secret_file: None,
            auth: ClientAuth::Basic,
            audience: Vec::new(),
            scope: Vec::new(),
            subject: "sub".into(),
            tokens: Tokens::Opaque,
            cache: Duration::from_secs(30),
            negative_cache: Duration::from_secs(5),
            recheck: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
            ca_file: None,
            allow_http: false,
        }
    }
}

/// `method` of a call-out.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum CalloutMethod {
    /// GET, without a body.
    #[default]
    Get,
    /// POST, with an empty body.
    Post,
}

/// `[[callout]]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Callout {
    /// The endpoint; required.
    pub url: String,
    /// How it is asked.
    pub method: CalloutMethod,
    /// The issuer that its users get, in `x-auth-issuer` and in the log.
    pub issuer: String,
    /// Where it finds the credential: `header:authorization` (as `Bearer`), `header:NAME`, `cookie:NAME`.
    pub credential: String,
    /// Headers of the client's handshake that are passed on to it.
    pub headers: Vec<String>,
    /// JSON pointer to the user in the answer's body.
    pub subject: String,
    /// The answer's header that says who, instead of a body.
    pub subject_header: Option<String>,
    /// Claims, each with the answer's header that holds it; no other header of an answer is read.
    pub claims_from_headers: BTreeMap<String, String>,
    /// Which tokens it is asked about.
    pub tokens: Tokens,
    /// It is asked about a live socket again within this time.
    #[serde(with = "duration")]
    pub recheck: Duration,
    /// Live sockets stay for so long while it does not answer.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// It must answer within this time.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// PEM file with certificate authorities for the endpoint, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Ask over plain HTTP on other than loopback addresses.
    pub allow_http: bool,
}

impl Default for Callout {
    fn default() -> Self {
        Self {
            url: String::new(),
            method: CalloutMethod::Get,
            issuer: "callout".into(),
            credential: "header:authorization".into(),
            headers: Vec::new(),
            subject: "/sub".into(),
            subject_header: None,
            claims_from_headers: BTreeMap::new(),
            tokens: Tokens::Opaque,
            recheck: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
            ca_file: None,
            allow_http: false,
        }
    }
}
