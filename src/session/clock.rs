//! The one place where the wall clock is read. Tests may set it forward or back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A handle on the wall clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    shift_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Milliseconds since the epoch; 0 for a clock set before it.
    pub fn unix_ms(&self) -> u64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        real.saturating_add_signed(self.shift_ms.load(Ordering::Relaxed))
    }

    /// Seconds since the epoch.
    pub fn unix(&self) -> u64 {
        self.unix_ms() / 1000
    }

    /// Lets this clock, and all its handles, jump by so many milliseconds.
    pub fn shift(&self, ms: i64) {
        self.shift_ms.fetch_add(ms, Ordering::Relaxed);
    }
}
