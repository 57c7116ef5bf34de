//! What the engines answer with.

use crate::proxy::context::Context;
use crate::proxy::headers::Peer;
use crate::proxy::refusal;
use crate::reason::Reason;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

/// An answer's body: the gate's own, or a backend's as it comes.
pub type Body = Either<Full<Bytes>, Incoming>;

/// Why a body breaks off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body: as it comes, or whole.
pub type Inbound = Either<Incoming, Full<Bytes>>;

/// What the gate answers.
pub type Answer = Response<Body>;

/// Nothing more is read from this connection: after a refused upgrade the client may speak anything.
pub fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer of the gate's own.
pub fn own(response: Response<Full<Bytes>>) -> Answer {
    response.map(Either::Left)
}

/// 404, for paths that nobody serves.
pub fn not_found() -> Response<Full<Bytes>> {
    refusal::json(StatusCode::NOT_FOUND, r#"{"message":"not found"}"#.into())
}

/// The word in an answer of other engines, for the log of a refusal.
pub fn refuse(context: &Context, peer: &Peer, reason: Reason, detail: &str) -> Answer {
    context.metrics.refuse(reason.word());
    tracing::info!(client = %peer.forwarded.client, reason = reason.word(), detail, "request refused");
    own(refusal::response(reason))
}
