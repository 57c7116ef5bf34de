//! The task that owns a session while its packets are read one by one: until its user is known, and
//! while it polls. As soon as it is authenticated and on a WebSocket it becomes a [`relay`].

mod asides;
mod farewell;

use crate::auth::identity::Identity;
use crate::auth::vouch::Asked;
use crate::gate::admission::{Admission, User, Verdict};
use crate::gate::ending::Ending;
use crate::gate::engine::{Effect, Engine, GetAnswer, GetId};
use crate::protocol::engineio::{Kind, Open, Packet, Version};
use crate::protocol::frame::{FrameError, Writer};
use crate::protocol::scanner::{self, Watch};
use crate::proxy::context::Context;
use crate::proxy::frames::{Incoming, Leg, LegError};
use crate::proxy::gets::Gets;
use crate::proxy::headers;
use crate::proxy::refusal;
use crate::proxy::relay::{from_server, note_refusal};
use crate::proxy::timers::{at, now};
use crate::reason::Reason;
use crate::session::mailbox::{Command, GetReply, PostReply, Requests};
use crate::session::registry::Stay;
use crate::stream::Stream;
use crate::telemetry::access::Record;
use crate::upstream::{dial::Dialed, head::DialHead};
use bytes::{Bytes, BytesMut};
use secrecy::ExposeSecret;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Bytes of one message before the session has a user: tokens are at most 8 KiB.
pub const MAX_UNAUTHENTICATED: u64 = 64 * 1024;

/// One session, packet by packet.
pub struct Conversation {
    /// The gate's shared parts.
    pub context: Arc<Context>,
    /// The session's place.
    pub stay: Stay,
    /// The session's record.
    pub record: Record,
    /// The protocol revision.
    pub version: Version,
    /// Frames only, or Socket.IO packets.
    pub watch: Watch,
    /// The client's Engine.IO.
    pub engine: Engine,
    /// The session's namespaces.
    pub admission: Admission,
    /// Requests of a polling client.
    pub mailbox: Option<Requests>,
    /// The client's WebSocket.
    pub client: Option<Leg>,
    /// The backend's WebSocket.
    pub upstream: Option<Leg>,
    /// What to dial once the user is known.
    pub head: Option<Box<DialHead>>,
    /// The user has to be known by then.
    pub connect_by: Option<Instant>,
    /// GETs that wait for an answer.
    pub gets: Gets,
    /// The POST that waits for an answer.
    pub post: Option<oneshot::Sender<PostReply>>,
    /// Attachments still to come, from the client and from the backend.
    pub attachments: (u32, u32),
    /// What the gate has to say to the client between its backend's packets.
    pub asides: Vec<Packet>,
    /// The backend is gone; the client may fetch what is left until then.
    pub leave_by: Option<Instant>,
    /// The handshake, for call-outs about a token in CONNECT.
    pub asked: Option<Arc<Asked>>,
}

/// How a stretch of the conversation ends.
enum Flow {
    Relay,
    Over(Ending),
}

enum Step {
    Command(Option<Command>),
    Client(Result<Incoming, LegError>),
    Upstream(Result<Incoming, LegError>),
    GetGone(GetId),
    Called(u8),
    Tick,
}

async fn next(leg: &mut Option<Leg>) -> Result<Incoming, LegError> {
    match leg {
        Some(leg) => leg.next().await,
        None => pending().await,
    }
}

async fn command(mailbox: &mut Option<Requests>) -> Option<Command> {
    match mailbox {
        Some(mailbox) => mailbox.recv().await,
        None => pending().await,
    }
}

impl Conversation {
    /// Goes on until the session is over, at last as a relay. Each stretch is boxed: what comes later is not larger
    /// for what came before.
    pub async fn run(mut self: Box<Self>) {
        let flow = Box::pin(self.stretch()).await;
        match flow {
            Flow::Relay => {
                if let Some(relay) = self.into_relay() {
                    relay.await;
                }
            }
            Flow::Over(ending) => Box::pin(self.finish(ending)).await,
        }
    }

