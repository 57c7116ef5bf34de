//! For the tests of this room: a context without doors, and the far ends of a session's two sockets.

use crate::auth::claims::HeaderMapping;
use crate::auth::credential::Sources;
use crate::auth::keys::KeySet;
use crate::auth::revocation::Revocations;
use crate::auth::rules::Material;
use crate::auth::testing;
use crate::config::model::Config;
use crate::config::secret::Secrets;
use crate::gate::admission::{Rules, User};
use crate::protocol::engineio::Version;
use crate::protocol::frame::{self, Head, Opcode, Writer};
use crate::protocol::origin::Origins;
use crate::proxy::context::{self, Context};
use crate::proxy::keeper::Keeper;
use crate::proxy::own::Statements;
use crate::reason::Reason;
use crate::session::clock::Clock;
use crate::session::deadlines::End;
use crate::session::registry::revoke::Card;
use crate::session::registry::{Capacity, Newcomer, Registry, Stay};
use crate::session::revoker::Revoker;
use crate::stream::Stream;
use crate::telemetry::access::Record;
use crate::telemetry::metrics::{self, Metrics};
use crate::upstream::answer;
use crate::upstream::client::ProxyClient;
use crate::upstream::fetch::{Fetch, FetchError, FetchRequest, Fetched, Validators};
use crate::upstream::jwks::{KeyFetcher, KeySource, Place};
use crate::upstream::pool::Pool;
use crate::upstream::target::Location;
use crate::upstream::timings::Timings;
use crate::vouch::Vouchers;
use futures_util::future::BoxFuture;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

/// Long enough for everything that can happen without the clock, which stands still in these tests.
const MOMENT: Duration = Duration::from_millis(50);

/// A context with one issuer by shared secret and one whose keys are fetched.
pub struct Gate {
    pub context: Arc<Context>,
    /// The key server answers as often as there are permits.
    key_server: Arc<Semaphore>,
}

struct KeyServer(Arc<Semaphore>);

impl Fetch for KeyServer {
    fn fetch<'a>(&'a self, _: &'a FetchRequest) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async {
            self.0.acquire().await.unwrap().forget();
            let body = testing::jwks(&[testing::ED.jwk()]).into();
            Ok(Fetched::Body { body, validators: Validators::default(), max_age: None })
        })
    }
}

