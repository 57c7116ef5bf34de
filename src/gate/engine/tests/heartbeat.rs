//! Who pings whom, before and after the backend is there.

use super::*;

#[test]
fn before_the_backend_is_there_the_machine_pings_and_a_silent_client_is_gone() {
    let now = Instant::now();
    let mut e = on_websocket(Version::V4);
    e.beat(now, EVERY);
    e.websocket(Some(text("3")));
    assert_eq!(effects(&mut e), [], "a pong nobody asked for");
    let mut at = now;
    for _ in 0..3 {
        assert_eq!(e.deadline(), Some(at + EVERY.interval));
        e.tick(at + EVERY.interval - SECOND);
        assert_eq!(effects(&mut e), []);
        at += EVERY.interval;
        e.tick(at);
        assert_eq!(effects(&mut e), [ws("2")]);
        e.tick(at + SECOND);
        assert_eq!(effects(&mut e), [], "one ping at a time");
        e.websocket(Some(text("3")));
        assert_eq!(effects(&mut e), [], "the pong is the gate's");
    }
    e.tick(at + EVERY.interval);
    assert_eq!(effects(&mut e), [ws("2")]);
    e.websocket(Some(text("42[]")));
    effects(&mut e);
    e.tick(at + EVERY.interval + EVERY.timeout);
    assert_eq!(effects(&mut e), [Effect::Over(Ending::Client)], "only a pong counts");
}

#[test]
fn pings_reach_a_poller_with_its_next_poll() {
    let now = Instant::now();
    let mut e = polling(Version::V4);
    e.beat(now, EVERY);
    e.tick(now + EVERY.interval);
    assert_eq!(effects(&mut e), []);
    e.get(now + EVERY.interval + SECOND, 1);
    assert_eq!(effects(&mut e), [packets(1, &["2"])]);
    assert!(e.post(Some(vec![text("3")])));
    assert_eq!(effects(&mut e), []);
    assert_eq!(e.deadline(), Some(now + EVERY.interval * 2));
}

#[test]
fn once_the_backend_is_there_heartbeats_run_from_end_to_end() {
    let now = Instant::now();
    let mut e = on_websocket(Version::V4);
    e.beat(now, EVERY);
    e.end_to_end();
    assert_eq!(e.deadline(), None);
    e.tick(now + SECOND * 3600);
    assert_eq!(effects(&mut e), []);
    e.send(text("2"));
    e.websocket(Some(text("3")));
    assert_eq!(effects(&mut e), [ws("2"), Effect::Client(text("3"))]);
}

#[test]
fn protocol_3_clients_ping_and_are_answered_by_whoever_is_there() {
    let now = Instant::now();
    let mut e = polling(Version::V3);
    assert!(e.post(Some(vec![text("2")])));
    assert_eq!(effects(&mut e), [Effect::Client(text("2"))], "the backend answers");
    e.beat(now, EVERY);
    assert_eq!(e.deadline(), None, "the gate does not ping");
    e.get(now, 1);
    assert!(e.post(Some(vec![text("2")])));
    assert_eq!(effects(&mut e), [packets(1, &["3"])], "there is no backend yet");
    e.end_to_end();
    assert!(e.post(Some(vec![text("2")])));
    assert_eq!(effects(&mut e), [Effect::Client(text("2"))]);
}

#[test]
fn protocol_4_clients_must_not_ping() {
    for mut e in [polling(Version::V4), upgraded(Version::V4, Instant::now())] {
        match e.on_websocket() {
            true => e.websocket(Some(text("2"))),
            false => assert!(e.post(Some(vec![text("2")]))),
        }
        assert_eq!(effects(&mut e), [over(Reason::ProtocolError)]);
    }
}
