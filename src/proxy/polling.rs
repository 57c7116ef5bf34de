//! Engine.IO over HTTP: tells handshakes from requests of a session, and carries the latter to the
//! task that owns it.

use crate::auth::credential::Found;
use crate::gate::ending::Ending;
use crate::protocol::engineio::Version;
use crate::protocol::handshake::{EngineError, Query, Transport};
use crate::protocol::{payload, sid};
use crate::proxy::context::{Context, fingerprint};
use crate::proxy::conversation::MAX_UNAUTHENTICATED;
use crate::proxy::headers::Peer;
use crate::proxy::reply::{Answer, Inbound, closing, own, refuse};
use crate::proxy::takeover::Takeover;
use crate::proxy::upgrade::{self, Upgrade};
use crate::proxy::{handshake, refusal};
use crate::reason::Reason;
use crate::session::mailbox::{Command, GetReply, Mailbox, PostReply};
use crate::session::registry::Entry;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Body;
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A client that was sent a 101 has so long to take it.
const SWITCH: Duration = Duration::from_secs(10);

/// Answers a request on the Socket.IO path whose origin may be there.
pub async fn engine(context: &Arc<Context>, peer: &Peer, request: Box<Request<Inbound>>) -> Answer {
    match read(&request) {
        Ok((query, transport, upgrade)) => match query.sid.clone() {
            Some(sid) => in_session(context, peer, request, &query, transport, upgrade, &sid).await,
            None => handshake::answer(context, peer, request, &query, transport, upgrade).await,
        },
        Err(answer) => own(*answer),
    }
}

type Read = (Query, Transport, Option<Upgrade>);

fn read(request: &Request<Inbound>) -> Result<Read, Box<Response<Full<Bytes>>>> {
    let query = Query::parse(request.uri().query().unwrap_or_default())
        .map_err(|e| Box::new(refusal::bad_request(&e.to_string())))?;
    if query.jsonp {
        return Err(Box::new(refusal::bad_request("JSONP (the parameter j) is not supported")));
    }
    let upgrade = upgrade::wanted(request)?;
    let error = |e| {
        let response = refusal::engine_error(e);
        Box::new(if upgrade.is_some() { refusal::on_upgrade(&response, e.message()) } else { response })
    };
    let Some(transport) = query.transport else { return Err(error(EngineError::TransportUnknown)) };
    if upgrade.is_some() && transport != Transport::Websocket {
        return Err(error(EngineError::BadRequest));
    }
    Ok((query, transport, upgrade))
}

async fn in_session(
    context: &Arc<Context>,
    peer: &Peer,
    request: Box<Request<Inbound>>,
    query: &Query,
    transport: Transport,
    upgrade: Option<Upgrade>,
    id: &str,
) -> Answer {
    let known = if sid::is_valid(id) { context.registry.find(id) } else { None };
    let Some(entry) = known else { return unknown(context, peer, id, upgrade.is_some()) };
    if let Err(answer) = same_user(context, peer, &entry, request.headers(), query).await {
        return answer;
    }
    let Some(mailbox) = entry.mailbox() else { return bad_request(upgrade.is_some()) };
    match (transport, upgrade, request.method()) {
        (Transport::Websocket, Some(_), _) if entry.ended().is_some() => gone(&entry),
        (Transport::Websocket, Some(upgrade), _) => take_over(mailbox, &upgrade),
        (Transport::Websocket, None, _) => bad_request(false),
        (Transport::Polling, _, &Method::GET) => get(&entry, mailbox).await,
        (Transport::Polling, _, &Method::POST) => post(context, &entry, mailbox, request).await,
        // As engine.io does.
        _ => {
            let mut answer = own(Response::new(Full::default()));
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
    }
}

fn unknown(context: &Context, peer: &Peer, id: &str, on_upgrade: bool) -> Answer {
    let response = match context.registry.farewell(id) {
        Some(reason) => refusal::response(reason),
        None if context.may_guess(peer.forwarded.client) => refusal::engine_error(EngineError::UnknownSid),
        // Ids are unguessable; who tries all the same gets no faster than this.
        None => return refuse(context, peer, Reason::RateLimited, "too many unknown session ids"),
    };
    own(if on_upgrade { refusal::on_upgrade(&response, EngineError::UnknownSid.message()) } else { response })
}

fn bad_request(on_upgrade: bool) -> Answer {
    let error = EngineError::BadRequest;
    let response = refusal::engine_error(error);
    own(if on_upgrade { refusal::on_upgrade(&response, error.message()) } else { response })
}

/// For a session that took no more requests: why, where it was shown out.
fn gone(entry: &Entry) -> Answer {
    match entry.ended() {
        // As engine.io: whoever breaks the protocol is forgotten at once.
        Some(Reason::ProtocolError) => own(refusal::engine_error(EngineError::UnknownSid)),
        Some(reason) => own(refusal::response(reason)),
        None => bad_request(false),
    }
}

/// The sid is a secret, so a request needs no credential; but one that is there must be the user's.
async fn same_user(
    context: &Context,
    peer: &Peer,
    entry: &Entry,
    headers: &HeaderMap,
    query: &Query,
) -> Result<(), Answer> {
    let values = |name: &str| query.get_all(name).into_iter().map(String::from).collect();
    let (token, source) = match context.rules.sources.in_request(headers, values) {
        Found::None => return Ok(()),
        Found::Malformed { detail } => {
            return Err(refuse(context, peer, Reason::CredentialMalformed, &detail));
        }
        Found::Token { token, source, .. } => (token, source),
    };
    let print = fingerprint(token.expose_secret());
    if entry.credential == Some(print) {
        return Ok(());
    }
    let asked = context.asked(&Method::GET, &context.config.socketio.path, headers, peer);
    match context.identify(source, token.expose_secret(), &print, asked.as_ref()).await {
        // A session cookie without a user is no credential.
        Err(refusal) if refusal.reason == Reason::CredentialMissing => Ok(()),
        Err(refusal) => Err(refuse(context, peer, refusal.reason, &refusal.detail)),
        Ok(identity) => match entry.user() {
            Some(user) if user.issuer != identity.issuer || user.subject != identity.subject => {
                Err(refuse(context, peer, Reason::SubjectMismatch, "the session is another user's"))
            }
            _ => Ok(()),
        },
    }
}

/// A poll that nobody has looked at yet. Dropped so, its client gave it up in the instant in which it asked,
/// and hyper never ran the answer: the session ends as with any poll that is given up.
pub struct Unseen(Option<Mailbox>);

impl Unseen {
    /// Before the answer to a request is begun.
    pub fn of<B>(context: &Context, request: &Request<B>) -> Unseen {
        let query = request.uri().query().filter(|_| request.method() == Method::GET);
        let given = query.and_then(|q| q.split('&').find_map(|pair| pair.strip_prefix("sid=")));
        let known = given.filter(|id| sid::is_valid(id)).and_then(|id| context.registry.find(id));
        let upgrades = request.headers().contains_key(header::UPGRADE);
        let polls = !upgrades && request.uri().path() == context.config.socketio.path;
        Unseen(known.filter(|_| polls).and_then(|entry| entry.mailbox()))
    }

    /// The answer has begun.
    pub fn seen(mut self) {
        self.0 = None;
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(mailbox) = self.0.take() {
            let (reply, _) = oneshot::channel();
            let _ = mailbox.try_send(Command::Get(reply));
        }
    }
}

async fn get(entry: &Entry, mailbox: Mailbox) -> Answer {
    let (reply, answer) = oneshot::channel();
    // Also where it has been shown out: its last poll may be waited for.
    if mailbox.send(Command::Get(reply)).await.is_err() {
        return gone(entry);
    }
    match answer.await {
        Ok(GetReply::Packets(packets)) => packets_answer(entry.version, entry.b64, &packets),
        Ok(GetReply::Over(ending)) => own(refusal::over(ending)),
        Ok(GetReply::Conflict) => bad_request(false),
        Err(_) => gone(entry),
    }
}

/// 200 with a payload.
pub fn packets_answer(version: Version, b64: bool, packets: &[crate::protocol::engineio::Packet]) -> Answer {
    let encoded = payload::encode(version, b64, packets);
    text_answer(encoded.content_type, encoded.body)
}

fn text_answer(content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = own(Response::new(Full::new(body)));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Marks the POST as answered, also where its client has gone.
struct Posting<'a>(&'a Entry);

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        self.0.posted();
    }
}

