//! The public door: TLS, then HTTP/1.1, then the gateway.
//!
//! Every connection is a task of the tracker; it ends when its peer leaves, when the process drains
//! (after the request that is under way), or when it becomes a WebSocket and is a session's.

use crate::listen::accept;
use crate::listen::door::Door;
use crate::proxy::context::Context;
use crate::proxy::gateway::{self, Connection};
use crate::stream::{Patient, Stream};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;

/// A TLS handshake has to be done within this time.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// TLS handshakes under way at once; more wait their turn within their time.
const HANDSHAKES: usize = 1024;

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
                tasks.spawn(serve(context, stream, peer, stop));
            }
            Some(tls) => {
                let handshakes = handshakes.clone();
                tasks.spawn(async move {
                    let secured = timeout(HANDSHAKE, secure(tls, stream, &handshakes)).await;
                    if let Ok(Some(stream)) = secured {
                        serve(context, stream, peer, stop).await;
                    }
                });
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

async fn serve(context: Arc<Context>, stream: Stream, peer: IpAddr, stop: CancellationToken) {
    let limits = context.config.limits.clone();
    let patience = context.config.server.drain_timeout;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(limits.max_header_size.max(MIN_BUFFER));
    let service = service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(gateway::handle(context, Connection { peer }, request).await) }
    });
    let stream = Patient::new(stream, limits.write_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Half a request must not outlive the drain.
            timeout(patience, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
