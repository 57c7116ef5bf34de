//! The public door: TLS, then HTTP/1.1, then the gateway.
//!
//! Every connection is a task of the tracker; it ends when its peer leaves, when the process drains
//! (after the request that is under way), or when it becomes a WebSocket and is a session's.

use crate::listen::accept;
use crate::listen::door::Door;
use crate::listen::front::{self, First};
use crate::listen::requests::{self, Left};
use crate::proxy::context::Context;
use crate::proxy::gateway::{self, Connection};
use crate::proxy::polling::Unseen;
use crate::proxy::reply::Inbound;
use crate::proxy::takeover::{Running, Switched, Takeover};
use crate::stream::{Patient, Stream};
use bytes::Bytes;
use http::Request;
use http::header::{self, HeaderValue};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;

/// A TLS handshake has to be done within this time.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// TLS handshakes under way at once; more wait their turn within their time.
const HANDSHAKES: usize = 1024;

/// A client that was sent a 101 by hyper has so long to take it.
const SWITCH: Duration = Duration::from_secs(10);

/// Headers of one request; hyper answers 431 to more.
const MAX_HEADERS: usize = 100;

/// hyper's smallest buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// Serves a door until `stop`.
pub async fn run(context: Arc<Context>, door: Door, tls: Option<TlsAcceptor>, stop: CancellationToken) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let stopping = stop.clone();
    accept::run(door, stop, move |stream, peer| {
        let (context, stop) = (context.clone(), stopping.clone());
        let tasks = context.tasks.clone();
        match tls.clone() {
            None => {
                tasks.spawn(Serving::Beginning(Box::pin(begin(context, stream, peer, stop))));
            }
            Some(tls) => {
                let handshakes = handshakes.clone();
                tasks.spawn(Serving::Beginning(Box::pin(async move {
                    let secured = Box::pin(timeout(HANDSHAKE, secure(tls, stream, &handshakes))).await;
                    Box::pin(begin(context, secured.ok()??, peer, stop)).await
                })));
            }
        }
    })
    .await;
}

async fn secure(tls: TlsAcceptor, stream: Stream, handshakes: &Semaphore) -> Option<Stream> {
    let Stream::Tcp(stream) = stream else { return Some(stream) };
    let _permit = handshakes.acquire().await.ok()?;
    match tls.accept(stream).await {
        Ok(stream) => Some(Stream::Tls(Box::new(TlsStream::Server(stream)))),
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// A connection's task: what it begins with, then the session that comes of it. Two pointers, so that the runtime
/// gives thousands of them its smallest room; what came before a session is gone.
enum Serving<B> {
    Beginning(Pin<Box<B>>),
    Session(Running),
}

impl<B: Future<Output = Option<Running>>> Future for Serving<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<()> {
        if let Serving::Beginning(beginning) = &mut *self {
            let Some(session) = ready!(beginning.as_mut().poll(cx)) else { return Poll::Ready(()) };
            *self = Serving::Session(session);
        }
        match &mut *self {
            Serving::Session(session) => session.as_mut().poll(cx),
            Serving::Beginning(_) => Poll::Pending,
        }
    }
}

/// HTTP, until it ends or becomes a session. Boxed one by one, for the same reason.
async fn begin(context: Arc<Context>, mut stream: Stream, peer: IpAddr, stop: CancellationToken) -> Option<Running> {
    let limits = &context.config.limits;
    let first = tokio::select! {
        // Nearly always it is there: then nobody has to be told of the stop.
        biased;
        first = front::first(&mut stream, limits.max_header_size.max(MIN_BUFFER), limits.header_timeout) => first,
        () = stop.cancelled() => return None,
    };
    match first {
        First::Upgrade(request, read) => Box::pin(switch(context, stream, peer, request, read)).await,
        First::Other(read) => match Box::pin(requests::serve(&context, stream, read, peer, &stop)).await {
            Left::Upgrade(stream, request, read) => Box::pin(switch(context, stream, peer, request, read)).await,
            Left::Other(stream, read) => {
                let patience = limits.write_timeout;
                Box::pin(converse(context, Patient::new(read, stream, patience), peer, stop)).await;
                None
            }
            Left::Closed => None,
        },
        First::Closed => None,
    }
}

/// Answers a handshake that was read here; the session that it becomes is the connection's from then on.
async fn switch(
    context: Arc<Context>,
    stream: Stream,
    peer: IpAddr,
    request: Box<Request<Inbound>>,
    read: Bytes,
) -> Option<Running> {
    let patience = context.config.limits.header_timeout;
    let mut answer = gateway::handle(context, Connection { peer }, request).await;
    let Some(takeover) = Takeover::take(&mut answer) else {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        front::refuse(stream, answer, patience).await;
        return None;
    };
    let mut head = front::head(&answer);
    head.extend_from_slice(b"\r\n");
    Some(takeover.start(Switched { stream, read, head }))
}

/// Everything but a first handshake: HTTP/1.1 by hyper.
async fn converse(context: Arc<Context>, stream: Patient, peer: IpAddr, stop: CancellationToken) {
    let (limits, drain) = (&context.config.limits, context.config.server.drain_timeout);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(limits.max_header_size.max(MIN_BUFFER));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let context = context.clone();
        let unseen = Unseen::of(&context, &request);
        async move {
            unseen.seen();
            let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
            let tasks = context.tasks.clone();
            let mut answer = gateway::handle(context, Connection { peer }, Box::new(request.map(Either::Left))).await;
            if let (Some(takeover), Some(upgrade)) = (Takeover::take(&mut answer), upgrade) {
                tasks.spawn(take_over(takeover, upgrade));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Half a request must not outlive the drain.
            timeout(drain, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// A handshake on a connection that was used before: hyper writes the 101 and hands the socket over.
async fn take_over(takeover: Takeover, upgrade: OnUpgrade) {
    let Ok(Ok(upgraded)) = timeout(SWITCH, upgrade).await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<Patient>>() else { return };
    let stream = parts.io.into_inner().into_inner();
    takeover.start(Switched { stream, read: parts.read_buf, head: Vec::new() }).await;
}
