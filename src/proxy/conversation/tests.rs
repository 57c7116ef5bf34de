//! A session with its requests, its WebSocket and its backend, in virtual time.

mod arriving;
mod cut;
mod passing;
mod pressure;
mod requests;
mod silence;
mod upgrading;

use super::*;
use crate::config::model::Config;
use crate::gate::engine::{Heartbeat, Start};
use crate::proxy::support::{Backend, Gate, Wire, refusal as refused, token, user};
use crate::session::mailbox::{self, Mailbox};
use crate::session::registry::{Entry, Newcomer};
use std::net::{IpAddr, Ipv4Addr};
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
