//! To whom the backend gave which recovery id (Socket.IO's connection state recovery).
//!
//! The backend does not look at identity when a client comes back with a `pid`: whoever knows it gets
//! the rooms and the data. So the gate remembers the user of each, and takes `pid` and `offset` out of
//! anybody else's CONNECT. Only digests are kept: a `pid` is a secret.

use crate::gate::admission::User;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long an id is remembered after its session was last seen. The backend's own default is two minutes.
pub const MEMORY: Duration = Duration::from_secs(3600);

type Digest = [u8; 16];

/// A bounded table of recovery ids.
#[derive(Debug)]
pub struct Owners {
    owners: HashMap<Digest, (Digest, Instant)>,
    order: VecDeque<(Instant, Digest)>,
    capacity: usize,
}

impl Owners {
    /// Remembers at most `capacity` ids; the oldest make room.
    pub fn new(capacity: usize) -> Self {
        Self { owners: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// The backend gave `pid` to `user`, or `user`'s session with it has just ended.
    pub fn remember(&mut self, now: Instant, pid: &str, user: &User) {
        self.forget_old(now);
        let pid = digest(&[pid]);
        self.owners.insert(pid, (digest(&[&user.issuer, &user.subject]), now));
        self.order.push_back((now, pid));
    }

    /// True where `pid` was given to `user`.
    pub fn owns(&self, pid: &str, user: &User) -> bool {
        let user = digest(&[&user.issuer, &user.subject]);
        self.owners.get(&digest(&[pid])).is_some_and(|(owner, _)| *owner == user)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, pid)) = self.order.front().copied() {
            if self.order.len() < self.capacity && now.saturating_duration_since(at) < MEMORY {
                break;
            }
            self.order.pop_front();
            // Only the latest mention of an id counts.
            if self.owners.get(&pid).is_some_and(|(_, last)| *last == at) {
                self.owners.remove(&pid);
            }
        }
    }
}

fn digest(parts: &[&str]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // Lengths keep ("a", "bc") and ("ab", "c") apart.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut out = Digest::default();
    out.copy_from_slice(&context.finish().as_ref()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(subject: &str) -> User {
        User { issuer: "i".into(), subject: subject.into() }
    }

    #[test]
    fn an_id_belongs_to_the_user_it_was_given_to_for_a_time() {
        let now = Instant::now();
        let mut owners = Owners::new(100);
        owners.remember(now, "p1", &user("a"));
        assert!(owners.owns("p1", &user("a")));
        assert!(!owners.owns("p1", &user("b")) && !owners.owns("p2", &user("a")));
        owners.remember(now + MEMORY, "p2", &user("a"));
        assert!(!owners.owns("p1", &user("a")), "forgotten after an hour");
    }

    #[test]
    fn the_table_is_bounded_and_a_second_mention_keeps_an_id() {
        let now = Instant::now();
        let mut owners = Owners::new(3);
        for (i, pid) in ["p1", "p2", "p1", "p3", "p4"].iter().enumerate() {
            owners.remember(now + Duration::from_secs(i as u64), pid, &user("a"));
        }
        assert!(owners.owns("p1", &user("a")) && !owners.owns("p2", &user("a")));
        assert!(owners.order.len() <= 3 && owners.owners.len() <= 3);
    }
}
