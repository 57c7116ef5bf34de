//! To whom the backend gave which recovery id (Socket.IO's connection state recovery).
//!
//! The backend does not look at identity when a client comes back with a `pid`: whoever knows it gets
//! the rooms and the data. So the gate remembers the user of each, and takes `pid` and `offset` out of
//! anybody else's CONNECT. Only digests are kept: a `pid` is a secret.

use crate::gate::admission::User;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// How long an id is remembered after its session was last seen. The backend's own default is two minutes.
pub const MEMORY: Duration = Duration::from_secs(3600);

/// Ids of one user, where the table is large enough.
const MAX_OF_USER: usize = 1024;

/// One user gets no more than this part of the table: who comes and goes in a loop pushes out his own ids.
const PART: usize = 8;

type Digest = [u8; 16];

/// A bounded table of recovery ids.
#[derive(Debug)]
pub struct Owners {
    /// To whom an id was given, and the number of its last mention.
    owners: HashMap<Digest, (Digest, u64)>,
    /// Last mentions, the oldest first.
    order: BTreeMap<u64, (Instant, Digest)>,
    /// Those of each user.
    users: HashMap<Digest, BTreeSet<u64>>,
    mentions: u64,
    capacity: usize,
}

impl Owners {
    /// Remembers at most `capacity` ids; the oldest make room.
    pub fn new(capacity: usize) -> Self {
        Self {
            owners: HashMap::new(),
            order: BTreeMap::new(),
            users: HashMap::new(),
            mentions: 0,
            capacity: capacity.max(1),
        }
    }

    /// The backend gave `pid` to `user`, or `user`'s session with it has just ended.
    pub fn remember(&mut self, now: Instant, pid: &str, user: &User) {
        let (pid, user) = (digest(&[pid]), digest(&[&user.issuer, &user.subject]));
        self.forget(pid);
        if let Some(own) = self.users.get(&user).filter(|own| own.len() >= self.of_user())
            && let Some(oldest) = own.first().and_then(|mention| self.order.get(mention))
        {
            self.forget(oldest.1);
        }
        while let Some((at, oldest)) = self.order.first_key_value().map(|(_, mention)| *mention)
            && (self.order.len() >= self.capacity || now.saturating_duration_since(at) >= MEMORY)
        {
            self.forget(oldest);
        }
        self.mentions = self.mentions.wrapping_add(1);
        self.owners.insert(pid, (user, self.mentions));
        self.order.insert(self.mentions, (now, pid));
        self.users.entry(user).or_default().insert(self.mentions);
    }

    /// True where `pid` was given to `user`.
    pub fn owns(&self, pid: &str, user: &User) -> bool {
        let user = digest(&[&user.issuer, &user.subject]);
        self.owners.get(&digest(&[pid])).is_some_and(|(owner, _)| *owner == user)
    }

    fn of_user(&self) -> usize {
        (self.capacity / PART).clamp(PART, MAX_OF_USER)
    }

    fn forget(&mut self, pid: Digest) {
        let Some((user, mention)) = self.owners.remove(&pid) else { return };
        self.order.remove(&mention);
        if let Some(own) = self.users.get_mut(&user) {
            own.remove(&mention);
            if own.is_empty() {
                self.users.remove(&user);
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
        assert_eq!((owners.order.len(), owners.owners.len()), (3, 3));
    }

    #[test]
    fn p32_who_comes_and_goes_in_a_loop_pushes_out_only_his_own_ids() {
        let now = Instant::now();
        let mut owners = Owners::new(800);
        for i in 0..50 {
            owners.remember(now, &format!("a{i}"), &user("a"));
        }
        for i in 0..5000 {
            owners.remember(now, &format!("b{i}"), &user("b"));
            owners.remember(now, "b's own again and again", &user("b"));
        }
        assert!((0..50).all(|i| owners.owns(&format!("a{i}"), &user("a"))));
        assert!((4901..5000).all(|i| owners.owns(&format!("b{i}"), &user("b"))));
        assert!(!owners.owns("b4899", &user("b")) && owners.owns("b's own again and again", &user("b")));
        assert_eq!((owners.order.len(), owners.owners.len(), owners.users.len()), (150, 150, 2));
        owners.remember(now + MEMORY, "c", &user("c"));
        assert_eq!(
            (owners.order.len(), owners.owners.len(), owners.users.len()),
            (1, 1, 1),
            "all memory is given back"
        );
    }

    #[test]
    fn an_id_is_the_last_ones_whom_it_was_given_to() {
        let now = Instant::now();
        let mut owners = Owners::new(100);
        owners.remember(now, "p", &user("a"));
        owners.remember(now, "p", &user("a"));
        owners.remember(now, "p", &user("b"));
        assert!(owners.owns("p", &user("b")) && !owners.owns("p", &user("a")));
        assert_eq!((owners.order.len(), owners.owners.len(), owners.users.len()), (1, 1, 1));
    }
}
