//! The accept loop of a door.

use crate::listen::door::Door;
use crate::stream::Stream;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Without descriptors there is nothing to do but to wait until some are given back.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts until `stop`.
pub async fn run(door: Door, stop: CancellationToken, mut handle: impl FnMut(Stream, IpAddr)) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = door.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => handle(stream, peer),
            Err(error) if is_about_one_connection(&error) => tracing::debug!(%error, "connection lost before accept"),
            Err(error) => {
                tracing::error!(%error, door = door.address(), "cannot accept");
                sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidInput
    )
}
