//! The machine by itself, rule by rule (protocol notes, sections 2, 3 and 5), and against a model
//! client in virtual time.

mod pair;

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const EVERY: Heartbeat = Heartbeat { interval: Duration::from_secs(25), timeout: Duration::from_secs(20) };

fn text(text: &str) -> Packet {
    Packet::text(text)
}

fn polling(version: Version) -> Engine {
    Engine::new(version, false, Start::Polling, 1_000_000)
}

fn on_websocket(version: Version) -> Engine {
    Engine::new(version, false, Start::Websocket, 1_000_000)
}

fn effects(engine: &mut Engine) -> Vec<Effect> {
    std::iter::from_fn(|| engine.effect()).collect()
}

fn packets(id: GetId, packets: &[&str]) -> Effect {
    Effect::Get(id, GetAnswer::Packets(packets.iter().map(|p| text(p)).collect()))
}

fn conflict(id: GetId) -> Effect {
    Effect::Get(id, GetAnswer::Conflict)
}

fn over(reason: Reason) -> Effect {
    Effect::Over(Ending::Gate(reason))
}

fn ws(packet: &str) -> Effect {
    Effect::Ws(text(packet))
}

/// A session in the middle of its upgrade: `2probe` was answered.
fn probed(version: Version, now: Instant) -> Engine {
    let mut e = polling(version);
    assert!(e.upgrade(now));
    e.websocket(Some(text("2probe")));
    assert_eq!(effects(&mut e), [ws("3probe")]);
    e
}

fn upgraded(version: Version, now: Instant) -> Engine {
    let mut e = probed(version, now);
    e.websocket(Some(text("5")));
    assert_eq!(effects(&mut e), [Effect::Upgraded]);
    e
}

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
        let mut e = polling(Version::V4);
        assert!(e.upgrade(now));
        if probe {
            e.websocket(Some(text("2probe")));
        }
        effects(&mut e);
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
            let mut e = polling(Version::V4);
            assert!(e.upgrade(now));
            if probe {
                e.websocket(Some(text("2probe")));
            }
            effects(&mut e);
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

#[test]
fn a_drain_delivers_the_queue_first() {
    let now = Instant::now();
    let mut e = Engine::new(Version::V4, false, Start::Polling, 4);
    e.send(text("4a"));
    e.send(text("4b"));
    e.drain();
    assert_eq!(effects(&mut e), []);
    e.get(now, 1);
    assert_eq!(effects(&mut e), [packets(1, &["4a"])]);
    e.get(now, 2);
    assert_eq!(effects(&mut e), [packets(2, &["4b"]), Effect::Over(Ending::Upstream)]);
}

#[test]
fn a_drain_ends_at_once_where_nothing_is_queued_and_survives_an_upgrade_where_something_is() {
    let now = Instant::now();
    for mut e in [polling(Version::V4), on_websocket(Version::V4)] {
        e.get(now, 1);
        effects(&mut e);
        e.drain();
        assert_eq!(effects(&mut e), [Effect::Over(Ending::Upstream)]);
    }
    let mut e = probed(Version::V4, now);
    e.send(text("4a"));
    e.drain();
    assert_eq!(effects(&mut e), []);
    e.websocket(Some(text("5")));
    assert_eq!(effects(&mut e), [Effect::Upgraded, ws("4a"), Effect::Over(Ending::Upstream)]);
}

#[test]
fn what_is_left_of_a_packet_that_was_fetched_in_part_is_given_back() {
    let binary = |byte: u8| Packet::Binary(Bytes::from(vec![byte]));
    for (queued, attachments, last) in [
        (vec![], vec![], true),
        (vec![binary(1), binary(2)], vec![binary(1), binary(2)], true),
        (vec![binary(1), text("451-[]"), binary(2)], vec![binary(1)], false),
        (vec![text("451-[]"), binary(2)], vec![], false),
    ] {
        let mut e = Engine::new(Version::V4, false, Start::Polling, 1000);
        queued.into_iter().for_each(|packet| e.send(packet));
        assert_eq!(e.stop(), Rest { attachments, last });
        assert_eq!(e.queued(), 0);
    }
}

#[test]
fn a_session_that_is_over_wants_nothing_more() {
    let now = Instant::now();
    let mut e = probed(Version::V4, now);
    e.beat(now, EVERY);
    e.send(text("4a"));
    assert_eq!(e.stop(), Rest { attachments: vec![], last: false });
    assert_eq!((e.deadline(), e.queued()), (None, 0));
    e.tick(now + SECOND * 3600);
    e.websocket(Some(text("5")));
    e.get_gone(1);
    e.drain();
    assert!(!e.upgrade(now));
    assert_eq!(effects(&mut e), []);
}

proptest! {
    /// Whatever happens, and in whatever order: no panic, no GET answered twice, nothing after the end.
    #[test]
    fn p35_any_sequence_of_events_keeps_the_books(
        version in prop_oneof![Just(Version::V3), Just(Version::V4)],
        websocket in any::<bool>(),
        beats in any::<bool>(),
        events in proptest::collection::vec((0u8..13, 0u64..6, 0u64..30_000), 0..60),
    ) {
        let start = if websocket { Start::Websocket } else { Start::Polling };
        let mut e = Engine::new(version, false, start, 20);
        let mut now = Instant::now();
        if beats {
            e.beat(now, EVERY);
        }
        let (mut asked, mut answered, mut ended) = (0, std::collections::HashSet::new(), false);
        for (event, id, ms) in events {
            let packet = ["2probe", "5", "4a", "3", "2", "1"].get(id as usize).map(|p| text(p));
            match event {
                0 | 1 => { asked += 1; e.get(now, asked) }
                2 => e.get_gone(asked.saturating_sub(id)),
                3 => { e.post(packet.map(|p| vec![p])); }
                4 => { e.upgrade(now); }
                5 | 6 => e.websocket(packet),
                7 => e.websocket_gone(),
                8 | 9 => e.send(text("4hello")),
                10 => if id == 0 { e.drain() },
                11 => if id == 0 { e.end_to_end() },
                _ => { now += Duration::from_millis(ms); e.tick(now) }
            }
            for effect in effects(&mut e) {
                let is_get = matches!(effect, Effect::Get(..));
                prop_assert!(!ended || is_get, "{effect:?} after the end");
                match effect {
                    Effect::Get(id, _) => prop_assert!(answered.insert(id), "GET {id} answered twice"),
                    Effect::Over(_) => { prop_assert!(!ended, "two endings"); ended = true }
                    _ => {}
                }
            }
            prop_assert!(!ended || e.deadline().is_none());
            prop_assert!(e.deadline().is_none_or(|at| at + EVERY.interval >= now), "a deadline long past");
        }
    }
}
