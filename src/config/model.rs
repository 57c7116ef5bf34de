//! The configuration as typed values. Names are the contract; every default stands beside its key.

use crate::config::duration;
use crate::config::model::identity::IdentityOut;
use crate::config::model::issuers::{Credentials, Issuer};
use crate::config::model::revocation::{Revocation, Transmitter};
use crate::config::model::session::Session;
use crate::config::model::vouchers::{Callout, Introspection, SessionStore};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

pub mod identity;
pub mod issuers;
pub mod revocation;
pub mod session;
pub mod vouchers;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public door.
    pub server: Server,
    /// The private door.
    pub admin: Admin,
    /// The backend.
    pub upstream: Upstream,
    /// Engine.IO and Socket.IO.
    pub socketio: SocketIo,
    /// Where credentials may stand.
    pub credentials: Credentials,
    /// Who may vouch for a user, in the order of the file.
    pub issuer: Vec<Issuer>,
    /// Redis stores of session cookies.
    pub session_store: Vec<SessionStore>,
    /// Endpoints that know opaque tokens.
    pub introspection: Vec<Introspection>,
    /// Endpoints of yours that decide.
    pub callout: Vec<Callout>,
    /// What the backend is told.
    pub identity: IdentityOut,
    /// How long a session may live.
    pub session: Session,
    /// Rights that are withdrawn before their end.
    pub revocation: Revocation,
    /// Who may tell of such by security events.
    pub transmitter: Vec<Transmitter>,
    /// Bounds.
    pub limits: Limits,
    /// Everything that is not under `socketio.path`.
    pub http: Http,
    /// The operator's log.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Addresses `host:port`, or `unix:/path`.
    pub listen: Vec<String>,
    /// Address ranges of proxies in front of the gate whose `X-Forwarded-*` are believed, such as `10.0.0.0/8`.
    pub trusted_proxies: Vec<IpNet>,
    /// At SIGTERM: how long sessions and requests may take to end before they are cut.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// TLS; absent: plain HTTP.
    pub tls: Option<ServerTls>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:8080".into()],
            trusted_proxies: Vec::new(),
            drain_timeout: Duration::from_secs(30),
            tls: None,
        }
    }
}

/// `[server.tls]`
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the certificate chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where health and metrics are: `host:port` or `unix:/path`; `""` turns the listener off.
    pub listen: String,
    /// Name of the environment variable with the bearer token; required where other machines reach the listener.
    pub token_env: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9090".into(), token_env: String::new() }
    }
}

/// `[upstream]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// `http://host:port`, `https://host:port` or `unix:/path`; several take turns.
    pub urls: Vec<String>,
    /// From dialling to the backend's answer.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// A plain HTTP request must be answered within this time; the body of the answer may take longer.
    #[serde(with = "duration")]
    pub response_timeout: Duration,
    /// PEM file with certificate authorities for `https://` backends, besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            urls: vec!["http://127.0.0.1:3000".into()],
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            ca_file: None,
        }
    }
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Protocol {
    /// Socket.IO packets inside Engine.IO.
    #[default]
    #[serde(rename = "socket.io")]
    SocketIo,
    /// Raw Engine.IO: a credential in the handshake only, packets relayed unread.
    #[serde(rename = "engine.io")]
    EngineIo,
}

/// `client_bundle`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientBundle {
    /// Passed to the backend without a session.
    #[default]
    Pass,
    /// Answered 404.
    Deny,
}

/// `on_expiry`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// Close the transport: stock clients come back with a fresh token.
    #[default]
    Reconnect,
    /// DISCONNECT every namespace first: stock clients stay down.
    Disconnect,
}

/// `on_reject`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// Open the transport and refuse with CONNECT_ERROR, which the application can read.
    #[default]
    ConnectError,
    /// 401, 403 or 503.
    Http,
}

/// `[socketio]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SocketIo {
    /// The path of the Socket.IO server.
    pub path: String,
    /// What the backend speaks.
    pub protocol: Protocol,
    /// `GET /socket.io/socket.io.js` and its siblings.
    pub client_bundle: ClientBundle,
    /// Learn the backend's timings by a handshake of the gate's own, at start and whenever a backend returns; `false`
    /// for Socket.IO 2 backends, whose application would see a client come and go.
    pub probe: bool,
    /// Accept Engine.IO protocol 3 (Socket.IO 2 clients), whose credential must be in the handshake.
    pub eio3: bool,
    /// Origins of pages that may connect; `[]` = the same origin, `["*"]` = any, refused together with a cookie source.
    pub allowed_origins: Vec<String>,
    /// Refuse requests without an Origin header too; clients that are no browser usually send none.
    pub require_origin: bool,
    /// From OPEN to a valid CONNECT; then the session is closed.
    #[serde(with = "duration")]
    pub connect_deadline: Duration,
    /// What a client is sent when its token ends.
    pub on_expiry: OnExpiry,
    /// What a bad credential in the handshake is answered with.
    pub on_reject: OnReject,
    /// Fixed `pingInterval`; absent: the backend's.
    #[serde(with = "duration::optional")]
    pub ping_interval: Option<Duration>,
    /// Fixed `pingTimeout`; absent: the backend's.
    #[serde(with = "duration::optional")]
    pub ping_timeout: Option<Duration>,
    /// Fixed `maxPayload` in bytes; absent: the backend's.
    pub max_payload: Option<u64>,
}

impl Default for SocketIo {
    fn default() -> Self {
        Self {
            path: "/socket.io/".into(),
            protocol: Protocol::SocketIo,
            client_bundle: ClientBundle::Pass,
            probe: true,
            eio3: true,
            allowed_origins: Vec::new(),
            require_origin: false,
            connect_deadline: Duration::from_secs(10),
            on_expiry: OnExpiry::Reconnect,
            on_reject: OnReject::ConnectError,
            ping_interval: None,
            ping_timeout: None,
            max_payload: None,
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open sessions, authenticated or not.
    pub max_sessions: usize,
    /// Sessions that have not shown a valid credential yet, in all.
    pub max_unauthenticated: usize,
    /// The same per client address (IPv6: per /64).
    pub max_unauthenticated_per_ip: usize,
    /// Packets in one polling POST.
    pub max_packets_per_payload: usize,
    /// Bytes queued for a slow polling client before its backend is no longer read.
    pub max_queue: usize,
    /// Bytes of a request head, 8192 to 1048576.
    pub max_header_size: usize,
    /// A request head must arrive within this time.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// A request body must arrive within this time (Engine.IO) or keep moving (plain HTTP).
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// A peer that does not read for this long is cut; with WebSockets on both sides after the backend's `pingInterval`
    /// and `pingTimeout`.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: 100_000,
            max_unauthenticated: 10_000,
            max_unauthenticated_per_ip: 100,
            max_packets_per_payload: 10_000,
            max_queue: 1_000_000,
            max_header_size: 16_384,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
        }
    }
}

/// `[http]`
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The longest matching prefix decides; none: 404.
    pub route: Vec<Route>,
}

/// `auth` of a route.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RouteAuth {
    /// Nobody is asked; identity headers are still removed.
    Pass,
    /// Identity where there is one; a bad credential is refused.
    Optional,
    /// A valid credential is needed.
    #[default]
    Require,
    /// 403 for all.
    Deny,
}

/// `[[http.route]]`
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Path prefix, at a segment boundary; required.
    pub path: String,
    /// Who may pass.
    pub auth: RouteAuth,
    /// Let WebSocket upgrades through.
    pub websocket: bool,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,siogate=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

/// `[log] format`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