impl Gate {
    /// Needs a running runtime. `change` has the defaults to begin with.
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let remote = testing::issuer(&["EdDSA"]);
        let sections =
            [(testing::secret_issuer(&["HS256"]), testing::secret(testing::SECRET)), (remote, Material::Remote)];
        let (verifier, store) = testing::verifier(&sections);
        let allowed = verifier.issuers()[1].algorithms().to_vec();
        let publish = Arc::new(move |body: &[u8]| {
            let (set, _) = KeySet::from_jwks(body, &allowed).map_err(|e| e.to_string())?;
            let usable = set.len();
            store.replace(1, set, testing::NOW);
            Ok(usable)
        });
        let key_server = Arc::new(Semaphore::new(0));
        let source = KeySource {
            index: 1,
            name: testing::ISSUER.into(),
            place: Place::Known(Location::parse("https://login.example.com/keys", false).unwrap()),
            max_stale: Duration::from_secs(3600),
            fetch: Arc::new(KeyServer(key_server.clone())),
            publish,
        };
        let clock = Clock::default();
        // The tokens of the tests were issued in the past.
        clock.shift(i64::try_from(testing::NOW * 1000).unwrap() - i64::try_from(clock.unix_ms()).unwrap());
        let pool = Pool::new(&config.upstream).unwrap();
        let capacity = Capacity { sessions: 100, unauthenticated: 100, unauthenticated_per_ip: 100 };
        let (registry, metrics) = (Registry::with(capacity, context::habits(&config)), Arc::new(Metrics::default()));
        let revoker = Revoker::new(Revocations::new(100), registry.clone(), clock.clone(), metrics.clone());
        let mapping = HeaderMapping::compile(&config.identity.headers, &config.identity.claims).unwrap();
        let context = Context {
            vouchers: Vouchers::build(&config, &Secrets::default(), &mapping, &metrics).unwrap(),
            keeper: Keeper::default(),
            rules: Rules {
                sources: Sources::parse(&config.credentials.sources).unwrap(),
                forward: config.credentials.forward,
            },
            verifier: verifier.refusing(revoker.table().clone()),
            revoker: Arc::new(revoker),
            keys: KeyFetcher::start(vec![source]),
            mapping,
            signer: None,
            origins: Origins::parse(&config.socketio.allowed_origins).unwrap(),
            client: ProxyClient::new(pool.clone(), config.upstream.connect_timeout),
            pool,
            timings: Timings::new(&config.socketio),
            registry,
            clock,
            metrics,
            tasks: TaskTracker::new(),
            tls: false,
            refresh: context::names(&config),
            statements: Statements::default(),
            strangers: Context::strangers(),
            draining: Arc::new(AtomicBool::new(false)),
            config,
        };
        Self { context: Arc::new(context), key_server }
    }

    /// Lets the key server answer once.
    pub fn answer_keys(&self) {
        self.key_server.add_permits(1);
    }

    /// A place for a session that has no user yet.
    pub fn stay(&self) -> Stay {
        let waits = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let card = self.card();
        self.enter(Newcomer {
            sid: "sid",
            version: Version::V4,
            b64: false,
            credential: None,
            mailbox: None,
            card,
            waits,
        })
    }

    /// What operators are told of it.
    pub fn card(&self) -> Card {
        self.context.card(&"session".into(), IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// A place for any session.
    pub fn enter(&self, newcomer: Newcomer<'_>) -> Stay {
        self.context.registry.enter(newcomer).unwrap()
    }

    /// The session is this user's, for an hour.
    pub fn admit(&self, stay: &mut Stay, subject: &str) {
        let now = Instant::now().into_std();
        let ends_at = self.context.clock.unix() + 3600;
        let end = End::of(now, self.context.clock.unix_ms(), ends_at, Duration::from_secs(86_400));
        stay.admit(user(subject), end);
    }

    pub fn record(&self) -> Record {
        Record::begin(self.context.metrics.clone(), "session".into(), IpAddr::V4(Ipv4Addr::LOCALHOST), "websocket")
    }

    /// How many sessions ended like that.
    pub fn ended(&self, by: &'static str, reason: &'static str) -> u64 {
        self.context.metrics.ended(&metrics::End { by, reason })
    }

    /// Messages of the sessions that have ended: to the backend, and to the client.
    pub fn messages(&self) -> (u64, u64) {
        self.context.metrics.messages()
    }

    /// Nothing of any session is left.
    pub fn assert_empty(&self) {
        let registry = &self.context.registry;
        assert_eq!((registry.len(), registry.unauthenticated(), registry.deadlines()), (0, 0, 0));
        assert!(registry.all().is_empty());
    }
}

/// The user of [`token`].
pub fn user(subject: &str) -> User {
    User { issuer: "".into(), subject: subject.into() }
}

/// A token by the shared secret.
pub fn token(subject: &str) -> String {
    let claims = testing::claims(json!({"sub": subject, "iss": null, "aud": null}));
    testing::hmac_token("HS256", testing::SECRET.as_bytes(), json!({}), &claims)
}

/// A token whose key has to be fetched.
pub fn remote_token(subject: &str) -> String {
    testing::ED.token(&testing::claims(json!({"sub": subject})))
}

/// One whole frame.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

/// The far end of one of the gate's sockets.
pub struct Wire {
    stream: UnixStream,
    input: Vec<u8>,
    writes: Writer,
}

impl Wire {
    /// Somebody who writes as `writes`, and the gate's end.
    pub fn new(writes: Writer) -> (Self, Stream) {
        let (far, near) = UnixStream::pair().unwrap();
        (Self::of(far, writes), Stream::Unix(near))
    }

    pub fn of(stream: UnixStream, writes: Writer) -> Self {
        Self { stream, input: Vec::new(), writes }
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.writes == Writer::Client).then_some([7, 1, 200, 33])
    }

    /// One frame as this end writes it.
    pub fn frame(&self, opcode: Opcode, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(&mut out, opcode, payload.as_ref(), self.mask());
        out
    }

    /// One frame of a fragmented message.
    pub fn fragment(&self, fin: bool, opcode: Opcode, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut out = self.frame(opcode, payload);
        out[0] = if fin { 0x80 } else { 0 } | opcode as u8;
        out
    }

    pub fn text(&self, text: &str) -> Vec<u8> {
        self.frame(Opcode::Text, text)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a text message.
    pub async fn say(&mut self, text: &str) {
        self.send(self.text(text)).await;
    }

    /// Writes as much as is taken; returns how much that was.
    pub async fn flood(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match timeout(MOMENT, self.stream.write(&bytes[sent..])).await {
                Ok(n) => sent += n.unwrap(),
                Err(_) => break,
            }
        }
        sent
    }

    /// Nothing more will be written here.
    pub async fn shutdown(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.input).await.unwrap() > 0
    }

    /// The next bytes.
    pub async fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.input.len() < n {
            assert!(self.fill().await, "ended after {} of {n} bytes", self.input.len());
        }
        self.input.drain(..n).collect()
    }

    /// Everything to the end of the stream.
    pub async fn rest(&mut self) -> Vec<u8> {
        // A reset is an end as well.
        while matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {}
        std::mem::take(&mut self.input)
    }

    /// Nothing arrives, and the stream has not ended.
    pub async fn hears_nothing(&mut self) {
        assert!(self.input.is_empty(), "{} bytes", self.input.len());
        let read = timeout(MOMENT, self.fill()).await;
        assert!(read.is_err(), "something arrived: {:?}", String::from_utf8_lossy(&self.input));
    }

    /// The next frame, unmasked.
    pub async fn next(&mut self) -> Frame {
        let from = if self.writes == Writer::Client { Writer::Server } else { Writer::Client };
        loop {
            if let Some(head) = Head::parse(&self.input, from).unwrap() {
                let len = usize::try_from(head.len).unwrap();
                let all = self.bytes(head.size + len).await;
                let mut payload = all[head.size..].to_vec();
                frame::apply_mask(&mut payload, head.mask, 0);
                return Frame { fin: head.fin, opcode: head.opcode, payload };
            }
            assert!(self.fill().await, "the stream ended where a frame was expected");
        }
    }

    /// The next frame is a text message.
    pub async fn hears(&mut self) -> String {
        let frame = self.next().await;
        assert!(frame.fin && frame.opcode == Opcode::Text, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// The next frame is a close frame, and the stream ends with it.
    pub async fn is_closed(&mut self) -> (u16, String) {
        let frame = self.next().await;
        assert_eq!(frame.opcode, Opcode::Close, "{:?}", String::from_utf8_lossy(&frame.payload));
        assert_eq!(self.rest().await, b"");
        let (code, reason) = frame.payload.split_at(2);
        (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).unwrap())
    }
}

