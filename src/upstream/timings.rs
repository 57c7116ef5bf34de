//! What the gate says in its own OPEN: the backend's numbers, to the digit.

use crate::config::model;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// A number beyond a day is not a heartbeat but a mistake.
const LONGEST_MS: u64 = 24 * 3600 * 1000;

/// `pingInterval` and `pingTimeout` in milliseconds, `maxPayload` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// `pingInterval`
    pub ping_interval: u64,
    /// `pingTimeout`
    pub ping_timeout: u64,
    /// `maxPayload`
    pub max_payload: u64,
}

impl Default for Numbers {
    /// Socket.IO's own.
    fn default() -> Self {
        Self { ping_interval: 25_000, ping_timeout: 20_000, max_payload: 1_000_000 }
    }
}

/// Fixed by the configuration, else learned, else the defaults; a cheap handle.
#[derive(Clone, Debug)]
pub struct Timings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ping_interval: Option<u64>,
    ping_timeout: Option<u64>,
    max_payload: Option<u64>,
    current: ArcSwap<Numbers>,
}

impl Timings {
    /// Starts from the configuration.
    #[must_use]
    pub fn new(config: &model::SocketIo) -> Self {
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let mut inner = Inner {
            ping_interval: config.ping_interval.map(ms),
            ping_timeout: config.ping_timeout.map(ms),
            max_payload: config.max_payload,
            current: ArcSwap::default(),
        };
        inner.current = ArcSwap::from_pointee(inner.fixed(Numbers::default()));
        Self(Arc::new(inner))
    }

    /// What to say now.
    #[must_use]
    pub fn current(&self) -> Numbers {
        **self.0.current.load()
    }

    /// Takes over what a backend said in an OPEN. A number that is missing or cannot be meant changes nothing.
    pub fn learn(&self, ping_interval: u64, ping_timeout: u64, max_payload: Option<u64>) {
        let old = self.current();
        let usable = |ms: u64, old: u64| if (1..=LONGEST_MS).contains(&ms) { ms } else { old };
        let new = self.0.fixed(Numbers {
            ping_interval: usable(ping_interval, old.ping_interval),
            ping_timeout: usable(ping_timeout, old.ping_timeout),
            max_payload: max_payload.filter(|n| *n > 0).unwrap_or(old.max_payload),
        });
        if new != old {
            tracing::info!(
                ping_interval = new.ping_interval,
                ping_timeout = new.ping_timeout,
                max_payload = new.max_payload,
                "learned the backend's timings"
            );
            self.0.current.store(Arc::new(new));
        }
    }
}

impl Inner {
    fn fixed(&self, numbers: Numbers) -> Numbers {
        Numbers {
            ping_interval: self.ping_interval.unwrap_or(numbers.ping_interval),
            ping_timeout: self.ping_timeout.unwrap_or(numbers.ping_timeout),
            max_payload: self.max_payload.unwrap_or(numbers.max_payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn numbers(ping_interval: u64, ping_timeout: u64, max_payload: u64) -> Numbers {
        Numbers { ping_interval, ping_timeout, max_payload }
    }

    #[test]
    fn the_defaults_are_those_of_socket_io() {
        assert_eq!(Timings::new(&model::SocketIo::default()).current(), numbers(25_000, 20_000, 1_000_000));
    }

    #[test]
    fn learned_numbers_are_said_to_the_digit_by_every_handle() {
        let timings = Timings::new(&model::SocketIo::default());
        let other = timings.clone();
        timings.learn(301, 202, Some(123_457));
        assert_eq!(other.current(), numbers(301, 202, 123_457));
    }

    #[test]
    fn what_the_configuration_fixes_is_never_learned() {
        let config = model::SocketIo {
            ping_interval: Some(Duration::from_millis(1234)),
            max_payload: Some(77),
            ..model::SocketIo::default()
        };
        let timings = Timings::new(&config);
        assert_eq!(timings.current(), numbers(1234, 20_000, 77));
        timings.learn(1, 2, Some(3));
        assert_eq!(timings.current(), numbers(1234, 2, 77));
    }

    #[test]
    fn numbers_that_cannot_be_meant_change_nothing() {
        let timings = Timings::new(&model::SocketIo::default());
        timings.learn(100, 50, Some(9));
        timings.learn(0, u64::MAX, Some(0));
        timings.learn(LONGEST_MS + 1, 0, None);
        assert_eq!(timings.current(), numbers(100, 50, 9));
    }
}
