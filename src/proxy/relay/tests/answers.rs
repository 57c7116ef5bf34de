//! The gate's own answers and warnings stand between packets.

use super::*;
use crate::proxy::support::{Frame, refusal, token};

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_the_attachments_of_a_binary_packet() {
    let mut rig = Rig::plain();
    let bad = "40/a,{\"token\":5}";
    rig.backend.say("452-[\"bin\",{},{}]").await;
    assert_eq!(rig.client.hears().await, "452-[\"bin\",{},{}]");
    rig.client.say(bad).await;
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"one")).await;
    assert_eq!(rig.client.next().await.payload, b"one");
    rig.backend.say("2").await;
    assert_eq!(rig.client.hears().await, "2", "a ping of the backend is no end of it");
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"two")).await;
    assert_eq!(rig.client.next().await.payload, b"two");
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_where_attachments_were_announced_before_the_relay_began() {
    let mut rig = Rig::new(Setup { attachments: (1, 1), ..Setup::default() });
    rig.client.send(rig.client.frame(Opcode::Binary, b"up")).await;
    assert_eq!(rig.backend.next().await.payload, b"up");
    rig.client.say("40/a,{\"token\":5}").await;
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"down")).await;
    assert_eq!(rig.client.next().await.payload, b"down");
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_never_put_into_a_frame_or_between_fragments() {
    let mut rig = Rig::plain();
    let bad = "40/a,{\"token\":5}";
    let whole = rig.backend.text(&format!("42[\"{}\"]", "x".repeat(1000)));
    for cut in [1, 2, 3, 4, 5, 500, whole.len() - 1] {
        rig.backend.send(&whole[..cut]).await;
        rig.client.say(bad).await;
        rig.backend.hears_nothing().await;
        rig.backend.send(&whole[cut..]).await;
        let mut got = [rig.client.next().await.payload.len(), rig.client.next().await.payload.len()];
        got.sort_unstable();
        assert_eq!(got, [refusal("/a", Reason::CredentialMalformed).len(), whole.len() - 4], "cut {cut}");
    }
    let fragments = [
        rig.backend.fragment(false, Opcode::Text, b"42[\"a"),
        rig.backend.fragment(false, Opcode::Continuation, b"b"),
        rig.backend.fragment(true, Opcode::Continuation, b"c\"]"),
    ];
    for (i, fragment) in fragments.iter().enumerate() {
        rig.backend.send(fragment).await;
        let Frame { fin, .. } = rig.client.next().await;
        assert_eq!(fin, i == 2);
        if i == 0 {
            rig.client.say(bad).await;
            rig.client.hears_nothing().await;
        }
    }
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_warning_waits_for_attachments_and_a_refresh_never_reaches_the_backend() {
    let config: fn(&mut Config) = |config| config.session.refresh.enabled = true;
    let mut rig = Rig::new(Setup { config, ..Setup::default() });
    rig.join("/a").await;
    rig.backend.say("40/a,{\"sid\":\"x\"}").await;
    assert_eq!(rig.client.hears().await, "40/a,{\"sid\":\"x\"}");
    rig.backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.client.hears().await, "451-[\"bin\",{}]");
    rig.entry.call(WARN);
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"one")).await;
    assert_eq!(rig.client.next().await.payload, b"one");
    assert!(rig.client.hears().await.starts_with("42/a,[\"siogate:expiring\",{\"seconds\":"));
    let asks = |token: String| format!("42/a,7[\"siogate:refresh\",\"{token}\"]");
    for cut in [1, 2, 6, 8, 12, 25, 40, 60] {
        let frame = rig.client.text(&asks(token("bob")));
        rig.client.send(&frame[..cut]).await;
        rig.backend.hears_nothing().await;
        rig.client.send(&frame[cut..]).await;
        assert!(rig.client.hears().await.starts_with("43/a,7[{"));
        rig.client.say("42/a,[\"siogate:refreshed\"]").await;
        assert_eq!(rig.backend.hears().await, "42/a,[\"siogate:refreshed\"]");
    }
    rig.ended("client", "").await;
}
