//! What operators and revocation know of a session. A session is found by looking through all of them, which is rare,
//! so that it carries no more for it than its name and a few numbers.

use crate::auth::identity::Identity;
use crate::auth::revocation::{Kind, Revocation};
use crate::gate::admission::User;
use crate::reason::Reason;
use crate::session::registry::{Entry, Registry, lock};
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
struct Trace {
    jti: u64,
    sid: u64,
    /// `sub`, where the user is known by another claim.
    sub: u64,
    issued_at: u64,
    ends_at: u64,
}

/// The hash of what a token does not say.
const ABSENT: u64 = 0;

fn hash(hasher: &RandomState, value: &str) -> u64 {
    hasher.hash_one(value).max(ABSENT + 1)
}

impl Trace {
    fn of(hasher: &RandomState, identity: &Identity, ends_at: u64) -> Self {
        let name = |value: Option<&str>| value.map_or(ABSENT, |value| hash(hasher, value));
        Self {
            jti: name(identity.jti.as_deref()),
            sid: name(identity.session.as_deref()),
            sub: name(Some(identity.sub()).filter(|sub| **sub != *identity.subject)),
            // Nobody knows when: any watermark covers it.
            issued_at: identity.issued_at.unwrap_or(0),
            ends_at,
        }
    }
}

/// Whether a revocation concerns a session; `value` is the hash of what it names.
fn concerns(revocation: &Revocation, value: u64, entry: &Entry) -> bool {
    let (Some(trace), Some(user)) = (*lock(&entry.card.trace), entry.user()) else { return false };
    if *user.issuer != *revocation.issuer || !revocation.covers(Some(trace.issued_at)) {
        return false;
    }
    let is_sub = || if trace.sub == ABSENT { *user.subject == *revocation.value } else { trace.sub == value };
    match revocation.kind {
        Kind::Issuer => true,
        Kind::Subject => *user.subject == *revocation.value,
        Kind::Sub => is_sub(),
        Kind::SubWithoutSid => trace.sid == ABSENT && is_sub(),
        Kind::Sid => trace.sid == value,
        Kind::Token => trace.jti == value,
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

    /// Shows out every session that a revocation concerns; returns how many.
    pub fn revoke(&self, revocation: &Revocation) -> usize {
        let value = hash(&self.0.hasher, &revocation.value);
        let mut ended = 0;
        self.each(|entry| {
            if concerns(revocation, value, entry) && entry.ended().is_none() {
                entry.end(revocation.reason);
                ended += 1;
            }
        });
        ended
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
