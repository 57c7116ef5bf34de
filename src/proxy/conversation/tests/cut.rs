//! The gate ends a session: what its client is told, and where.

use super::*;
use crate::config::model::OnExpiry;
use crate::protocol::frame::Opcode;

#[tokio::test(start_paused = true)]
async fn p39_at_the_cut_a_held_poll_is_told_why_and_the_sid_is_unknown() {
    let (rig, mut backend) = Rig::known(|_| {});
    let mut poll = rig.ask().await;
    is_held(&mut poll).await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(got(poll).await, over(Reason::TokenExpired));
    assert_eq!(backend.is_closed().await.0, 1001);
    let registry = rig.gate.context.registry.clone();
    assert!(registry.find("sid").is_none() && registry.farewell("sid").is_none(), "told once");
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn p39_at_the_cut_of_a_session_between_polls_the_next_one_is_told() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("42[\"never fetched\"]").await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(backend.is_closed().await.0, 1001);
    let registry = rig.gate.context.registry.clone();
    rig.ended("gate", "token_expired").await;
    assert!(registry.find("sid").is_none());
    assert_eq!(registry.farewell("sid"), Some(Reason::TokenExpired));
    assert_eq!(registry.farewell("sid"), None);
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_the_last_poll_brings_41_for_every_namespace() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    for held in [true, false] {
        let (rig, mut backend) = Rig::known(config);
        rig.post(&["40", "40/a,"]).await;
        assert_eq!((backend.hears().await, backend.hears().await), ("40".into(), "40/a,".into()));
        let poll = if held { Some(rig.ask().await) } else { None };
        backend.hears_nothing().await;
        rig.entry.end(Reason::TokenExpired);
        let poll = match poll {
            Some(poll) => poll,
            None => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                rig.ask().await
            }
        };
        assert_eq!(got(poll).await, packets(&["41/a,", "41"]));
        rig.ended("gate", "token_expired").await;
    }
    let (rig, _backend) = Rig::known(config);
    rig.post(&["40"]).await;
    rig.entry.end(Reason::TokenExpired);
    let start = tokio::time::Instant::now();
    rig.ended("gate", "token_expired").await;
    assert_eq!(start.elapsed().as_secs(), 5, "nobody came");
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_41_stands_behind_the_attachments_of_a_packet_that_was_fetched() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    for (before, after, want) in [
        // Both are behind the cut, one is, or the backend owes it for ever.
        (vec![], vec!["one", "one"], Some(packets(&["bb25l", "bb25l", "41"]))),
        (vec!["one"], vec!["one"], Some(packets(&["bb25l", "bb25l", "41"]))),
        (vec!["one", "one"], vec![], Some(packets(&["bb25l", "bb25l", "41"]))),
        (vec!["one"], vec![], None),
    ] {
        let (rig, mut backend) = Rig::known(config);
        rig.post(&["40"]).await;
        assert_eq!(backend.hears().await, "40");
        backend.say("452-[{},{}]").await;
        assert_eq!(rig.get().await, packets(&["452-[{},{}]"]));
        for part in before {
            backend.send(backend.frame(Opcode::Binary, part.as_bytes())).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.entry.end(Reason::TokenExpired);
        tokio::time::sleep(Duration::from_millis(10)).await;
        for part in after {
            backend.send(backend.frame(Opcode::Binary, part.as_bytes())).await;
        }
        if let Some(want) = want {
            assert_eq!(rig.get().await, want);
        }
        rig.ended("gate", "token_expired").await;
    }
    // Of one that was not fetched nothing is said.
    let (rig, mut backend) = Rig::known(config);
    rig.post(&["40"]).await;
    assert_eq!(backend.hears().await, "40");
    backend.say("451-[{}]").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.get().await, packets(&["41"]));
    rig.ended("gate", "token_expired").await;
}
