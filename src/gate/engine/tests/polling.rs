//! Polls and posts: one of each at a time, in order, and what ends the session.

use super::*;

#[test]
fn a_poll_is_held_until_there_is_something_to_say() {
    let now = Instant::now();
    let mut e = polling(Version::V4);
    e.get(now, 1);
    assert!(e.holds_get() && e.deadline().is_none());
    assert_eq!(effects(&mut e), []);
    e.send(text("4a"));
    e.send(text("4b"));
    assert_eq!(effects(&mut e), [packets(1, &["4a"])]);
    assert!(!e.holds_get());
    e.get(now, 2);
    assert_eq!(effects(&mut e), [packets(2, &["4b"])]);
    assert_eq!(e.queued(), 0);
}

#[test]
fn one_answer_holds_as_many_packets_as_fit_and_at_least_one() {
    let mut e = Engine::new(Version::V4, false, Start::Polling, 10);
    for packet in ["4aa", "4bb", "4this one alone is too long", "4c"] {
        e.send(text(packet));
    }
    let mut got = Vec::new();
    for id in 1..=4 {
        e.get(Instant::now(), id);
        got.extend(effects(&mut e));
    }
    let want = [packets(1, &["4aa", "4bb"]), packets(2, &["4this one alone is too long"]), packets(3, &["4c"])];
    assert_eq!(got, want);
    assert!(e.holds_get());
}

#[test]
fn p17_empty_packets_count_against_the_queue_too() {
    let mut e = polling(Version::V4);
    for _ in 0..1000 {
        e.send(Packet::Binary(Bytes::new()));
    }
    assert!(e.queued() >= 1000 * size_of::<Packet>(), "{}", e.queued());
    e.get(Instant::now(), 1);
    assert_eq!(e.queued(), 0);
}

#[test]
fn a_second_poll_is_refused_the_first_is_told_to_close_and_the_session_ends() {
    let now = Instant::now();
    let mut e = polling(Version::V4);
    e.get(now, 1);
    e.get(now, 2);
    assert_eq!(effects(&mut e), [packets(1, &["1"]), conflict(2), over(Reason::ProtocolError)]);
    e.get(now, 3);
    assert_eq!(effects(&mut e), [conflict(3)]);
}

#[test]
fn an_aborted_poll_ends_the_session_and_one_that_was_answered_does_not() {
    let now = Instant::now();
    let mut e = polling(Version::V4);
    e.get(now, 1);
    e.send(text("4a"));
    e.get_gone(1);
    assert_eq!(effects(&mut e), [packets(1, &["4a"])]);
    e.get(now, 2);
    e.get_gone(1);
    assert_eq!(effects(&mut e), []);
    e.get_gone(2);
    assert_eq!(effects(&mut e), [Effect::Over(Ending::Client)]);
}

#[test]
fn a_post_brings_packets_in_order_and_what_the_server_ignores_is_ignored() {
    let mut e = polling(Version::V4);
    assert!(e.post(Some(vec![text("40"), text("0{}"), text("6"), text("5"), text("3"), text("42[]")])));
    let want: Vec<_> = ["40", "3", "42[]"].map(|p| Effect::Client(text(p))).into();
    assert_eq!(effects(&mut e), want);
    assert!(!e.on_websocket(), "an upgrade packet in a body upgrades nothing");
}

#[test]
fn a_post_that_is_no_payload_ends_the_session() {
    let mut e = polling(Version::V4);
    assert!(e.post(None), "it is answered ok");
    assert_eq!(effects(&mut e), [over(Reason::ProtocolError)]);
}

#[test]
fn packets_before_a_bad_one_count_and_those_behind_it_do_not() {
    let mut e = polling(Version::V4);
    assert!(e.post(Some(vec![text("4a"), text("2"), text("4b")])));
    assert_eq!(effects(&mut e), [Effect::Client(text("4a")), over(Reason::ProtocolError)]);
}

#[test]
fn a_close_packet_answers_the_held_poll_with_noop_and_ends_the_session() {
    let now = Instant::now();
    for version in [Version::V3, Version::V4] {
        let mut e = polling(version);
        e.get(now, 1);
        assert!(e.post(Some(vec![text("4bye"), text("1"), text("4behind")])));
        assert_eq!(effects(&mut e), [Effect::Client(text("4bye")), packets(1, &["6"]), Effect::Over(Ending::Client)]);
        e.get(now, 2);
        assert_eq!(effects(&mut e), [conflict(2)]);
        assert!(!e.post(Some(vec![text("4late")])));
        assert_eq!(effects(&mut e), []);
    }
}
