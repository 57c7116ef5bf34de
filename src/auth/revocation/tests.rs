use super::*;
use crate::auth::cache::Fingerprint;
use crate::auth::rules::Material;
use crate::auth::testing::{ISSUER, NOW, P256, claims, issuer, jwks, verifier};
use proptest::prelude::*;
use serde_json::json;

fn revocation(kind: Kind, value: &str, not_before: u64) -> Revocation {
    let reason = Reason::Revoked;
    Revocation { kind, issuer: ISSUER.into(), value: value.into(), not_before, until: NOW + 3600, reason }
}

fn identity(changes: serde_json::Value) -> Identity {
    let (verifier, _) = verifier(&[(issuer(&["ES256"]), Material::Jwks(jwks(&[P256.jwk()])))]);
    verifier.verify(&P256.token(&claims(changes)), NOW).unwrap()
}

#[test]
fn a_revocation_concerns_whom_it_names_and_nobody_else() {
    let alice = json!({"sub": "alice", "jti": "t1", "sid": "s1"});
    let no_sid = json!({"sub": "alice", "jti": "t1"});
    for (kind, value, whose, refused) in [
        (Kind::Token, "t1", &alice, true),
        (Kind::Token, "t2", &alice, false),
        (Kind::Token, "s1", &alice, false),
        (Kind::Subject, "alice", &alice, true),
        (Kind::Subject, "Alice", &alice, false),
        (Kind::Sub, "alice", &alice, true),
        (Kind::Sub, "t1", &alice, false),
        (Kind::Sid, "s1", &alice, true),
        (Kind::Sid, "s1", &no_sid, false),
        (Kind::SubWithoutSid, "alice", &alice, false),
        (Kind::SubWithoutSid, "alice", &no_sid, true),
        (Kind::Issuer, "", &alice, true),
        (Kind::Issuer, "", &no_sid, true),
    ] {
        let table = Revocations::new(10);
        assert_eq!(table.find(&identity(whose.clone()), NOW), None);
        assert!(table.insert(&revocation(kind, value, NOW), NOW).new);
        let expected = refused.then_some(Reason::Revoked);
        assert_eq!(table.find(&identity(whose.clone()), NOW), expected, "{kind:?} {value} {whose}");
        // L04: the same name at another issuer is somebody else.
        let other = Revocations::new(10);
        other.insert(&Revocation { issuer: "https://other.example.com/".into(), ..revocation(kind, value, NOW) }, NOW);
        assert_eq!(other.find(&identity(whose.clone()), NOW), None, "{kind:?} {value} of another issuer");
    }
}

#[test]
fn l06_a_watermark_refuses_what_was_issued_until_then_and_what_does_not_say_when() {
    let table = Revocations::new(10);
    table.insert(&revocation(Kind::Subject, "alice", NOW - 60), NOW);
    for (iat, refused) in
        [(json!(NOW - 61), true), (json!(NOW - 60), true), (json!(NOW - 59), false), (json!(null), true)]
    {
        let found = table.find(&identity(json!({ "iat": iat })), NOW);
        assert_eq!(found.is_some(), refused, "{iat}");
    }
    // Half a second after the watermark counts as the same second.
    assert!(table.find(&identity(json!({"iat": NOW as f64 - 59.5})), NOW).is_some());
}

#[test]
fn where_the_subject_is_another_claim_both_names_are_found() {
    let section = crate::config::model::issuers::Issuer { subject: "user.id".into(), ..issuer(&["ES256"]) };
    let (verifier, _) = verifier(&[(section, Material::Jwks(jwks(&[P256.jwk()])))]);
    let token = P256.token(&claims(json!({"sub": "auth0|7", "user": {"id": 7}})));
    let identity = verifier.verify(&token, NOW).unwrap();
    for (kind, value, refused) in [
        (Kind::Subject, "7", true),
        (Kind::Subject, "auth0|7", false),
        (Kind::Sub, "auth0|7", true),
        (Kind::Sub, "7", false),
        (Kind::SubWithoutSid, "auth0|7", true),
    ] {
        let table = Revocations::new(10);
        table.insert(&revocation(kind, value, NOW), NOW);
        assert_eq!(table.find(&identity, NOW).is_some(), refused, "{kind:?} {value}");
    }
}

