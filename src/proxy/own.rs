//! The gate's own paths on the public door, `/.siogate/...`: what identity providers tell it.
//!
//! Their statements are signed, so neither cookies nor origins matter. Whoever sends what is not believed is
//! listened to less and less; those who are believed may send as much as they like, as one sign-out of many is many.

use crate::auth::revocation::Revocation;
use crate::auth::statement::{Heard, Statement};
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
        LOGOUT if context.verifier.hears_logouts() => receive(context, peer, request, Kind::Logout).await,
        EVENTS if context.verifier.hears_events() => {
            let bearer = bearer(request.headers());
            receive(context, peer, request, Kind::Event(bearer)).await
        }
        _ => own(not_found()),
    }
}

/// A kind of statement, in what it differs from the other.
enum Kind {
    /// OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8.
    Logout,
    /// Push delivery of security events, RFC 8935, with the token that the sender has shown.
    Event(Option<String>),
}

/// A statement that is believed.
struct Told {
    index: usize,
    statement: Statement,
    revocations: Vec<Revocation>,
}

impl Kind {
    fn content_type(&self) -> &'static str {
        match self {
            Self::Logout => "application/x-www-form-urlencoded",
            Self::Event(_) => "application/secevent+jwt",
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Self::Logout => Origin::Logout,
            Self::Event(_) => Origin::Events,
        }
    }

    fn heard<'a>(&self, statements: &'a Statements) -> &'a Heard {
        match self {
            Self::Logout => &statements.logouts,
            Self::Event(_) => &statements.events,
        }
    }

    fn token(&self, body: &[u8]) -> Result<String, &'static str> {
        match self {
            Self::Logout => logout_token(body),
            Self::Event(_) => {
                std::str::from_utf8(body).map(|text| text.trim().to_owned()).map_err(|_| "the body is not UTF-8")
            }
        }
    }

    fn judge(&self, context: &Context, token: &str) -> Result<Told, Refusal> {
        let (remember, now) = (context.config.revocation.remember.as_secs(), context.clock.unix());
        Ok(match self {
            Self::Logout => {
                let logout = context.verifier.logout(token, remember, now)?;
                let revocations = logout.revocations();
                Told { index: logout.index, statement: logout.statement, revocations }
            }
            Self::Event(bearer) => {
                let news = context.verifier.event(token, bearer.as_deref(), remember, now)?;
                Told { index: news.index, statement: news.statement, revocations: news.revocations }
            }
        })
    }

    fn thanks(&self) -> StatusCode {
        match self {
            Self::Logout => StatusCode::OK,
            Self::Event(_) => StatusCode::ACCEPTED,
        }
    }

    fn refusal(&self, reason: Reason) -> Response<Full<Bytes>> {
        let said = match self {
            Self::Logout => json!({"error": "invalid_request", "error_description": reason.message()}),
            // Nobody's mistake: it is to be sent again.
            Self::Event(_) if reason == Reason::KeysUnavailable => return refusal::response(reason),
            Self::Event(_) => {
                let description = match reason {
                    Reason::CredentialMissing => "the bearer token is not the one agreed upon",
                    reason => reason.message(),
                };
                json!({"err": event_error(reason), "description": description})
            }
        };
        refusal::json(StatusCode::BAD_REQUEST, said.to_string())
    }
}

/// Reads, judges and obeys a statement.
async fn receive(context: &Context, peer: &Peer, request: Request<Inbound>, kind: Kind) -> Answer {
    let client = peer.forwarded.client;
    let body = match body(context, peer, request, kind.content_type()).await {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    let told = match kind.token(&body) {
        Ok(token) => match kind.judge(context, &token) {
            Err(Refusal { need_key: Some(need), .. }) => {
                context.keys.want(need.issuer, need.kid.as_deref()).await;
                kind.judge(context, &token)
            }
            other => other,
        },
        Err(detail) => Err(malformed(detail)),
    };
    let Told { index, statement, revocations } = match told {
        Ok(told) => told,
        Err(Refusal { reason, detail, .. }) => {
            if reason != Reason::KeysUnavailable {
                context.statements.mistaken(client);
            }
            context.metrics.refuse(reason.word());
            tracing::info!(%client, origin = kind.origin().word(), reason = reason.word(), detail, "statement refused");
            return own(kind.refusal(reason));
        }
    };
    let mut ended = 0;
    // One that is sent again, as providers do where they missed the answer, withdraws nothing more (L02).
    if kind.heard(&context.statements).first(index, &statement, context.clock.unix()) {
        ended = context.revoker.take(&revocations, kind.origin()).await.ended;
    }
    tracing::debug!(%client, origin = kind.origin().word(), withdrawn = revocations.len(), ended, "statement taken");
    let mut response = refusal::json(kind.thanks(), String::new());
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
