//! The public door's one service: judges a request's form, then chooses the engine for it.

use crate::protocol::forwarded;
use crate::protocol::origin::Decision;
use crate::protocol::target::{self, Place};
use crate::proxy::context::Context;
use crate::proxy::headers::Peer;
use crate::proxy::http as plain;
use crate::proxy::own as gate_own;
use crate::proxy::reply::{Answer, Inbound, closing, not_found, own};
use crate::proxy::{polling, refresh, refusal};
use crate::reason::Reason;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use std::net::IpAddr;
use std::sync::Arc;

/// The longest request target, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// Where backends and auditors find the key of the signed assertion.
const ASSERTION_KEYS: &str = "/.well-known/siogate/jwks.json";

/// One connection of the public door.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: IpAddr,
}

/// Answers one request.
///
/// The request is boxed: it goes through several engines, whose futures would each hold it whole.
pub async fn handle(context: Arc<Context>, connection: Connection, request: Box<Request<Inbound>>) -> Answer {
    let wants_upgrade = request.headers().contains_key(header::UPGRADE);
    match judge(&context, connection, &request) {
        Ok((peer, place)) => {
            let names = context.rules.sources.query_names();
            let in_query = request.uri().query().is_some_and(|raw| plain::names_any(raw, names));
            let mut answer = dispatch(&context, &peer, place, request).await;
            if in_query {
                keep_to_yourself(answer.headers_mut());
            }
            let refused = wants_upgrade && answer.status() != StatusCode::SWITCHING_PROTOCOLS;
            if refused { closing(answer) } else { answer }
        }
        // What is malformed may be half of something else.
        Err(answer) => closing(own(*answer)),
    }
}

/// The target holds a credential: no cache may keep the answer, no page may name it as where it came from
/// (RFC 6750 section 2.3, RFC 9700 section 4.3.2).
fn keep_to_yourself(headers: &mut HeaderMap) {
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

async fn dispatch(context: &Arc<Context>, peer: &Peer, place: Place, request: Box<Request<Inbound>>) -> Answer {
    match place {
        _ if context.refresh.is_some() && request.uri().path() == refresh::PATH => engine(context, peer, request).await,
        _ if gate_own::serves(request.uri().path()) => Box::pin(gate_own::answer(context, peer, *request)).await,
        Place::Engine => engine(context, peer, request).await,
        Place::Bundle => Box::pin(plain::bundle(context, peer, *request)).await,
        Place::Under => own(not_found()),
        Place::Other if request.uri().path() == ASSERTION_KEYS => own(assertion_keys(context)),
        // Boxed, as all but the engine: each request's future would have room for it.
        Place::Other => Box::pin(plain::route(context, peer, *request)).await,
    }
}

/// Checks what hyper leaves to us (RFC 9112 sections 3.2, 6.1; RFC 9110 section 7.2).
fn judge(
    context: &Context,
    connection: Connection,
    request: &Request<Inbound>,
) -> Result<(Peer, Place), Box<Response<Full<Bytes>>>> {
    let refuse = |message: &str| Box::new(refusal::bad_request(message));
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() == Method::CONNECT {
        return Err(refuse("CONNECT is not supported"));
    }
    if uri.path_and_query().map_or(0, |p| p.as_str().len()) > MAX_TARGET {
        return Err(Box::new(refusal::json(StatusCode::URI_TOO_LONG, r#"{"code":3,"message":"URI too long"}"#.into())));
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(refuse("unsupported Transfer-Encoding"));
        }
        if headers.contains_key(header::UPGRADE) || headers.contains_key(header::CONTENT_LENGTH) {
            return Err(refuse("Transfer-Encoding with Upgrade or Content-Length"));
        }
    }
    let authority = target::authority(uri, headers).map_err(|e| refuse(&e.to_string()))?;
    let place = target::classify(uri.path(), &context.config.socketio.path).map_err(|e| refuse(&e.to_string()))?;
    let trusted_proxies = &context.config.server.trusted_proxies;
    let forwarded = forwarded::resolve(connection.peer, trusted_proxies, headers);
    let address = connection.peer.to_canonical();
    let trusted = trusted_proxies.iter().any(|net| net.contains(&address));
    let https = forwarded.proto_https.unwrap_or(context.tls);
    Ok((Peer { address, forwarded, authority, trusted, https }, place))
}

/// A request on the Socket.IO path, or for a refresh.
async fn engine(context: &Arc<Context>, peer: &Peer, request: Box<Request<Inbound>>) -> Answer {
    let own_authority = peer.forwarded.host.as_deref().unwrap_or(&peer.authority);
    let decision = context.origins.judge(request.headers(), own_authority, context.config.socketio.require_origin);
    if decision == Decision::Refused {
        context.metrics.refuse(Reason::OriginNotAllowed.word());
        let origin = request.headers().get(header::ORIGIN).map(|o| String::from_utf8_lossy(o.as_bytes()).into_owned());
        tracing::info!(
            client = %peer.forwarded.client,
            reason = Reason::OriginNotAllowed.word(),
            origin,
            "request refused: see socketio.allowed_origins"
        );
        return own(refusal::response(Reason::OriginNotAllowed));
    }
    let mut answer = if request.method() == Method::OPTIONS {
        preflight(request.headers())
    } else if request.uri().path() == refresh::PATH {
        Box::pin(refresh::over_http(context, peer, *request)).await
    } else {
        polling::engine(context, peer, request).await
    };
    if let Decision::Allowed { acao } = decision {
        allow_origin(answer.headers_mut(), acao);
    }
    answer
}

/// CORS on every answer, refusals included: without it a page could not read the status.
fn allow_origin(headers: &mut HeaderMap, acao: HeaderValue) {
    let any = acao == "*";
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, acao);
    if !any {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// Preflights carry no credential, so they need none.
fn preflight(asked: &HeaderMap) -> Answer {
    let mut response = own(Response::new(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,POST,OPTIONS"));
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

fn assertion_keys(context: &Context) -> Response<Full<Bytes>> {
    match &context.signer {
        Some(signer) => {
            let mut response = refusal::json(StatusCode::OK, signer.jwks());
            let cache = HeaderValue::from_static("public, max-age=300");
            response.headers_mut().insert(header::CACHE_CONTROL, cache);
            response
        }
        None => not_found(),
    }
}
