//! Sessions that have no user yet, and how many of them an address may have.

use crate::session::registry::Capacity;
use std::collections::HashMap;
use std::net::IpAddr;

/// How many wait, and where they come from.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) total: usize,
    pub(super) by_ip: HashMap<IpAddr, usize>,
}

impl Waiting {
    /// One more; `false` where there is no room.
    pub(super) fn enter(&mut self, ip: IpAddr, capacity: Capacity) -> bool {
        let from_ip = self.by_ip.get(&ip).copied().unwrap_or(0);
        let room = self.total < capacity.unauthenticated && from_ip < capacity.unauthenticated_per_ip;
        if room {
            self.total += 1;
            self.by_ip.insert(ip, from_ip + 1);
        }
        room
    }

    /// One fewer.
    pub(super) fn leave(&mut self, ip: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Some(n) = self.by_ip.get_mut(&ip) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.by_ip.remove(&ip);
            }
        }
    }
}

/// The address that limits count by: IPv6 by /64, which is what one host usually has.
pub(super) fn bucket(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        v4 => v4,
    }
}
