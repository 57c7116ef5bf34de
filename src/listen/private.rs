//! The private door: plain HTTP for the operator.

use crate::admin::routes::{self, Admin};
use crate::listen::accept;
use crate::listen::door::Door;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `stop`; connections end with it.
pub async fn run(admin: Arc<Admin>, door: Door, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    accept::run(door, stop, |stream, _| {
        while connections.try_join_next().is_some() {}
        let admin = admin.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(routes::answer(&admin, request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    })
    .await;
}
