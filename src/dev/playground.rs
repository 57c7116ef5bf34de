//! Everything `siogate dev` puts around the gate, started and held.

use crate::config::model::identity::{Assertion, IdentityOut};
use crate::config::model::issuers::Issuer;
use crate::config::model::{Admin, Config, Http, Route, RouteAuth, Server, SocketIo};
use crate::dev::backend::{self, Timings};
use crate::dev::door::{self, DoorError, Hosts};
use crate::dev::issuer::{self, AUDIENCE, KeyError, LIFETIMES};
use crate::dev::page::Page;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Where the gate will listen.
    pub gate: String,
    /// Where the page and the issuer are.
    pub playground: String,
    /// The user's own backend; absent: the embedded one.
    pub upstream: Option<String>,
    /// What a token gets that asks for no lifetime.
    pub lifetime: Duration,
}

impl Default for DevOptions {
    fn default() -> Self {
        Self {
            gate: "127.0.0.1:8080".into(),
            playground: "127.0.0.1:8081".into(),
            upstream: None,
            lifetime: Duration::from_secs(20),
        }
    }
}

/// Why there is no playground.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Something other than this machine could reach it.
    #[error("{0:?} is not a loopback address: the playground hands out tokens to anybody who asks")]
    NotLoopback(String),
    /// An address is taken.
    #[error(transparent)]
    Bind(DoorError),
    /// Out of bounds.
    #[error("a token lives 1 to 3600 seconds, not {0}")]
    Lifetime(u64),
    /// No randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<DoorError> for DevError {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::NotLoopback(address) => Self::NotLoopback(address),
            error @ DoorError::Bind { .. } => Self::Bind(error),
        }
    }
}

/// The running playground; ends when dropped.
pub struct Dev {
    /// `iss` of its tokens, and the base of `/jwks.json`.
    pub issuer_url: String,
    /// The embedded backend, where it runs.
    pub backend_url: Option<String>,
    /// What to open in a browser.
    pub playground_url: String,
    /// `aud` of its tokens.
    pub audience: &'static str,
    page: Arc<Page>,
    gate: SocketAddr,
    /// Listeners, connections and sessions all run until this is dropped.
    _stop: DropGuard,
}

/// Binds and serves: the page with the issuer, and the embedded backend unless there is an upstream.
///
/// # Errors
/// [`DevError`]; nothing is left running then.
pub async fn start(options: &DevOptions) -> Result<Dev, DevError> {
    let gate = door::loopback(&options.gate)?;
    let seconds = options.lifetime.as_secs();
    if !LIFETIMES.contains(&seconds) {
        return Err(DevError::Lifetime(seconds));
    }
    let stop = CancellationToken::new();
    let (listener, address) = door::open(&options.playground).await?;
    let url = format!("http://{address}");
    let issuer = issuer::Issuer::new(url.clone(), options.lifetime)?;
    let page = Arc::new(Page::new(issuer, options.lifetime, options.upstream.clone()));
    let backend_url = match options.upstream {
        Some(_) => None,
        None => {
            let (listener, address) = door::open("127.0.0.1:0").await?;
            // The gate tells a backend the host that its client named, with the gate's port.
            let hosts = Hosts::any_port(address);
            tokio::spawn(backend::serve(listener, hosts, Timings::default(), stop.clone()));
            Some(format!("http://{address}"))
        }
    };
    let handler = {
        let page = Arc::clone(&page);
        move |request| {
            let page = Arc::clone(&page);
            async move { page.answer(request).await }
        }
    };
    tokio::spawn(door::serve(listener, Hosts::exactly(address), stop.clone(), handler));
    Ok(Dev {
        issuer_url: url.clone(),
        backend_url,
        playground_url: url,
        audience: AUDIENCE,
        page,
        gate,
        _stop: stop.drop_guard(),
    })
}

impl Dev {
    /// Tells the page where the gate really listens, such as `http://127.0.0.1:8080`.
    pub fn set_gate_url(&self, url: String) {
        self.page.set_gate_url(&url);
    }

