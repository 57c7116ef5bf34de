//! Learns a backend's timings by a handshake of our own: at start, and whenever a backend that failed answers again.

use crate::stream::Stream;
use crate::upstream::dial::{self, DialError};
use crate::upstream::head::DialHead;
use crate::upstream::pool::{Backend, Pool};
use crate::upstream::timings::Timings;
use bytes::BytesMut;
use futures_util::future::join_all;
use http::{HeaderValue, header};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// An OPEN is a hundred bytes.
const MAX_OPEN: usize = 4096;
/// 1 s, 2 s, 4 s, … for a backend that cannot be reached.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// For one that is there but does not like us, such as one that wants a credential: it will hardly change its mind.
const LAST_RETRY_REFUSED: Duration = Duration::from_secs(300);

/// The running probe; ends when dropped.
#[derive(Debug)]
pub struct Probe(#[expect(dead_code, reason = "held for its drop")] AbortOnDropHandle<()>);

/// The OPEN packet, as far as we need it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    ping_interval: u64,
    ping_timeout: u64,
    max_payload: Option<u64>,
}

impl Probe {
    /// Starts. `path` is `socketio.path`, `patience` bounds each handshake.
    #[must_use]
    pub fn start(pool: Pool, path: &str, timings: Timings, patience: Duration) -> Self {
        let mut head = DialHead::new(&format!("{path}?EIO=4&transport=websocket"));
        let agent = HeaderValue::from_static(concat!("siogate/", env!("CARGO_PKG_VERSION")));
        head.add(&header::USER_AGENT, &agent);
        Self(AbortOnDropHandle::new(tokio::spawn(run(pool, head, timings, patience))))
    }
}

async fn run(pool: Pool, head: DialHead, timings: Timings, patience: Duration) {
    // Whom to ask, and how often that has failed.
    let mut pending: Vec<(Arc<Backend>, u32)> = pool.backends().iter().map(|b| (Arc::clone(b), 0)).collect();
    loop {
        let attempts = pending.iter().map(|(backend, _)| once(&pool, backend, &head, patience));
        let outcomes = join_all(attempts).await;
        let mut pause = LAST_RETRY_REFUSED;
        let mut left = Vec::new();
        for ((backend, failures), outcome) in pending.into_iter().zip(outcomes) {
            match outcome {
                Ok(open) => timings.learn(open.ping_interval, open.ping_timeout, open.max_payload),
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(backend = %backend.url, %error, "the backend's timings are not known yet");
                    }
                    pause = pause.min(retry(&error, failures));
                    left.push((backend, failures.saturating_add(1)));
                }
            }
        }
        if left.is_empty() {
            pool.wait_for_failure().await;
        } else {
            tokio::select! {
                () = sleep(pause) => {}
                // Somebody else fell over: no need to wait for it, but never in a tight loop either.
                () = async { pool.wait_for_failure().await; sleep(FIRST_RETRY).await; } => {}
            }
        }
        for backend in pool.backends().iter().filter(|b| b.is_failing()) {
            if !left.iter().any(|(known, _)| known.id == backend.id) {
                left.push((Arc::clone(backend), 0));
            }
        }
        pending = left;
    }
}

fn retry(error: &DialError, failures: u32) -> Duration {
    let last = match error {
        DialError::Unavailable { .. } => LAST_RETRY,
        DialError::Refused { .. } | DialError::Invalid { .. } => LAST_RETRY_REFUSED,
    };
    FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures)).min(last)
}

async fn once(pool: &Pool, backend: &Arc<Backend>, head: &DialHead, patience: Duration) -> Result<Open, DialError> {
    let now = Instant::now();
    let deadline = now.checked_add(patience).unwrap_or(now);
    let dialed = dial::websocket_at(pool, backend, head, deadline, deadline).await?;
    let mut stream = dialed.stream;
    let read = timeout_at(deadline, open(&mut stream, dialed.leftover)).await;
    // A Close of no words, masked with zeros as a client must mask; then the connection goes.
    let bye = async {
        let _ = stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await;
        let _ = stream.shutdown().await;
    };
    let _ = timeout_at(deadline, bye).await;
    let open = read.map_err(|_| DialError::Invalid { detail: "no OPEN in time".into() })?;
    open.map_err(|detail| DialError::Invalid { detail: detail.into() })
}

/// The first message of the backend.
async fn open(stream: &mut Stream, mut bytes: BytesMut) -> Result<Open, &'static str> {
    loop {
        match text_frame(&bytes)? {
            Some(text) => return parse(text),
            None => {
                if bytes.len() > MAX_OPEN || stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return Err("closed before its OPEN");
                }
            }
        }
    }
}

fn parse(text: &[u8]) -> Result<Open, &'static str> {
    let json = text.strip_prefix(b"0").ok_or("the first packet is not an OPEN")?;
    serde_json::from_slice(json).map_err(|_| "an OPEN that cannot be read")
}

/// The payload of a whole, unfragmented, unmasked text frame at the beginning.
fn text_frame(bytes: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if first != 0x81 || second & 0x80 != 0 {
        return Err("the first frame is not a plain text message");
    }
    let (length, rest) = match (second, rest) {
        (126, &[a, b, ref rest @ ..]) => (usize::from(u16::from_be_bytes([a, b])), rest),
        (126, _) => return Ok(None),
        (127, _) => return Err("the first message is too long"),
        (length, rest) => (usize::from(length), rest),
    };
    if length > MAX_OPEN {
        return Err("the first message is too long");
    }
    Ok(rest.get(..length))
}

#[cfg(test)]
mod tests;
