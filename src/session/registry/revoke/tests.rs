use super::*;
use crate::auth::revocation::{ALL, Kind, Revocations};
use crate::auth::rules::Material;
use crate::auth::testing::{ISSUER, NOW, P256, claims, issuer, jwks, verifier};
use crate::protocol::engineio::Version;
use crate::session::deadlines::End;
use crate::session::registry::Stay;
use crate::session::registry::{Capacity, Newcomer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn registry() -> Registry {
    Registry::new(Capacity { sessions: 1000, unauthenticated: 1000, unauthenticated_per_ip: 1000 })
}

fn enter(registry: &Registry, name: &str) -> Stay {
    let card = Card::new(name.into(), [192, 0, 2, 1].into(), NOW);
    let newcomer =
        Newcomer { sid: name, version: Version::V4, b64: false, credential: None, mailbox: None, card, waits: None };
    registry.enter(newcomer).unwrap()
}

fn identity(changes: Value) -> Identity {
    let (verifier, _) = verifier(&[(issuer(&["ES256"]), Material::Jwks(jwks(&[P256.jwk()])))]);
    verifier.verify(&P256.token(&claims(changes)), NOW).unwrap()
}

fn admit(registry: &Registry, name: &str, changes: Value) -> Stay {
    let mut stay = enter(registry, name);
    let identity = identity(changes);
    let end = End::of(Instant::now(), NOW * 1000, identity.ends_at, Duration::from_secs(86_400));
    stay.admit(User::of(&identity), end);
    registry.trace(stay.entry(), &identity, end.wall_ms / 1000);
    stay
}

fn revocation(kind: Kind, value: &str, not_before: u64) -> Revocation {
    let reason = Reason::LoggedOut;
    Revocation { kind, issuer: ISSUER.into(), value: value.into(), not_before, until: NOW + 3600, reason }
}

fn revoke(registry: &Registry, revocations: &[&Revocation]) -> Vec<usize> {
    let mut sought = registry.seek(revocations.iter().map(|r| (*r).clone()).collect());
    (0..SLICES).for_each(|slice| registry.revoke(&mut sought, slice));
    sought.ended().map(|(_, ended)| ended).collect()
}

#[test]
fn a_revocation_ends_the_sessions_that_the_table_would_refuse_and_no_other() {
    let users = [
        json!({"sub": "alice", "jti": "t1", "sid": "s1"}),
        json!({"sub": "alice", "jti": "t2", "sid": "s2", "iat": NOW}),
        json!({"sub": "alice", "iat": null}),
        json!({"sub": "bob", "jti": "alice", "sid": "alice"}),
        json!({"sub": "s1", "jti": "s1"}),
    ];
    for kind in Kind::NAMES.map(|(_, kind)| kind) {
        for value in ["alice", "bob", "t1", "t2", "s1", "s2", "nobody"] {
            for not_before in [NOW - 61, NOW - 60, NOW, ALL] {
                let (registry, table) = (registry(), Revocations::new(10));
                let inside: Vec<_> = users
                    .iter()
                    .enumerate()
                    .map(|(n, user)| (admit(&registry, &n.to_string(), user.clone()), identity(user.clone())))
                    .collect();
                let waiting = enter(&registry, "waiting");
                let value = if kind == Kind::Issuer { "" } else { value };
                let revocation = revocation(kind, value, not_before);
                table.insert(&revocation, NOW);
                let ended = revoke(&registry, &[&revocation])[0];
                for (stay, identity) in &inside {
                    assert_eq!(stay.entry().ended(), table.find(identity, NOW), "{revocation:?} {identity:?}");
                }
                assert_eq!(ended, inside.iter().filter(|(stay, _)| stay.entry().ended().is_some()).count());
                assert_eq!(waiting.entry().ended(), None, "nobody knows who that is yet");
                assert_eq!(revoke(&registry, &[&revocation]), [0], "once is enough");
            }
        }
    }
}

#[test]
fn many_revocations_at_once_end_what_each_of_them_would_and_each_session_counts_once() {
    let registry = registry();
    let users = [
        json!({"sub": "alice", "jti": "t1", "sid": "s1"}),
        json!({"sub": "alice", "jti": "t2"}),
        json!({"sub": "bob", "jti": "t3", "sid": "s1"}),
        json!({"sub": "carol", "jti": "t4", "sid": "s2"}),
        json!({"sub": "dave", "jti": "t5"}),
    ];
    let inside: Vec<_> =
        users.iter().enumerate().map(|(n, user)| admit(&registry, &n.to_string(), user.clone())).collect();
    let elsewhere = Revocation { issuer: "https://other/".into(), ..revocation(Kind::Subject, "dave", ALL) };
    let kicked = Revocation { reason: Reason::Revoked, ..revocation(Kind::Token, "t3", ALL) };
    let all = [
        &revocation(Kind::SubWithoutSid, "alice", ALL),
        &elsewhere,
        &kicked,
        &revocation(Kind::Sid, "s1", ALL),
        &revocation(Kind::Subject, "nobody", ALL),
        &revocation(Kind::Subject, "carol", NOW - 3600),
    ];
    // The third session is the token's before it is the login's.
    assert_eq!(revoke(&registry, &all), [1, 0, 1, 1, 0, 0]);
    let (out, revoked) = (Some(Reason::LoggedOut), Some(Reason::Revoked));
    let ended: Vec<_> = inside.iter().map(|stay| stay.entry().ended()).collect();
    assert_eq!(ended, [out, out, revoked, None, None]);
    assert_eq!(revoke(&registry, &all), [0; 6]);
}

#[test]
fn l06_whoever_is_admitted_while_revocations_come_is_found_by_one_side_or_the_other() {
    let (registry, table) = (registry(), Revocations::new(10_000));
    let rounds = 300;
    let names: Vec<_> = (0..rounds).map(|n| format!("s{n}")).collect();
    let identities: Vec<_> = names.iter().map(|name| identity(json!({"sid": name}))).collect();
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let reconnecting = scope.spawn(|| {
            let mut survivors = Vec::new();
            for (name, identity) in names.iter().zip(&identities) {
                let mut stay = enter(&registry, name);
                let end = End::of(Instant::now(), NOW * 1000, identity.ends_at, Duration::from_secs(86_400));
                barrier.wait();
                stay.admit(User::of(identity), end);
                registry.trace(stay.entry(), identity, end.wall_ms / 1000);
                if table.find(identity, NOW).is_none() {
                    survivors.push(stay);
                }
                barrier.wait();
            }
            survivors
        });
        for name in &names {
            barrier.wait();
            let revocation = revocation(Kind::Sid, name, ALL);
            table.insert(&revocation, NOW);
            revoke(&registry, &[&revocation]);
            barrier.wait();
        }
        for stay in reconnecting.join().unwrap() {
            assert_eq!(stay.entry().ended(), Some(Reason::LoggedOut), "neither refused nor shown out");
        }
    });
}

