//! Small documents from key servers and other endpoints, fetched with suspicion: no redirects, no proxies, no
//! compression, little time, little space.

use crate::upstream::connect::Endpoint;
use crate::upstream::refresh;
use crate::upstream::target::Location;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
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

/// A question to an endpoint. No `Debug`: its headers and body hold credentials.
#[derive(Clone)]
pub struct Question<'a> {
    /// GET or POST.
    pub method: Method,
    /// Where.
    pub location: &'a Location,
    /// More headers than every request has.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What an endpoint answers, whatever its status. No `Debug`: it may repeat what it was asked.
#[derive(Clone)]
pub struct Reply {
    /// The status; redirects are not followed.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
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

    /// Asks an endpoint.
    ///
    /// # Errors
    /// [`FetchError::Failed`] where there is no answer, or none that is whole in the bounds.
    pub async fn ask(&self, question: Question<'_>) -> Result<Reply, FetchError> {
        let asked = async {
            let (method, location) = (question.method, question.location);
            let mut request = begun(method, location).body(Full::new(question.body)).map_err(failed)?;
            if question.headers.contains_key(header::USER_AGENT) {
                request.headers_mut().remove(header::USER_AGENT);
            }
            for (name, value) in &question.headers {
                if !OURS.contains(name) {
                    request.headers_mut().append(name, value.clone());
                }
            }
            let (response, _driver) = self.send(location, request).await?;
            let (parts, body) = response.into_parts();
            let body = self.whole(&parts.headers, body).await?;
            Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        let all = timeout(self.bounds.total, asked).await;
        all.unwrap_or_else(|_| Err(FetchError::Failed(format!("not done in {:?}", self.bounds.total))))
    }

    async fn exchange(&self, request: &FetchRequest) -> Result<Fetched, FetchError> {
        let (response, _driver) = self.send(&request.location, head(request)?).await?;
        self.read(response).await
    }

    async fn send(
        &self,
        location: &Location,
        request: Request<Full<Bytes>>,
    ) -> Result<(http::Response<Incoming>, JoinSet<hyper::Result<()>>), FetchError> {
        let target = &location.target;
        let mut endpoint = Endpoint::new(target, Some(&self.tls)).map_err(failed)?;
        if !target.tls && !self.allow_http {
            // `localhost` is what the name service makes of it.
            endpoint = endpoint.loopback_only();
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.bounds.connect).unwrap_or(now);
        let stream = endpoint.connect(deadline).await.map_err(|e| FetchError::Failed(format!("connecting: {e}")))?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(64 * 1024).handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with its caller, whatever the server does.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok((sender.send_request(request).await.map_err(failed)?, driver))
    }

    async fn read(&self, response: http::Response<Incoming>) -> Result<Fetched, FetchError> {
        let (parts, body) = response.into_parts();
        let max_age = refresh::max_age(&parts.headers);
        match parts.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => return Ok(Fetched::NotModified { max_age }),
            other => return Err(FetchError::Status(other.as_u16())),
        }
        let body = self.whole(&parts.headers, body).await?;
        Ok(Fetched::Body { body, validators: validators(&parts.headers), max_age })
    }

    async fn whole(&self, headers: &HeaderMap, body: Incoming) -> Result<Bytes, FetchError> {
        if headers.get_all(header::CONTENT_ENCODING).iter().any(|v| v.as_bytes() != b"identity") {
            return Err(FetchError::Failed("a compressed answer that was not asked for".into()));
        }
        // What says that it is too large is not waited for.
        if body.size_hint().lower() > u64::try_from(self.bounds.size).unwrap_or(u64::MAX) {
            return Err(FetchError::Failed("the answer is too large".into()));
        }
        let body =
            Limited::new(body, self.bounds.size).collect().await.map_err(|e| FetchError::Failed(e.to_string()))?;
        Ok(body.to_bytes())
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

/// Headers that are never a caller's.
const OURS: [header::HeaderName; 5] =
    [header::HOST, header::ACCEPT_ENCODING, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

fn begun(method: Method, location: &Location) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(&location.path_and_query)
        .header(header::HOST, &location.target.authority)
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::USER_AGENT, concat!("siogate/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
}

fn head(request: &FetchRequest) -> Result<Request<Full<Bytes>>, FetchError> {
    let mut head = begun(Method::GET, &request.location).header(header::ACCEPT, request.accept);
    if let Some(etag) = &request.validators.etag {
        head = head.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(last_modified) = &request.validators.last_modified {
        head = head.header(header::IF_MODIFIED_SINCE, last_modified);
    }
    head.body(Full::default()).map_err(failed)
}

#[cfg(test)]
mod tests;
