//! In whatever order the network delivers: nothing is lost, doubled or reordered, and no session outlives its client.

use super::pair::{Action, Pair};
use super::*;
use proptest::prelude::*;

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3), Just(Version::V4)]
}

#[test]
fn the_stock_order_of_an_upgrade_works() {
    for version in [Version::V3, Version::V4] {
        let mut pair = Pair::new(version, 1_000_000);
        // OPEN; then at once and concurrently: POST, upgrade, GET (protocol notes, section 5).
        for action in [Action::ClientSays, Action::Upgrade, Action::PostUp, Action::GetUp, Action::BackendSays] {
            pair.step(action);
        }
        pair.drive();
        assert!(pair.upgraded() && pair.upgrades == 1);
        pair.step(Action::BackendSays);
        pair.step(Action::ClientSays);
        pair.drive();
        pair.assert_all_heard();
        assert!(pair.lives());
    }
}

#[test]
fn a_client_that_only_polls_is_served() {
    let mut pair = Pair::new(Version::V4, 30);
    for _ in 0..20 {
        pair.step(Action::BackendSays);
        pair.step(Action::ClientSays);
    }
    pair.drive();
    pair.assert_all_heard();
    assert!(pair.engine.holds_get());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// No packet is lost, doubled or reordered across the upgrade, in any order of delivery, with
    /// WebSockets that break and upgrades that time out.
    #[test]
    fn no_interleaving_loses_doubles_or_reorders_a_packet(
        version in versions(),
        max_payload in prop_oneof![Just(1usize), Just(12), Just(1_000_000)],
        beats in any::<bool>(),
        choices in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut pair = Pair::new(version, max_payload);
        if beats {
            // A pong answers within no time here: the clock moves by deadlines only.
            pair.engine.beat(pair.now, EVERY);
        }
        for choice in choices {
            let actions = pair.actions();
            let Some(action) = actions.get(usize::from(choice) % actions.len().max(1)) else { break };
            pair.step(*action);
            pair.assert_in_order();
        }
        pair.drive();
        if pair.lives() && !pair.is_gone() {
            pair.assert_all_heard();
            prop_assert!(pair.upgraded() || pair.engine.holds_get(), "a poll is held, or there is a WebSocket");
            prop_assert_eq!(pair.upgraded(), pair.engine.on_websocket());
        } else {
            // Only silence ends a session here: the gate's pings, or a WebSocket given up in the last moment.
            prop_assert!(beats || pair.is_gone(), "{:?}", pair.over);
        }
    }

    /// A client that vanishes at any moment is noticed within interval and timeout.
    #[test]
    fn a_session_ends_when_its_client_vanishes(
        choices in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut pair = Pair::new(Version::V4, 1_000_000);
        pair.engine.beat(pair.now, EVERY);
        for choice in choices {
            let actions = pair.actions();
            let Some(action) = actions.get(usize::from(choice) % actions.len().max(1)) else { break };
            pair.step(*action);
        }
        pair.vanish();
        let by = pair.now + EVERY.interval + EVERY.timeout;
        while pair.lives() {
            let Some(at) = pair.engine.deadline() else { panic!("nobody looks after it") };
            prop_assert!(at <= by, "noticed too late");
            pair.step(Action::Tick);
        }
        prop_assert_eq!(pair.over, Some(Ending::Client));
        prop_assert_eq!(pair.version(), Version::V4);
    }

    /// When the backend has gone, a client that goes on gets all that is queued, and then the session ends.
    #[test]
    fn a_drain_delivers_everything_in_any_state(
        version in versions(),
        max_payload in prop_oneof![Just(1usize), Just(1_000_000)],
        choices in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut pair = Pair::new(version, max_payload);
        for choice in choices {
            let actions = pair.actions();
            let Some(action) = actions.get(usize::from(choice) % actions.len().max(1)) else { break };
            pair.step(*action);
        }
        prop_assume!(!pair.is_gone());
        pair.engine.drain();
        pair.drain_effects();
        pair.drive();
        if !pair.is_gone() {
            prop_assert_eq!(pair.over, Some(Ending::Upstream));
            prop_assert_eq!(pair.heard.1.len(), pair.said.1);
        }
        pair.assert_in_order();
    }
}
