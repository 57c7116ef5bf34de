//! Opens sessions: verified at once where the request carries a credential, else with its CONNECT.

use crate::auth::cache::Fingerprint;
use crate::auth::credential::{Found, Passed};
use crate::auth::identity::Identity;
use crate::auth::verifier::Refusal;
use crate::auth::vouch::Asked;
use crate::config::model::{OnReject, Protocol};
use crate::gate::admission::{Admission, User};
use crate::gate::engine::{Engine, Heartbeat, Start};
use crate::protocol::engineio::{Open, Packet, Version};
use crate::protocol::frame::{self, Opcode, Writer};
use crate::protocol::handshake::{EngineError, Query, Transport};
use crate::protocol::scanner::Watch;
use crate::protocol::{sid, socketio};
use crate::proxy::context::{Context, fingerprint};
use crate::proxy::conversation::{self, Conversation, MAX_UNAUTHENTICATED};
use crate::proxy::frames::Leg;
use crate::proxy::gets::Gets;
use crate::proxy::headers::{self, Peer};
use crate::proxy::http as plain;
use crate::proxy::polling::packets_answer;
use crate::proxy::reply::{Answer, Inbound, own, refuse};
use crate::proxy::takeover::Takeover;
use crate::proxy::upgrade::Upgrade;
use crate::proxy::{refusal, relay};
use crate::reason::Reason;
use crate::session::mailbox::{self, Requests};
use crate::session::registry::{Newcomer, Stay};
use crate::telemetry::access::Record;
use crate::upstream::dial::Dialed;
use crate::upstream::head::DialHead;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A handshake that was read.
struct Call<'a> {
    context: &'a Arc<Context>,
    peer: &'a Peer,
    query: &'a Query,
    version: Version,
    watch: Watch,
    /// The WebSocket handshake, where the client came with one.
    upgrade: Option<Upgrade>,
    request: Box<Request<Inbound>>,
    credential: Option<Fingerprint>,
    /// Where the credential stands that was verified.
    verified: Option<usize>,
}

/// A session that the backend has opened.
struct Entered {
    open: Open,
    /// The same, as the backend wrote it.
    text: Bytes,
    upstream: Leg,
    stay: Stay,
    /// Where a polling client's requests come in.
    mailbox: Option<Requests>,
}

/// Answers a request without a sid.
pub async fn answer(
    context: &Arc<Context>,
    peer: &Peer,
    request: Box<Request<Inbound>>,
    query: &Query,
    transport: Transport,
    upgrade: Option<Upgrade>,
) -> Answer {
    let started = Instant::now();
    let on_upgrade = upgrade.is_some();
    let refused = |error: EngineError| {
        let response = refusal::engine_error(error);
        own(if on_upgrade { refusal::on_upgrade(&response, error.message()) } else { response })
    };
    if request.method() != Method::GET {
        return refused(EngineError::BadHandshakeMethod);
    }
    if transport == Transport::Websocket && upgrade.is_none() {
        return refused(EngineError::BadRequest);
    }
    let version = match query.eio {
        Some(Version::V3) if !context.config.socketio.eio3 => None,
        version => version,
    };
    let Some(version) = version else { return refused(EngineError::UnsupportedVersion) };
    if context.is_draining() {
        return refuse(context, peer, Reason::Draining, "");
    }
    // Before a backend is dialled for it; the registry decides.
    if context.registry.len() >= context.config.limits.max_sessions {
        return refuse(context, peer, Reason::TooManyConnections, "see [limits]");
    }
    let raw = context.config.socketio.protocol == Protocol::EngineIo;
    let watch = if raw { Watch::Frames } else { Watch::SocketIo };
    let call = Call { context, peer, query, version, watch, upgrade, request, credential: None, verified: None };
    let answer = call.judge().await;
    context.metrics.handshake_seconds.observe(started.elapsed().as_secs_f64());
    answer
}