    async fn stretch(&mut self) -> Flow {
        let entry = self.stay.entry().clone();
        if self.upstream.is_some() {
            self.context.watch(&entry);
        }
        tokio::select! {
            biased;
            reason = poll_fn(|cx| entry.poll_ended(cx)) => Flow::Over(Ending::Gate(reason)),
            flow = self.converse() => flow,
        }
    }

    async fn converse(&mut self) -> Flow {
        loop {
            if let Some(flow) = self.settle().await {
                return flow;
            }
            if let Some(reply) = self.post.take() {
                let _ = reply.send(PostReply::Done);
            }
            if self.may_relay() {
                return Flow::Relay;
            }
            let step = self.wait().await;
            if let Some(flow) = self.take(step) {
                return flow;
            }
        }
    }

    fn may_relay(&self) -> bool {
        let whole = |leg: &Option<Leg>| leg.as_ref().is_some_and(Leg::is_whole);
        self.asides.is_empty() && self.engine.on_websocket() && whole(&self.client) && whole(&self.upstream)
    }

    async fn wait(&mut self) -> Step {
        let deadline = [self.engine.deadline(), self.connect_by, self.leave_by].into_iter().flatten().min();
        let room = self.engine.queued() < self.context.config.limits.max_queue;
        let callable = self.callable();
        let Self { mailbox, client, upstream, gets, stay, .. } = self;
        tokio::select! {
            command = command(mailbox) => Step::Command(command),
            incoming = next(client) => Step::Client(incoming),
            incoming = next(upstream), if room => Step::Upstream(incoming),
            id = gets.gone() => Step::GetGone(id),
            called = poll_fn(|cx| stay.entry().poll_called(cx, callable)) => Step::Called(called),
            () = at(deadline) => Step::Tick,
        }
    }

    fn take(&mut self, step: Step) -> Option<Flow> {
        let now = now();
        match &step {
            Step::Command(Some(_)) | Step::Client(Ok(_)) => self.stay.entry().heard_client(),
            Step::Upstream(Ok(_)) => self.stay.entry().heard_upstream(),
            _ => {}
        }
        match step {
            Step::Command(Some(Command::Get(reply))) => {
                let id = self.gets.add(reply);
                self.engine.get(now, id);
            }
            Step::Command(Some(Command::Post(packets, reply))) => {
                // One that is too late for its session is answered by dropping `reply`.
                if self.engine.post(packets) {
                    self.post = Some(reply);
                }
            }
            Step::Command(Some(Command::Upgrade(stream, read))) => self.upgrade(now, *stream, read),
            Step::Command(None) => self.mailbox = None,
            Step::Client(Ok(Incoming::Message { text, data })) => {
                let packet = Packet::from_ws(self.version, text, data).ok();
                self.engine.websocket(packet);
            }
            Step::Client(Err(LegError::Frame(error))) if self.engine.on_websocket() => {
                self.record.detail = Some(format!("client: {error}"));
                let long = error == FrameError::TooLong;
                let reason = if long { Reason::PayloadTooLarge } else { Reason::ProtocolError };
                return Some(Flow::Over(Ending::Gate(reason)));
            }
            Step::Client(Ok(Incoming::Closed) | Err(_)) => {
                self.client = None;
                self.engine.websocket_gone();
            }
            Step::Upstream(Ok(Incoming::Message { text, data })) => return self.from_upstream(text, data),
            Step::Upstream(Ok(Incoming::Closed) | Err(_)) => self.upstream_gone(now),
            Step::GetGone(id) => {
                self.gets.forget(id);
                self.engine.get_gone(id);
            }
            Step::Called(called) => self.answer_calls(called),
            Step::Tick => {
                if self.connect_by.is_some_and(|by| now >= by) {
                    return Some(Flow::Over(Ending::Gate(Reason::ConnectTimeout)));
                }
                if self.leave_by.is_some_and(|by| now >= by) {
                    return Some(Flow::Over(Ending::Upstream));
                }
                self.engine.tick(now);
            }
        }
        None
    }

    /// The backend has left: the client may fetch what it had said.
    fn upstream_gone(&mut self, now: Instant) {
        self.upstream = None;
        self.leave_by = Some(now + Duration::from_millis(self.context.timings.current().ping_timeout));
        self.engine.drain();
    }