#[test]
fn j19_the_verifier_refuses_a_revoked_token_also_where_it_was_verified_a_moment_ago() {
    let (verifier, _) = verifier(&[(issuer(&["ES256"]), Material::Jwks(jwks(&[P256.jwk()])))]);
    let table = Revocations::new(10);
    let verifier = verifier.refusing(table.clone());
    let token = P256.token(&claims(json!({"jti": "t1"})));
    let print = Fingerprint::default();
    assert!(verifier.verify_again(&token, &print, NOW).is_ok());
    assert!(verifier.verify_again(&token, &print, NOW).is_ok(), "from memory");
    table.insert(&Revocation { reason: Reason::LoggedOut, ..revocation(Kind::Token, "t1", ALL) }, NOW);
    for refused in [verifier.verify_again(&token, &print, NOW).err(), verifier.verify(&token, NOW).err()] {
        assert_eq!(refused.map(|refusal| refusal.reason), Some(Reason::LoggedOut));
    }
    // The same claims under another signature (ECDSA signs differently each time, and can be malleated) are the same token.
    let again = P256.token(&claims(json!({"jti": "t1"})));
    assert_ne!(again, token);
    assert_eq!(verifier.verify(&again, NOW).unwrap_err().reason, Reason::LoggedOut);
    assert!(verifier.verify(&P256.token(&claims(json!({"jti": "t2"}))), NOW).is_ok());
}

#[test]
fn an_entry_is_forgotten_when_no_token_can_need_it() {
    let table = Revocations::new(10);
    table.insert(&revocation(Kind::Subject, "alice", NOW), NOW);
    let alice = identity(json!({}));
    assert!(table.find(&alice, NOW + 3599).is_some());
    assert!(table.find(&alice, NOW + 3600).is_none());
    table.purge(NOW + 3599);
    assert_eq!((table.len(), table.is_empty()), (1, false));
    table.purge(NOW + 3600);
    assert_eq!((table.len(), table.is_empty()), (0, true));
    assert!(table.read().issuers.is_empty());
    assert!(!table.insert(&revocation(Kind::Subject, "alice", NOW), NOW + 3600).new, "too late to matter");
}

#[test]
fn a_full_table_forgets_first_what_ends_first_and_says_so() {
    let table = Revocations::new(3);
    for n in [5_u64, 1, 4] {
        let value = n.to_string();
        table.insert(&Revocation { until: NOW + n, ..revocation(Kind::Subject, &value, NOW) }, NOW);
    }
    let inserted = table.insert(&Revocation { until: NOW + 3, ..revocation(Kind::Subject, "3", NOW) }, NOW);
    assert_eq!(inserted, Inserted { new: true, evicted: 1 });
    let left: Vec<_> = table.list(None, 10).into_iter().map(|(_, entry)| entry.value.to_string()).collect();
    assert_eq!(left, ["3", "4", "5"]);
}

