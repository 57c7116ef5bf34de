//! A client's wish to leave HTTP for a WebSocket.

use crate::proxy::refusal;
use crate::proxy::reply::{Answer, Inbound, own};
use crate::upstream::answer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;

/// A WebSocket handshake of a client, checked (RFC 6455 section 4.2.1).
pub struct Upgrade {
    accept: HeaderValue,
}

impl Upgrade {
    /// The 101 that accepts it.
    pub fn accept(&self) -> Answer {
        let mut response = own(Response::new(Full::default()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        response
    }
}

/// Checks a WebSocket handshake; `None` where the request asks for no upgrade at all.
///
/// # Errors
/// 400, or 426 for another version than 13 (RFC 6455 section 4.4).
pub fn wanted(request: &Request<Inbound>) -> Result<Option<Upgrade>, Box<Response<Full<Bytes>>>> {
    let headers = request.headers();
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    let Some(wanted) = upgrades.next() else { return Ok(None) };
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let asks = connection.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let length = headers.get(header::CONTENT_LENGTH);
    let form = upgrades.next().is_none()
        && wanted.as_bytes().eq_ignore_ascii_case(b"websocket")
        && asks
        && request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && length.is_none_or(|l| l == "0");
    if !form {
        return Err(Box::new(refusal::bad_request("not a WebSocket handshake")));
    }
    if single(headers, "sec-websocket-version") != Some(b"13") {
        let mut response = refusal::bad_request("unsupported WebSocket version");
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    let accept = single(headers, "sec-websocket-key").and_then(accept);
    let accept = accept.ok_or_else(|| Box::new(refusal::bad_request("bad Sec-WebSocket-Key")))?;
    Ok(Some(Upgrade { accept }))
}

/// The answer to a key; `None`: it is not 16 bytes in base64.
fn accept(key: &[u8]) -> Option<HeaderValue> {
    let mut nonce = [0; 18];
    let key: &[u8; 24] = key.try_into().ok()?;
    let fits = STANDARD.decode_slice(key, &mut nonce) == Ok(16);
    HeaderValue::from_bytes(&answer::accept_for(key)).ok().filter(|_| fits)
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}