impl Call<'_> {
    async fn judge(mut self) -> Answer {
        let context = self.context;
        let values = |name: &str| self.query.get_all(name).into_iter().map(String::from).collect();
        let refusal = match context.rules.sources.in_request(self.request.headers(), values) {
            Found::None => return self.without_credential().await,
            Found::Malformed { detail } => Refusal { reason: Reason::CredentialMalformed, detail, need_key: None },
            Found::Token { token, source, .. } => {
                let fingerprint = fingerprint(token.expose_secret());
                self.credential = Some(fingerprint);
                let asked = self.asked();
                match context.identify(source, token.expose_secret(), &fingerprint, asked.as_ref()).await {
                    Ok(identity) => {
                        self.verified = Some(source);
                        return self.with_identity(&identity).await;
                    }
                    Err(refusal) => refusal,
                }
            }
        };
        let by_http = context.config.socketio.on_reject == OnReject::Http
            || self.watch == Watch::Frames
            || refusal.reason == Reason::KeysUnavailable;
        if by_http {
            return refuse(context, self.peer, refusal.reason, &refusal.detail);
        }
        tracing::info!(
            client = %self.peer.forwarded.client,
            reason = refusal.reason.word(),
            detail = refusal.detail,
            "credential refused"
        );
        self.open_unauthenticated(refusal.reason)
    }

    /// Protocol 4 may still bring a token in its CONNECT; protocol 3 has no place for one there.
    async fn without_credential(self) -> Answer {
        let reason = Reason::CredentialMissing;
        let waits = self.version == Version::V4 && self.watch == Watch::SocketIo;
        let reads_connect = self.context.rules.sources.reads_connect();
        let by_connect = reads_connect || self.context.config.socketio.on_reject == OnReject::ConnectError;
        if waits && by_connect {
            return self.open_unauthenticated(reason);
        }
        refuse(self.context, self.peer, reason, "no credential in the handshake")
    }

    fn asked(&self) -> Option<Arc<Asked>> {
        let target = || plain::target(self.context, self.request.uri(), Passed::None);
        self.context.vouchers.want_to_see()?;
        self.context.asked(self.request.method(), &target(), self.request.headers(), self.peer)
    }

    fn transport(&self) -> &'static str {
        if self.upgrade.is_some() { "websocket" } else { "polling" }
    }

    fn head(&self) -> DialHead {
        let rules = &self.context.rules;
        let passed = rules.passed(self.verified);
        let names: Vec<&str> = rules.sources.query_names_withheld(passed).collect();
        let mut head = DialHead::new(&self.query.upstream(self.request.uri().path(), &names));
        headers::write_for_upstream(self.context, self.request.headers(), self.peer, passed, &mut head);
        head
    }

    fn record(&self) -> Record {
        let metrics = self.context.metrics.clone();
        Record::begin(metrics, session_name(), self.peer.forwarded.client, self.transport())
    }

    /// The backend is dialled as this user, and its OPEN is the client's.
    async fn with_identity(self, identity: &Identity) -> Answer {
        let context = self.context;
        let mut record = self.record();
        let mut head = self.head();
        headers::add_identity(context, &mut head, identity, &record.session);
        let user = User::of(identity);
        record.subject = Some(user.subject);
        record.issuer = Some(user.issuer);
        let opened = match context.dial(&head).await {
            Ok(mut dialed) => {
                let headers = dialed.headers.take();
                let protocol = dialed.protocol.take();
                self.enter(dialed, &record.session, identity).await.map(|entered| (entered, headers, protocol))
            }
            Err(error) => {
                record.detail = Some(error.to_string());
                Err(refusal::dial_reason(&error))
            }
        };
        match opened {
            Ok((entered, headers, protocol)) => match self.upgrade {
                Some(_) => self.websocket(record, entered, headers.as_deref(), protocol.as_deref()),
                None => self.polling(record, entered, headers.as_deref()),
            },
            Err(reason) => {
                record.reason = reason.word();
                let detail = record.detail.clone().unwrap_or_default();
                refuse(context, self.peer, reason, &detail)
            }
        }
    }

    /// Reads the backend's OPEN and registers the session under its sid.
    async fn enter(&self, dialed: Dialed, name: &Arc<str>, identity: &Identity) -> Result<Entered, Reason> {
        let (open, text, upstream) = conversation::await_open(self.context, dialed).await?;
        if !sid::is_valid(&open.sid) {
            return Err(Reason::UpstreamRefused);
        }
        let (mailbox, receiver) = self.upgrade.is_none().then(mailbox::new).unzip();
        let mut stay = self.context.registry.enter(Newcomer {
            sid: &open.sid,
            version: self.version,
            b64: self.query.b64,
            credential: self.credential,
            mailbox,
            card: self.context.card(name, self.peer.forwarded.client),
            waits: None,
        })?;
        self.context.admit(&mut stay, identity)?;
        Ok(Entered { open, text, upstream, stay, mailbox: receiver })
    }

    fn admission(&self, stay: &Stay) -> Admission {
        let Some(user) = stay.entry().user() else {
            return Admission::without_user(self.version, Reason::CredentialMissing);
        };
        let admission = Admission::with_user(self.version, user.clone());
        if self.watch == Watch::SocketIo {
            stay.entry().is_in(admission.joined());
        }
        admission
    }

    /// Both sides are WebSockets and the user is known: relay at once.
    fn websocket(
        self,
        mut record: Record,
        entered: Entered,
        headers: Option<&HeaderMap>,
        protocol: Option<&str>,
    ) -> Answer {
        let Entered { open, text, upstream, stay, .. } = entered;
        let admission = self.admission(&stay);
        // There is nothing to upgrade to.
        let text = match open.upgrades.as_slice() {
            [] => text,
            _ => Open { upgrades: Vec::new(), ..open }.text().into(),
        };
        let mut answer = self.accept(headers, protocol);
        let (context, watch) = (self.context.clone(), self.watch);
        // Should the connection be lost before it has switched, then it was the client's doing.
        record.by = "client";
        Takeover::leave(&mut answer, move |switched| {
            let mut greeting = switched.head;
            frame::encode(&mut greeting, Opcode::Text, &text, None);
            let (upstream, rest) = upstream.into_parts();
            relay::run(relay::Parts {
                context,
                stay,
                record,
                admission,
                watch,
                client: (switched.stream, switched.read.into()),
                upstream: (upstream, rest.into()),
                greeting,
                attachments: (0, 0),
                beats: true,
            })
        });
        answer
    }

    /// The 101, with what the backend said in its own.
    fn accept(&self, backend: Option<&HeaderMap>, protocol: Option<&str>) -> Answer {
        let Some(upgrade) = &self.upgrade else { return own(refusal::engine_error(EngineError::BadRequest)) };
        let mut answer = upgrade.accept();
        let headers = answer.headers_mut();
        for (name, value) in &backend.map(headers::for_client).unwrap_or_default() {
            if !headers.contains_key(name) || *name == header::SET_COOKIE {
                headers.append(name, value.clone());
            }
        }
        let chosen = protocol.or_else(|| self.context.rules.sources.subprotocol_answer(self.request.headers()));
        if let Some(Ok(value)) = chosen.map(HeaderValue::from_str) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        answer
    }

    fn polling(self, record: Record, entered: Entered, headers: Option<&HeaderMap>) -> Answer {
        let Entered { open, upstream, stay, mailbox, .. } = entered;
        let admission = self.admission(&stay);
        let open = Open { upgrades: vec!["websocket".into()], ..open };
        let mut answer = packets_answer(self.version, self.query.b64, &[open.packet()]);
        for cookie in headers.iter().flat_map(|headers| headers.get_all(header::SET_COOKIE)) {
            answer.headers_mut().append(header::SET_COOKIE, cookie.clone());
        }
        let mut conversation = self.conversation(record, stay, admission, Start::Polling);
        conversation.mailbox = mailbox;
        conversation.upstream = Some(upstream);
        self.context.tasks.spawn(conversation.run());
        answer
    }

    fn conversation(&self, record: Record, stay: Stay, admission: Admission, start: Start) -> Box<Conversation> {
        let bound = usize::try_from(self.context.max_payload()).unwrap_or(usize::MAX);
        Box::new(Conversation {
            context: self.context.clone(),
            stay,
            record,
            version: self.version,
            watch: self.watch,
            engine: Engine::new(self.version, self.query.b64, start, bound),
            admission,
            mailbox: None,
            client: None,
            upstream: None,
            head: None,
            connect_by: None,
            gets: Gets::default(),
            post: None,
            attachments: (0, 0),
            asides: Vec::new(),
            leave_by: None,
            asked: None,
        })
    }

    /// The gate answers OPEN itself and waits for a CONNECT; the backend hears nothing yet.
    fn open_unauthenticated(self, fallback: Reason) -> Answer {
        let context = self.context;
        let polls = self.upgrade.is_none();
        let (mailbox, receiver) = polls.then(mailbox::new).unzip();
        let id = sid::generate();
        let record = self.record();
        let newcomer = Newcomer {
            sid: &id,
            version: self.version,
            b64: self.query.b64,
            credential: self.credential,
            mailbox,
            card: context.card(&record.session, self.peer.forwarded.client),
            waits: Some(self.peer.forwarded.client),
        };
        let stay = match context.registry.enter(newcomer) {
            Ok(stay) => stay,
            Err(reason) => return refuse(context, self.peer, reason, "see [limits]"),
        };
        let open = context.open(id.clone(), polls);
        let start = if polls { Start::Polling } else { Start::Websocket };
        let admission = Admission::without_user(self.version, fallback);
        let now = Instant::now();
        let mut conversation = self.conversation(record, stay, admission, start);
        conversation.connect_by = Some(now + context.config.socketio.connect_deadline);
        let every = Heartbeat {
            interval: Duration::from_millis(open.ping_interval),
            timeout: Duration::from_millis(open.ping_timeout),
        };
        conversation.engine.beat(now, every);
        conversation.head = Some(Box::new(self.head()));
        conversation.asked = self.asked();
        let refusal = (self.version == Version::V3).then(|| {
            // Protocol 3 clients are in "/" without asking, so nobody asks what could be answered.
            let packet = socketio::connect_error(Version::V3, "/", fallback.message(), fallback.word());
            Packet::text(packet)
        });
        if polls {
            conversation.mailbox = receiver;
            refusal.into_iter().for_each(|packet| conversation.engine.send(packet));
            context.tasks.spawn(conversation.run());
            return packets_answer(self.version, self.query.b64, &[open.packet()]);
        }
        let version = self.version;
        let mut answer = self.accept(None, None);
        conversation.record.by = "client";
        Takeover::leave(&mut answer, move |switched| {
            let input = BytesMut::from(switched.read);
            let mut client = Leg::new(switched.stream, Writer::Client, input, MAX_UNAUTHENTICATED);
            client.push_raw(switched.head);
            client.push_packet(version, &open.packet());
            conversation.client = Some(client);
            refusal.into_iter().for_each(|packet| conversation.engine.send(packet));
            conversation.run()
        });
        answer
    }
}

/// A name for logs and for the backend. No secret: unlike the sid it opens nothing.
fn session_name() -> Arc<str> {
    sid::generate_shared()
}
