//! The runtime's clock, which timers are set by, and waiting for a moment that may never come.

use std::time::Instant;
use tokio::time::sleep_until;

/// Now, by the clock that tests can stop.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until then; `None`: for ever.
pub async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
