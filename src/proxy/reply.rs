//! What the engines answer with.

use crate::proxy::context::Context;
use crate::proxy::headers::Peer;
use crate::proxy::refusal;
use crate::proxy::takeover::Takeover;
use crate::reason::Reason;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context as Task, Poll};

/// An answer's body.
pub enum Body {
    /// The gate's own.
    Own(Full<Bytes>),
    /// A backend's, as it comes.
    Backend(Incoming),
    /// None: the connection leaves HTTP, and becomes this.
    Switch(Takeover),
}

impl Default for Body {
    fn default() -> Self {
        Body::Own(Full::default())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Body::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Body::Backend(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Body::Switch(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Own(body) => body.is_end_stream(),
            Body::Backend(body) => body.is_end_stream(),
            Body::Switch(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Own(body) => body.size_hint(),
            Body::Backend(body) => body.size_hint(),
            Body::Switch(_) => SizeHint::with_exact(0),
        }
    }
}

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
    response.map(Body::Own)
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
