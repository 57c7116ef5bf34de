//! How a session ends: drained, stopped, over.

use super::*;

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
