//! When to fetch keys again: pure arithmetic over ages, failures and wishes.

use http::{HeaderMap, header};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;
use tokio::time::Instant;

/// Where the server does not say how long its answer holds.
const DEFAULT_AGE: Duration = Duration::from_secs(10 * 60);
const MIN_AGE: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(6 * 3600);
/// Failures: 1 s, 2 s, 4 s, … 60 s.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Between fetches that a token's unknown key id has caused.
pub const FORCED_EVERY: Duration = Duration::from_secs(30);
/// A key id that a fetch did not bring is not asked for again so soon.
const NEGATIVE_LIFE: Duration = Duration::from_secs(60);
/// Key ids remembered as absent.
const MAX_NEGATIVE: usize = 1024;

/// `max-age` of `Cache-Control`; `no-store` and `no-cache` are 0.
#[must_use]
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    let mut found = None;
    for directive in values.flat_map(|v| v.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => found = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs).or(found),
            _ => {}
        }
    }
    found
}

/// The pause after a good answer: 0.8 of what it allows, ±10 %. `random` is in 0..=65535.
#[must_use]
pub fn after_success(max_age: Option<Duration>, random: u16) -> Duration {
    jitter(max_age.unwrap_or(DEFAULT_AGE).clamp(MIN_AGE, MAX_AGE).mul_f64(0.8), random)
}

/// The pause after the `failures`th failure in a row, counted from 1.
#[must_use]
pub fn after_failure(failures: u32, random: u16) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
    jitter(FIRST_RETRY.saturating_mul(factor).min(LAST_RETRY), random)
}

/// ±10 %, so that many gates do not ask at once.
fn jitter(pause: Duration, random: u16) -> Duration {
    pause.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u16::MAX))
}

/// Key ids that are known not to be in the set: bounded, forgetful, and without the ids themselves, which may be 8 KiB long.
#[derive(Debug, Default)]
pub struct Absent {
    hasher: RandomState,
    until: HashMap<u64, Instant>,
}

impl Absent {
    /// Has `kid` been asked for lately?
    #[must_use]
    pub fn contains(&self, kid: Option<&str>, now: Instant) -> bool {
        self.until.get(&self.hasher.hash_one(kid)).is_some_and(|until| *until > now)
    }

    /// Remembers `kid`. When full, everything is forgotten: fetches are rate-limited anyway.
    pub fn insert(&mut self, kid: Option<&str>, now: Instant) {
        if self.until.len() >= MAX_NEGATIVE {
            self.until.retain(|_, until| *until > now);
            if self.until.len() >= MAX_NEGATIVE {
                self.until.clear();
            }
        }
        if let Some(until) = now.checked_add(NEGATIVE_LIFE) {
            self.until.insert(self.hasher.hash_one(kid), until);
        }
    }

    /// Forgets everything: a fetch failed, so nothing is known.
    pub fn clear(&mut self) {
        self.until.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn age(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        max_age(&headers).map(|age| age.as_secs())
    }

    #[test]
    fn cache_control_is_read() {
        assert_eq!(age(&[]), None);
        assert_eq!(age(&["public, max-age=300, must-revalidate"]), Some(300));
        assert_eq!(age(&["public", "Max-Age = \"7\""]), Some(7));
        assert_eq!(age(&["max-age=300, no-store"]), Some(0));
        assert_eq!(age(&["no-cache"]), Some(0));
        assert_eq!(age(&["max-age=abc"]), None);
        assert_eq!(age(&["max-age=-1"]), None);
        assert_eq!(age(&["s-maxage=5"]), None);
        assert_eq!(age(&["max-age=18446744073709551615"]), Some(u64::MAX));
    }

    #[test]
    fn pauses_after_success_are_clamped_shortened_and_spread() {
        let pause = |age: Option<u64>, random| after_success(age.map(Duration::from_secs), random).as_secs_f64();
        assert!((pause(Some(1000), 0) - 720.0).abs() < 0.01);
        assert!((pause(Some(1000), u16::MAX) - 880.0).abs() < 0.01);
        assert!((pause(Some(0), 0) - 43.2).abs() < 0.01);
        assert!((pause(Some(u64::MAX), u16::MAX) - 19_008.0).abs() < 0.01);
        assert!((pause(None, 0) - 432.0).abs() < 0.01);
    }

    #[test]
    fn pauses_after_failures_double_to_a_minute() {
        let middle = u16::MAX / 2;
        let pauses: Vec<_> = (1..=9).map(|n| after_failure(n, middle).as_secs_f64().round()).collect();
        assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
        assert!(after_failure(u32::MAX, 0) < Duration::from_secs(61));
    }

    #[test]
    fn absent_keys_are_remembered_for_a_while() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        absent.insert(Some("a"), now);
        assert!(absent.contains(Some("a"), now));
        assert!(!absent.contains(Some("b"), now));
        assert!(!absent.contains(None, now));
        assert!(!absent.contains(Some("a"), now + NEGATIVE_LIFE));
    }

    #[test]
    fn j26_absent_keys_are_bounded() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        for i in 0..10_000 {
            absent.insert(Some(&i.to_string()), now);
            assert!(absent.until.len() <= MAX_NEGATIVE);
        }
    }
}
