//! What keeps a session awake, and how long silence is borne.

use super::*;
use crate::session::reaper;

#[tokio::test(start_paused = true)]
async fn an_event_keeps_a_poller_awake_and_neither_a_refresh_nor_a_heartbeat_does() {
    let config: fn(&mut Config) = |config| {
        config.session.idle_timeout = Duration::from_secs(4);
        config.session.refresh.enabled = true;
    };
    for (says, wakes) in [
        (&["42[]"][..], true),
        (&["43[]"], true),
        (&["451-[{}]", "bAQID"], true),
        (&["42[\"siogate:refresh\",\"bad\"]"], false),
        (&["3"], false),
        (&["41/a,"], false),
    ] {
        let (rig, _backend) = Rig::known(config);
        let context = &rig.gate.context;
        let reaper = tokio::spawn(reaper::run(context.registry.clone(), context.clock.clone()));
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if rig.entry.ended().is_some() {
                break;
            }
            // It may end meanwhile.
            let _ = rig.send(Some(says)).await;
        }
        assert_eq!(rig.entry.ended(), (!wakes).then_some(Reason::Idle), "{says:?}");
        reaper.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_poller_or_a_backend_that_is_silent_for_interval_and_timeout_is_dead() {
    for silent in ["client", "backend", "nobody"] {
        let (rig, mut backend) = Rig::known(|_| {});
        let (registry, clock) = (rig.gate.context.registry.clone(), rig.gate.context.clock.clone());
        let reaper = tokio::spawn(crate::session::reaper::run(registry, clock));
        let start = tokio::time::Instant::now();
        for beat in 0..10 {
            if silent != "backend" {
                backend.say("2").await;
            }
            if silent != "client" && rig.entry.ended().is_none() {
                // Only the client's own requests count for it: this one is answered when the backend beats.
                if silent == "nobody" {
                    assert_eq!(rig.get().await, packets(&["2"]), "beat {beat}");
                }
                rig.post(&["3"]).await;
                assert_eq!(backend.hears().await, "3");
            }
            tokio::time::sleep(Duration::from_secs(25)).await;
            if rig.entry.ended().is_some() {
                break;
            }
        }
        reaper.abort();
        let seconds = start.elapsed().as_secs();
        if silent == "nobody" {
            assert_eq!(rig.entry.ended(), None);
            drop(backend);
            rig.get().await;
            rig.ended("upstream", "").await;
        } else {
            assert!((50..=75).contains(&seconds), "{silent}: {seconds}");
            drop(backend);
            rig.ended("gate", "idle").await;
        }
    }
}