async fn post(context: &Context, entry: &Entry, mailbox: Mailbox, request: Box<Request<Inbound>>) -> Answer {
    if !entry.begin_post() {
        entry.end(Reason::ProtocolError);
        return bad_request(false);
    }
    let _posting = Posting(entry);
    let Some(binary) = body_kind(entry.version, request.headers()) else {
        entry.end(Reason::ProtocolError);
        return bad_request(false);
    };
    let limit = if entry.user().is_some() { context.max_payload() } else { MAX_UNAUTHENTICATED };
    let body = match body(context, request.into_body(), limit).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let packets = payload::decode(entry.version, binary, body, context.config.limits.max_packets_per_payload).ok();
    let (reply, answer) = oneshot::channel();
    if mailbox.send(Command::Post(packets, reply)).await.is_err() {
        return gone(entry);
    }
    match answer.await {
        Ok(PostReply::Done) => text_answer("text/html", Bytes::from_static(b"ok")),
        Ok(PostReply::Over(ending)) => own(refusal::over(ending)),
        Err(_) if entry.ended().is_some() => gone(entry),
        Err(_) => own(refusal::over(Ending::Client)),
    }
}

/// Whether a body is binary; `None` where its type is none of Engine.IO's. Protocol 4 knows text only: Node servers
/// before 6.6.7 leaked sockets on others.
fn body_kind(version: Version, headers: &HeaderMap) -> Option<bool> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Some(false) };
    let kind = kind.to_str().ok()?.split(';').next()?.trim();
    match version {
        _ if kind.eq_ignore_ascii_case("text/plain") => Some(false),
        Version::V3 if kind.eq_ignore_ascii_case("application/octet-stream") => Some(true),
        _ => None,
    }
}

/// Reads a body whole, within its limits of size and time.
async fn body(context: &Context, body: Inbound, limit: u64) -> Result<Bytes, Answer> {
    let too_large = || {
        context.metrics.refuse(Reason::PayloadTooLarge.word());
        own(refusal::response(Reason::PayloadTooLarge))
    };
    if body.size_hint().lower() > limit {
        return Err(too_large());
    }
    let body = match body {
        Either::Right(whole) => return Ok(whole.into_inner().unwrap_or_default()),
        Either::Left(body) => body,
    };
    let limited = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    match timeout(context.config.limits.body_timeout, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(closing(bad_request(false))),
        Err(_) => Err(closing(own(refusal::too_slow()))),
    }
}

/// A WebSocket for a session that polls.
fn take_over(mailbox: Mailbox, upgrade: &Upgrade) -> Answer {
    let mut answer = upgrade.accept();
    Takeover::leave(&mut answer, move |mut switched| async move {
        if timeout(SWITCH, switched.stream.write_all(&switched.head)).await.is_ok_and(|written| written.is_ok()) {
            let _ = mailbox.send(Command::Upgrade(Box::new(switched.stream), switched.read)).await;
        }
    });
    answer
}