#[test]
fn a_session_is_kicked_by_its_name_and_never_by_its_sid() {
    let registry = registry();
    let card = Card::new("name".into(), [192, 0, 2, 1].into(), NOW);
    let newcomer =
        Newcomer { sid: "sid", version: Version::V4, b64: false, credential: None, mailbox: None, card, waits: None };
    let stay = registry.enter(newcomer).unwrap();
    assert!(!registry.kick("sid", Reason::Kicked) && registry.named("sid").is_none());
    assert!(registry.named("name").is_some_and(|seen| seen.ended.is_none() && seen.ends_at.is_none()));
    assert!(registry.kick("name", Reason::Kicked));
    assert_eq!(stay.entry().ended(), Some(Reason::Kicked));
    drop(stay);
    assert!(!registry.kick("name", Reason::Kicked));
}

#[test]
fn sessions_are_listed_page_by_page_in_the_order_of_their_coming() {
    let registry = registry();
    let stays: Vec<_> = (0..50).map(|n| enter(&registry, &format!("s{n}"))).collect();
    let (mut after, mut names) = (0, Vec::new());
    loop {
        let page = registry.page(after, 7, |seen| *seen.name != *"s13");
        let Some(last) = page.last() else { break };
        after = last.number;
        names.extend(page.iter().map(|seen| seen.name.to_string()));
    }
    let expected: Vec<_> = (0..50).filter(|n| *n != 13).map(|n| format!("s{n}")).collect();
    assert_eq!(names, expected);
    drop(stays);
}
