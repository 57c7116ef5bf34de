//! Refreshes: a session lives on with a new token, asked for by an event of its own or by `POST /.siogate/refresh`.

use crate::auth::credential::Found;
use crate::auth::identity::Identity;
use crate::auth::verifier::Refusal;
use crate::gate::admission::Admission;
use crate::gate::refresh::{Granted, Request, said};
use crate::protocol::handshake::EngineError;
use crate::protocol::json;
use crate::proxy::context::{Context, fingerprint};
use crate::proxy::headers::Peer;
use crate::proxy::http::values;
use crate::proxy::refusal;
use crate::proxy::reply::{Answer, Inbound, closing, own};
use crate::proxy::timers::now;
use crate::reason::Reason;
use crate::session::registry::Entry;
use crate::session::registry::term::NOTICE;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::timeout;

/// Where clients that cannot emit an event send a new token.
pub const PATH: &str = "/.siogate/refresh";

/// Answers that a client has not read yet, in bytes, before it is asked no more.
pub const MAX_UNREAD: usize = 256 * 1024;

/// `{"session": "..."}` and blanks.
const MAX_BODY: usize = 4096;

/// A client's event that asked for a later end.
pub struct Asked {
    request: Request,
    /// Whether it may.
    paced: bool,
}

impl Asked {
    /// Reads a message of the client behind the Engine.IO type `4`; `None`: it is for the backend.
    pub fn of(context: &Context, entry: &Entry, text: &str) -> Option<Self> {
        let request = context.refresh.as_ref()?.request(text, &context.rules.sources)?;
        Some(Self { request, paced: entry.may_refresh(now()) })
    }

    /// Whether the session has to end for how it asks.
    pub fn is_unfit(&self) -> bool {
        self.request.unfit
    }

    /// The token to verify.
    ///
    /// # Errors
    /// Why none is looked at.
    pub fn token(&self, context: &Context) -> Result<SecretString, Reason> {
        let token = match &self.request.token {
            _ if !self.paced => Err(Reason::RateLimited),
            Some(token) => Ok(token.clone()),
            None => Err(Reason::CredentialMalformed),
        };
        token.inspect_err(|reason| context.metrics.refuse(reason.word()))
    }

    /// The acknowledgement, where one is waited for.
    pub fn answer(&self, outcome: Result<Granted, Reason>) -> Option<String> {
        self.request.answer(outcome)
    }
}

/// Moves the session's end, where the token says so.
///
/// # Errors
/// Why it is where it was.
pub fn settle(
    context: &Context,
    entry: &Arc<Entry>,
    client: IpAddr,
    answer: Result<Arc<Identity>, Refusal>,
) -> Result<Granted, Reason> {
    let session = entry.name();
    let outcome = match answer {
        Ok(identity) => context.refresh(entry, &identity).map_err(|reason| (reason, String::new())),
        Err(refusal) => Err((refusal.reason, refusal.detail)),
    };
    match outcome {
        Ok(granted) => {
            context.metrics.refreshed.inc();
            tracing::debug!(session, %client, expires_in = granted.expires_in, "session refreshed");
            if context.refresh.as_ref().is_some_and(|names| names.notice.is_some()) {
                entry.call(NOTICE);
            }
            Ok(granted)
        }
        Err((reason, detail)) => {
            context.metrics.refuse(reason.word());
            tracing::info!(session, %client, reason = reason.word(), detail, "refresh refused");
            Err(reason)
        }
    }
}

/// What the client is told of its end.
pub fn warnings(context: &Context, entry: &Entry, admission: &Admission) -> Vec<String> {
    let (Some(names), Some((_, left))) = (&context.refresh, entry.ends(now())) else { return Vec::new() };
    names.warnings(admission.joined(), left)
}

/// What the backend is told of a new end.
pub fn notices(context: &Context, entry: &Entry, admission: &Admission) -> Vec<String> {
    let (Some(names), Some((at, _))) = (&context.refresh, entry.ends(now())) else { return Vec::new() };
    names.notices(admission.joined(), at)
}

/// `POST /.siogate/refresh`: the token where a request may carry one, the session by its Engine.IO id, which is a
/// secret of its client.
pub async fn over_http(context: &Context, peer: &Peer, request: http::Request<Inbound>) -> Answer {
    let client = peer.forwarded.client;
    if request.method() != Method::POST {
        let mut answer = own(refusal::json(StatusCode::METHOD_NOT_ALLOWED, r#"{"message":"only POST"}"#.into()));
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        return answer;
    }
    let raw = request.uri().query().unwrap_or_default();
    let found = context.rules.sources.in_request(request.headers(), |name| values(raw, name));
    let (token, source) = match found {
        Found::Token { token, source, .. } => (token, source),
        Found::None => return refuse(context, Reason::CredentialMissing),
        Found::Malformed { .. } => return refuse(context, Reason::CredentialMalformed),
    };
    let shown = context.asked(request.method(), PATH, request.headers(), peer);
    let collected = Limited::new(request.into_body(), MAX_BODY).collect();
    let body = match timeout(context.config.limits.body_timeout, collected).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return closing(refuse(context, Reason::PayloadTooLarge));
        }
        _ => return closing(own(refusal::too_slow())),
    };
    let body = std::str::from_utf8(&body).ok().and_then(|text| json::object(text.trim()).ok());
    let Some(sid) = body.as_ref().and_then(|body| body.get("session")).and_then(|sid| sid.as_str()) else {
        return own(refusal::bad_request("the body is not {\"session\": \"<Engine.IO session id>\"}"));
    };
    let Some(entry) = context.registry.find(sid).filter(|entry| entry.user().is_some()) else {
        if !context.may_guess(client) {
            return refuse(context, Reason::RateLimited);
        }
        // No word of the closed list: nothing was refused. Engine.IO has a number for it.
        let unknown = EngineError::UnknownSid;
        let body = serde_json::json!({"ok": false, "code": unknown.code(), "message": unknown.message()});
        return own(refusal::json(StatusCode::NOT_FOUND, body.to_string()));
    };
    if !entry.may_refresh(now()) {
        return refuse(context, Reason::RateLimited);
    }
    let token = token.expose_secret();
    let answer = context.identify(source, token, &fingerprint(token), shown.as_ref()).await;
    match settle(context, &entry, client, answer) {
        Ok(granted) => own(refusal::json(StatusCode::OK, said(Ok(granted)).to_string())),
        Err(reason) => own(refused(reason)),
    }
}

fn refuse(context: &Context, reason: Reason) -> Answer {
    context.metrics.refuse(reason.word());
    own(refused(reason))
}

fn refused(reason: Reason) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let like = refusal::response(reason);
    let mut response = refusal::json(like.status(), said(Err(reason)).to_string());
    for name in [header::WWW_AUTHENTICATE, header::RETRY_AFTER] {
        if let Some(value) = like.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if reason == Reason::RateLimited {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
