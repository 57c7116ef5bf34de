//! How a relay ends: what is said to whom, and which socket is closed when.
//!
//! Where a close frame went each way the session is over, and the server closes first (RFC 6455 section 7.1.1):
//! towards the client that is the gate. A socket that may still be written to by its peer is not closed at
//! once: the reset might destroy what was just sent.

use crate::gate::ending::Ending;
use crate::protocol::frame::{self, Opcode};
use crate::protocol::scanner::Stop;
use crate::proxy::refusal;
use crate::proxy::relay::Relay;
use crate::proxy::scratch;
use crate::reason::Reason;
use crate::stream::Stream;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A peer that is shown out has so long to take its last frames, and to close.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// A frame that is under way when the session ends has so long to arrive whole, or a packet with its attachments.
pub(super) const LAST_FRAME: Duration = Duration::from_millis(250);

/// What is left to do, where something has to be waited for.
type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Relay {
    /// Leaves the session.
    pub(super) fn leave(mut self, ending: Ending) -> Option<Leaving> {
        self.record.by = ending.by();
        self.record.reason = ending.reason().map_or("", Reason::word);
        self.record.to_upstream += self.up.scanner.messages();
        self.record.to_client += self.down.scanner.messages();
        if let Ending::Gate(reason) = ending {
            return Some(Box::pin(self.cut(reason)));
        }
        let over = self.up.closed() && self.down.closed();
        let (gone, tls) = (self.down.eof, matches!(self.client, Stream::Tls(_)));
        if !over || (gone && !tls) {
            return None;
        }
        let Self { mut client, mut upstream, .. } = self;
        Some(Box::pin(async move {
            if tls {
                let _ = timeout(LAST_WORDS, client.shutdown()).await;
            }
            drop(client);
            // The backend's port stays taken for a minute where its client closes first, and that is us.
            let _ = timeout(LAST_WORDS, poll_fn(|cx| discard(cx, &mut upstream))).await;
        }))
    }

    /// Says the last words to both sides.
    async fn cut(mut self, reason: Reason) {
        self.stay.leave();
        let _ = timeout(LAST_WORDS, self.tell_client(reason)).await;
        if self.up.may_close() {
            let mut out = self.up.pending.split_off(self.up.written);
            frame::encode_close(&mut out, 1001, "", Some(frame::mask_key()));
            let _ = timeout(LAST_WORDS, self.upstream.write_all(&out)).await;
        } else {
            let _ = timeout(LAST_WORDS, self.upstream.shutdown()).await;
        }
        let Self { mut client, mut upstream, .. } = self;
        let _ = timeout(LAST_WORDS, linger(&mut client, &mut upstream)).await;
    }

    async fn tell_client(&mut self, reason: Reason) -> io::Result<()> {
        let ends = matches!(reason, Reason::TokenExpired | Reason::MaxSession);
        let stays_away = ends && self.context.says_goodbye();
        let _ = timeout(LAST_FRAME, self.finish(stays_away)).await;
        let mut out = self.down.pending.split_off(self.down.written);
        if self.down.may_close() {
            let between = self.down.scanner.between_packets();
            if between {
                out.append(&mut self.inject);
            }
            if between && stays_away {
                for packet in self.admission.disconnects() {
                    frame::encode(&mut out, Opcode::Text, packet.as_bytes(), None);
                }
            }
            frame::encode_close(&mut out, refusal::close_code(reason), reason.word(), None);
        }
        let written = self.client.write_last(&out)?;
        self.client.write_all(&out[written..]).await?;
        self.client.flush().await?;
        self.client.shutdown().await
    }

    /// Passes on the rest of the frame that is under way to the client, so that a close frame may follow; where a
    /// DISCONNECT is to follow, the rest of the packet with its attachments. Cancel safe: what is written is counted.
    async fn finish(&mut self, packet: bool) -> io::Result<()> {
        let Self { down, client, upstream, .. } = self;
        let mut buf = Vec::new();
        loop {
            let scanner = &down.scanner;
            if scanner.closing() || if packet { scanner.between_packets() } else { scanner.between_frames() } {
                return Ok(());
            }
            poll_fn(|cx| down.drain(cx, client)).await?;
            // A head byte by byte, so that nothing is read of what follows.
            let want = usize::try_from(down.scanner.left()).unwrap_or(scratch::SIZE).clamp(1, scratch::SIZE);
            buf.resize(want, 0);
            let n = upstream.read(&mut buf[..want]).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            down.carry.extend_from_slice(&buf[..n]);
            let seen = std::mem::take(&mut down.carry);
            let found = down.scanner.scan(&seen);
            down.pending.extend_from_slice(&seen[..found.pass]);
            match found.stop {
                Stop::End => {}
                Stop::Partial | Stop::More => down.carry.extend_from_slice(&seen[found.used..]),
                // A packet of the backend's between another one and its attachments.
                Stop::Message(_) | Stop::Broken(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// Waits until both sides have closed.
async fn linger(client: &mut Stream, upstream: &mut Stream) {
    poll_fn(|cx| {
        let client = discard(cx, client);
        let upstream = discard(cx, upstream);
        if client.is_ready() && upstream.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Reads until the end.
fn discard(cx: &mut Task<'_>, stream: &mut Stream) -> Poll<()> {
    loop {
        match scratch::poll_read(cx, stream, |_| ()) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}
