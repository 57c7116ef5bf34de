//! One fresh WebSocket connection to a backend. We write the request ourselves and believe the answer only when it is flawless.

use crate::random;
use crate::stream::Stream;
use crate::upstream::answer::{self, Answer, Framing};
use crate::upstream::connect;
use crate::upstream::head::DialHead;
use crate::upstream::pool::{Backend, Pool};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::HeaderMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// Answers before the answer: more of them and the backend is playing.
const MAX_INTERIM: usize = 8;
/// So much of a refusal's body is kept for the operator.
const MAX_REFUSAL: usize = 1024;
/// A 101 and the OPEN behind it fit.
const ANSWER: usize = 1024;
/// So long is waited for the body of a refusal.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(500);

/// An open tunnel.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub stream: Stream,
    /// WebSocket bytes that came with the answer.
    pub leftover: BytesMut,
    /// The subprotocol chosen.
    pub protocol: Option<String>,
    /// The answer's headers that are not about this connection, such as `set-cookie`; `None`: most have none.
    pub headers: Option<Box<HeaderMap>>,
    /// `id` of the backend.
    pub backend: usize,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No backend could be reached or has answered in time.
    #[error("no backend answers: {detail}")]
    Unavailable {
        /// For the operator.
        detail: String,
    },
    /// A backend said no.
    #[error("the backend answered {status}")]
    Refused {
        /// The status, never 1xx.
        status: u16,
        /// The beginning of the body, at most 1 KiB.
        body: Vec<u8>,
        /// For the operator.
        detail: String,
    },
    /// A backend's answer must not be believed, or the request cannot be sent.
    #[error("{detail}")]
    Invalid {
        /// For the operator.
        detail: String,
    },
}

/// Opens a WebSocket at the first backend that can be reached, before `deadline`.
/// Connections that fail go to the next backend; an answer, whatever it is, is final.
///
/// # Errors
/// See [`DialError`].
pub async fn websocket(pool: &Pool, head: &DialHead, deadline: Instant) -> Result<Dialed, DialError> {
    let mut now = Instant::now();
    let candidates = pool.candidates(now);
    let mut last = String::new();
    for (i, backend) in candidates.iter().enumerate() {
        // A backend that swallows packets gets its share of the time, not all of it.
        let connected_by = connect::share(now, deadline, candidates.len().saturating_sub(i));
        match websocket_at(pool, backend, head, connected_by, deadline).await {
            Err(DialError::Unavailable { detail }) => {
                tracing::debug!(backend = %backend.url, %detail, "dial failed");
                last = format!("{}: {detail}", backend.url);
            }
            other => return other,
        }
        now = Instant::now();
        if now >= deadline {
            break;
        }
    }
    Err(DialError::Unavailable { detail: last })
}

/// The same at one backend; its health is reported to the pool.
///
/// # Errors
/// See [`DialError`].
pub async fn websocket_at(
    pool: &Pool,
    backend: &Arc<Backend>,
    head: &DialHead,
    connected_by: Instant,
    deadline: Instant,
) -> Result<Dialed, DialError> {
    let key = key()?;
    let request = head.request(&backend.host, &key).ok_or_else(|| invalid("the path cannot be sent"))?;
    let exchange = async {
        let (stream, said) = backend.endpoint.open(connected_by, &request).await.map_err(unavailable)?;
        let dialog = Dialog { stream, buffer: BytesMut::new(), deadline };
        dialog.run(request.get(said..).unwrap_or_default(), &answer::accept_for(&key), head.offered()).await
    };
    let result = exchange.await;
    match &result {
        Ok(_) | Err(DialError::Refused { .. }) => pool.succeeded(backend),
        Err(DialError::Unavailable { .. }) => pool.failed(backend, Instant::now()),
        Err(DialError::Invalid { .. }) => {}
    }
    result.map(|opened| Dialed { backend: backend.id, ..opened })
}