    /// The gate that belongs to this playground.
    pub fn config(&self, options: &DevOptions) -> Config {
        let mut config = Config {
            server: Server { listen: vec![self.gate.to_string()], ..Server::default() },
            admin: Admin { listen: String::new(), ..Admin::default() },
            socketio: SocketIo {
                allowed_origins: self.origins(),
                connect_deadline: Duration::from_secs(5),
                ..SocketIo::default()
            },
            issuer: vec![Issuer {
                issuer: Some(self.issuer_url.clone()),
                jwks_url: Some(format!("{}/jwks.json", self.issuer_url)),
                audience: vec![self.audience.to_owned()],
                algorithms: vec!["ES256".into()],
                leeway: Duration::ZERO, // the countdown on the page is to the second
                ..Issuer::default()
            }],
            identity: IdentityOut { assertion: Some(Assertion::default()), ..IdentityOut::default() },
            http: Http { route: vec![Route { path: "/".into(), auth: RouteAuth::Pass, websocket: false }] },
            ..Config::default()
        };
        config.identity.headers.insert("x-auth-name".into(), "name".into());
        config.upstream.urls = options.upstream.iter().chain(&self.backend_url).cloned().collect();
        config
    }

    /// The page by both of its names, and the gate's own where its port is known: a list replaces "same origin".
    fn origins(&self) -> Vec<String> {
        let port = self.playground_url.rsplit(':').next().unwrap_or_default();
        let mut origins = vec![self.playground_url.clone(), format!("http://localhost:{port}")];
        if self.gate.port() != 0 {
            origins.push(format!("http://{}", self.gate));
            origins.push(format!("http://localhost:{}", self.gate.port()));
        }
        origins
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn options() -> DevOptions {
        DevOptions { gate: "127.0.0.1:0".into(), playground: "127.0.0.1:0".into(), ..DevOptions::default() }
    }

    async fn get(base: &str, path: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn issuer_page_and_backend_are_reachable_under_their_reported_addresses() {
        let dev = start(&options()).await.unwrap();
        let host = dev.playground_url.strip_prefix("http://").unwrap().to_owned();
        for path in ["/", "/socket.io.min.js", "/settings.json", "/jwks.json", "/.well-known/openid-configuration"] {
            assert!(get(&dev.playground_url, path, &host).await.starts_with("HTTP/1.1 200"), "{path}");
        }
        let backend = dev.backend_url.clone().unwrap();
        for path in ["/", "/socket.io/socket.io.js"] {
            assert!(get(&backend, path, "localhost:8080").await.starts_with("HTTP/1.1 200"), "{path}");
        }
    }

    #[tokio::test]
    async fn p44_a_rebound_name_gets_421_from_every_listener() {
        let dev = start(&options()).await.unwrap();
        for base in [&dev.playground_url, dev.backend_url.as_ref().unwrap()] {
            for path in ["/", "/settings.json", "/socket.io/?EIO=4&transport=websocket"] {
                let answer = get(base, path, "rebound.test").await;
                assert!(answer.starts_with("HTTP/1.1 421"), "{path}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_listens_beyond_loopback() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:80"] {
            for options in [
                DevOptions { gate: address.into(), ..options() },
                DevOptions { playground: address.into(), ..options() },
            ] {
                assert!(matches!(start(&options).await, Err(DevError::NotLoopback(a)) if a == address), "{address}");
            }
        }
    }

    #[tokio::test]
    async fn dropping_it_ends_listeners_and_open_connections() {
        let dev = start(&options()).await.unwrap();
        let backend = dev.backend_url.clone().unwrap();
        let address = backend.strip_prefix("http://").unwrap();
        let mut open = TcpStream::connect(address).await.unwrap();
        let head = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        open.write_all(head.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        let n = open.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 101"));
        drop(dev);
        while open.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn the_gate_is_configured_for_this_playground() {
        let dev = start(&options()).await.unwrap();
        let config = dev.config(&options());
        assert_eq!(config.upstream.urls, [dev.backend_url.clone().unwrap()]);
        assert_eq!(config.issuer[0].issuer.as_ref(), Some(&dev.issuer_url));
        assert_eq!(config.issuer[0].audience, ["dev"]);
        assert!(config.socketio.allowed_origins.contains(&dev.playground_url));
        assert_eq!(config.server.listen, ["127.0.0.1:0"]);
        assert_eq!(config.admin.listen, "");

        let own = DevOptions { upstream: Some("http://127.0.0.1:3000".into()), ..options() };
        let dev = start(&own).await.unwrap();
        assert_eq!(dev.config(&own).upstream.urls, ["http://127.0.0.1:3000"]);
        assert!(dev.backend_url.is_none());
    }
}
