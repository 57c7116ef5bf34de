//! The books of the registry: who is inside, until when, and what is left when they have gone.

mod endings;
mod entry;
mod places;

use super::*;
use crate::session::deadlines::End;

const ROOMY: Capacity = Capacity { sessions: 1000, unauthenticated: 1000, unauthenticated_per_ip: 1000 };
const DAY: Duration = Duration::from_secs(86_400);

fn newcomer(sid: &str) -> Newcomer<'_> {
    let card = Card::new(sid.into(), [192, 0, 2, 1].into(), 1_000);
    Newcomer { sid, version: Version::V4, b64: false, credential: None, mailbox: None, card, waits: None }
}

fn stranger<'a>(sid: &'a str, ip: &str) -> Newcomer<'a> {
    Newcomer { waits: Some(ip.parse().unwrap()), ..newcomer(sid) }
}

fn user(subject: &str) -> User {
    User { issuer: "idp".into(), subject: subject.into() }
}

fn ends_in(now: Instant, seconds: u64) -> End {
    End::of(now, 1_000_000, 1_000 + seconds, DAY)
}

/// Nobody is inside, and nothing remembers that anybody was.
fn assert_empty(registry: &Registry) {
    assert_eq!((registry.len(), registry.unauthenticated(), registry.deadlines()), (0, 0, 0));
    assert!(registry.is_empty() && registry.all().is_empty() && registry.next_end().is_none());
    assert!(lock(&registry.0.waiting).by_ip.is_empty());
    assert!(lock(&registry.0.deadlines).is_empty(), "by either clock");
    assert!(registry.0.shards.iter().all(|shard| lock(shard).is_empty()));
}
