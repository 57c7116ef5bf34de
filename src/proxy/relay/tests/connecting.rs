//! A CONNECT is judged at its place in the stream, also where the key for its token is fetched first.

use super::*;
use crate::proxy::support::{refusal, remote_token, token};

#[tokio::test(start_paused = true)]
async fn a_connect_is_replaced_at_its_place_between_untouched_frames() {
    for piece in [1, 5, usize::MAX] {
        let mut rig = Rig::plain();
        let (before, after) = (rig.client.text("42[\"before\"]"), rig.client.text("42[\"after\"]"));
        let connect = rig.client.text(&format!("40/a,{{ \"x\":1, \"token\":\"{}\" }}", token("alice")));
        let leave = rig.client.text("41/a,");
        let all = [before.clone(), connect, leave, after.clone()].concat();
        for part in all.chunks(piece.min(all.len())) {
            rig.client.send(part).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.backend.bytes(before.len()).await, before);
        assert_eq!(rig.backend.hears().await, "40/a,{\"x\":1}");
        assert_eq!(rig.backend.hears().await, "41/a,");
        assert_eq!(rig.backend.bytes(after.len()).await, after);
        rig.ended("client", "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn p51_another_users_token_is_refused_and_the_backend_hears_nothing_of_it() {
    let mut rig = Rig::plain();
    for (given, reason) in [(token("bob"), Reason::SubjectMismatch), ("a.b.c".into(), Reason::CredentialMalformed)] {
        rig.client.say(&format!("40/a,{{\"token\":\"{given}\"}}")).await;
        assert_eq!(rig.client.hears().await, refusal("/a", reason));
    }
    rig.backend.hears_nothing().await;
    rig.join("/a").await;
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p51_a_second_connect_of_a_namespace_closes_with_1002() {
    let mut rig = Rig::plain();
    rig.join("/a").await;
    rig.client.say("40/a,").await;
    assert_eq!(rig.client.is_closed().await, (1002, "protocol_error".into()));
    assert_eq!(rig.backend.is_closed().await.0, 1001);
    rig.ended("gate", "protocol_error").await;
}

#[tokio::test(start_paused = true)]
async fn p31_the_tenth_refusal_is_answered_and_the_next_one_closes() {
    let mut rig = Rig::plain();
    let bad = rig.client.text("40/a,{\"token\":5}");
    rig.client.send(bad.repeat(11)).await;
    for _ in 0..10 {
        assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    }
    assert_eq!(rig.client.is_closed().await, (4401, "credential_malformed".into()));
    rig.ended("gate", "credential_malformed").await;
}

#[tokio::test(start_paused = true)]
async fn while_a_token_is_verified_later_frames_wait_in_order_and_the_other_direction_flows() {
    let mut rig = Rig::plain();
    rig.client.say("42[\"before\"]").await;
    // The key is fetched for the issuer that knows bob; the session is alice's.
    rig.client.say(&format!("40/a,{{\"token\":\"{}\"}}", remote_token("bob"))).await;
    rig.client.say("42[\"behind\"]").await;
    assert_eq!(rig.backend.hears().await, "42[\"before\"]");
    rig.client.say("40/b,").await;
    rig.backend.hears_nothing().await;
    rig.backend.say("42[\"down\"]").await;
    assert_eq!(rig.client.hears().await, "42[\"down\"]");
    rig.gate.answer_keys();
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::SubjectMismatch));
    assert_eq!(rig.backend.hears().await, "42[\"behind\"]");
    assert_eq!(rig.backend.hears().await, "40/b,");
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_good_after_its_key_was_fetched_passes_at_its_place() {
    let gate = Gate::new(|_| {});
    let mut stay = gate.stay();
    gate.admit(&mut stay, "alice");
    let alice = crate::gate::admission::User { issuer: crate::auth::testing::ISSUER.into(), subject: "alice".into() };
    let (mut client, near) = Wire::new(Writer::Client);
    let (mut backend, far) = Wire::new(Writer::Server);
    let relay = tokio::spawn(run(Parts {
        context: gate.context.clone(),
        stay,
        record: gate.record(),
        admission: Admission::with_user(Version::V4, alice),
        watch: Watch::SocketIo,
        client: (near, Vec::new()),
        upstream: (far, Vec::new()),
        greeting: Vec::new(),
        attachments: (0, 0),
        beats: true,
    }));
    let connect = |ns: &str| format!("40/{ns},{{\"token\":\"{}\",\"n\":1}}", remote_token("alice"));
    // Two of them, and a half-close, in one write: each is judged in its turn.
    let mut all = [client.text("42[1]"), client.text(&connect("a")), client.text("42[2]")].concat();
    all.extend([client.text(&connect("b")), client.text("42[3]")].concat());
    client.send(&all).await;
    client.shutdown().await;
    assert_eq!(backend.hears().await, "42[1]");
    backend.hears_nothing().await;
    gate.answer_keys();
    for want in ["40/a,{\"n\":1}", "42[2]", "40/b,{\"n\":1}", "42[3]"] {
        assert_eq!(backend.hears().await, want);
    }
    assert_eq!(backend.rest().await, b"");
    drop((client, backend));
    relay.await.unwrap();
    gate.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn keys_that_do_not_come_end_the_session_within_seconds() {
    let mut rig = Rig::plain();
    let start = Instant::now();
    rig.client.say(&format!("40/a,{{\"token\":\"{}\"}}", remote_token("alice"))).await;
    assert_eq!(rig.client.is_closed().await, (4503, "keys_unavailable".into()));
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    rig.ended("gate", "keys_unavailable").await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_while_a_token_is_verified_does_not_wait_for_the_verdict() {
    let mut rig = Rig::plain();
    rig.client.say(&format!("40/a,{{\"token\":\"{}\"}}", remote_token("alice"))).await;
    rig.backend.hears_nothing().await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
    assert_eq!(rig.backend.is_closed().await.0, 1001);
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn p51_a_recovery_id_of_the_backend_is_remembered_as_the_users() {
    let mut rig = Rig::plain();
    rig.client.say("40").await;
    assert_eq!(rig.backend.hears().await, "40");
    rig.backend.say("40{\"sid\":\"s\",\"pid\":\"p\"}").await;
    assert_eq!(rig.client.hears().await, "40{\"sid\":\"s\",\"pid\":\"p\"}");
    let gate = rig.ended("client", "").await;
    assert!(gate.context.owns("p", &user("alice")) && !gate.context.owns("p", &user("bob")));
}
