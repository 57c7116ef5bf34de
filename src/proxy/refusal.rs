//! The one table from a reason to what a peer sees: HTTP status, Engine.IO error body, close code.

use crate::gate::ending::Ending;
use crate::protocol::handshake::EngineError;
use crate::reason::Reason;
use crate::upstream::dial::DialError;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

/// What a refused request is answered with.
pub fn status(reason: Reason) -> StatusCode {
    use Reason as R;
    match reason {
        R::CredentialMissing
        | R::CredentialMalformed
        | R::TokenExpired
        | R::TokenNotYetValid
        | R::SignatureInvalid
        | R::KeyUnknown
        | R::AlgorithmNotAllowed
        | R::IssuerUnknown
        | R::AudienceMismatch
        | R::ClaimRejected
        | R::Revoked
        | R::LoggedOut
        | R::Kicked
        | R::MaxSession => StatusCode::UNAUTHORIZED,
        R::SubjectMismatch | R::OriginNotAllowed | R::NamespaceForbidden | R::EventForbidden => StatusCode::FORBIDDEN,
        R::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        R::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        R::ProtocolError | R::Idle | R::ConnectTimeout => StatusCode::BAD_REQUEST,
        R::UpstreamRefused => StatusCode::BAD_GATEWAY,
        R::KeysUnavailable | R::TooManyConnections | R::UpstreamUnavailable | R::Draining => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// The word for a dial that failed.
pub fn dial_reason(error: &DialError) -> Reason {
    match error {
        DialError::Unavailable { .. } => Reason::UpstreamUnavailable,
        DialError::Refused { .. } | DialError::Invalid { .. } => Reason::UpstreamRefused,
    }
}

/// The WebSocket close code (RFC 6455 section 7.4; 44xx and 45xx mirror the HTTP status).
pub fn close_code(reason: Reason) -> u16 {
    match reason {
        Reason::PayloadTooLarge => 1009,
        Reason::ProtocolError => 1002,
        // "Service restart": stock clients come back, and reach the next instance.
        Reason::Draining => 1012,
        other => match status(other) {
            StatusCode::UNAUTHORIZED => 4401,
            StatusCode::FORBIDDEN => 4403,
            StatusCode::TOO_MANY_REQUESTS => 4429,
            StatusCode::BAD_GATEWAY => 4502,
            StatusCode::SERVICE_UNAVAILABLE => 4503,
            _ => 4400,
        },
    }
}

/// The close code and text for an ending.
pub fn close(ending: Ending) -> (u16, &'static str) {
    match ending {
        Ending::Gate(reason) => (close_code(reason), reason.word()),
        Ending::Client | Ending::Upstream => (1001, ""),
    }
}

/// A refusal as Engine.IO clients expect it: `{"code":4,"message":...}` and, for those who read
/// headers, RFC 6750.
pub fn response(reason: Reason) -> Response<Full<Bytes>> {
    let status = status(reason);
    let body = format!(r#"{{"code":4,"message":"{}","reason":"{}"}}"#, reason.message(), reason.word());
    let mut response = json(status, body);
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750 section 3.1: no error code where no credential was sent.
        let challenge = match reason {
            Reason::CredentialMissing => r#"Bearer realm="siogate""#,
            Reason::CredentialMalformed => r#"Bearer realm="siogate", error="invalid_request""#,
            _ => r#"Bearer realm="siogate", error="invalid_token""#,
        };
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// An Engine.IO error, as a Node server answers it.
pub fn engine_error(error: EngineError) -> Response<Full<Bytes>> {
    let status = if error == EngineError::Forbidden { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
    json(status, format!(r#"{{"code":{},"message":"{}"}}"#, error.code(), error.message()))
}

/// The same with a message that says more.
pub fn bad_request(message: &str) -> Response<Full<Bytes>> {
    let message = serde_json::Value::from(message);
    json(StatusCode::BAD_REQUEST, format!(r#"{{"code":3,"message":{message}}}"#))
}

/// A body that does not arrive in time.
pub fn too_slow() -> Response<Full<Bytes>> {
    json(StatusCode::REQUEST_TIMEOUT, r#"{"code":3,"message":"request body took too long"}"#.into())
}

/// What the next request of a session that is over is answered with.
pub fn over(ending: Ending) -> Response<Full<Bytes>> {
    match ending {
        Ending::Gate(reason) => response(reason),
        Ending::Client | Ending::Upstream => engine_error(EngineError::UnknownSid),
    }
}

/// On a WebSocket request engine.io answers errors in this form and closes.
pub fn on_upgrade(refusal: &Response<Full<Bytes>>, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(message.as_bytes())));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    *headers = refusal.headers().clone();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A JSON answer that no cache keeps.
pub fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
