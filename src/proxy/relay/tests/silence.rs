//! What keeps a session awake, and how long silence is borne.

use super::*;
use crate::session::reaper;

#[tokio::test(start_paused = true)]
async fn a_silent_leg_is_dead_after_interval_and_timeout_and_a_beating_one_is_not() {
    for silent in [true, false] {
        let mut rig = Rig::plain();
        let reaper = tokio::spawn(reaper::run(rig.gate.context.registry.clone(), rig.gate.context.clock.clone()));
        let start = Instant::now();
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_secs(25)).await;
            if rig.relay.is_finished() || rig.entry.ended().is_some() {
                break;
            }
            rig.backend.say("2").await;
            assert_eq!(rig.client.hears().await, "2");
            if !silent {
                rig.client.say("3").await;
                assert_eq!(rig.backend.hears().await, "3");
            }
        }
        if silent {
            assert_eq!(rig.entry.ended(), Some(Reason::Idle));
            assert!(start.elapsed() <= Duration::from_secs(75), "{:?}", start.elapsed());
            assert_eq!(rig.client.is_closed().await, (4400, "idle".into()));
            rig.ended("gate", "idle").await;
        } else {
            assert_eq!(rig.entry.ended(), None);
            rig.ended("client", "").await;
        }
        reaper.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_message_keeps_a_session_awake_and_a_refresh_does_not() {
    let config: fn(&mut Config) = |config| {
        config.session.idle_timeout = Duration::from_secs(4);
        config.session.refresh.enabled = true;
    };
    for (slow, wakes) in [(true, true), (false, true), (false, false)] {
        let mut rig = Rig::new(Setup { config, ..Setup::default() });
        let reaper = tokio::spawn(reaper::run(rig.gate.context.registry.clone(), rig.gate.context.clock.clone()));
        let message = rig.client.text(&format!("42[\"{}\"]", "x".repeat(30)));
        let (begun, rest) = message.split_at(20);
        for part in std::iter::once(begun).chain(rest.chunks(1)) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if rig.entry.ended().is_some() {
                break;
            }
            match (slow, wakes) {
                (true, _) => rig.client.send(part).await,
                // Taken out, since its first fragment says too little.
                (false, true) => {
                    let parts = [
                        rig.client.fragment(false, Opcode::Text, b"4"),
                        rig.client.fragment(true, Opcode::Continuation, b"2[]"),
                    ];
                    rig.client.send(parts.concat()).await;
                }
                (false, false) => {
                    rig.client.say("42[\"siogate:refresh\",\"bad\"]").await;
                    rig.client.say("3").await;
                }
            }
        }
        assert_eq!(rig.entry.ended(), (!wakes).then_some(Reason::Idle), "slow: {slow}, wakes: {wakes}");
        let (by, reason) = if wakes { ("client", "") } else { ("gate", "idle") };
        rig.ended(by, reason).await;
        reaper.abort();
    }
}
