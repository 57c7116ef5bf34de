use super::*;
use crate::config::model::{Config, OnExpiry};
use crate::gate::engine::{Heartbeat, Start, UPGRADE_TIMEOUT};
use crate::protocol::frame::Opcode;
use crate::proxy::support::{Backend, Gate, Wire, refusal as refused, token, user};
use crate::session::mailbox::{self, Mailbox};
use crate::session::reaper;
use crate::session::registry::{Entry, Newcomer};
use std::net::{IpAddr, Ipv4Addr};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

const MOMENT: Duration = Duration::from_millis(50);

/// A session, its client's requests, and its backend.
struct Rig {
    gate: Gate,
    backend: Backend,
    mailbox: Mailbox,
    entry: Arc<Entry>,
    session: JoinHandle<()>,
}

struct Setup {
    config: fn(&mut Config),
    version: Version,
    /// The client's WebSocket, for a session that begins with one.
    client: Option<Stream>,
    /// The backend's, for one whose user is known.
    upstream: Option<Stream>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { config: |_| {}, version: Version::V4, client: None, upstream: None }
    }
}

impl Rig {
    fn new(setup: Setup) -> Self {
        let backend = Backend::new();
        let gate = Gate::new(|config| {
            config.upstream.urls = vec![backend.url()];
            (setup.config)(config);
        });
        let context = gate.context.clone();
        let (mailbox, receiver) = mailbox::new();
        let polls = setup.client.is_none();
        let mut stay = gate.enter(Newcomer {
            sid: "sid",
            version: setup.version,
            b64: false,
            credential: None,
            mailbox: polls.then(|| mailbox.clone()),
            card: gate.card(),
            waits: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        });
        let entry = stay.entry().clone();
        let known = setup.upstream.is_some();
        let admission = if known {
            gate.admit(&mut stay, "alice");
            Admission::with_user(setup.version, user("alice"))
        } else {
            Admission::without_user(setup.version, Reason::CredentialMissing)
        };
        let start = if polls { Start::Polling } else { Start::Websocket };
        let mut engine = Engine::new(setup.version, false, start, 1_000_000);
        if !known {
            let every = Heartbeat { interval: Duration::from_secs(25), timeout: Duration::from_secs(20) };
            engine.beat(now(), every);
        }
        let bound = if known { context.max_payload() } else { MAX_UNAUTHENTICATED };
        let leg = |stream, reads, bound| Leg::new(stream, reads, BytesMut::new(), bound);
        let conversation = Box::new(Conversation {
            stay,
            record: gate.record(),
            version: setup.version,
            watch: Watch::SocketIo,
            engine,
            admission,
            mailbox: polls.then_some(receiver),
            client: setup.client.map(|stream| leg(stream, Writer::Client, bound)),
            upstream: setup.upstream.map(|stream| leg(stream, Writer::Server, u64::MAX)),
            head: Some(Box::new(DialHead::new("/socket.io/?EIO=4"))),
            connect_by: (!known).then(|| now() + context.config.socketio.connect_deadline),
            gets: Gets::default(),
            post: None,
            attachments: (0, 0),
            asides: Vec::new(),
            leave_by: None,
            asked: None,
            context: context.clone(),
        });
        let session = context.tasks.spawn(conversation.run());
        Self { gate, backend, mailbox, entry, session }
    }

    /// A client that polls and has no user yet.
    fn stranger() -> Self {
        Self::new(Setup::default())
    }

    /// A client that has come by WebSocket and has no user yet.
    fn stranger_on_websocket(config: fn(&mut Config)) -> (Self, Wire) {
        let (client, stream) = Wire::new(Writer::Client);
        (Self::new(Setup { config, client: Some(stream), ..Setup::default() }), client)
    }

    /// A client that polls and whose user and backend are known.
    fn known(config: fn(&mut Config)) -> (Self, Wire) {
        let (backend, stream) = Wire::new(Writer::Server);
        (Self::new(Setup { config, upstream: Some(stream), ..Setup::default() }), backend)
    }

