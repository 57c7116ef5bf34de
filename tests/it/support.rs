//! What every promise is tested with: a gate in this process, backends and clients that misbehave on command.

pub mod backend;
pub mod certs;
pub mod client;
pub mod frames;
pub mod gate;
pub mod jwks;
pub mod logs;
pub mod poller;
pub mod redis;
pub mod tokens;

use std::future::Future;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Whatever is waited for comes within this time, or never: an upper bound, not a pace.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for something that has to come.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

/// Waits for a count that nobody announces.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let poll = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, poll).await;
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
