//! From polling to a WebSocket: the probe, the held poll, a second socket, a lost one.

use super::*;

/// A session whose client has opened a WebSocket, and perhaps probed it.
fn upgrading(now: Instant, probe: bool) -> Engine {
    let mut e = polling(Version::V4);
    assert!(e.upgrade(now));
    if probe {
        e.websocket(Some(text("2probe")));
    }
    effects(&mut e);
    e
}

#[test]
fn an_upgrade_releases_the_held_poll_and_flushes_the_queue_on_the_websocket() {
    let now = Instant::now();
    for version in [Version::V3, Version::V4] {
        let mut e = polling(version);
        e.get(now, 1);
        assert!(e.upgrade(now));
        assert_eq!(effects(&mut e), [], "an open socket changes nothing yet");
        e.websocket(Some(text("2probe")));
        assert_eq!(effects(&mut e), [ws("3probe"), packets(1, &["6"])]);
        e.send(text("4a"));
        e.send(Packet::Binary(Bytes::from_static(b"b")));
        assert_eq!(effects(&mut e), [], "nobody polls and nobody has upgraded");
        e.websocket(Some(text("5")));
        let binary = Effect::Ws(Packet::Binary(Bytes::from_static(b"b")));
        assert_eq!(effects(&mut e), [Effect::Upgraded, ws("4a"), binary]);
        assert!(e.on_websocket() && e.deadline().is_none());
        e.websocket(Some(text("4up")));
        e.send(text("4down"));
        assert_eq!(effects(&mut e), [Effect::Client(text("4up")), ws("4down")]);
    }
}

#[test]
fn a_poll_that_comes_after_the_probe_is_answered_within_100_ms() {
    let now = Instant::now();
    let mut e = probed(Version::V4, now);
    e.get(now, 1);
    assert_eq!(e.deadline(), Some(now + NOOP_DELAY));
    e.tick(now + NOOP_DELAY - Duration::from_millis(1));
    assert_eq!(effects(&mut e), []);
    e.tick(now + NOOP_DELAY);
    assert_eq!(effects(&mut e), [packets(1, &["6"])]);
}

#[test]
fn a_poll_still_held_when_the_upgrade_is_done_is_answered() {
    let now = Instant::now();
    let mut e = polling(Version::V4);
    e.get(now, 1);
    assert!(e.upgrade(now));
    e.websocket(Some(text("5")));
    assert_eq!(effects(&mut e), [packets(1, &["6"]), Effect::Upgraded], "engine.io asks for no probe");
}

#[test]
fn packets_go_to_a_poller_while_the_upgrade_is_under_way() {
    let now = Instant::now();
    let mut e = probed(Version::V4, now);
    e.send(text("4a"));
    e.get(now, 1);
    assert_eq!(effects(&mut e), [packets(1, &["4a"])]);
}

#[test]
fn after_the_upgrade_polls_and_posts_are_refused_and_the_session_lives() {
    let now = Instant::now();
    let mut e = upgraded(Version::V4, now);
    e.get(now, 7);
    assert_eq!(effects(&mut e), [conflict(7)]);
    assert!(!e.post(Some(vec![text("4x")])));
    assert!(!e.post(None));
    assert_eq!(effects(&mut e), []);
    e.websocket(Some(text("4y")));
    assert_eq!(effects(&mut e), [Effect::Client(text("4y"))]);
}

#[test]
fn a_second_websocket_is_refused_and_the_first_goes_on() {
    let now = Instant::now();
    let mut e = polling(Version::V4);
    assert!(e.upgrade(now));
    assert!(!e.upgrade(now), "one is opened already");
    e.websocket(Some(text("2probe")));
    assert!(!e.upgrade(now), "one is probing");
    e.websocket(Some(text("5")));
    assert!(!e.upgrade(now), "the session has one");
    assert!(!on_websocket(Version::V4).upgrade(now));
    effects(&mut e);
    e.websocket(Some(text("4a")));
    assert_eq!(effects(&mut e), [Effect::Client(text("4a"))]);
}

#[test]
fn an_upgrade_that_is_not_finished_in_time_is_given_up_and_polling_goes_on() {
    let now = Instant::now();
    for probe in [false, true] {
        let mut e = upgrading(now, probe);
        assert_eq!(e.deadline(), Some(now + UPGRADE_TIMEOUT));
        e.tick(now + UPGRADE_TIMEOUT - Duration::from_millis(1));
        assert_eq!(effects(&mut e), []);
        e.tick(now + UPGRADE_TIMEOUT);
        assert_eq!(effects(&mut e), [Effect::DropWs]);
        e.get(now, 1);
        e.send(text("4a"));
        assert_eq!(effects(&mut e), [packets(1, &["4a"])]);
        assert!(e.upgrade(now), "it may try again");
    }
}

#[test]
fn p31_probing_again_does_not_extend_the_upgrade() {
    let now = Instant::now();
    let mut e = polling(Version::V4);
    assert!(e.upgrade(now));
    for second in 0..10 {
        e.tick(now + SECOND * second);
        e.websocket(Some(text("2probe")));
        assert_eq!(effects(&mut e), [ws("3probe")]);
    }
    e.tick(now + UPGRADE_TIMEOUT);
    assert_eq!(effects(&mut e), [Effect::DropWs]);
}

#[test]
fn anything_else_on_a_probing_socket_closes_that_socket_only() {
    let now = Instant::now();
    let odd = [Some("2"), Some("3probe"), Some("2probe2"), Some("4a"), Some("1"), Some("6"), None];
    for packet in odd {
        for probe in [false, true] {
            let mut e = upgrading(now, probe);
            e.websocket(packet.map(text));
            assert_eq!(effects(&mut e), [Effect::DropWs], "{packet:?}");
            assert!(!e.on_websocket());
            e.websocket(Some(text("4late")));
            assert_eq!(effects(&mut e), [], "what was still in it is for nobody");
        }
    }
}

#[test]
fn a_websocket_lost_before_the_end_of_the_upgrade_leaves_the_session_polling() {
    let now = Instant::now();
    let mut e = probed(Version::V4, now);
    e.get(now, 1);
    e.websocket_gone();
    e.tick(now + SECOND);
    assert_eq!(effects(&mut e), [packets(1, &["6"])]);
    assert!(e.deadline().is_none());
    e.send(text("4a"));
    e.get(now, 2);
    assert_eq!(effects(&mut e), [packets(2, &["4a"])]);
}

#[test]
fn a_websocket_lost_after_the_upgrade_ends_the_session() {
    let mut e = upgraded(Version::V4, Instant::now());
    e.websocket_gone();
    assert_eq!(effects(&mut e), [Effect::Over(Ending::Client)]);
    e.websocket_gone();
    e.websocket(Some(text("4a")));
    e.send(text("4b"));
    assert_eq!(effects(&mut e), []);
}

#[test]
fn on_a_websocket_stray_packets_are_ignored_and_broken_ones_end_the_session() {
    for stray in ["5", "6", "0{}", "1"] {
        let mut e = on_websocket(Version::V4);
        e.websocket(Some(text(stray)));
        assert_eq!(effects(&mut e), [], "{stray}");
    }
    for broken in [Some("2"), Some("2probe"), None] {
        let mut e = on_websocket(Version::V4);
        e.websocket(broken.map(text));
        assert_eq!(effects(&mut e), [over(Reason::ProtocolError)], "{broken:?}");
    }
}