    async fn ask(&self) -> oneshot::Receiver<GetReply> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Get(reply)).await.expect("the session takes requests");
        answer
    }

    async fn get(&self) -> Got {
        got(self.ask().await).await
    }

    async fn send(&self, packets: Option<&[&str]>) -> Option<PostReply> {
        let packets = packets.map(|packets| packets.iter().map(|p| Packet::text(*p)).collect());
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Post(packets, reply)).await.expect("the session takes requests");
        answer.await.ok()
    }

    /// A POST that is answered `ok`.
    async fn post(&self, packets: &[&str]) {
        assert!(matches!(self.send(Some(packets)).await, Some(PostReply::Done)), "{packets:?}");
    }

    async fn upgrade(&self) -> Wire {
        let (client, stream) = Wire::new(Writer::Client);
        self.mailbox.send(Command::Upgrade(Box::new(stream), Bytes::new())).await.ok().unwrap();
        client
    }

    /// The session has ended like that and left nothing.
    async fn ended(self, by: &'static str, reason: &'static str) {
        drop(self.mailbox);
        self.session.await.unwrap();
        drop(self.entry);
        let tasks = self.gate.context.tasks.clone();
        tasks.close();
        tasks.wait().await;
        assert_eq!(self.gate.ended(by, reason), 1, "not ended by {by} with {reason:?}");
        self.gate.assert_empty();
    }
}

/// What a GET was answered with.
#[derive(Debug, PartialEq)]
enum Got {
    Packets(Vec<String>),
    Conflict,
    Over(Ending),
    Dropped,
}

async fn got(answer: oneshot::Receiver<GetReply>) -> Got {
    match answer.await {
        Ok(GetReply::Packets(packets)) => Got::Packets(packets.iter().map(shown).collect()),
        Ok(GetReply::Conflict) => Got::Conflict,
        Ok(GetReply::Over(ending)) => Got::Over(ending),
        Err(_) => Got::Dropped,
    }
}

fn shown(packet: &Packet) -> String {
    String::from_utf8(packet.to_text(Version::V4).to_vec()).unwrap()
}

fn packets(texts: &[&str]) -> Got {
    Got::Packets(texts.iter().map(ToString::to_string).collect())
}

fn over(reason: Reason) -> Got {
    Got::Over(Ending::Gate(reason))
}

async fn is_held(answer: &mut oneshot::Receiver<GetReply>) {
    assert!(timeout(MOMENT, answer).await.is_err(), "answered too early");
}

fn connect(subject: &str) -> String {
    format!("40{{\"token\":\"{}\"}}", token(subject))
}