    fn upgrade(&mut self, now: Instant, stream: Stream, read: Bytes) {
        // A second WebSocket for the session is closed by dropping it; the first goes on.
        if self.engine.upgrade(now) {
            let bound = if self.admission.user().is_some() { self.context.max_payload() } else { MAX_UNAUTHENTICATED };
            self.client = Some(Leg::new(stream, Writer::Client, BytesMut::from(read), bound));
        }
    }

    /// Does what the engine wants done.
    async fn settle(&mut self) -> Option<Flow> {
        loop {
            while let Some(effect) = self.engine.effect() {
                if let Some(flow) = self.apply(effect).await {
                    return Some(flow);
                }
            }
            if self.flush().await {
                return None;
            }
        }
    }

    async fn apply(&mut self, effect: Effect) -> Option<Flow> {
        match effect {
            Effect::Get(id, GetAnswer::Packets(packets)) => {
                self.record.to_client += packets.len() as u64;
                if !self.gets.answer(id, GetReply::Packets(packets)) {
                    // Its client gave it up meanwhile: what it was to be told is lost, and so is the session.
                    return Some(Flow::Over(Ending::Client));
                }
            }
            Effect::Get(id, GetAnswer::Conflict) => {
                self.gets.answer(id, GetReply::Conflict);
            }
            Effect::Ws(packet) => {
                self.record.to_client += 1;
                if let Some(client) = &mut self.client {
                    client.push_packet(self.version, &packet);
                }
            }
            Effect::DropWs => self.client = None,
            // Later requests of the session are refused at the door.
            Effect::Upgraded => self.stay.entry().close_mailbox(),
            Effect::Client(packet) => {
                if let Some(flow) = self.hear(packet).await {
                    return Some(flow);
                }
            }
            Effect::Over(ending) => {
                self.flush().await;
                return Some(Flow::Over(ending));
            }
        }
        None
    }

    /// Writes what is queued on both WebSockets; one that takes nothing for too long is given up.
    /// `false`: the engine has something to say to that.
    async fn flush(&mut self) -> bool {
        let mut well = true;
        let patience = self.context.config.limits.write_timeout;
        if let Some(client) = &mut self.client
            && !matches!(timeout(patience, client.flush()).await, Ok(Ok(())))
        {
            self.client = None;
            self.engine.websocket_gone();
            well = false;
        }
        if let Some(upstream) = &mut self.upstream
            && !matches!(timeout(patience, upstream.flush()).await, Ok(Ok(())))
        {
            self.upstream_gone(now());
            well = false;
        }
        well
    }

    /// One packet of the client for the backend.
    async fn from_client(&mut self, packet: Packet) -> Option<Flow> {
        self.record.to_upstream += 1;
        if self.watch == Watch::Frames {
            self.to_upstream(&packet);
            return None;
        }
        let text = match &packet {
            Packet::Binary(_) => {
                if self.attachments.0 == 0 {
                    return Some(Flow::Over(Ending::Gate(Reason::ProtocolError)));
                }
                self.attachments.0 -= 1;
                self.to_upstream(&packet);
                return None;
            }
            Packet::Text(_) if packet.kind() != Kind::Message => {
                self.to_upstream(&packet);
                return None;
            }
            Packet::Text(text) => text,
        };
        if let Some(n) = scanner::announced(text) {
            self.attachments.0 = n;
        }
        let body = packet.body().unwrap_or_default();
        let context = self.context.clone();
        let owns = |pid: &str, user: &User| context.owns(pid, user);
        let mut verdict = self.admission.from_client(body, &context.rules, &owns);
        self.note_leave(body);
        let mut identity = None;
        let judged = matches!(verdict, Verdict::Judge(_));
        if let Verdict::Judge(judgement) = verdict {
            let answer = context.verify(judgement.token.expose_secret(), self.asked.as_ref()).await;
            let answer = note_refusal(&context, &mut self.record, answer);
            verdict = self.admission.judged(*judgement, answer.as_deref().map_err(|r| *r), &context.rules, &owns);
            identity = answer.ok();
        }
        match verdict {
            Verdict::Forward => self.to_upstream(&packet),
            Verdict::Replace(text) => {
                if let (None, Some(identity)) = (self.stay.entry().user(), identity)
                    // Boxed: thousands wait without it.
                    && let Err(reason) = Box::pin(self.join(&identity)).await
                {
                    return Some(Flow::Over(Ending::Gate(reason)));
                }
                self.to_upstream(&Packet::text(text));
            }
            Verdict::Answer(text) => {
                if let Some(reason) = self.admission.refused().filter(|_| !judged) {
                    context.metrics.refuse(reason.word());
                }
                self.say(text);
            }
            Verdict::Close(reason) => return Some(Flow::Over(Ending::Gate(reason))),
            // `judged` gives no second judgement.
            Verdict::Judge(_) => return Some(Flow::Over(Ending::Gate(Reason::ProtocolError))),
        }
        None
    }

