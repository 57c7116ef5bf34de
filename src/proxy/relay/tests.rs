use super::*;
use crate::config::model::{Config, OnExpiry};
use crate::protocol::engineio::Version;
use crate::proxy::relay::leaving::{LAST_FRAME, LAST_WORDS};
use crate::proxy::support::{Frame, Gate, Wire, refusal, remote_token, token, user};
use crate::session::reaper;
use crate::session::registry::Entry;
use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const MEGABYTE: usize = 1 << 20;

/// How a relay begins.
struct Setup {
    config: fn(&mut Config),
    watch: Watch,
    beats: bool,
    client: Vec<u8>,
    upstream: Vec<u8>,
    greeting: Vec<u8>,
    attachments: (u32, u32),
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: |_| {},
            watch: Watch::SocketIo,
            beats: true,
            client: Vec::new(),
            upstream: Vec::new(),
            greeting: Vec::new(),
            attachments: (0, 0),
        }
    }
}

/// A relay between a client and a backend.
struct Rig {
    gate: Gate,
    client: Wire,
    backend: Wire,
    entry: Arc<Entry>,
    relay: JoinHandle<()>,
}

impl Rig {
    /// Of a session that is alice's.
    fn new(setup: Setup) -> Self {
        let gate = Gate::new(setup.config);
        let mut stay = gate.stay();
        gate.admit(&mut stay, "alice");
        let entry = stay.entry().clone();
        let (client, near) = Wire::new(Writer::Client);
        let (backend, far) = Wire::new(Writer::Server);
        let relay = tokio::spawn(run(Parts {
            context: gate.context.clone(),
            stay,
            record: gate.record(),
            admission: Admission::with_user(Version::V4, user("alice")),
            watch: setup.watch,
            client: (near, setup.client),
            upstream: (far, setup.upstream),
            greeting: setup.greeting,
            attachments: setup.attachments,
            beats: setup.beats,
        }));
        Self { gate, client, backend, entry, relay }
    }

    fn plain() -> Self {
        Self::new(Setup::default())
    }

    /// The client joins a namespace and the backend agrees.
    async fn join(&mut self, namespace: &str) {
        let comma = if namespace.is_empty() { "" } else { "," };
        self.client.say(&format!("40{namespace}{comma}")).await;
        assert_eq!(self.backend.hears().await, format!("40{namespace}{comma}"));
        let answer = format!("40{namespace}{comma}{{\"sid\":\"x\"}}");
        self.backend.say(&answer).await;
        assert_eq!(self.client.hears().await, answer);
    }

    /// The relay has ended in this way, or ends so when `by` leaves, and left nothing.
    async fn ended(mut self, by: &'static str, reason: &'static str) -> Gate {
        match by {
            "client" => {
                drop(self.client);
                self.backend.rest().await;
            }
            "upstream" => {
                drop(self.backend);
                self.client.rest().await;
            }
            _ => drop((self.client, self.backend)),
        }
        self.relay.await.unwrap();
        drop(self.entry);
        assert_eq!(self.gate.ended(by, reason), 1, "not ended by {by} with {reason:?}");
        self.gate.assert_empty();
        self.gate
    }
}

/// Traffic of one side that holds every form of frame, and nothing that is taken out.
fn traffic(wire: &Wire, long: usize) -> Vec<u8> {
    use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
    let parts = [
        wire.text("2"),
        wire.text(""),
        wire.text(&format!("42[\"{}\"]", "x".repeat(125))),
        wire.text(&format!("42[\"{}\"]", "y".repeat(long))),
        wire.frame(Ping, b"are you there"),
        wire.text("452-[\"bin\",{},{}]"),
        wire.frame(Binary, [0; 300]),
        wire.frame(Pong, b""),
        wire.fragment(false, Binary, b"a"),
        wire.fragment(false, Continuation, b""),
        wire.frame(Ping, b"between fragments"),
        wire.fragment(true, Continuation, [1; 5000]),
        wire.fragment(false, Text, b"42[\"in pieces"),
        wire.fragment(true, Continuation, b"\"]"),
        wire.text("451-[\"bin\",{}]"),
        wire.text("bAQID"),
        wire.text("461-7[{}]"),
        wire.frame(Binary, b""),
        wire.text("6"),
        wire.frame(Close, [0x03, 0xe8]),
    ];
    parts.concat()
}

