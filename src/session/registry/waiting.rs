//! Sessions that have no user yet, and how many of them an address may have.

use crate::session::registry::Capacity;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
        if self.total >= capacity.unauthenticated {
            return false;
        }
        let from_ip = self.by_ip.entry(ip).or_insert(0);
        let room = *from_ip < capacity.unauthenticated_per_ip;
        if room {
            *from_ip += 1;
            self.total += 1;
        } else if *from_ip == 0 {
            // The bound is 0: nobody waits, and nobody is remembered.
            self.by_ip.remove(&ip);
        }
        room
    }

    /// One fewer.
    pub(super) fn leave(&mut self, ip: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Entry::Occupied(mut from_ip) = self.by_ip.entry(ip) {
            match from_ip.get() {
                0 | 1 => {
                    from_ip.remove();
                }
                _ => *from_ip.get_mut() -= 1,
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