/// A connection on which the answer is awaited.
struct Dialog {
    stream: Stream,
    buffer: BytesMut,
    deadline: Instant,
}

impl Dialog {
    /// Says the rest of the request and hears the answer.
    async fn run(mut self, rest: &[u8], accept: &[u8], offered: &[String]) -> Result<Dialed, DialError> {
        let dialog = timeout_at(self.deadline, async {
            if !rest.is_empty() {
                self.stream.write_all(rest).await.map_err(unavailable)?;
                self.stream.flush().await.map_err(unavailable)?;
            }
            self.buffer.reserve(ANSWER);
            self.head(accept, offered).await
        });
        let head = dialog.await;
        match head.map_err(|_| late())?? {
            Answer::Switched { len, protocol, headers } => {
                let _ = self.buffer.split_to(len.min(self.buffer.len()));
                let leftover = if self.buffer.is_empty() { BytesMut::new() } else { self.buffer };
                Ok(Dialed { stream: self.stream, leftover, protocol, headers, backend: 0 })
            }
            Answer::Refused { status, len, body } => {
                let _ = self.buffer.split_to(len.min(self.buffer.len()));
                let body = self.refusal(body).await;
                let detail = format!("{status} {}", String::from_utf8_lossy(&body).escape_debug());
                Err(DialError::Refused { status, body, detail })
            }
            Answer::Incomplete | Answer::Interim { .. } => Err(invalid("too many interim answers")),
        }
    }

    /// Reads until there is an answer that is not an interim one.
    async fn head(&mut self, accept: &[u8], offered: &[String]) -> Result<Answer, DialError> {
        let mut answered = false;
        let mut interim = 0_usize;
        loop {
            match answer::read(&self.buffer, accept, offered).map_err(|e| invalid(e.0))? {
                Answer::Incomplete => {
                    let n = match self.stream.read_buf(&mut self.buffer).await {
                        Ok(n) => n,
                        Err(error) if !answered => return Err(unavailable(error)),
                        Err(_) => 0,
                    };
                    // Nothing at all was said: as if it had not been there. Half an answer is no reason to ask another.
                    match (n, answered) {
                        (0, false) => return Err(DialError::Unavailable { detail: "closed without an answer".into() }),
                        (0, true) => return Err(invalid("closed in the middle of its answer")),
                        _ => answered = true,
                    }
                }
                Answer::Interim { len } if interim < MAX_INTERIM => {
                    let _ = self.buffer.split_to(len.min(self.buffer.len()));
                    interim = interim.saturating_add(1);
                }
                answer => return Ok(answer),
            }
        }
    }

    /// The beginning of a refusal's body, without waiting long for it. The connection is closed afterwards.
    async fn refusal(&mut self, framing: Framing) -> Vec<u8> {
        let patience = Instant::now().checked_add(REFUSAL_PATIENCE).unwrap_or(self.deadline).min(self.deadline);
        let gather = async {
            while self.buffer.len() < MAX_REFUSAL && !answer::is_whole(&self.buffer, framing) {
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        let _ = timeout_at(patience, gather).await;
        let mut body = answer::content(&self.buffer, framing);
        body.truncate(MAX_REFUSAL);
        body
    }
}

fn unavailable(error: std::io::Error) -> DialError {
    DialError::Unavailable { detail: error.to_string() }
}

fn late() -> DialError {
    DialError::Unavailable { detail: "no answer in time".into() }
}

fn invalid(detail: &str) -> DialError {
    DialError::Invalid { detail: detail.to_string() }
}

/// A `Sec-WebSocket-Key`: 16 random bytes in base64.
fn key() -> Result<[u8; 24], DialError> {
    let mut nonce = [0; 16];
    random::fill(&mut nonce).map_err(|_| invalid("no random numbers"))?;
    let mut key = [0; 24];
    STANDARD.encode_slice(nonce, &mut key).map_err(|_| invalid("no key"))?;
    Ok(key)
}

#[cfg(test)]
mod tests;