#[tokio::test(start_paused = true)]
async fn frames_pass_byte_for_byte_in_pieces_of_any_size() {
    for piece in [1, 2, 3, 7, 14, 100, 4096, 65_536, usize::MAX] {
        let mut rig = Rig::plain();
        let long = if piece < 100 { 1000 } else { 70_000 };
        let (up, down) = (traffic(&rig.client, long), traffic(&rig.backend, long));
        let Rig { client, backend, .. } = &mut rig;
        for upwards in [true, false] {
            let (from, to, bytes) =
                if upwards { (&mut *client, &mut *backend, &up) } else { (&mut *backend, &mut *client, &down) };
            let sent = async {
                for part in bytes.chunks(piece.min(bytes.len())) {
                    from.send(part).await;
                    if piece < 100 {
                        tokio::task::yield_now().await;
                    }
                }
            };
            let ((), got) = tokio::join!(sent, to.bytes(bytes.len()));
            assert!(got == *bytes, "pieces of {piece}");
        }
        let gate = rig.ended("client", "").await;
        assert_eq!(gate.messages(), (13, 13));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_watch_anything_passes() {
    let mut rig = Rig::new(Setup { watch: Watch::Frames, ..Setup::default() });
    let bytes = [rig.client.frame(Opcode::Binary, b"stray"), rig.client.text("40{\"token\":\"bad\"}")].concat();
    rig.client.send(&bytes).await;
    assert_eq!(rig.backend.bytes(bytes.len()).await, bytes);
    rig.backend.say("40{}").await;
    assert_eq!(rig.client.hears().await, "40{}");
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_comes_first_and_the_greeting_before_that() {
    let (a, b) = (Wire::new(Writer::Client).0, Wire::new(Writer::Server).0);
    let mut rig = Rig::new(Setup {
        client: [a.text("42[1]"), a.text("40/x,{\"a\":1}"), a.text("42[2]")[..3].to_vec()].concat(),
        upstream: [b.text("40{\"sid\":\"s\"}"), b.text("42[3]")[..1].to_vec()].concat(),
        greeting: b.text("0{}"),
        ..Setup::default()
    });
    assert_eq!(rig.client.hears().await, "0{}");
    assert_eq!(rig.client.hears().await, "40{\"sid\":\"s\"}");
    assert_eq!(rig.backend.hears().await, "42[1]");
    assert_eq!(rig.backend.hears().await, "40/x,{\"a\":1}");
    rig.client.send(&a.text("42[2]")[3..]).await;
    rig.backend.send(&b.text("42[3]")[1..]).await;
    assert_eq!(rig.backend.hears().await, "42[2]");
    assert_eq!(rig.client.hears().await, "42[3]");
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_connect_is_replaced_at_its_place_between_untouched_frames() {
    for piece in [1, 5, usize::MAX] {
        let mut rig = Rig::plain();
        let (before, after) = (rig.client.text("42[\"before\"]"), rig.client.text("42[\"after\"]"));
        let connect = rig.client.text(&format!("40/a,{{ \"x\":1, \"token\":\"{}\" }}", token("alice")));
        let leave = rig.client.text("41/a,");
        let all = [before.clone(), connect, leave, after.clone()].concat();
        for part in all.chunks(piece.min(all.len())) {
            rig.client.send(part).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.backend.bytes(before.len()).await, before);
        assert_eq!(rig.backend.hears().await, "40/a,{\"x\":1}");
        assert_eq!(rig.backend.hears().await, "41/a,");
        assert_eq!(rig.backend.bytes(after.len()).await, after);
        rig.ended("client", "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn p51_another_users_token_is_refused_and_the_backend_hears_nothing_of_it() {
    let mut rig = Rig::plain();
    for (given, reason) in [(token("bob"), Reason::SubjectMismatch), ("a.b.c".into(), Reason::CredentialMalformed)] {
        rig.client.say(&format!("40/a,{{\"token\":\"{given}\"}}")).await;
        assert_eq!(rig.client.hears().await, refusal("/a", reason));
    }
    rig.backend.hears_nothing().await;
    rig.join("/a").await;
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p51_a_second_connect_of_a_namespace_closes_with_1002() {
    let mut rig = Rig::plain();
    rig.join("/a").await;
    rig.client.say("40/a,").await;
    assert_eq!(rig.client.is_closed().await, (1002, "protocol_error".into()));
    assert_eq!(rig.backend.is_closed().await.0, 1001);
    rig.ended("gate", "protocol_error").await;
}

#[tokio::test(start_paused = true)]
async fn p31_the_tenth_refusal_is_answered_and_the_next_one_closes() {
    let mut rig = Rig::plain();
    let bad = rig.client.text("40/a,{\"token\":5}");
    rig.client.send(bad.repeat(11)).await;
    for _ in 0..10 {
        assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    }
    assert_eq!(rig.client.is_closed().await, (4401, "credential_malformed".into()));
    rig.ended("gate", "credential_malformed").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_the_attachments_of_a_binary_packet() {
    let mut rig = Rig::plain();
    let bad = "40/a,{\"token\":5}";
    rig.backend.say("452-[\"bin\",{},{}]").await;
    assert_eq!(rig.client.hears().await, "452-[\"bin\",{},{}]");
    rig.client.say(bad).await;
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"one")).await;
    assert_eq!(rig.client.next().await.payload, b"one");
    rig.backend.say("2").await;
    assert_eq!(rig.client.hears().await, "2", "a ping of the backend is no end of it");
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"two")).await;
    assert_eq!(rig.client.next().await.payload, b"two");
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_where_attachments_were_announced_before_the_relay_began() {
    let mut rig = Rig::new(Setup { attachments: (1, 1), ..Setup::default() });
    rig.client.send(rig.client.frame(Opcode::Binary, b"up")).await;
    assert_eq!(rig.backend.next().await.payload, b"up");
    rig.client.say("40/a,{\"token\":5}").await;
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"down")).await;
    assert_eq!(rig.client.next().await.payload, b"down");
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_never_put_into_a_frame_or_between_fragments() {
    let mut rig = Rig::plain();
    let bad = "40/a,{\"token\":5}";
    let whole = rig.backend.text(&format!("42[\"{}\"]", "x".repeat(1000)));
    for cut in [1, 2, 3, 4, 5, 500, whole.len() - 1] {
        rig.backend.send(&whole[..cut]).await;
        rig.client.say(bad).await;
        rig.backend.hears_nothing().await;
        rig.backend.send(&whole[cut..]).await;
        let mut got = [rig.client.next().await.payload.len(), rig.client.next().await.payload.len()];
        got.sort_unstable();
        assert_eq!(got, [refusal("/a", Reason::CredentialMalformed).len(), whole.len() - 4], "cut {cut}");
    }
    let fragments = [
        rig.backend.fragment(false, Opcode::Text, b"42[\"a"),
        rig.backend.fragment(false, Opcode::Continuation, b"b"),
        rig.backend.fragment(true, Opcode::Continuation, b"c\"]"),
    ];
    for (i, fragment) in fragments.iter().enumerate() {
        rig.backend.send(fragment).await;
        let Frame { fin, .. } = rig.client.next().await;
        assert_eq!(fin, i == 2);
        if i == 0 {
            rig.client.say(bad).await;
            rig.client.hears_nothing().await;
        }
    }
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::CredentialMalformed));
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn while_a_token_is_verified_later_frames_wait_in_order_and_the_other_direction_flows() {
    let mut rig = Rig::plain();
    rig.client.say("42[\"before\"]").await;
    // The key is fetched for the issuer that knows bob; the session is alice's.
    rig.client.say(&format!("40/a,{{\"token\":\"{}\"}}", remote_token("bob"))).await;
    rig.client.say("42[\"behind\"]").await;
    assert_eq!(rig.backend.hears().await, "42[\"before\"]");
    rig.client.say("40/b,").await;
    rig.backend.hears_nothing().await;
    rig.backend.say("42[\"down\"]").await;
    assert_eq!(rig.client.hears().await, "42[\"down\"]");
    rig.gate.answer_keys();
    assert_eq!(rig.client.hears().await, refusal("/a", Reason::SubjectMismatch));
    assert_eq!(rig.backend.hears().await, "42[\"behind\"]");
    assert_eq!(rig.backend.hears().await, "40/b,");
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_good_after_its_key_was_fetched_passes_at_its_place() {
    let gate = Gate::new(|_| {});
    let mut stay = gate.stay();
    gate.admit(&mut stay, "alice");
    let alice = crate::gate::admission::User { issuer: crate::auth::testing::ISSUER.into(), subject: "alice".into() };
    let (mut client, near) = Wire::new(Writer::Client);
    let (mut backend, far) = Wire::new(Writer::Server);
    let relay = tokio::spawn(run(Parts {
        context: gate.context.clone(),
        stay,
        record: gate.record(),
        admission: Admission::with_user(Version::V4, alice),
        watch: Watch::SocketIo,
        client: (near, Vec::new()),
        upstream: (far, Vec::new()),
        greeting: Vec::new(),
        attachments: (0, 0),
        beats: true,
    }));
    let connect = |ns: &str| format!("40/{ns},{{\"token\":\"{}\",\"n\":1}}", remote_token("alice"));
    // Two of them, and a half-close, in one write: each is judged in its turn.
    let mut all = [client.text("42[1]"), client.text(&connect("a")), client.text("42[2]")].concat();
    all.extend([client.text(&connect("b")), client.text("42[3]")].concat());
    client.send(&all).await;
    client.shutdown().await;
    assert_eq!(backend.hears().await, "42[1]");
    backend.hears_nothing().await;
    gate.answer_keys();
    for want in ["40/a,{\"n\":1}", "42[2]", "40/b,{\"n\":1}", "42[3]"] {
        assert_eq!(backend.hears().await, want);
    }
    assert_eq!(backend.rest().await, b"");
    drop((client, backend));
    relay.await.unwrap();
    gate.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn keys_that_do_not_come_end_the_session_within_seconds() {
    let mut rig = Rig::plain();
    let start = Instant::now();
    rig.client.say(&format!("40/a,{{\"token\":\"{}\"}}", remote_token("alice"))).await;
    assert_eq!(rig.client.is_closed().await, (4503, "keys_unavailable".into()));
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    rig.ended("gate", "keys_unavailable").await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_while_a_token_is_verified_does_not_wait_for_the_verdict() {
    let mut rig = Rig::plain();
    rig.client.say(&format!("40/a,{{\"token\":\"{}\"}}", remote_token("alice"))).await;
    rig.backend.hears_nothing().await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
    assert_eq!(rig.backend.is_closed().await.0, 1001);
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_client_that_does_not_read_slows_its_backend_down_and_nobody_else() {
    let mut rig = Rig::plain();
    let message = rig.backend.frame(Opcode::Text, [b"42[\"", &[b'x'; 100_000][..], b"\"]"].concat());
    let flood = message.repeat(200);
    let sent = rig.backend.flood(&flood).await;
    assert!(sent < 4 * MEGABYTE, "{sent} bytes were taken for a client that reads nothing");
    rig.client.say("42[\"up\"]").await;
    assert_eq!(rig.backend.hears().await, "42[\"up\"]");
    let Rig { client, backend, .. } = &mut rig;
    let ((), got) = tokio::join!(backend.send(&flood[sent..]), client.bytes(flood.len()));
    assert!(got == flood);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_backend_that_does_not_read_slows_its_client_down_and_nobody_else() {
    let mut rig = Rig::plain();
    let message = rig.client.frame(Opcode::Text, [b"42[\"", &[b'x'; 100_000][..], b"\"]"].concat());
    let flood = message.repeat(200);
    let sent = rig.client.flood(&flood).await;
    assert!(sent < 4 * MEGABYTE, "{sent} bytes were taken for a backend that reads nothing");
    rig.backend.say("42[\"down\"]").await;
    assert_eq!(rig.client.hears().await, "42[\"down\"]");
    let Rig { client, backend, .. } = &mut rig;
    let ((), got) = tokio::join!(client.send(&flood[sent..]), backend.bytes(flood.len()));
    assert!(got == flood);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_side_that_takes_nothing_at_all_is_given_up_and_a_slow_one_is_not() {
    let config: fn(&mut Config) = |config| config.limits.write_timeout = Duration::from_secs(30);
    for slow in [true, false] {
        let mut rig = Rig::new(Setup { config, beats: false, ..Setup::default() });
        let flood = rig.backend.frame(Opcode::Text, vec![b'x'; 8 * MEGABYTE]);
        let sent = rig.backend.flood(&flood).await;
        let start = Instant::now();
        if slow {
            let Rig { client, backend, .. } = &mut rig;
            let sips = async {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    client.bytes(MEGABYTE / 2).await;
                }
                client.bytes(flood.len() - 5 * MEGABYTE / 2).await
            };
            tokio::join!(backend.send(&flood[sent..]), sips);
            rig.ended("client", "").await;
        } else {
            let Rig { client: _still_there, mut backend, relay, gate, entry } = rig;
            backend.rest().await;
            assert_eq!(start.elapsed().as_secs(), 29, "of 30, less the moment the flood took");
            drop((backend, entry));
            relay.await.unwrap();
            assert_eq!(gate.ended("client", ""), 1);
            gate.assert_empty();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn p38_an_idle_session_is_cut_with_4401_and_the_backend_leg_is_closed_as_a_transport() {
    let mut rig = Rig::plain();
    rig.join("").await;
    let start = Instant::now();
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
    assert!(rig.gate.context.registry.find("sid").is_none(), "the sid is unknown at once");
    // No 41: recovery keeps working. The backend answers and is the first to close: the port at our end is free again.
    let close = rig.backend.next().await;
    assert_eq!((close.opcode, &close.payload[..]), (Opcode::Close, &[3, 233][..]));
    rig.backend.hears_nothing().await;
    let answer = rig.backend.frame(Opcode::Close, b"\x03\xe9");
    rig.backend.send(answer).await;
    rig.backend.shutdown().await;
    rig.ended("gate", "token_expired").await;
    assert!(start.elapsed() < LAST_WORDS);
}

#[tokio::test(start_paused = true)]
async fn p38_a_cut_is_over_soon_also_where_nobody_reads_or_closes() {
    let mut rig = Rig::plain();
    let flood = rig.backend.frame(Opcode::Text, vec![b'x'; 20 * MEGABYTE]);
    rig.backend.flood(&flood).await;
    let flood = rig.client.text(&"x".repeat(900_000)).repeat(4);
    rig.client.flood(&flood).await;
    let start = Instant::now();
    rig.entry.end(Reason::TokenExpired);
    let Rig { relay, gate, client, backend, entry } = rig;
    relay.await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    drop((client, backend, entry));
    gate.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn p38_a_large_frame_under_way_is_finished_before_the_close_frame() {
    for (start, rest) in [(1, 0), (20, MEGABYTE), (70_000, 3 * MEGABYTE)] {
        let mut rig = Rig::plain();
        let frame = rig.backend.frame(Opcode::Text, [b"42".to_vec(), vec![b'x'; rest.max(300)]].concat());
        let next = rig.backend.text("42[\"never\"]");
        rig.backend.send(&frame[..start]).await;
        rig.backend.hears_nothing().await;
        rig.entry.end(Reason::TokenExpired);
        let Rig { client, backend, .. } = &mut rig;
        let rest = [&frame[start..], &next].concat();
        let client = async {
            // One byte is no frame yet: nothing of it was passed on.
            if start > 1 {
                assert!(client.bytes(frame.len()).await == frame);
            }
            client.is_closed().await
        };
        let (_, close) = tokio::join!(backend.flood(&rest), client);
        assert_eq!(close, (4401, "token_expired".into()), "after {start} bytes");
        rig.ended("gate", "token_expired").await;
    }
}

#[tokio::test(start_paused = true)]
async fn p36_a_frame_without_end_is_not_collected_at_the_cut() {
    let mut rig = Rig::plain();
    // A terabyte is announced.
    let mut endless = vec![0x81, 127];
    endless.extend((1u64 << 40).to_be_bytes());
    endless.extend(vec![b'x'; 64 * MEGABYTE]);
    rig.backend.send(&endless[..100]).await;
    rig.client.bytes(100).await;
    rig.entry.end(Reason::TokenExpired);
    let sent = rig.backend.flood(&endless[100..]).await;
    assert!(sent < 4 * MEGABYTE, "{sent} bytes were taken for a client that reads nothing");
    let rest = rig.client.rest().await;
    assert!(rest.iter().all(|byte| *byte == b'x'), "nothing is put into the middle of a frame");
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn p38_a_frame_that_does_not_come_to_its_end_is_not_waited_for() {
    let mut rig = Rig::plain();
    let frame = rig.backend.text("42[\"half\"]");
    rig.backend.send(&frame[..5]).await;
    assert_eq!(rig.client.bytes(5).await, &frame[..5]);
    let start = Instant::now();
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.rest().await, b"", "no close frame in the middle of another one");
    assert!(start.elapsed() <= LAST_FRAME);
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_every_namespace_is_told_before_the_close() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    for reason in [Reason::TokenExpired, Reason::MaxSession] {
        let mut rig = Rig::new(Setup { config, ..Setup::default() });
        for namespace in ["", "/a", "/b"] {
            rig.join(namespace).await;
        }
        rig.backend.say("41/b,").await;
        assert_eq!(rig.client.hears().await, "41/b,");
        rig.entry.end(reason);
        assert_eq!(rig.client.hears().await, "41/a,");
        assert_eq!(rig.client.hears().await, "41");
        assert_eq!(rig.client.is_closed().await, (4401, reason.word().into()));
        assert_eq!(rig.backend.is_closed().await.0, 1001);
        rig.ended("gate", reason.word()).await;
    }
    let mut rig = Rig::new(Setup { config, ..Setup::default() });
    rig.join("").await;
    rig.entry.end(Reason::Draining);
    assert_eq!(rig.client.is_closed().await, (1012, "draining".into()), "they shall come back");
    rig.ended("gate", "draining").await;
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_nothing_is_put_between_a_packet_and_its_attachments() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    let mut rig = Rig::new(Setup { config, ..Setup::default() });
    rig.join("").await;
    rig.backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.client.hears().await, "451-[\"bin\",{}]");
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_the_attachments_of_a_packet_under_way_come_first() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    // The cut falls behind so many bytes, of which the client has some; what follows the packet was said too late.
    let packet = |wire: &Wire| {
        let parts = [
            wire.text("452-[\"bin\",{},{}]"),
            wire.fragment(false, Opcode::Binary, [1; 200]),
            wire.frame(Opcode::Ping, b"between"),
            wire.fragment(true, Opcode::Continuation, b"one"),
            wire.text("2"),
            wire.frame(Opcode::Binary, b""),
        ];
        parts.concat()
    };
    let length = packet(&Rig::plain().backend).len();
    for cut in [7, 18, 19, 20, 21, 22, 23, 150, 223, 224, 230, 233, 240, length - 2, length - 1, length] {
        let mut rig = Rig::new(Setup { config, ..Setup::default() });
        rig.join("").await;
        let bytes = packet(&rig.backend);
        rig.backend.send(&bytes[..cut]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.entry.end(Reason::TokenExpired);
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.backend.send(&[&bytes[cut..], &rig.backend.text("42[\"too late\"]")].concat()).await;
        assert_eq!(rig.client.bytes(length).await, bytes, "cut at {cut}");
        assert_eq!(rig.client.hears().await, "41", "cut at {cut}");
        assert_eq!(rig.client.is_closed().await, (4401, "token_expired".into()));
        rig.ended("gate", "token_expired").await;
    }
}

#[tokio::test(start_paused = true)]
async fn p35_broken_client_frames_close_with_1002_and_long_messages_with_1009() {
    let config: fn(&mut Config) = |config| config.socketio.max_payload = Some(1000);
    let make = |wire: &Wire| {
        let unmasked = {
            let mut frame = wire.text("42[]");
            frame[1] &= 0x7f;
            frame
        };
        let mut reserved = wire.text("42[]");
        reserved[0] |= 0x40;
        let two = [
            wire.fragment(false, Opcode::Text, vec![b'4'; 600]),
            wire.fragment(true, Opcode::Continuation, vec![b'2'; 600]),
        ];
        let (bad, long) = ((1002, "protocol_error"), (1009, "payload_too_large"));
        let empty_first =
            [wire.fragment(false, Opcode::Text, b""), wire.fragment(true, Opcode::Continuation, b"bgqR0eXBl")];
        vec![
            (unmasked, bad),
            (reserved, bad),
            (wire.frame(Opcode::Binary, b"stray"), bad),
            (wire.text("bc3RyYXk="), bad),
            (empty_first.concat(), bad),
            (wire.fragment(true, Opcode::Continuation, b"x"), bad),
            (wire.frame(Opcode::Text, [b'4', b'0', 0xff]), bad),
            (wire.text("40{\"a\":1,\"a\":2}"), bad),
            (wire.text(&"x".repeat(1001)), long),
            (two.concat(), long),
        ]
    };
    let count = make(&Wire::new(Writer::Client).0).len();
    for case in 0..count {
        for pieces in [false, true] {
            let mut rig = Rig::new(Setup { config, ..Setup::default() });
            let good = rig.client.text("42[\"good\"]");
            let (bad, (code, word)) = make(&rig.client).swap_remove(case);
            // The good frame's beginning is on its way before the rest comes with the bad one.
            let all = [good.clone(), bad].concat();
            let cut = if pieces { 9 } else { 0 };
            rig.client.send(&all[..cut]).await;
            assert_eq!(rig.backend.bytes(cut).await, &good[..cut]);
            rig.client.flood(&all[cut..]).await;
            assert_eq!(rig.client.is_closed().await, (code, word.into()), "case {case}");
            let rest = rig.backend.bytes(good.len() - cut).await;
            assert_eq!(rest, &good[cut..], "case {case}: what came before it is passed on");
            if !(word == "payload_too_large" && case == count - 1) {
                assert_eq!(rig.backend.is_closed().await, (1001, String::new()), "case {case}");
            }
            rig.ended("gate", word).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_backend_frames_close_with_4503_behind_what_was_good() {
    for pieces in [false, true] {
        let mut rig = Rig::plain();
        let good = rig.backend.text("42[\"good\"]");
        let all = [good.clone(), vec![0xc1, 0]].concat();
        let cut = if pieces { 7 } else { 0 };
        rig.backend.send(&all[..cut]).await;
        assert_eq!(rig.client.bytes(cut).await, &good[..cut]);
        rig.backend.send(&all[cut..]).await;
        assert_eq!(rig.client.bytes(good.len() - cut).await, &good[cut..]);
        assert_eq!(rig.client.is_closed().await, (4503, "upstream_unavailable".into()));
        rig.ended("gate", "upstream_unavailable").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_handshake_passes_and_the_session_is_over() {
    for by_client in [true, false] {
        let mut rig = Rig::plain();
        let (up, down) =
            (rig.client.frame(Opcode::Close, b"\x0f\xa0bye"), rig.backend.frame(Opcode::Close, b"\x0f\xa0bye"));
        let Rig { client, backend, .. } = &mut rig;
        let (first, second) = if by_client { ((client, up), (backend, down)) } else { ((backend, down), (client, up)) };
        let ((first, hello), (second, answer)) = (first, second);
        first.send(&hello).await;
        assert_eq!(second.next().await.payload, b"\x0f\xa0bye");
        second.send(&answer).await;
        assert_eq!(first.next().await.payload, b"\x0f\xa0bye");
        if by_client {
            assert_eq!(first.rest().await, b"", "the server is the first to close");
            second.shutdown().await;
        } else {
            assert_eq!(second.rest().await, b"", "the server is the first to close");
            first.shutdown().await;
        }
        rig.ended(if by_client { "client" } else { "upstream" }, "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_side_still_hears_the_other_one_for_five_seconds() {
    let mut rig = Rig::plain();
    rig.client.say("42[\"last\"]").await;
    rig.client.shutdown().await;
    assert_eq!(rig.backend.hears().await, "42[\"last\"]");
    assert_eq!(rig.backend.rest().await, b"");
    rig.backend.say("42[\"answer\"]").await;
    assert_eq!(rig.client.hears().await, "42[\"answer\"]");
    let start = Instant::now();
    assert_eq!(rig.client.rest().await, b"");
    assert!(start.elapsed() <= FOLLOW && start.elapsed() > FOLLOW / 2, "{:?}", start.elapsed());
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_within_a_frame_ends_on_the_other_side_too() {
    for (by_client, cut) in [(true, 1), (true, 8), (false, 1), (false, 6)] {
        let mut rig = Rig::plain();
        let Rig { client, backend, .. } = &mut rig;
        let (from, to) = if by_client { (client, backend) } else { (backend, client) };
        let frame = from.text("42[\"half\"]");
        from.send(&frame[..cut]).await;
        from.shutdown().await;
        // A head that is not whole was not passed on.
        let want = if cut == 1 { b"" } else { &frame[..cut] };
        assert_eq!(to.rest().await, want);
        rig.ended(if by_client { "client" } else { "upstream" }, "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_vanishes_ends_the_session_on_the_other() {
    let mut rig = Rig::plain();
    drop(rig.client);
    assert_eq!(rig.backend.rest().await, b"");
    drop(rig.backend);
    rig.relay.await.unwrap();
    assert_eq!(rig.gate.ended("client", ""), 1);
    let mut rig = Rig::plain();
    drop(rig.backend);
    assert_eq!(rig.client.rest().await, b"");
    drop(rig.client);
    rig.relay.await.unwrap();
    assert_eq!(rig.gate.ended("upstream", ""), 1);
}

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

#[tokio::test(start_paused = true)]
async fn p51_a_recovery_id_of_the_backend_is_remembered_as_the_users() {
    let mut rig = Rig::plain();
    rig.client.say("40").await;
    assert_eq!(rig.backend.hears().await, "40");
    rig.backend.say("40{\"sid\":\"s\",\"pid\":\"p\"}").await;
    assert_eq!(rig.client.hears().await, "40{\"sid\":\"s\",\"pid\":\"p\"}");
    let gate = rig.ended("client", "").await;
    assert!(gate.context.owns("p", &user("alice")) && !gate.context.owns("p", &user("bob")));
}

/// What one side says in the random test: its frames, and what of them is passed on untouched.
fn said(client: bool) -> impl Strategy<Value = Vec<(String, bool)>> {
    let text = prop_oneof![
        4 => "42\\[\"[a-z]{0,200}\"\\]".prop_map(|s| (s, false)),
        1 => "[236]".prop_map(|s| (s, false)),
        1 => Just(("451-[{}]".to_owned(), true)),
        1 => if client { "40/[a-z]{8},\\{\"token\":5\\}" } else { "42\\[0\\]" }.prop_map(|s| (s, false)),
    ];
    proptest::collection::vec(text, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever both sides say at once, in whatever pieces: what is not for the gate passes in order, and the
    /// gate's own answers stand between packets.
    #[test]
    fn any_traffic_in_any_pieces_stays_whole(
        up in said(true),
        down in said(false),
        cuts in proptest::collection::vec((any::<bool>(), 1usize..60), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::plain();
            let refused = up.iter().filter(|(text, _)| text.starts_with("40")).count();
            if refused > 10 {
                return;
            }
            let stream = |wire: &Wire, said: &[(String, bool)]| {
                let mut bytes = Vec::new();
                for (text, binary) in said {
                    bytes.extend(wire.text(text));
                    if *binary {
                        bytes.extend(wire.frame(Opcode::Binary, b"attached"));
                    }
                }
                bytes
            };
            let (up_bytes, down_bytes) = (stream(&rig.client, &up), stream(&rig.backend, &down));
            let (mut up_left, mut down_left) = (&up_bytes[..], &down_bytes[..]);
            for (client, n) in cuts {
                let (wire, left) =
                    if client { (&mut rig.client, &mut up_left) } else { (&mut rig.backend, &mut down_left) };
                let (now, later) = left.split_at(n.min(left.len()));
                wire.send(now).await;
                *left = later;
                tokio::task::yield_now().await;
            }
            rig.client.send(up_left).await;
            rig.backend.send(down_left).await;
            let passed: Vec<_> = up.iter().filter(|(text, _)| !text.starts_with("40")).cloned().collect();
            let want = stream(&rig.client, &passed);
            assert_eq!(rig.backend.bytes(want.len()).await, want);
            let (mut got, mut answers, mut attached) = (Vec::new(), 0, false);
            while got.len() < down_bytes.len() || answers < refused {
                let frame = rig.client.next().await;
                if frame.payload.starts_with(b"44") {
                    assert!(!attached, "between a packet and its attachment");
                    answers += 1;
                    continue;
                }
                attached = frame.payload.starts_with(b"45");
                got.extend(rig.backend.frame(frame.opcode, &frame.payload));
            }
            assert_eq!(got, down_bytes);
            rig.client.hears_nothing().await;
            rig.backend.hears_nothing().await;
            rig.ended("client", "").await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_warning_waits_for_attachments_and_a_refresh_never_reaches_the_backend() {
    let config: fn(&mut Config) = |config| config.session.refresh.enabled = true;
    let mut rig = Rig::new(Setup { config, ..Setup::default() });
    rig.join("/a").await;
    rig.backend.say("40/a,{\"sid\":\"x\"}").await;
    assert_eq!(rig.client.hears().await, "40/a,{\"sid\":\"x\"}");
    rig.backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.client.hears().await, "451-[\"bin\",{}]");
    rig.entry.call(WARN);
    rig.client.hears_nothing().await;
    rig.backend.send(rig.backend.frame(Opcode::Binary, b"one")).await;
    assert_eq!(rig.client.next().await.payload, b"one");
    assert!(rig.client.hears().await.starts_with("42/a,[\"siogate:expiring\",{\"seconds\":"));
    let asks = |token: String| format!("42/a,7[\"siogate:refresh\",\"{token}\"]");
    for cut in [1, 2, 6, 8, 12, 25, 40, 60] {
        let frame = rig.client.text(&asks(token("bob")));
        rig.client.send(&frame[..cut]).await;
        rig.backend.hears_nothing().await;
        rig.client.send(&frame[cut..]).await;
        assert!(rig.client.hears().await.starts_with("43/a,7[{"));
        rig.client.say("42/a,[\"siogate:refreshed\"]").await;
        assert_eq!(rig.backend.hears().await, "42/a,[\"siogate:refreshed\"]");
    }
    rig.ended("client", "").await;
}
