//! Everything that is not Engine.IO: plain requests, and WebSockets of the application's own, by
//! `[[http.route]]`. Every request is verified anew.

use crate::auth::credential::{Found, Passed};
use crate::auth::identity::Identity;
use crate::config::model::{ClientBundle, Route, RouteAuth};
use crate::gate::admission::{Admission, User};
use crate::protocol::engineio::Version;
use crate::protocol::origin::Decision;
use crate::protocol::scanner::Watch;
use crate::protocol::sid;
use crate::proxy::context::{Context, fingerprint};
use crate::proxy::headers::{self, Peer};
use crate::proxy::reply::{self, Answer, Inbound, closing, not_found, own, refuse};
use crate::proxy::takeover::Takeover;
use crate::proxy::upgrade::{self, Upgrade};
use crate::proxy::{refusal, relay};
use crate::reason::Reason;
use crate::session::registry::{Newcomer, Stay};
use crate::telemetry::access::Record;
use crate::upstream::client::ProxyError;
use crate::upstream::head::DialHead;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, timeout};

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// The client bundle that Socket.IO servers serve; without its query, which a backend that serves none
/// would read as a handshake.
pub async fn bundle(context: &Context, peer: &Peer, request: Request<Inbound>) -> Answer {
    let served = context.config.socketio.client_bundle == ClientBundle::Pass;
    if !served || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return own(not_found());
    }
    let headers = headers::for_upstream(context, request.headers(), peer, Passed::None);
    let mut onward = Request::new(Empty::<Bytes>::new());
    *onward.method_mut() = request.method().clone();
    *onward.uri_mut() = path_only(request.uri());
    *onward.headers_mut() = headers;
    onward.headers_mut().remove(header::CONTENT_LENGTH);
    answer(context, peer, send(context, onward).await)
}

fn path_only(uri: &Uri) -> Uri {
    PathAndQuery::try_from(uri.path()).map_or_else(|_| Uri::default(), Uri::from)
}

/// A request outside of the Socket.IO path.
pub async fn route(context: &Arc<Context>, peer: &Peer, request: Request<Inbound>) -> Answer {
    if !METHODS.contains(request.method()) {
        return own(refusal::json(StatusCode::METHOD_NOT_ALLOWED, r#"{"message":"method not allowed"}"#.into()));
    }
    let Some(route) = find(&context.config.http.route, request.uri().path()).cloned() else {
        return own(not_found());
    };
    let upgrade = match upgrade::wanted(&request) {
        Ok(upgrade) => upgrade,
        Err(response) => return own(*response),
    };
    if upgrade.is_some() && !route.websocket {
        return own(refusal::bad_request("this route takes no upgrade"));
    }
    let (identity, passed) = match identify(context, peer, &route, &request).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    match upgrade {
        Some(upgrade) => Box::pin(tunnel(context, peer, request, &upgrade, identity, passed)).await,
        None => forward(context, peer, request, identity.as_deref(), passed).await,
    }
}

/// The route with the longest path that is a prefix of `path` at a segment's end.
fn find<'a>(routes: &'a [Route], path: &str) -> Option<&'a Route> {
    let matches = |route: &&Route| {
        let base = route.path.strip_suffix('/').unwrap_or(&route.path);
        path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            && (path.len() >= route.path.len())
    };
    routes.iter().filter(matches).max_by_key(|route| route.path.len())
}

