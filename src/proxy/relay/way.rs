//! One direction of a relay: reads, looks, writes on. It owns no buffer while it waits.

use crate::protocol::frame::FrameError;
use crate::protocol::scanner::{Captured, Scanner, Stop};
use crate::reason::Reason;
use crate::stream::Stream;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// One direction.
pub struct Way {
    pub(super) scanner: Scanner,
    /// Read, but not looked at yet: an incomplete head, or what stands behind a CONNECT that is being judged.
    pub(super) carry: Vec<u8>,
    pub(super) rescan: bool,
    pub(super) waiting: bool,
    /// Looked at, but not written yet.
    pub(super) pending: Vec<u8>,
    pub(super) written: usize,
    pub(super) unflushed: bool,
    /// Runs while the other side takes nothing.
    pub(super) stalled: Option<Pin<Box<Sleep>>>,
    pub(super) patience: Duration,
    /// Something was read since this was last looked at.
    pub(super) heard: bool,
    pub(super) eof: bool,
    pub(super) done: bool,
    /// The other way was closed: this one's close frame is the last thing that is written.
    pub(super) last: bool,
}

pub enum Next {
    Go,
    Wait,
    End(Reason),
}

pub enum Fault {
    Reading,
    Writing,
    Frame(FrameError),
    End(Reason),
}

impl Way {
    pub(super) fn new(scanner: Scanner, carry: Vec<u8>, pending: Vec<u8>, patience: Duration) -> Self {
        let rescan = !carry.is_empty();
        Self {
            scanner,
            // An empty one may still hold the kilobyte that it was read into.
            carry: if rescan { carry } else { Vec::new() },
            rescan,
            waiting: false,
            pending,
            written: 0,
            unflushed: false,
            stalled: None,
            patience,
            heard: false,
            eof: false,
            done: false,
            last: false,
        }
    }

    /// Writes what is pending; fails where the other side takes nothing for too long.
    pub(super) fn drain(&mut self, cx: &mut Task<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        let before = self.written;
        let outcome = self.drain_now(cx, to);
        if outcome.is_ready() || self.written > before {
            self.stalled = None;
        }
        if outcome.is_pending() {
            let patience = self.patience;
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(stalled.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        outcome
    }

    pub(super) fn drain_now(&mut self, cx: &mut Task<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while let Some(rest) = self.pending.get(self.written..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
        }
        if self.written > 0 {
            self.pending = Vec::new();
            self.written = 0;
        }
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Moves bytes until there are none, or no room.
    pub(super) fn pump(
        &mut self,
        cx: &mut Task<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buf: &mut [u8],
        handle: &mut dyn FnMut(Captured, &mut Vec<u8>) -> Next,
    ) -> Poll<Result<(), Fault>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.drain(cx, to)).map_err(|_| Fault::Writing)?;
            if self.waiting {
                return Poll::Pending;
            }
            if self.rescan {
                self.rescan = false;
                let kept = std::mem::take(&mut self.carry);
                self.pass(cx, to, &kept, handle)?;
                continue;
            }
            if self.eof {
                // A close frame has said so already; the other side is the one that closes first.
                if !self.scanner.closed() {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| Fault::Writing)?;
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let kept = self.carry.len();
            buf[..kept].copy_from_slice(&self.carry);
            let mut read = ReadBuf::new(&mut buf[kept..]);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut read)).map_err(|_| Fault::Reading)?;
            let n = read.filled().len();
            if n == 0 {
                self.eof = true;
                continue;
            }
            self.heard = true;
            if kept > 0 {
                self.carry = Vec::new();
            }
            self.pass(cx, to, &buf[..kept + n], handle)?;
        }
    }

    /// Looks at bytes and writes them on; what cannot be written now becomes pending.
    pub(super) fn pass(
        &mut self,
        cx: &mut Task<'_>,
        to: &mut Stream,
        bytes: &[u8],
        handle: &mut dyn FnMut(Captured, &mut Vec<u8>) -> Next,
    ) -> Result<(), Fault> {
        // Bytes [0, direct) are written as they lie; after the first message taken out, all goes by `pending`.
        let (mut at, mut direct) = (0, 0);
        let mut whole = true;
        loop {
            let found = self.scanner.scan(&bytes[at..]);
            if whole {
                direct = at + found.pass;
            } else {
                self.pending.extend_from_slice(&bytes[at..at + found.pass]);
            }
            at += found.used;
            match found.stop {
                Stop::End => break,
                Stop::Partial => {
                    self.carry = bytes[at..].to_vec();
                    break;
                }
                Stop::More | Stop::Message(_) if whole => {
                    whole = false;
                    self.pending.extend_from_slice(&bytes[..direct]);
                    direct = 0;
                }
                _ => {}
            }
            match found.stop {
                Stop::Message(message) => match handle(message, &mut self.pending) {
                    Next::Go => {}
                    Next::Wait => {
                        self.carry = bytes[at..].to_vec();
                        self.waiting = true;
                        self.rescan = true;
                        break;
                    }
                    Next::End(reason) => return Err(Fault::End(reason)),
                },
                Stop::Broken(error) => {
                    // What stands before it was looked at, and may be the rest of a frame.
                    self.pending.extend_from_slice(&bytes[..direct]);
                    return Err(Fault::Frame(error));
                }
                _ => {}
            }
        }
        self.write(cx, to, &bytes[..direct]).map_err(|_| Fault::Writing)
    }

    pub(super) fn write(&mut self, cx: &mut Task<'_>, to: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
        if self.last && self.scanner.closed() {
            bytes = &bytes[to.write_last(bytes)?..];
        }
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => {
                    bytes = &bytes[n..];
                    self.unflushed = true;
                }
                Poll::Pending => {
                    self.pending.extend_from_slice(bytes);
                    break;
                }
            }
        }
        Ok(())
    }

    /// A close frame went by and nothing waits: this direction is over (RFC 6455 section 7.1.1).
    pub(super) fn closed(&self) -> bool {
        self.scanner.closed() && self.pending.is_empty() && !self.unflushed
    }

    /// True where a packet of the gate's own may be written behind what is pending.
    pub(super) fn may_inject(&self) -> bool {
        !self.eof && self.scanner.between_packets()
    }

    /// True where a close frame may be written behind what is pending.
    pub(super) fn may_close(&self) -> bool {
        self.scanner.between_frames()
    }
}
