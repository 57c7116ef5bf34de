//! Plain HTTP to the backends, over connections that are used again.

use crate::upstream::pool::{Backend, Pool};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Idle connections kept to one backend.
const MAX_IDLE: usize = 64;
/// Idle connections are not used again after this: shorter than the 5 s after which Node closes them,
/// so that a request does not meet a connection on its way out.
const IDLE_LIFE: Duration = Duration::from_secs(4);
/// hyper's own buffer for heads; the default is 400 kB.
const MAX_BUFFER: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// Headers about one connection that must not be taken over to another. (Those *named in* `Connection` are the caller's to
/// remove, before it adds identity headers: here a client could name one of those and have it removed.)
const HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "transfer-encoding",
    "http2-settings",
    "proxy-authorization",
];

/// A pool of connections for requests that are not WebSockets; a cheap handle. When the last one is dropped, so are its
/// connections.
#[derive(Clone)]
pub struct ProxyClient(Arc<Inner>);

struct Inner {
    pool: Pool,
    connect_timeout: Duration,
    idle: Vec<Mutex<Vec<Idle>>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Idle {
    sender: SendRequest<AnyBody>,
    since: Instant,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No backend could be reached; nothing of the request was sent.
    #[error("no backend answers: {detail}")]
    Unavailable {
        /// For the operator.
        detail: String,
    },
    /// A backend was reached, but the exchange broke; it may have seen the request.
    #[error("the exchange with the backend failed: {detail}")]
    Broken {
        /// For the operator.
        detail: String,
    },
    /// The request cannot be sent.
    #[error("{detail}")]
    Invalid {
        /// For the operator.
        detail: String,
    },
}

enum Attempt {
    Done(Response<Incoming>),
    Failed(ProxyError),
    /// Nothing was sent; the request comes back unharmed.
    Retry(Box<Request<AnyBody>>, String),
}

impl ProxyClient {
    /// A client for the backends of `pool`; nothing is dialled yet.
    #[must_use]
    pub fn new(pool: Pool, connect_timeout: Duration) -> Self {
        let idle = pool.backends().iter().map(|_| Mutex::default()).collect();
        Self(Arc::new(Inner { pool, connect_timeout, idle, tasks: Mutex::default() }))
    }

    /// Sends a request in HTTP/1.1 and returns the answer's head; its body follows as it comes. Without a `host` header the
    /// backend's own is sent. How long the answer may take is the caller's business.
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ProxyError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = prepare(request)?;
        let has_host = request.headers().contains_key(header::HOST);
        let mut last = String::new();
        for backend in self.0.pool.candidates(Instant::now()) {
            if !has_host {
                request.headers_mut().insert(header::HOST, backend.host.clone());
            }
            match self.0.attempt(&backend, request).await {
                Attempt::Done(response) => return Ok(response),
                Attempt::Failed(error) => return Err(error),
                Attempt::Retry(back, detail) => {
                    tracing::debug!(backend = %backend.url, %detail, "connection failed");
                    last = format!("{}: {detail}", backend.url);
                    request = *back;
                }
            }
        }
        Err(ProxyError::Unavailable { detail: last })
    }
}

impl Inner {
    async fn attempt(self: &Arc<Self>, backend: &Arc<Backend>, mut request: Request<AnyBody>) -> Attempt {
        while let Some(sender) = self.checkout(backend.id) {
            match self.exchange(backend, sender, request).await {
                // The backend closed it meanwhile; perhaps another one is alive.
                Attempt::Retry(back, _) => request = *back,
                done => return done,
            }
        }
        // Boxed: most requests find a connection that is open.
        let sender = match Box::pin(self.connect(backend)).await {
            Ok(sender) => sender,
            Err(detail) => {
                self.pool.failed(backend, Instant::now());
                return Attempt::Retry(Box::new(request), detail);
            }
        };
        let outcome = self.exchange(backend, sender, request).await;
        if matches!(outcome, Attempt::Retry(..)) {
            self.pool.failed(backend, Instant::now());
        }
        outcome
    }

    async fn connect(&self, backend: &Backend) -> Result<SendRequest<AnyBody>, String> {
        let now = Instant::now();
        let deadline = now.checked_add(self.connect_timeout).unwrap_or(now);
        let stream = backend.endpoint.connect(deadline).await.map_err(|e| e.to_string())?;
        let handshake = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|e| e.to_string())?;
        self.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a backend ended");
            }
        });
        Ok(sender)
    }

    async fn exchange(
        self: &Arc<Self>,
        backend: &Arc<Backend>,
        mut sender: SendRequest<AnyBody>,
        request: Request<AnyBody>,
    ) -> Attempt {
        match sender.try_send_request(request).await {
            // Nobody asked for an upgrade here. The connection goes with `sender` and the response.
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Attempt::Failed(ProxyError::Broken { detail: "101 that nobody asked for".into() })
            }
            Ok(response) => {
                self.pool.succeeded(backend);
                self.put_back(backend.id, sender);
                Attempt::Done(response)
            }
            Err(mut error) => {
                let message = error.take_message();
                let detail = error.error().to_string();
                match message {
                    Some(request) => Attempt::Retry(Box::new(request), detail),
                    None => Attempt::Failed(ProxyError::Broken { detail }),
                }
            }
        }
    }

    /// The youngest idle connection that is still good; the old ones before it are closed.
    fn checkout(&self, backend: usize) -> Option<SendRequest<AnyBody>> {
        let now = Instant::now();
        let mut idle = self.idle.get(backend)?.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(entry) = idle.pop() {
            if now.saturating_duration_since(entry.since) >= IDLE_LIFE {
                idle.clear();
                return None;
            }
            if entry.sender.is_ready() {
                return Some(entry.sender);
            }
        }
        None
    }

    /// Keeps the connection once the response has been read to its end.
    fn put_back(self: &Arc<Self>, backend: usize, mut sender: SendRequest<AnyBody>) {
        if sender.is_ready() {
            self.keep(backend, sender);
        } else if !sender.is_closed() {
            // Weak: a task that waits for a slow reader must not keep the client, which holds the task, alive.
            let inner: Weak<Self> = Arc::downgrade(self);
            self.spawn(async move {
                if sender.ready().await.is_ok()
                    && let Some(inner) = inner.upgrade()
                {
                    inner.keep(backend, sender);
                }
            });
        }
    }

    fn keep(&self, backend: usize, sender: SendRequest<AnyBody>) {
        let Some(idle) = self.idle.get(backend) else { return };
        let now = Instant::now();
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|e| !e.sender.is_closed() && now.saturating_duration_since(e.since) < IDLE_LIFE);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender, since: now });
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Origin form, HTTP/1.1, no headers about the other connection.
fn prepare<B>(request: Request<B>) -> Result<Request<AnyBody>, ProxyError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(ProxyError::Invalid { detail: "CONNECT is not passed on".into() });
    }
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if !path.as_str().starts_with('/') {
        return Err(ProxyError::Invalid { detail: "the path cannot be sent".into() });
    }
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    for name in HOP {
        parts.headers.remove(name);
    }
    Ok(Request::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
}

#[cfg(test)]
mod tests;
