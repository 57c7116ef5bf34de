//! Ready means: keys are loaded, a backend answers, and nobody asked for a shutdown.

use crate::session::registry::Registry;
use crate::upstream::jwks::KeyFetcher;
use crate::upstream::pool::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// What readiness depends on.
#[derive(Clone)]
pub struct Readiness {
    /// Issuers' keys.
    pub keys: KeyFetcher,
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
            ("keys_unavailable", self.keys.ready()),
            ("upstream_unavailable", self.pool.healthy_count(Instant::now()) > 0),
        ];
        checks.into_iter().filter(|(_, fine)| !fine).map(|(word, _)| word).collect()
    }
}
