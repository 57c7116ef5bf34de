//! WebSocket to WebSocket: passes frames on as they came, and looks at each one's head.
//!
//! One small task for both directions. It owns no buffer while it waits: bytes are read into one
//! buffer of the thread and written from there; only what the other side does not take at once is
//! kept. A client's frames are masked as a backend wants them, so they pass untouched; what the gate
//! has to say itself is put in between packets.

mod leaving;
mod way;

use crate::auth::identity::Identity;
use crate::auth::verifier::Refusal;
use crate::gate::admission::{Admission, Judgement, Verdict};
use crate::gate::ending::Ending;
use crate::protocol::frame::{self, FrameError, Opcode, Writer};
use crate::protocol::scanner::{Captured, Scanner, Watch};
use crate::protocol::socketio;
use crate::proxy::context::Context;
use crate::proxy::refresh::{self, Asked};
use crate::proxy::relay::way::{Fault, Next, Way};
use crate::proxy::scratch;
use crate::reason::Reason;
use crate::session::registry::term::{NOTICE, WARN};
use crate::session::registry::{Entry, Stay};
use crate::stream::Stream;
use crate::telemetry::access::Record;
use secrecy::ExposeSecret;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// After one side is gone the other one has so long to follow.
const FOLLOW: Duration = Duration::from_secs(5);

/// What a relay is made of.
pub struct Parts {
    /// The gate's shared parts.
    pub context: Arc<Context>,
    /// The session's place.
    pub stay: Stay,
    /// The session's record.
    pub record: Record,
    /// The session's namespaces.
    pub admission: Admission,
    /// Frames only, or Socket.IO packets.
    pub watch: Watch,
    /// The client's socket and what was read of it.
    pub client: (Stream, Vec<u8>),
    /// The backend's socket and what was read of it.
    pub upstream: (Stream, Vec<u8>),
    /// To be written to the client first.
    pub greeting: Vec<u8>,
    /// Attachments still to come from the client and from the backend.
    pub attachments: (u32, u32),
    /// Both sides beat: one that is silent is dead. An application's own WebSocket may be silent for hours.
    pub beats: bool,
}

type Answered = Result<Arc<Identity>, Refusal>;
type Judging = Pin<Box<dyn Future<Output = (Judged, Answered)> + Send>>;

/// What waits for its token to be verified.
enum Judged {
    Connect(Box<Judgement>),
    Refresh(Box<Asked>),
}

struct Relay {
    context: Arc<Context>,
    stay: Stay,
    record: Record,
    admission: Admission,
    client: Stream,
    upstream: Stream,
    up: Way,
    down: Way,
    judging: Option<Judging>,
    /// Frames for the client that wait for a place between packets.
    inject: Vec<u8>,
    /// What the application has said so far, where somebody counts.
    activity: u64,
    follow: Option<Pin<Box<Sleep>>>,
    ending: Option<Ending>,
}

/// Relays until one side or the gate ends the session. Thousands of these wait at once, so the future holds
/// the relay once, and what its end needs is made then.
pub fn run(parts: Parts) -> impl Future<Output = ()> + Send {
    let mut relay = Relay::new(parts);
    async move {
        let ending = poll_fn(|cx| relay.poll(cx)).await;
        if let Some(rest) = relay.leave(ending) {
            rest.await;
        }
    }
}

impl Relay {
    fn new(parts: Parts) -> Self {
        let Parts { context, stay, record, admission, watch, client, upstream, greeting, attachments, beats } = parts;
        let max = context.max_payload();
        let patience = context.config.limits.write_timeout;
        stay.entry().close_mailbox();
        if beats {
            context.watch(stay.entry());
        }
        let event = context.refresh.as_ref().map(|names| names.event.clone());
        let up = Scanner::new(Writer::Client, watch, max, attachments.0).taking(event);
        Self {
            up: Way::new(up, client.1, Vec::new(), patience),
            // A backend may say what it likes: its own limit is for what it reads.
            down: Way::new(
                Scanner::new(Writer::Server, watch, u64::MAX, attachments.1),
                upstream.1,
                greeting,
                patience,
            ),
            client: client.0,
            upstream: upstream.0,
            context,
            stay,
            record,
            admission,
            judging: None,
            inject: Vec::new(),
            activity: 0,
            follow: None,
            ending: None,
        }
    }

