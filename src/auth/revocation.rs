//! What is refused before its time: tokens, users, logins and whole issuers that were revoked or logged out.
//!
//! An entry is kept for as long as a token that it concerns could be valid. The table is bounded: what would be
//! forgotten first makes room. Entries merge: in whatever order replicas hear of them, they come to the same table.

pub mod message;

use crate::auth::identity::Identity;
use crate::reason::Reason;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes of an issuer's name and of whatever is revoked: what an identity can hold.
pub const MAX_VALUE: usize = 1024;

/// Every token, whenever it was issued.
pub const ALL: u64 = u64::MAX;

/// What a revocation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One token, by its `jti`.
    Token,
    /// A user, by the claim that the issuer's `subject` names.
    Subject,
    /// A user, by `sub`, whatever `subject` names: logouts know no other name.
    Sub,
    /// The same, but only tokens that do not say which login (`sid`) they come from.
    SubWithoutSid,
    /// One login at the provider, by its `sid`.
    Sid,
    /// Everybody of an issuer.
    Issuer,
}

impl Kind {
    /// Every kind with its name in lists and messages.
    pub const NAMES: [(&'static str, Kind); 6] = [
        ("jti", Self::Token),
        ("subject", Self::Subject),
        ("sub", Self::Sub),
        ("sub_without_sid", Self::SubWithoutSid),
        ("sid", Self::Sid),
        ("issuer", Self::Issuer),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// By its exact name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// One thing that is refused from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What `value` is.
    pub kind: Kind,
    /// Whose: the same name at two issuers is two.
    pub issuer: Arc<str>,
    /// Which one; empty for [`Kind::Issuer`].
    pub value: Arc<str>,
    /// Tokens are concerned that were issued (`iat`, unix seconds) no later than this; those without `iat` always.
    pub not_before: u64,
    /// From this unix second on no token that it concerns can be valid.
    pub until: u64,
    /// [`Reason::Revoked`] or [`Reason::LoggedOut`].
    pub reason: Reason,
}

impl Revocation {
    /// Whether a token issued then is concerned.
    pub fn covers(&self, issued_at: Option<u64>) -> bool {
        covers(self.not_before, issued_at)
    }
}

fn covers(not_before: u64, issued_at: Option<u64>) -> bool {
    issued_at.is_none_or(|at| at <= not_before)
}

/// What came of [`Revocations::insert`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// The table refuses something that it did not refuse before.
    pub new: bool,
    /// Entries that had to make room before their time.
    pub evicted: usize,
}

#[derive(Clone, Copy)]
struct Mark {
    not_before: u64,
    until: u64,
    reason: Reason,
    number: u64,
}

type Marks = [HashMap<Arc<str>, Mark>; Kind::NAMES.len()];

/// Where an entry stands among all: those that are forgotten first come first.
pub type Place = (u64, u64);

struct Table {
    capacity: usize,
    numbers: u64,
    issuers: HashMap<Arc<str>, Marks>,
    order: BTreeMap<Place, (Arc<str>, Kind, Arc<str>)>,
}

/// The table. Cloning clones the handle.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    /// Mostly nothing is revoked, and nobody needs to ask.
    len: AtomicUsize,
    table: RwLock<Table>,
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Revocations").field(&self.len()).finish()
    }
}

impl Revocations {
    /// An empty table with room for so many.
    pub fn new(capacity: usize) -> Self {
        let table = Table { capacity: capacity.max(1), numbers: 0, issuers: HashMap::new(), order: BTreeMap::new() };
        Self(Arc::new(Inner { len: AtomicUsize::new(0), table: RwLock::new(table) }))
    }

    /// Remembers one. Whoever looks from now on is told of it.
    pub fn insert(&self, revocation: &Revocation, now: u64) -> Inserted {
        let mut table = self.write();
        table.purge(now);
        let new = revocation.until > now && table.merge(revocation);
        let mut evicted = 0;
        while table.order.len() > table.capacity {
            table.forget_first();
            evicted += 1;
        }
        self.0.len.store(table.order.len(), Ordering::Release);
        Inserted { new, evicted }
    }

