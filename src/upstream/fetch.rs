//! Small documents from key servers, fetched with suspicion: no redirects, no proxies, no compression, little time, little space.

use crate::upstream::connect::Endpoint;
use crate::upstream::refresh;
use crate::upstream::target::Location;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// What may be used up by one fetch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Name service, TCP and TLS.
    pub connect: Duration,
    /// All of it.
    pub total: Duration,
    /// The body.
    pub size: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), total: Duration::from_secs(10), size: 256 * 1024 }
    }
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Where.
    pub location: Location,
    /// The `Accept` header.
    pub accept: &'static str,
    /// What we have already.
    pub validators: Validators,
}

/// For conditional requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validators {
    /// `ETag` of the last answer.
    pub etag: Option<HeaderValue>,
    /// `Last-Modified` of the last answer.
    pub last_modified: Option<HeaderValue>,
}

/// A good answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Fetched {
    /// 200
    Body {
        /// The document.
        body: Bytes,
        /// For the next request.
        validators: Validators,
        /// `Cache-Control`: `Some(0)` for `no-store` and `no-cache`.
        max_age: Option<Duration>,
    },
    /// 304
    NotModified {
        /// As above.
        max_age: Option<Duration>,
    },
}

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FetchError {
    /// Another status than 200 and 304; redirects are among them.
    #[error("status {0}")]
    Status(u16),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Somebody who fetches; the real one is [`Fetcher`].
pub trait Fetch: Send + Sync + 'static {
    /// Fetches one document.
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> BoxFuture<'a, Result<Fetched, FetchError>>;
}

/// Fetches over HTTP/1.1, one connection for each document.
pub struct Fetcher {
    tls: Arc<ClientConfig>,
    allow_http: bool,
    bounds: Bounds,
}

impl Fetcher {
    /// `allow_http`: plain HTTP to other machines too.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>, allow_http: bool, bounds: Bounds) -> Self {
        Self { tls, allow_http, bounds }
    }

    async fn exchange(&self, request: &FetchRequest) -> Result<Fetched, FetchError> {
        let target = &request.location.target;
        let mut endpoint = Endpoint::new(target, Some(&self.tls)).map_err(failed)?;
        if !target.tls && !self.allow_http {
            // `localhost` is what the name service makes of it.
            endpoint = endpoint.loopback_only();
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.bounds.connect).unwrap_or(now);
        let stream = endpoint.connect(deadline).await.map_err(|e| FetchError::Failed(format!("connecting: {e}")))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        // Ends with this function, whatever the server does.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(head(request)?).await.map_err(failed)?;
        self.read(response).await
    }

    async fn read(&self, response: http::Response<Incoming>) -> Result<Fetched, FetchError> {
        let (parts, body) = response.into_parts();
        let max_age = refresh::max_age(&parts.headers);
        match parts.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => return Ok(Fetched::NotModified { max_age }),
            other => return Err(FetchError::Status(other.as_u16())),
        }
        if parts.headers.get_all(header::CONTENT_ENCODING).iter().any(|v| v.as_bytes() != b"identity") {
            return Err(FetchError::Failed("a compressed answer that was not asked for".into()));
        }
        // What says that it is too large is not waited for.
        if body.size_hint().lower() > u64::try_from(self.bounds.size).unwrap_or(u64::MAX) {
            return Err(FetchError::Failed("the answer is too large".into()));
        }
        let body =
            Limited::new(body, self.bounds.size).collect().await.map_err(|e| FetchError::Failed(e.to_string()))?;
        let validators = validators(&parts.headers);
        Ok(Fetched::Body { body: body.to_bytes(), validators, max_age })
    }
}

impl Fetch for Fetcher {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let all = timeout(self.bounds.total, self.exchange(request)).await;
            all.unwrap_or_else(|_| Err(FetchError::Failed(format!("not done in {:?}", self.bounds.total))))
        })
    }
}

fn failed(error: impl std::error::Error) -> FetchError {
    FetchError::Failed(error.to_string())
}

fn validators(headers: &HeaderMap) -> Validators {
    let get = |name| headers.get(name).filter(|v: &&HeaderValue| v.len() <= 1024).cloned();
    Validators { etag: get(header::ETAG), last_modified: get(header::LAST_MODIFIED) }
}

fn head(request: &FetchRequest) -> Result<Request<Empty<Bytes>>, FetchError> {
    let mut head = Request::builder()
        .method(Method::GET)
        .uri(&request.location.path_and_query)
        .header(header::HOST, &request.location.target.authority)
        .header(header::ACCEPT, request.accept)
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::USER_AGENT, concat!("siogate/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if let Some(etag) = &request.validators.etag {
        head = head.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(last_modified) = &request.validators.last_modified {
        head = head.header(header::IF_MODIFIED_SINCE, last_modified);
    }
    head.body(Empty::new()).map_err(failed)
}

#[cfg(test)]
mod tests;
