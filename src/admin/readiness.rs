//! Ready means: the issuers' keys are loaded, a backend answers, and nobody asked for a shutdown.

use crate::session::registry::Registry;
use crate::upstream::jwks::KeyFetcher;
use crate::upstream::pool::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// What readiness depends on.
#[derive(Clone)]
pub struct Readiness {
    /// Keys of issuers, and behind them those of transmitters.
    pub keys: KeyFetcher,
    /// How many issuers there are.
    pub issuers: usize,
    /// Backends.
    pub pool: Pool,
    /// Who is inside.
    pub registry: Registry,
    /// Set when the drain begins.
    pub draining: Arc<AtomicBool>,
}

impl Readiness {
    /// What is missing; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let checks = [
            ("draining", !self.draining.load(Ordering::Relaxed)),
            ("keys_unavailable", !self.keys.lacking().any(|index| index < self.issuers)),
            ("upstream_unavailable", self.pool.healthy_count(Instant::now()) > 0),
        ];
        checks.into_iter().filter(|(_, fine)| !fine).map(|(word, _)| word).collect()
    }

    /// What is out of order, but keeps nobody out: every gate would be taken away at once.
    pub fn ailing(&self) -> Vec<&'static str> {
        let deaf = self.keys.lacking().any(|index| index >= self.issuers);
        deaf.then_some("transmitter_keys_unavailable").into_iter().collect()
    }
}
