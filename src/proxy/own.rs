//! The gate's own paths on the public door, `/.siogate/...`: what identity providers tell it.
//!
//! Their statements are signed, so neither cookies nor origins matter. Whoever sends what is not believed is
//! listened to less and less; those who are believed may send as much as they like, as one sign-out of many is many.

use crate::auth::statement::Heard;
use crate::auth::verifier::Refusal;
use crate::gate::budget::Budget;
use crate::proxy::context::Context;
use crate::proxy::headers::Peer;
use crate::proxy::refusal;
use crate::proxy::reply::{Answer, Inbound, closing, not_found, own};
use crate::reason::Reason;
use crate::session::revoker::Origin;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const LOGOUT: &str = "/.siogate/backchannel-logout";
const EVENTS: &str = "/.siogate/events";

/// Bytes of a statement's request.
const MAX_BODY: usize = 32 * 1024;

/// Bad statements that one address may send at once, and then one in so long.
const MISTAKES: u32 = 50;
const MISTAKE_EVERY: Duration = Duration::from_millis(500);

/// What is remembered of statements.
pub struct Statements {
    logouts: Heard,
    events: Heard,
    mistakes: Mutex<Budget>,
}

impl Default for Statements {
    fn default() -> Self {
        Self {
            logouts: Heard::default(),
            events: Heard::default(),
            mistakes: Mutex::new(Budget::new(MISTAKES, MISTAKE_EVERY)),
        }
    }
}

impl Statements {
    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.mistakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_speak(&self, client: IpAddr) -> bool {
        !self.budget().is_spent(client, Instant::now())
    }

    fn mistaken(&self, client: IpAddr) {
        let _counted = self.budget().take(client, Instant::now());
    }
}

/// Whether a path is the gate's own, whatever the routes say.
pub fn serves(path: &str) -> bool {
    path == "/.siogate" || path.starts_with("/.siogate/")
}

/// Answers a request for one of them.
pub async fn answer(context: &Context, peer: &Peer, request: Request<Inbound>) -> Answer {
    match request.uri().path() {
        LOGOUT if context.verifier.hears_logouts() => logout(context, peer, request).await,
        EVENTS if context.verifier.hears_events() => events(context, peer, request).await,
        _ => own(not_found()),
    }
}

/// OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8.
async fn logout(context: &Context, peer: &Peer, request: Request<Inbound>) -> Answer {
    let client = peer.forwarded.client;
    let invalid = |refusal: Refusal| {
        if refusal.reason != Reason::KeysUnavailable {
            context.statements.mistaken(client);
        }
        context.metrics.refuse(refusal.reason.word());
        let (reason, detail) = (refusal.reason.word(), refusal.detail);
        tracing::info!(%client, reason, detail, "logout token refused");
        let said = json!({"error": "invalid_request", "error_description": refusal.reason.message()});
        own(refusal::json(StatusCode::BAD_REQUEST, said.to_string()))
    };
    let body = match body(context, peer, request, "application/x-www-form-urlencoded").await {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    let token = match logout_token(&body) {
        Ok(token) => token,
        Err(detail) => return invalid(malformed(detail)),
    };
    let remember = context.config.revocation.remember.as_secs();
    let judge = || context.verifier.logout(&token, remember, context.clock.unix());
    let logout = match judge() {
        Err(Refusal { need_key: Some(need), .. }) => {
            context.keys.want(need.issuer, need.kid.as_deref()).await;
            judge()
        }
        other => other,
    };
    let logout = match logout {
        Ok(logout) => logout,
        Err(refusal) => return invalid(refusal),
    };
    let mut ended = 0;
    // One that is sent again, as providers do where they missed the answer, withdraws nothing more (L02).
    if context.statements.logouts.first(logout.index, &logout.statement, context.clock.unix()) {
        ended = context.revoker.take(&logout.revocations(), Origin::Logout).await.ended;
    }
    tracing::debug!(%client, ended, "logout token taken");
    let mut response = refusal::json(StatusCode::OK, String::new());
    response.headers_mut().remove(header::CONTENT_TYPE);
    own(response)
}

/// Push delivery of security events, RFC 8935.
async fn events(context: &Context, peer: &Peer, request: Request<Inbound>) -> Answer {
    let client = peer.forwarded.client;
    let invalid = |refusal: Refusal| {
        context.metrics.refuse(refusal.reason.word());
        let (reason, detail) = (refusal.reason.word(), refusal.detail);
        tracing::info!(%client, reason, detail, "security event refused");
        if refusal.reason == Reason::KeysUnavailable {
            // Nobody's mistake: it is to be sent again.
            return own(refusal::response(refusal.reason));
        }
        context.statements.mistaken(client);
        let said = json!({"err": event_error(refusal.reason), "description": refusal.reason.message()});
        own(refusal::json(StatusCode::BAD_REQUEST, said.to_string()))
    };
    let bearer = bearer(request.headers());
    let body = match body(context, peer, request, "application/secevent+jwt").await {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    let Ok(token) = std::str::from_utf8(&body) else { return invalid(malformed("the body is not UTF-8")) };
    let remember = context.config.revocation.remember.as_secs();
    let judge = || context.verifier.event(token.trim(), bearer.as_deref(), remember, context.clock.unix());
    let news = match judge() {
        Err(Refusal { need_key: Some(need), .. }) => {
            context.keys.want(need.issuer, need.kid.as_deref()).await;
            judge()
        }
        other => other,
    };
    let news = match news {
        Ok(news) => news,
        Err(refusal) => return invalid(refusal),
    };
    let mut ended = 0;
    if context.statements.events.first(news.index, &news.statement, context.clock.unix()) {
        ended = context.revoker.take(&news.revocations, Origin::Events).await.ended;
    }
    tracing::debug!(%client, withdrawn = news.revocations.len(), ended, "security event taken");
    let mut response = refusal::json(StatusCode::ACCEPTED, String::new());
    response.headers_mut().remove(header::CONTENT_TYPE);
    own(response)
}

/// RFC 8935 section 2.4.
fn event_error(reason: Reason) -> &'static str {
    match reason {
        Reason::IssuerUnknown => "invalid_issuer",
        Reason::AudienceMismatch => "invalid_audience",
        Reason::KeyUnknown | Reason::SignatureInvalid | Reason::AlgorithmNotAllowed => "invalid_key",
        Reason::CredentialMissing => "authentication_failed",
        _ => "invalid_request",
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal { reason: Reason::CredentialMalformed, detail: detail.into(), need_key: None }
}

/// The only `logout_token` of a form; other fields are not looked at.
fn logout_token(body: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "the form is not UTF-8")?;
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut tokens = pairs.filter(|(name, _)| decode(name) == "logout_token").map(|(_, value)| decode(value));
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => Ok(token),
        (None, _) => Err("the form has no logout_token"),
        (Some(_), Some(_)) => Err("the form has more than one logout_token"),
    }
}

/// The body of a POST of this type, from somebody who has not made too many mistakes.
async fn body(context: &Context, peer: &Peer, request: Request<Inbound>, kind: &str) -> Result<Bytes, Box<Answer>> {
    let client = peer.forwarded.client;
    let refuse = |status, said: &str| {
        context.statements.mistaken(client);
        // In the words of OAuth and of RFC 8935.
        let word = "invalid_request";
        let said = json!({"error": word, "error_description": said, "err": word, "description": said});
        Box::new(own(refusal::json(status, said.to_string())))
    };
    if request.method() != Method::POST {
        let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Err(answer);
    }
    if !context.statements.may_speak(client) {
        context.metrics.refuse(Reason::RateLimited.word());
        return Err(Box::new(closing(own(slower()))));
    }
    if !is_kind(request.headers(), kind) {
        return Err(refuse(StatusCode::BAD_REQUEST, &format!("content-type is not {kind}")));
    }
    let collected = Limited::new(request.into_body(), MAX_BODY).collect();
    match timeout(context.config.limits.body_timeout, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Box::new(closing(*refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))))
        }
        _ => Err(Box::new(closing(*refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive")))),
    }
}

fn slower() -> Response<Full<Bytes>> {
    let mut response = refusal::response(Reason::RateLimited);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn is_kind(headers: &HeaderMap, kind: &str) -> bool {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let value = value.to_str().ok().and_then(|value| value.split(';').next()).unwrap_or_default();
    value.trim().eq_ignore_ascii_case(kind)
}
