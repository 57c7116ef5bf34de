//! What operators and revocation know of a session. A session is found by looking through all of them, which is rare,
//! so that it carries no more for it than its name and a few numbers.

use crate::auth::identity::Identity;
use crate::auth::revocation::Revocation;
use crate::gate::admission::User;
use crate::reason::Reason;
use crate::session::registry::sought::Sought;
use crate::session::registry::{Entry, Registry, SHARDS, lock};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What is known of a session from its first moment on.
pub struct Card {
    name: Arc<str>,
    client: IpAddr,
    since: u64,
    trace: Mutex<Option<Trace>>,
    /// Its client is in "/", where nearly all are and no more.
    at_root: AtomicBool,
    /// The other namespaces that its client is in, with commas between them, which no name has.
    elsewhere: Mutex<Box<str>>,
}

impl Card {
    /// Its name in the log and for the backend, the client's address, and when it began in unix seconds.
    pub fn new(name: Arc<str>, client: IpAddr, since: u64) -> Self {
        Self {
            name,
            client,
            since,
            trace: Mutex::default(),
            at_root: AtomicBool::new(false),
            elsewhere: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// By what else than its user a session is found. Names are kept as hashes under a key of this process: nobody can
/// choose two that meet, and by chance they do once in 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) jti: u64,
    pub(super) sid: u64,
    pub(super) subject: u64,
    /// The same, unless the user is known by another claim.
    pub(super) sub: u64,
    pub(super) issued_at: u64,
    ends_at: u64,
}

/// The hash of what a token does not say.
pub(super) const ABSENT: u64 = 0;

/// Parts in which the table is looked through, so that others get their turn in between.
pub const SLICES: usize = SHARDS;

pub(super) fn hash(hasher: &RandomState, value: &str) -> u64 {
    hasher.hash_one(value).max(ABSENT + 1)
}

impl Trace {
    fn of(hasher: &RandomState, identity: &Identity, ends_at: u64) -> Self {
        let name = |value: Option<&str>| value.map_or(ABSENT, |value| hash(hasher, value));
        Self {
            jti: name(identity.jti.as_deref()),
            sid: name(identity.session.as_deref()),
            subject: name(Some(&identity.subject)),
            sub: name(Some(identity.sub())),
            // Nobody knows when: any watermark covers it.
            issued_at: identity.issued_at.unwrap_or(0),
            ends_at,
        }
    }
}

/// A session as an operator sees it.
#[derive(Clone)]
pub struct Seen {
    /// Its place among all, in the order in which they came.
    pub number: u64,
    /// Its name in the log and for the backend.
    pub name: Arc<str>,
    /// The client's address.
    pub client: IpAddr,
    /// Requests of its client are still expected; else it is on a WebSocket.
    pub polls: bool,
    /// When it began, in unix seconds.
    pub since: u64,
    /// When its right ends, in unix seconds, where it has one.
    pub ends_at: Option<u64>,
    /// Who, where that is known.
    pub user: Option<User>,
    /// The namespaces that its client is in.
    pub namespaces: Vec<String>,
    /// Why it is being shown out, if it is.
    pub ended: Option<Reason>,
}

impl Entry {
    /// Its client is in these namespaces from now on.
    pub fn is_in<'a>(&self, joined: impl Iterator<Item = &'a str>) {
        let (mut at_root, mut elsewhere) = (false, String::new());
        for name in joined {
            if name == "/" {
                at_root = true;
                continue;
            }
            if !elsewhere.is_empty() {
                elsewhere.push(',');
            }
            elsewhere.push_str(name);
        }
        self.card.at_root.store(at_root, Ordering::Relaxed);
        *lock(&self.card.elsewhere) = elsewhere.into();
    }

    fn namespaces(&self) -> Vec<String> {
        let root = self.card.at_root.load(Ordering::Relaxed).then_some("/");
        let elsewhere = lock(&self.card.elsewhere);
        let others = elsewhere.split(',').filter(|name| !name.is_empty());
        root.into_iter().chain(others).map(str::to_owned).collect()
    }

    fn seen(&self) -> Seen {
        Seen {
            number: self.number,
            name: self.card.name.clone(),
            client: self.card.client,
            polls: self.mailbox().is_some(),
            since: self.card.since,
            ends_at: lock(&self.card.trace).map(|trace| trace.ends_at),
            user: self.user().cloned(),
            namespaces: self.namespaces(),
            ended: self.ended(),
        }
    }
}

impl Registry {
    /// The session lives by this credential from now on, and can be found by it: whoever revokes it later finds the
    /// session, whoever did so before is found in the table, which is to be looked at now.
    pub fn trace(&self, entry: &Entry, identity: &Identity, ends_at: u64) {
        let trace = Trace::of(&self.0.hasher, identity, ends_at);
        *lock(&entry.card.trace) = Some(trace);
    }

    /// What is to be looked for, by [`Registry::revoke`].
    pub fn seek(&self, revocations: Vec<Revocation>) -> Sought {
        Sought::new(&self.0.hasher, revocations)
    }

    /// Shows out every session of this slice, of [`SLICES`], that one of the revocations concerns.
    pub fn revoke(&self, sought: &mut Sought, slice: usize) {
        let Some(shard) = self.0.shards.get(slice) else { return };
        let mut ended = Vec::new();
        for entry in lock(shard).values().filter(|entry| entry.ended().is_none()) {
            let (Some(trace), Some(user)) = (*lock(&entry.card.trace), entry.user()) else { continue };
            if let Some((at, reason)) = sought.first(&trace, user) {
                entry.end(reason);
                ended.push(at);
            }
        }
        ended.into_iter().for_each(|at| sought.ended[at] += 1);
    }

    /// Shows out the session of this name; `false` where there is none.
    pub fn kick(&self, name: &str, reason: Reason) -> bool {
        let mut found = false;
        self.each(|entry| {
            if *entry.card.name == *name {
                entry.end(reason);
                found = true;
            }
        });
        found
    }

    /// The session of this name.
    pub fn named(&self, name: &str) -> Option<Seen> {
        let mut found = None;
        self.each(|entry| {
            if *entry.card.name == *name {
                found = Some(entry.seen());
            }
        });
        found
    }

    /// The first `limit` sessions behind the number `after` of which `wanted` says so, in the order of their coming.
    pub fn page(&self, after: u64, limit: usize, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let mut page = std::collections::BTreeMap::new();
        self.each(|entry| {
            let full = page.len() >= limit;
            let last = page.last_key_value().map_or(u64::MAX, |(number, _)| *number);
            if entry.number <= after || (full && entry.number > last) {
                return;
            }
            let seen = entry.seen();
            if wanted(&seen) {
                page.insert(entry.number, seen);
                if page.len() > limit {
                    page.pop_last();
                }
            }
        });
        page.into_values().collect()
    }

    fn each(&self, mut visit: impl FnMut(&Entry)) {
        for shard in &self.0.shards {
            lock(shard).values().for_each(|entry| visit(entry));
        }
    }
}

#[cfg(test)]
mod tests;