    fn to_upstream(&mut self, packet: &Packet) {
        if let Some(upstream) = &mut self.upstream {
            upstream.push_packet(self.version, packet);
        }
    }

    /// The session has a user: it is registered as such, then the backend is told.
    async fn join(&mut self, identity: &Identity) -> Result<(), Reason> {
        let user = User::of(identity);
        self.record.subject = Some(user.subject);
        self.record.issuer = Some(user.issuer);
        self.context.admit(&mut self.stay, identity)?;
        self.connect_by = None;
        let Some(mut head) = self.head.take() else { return Err(Reason::UpstreamUnavailable) };
        headers::add_identity(&self.context, &mut *head, identity, &self.record.session);
        let dialed = match self.context.dial(&head).await {
            Ok(dialed) => dialed,
            Err(error) => {
                self.record.detail = Some(error.to_string());
                return Err(refusal::dial_reason(&error));
            }
        };
        let (.., leg) = await_open(&self.context, dialed).await?;
        if let Some(client) = &mut self.client {
            client.bound(self.context.max_payload());
        }
        self.upstream = Some(leg);
        self.engine.end_to_end();
        self.context.watch(self.stay.entry());
        Ok(())
    }

    fn note_leave(&self, body: &str) {
        if body.starts_with('1') {
            self.stay.entry().is_in(self.admission.joined());
        }
    }

    /// One message of the backend.
    fn from_upstream(&mut self, text: bool, data: Bytes) -> Option<Flow> {
        let Ok(packet) = Packet::from_ws(self.version, text, data) else {
            self.record.detail = Some("backend: not an Engine.IO packet".into());
            return Some(Flow::Over(Ending::Gate(Reason::UpstreamUnavailable)));
        };
        self.note(&packet);
        match (&packet, packet.kind()) {
            (_, Kind::Open | Kind::Close | Kind::Upgrade | Kind::Noop) => return None,
            (Packet::Binary(_), _) => self.attachments.1 = self.attachments.1.saturating_sub(1),
            (Packet::Text(text), Kind::Message) if self.watch == Watch::SocketIo => {
                if let Some(n) = scanner::announced(text) {
                    self.attachments.1 = n;
                }
                if let Some(body) = packet.body() {
                    from_server(&mut self.stay, &mut self.admission, body);
                }
            }
            _ => {}
        }
        self.engine.send(packet);
        self.say_asides();
        None
    }
}

/// Waits for the backend's OPEN, learns from it, and gives its text too.
///
/// # Errors
/// [`Reason::UpstreamRefused`] where something else comes, [`Reason::UpstreamUnavailable`] where nothing does.
pub async fn await_open(context: &Context, dialed: Dialed) -> Result<(Open, Bytes, Leg), Reason> {
    let mut leg = Leg::new(dialed.stream, Writer::Server, dialed.leftover, u64::MAX);
    let first = timeout(context.config.upstream.connect_timeout, leg.next()).await;
    let Ok(Ok(Incoming::Message { text: true, data })) = first else { return Err(Reason::UpstreamUnavailable) };
    let open = data.strip_prefix(b"0").and_then(|json| Open::parse(json).ok()).ok_or(Reason::UpstreamRefused)?;
    context.timings.learn(open.ping_interval, open.ping_timeout, open.max_payload);
    Ok((open, data, leg))
}

#[cfg(test)]
mod tests;
