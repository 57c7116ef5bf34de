//! The machine by itself, rule by rule (protocol notes, sections 2, 3 and 5), and against a model
//! client in virtual time.

mod ending;
mod heartbeat;
mod interleavings;
mod pair;
mod polling;
mod upgrade;

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