    /// Why this identity is refused at `now`, if it is.
    pub fn find(&self, identity: &Identity, now: u64) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let table = self.read();
        let marks = table.issuers.get(&*identity.issuer)?;
        let subject: &str = &identity.subject;
        let sub = identity.sub();
        let login = match identity.session.as_deref() {
            Some(sid) => (Kind::Sid, sid),
            None => (Kind::SubWithoutSid, sub),
        };
        let named = [(Kind::Issuer, ""), (Kind::Subject, subject), (Kind::Sub, sub), login];
        let token = identity.jti.as_deref().map(|jti| (Kind::Token, jti));
        let found = named.into_iter().chain(token).filter_map(|(kind, value)| marks[kind as usize].get(value));
        let concerned = found.filter(|mark| mark.until > now && covers(mark.not_before, identity.issued_at));
        concerned.map(|mark| mark.reason).max()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len.load(Ordering::Acquire)
    }

    /// True when nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `limit` entries behind `after`, in the order in which they are forgotten.
    pub fn list(&self, after: Option<Place>, limit: usize) -> Vec<(Place, Revocation)> {
        let table = self.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = table.order.range((from, Bound::Unbounded)).take(limit);
        entries.filter_map(|(place, key)| Some((*place, table.entry(key)?))).collect()
    }

    /// Forgets what is of no use any more.
    pub fn purge(&self, now: u64) {
        let mut table = self.write();
        table.purge(now);
        self.0.len.store(table.order.len(), Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The stricter of what is there and what comes, in each respect; `true` where it was not there already.
    fn merge(&mut self, new: &Revocation) -> bool {
        let issuer = self.issuers.get_key_value(&new.issuer).map_or_else(|| new.issuer.clone(), |(k, _)| k.clone());
        let marks = self.issuers.entry(issuer.clone()).or_default();
        let marks = &mut marks[new.kind as usize];
        let value = marks.get_key_value(&new.value).map_or_else(|| new.value.clone(), |(value, _)| value.clone());
        let mut mark = Mark { not_before: new.not_before, until: new.until, reason: new.reason, number: 0 };
        if let Some(known) = marks.get(&value) {
            let reason = match known.not_before.cmp(&mark.not_before) {
                std::cmp::Ordering::Less => mark.reason,
                std::cmp::Ordering::Equal => mark.reason.min(known.reason),
                std::cmp::Ordering::Greater => known.reason,
            };
            let not_before = mark.not_before.max(known.not_before);
            mark = Mark { not_before, until: mark.until.max(known.until), reason, number: known.number };
            if (mark.not_before, mark.until, mark.reason) == (known.not_before, known.until, known.reason) {
                return false;
            }
            self.order.remove(&(known.until, known.number));
        } else {
            self.numbers += 1;
            mark.number = self.numbers;
        }
        marks.insert(value.clone(), mark);
        self.order.insert((mark.until, mark.number), (issuer, new.kind, value));
        true
    }

    fn purge(&mut self, now: u64) {
        while self.order.first_key_value().is_some_and(|((until, _), _)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, (issuer, kind, value))) = self.order.pop_first() else { return };
        let Some(marks) = self.issuers.get_mut(&issuer) else { return };
        marks[kind as usize].remove(&value);
        if marks.iter().all(HashMap::is_empty) {
            self.issuers.remove(&issuer);
        }
    }

    fn entry(&self, (issuer, kind, value): &(Arc<str>, Kind, Arc<str>)) -> Option<Revocation> {
        let mark = self.issuers.get(issuer)?[*kind as usize].get(value)?;
        let Mark { not_before, until, reason, .. } = *mark;
        Some(Revocation { kind: *kind, issuer: issuer.clone(), value: value.clone(), not_before, until, reason })
    }
}

#[cfg(test)]
mod tests;