/// The packet that refuses a CONNECT.
pub fn refusal(namespace: &str, reason: Reason) -> String {
    crate::protocol::socketio::connect_error(Version::V4, namespace, reason.message(), reason.word())
}

/// A backend behind a Unix socket that is dialled.
pub struct Backend {
    listener: UnixListener,
    dir: tempfile::TempDir,
}

impl Backend {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { listener: UnixListener::bind(dir.path().join("socket")).unwrap(), dir }
    }

    /// For `upstream.urls`.
    pub fn url(&self) -> String {
        format!("unix:{}", self.dir.path().join("socket").display())
    }

    /// The next connection's request, up to the empty line.
    pub async fn asked(&self) -> (UnixStream, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    }

    /// Answers the next connection as a WebSocket; gives its request head too.
    pub async fn accept(&self) -> (Wire, String) {
        let (mut stream, head) = self.asked().await;
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let accept = answer::accept_for(key.as_bytes().try_into().unwrap());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            std::str::from_utf8(&accept).unwrap()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        (Wire::of(stream, Writer::Server), head)
    }

    /// The same, and says OPEN.
    pub async fn opened(&self) -> (Wire, String) {
        let (mut wire, head) = self.accept().await;
        wire.say(r#"0{"sid":"theirs","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#)
            .await;
        (wire, head)
    }

    /// Nobody has dialled.
    pub async fn is_left_alone(&self) {
        assert!(timeout(MOMENT, self.listener.accept()).await.is_err());
    }
}