/// Who asks, and which credential goes on.
async fn identify(
    context: &Context,
    peer: &Peer,
    route: &Route,
    request: &Request<Inbound>,
) -> Result<(Option<Arc<Identity>>, Passed), Answer> {
    const NOBODY: (Option<Arc<Identity>>, Passed) = (None, Passed::None);
    let headers = request.headers();
    match route.auth {
        RouteAuth::Deny => return Err(own(refusal::json(StatusCode::FORBIDDEN, r#"{"message":"forbidden"}"#.into()))),
        // What nobody looks at, the backend has to look at itself.
        RouteAuth::Pass if context.rules.forward => return Ok((None, Passed::All)),
        RouteAuth::Pass => return Ok(NOBODY),
        // A preflight carries no credential by design (Fetch standard); the backend answers it.
        RouteAuth::Require | RouteAuth::Optional
            if request.method() == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) =>
        {
            return Ok(NOBODY);
        }
        RouteAuth::Require | RouteAuth::Optional => {}
    }
    let raw = request.uri().query().unwrap_or_default();
    match context.rules.sources.in_request(headers, |name| values(raw, name)) {
        Found::None if route.auth == RouteAuth::Optional => Ok(NOBODY),
        Found::None => Err(refuse(context, peer, Reason::CredentialMissing, request.uri().path())),
        Found::Malformed { detail } => Err(refuse(context, peer, Reason::CredentialMalformed, &detail)),
        Found::Token { token, cookie, source } => {
            let cookie = cookie || context.vouchers.see_cookies();
            let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
                && !headers.contains_key(header::UPGRADE);
            if cookie && !safe {
                // Browsers send cookies unasked: the page must be one of ours.
                let authority = peer.forwarded.host.as_deref().unwrap_or(&peer.authority);
                let decision = context.origins.judge(headers, authority, context.config.socketio.require_origin);
                if decision == Decision::Refused {
                    return Err(refuse(context, peer, Reason::OriginNotAllowed, "cookie from another origin"));
                }
            }
            let asked = context.asked(request.method(), &target(context, request.uri(), Passed::None), headers, peer);
            let fingerprint = fingerprint(token.expose_secret());
            match context.identify(source, token.expose_secret(), &fingerprint, asked.as_ref()).await {
                Ok(identity) => Ok((Some(identity), context.rules.passed(Some(source)))),
                // Visitors have a session before they log in and keep its cookie behind its end: the backend
                // knows them as nobody, and so does the gate.
                Err(refusal) if route.auth == RouteAuth::Optional && is_nobody(context, source, refusal.reason) => {
                    Ok(NOBODY)
                }
                Err(refusal) => Err(refuse(context, peer, refusal.reason, &refusal.detail)),
            }
        }
    }
}

/// Whether a session cookie speaks for nobody, rather than against somebody.
fn is_nobody(context: &Context, source: usize, reason: Reason) -> bool {
    use Reason::{CredentialMalformed, CredentialMissing, LoggedOut, SignatureInvalid};
    context.rules.sources.store(source).is_some()
        && matches!(reason, CredentialMissing | LoggedOut | SignatureInvalid | CredentialMalformed)
}

/// The decoded values of one parameter.
pub fn values(raw: &str, name: &str) -> Vec<String> {
    let pairs = raw.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")));
    pairs.filter(|(n, _)| decode(n) == name).map(|(_, value)| decode(value)).collect()
}

/// Whether one of these parameters stands in a query, in whatever spelling.
pub fn names_any(raw: &str, names: &[String]) -> bool {
    let possible = raw.contains(['%', '+']) || names.iter().any(|name| raw.contains(name.as_str()));
    possible && names.iter().any(|name| !values(raw, name).is_empty())
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// The target for the backend: the path as it was judged, the query without the credentials that do not go on.
pub fn target(context: &Context, uri: &Uri, passed: Passed) -> String {
    let path = uri.path();
    let Some(raw) = uri.query() else { return path.to_owned() };
    let names: Vec<&str> = context.rules.sources.query_names_withheld(passed).collect();
    if names.is_empty() {
        return format!("{path}?{raw}");
    }
    let is_credential = |pair: &&str| {
        let name = decode(pair.split_once('=').map_or(*pair, |(name, _)| name));
        names.contains(&name.as_str())
    };
    let kept: Vec<&str> = raw.split('&').filter(|pair| !is_credential(pair)).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

async fn forward(
    context: &Context,
    peer: &Peer,
    request: Request<Inbound>,
    identity: Option<&Identity>,
    passed: Passed,
) -> Answer {
    let mut headers = headers::for_upstream(context, request.headers(), peer, passed);
    if let Some(identity) = identity {
        headers::add_identity(context, &mut headers, identity, "");
    }
    let Ok(uri) = Uri::try_from(target(context, request.uri(), passed)) else {
        return own(refusal::bad_request("malformed target"));
    };
    let (parts, body) = request.into_parts();
    let late = Arc::new(AtomicBool::new(false));
    let mut onward = Request::new(Paced::new(body, context.config.limits.body_timeout, late.clone()));
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = uri;
    *onward.headers_mut() = headers;
    context.metrics.http_requests.inc();
    let result = send(context, onward).await;
    if result.is_err() && late.load(Ordering::Relaxed) {
        // The client's fault, not the backend's.
        return closing(own(refusal::too_slow()));
    }
    answer(context, peer, result)
}

/// Asks the backend, which has to begin its answer in time.
async fn send<B>(context: &Context, onward: Request<B>) -> Result<http::Response<Incoming>, ProxyError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let patience = context.config.upstream.response_timeout;
    timeout(patience, context.client.send(onward)).await.unwrap_or_else(|_| {
        Err(ProxyError::Unavailable { detail: "no answer within upstream.response_timeout".into() })
    })
}

fn answer(context: &Context, peer: &Peer, result: Result<http::Response<Incoming>, ProxyError>) -> Answer {
    match result {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            refuse(context, peer, Reason::UpstreamRefused, "101 without being asked")
        }
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            parts.headers = headers::for_client(&parts.headers);
            http::Response::from_parts(parts, reply::Body::Backend(body))
        }
        Err(error @ ProxyError::Unavailable { .. }) => {
            refuse(context, peer, Reason::UpstreamUnavailable, &error.to_string())
        }
        Err(error @ ProxyError::Broken { .. }) => refuse(context, peer, Reason::UpstreamRefused, &error.to_string()),
        Err(error @ ProxyError::Invalid { .. }) => own(refusal::bad_request(&error.to_string())),
    }
}

/// A place for a WebSocket of the application's own; it ends with its identity's right, where it has one.
fn enter(context: &Context, identity: Option<&Identity>, record: &mut Record) -> Result<Stay, Reason> {
    let sid = sid::generate();
    let card = context.card(&record.session, record.client);
    let newcomer =
        Newcomer { sid: &sid, version: Version::V4, b64: false, credential: None, mailbox: None, card, waits: None };
    let mut stay = context.registry.enter(newcomer)?;
    if let Some(identity) = identity {
        let user = User::of(identity);
        record.subject = Some(user.subject);
        record.issuer = Some(user.issuer);
        context.admit(&mut stay, identity)?;
    }
    Ok(stay)
}

/// A WebSocket of the application's own: relayed unread, cut like any session.
async fn tunnel(
    context: &Arc<Context>,
    peer: &Peer,
    request: Request<Inbound>,
    upgrade: &Upgrade,
    identity: Option<Arc<Identity>>,
    passed: Passed,
) -> Answer {
    let name = sid::generate_shared();
    let mut record = Record::begin(context.metrics.clone(), name.clone(), peer.forwarded.client, "websocket");
    let mut head = DialHead::new(target(context, request.uri(), passed).as_str());
    headers::write_for_upstream(context, request.headers(), peer, passed, &mut head);
    if let Some(identity) = &identity {
        headers::add_identity(context, &mut head, identity, &name);
    }
    let stay = match enter(context, identity.as_deref(), &mut record) {
        Ok(stay) => stay,
        Err(reason) => return refuse(context, peer, reason, "see [limits]"),
    };
    let dialed = match context.dial(&head).await {
        Ok(dialed) => dialed,
        Err(error) => {
            let reason = refusal::dial_reason(&error);
            record.reason = reason.word();
            return refuse(context, peer, reason, &error.to_string());
        }
    };
    let mut accepted = upgrade.accept();
    let out = accepted.headers_mut();
    if let Some(said) = &dialed.headers {
        copy_new(out, &headers::for_client(said));
    }
    let chosen = dialed.protocol.as_deref().or_else(|| context.rules.sources.subprotocol_answer(request.headers()));
    if let Some(Ok(value)) = chosen.map(HeaderValue::from_str) {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    let shared = context.clone();
    record.by = "client";
    Takeover::leave(&mut accepted, move |switched| {
        relay::run(relay::Parts {
            context: shared,
            stay,
            record,
            admission: Admission::without_user(Version::V4, Reason::CredentialMissing),
            watch: Watch::Frames,
            client: (switched.stream, switched.read.into()),
            upstream: (dialed.stream, dialed.leftover.into()),
            greeting: switched.head,
            attachments: (0, 0),
            beats: false,
        })
    });
    accepted
}

fn copy_new(out: &mut HeaderMap, from: &HeaderMap) {
    for (name, value) in from {
        if !out.contains_key(name) || *name == header::SET_COOKIE {
            out.append(name, value.clone());
        }
    }
}

/// A body that has to keep moving: hyper itself waits for ever.
struct Paced {
    body: Inbound,
    patience: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Set when it has not.
    late: Arc<AtomicBool>,
}

impl Paced {
    fn new(body: Inbound, patience: Duration, late: Arc<AtomicBool>) -> Self {
        Self { body, patience, sleep: Box::pin(sleep(patience)), late }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let until = Instant::now() + self.patience;
            self.sleep.as_mut().reset(until);
            // Trailers could carry what headers may not.
            return match frame {
                Some(Ok(frame)) if frame.is_trailers() => Poll::Ready(None),
                other => Poll::Ready(other),
            };
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.late.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err("the request body took too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
