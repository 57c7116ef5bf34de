//! The one task that watches the clocks.

use crate::session::clock::Clock;
use crate::session::registry::Registry;
use std::time::{Duration, Instant};

/// Dead legs are looked for this often.
pub const SWEEP: Duration = Duration::from_secs(5);

/// The wall clock is looked at no later than this after the last time: it may have been set.
const SLICE: Duration = Duration::from_secs(1);

/// Runs for as long as it is polled.
pub async fn run(registry: Registry, clock: Clock) {
    let mut next_sweep = now() + SWEEP;
    let idle = registry.idle_sweep();
    let mut next_idle = idle.map(|every| now() + every);
    loop {
        let now = now();
        registry.reap(now, clock.unix_ms());
        registry.mark();
        if now >= next_sweep {
            registry.sweep(now);
            next_sweep = now + SWEEP;
        }
        if let (Some(every), Some(at)) = (idle, next_idle)
            && now >= at
        {
            registry.sweep_idle();
            next_idle = Some(now + every);
        }
        let next = [registry.next_end(), next_idle].into_iter().flatten().min();
        let slice = now + SLICE;
        let until = next.map_or(slice, |next| next.min(slice));
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = registry.earlier() => {}
        }
    }
}

/// The runtime's clock, which timers are set by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