#[tokio::test(start_paused = true)]
async fn a_poller_shows_its_token_then_the_backend_is_dialled_with_its_identity() {
    let rig = Rig::stranger();
    let poll = rig.ask().await;
    rig.backend.is_left_alone().await;
    let connect = [connect("alice")];
    let connect = [connect[0].as_str()];
    let (posted, (mut backend, head)) = tokio::join!(rig.send(Some(&connect)), rig.backend.opened());
    assert!(matches!(posted, Some(PostReply::Done)));
    assert!(head.contains("x-auth-subject: alice\r\n"), "{head}");
    assert_eq!(rig.entry.user().map(|u| u.subject.to_string()).as_deref(), Some("alice"));
    assert_eq!(backend.hears().await, "40{}", "OPEN is swallowed, the token is taken out");
    backend.say("40{\"sid\":\"x\"}").await;
    assert_eq!(got(poll).await, packets(&["40{\"sid\":\"x\"}"]));
    rig.post(&["42[\"up\"]"]).await;
    assert_eq!(backend.hears().await, "42[\"up\"]");
    rig.post(&["1"]).await;
    assert_eq!(backend.is_closed().await.0, 1001, "as a transport, without 41");
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn the_stock_order_connect_upgrade_and_poll_at_once_ends_in_a_relay() {
    let rig = Rig::stranger();
    let poll = rig.ask().await;
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    assert_eq!(got(poll).await, packets(&["6"]));
    let connect = [connect("alice")];
    let connect = [connect[0].as_str()];
    let (posted, (mut backend, _)) = tokio::join!(rig.send(Some(&connect)), rig.backend.opened());
    assert!(matches!(posted, Some(PostReply::Done)));
    assert_eq!(backend.hears().await, "40{}");
    // What the backend says meanwhile waits for the end of the upgrade.
    backend.say("40{\"sid\":\"x\"}").await;
    backend.say("42[\"early\"]").await;
    client.hears_nothing().await;
    client.say("5").await;
    assert_eq!(client.hears().await, "40{\"sid\":\"x\"}");
    assert_eq!(client.hears().await, "42[\"early\"]");
    // From here on it is a relay: pings pass from end to end.
    backend.say("2").await;
    assert_eq!(client.hears().await, "2");
    client.say("3").await;
    assert_eq!(backend.hears().await, "3");
    assert!(rig.entry.mailbox().is_none(), "no more requests");
    drop(client);
    assert_eq!(backend.rest().await, b"");
    drop(backend);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn requests_behind_the_upgrade_are_refused_and_the_session_lives() {
    let (rig, mut backend) = Rig::known(|_| {});
    // A fragment keeps the session from becoming a relay.
    backend.send(backend.fragment(false, Opcode::Text, b"42[")).await;
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    backend.hears_nothing().await;
    assert!(rig.entry.mailbox().is_none());
    // These were under way already.
    assert_eq!(rig.get().await, Got::Conflict);
    assert!(rig.send(Some(&["42[\"late\"]"])).await.is_none(), "not answered ok: it was not taken");
    let mut second = rig.upgrade().await;
    assert_eq!(second.rest().await, b"", "a second WebSocket is closed");
    client.say("42[\"up\"]").await;
    assert_eq!(backend.hears().await, "42[\"up\"]");
    client.shutdown().await;
    backend.is_closed().await;
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p31_who_shows_no_token_in_time_is_shown_out() {
    let start = tokio::time::Instant::now();
    let rig = Rig::stranger();
    assert_eq!(rig.get().await, over(Reason::ConnectTimeout));
    assert_eq!(start.elapsed().as_secs(), 10);
    rig.backend.is_left_alone().await;
    rig.ended("gate", "connect_timeout").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    assert_eq!(client.is_closed().await, (4400, "connect_timeout".into()));
    rig.ended("gate", "connect_timeout").await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_refused_with_its_reason_on_either_transport() {
    let bad = "40{\"token\":\"a.b.c\"}";
    let rig = Rig::stranger();
    rig.post(&[bad]).await;
    assert_eq!(rig.get().await, packets(&[&refused("/", Reason::CredentialMalformed)]));
    rig.post(&["1"]).await;
    rig.backend.is_left_alone().await;
    rig.ended("gate", "credential_malformed").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(bad).await;
    assert_eq!(client.hears().await, refused("/", Reason::CredentialMalformed));
    client.say("40").await;
    assert_eq!(client.hears().await, refused("/", Reason::CredentialMissing));
    client.say("42[]").await;
    assert_eq!(client.is_closed().await, (1002, "protocol_error".into()));
    rig.ended("gate", "protocol_error").await;
}

#[tokio::test(start_paused = true)]
async fn p35_before_a_user_is_known_messages_are_short_and_text() {
    let cases = [
        (vec![b'x'; 65_537], Opcode::Text, (1009, "payload_too_large")),
        (b"40".to_vec(), Opcode::Binary, (1002, "protocol_error")),
        (b"".to_vec(), Opcode::Text, (1002, "protocol_error")),
        (vec![b'4', b'0', 0xff], Opcode::Text, (1002, "protocol_error")),
        (b"2".to_vec(), Opcode::Text, (1002, "protocol_error")),
        (b"451-[{}]".to_vec(), Opcode::Text, (1002, "protocol_error")),
    ];
    for (payload, opcode, (code, word)) in cases {
        let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
        let frame = client.frame(opcode, &payload);
        client.flood(&frame).await;
        assert_eq!(client.is_closed().await, (code, word.into()), "{payload:.10?}");
        rig.backend.is_left_alone().await;
        rig.ended("gate", word).await;
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_backend_is_there_the_gate_pings_and_silence_ends_the_session() {
    let patient: fn(&mut Config) = |config| config.socketio.connect_deadline = Duration::from_secs(3600);
    let (rig, mut client) = Rig::stranger_on_websocket(patient);
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(client.hears().await, "2");
        client.say("3").await;
    }
    assert_eq!(start.elapsed().as_secs(), 75);
    assert_eq!(client.hears().await, "2");
    assert_eq!(client.is_closed().await.0, 1001);
    assert_eq!(start.elapsed().as_secs(), 120);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_be_had_ends_the_transport_so_that_clients_try_again() {
    let config: fn(&mut Config) = |config| config.upstream.urls = vec!["unix:/nowhere/at/all".into()];
    let rig = Rig::new(Setup { config, ..Setup::default() });
    let poll = rig.ask().await;
    let unavailable = Ending::Gate(Reason::UpstreamUnavailable);
    assert!(matches!(rig.send(Some(&[&connect("alice")])).await, Some(PostReply::Over(e)) if e == unavailable));
    assert_eq!(got(poll).await, Got::Over(unavailable));
    rig.ended("gate", "upstream_unavailable").await;
    let (rig, mut client) = Rig::stranger_on_websocket(config);
    client.say(&connect("alice")).await;
    assert_eq!(client.is_closed().await, (4503, "upstream_unavailable".into()));
    rig.ended("gate", "upstream_unavailable").await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_says_no_or_no_open_is_told_apart() {
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(&connect("alice")).await;
    let (mut stream, _) = rig.backend.asked().await;
    stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(client.is_closed().await, (4502, "upstream_refused".into()));
    rig.ended("gate", "upstream_refused").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(&connect("alice")).await;
    let (mut backend, _) = rig.backend.accept().await;
    backend.say("42[\"no open\"]").await;
    assert_eq!(client.is_closed().await, (4502, "upstream_refused".into()));
    rig.ended("gate", "upstream_refused").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(&connect("alice")).await;
    let (_silent, _) = rig.backend.accept().await;
    assert_eq!(client.is_closed().await, (4503, "upstream_unavailable".into()));
    rig.ended("gate", "upstream_unavailable").await;
}

#[tokio::test(start_paused = true)]
async fn p39_at_the_cut_a_held_poll_is_told_why_and_the_sid_is_unknown() {
    let (rig, mut backend) = Rig::known(|_| {});
    let mut poll = rig.ask().await;
    is_held(&mut poll).await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(got(poll).await, over(Reason::TokenExpired));
    assert_eq!(backend.is_closed().await.0, 1001);
    let registry = rig.gate.context.registry.clone();
    assert!(registry.find("sid").is_none() && registry.farewell("sid").is_none(), "told once");
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn p39_at_the_cut_of_a_session_between_polls_the_next_one_is_told() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("42[\"never fetched\"]").await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(backend.is_closed().await.0, 1001);
    let registry = rig.gate.context.registry.clone();
    rig.ended("gate", "token_expired").await;
    assert!(registry.find("sid").is_none());
    assert_eq!(registry.farewell("sid"), Some(Reason::TokenExpired));
    assert_eq!(registry.farewell("sid"), None);
}

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
async fn in_disconnect_mode_the_last_poll_brings_41_for_every_namespace() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    for held in [true, false] {
        let (rig, mut backend) = Rig::known(config);
        rig.post(&["40", "40/a,"]).await;
        assert_eq!((backend.hears().await, backend.hears().await), ("40".into(), "40/a,".into()));
        let poll = if held { Some(rig.ask().await) } else { None };
        backend.hears_nothing().await;
        rig.entry.end(Reason::TokenExpired);
        let poll = match poll {
            Some(poll) => poll,
            None => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                rig.ask().await
            }
        };
        assert_eq!(got(poll).await, packets(&["41/a,", "41"]));
        rig.ended("gate", "token_expired").await;
    }
    let (rig, _backend) = Rig::known(config);
    rig.post(&["40"]).await;
    rig.entry.end(Reason::TokenExpired);
    let start = tokio::time::Instant::now();
    rig.ended("gate", "token_expired").await;
    assert_eq!(start.elapsed().as_secs(), 5, "nobody came");
}

#[tokio::test(start_paused = true)]
async fn in_disconnect_mode_41_stands_behind_the_attachments_of_a_packet_that_was_fetched() {
    let config: fn(&mut Config) = |config| config.socketio.on_expiry = OnExpiry::Disconnect;
    for (before, after, want) in [
        // Both are behind the cut, one is, or the backend owes it for ever.
        (vec![], vec!["one", "one"], Some(packets(&["bb25l", "bb25l", "41"]))),
        (vec!["one"], vec!["one"], Some(packets(&["bb25l", "bb25l", "41"]))),
        (vec!["one", "one"], vec![], Some(packets(&["bb25l", "bb25l", "41"]))),
        (vec!["one"], vec![], None),
    ] {
        let (rig, mut backend) = Rig::known(config);
        rig.post(&["40"]).await;
        assert_eq!(backend.hears().await, "40");
        backend.say("452-[{},{}]").await;
        assert_eq!(rig.get().await, packets(&["452-[{},{}]"]));
        for part in before {
            backend.send(backend.frame(Opcode::Binary, part.as_bytes())).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.entry.end(Reason::TokenExpired);
        tokio::time::sleep(Duration::from_millis(10)).await;
        for part in after {
            backend.send(backend.frame(Opcode::Binary, part.as_bytes())).await;
        }
        if let Some(want) = want {
            assert_eq!(rig.get().await, want);
        }
        rig.ended("gate", "token_expired").await;
    }
    // Of one that was not fetched nothing is said.
    let (rig, mut backend) = Rig::known(config);
    rig.post(&["40"]).await;
    assert_eq!(backend.hears().await, "40");
    backend.say("451-[{}]").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    rig.entry.end(Reason::TokenExpired);
    assert_eq!(rig.get().await, packets(&["41"]));
    rig.ended("gate", "token_expired").await;
}

#[tokio::test(start_paused = true)]
async fn what_the_backend_said_before_it_left_is_delivered_and_then_the_session_is_over() {
    let (rig, mut backend) = Rig::known(|_| {});
    for i in 0..5 {
        backend.say(&format!("42[{i}]")).await;
    }
    backend.send(backend.frame(Opcode::Close, b"\x03\xe8")).await;
    drop(backend);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.get().await, packets(&["42[0]", "42[1]", "42[2]", "42[3]", "42[4]"]));
    rig.ended("upstream", "").await;
    // With a poll held there is nothing left to deliver.
    let (rig, backend) = Rig::known(|_| {});
    let mut poll = rig.ask().await;
    is_held(&mut poll).await;
    drop(backend);
    assert_eq!(got(poll).await, Got::Over(Ending::Upstream));
    rig.ended("upstream", "").await;
    // And a client that never comes back is not waited for longer than a ping.
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("42[]").await;
    drop(backend);
    let start = tokio::time::Instant::now();
    rig.ended("upstream", "").await;
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn p28_a_slow_poller_slows_its_backend_down_and_loses_nothing() {
    let (rig, mut backend) = Rig::known(|config| config.limits.max_queue = 100_000);
    let message = format!("42[\"{}\"]", "x".repeat(10_000));
    let flood = backend.text(&message).repeat(1000);
    let sent = backend.flood(&flood).await;
    assert!(sent < 2_000_000, "{sent} bytes were taken for a client that does not poll");
    rig.post(&["42[\"up\"]"]).await;
    assert_eq!(backend.hears().await, "42[\"up\"]");
    let poller = async {
        let mut n = 0;
        while n < 1000 {
            let Got::Packets(packets) = rig.get().await else { panic!("the session is over") };
            assert!(packets.iter().all(|p| *p == message));
            n += packets.len();
        }
        assert_eq!(n, 1000);
    };
    tokio::join!(backend.send(&flood[sent..]), poller);
    drop(backend);
    rig.ended("upstream", "").await;
}

#[tokio::test(start_paused = true)]
async fn an_aborted_poll_ends_the_session_and_the_backend_leg_at_once() {
    let (rig, mut backend) = Rig::known(|_| {});
    let mut poll = rig.ask().await;
    is_held(&mut poll).await;
    drop(poll);
    assert_eq!(backend.is_closed().await.0, 1001);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn packets_for_a_poll_that_was_just_given_up_are_lost_with_their_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("42[]").await;
    backend.hears_nothing().await;
    // Given up before the session can answer it.
    drop(rig.ask().await);
    assert_eq!(backend.is_closed().await.0, 1001);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn two_polls_at_once_end_the_session_as_engine_io_does() {
    let (rig, mut backend) = Rig::known(|_| {});
    let first = rig.ask().await;
    let second = rig.ask().await;
    assert_eq!((got(first).await, got(second).await), (packets(&["1"]), Got::Conflict));
    assert_eq!(backend.is_closed().await.0, 1001);
    rig.ended("gate", "protocol_error").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_payload_is_answered_ok_and_ends_the_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    let poll = rig.ask().await;
    assert!(matches!(rig.send(None).await, Some(PostReply::Done)));
    assert_eq!(got(poll).await, over(Reason::ProtocolError));
    assert_eq!(backend.is_closed().await.0, 1001);
    let registry = rig.gate.context.registry.clone();
    rig.ended("gate", "protocol_error").await;
    assert_eq!(registry.farewell("sid"), None, "the next poll gets code 1");
}

#[tokio::test(start_paused = true)]
async fn attachments_pass_with_their_packet_and_strays_end_the_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.get().await, packets(&["451-[\"bin\",{}]"]));
    backend.send(backend.frame(Opcode::Binary, [1, 2, 3])).await;
    assert_eq!(rig.get().await, packets(&["bAQID"]));
    let binary = |bytes: &'static [u8]| Packet::Binary(Bytes::from_static(bytes));
    let (reply, answer) = oneshot::channel();
    let body = vec![Packet::text("452-[\"bin\",{},{}]"), binary(b"one")];
    rig.mailbox.send(Command::Post(Some(body), reply)).await.ok().unwrap();
    answer.await.ok().unwrap();
    assert_eq!(backend.hears().await, "452-[\"bin\",{},{}]");
    assert_eq!(backend.next().await.payload, b"one");
    // The second attachment comes by WebSocket, and one more that nobody announced.
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    client.send(client.frame(Opcode::Binary, b"two")).await;
    assert_eq!(backend.next().await.payload, b"two");
    client.send(client.frame(Opcode::Binary, b"stray")).await;
    assert_eq!(client.is_closed().await, (1002, "protocol_error".into()));
    assert_eq!(backend.is_closed().await.0, 1001);
    drop((client, backend));
    rig.gate.context.tasks.close();
    rig.gate.context.tasks.wait().await;
    assert_eq!(rig.gate.ended("gate", "protocol_error"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_relay_knows_of_attachments_that_a_poll_announced() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.get().await, packets(&["451-[\"bin\",{}]"]));
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    client.say("40/a,{\"token\":5}").await;
    client.hears_nothing().await;
    backend.send(backend.frame(Opcode::Binary, b"at last")).await;
    assert_eq!(client.next().await.payload, b"at last");
    assert_eq!(client.hears().await, refused("/a", Reason::CredentialMalformed));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_fails_leaves_the_session_polling() {
    let (rig, mut backend) = Rig::known(|_| {});
    for how in ["broken frame", "wrong packet", "gone", "late"] {
        let mut client = rig.upgrade().await;
        client.say("2probe").await;
        assert_eq!(client.hears().await, "3probe");
        let start = tokio::time::Instant::now();
        match how {
            "broken frame" => client.send([0xff; 20]).await,
            "wrong packet" => client.say("42[]").await,
            "gone" => client.shutdown().await,
            _ => {}
        }
        assert_eq!(client.rest().await, b"", "{how}");
        if how == "late" {
            assert!(start.elapsed() > UPGRADE_TIMEOUT - Duration::from_secs(1));
        }
        rig.post(&["42[\"still\"]"]).await;
        assert_eq!(backend.hears().await, "42[\"still\"]", "{how}");
        backend.say("42[\"here\"]").await;
        assert_eq!(rig.get().await, packets(&["42[\"here\"]"]), "{how}");
    }
    rig.post(&["1"]).await;
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_protocol_3_run_from_end_to_end_or_to_the_gate() {
    let (mut backend, stream) = Wire::new(Writer::Server);
    let rig = Rig::new(Setup { version: Version::V3, upstream: Some(stream), ..Setup::default() });
    rig.post(&["2"]).await;
    assert_eq!(backend.hears().await, "2");
    backend.say("3").await;
    assert_eq!(rig.get().await, packets(&["3"]));
    rig.post(&["1"]).await;
    rig.ended("client", "").await;
    let rig = Rig::new(Setup { version: Version::V3, ..Setup::default() });
    rig.post(&["2"]).await;
    assert_eq!(rig.get().await, packets(&["3"]), "there is no backend to answer");
    rig.post(&["1"]).await;
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn open_close_and_noop_of_the_backend_are_not_for_the_client_and_nonsense_ends_the_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    for text in ["0{}", "1", "5", "6", "42[]"] {
        backend.say(text).await;
    }
    assert_eq!(rig.get().await, packets(&["42[]"]));
    backend.say("9").await;
    assert_eq!(rig.get().await, over(Reason::UpstreamUnavailable));
    rig.ended("gate", "upstream_unavailable").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_websocket_that_takes_nothing_is_given_up_and_its_session_ends() {
    let (rig, mut backend) = Rig::known(|config| config.limits.write_timeout = Duration::from_secs(30));
    // Fragments keep the session from becoming a relay.
    backend.send(backend.fragment(false, Opcode::Text, b"42")).await;
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    backend.hears_nothing().await;
    let rest = [
        backend.fragment(true, Opcode::Continuation, vec![b'x'; 8_000_000]),
        backend.fragment(false, Opcode::Text, b"42"),
    ];
    backend.send(&rest.concat()).await;
    let start = tokio::time::Instant::now();
    assert_eq!(backend.is_closed().await.0, 1001);
    assert_eq!(start.elapsed().as_secs(), 30);
    drop(client);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_backend_that_takes_nothing_is_given_up_and_what_it_said_is_delivered() {
    let (rig, mut backend) = Rig::known(|config| config.limits.write_timeout = Duration::from_secs(30));
    backend.say("42[\"last words\"]").await;
    backend.hears_nothing().await;
    let long = format!("42[\"{}\"]", "x".repeat(8_000_000));
    let start = tokio::time::Instant::now();
    rig.post(&[&long]).await;
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(rig.get().await, packets(&["42[\"last words\"]"]));
    rig.ended("upstream", "").await;
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
