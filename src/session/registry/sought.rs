//! Revocations that are looked for together: to look through all sessions takes milliseconds, and when a provider signs
//! everybody out, thousands of revocations come at once.

use crate::auth::revocation::{Kind, Revocation};
use crate::gate::admission::User;
use crate::reason::Reason;
use crate::session::registry::revoke::{ABSENT, Trace, hash};
use std::hash::RandomState;

/// Some revocations, and how many sessions each has ended.
pub struct Sought {
    all: Vec<Revocation>,
    /// Of each kind: hashes of what they name, in order, each with its place in `all`.
    names: [Vec<(u64, usize)>; Kind::NAMES.len()],
    /// The hash of what a whole issuer's revocation names: nothing.
    everybody: u64,
    /// As many as there are revocations.
    pub(super) ended: Vec<usize>,
}

impl Sought {
    pub(super) fn new(hasher: &RandomState, all: Vec<Revocation>) -> Self {
        let mut names = <[Vec<(u64, usize)>; Kind::NAMES.len()]>::default();
        for (at, revocation) in all.iter().enumerate() {
            names[revocation.kind as usize].push((hash(hasher, &revocation.value), at));
        }
        names.iter_mut().for_each(|names| names.sort_unstable());
        Self { ended: vec![0; all.len()], everybody: hash(hasher, ""), all, names }
    }

    /// The first revocation that concerns this session, and its reason.
    pub(super) fn first(&self, trace: &Trace, user: &User) -> Option<(usize, Reason)> {
        let login = if trace.sid == ABSENT { trace.sub } else { ABSENT };
        let session = [
            (Kind::Token, trace.jti),
            (Kind::Subject, trace.subject),
            (Kind::Sub, trace.sub),
            (Kind::SubWithoutSid, login),
            (Kind::Sid, trace.sid),
            (Kind::Issuer, self.everybody),
        ];
        let mut first = None::<usize>;
        for (kind, value) in session {
            let names = self.names[kind as usize].as_slice();
            if names.is_empty() {
                continue;
            }
            // Mostly none fits: up to here nothing but hashes was looked at.
            let from = names.partition_point(|(name, _)| *name < value);
            let same = names[from..].iter().take_while(|(name, _)| *name == value);
            let found = same.map(|(_, at)| *at).find(|at| self.concerns(*at, trace, user));
            first = first.into_iter().chain(found).min();
        }
        first.map(|at| (at, self.all[at].reason))
    }

    /// What it names is the session's by its hash.
    fn concerns(&self, at: usize, trace: &Trace, user: &User) -> bool {
        let revocation = &self.all[at];
        let by_subject = match revocation.kind {
            Kind::Subject => true,
            Kind::Sub | Kind::SubWithoutSid => trace.sub == trace.subject,
            Kind::Issuer | Kind::Sid | Kind::Token => false,
        };
        *user.issuer == *revocation.issuer
            && revocation.covers(Some(trace.issued_at))
            && (!by_subject || *user.subject == *revocation.value)
    }

    /// Each with the number of sessions that it has ended.
    pub fn ended(&self) -> impl Iterator<Item = (&Revocation, usize)> {
        self.all.iter().zip(self.ended.iter().copied())
    }
}