#[test]
fn a_list_is_read_page_by_page() {
    let table = Revocations::new(100);
    for n in 0..10_u64 {
        table.insert(&Revocation { until: NOW + 10 + n / 2, ..revocation(Kind::Sid, &n.to_string(), ALL) }, NOW);
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = table.list(after, 3);
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        seen.extend(page.iter().map(|(_, entry)| entry.value.to_string()));
    }
    assert_eq!(seen, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

fn any_revocation() -> impl Strategy<Value = Revocation> {
    let kinds = Kind::NAMES.map(|(_, kind)| kind).to_vec();
    (prop::sample::select(kinds), 0..2_u8, 0..3_u8, 0..4_u64, 1..5_u64, any::<bool>()).prop_map(
        |(kind, issuer, value, before, until, revoked)| Revocation {
            kind,
            issuer: if issuer == 0 { ISSUER.into() } else { "other".into() },
            value: if kind == Kind::Issuer { "".into() } else { value.to_string().into() },
            not_before: NOW - 60 - 2 + before,
            until: NOW + until,
            reason: if revoked { Reason::Revoked } else { Reason::LoggedOut },
        },
    )
}

/// What the table remembers, in an order that does not depend on when it heard of what.
fn content(table: &Revocations) -> Vec<String> {
    let mut all: Vec<_> = table.list(None, usize::MAX).into_iter().map(|(_, entry)| format!("{entry:?}")).collect();
    all.sort();
    all
}

proptest! {
    /// A list that is searched from end to end refuses the same.
    #[test]
    fn the_table_refuses_what_a_naive_list_refuses(
        taken in prop::collection::vec((any_revocation(), 0..4_u64), 0..40),
        sub in 0..3_u8, sid in prop::option::of(0..3_u8), jti in prop::option::of(0..3_u8),
    ) {
        let mut changes = json!({"sub": sub.to_string()});
        for (name, value) in [("sid", sid), ("jti", jti)] {
            if let Some(value) = value {
                changes[name] = value.to_string().into();
            }
        }
        let identity = identity(changes);
        let (table, mut list) = (Revocations::new(1000), Vec::new());
        let mut now = NOW;
        for (revocation, later) in taken {
            now = (now + later).min(NOW + 3);
            table.insert(&revocation, now);
            list.push(revocation);
            let is = |name: &str, value: &Option<Box<str>>| value.as_deref() == Some(name);
            let (sid, jti): (Option<Box<str>>, Option<Box<str>>) =
                (identity.session.as_deref().map(Into::into), identity.jti.as_deref().map(Into::into));
            let refused = list.iter().any(|r| {
                *r.issuer == *ISSUER && r.until > now && r.covers(identity.issued_at) && match r.kind {
                    Kind::Issuer => true,
                    Kind::Subject | Kind::Sub => *r.value == *identity.subject,
                    Kind::SubWithoutSid => sid.is_none() && *r.value == *identity.subject,
                    Kind::Sid => is(&r.value, &sid),
                    Kind::Token => is(&r.value, &jti),
                }
            });
            // Merged entries live as long as the longest of them, so the table may refuse more, never less.
            prop_assert!(!refused || table.find(&identity, now).is_some());
            let ever = list.iter().any(|r| *r.issuer == *ISSUER && r.covers(identity.issued_at));
            prop_assert!(ever || table.find(&identity, now).is_none());
        }
    }

    /// Replicas hear of revocations in any order, and more than once.
    #[test]
    fn in_whatever_order_replicas_hear_of_it_they_agree(
        (taken, shuffled) in prop::collection::vec(any_revocation(), 0..30)
            .prop_flat_map(|all| { let twice = [all.clone(), all.clone()].concat(); (Just(all), Just(twice).prop_shuffle()) }),
    ) {
        let (one, two) = (Revocations::new(1000), Revocations::new(1000));
        for revocation in &taken {
            one.insert(revocation, NOW);
        }
        for revocation in &shuffled {
            two.insert(revocation, NOW);
        }
        prop_assert_eq!(content(&one), content(&two));
    }

    #[test]
    fn the_table_is_bounded_whatever_comes(
        taken in prop::collection::vec((any_revocation(), 0..3_u64), 0..60), capacity in 1..8_usize,
    ) {
        let table = Revocations::new(capacity);
        let mut now = NOW;
        for (revocation, later) in taken {
            now += later;
            table.insert(&revocation, now);
            let held: usize = table.read().issuers.values().flat_map(|marks| marks.iter().map(HashMap::len)).sum();
            prop_assert!(table.len() <= capacity && held == table.len() && table.read().order.len() == held);
        }
    }
}
