//! `/healthz`, `/readyz`, `/metrics`; and `/api/`, which is [`api`]'s.

use crate::admin::api;
use crate::admin::readiness::Readiness;
use crate::admin::revocations::Scope;
use crate::session::clock::Clock;
use crate::session::revoker::Revoker;
use crate::telemetry::metrics::{IssuerKeys, Metrics};
use aws_lc_rs::constant_time;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

/// What the private door knows.
pub struct Admin {
    /// Is it ready?
    pub readiness: Readiness,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Withdraws rights.
    pub revoker: Arc<Revoker>,
    /// Which.
    pub scope: Scope,
    /// The time.
    pub clock: Clock,
    /// The bearer token; `None`: none is asked for.
    pub token: Option<SecretString>,
    /// The door is on loopback: a page in a browser on this machine must not reach it under a foreign name.
    pub loopback: bool,
}

/// Answers one request.
pub async fn answer<B>(admin: &Admin, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if admin.loopback && !is_own_host(request.headers()) {
        return text(StatusCode::MISDIRECTED_REQUEST, "this listener is reached by its loopback address\n");
    }
    // Orchestrators probe these two without a token, and learn nothing else.
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => return text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => return ready(admin),
        _ => {}
    }
    if !is_authorized(admin, request.headers()) {
        let mut response = text(StatusCode::UNAUTHORIZED, "a bearer token is needed\n");
        let challenge = HeaderValue::from_static("Bearer realm=\"siogate admin\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => metrics(admin),
        (_, "/metrics" | "/healthz" | "/readyz") => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        (_, path) if path.starts_with("/api/") => api::answer(admin, request).await,
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn ready(admin: &Admin) -> Response<Full<Bytes>> {
    let (missing, ailing) = (admin.readiness.missing(), admin.readiness.ailing());
    let (status, first) = match missing.as_slice() {
        [] => (StatusCode::OK, ["ready"].as_slice()),
        missing => (StatusCode::SERVICE_UNAVAILABLE, missing),
    };
    text(status, &format!("{}\n", [first, &ailing].concat().join("\n")))
}

fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let (metrics, readiness) = (&admin.metrics, &admin.readiness);
    metrics.sessions.set(gauge(readiness.registry.len()));
    metrics.revocations.set(gauge(admin.revoker.table().len()));
    metrics.unauthenticated.set(gauge(readiness.registry.unauthenticated()));
    for status in readiness.keys.status() {
        let age = status.age.map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        metrics.key_age.get_or_create(&IssuerKeys { issuer: status.name }).set(age);
    }
    match metrics.render() {
        Ok(body) => {
            let mut response = text(StatusCode::OK, &body);
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written\n"),
    }
}

fn is_authorized(admin: &Admin, headers: &HeaderMap) -> bool {
    let Some(token) = &admin.token else { return true };
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, credential)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else { return false };
    scheme.eq_ignore_ascii_case("bearer")
        && constant_time::verify_slices_are_equal(credential.as_bytes(), token.expose_secret().as_bytes()).is_ok()
}

fn is_own_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
