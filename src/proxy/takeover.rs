//! What becomes of a connection after its 101: the engine that accepted the upgrade leaves a
//! continuation in its answer, and the door that owns the socket starts it.
//!
//! So engines know nothing of how the request was read, and the 101 can leave together with the first
//! frames.

use crate::stream::Stream;
use bytes::Bytes;
use http::Response;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

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

type Start = Box<dyn FnOnce(Switched) -> Running + Send>;

/// A continuation that can be started once. Dropped unstarted, it ends the session.
#[derive(Clone)]
pub struct Takeover(Arc<Mutex<Option<Start>>>);

impl Takeover {
    /// Leaves a continuation in an answer.
    pub fn leave<B, F>(answer: &mut Response<B>, start: impl FnOnce(Switched) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start: Start = Box::new(|switched| Box::pin(start(switched)));
        answer.extensions_mut().insert(Takeover(Arc::new(Mutex::new(Some(start)))));
    }

    /// Takes the continuation out of an answer.
    pub fn take<B>(answer: &mut Response<B>) -> Option<Takeover> {
        answer.extensions_mut().remove::<Takeover>()
    }

    /// Starts it.
    pub fn start(self, switched: Switched) -> Option<Running> {
        let start = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        start.map(|start| start(switched))
    }
}
