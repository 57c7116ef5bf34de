//! A loopback-only HTTP listener: refuses other addresses, and other names for its own (DNS rebinding).

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What every handler of the playground answers.
pub type Answer = Response<Full<Bytes>>;

/// A developer's machine never needs more at a time.
const CONNECTIONS: usize = 512;

/// A request head must arrive within this time; idle connections are closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a door stayed shut.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Something other than this machine could reach it.
    #[error("{0:?} is not a loopback address: the playground hands out tokens to anybody who asks")]
    NotLoopback(String),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`. Nothing is looked up: a resolver may lie.
///
/// # Errors
/// Everything that is not a literal loopback address with a port.
pub fn loopback(text: &str) -> Result<SocketAddr, DoorError> {
    let refused = || DoorError::NotLoopback(text.to_owned());
    let address = match text.strip_prefix("localhost:") {
        Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().map_err(|_| refused())?)),
        None => text.parse().map_err(|_| refused())?,
    };
    if address.ip().is_loopback() { Ok(address) } else { Err(refused()) }
}

/// Binds, and reports the address that was really taken (port 0).
///
/// # Errors
/// [`DoorError`].
pub async fn open(text: &str) -> Result<(TcpListener, SocketAddr), DoorError> {
    let address = loopback(text)?;
    let bind = |source| DoorError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let real = listener.local_addr().map_err(bind)?;
    Ok((listener, real))
}

/// Which spellings of `Host` a door answers to.
#[derive(Clone, Copy, Debug)]
pub struct Hosts {
    ip: IpAddr,
    port: Option<u16>,
}

impl Hosts {
    /// The door's own names with its own port: for what browsers talk to.
    pub fn exactly(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: Some(address.port()) }
    }

    /// The same names with any port: for a backend that is told the port of the proxy before it.
    pub fn any_port(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: None }
    }

    /// True where the request was meant for this door, so that no foreign name that merely resolves to it gets in.
    pub fn accept<B>(&self, request: &Request<B>) -> bool {
        let mut values = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (values.next(), values.next()) else { return false };
        let Some(host) = host.to_str().ok().and_then(|h| h.parse::<Authority>().ok()) else { return false };
        self.names(&host) && request.uri().authority().is_none_or(|target| self.names(target))
    }

    fn names(&self, authority: &Authority) -> bool {
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let known = host.eq_ignore_ascii_case("localhost")
            || host == "127.0.0.1"
            || host == "[::1]"
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip == self.ip);
        // A port that does not parse is no port at all.
        let spelled = authority.as_str().len() > host.len();
        let port = if spelled { authority.port_u16() } else { Some(80) };
        known && port.is_some() && self.port.is_none_or(|own| port == Some(own))
    }
}

/// Serves until `stop`: the listener, its connections and their requests end with it.
pub async fn serve<H, F>(listener: TcpListener, hosts: Hosts, stop: CancellationToken, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accept = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let Some((permit, accepted)) = stop.run_until_cancelled(accept).await else { return };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, mostly: accepting again at once would only spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (handler, stop) = (handler.clone(), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let answer = hosts.accept(&request).then(|| handler(request));
                async move {
                    Ok::<_, Infallible>(match answer {
                        Some(answer) => answer.await,
                        None => text(StatusCode::MISDIRECTED_REQUEST, "this address has no such name\n"),
                    })
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(32 * 1024)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A peer that goes away in the middle is nobody's error here.
            let _ = stop.run_until_cancelled(connection).await;
        });
    }
}

/// An answer of any type; never cached, never guessed at.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// Plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

/// JSON.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    answer(status, "application/json", body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request<()> {
        let mut builder = Request::builder().uri(target);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn only_literal_loopback_addresses_are_opened() {
        for good in ["127.0.0.1:0", "127.8.9.1:80", "[::1]:8081", "localhost:8080"] {
            assert!(loopback(good).unwrap().ip().is_loopback(), "{good}");
        }
        for bad in [
            "0.0.0.0:8080",
            "[::]:8080",
            "192.168.1.4:8080",
            "[::ffff:127.0.0.1]:80",
            "example.com:80",
            "localhost.:80",
            "localhost.evil.test:80",
            "127.0.0.1",
            "localhost:",
            ":8080",
            "",
        ] {
            assert!(matches!(loopback(bad), Err(DoorError::NotLoopback(_))), "{bad}");
        }
    }

    #[test]
    fn p44_a_foreign_host_name_is_not_answered() {
        let hosts = Hosts::exactly("127.0.0.1:8081".parse().unwrap());
        for good in ["127.0.0.1:8081", "localhost:8081", "LocalHost:8081", "[::1]:8081"] {
            assert!(hosts.accept(&request("/", &[good])), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.0.0.1:08081x",
            "127.0.0.1:",
            "evil.test:8081",
            "localhost.evil.test:8081",
            "evil.test@127.0.0.1:8081",
            "127.0.0.2:8081",
            "127.1:8081",
            "",
        ] {
            assert!(!hosts.accept(&request("/", &[bad])), "{bad}");
        }
        assert!(!hosts.accept(&request("/", &[])), "none");
        assert!(!hosts.accept(&request("/", &["127.0.0.1:8081", "127.0.0.1:8081"])), "two");
        assert!(!hosts.accept(&request("http://evil.test:8081/", &["127.0.0.1:8081"])), "absolute form");
        assert!(hosts.accept(&request("http://127.0.0.1:8081/", &["127.0.0.1:8081"])));
    }

    #[test]
    fn a_backend_answers_to_the_port_of_the_proxy_before_it() {
        let hosts = Hosts::any_port("127.0.0.5:4000".parse().unwrap());
        for good in ["127.0.0.1:8080", "localhost", "127.0.0.5:4000"] {
            assert!(hosts.accept(&request("/", &[good])), "{good}");
        }
        assert!(!hosts.accept(&request("/", &["evil.test:4000"])));
    }
}
