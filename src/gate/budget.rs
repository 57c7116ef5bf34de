//! How often one address may ask for what is not there. Pure: `now` is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses remembered at once.
const MAX_ADDRESSES: usize = 10_000;

/// A token bucket for each address (IPv6: each /64, which is what one host usually has).
///
/// Each is kept as the moment at which it will be full again: nothing has to run to refill it, and an
/// address that has kept quiet for long enough needs no memory at all.
#[derive(Debug)]
pub struct Budget {
    burst: Duration,
    every: Duration,
    full_at: HashMap<IpAddr, Instant>,
}

impl Budget {
    /// `burst` at once, then one in `every`.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst: every.saturating_mul(burst), every, full_at: HashMap::new() }
    }

    /// Whether there is none left; takes nothing.
    pub fn is_spent(&self, address: IpAddr, now: Instant) -> bool {
        let Some(full_at) = self.full_at.get(&network(address)) else { return false };
        full_at.checked_add(self.every).is_none_or(|next| next.saturating_duration_since(now) > self.burst)
    }

    /// Takes one; `false` where there is none left.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let key = network(address);
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now);
        let Some(next) = full_at.checked_add(self.every) else { return false };
        if next.saturating_duration_since(now) > self.burst {
            return false;
        }
        if self.full_at.len() >= MAX_ADDRESSES && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= MAX_ADDRESSES {
                // So many that no memory would help: those who are known stay bounded.
                return true;
            }
        }
        self.full_at.insert(key, next);
        true
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn p14_a_burst_is_followed_by_a_steady_pace() {
        let (mut budget, now, ip) = (Budget::new(100, EVERY), Instant::now(), address("192.0.2.1"));
        assert!((0..100).all(|_| !budget.is_spent(ip, now) && budget.take(ip, now)));
        assert!(budget.is_spent(ip, now) && !budget.is_spent(ip, now + EVERY));
        assert!(!budget.take(ip, now) && !budget.take(ip, now + EVERY - Duration::from_millis(1)));
        assert!(budget.take(ip, now + EVERY) && !budget.take(ip, now + EVERY));
        assert!((0..100).all(|_| budget.take(ip, now + EVERY * 101)));
        assert!(!budget.take(ip, now + EVERY * 101));
    }

    #[test]
    fn p14_addresses_do_not_share_a_budget_but_a_network_of_one_host_does() {
        let (mut budget, now) = (Budget::new(1, EVERY), Instant::now());
        for (text, fine) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::ffff:1", false),
            ("2001:db8:0:1::1", true),
        ] {
            assert_eq!(budget.take(address(text), now), fine, "{text}");
        }
    }

    #[test]
    fn p14_memory_is_bounded_and_given_back() {
        let (mut budget, now) = (Budget::new(2, EVERY), Instant::now());
        for n in 0..20_000_u32 {
            assert!(budget.take(IpAddr::V4(n.into()), now));
        }
        assert_eq!(budget.full_at.len(), MAX_ADDRESSES);
        let known = IpAddr::V4(1.into());
        assert!(budget.take(known, now) && !budget.take(known, now), "those who are known stay bounded");
        assert!(budget.take(address("192.0.2.1"), now + EVERY * 2));
        assert_eq!(budget.full_at.len(), 1);
    }

    #[test]
    fn a_budget_of_nothing_gives_nothing() {
        assert!(!Budget::new(0, EVERY).take(address("192.0.2.1"), Instant::now()));
    }
}