    fn poll(&mut self, cx: &mut Task<'_>) -> Poll<Ending> {
        if let Poll::Ready(reason) = self.stay.entry().poll_ended(cx) {
            return Poll::Ready(Ending::Gate(reason));
        }
        if self.follow.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(self.ending.unwrap_or(Ending::Client));
        }
        loop {
            if let Some(ending) = self.poll_judging(cx) {
                return Poll::Ready(ending);
            }
            let judged = self.judging.is_some();
            let outcome = scratch::with(|buf| self.pump_both(cx, buf));
            if let Some(ending) = outcome {
                return Poll::Ready(ending);
            }
            let may_inject = !self.inject.is_empty() && self.down.may_inject();
            // A verification that has just begun was not polled yet: nothing would wake us for it.
            let unpolled = self.judging.is_some() && !judged;
            if !may_inject && !unpolled && !self.answer_calls() {
                break;
            }
            if may_inject {
                self.down.pending.append(&mut self.inject);
            }
        }
        if (self.up.done && self.down.done) || (self.up.closed() && self.down.closed()) {
            return Poll::Ready(self.ending.unwrap_or(Ending::Client));
        }
        if (self.up.done || self.down.done) && self.follow.is_none() {
            let mut follow = Box::pin(sleep(FOLLOW));
            let _ = follow.as_mut().poll(cx);
            self.follow = Some(follow);
        }
        Poll::Pending
    }

    fn pump_both(&mut self, cx: &mut Task<'_>, buf: &mut [u8]) -> Option<Ending> {
        let Self { context, stay, admission, client, upstream, up, down, judging, inject, .. } = self;
        let unread = down.pending.len() - down.written;
        let up_result = up.pump(cx, client, upstream, buf, &mut |message, out| {
            let text = text_of(&message);
            if let Some(asked) = text.and_then(|text| Asked::of(context, stay.entry(), text)) {
                return hear(context, asked, unread, inject, judging);
            }
            note(stay.entry(), text);
            let leaves = text.is_some_and(|text| text.starts_with('1'));
            let verdict = from_client(context, admission, message);
            if leaves {
                stay.entry().is_in(admission.joined());
            }
            obey(context, verdict, out, inject, judging)
        });
        down.last = up.scanner.closed();
        let down_result = down.pump(cx, upstream, client, buf, &mut |message, out| {
            let text = text_of(&message);
            note(stay.entry(), text);
            if let Some(text) = text {
                from_server(stay, admission, text);
            }
            frame::encode(out, Opcode::Text, &message.data, None);
            Next::Go
        });
        if std::mem::take(&mut self.up.heard) {
            self.stay.entry().heard_client();
        }
        if std::mem::take(&mut self.down.heard) {
            self.stay.entry().heard_upstream();
        }
        self.note_activity();
        if self.ending.is_none() {
            self.ending = match (&self.up, &self.down) {
                (_, down) if down.scanner.closing() || down.eof => Some(Ending::Upstream),
                (up, _) if up.scanner.closing() || up.eof => Some(Ending::Client),
                _ => None,
            };
        }
        match (up_result, down_result) {
            (Poll::Ready(Err(fault)), _) => Some(self.client_failed(fault)),
            (_, Poll::Ready(Err(fault))) => Some(self.upstream_failed(fault)),
            _ => None,
        }
    }

    /// What it means that nothing more goes from the client to the backend.
    #[cold]
    fn client_failed(&mut self, fault: Fault) -> Ending {
        match fault {
            Fault::Reading => self.ending.unwrap_or(Ending::Client),
            Fault::Writing => self.ending.unwrap_or(Ending::Upstream),
            Fault::Frame(FrameError::TooLong) => Ending::Gate(Reason::PayloadTooLarge),
            Fault::Frame(error) => {
                self.record.detail = Some(format!("client: {error}"));
                Ending::Gate(Reason::ProtocolError)
            }
            Fault::End(reason) => Ending::Gate(reason),
        }
    }

    /// What it means that nothing more goes from the backend to the client.
    #[cold]
    fn upstream_failed(&mut self, fault: Fault) -> Ending {
        match fault {
            Fault::Reading => self.ending.unwrap_or(Ending::Upstream),
            Fault::Writing => self.ending.unwrap_or(Ending::Client),
            Fault::Frame(error) => {
                self.record.detail = Some(format!("backend: {error}"));
                Ending::Gate(Reason::UpstreamUnavailable)
            }
            Fault::End(reason) => Ending::Gate(reason),
        }
    }

    /// Where idle sessions are ended: whether the application said something.
    fn note_activity(&mut self) {
        if self.context.config.session.idle_timeout.is_zero() {
            return;
        }
        let activity = self.up.scanner.activity().wrapping_add(self.down.scanner.activity());
        if std::mem::replace(&mut self.activity, activity) != activity {
            self.stay.entry().active();
        }
    }

    /// Says what others asked the session to say, where there is a place for it.
    fn answer_calls(&mut self) -> bool {
        let entry = self.stay.entry();
        let called = entry.called();
        if called == 0 {
            return false;
        }
        let mut said = 0;
        if called & WARN != 0 && self.down.may_inject() {
            said |= WARN;
            for packet in refresh::warnings(&self.context, entry, &self.admission) {
                frame::encode(&mut self.down.pending, Opcode::Text, packet.as_bytes(), None);
            }
        }
        if called & NOTICE != 0 && self.up.may_inject() {
            said |= NOTICE;
            for packet in refresh::notices(&self.context, entry, &self.admission) {
                frame::encode(&mut self.up.pending, Opcode::Text, packet.as_bytes(), Some(frame::mask_key()));
            }
        }
        entry.answered(said);
        said != 0
    }

    /// Looks after a CONNECT or a refresh that waits for its token.
    fn poll_judging(&mut self, cx: &mut Task<'_>) -> Option<Ending> {
        let Poll::Ready((judged, answer)) = self.judging.as_mut()?.as_mut().poll(cx) else { return None };
        self.judging = None;
        self.up.waiting = false;
        let judgement = match judged {
            Judged::Connect(judgement) => judgement,
            Judged::Refresh(asked) => {
                let outcome = refresh::settle(&self.context, self.stay.entry(), self.record.client, answer);
                self.inject.extend(asked.answer(outcome).map(|packet| text_frame(&packet)).unwrap_or_default());
                return None;
            }
        };
        let answer = note_refusal(&self.context, &mut self.record, answer);
        let owns = |pid: &str, user: &_| self.context.owns(pid, user);
        let verdict = self.admission.judged(*judgement, answer.as_deref().map_err(|r| *r), &self.context.rules, &owns);
        match obey(&self.context, verdict, &mut self.up.pending, &mut self.inject, &mut self.judging) {
            Next::End(reason) => Some(Ending::Gate(reason)),
            Next::Go | Next::Wait => None,
        }
    }
}

