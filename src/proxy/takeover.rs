//! What becomes of a connection after its 101: the engine that accepted the upgrade leaves a
//! continuation in its answer, and the door that owns the socket starts it.
//!
//! So engines know nothing of how the request was read, and the 101 can leave together with the first
//! frames.

use crate::proxy::reply::{Answer, Body};
use crate::stream::Stream;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// A connection that has left HTTP.
pub struct Switched {
    /// The socket.
    pub stream: Stream,
    /// What the client sent behind its request.
    pub read: Bytes,
    /// The 101, where it has not been written yet: it goes first.
    pub head: Vec<u8>,
}

/// What runs then.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A continuation. Dropped unstarted, it ends the session.
pub struct Takeover(Box<dyn FnOnce(Switched) -> Running + Send>);

impl Takeover {
    /// Leaves a continuation in an answer, which has no body then.
    pub fn leave<F>(answer: &mut Answer, start: impl FnOnce(Switched) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        *answer.body_mut() = Body::Switch(Takeover(Box::new(|switched| Box::pin(start(switched)))));
    }

    /// Takes the continuation out of an answer.
    pub fn take(answer: &mut Answer) -> Option<Takeover> {
        if !matches!(answer.body(), Body::Switch(_)) {
            return None;
        }
        match std::mem::take(answer.body_mut()) {
            Body::Switch(takeover) => Some(takeover),
            Body::Own(_) | Body::Backend(_) => None,
        }
    }

    /// Starts it.
    pub fn start(self, switched: Switched) -> Running {
        (self.0)(switched)
    }
}