/// A client asks for a later end.
fn hear(
    context: &Arc<Context>,
    asked: Asked,
    unread: usize,
    inject: &mut Vec<u8>,
    judging: &mut Option<Judging>,
) -> Next {
    if asked.is_unfit() {
        return Next::End(Reason::ProtocolError);
    }
    match asked.token(context) {
        Ok(token) => {
            let context = context.clone();
            *judging = Some(Box::pin(async move {
                let answer = context.verify(token.expose_secret(), None).await;
                (Judged::Refresh(Box::new(asked)), answer)
            }));
            Next::Wait
        }
        // Whoever asks without end and reads no answer.
        Err(_) if unread + inject.len() > refresh::MAX_UNREAD => Next::End(Reason::RateLimited),
        Err(reason) => {
            inject.extend(asked.answer(Err(reason)).map(|packet| text_frame(&packet)).unwrap_or_default());
            Next::Go
        }
    }
}

/// A message that was taken out may be the application's all the same.
fn note(entry: &Entry, text: Option<&str>) {
    if text.is_some_and(|text| socketio::is_said(text.as_bytes())) {
        entry.active();
    }
}

fn text_frame(packet: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(&mut out, Opcode::Text, packet.as_bytes(), None);
    out
}

fn text_of(message: &Captured) -> Option<&str> {
    std::str::from_utf8(&message.data).ok()?.strip_prefix('4')
}

/// What the backend said behind the Engine.IO type `4`.
pub fn from_server(stay: &mut Stay, admission: &mut Admission, text: &str) {
    if let Some(pid) = admission.from_server(text) {
        stay.recovery_id(pid);
    }
    if text.starts_with(['0', '1', '4']) {
        stay.entry().is_in(admission.joined());
    }
}

fn from_client(context: &Context, admission: &mut Admission, message: Captured) -> Verdict {
    let owns = |pid: &str, user: &_| context.owns(pid, user);
    // RFC 6455 section 8.1: text is UTF-8.
    let Ok(packet) = String::from_utf8(message.data) else { return Verdict::Close(Reason::ProtocolError) };
    let verdict = match packet.strip_prefix('4') {
        Some(text) => admission.from_client(text, &context.rules, &owns),
        // Binary data or digits of another script, in fragments of which the first is empty: nobody sends that,
        // and it could be a CONNECT to some parser.
        None if packet.starts_with(|c: char| c == 'b' || !c.is_ascii()) => Verdict::Close(Reason::ProtocolError),
        None => Verdict::Forward,
    };
    match verdict {
        Verdict::Forward => Verdict::Replace(packet),
        verdict => verdict,
    }
}

fn obey(
    context: &Arc<Context>,
    verdict: Verdict,
    out: &mut Vec<u8>,
    inject: &mut Vec<u8>,
    judging: &mut Option<Judging>,
) -> Next {
    match verdict {
        Verdict::Forward => Next::Go,
        Verdict::Replace(packet) => {
            frame::encode(out, Opcode::Text, packet.as_bytes(), Some(frame::mask_key()));
            Next::Go
        }
        Verdict::Answer(packet) => {
            frame::encode(inject, Opcode::Text, packet.as_bytes(), None);
            Next::Go
        }
        Verdict::Judge(judgement) => {
            let context = context.clone();
            *judging = Some(Box::pin(async move {
                let answer = context.verify(judgement.token.expose_secret(), None).await;
                (Judged::Connect(judgement), answer)
            }));
            Next::Wait
        }
        Verdict::Close(reason) => Next::End(reason),
    }
}

/// Counts a refused token and keeps the detail for the operator.
pub fn note_refusal(context: &Context, record: &mut Record, answer: Answered) -> Result<Arc<Identity>, Reason> {
    answer.map_err(|refusal| {
        context.metrics.refuse(refusal.reason.word());
        tracing::info!(
            session = &*record.session,
            client = %record.client,
            reason = refusal.reason.word(),
            detail = refusal.detail,
            "credential refused"
        );
        record.detail = Some(refusal.detail);
        refusal.reason
    })
}

#[cfg(test)]
mod tests;
