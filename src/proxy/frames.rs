//! One leg of a session while its packets are read one by one: before authentication and while the
//! client polls. Afterwards the relay takes over, with what is left in the buffers.

use crate::protocol::engineio::{Packet, Version};
use crate::protocol::frame::{self, FrameError, Head, Opcode, Writer};
use crate::proxy::scratch;
use crate::stream::Stream;
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use thiserror::Error;
use tokio::io::AsyncWriteExt;

/// Why a leg cannot go on.
#[derive(Debug, Error)]
pub enum LegError {
    /// The socket failed or ended.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer broke the WebSocket protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
}

/// What a leg received.
pub enum Incoming {
    /// One message.
    Message {
        /// Text or binary.
        text: bool,
        /// The unmasked payload.
        data: Bytes,
    },
    /// The peer closes: a close frame, or the end of the stream.
    Closed,
}

/// A WebSocket whose messages are read whole.
pub struct Leg {
    stream: Stream,
    reads: Writer,
    max_message: u64,
    input: BytesMut,
    fragments: Option<(bool, BytesMut)>,
    output: Vec<u8>,
    written: usize,
}

impl Leg {
    /// `reads` says who writes what is read here; `input` is what was already read.
    pub fn new(stream: Stream, reads: Writer, input: BytesMut, max_message: u64) -> Self {
        Self { stream, reads, max_message, input, fragments: None, output: Vec::new(), written: 0 }
    }

    /// Changes the longest message allowed.
    pub fn bound(&mut self, max_message: u64) {
        self.max_message = max_message;
    }

    /// True between messages: the relay may take over.
    pub fn is_whole(&self) -> bool {
        self.fragments.is_none() && self.output.is_empty()
    }

    /// The socket and the bytes read beyond what was asked for.
    pub fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.input)
    }

    /// The next message. Pings are answered. Cancel safe.
    ///
    /// # Errors
    /// When the socket fails or the peer breaks RFC 6455.
    pub async fn next(&mut self) -> Result<Incoming, LegError> {
        loop {
            if !self.output.is_empty() {
                self.flush().await?;
            }
            if let Some(incoming) = self.parse()? {
                return Ok(incoming);
            }
            if self.output.is_empty() && self.fill().await? == 0 {
                return Ok(Incoming::Closed);
            }
        }
    }

    /// Reads once.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.input.is_empty() {
            // What is left of an earlier message's place.
            self.input = BytesMut::new();
        }
        let Self { stream, input, .. } = self;
        poll_fn(|cx| scratch::poll_read(cx, stream, |read| input.extend_from_slice(read))).await
    }

    fn parse(&mut self) -> Result<Option<Incoming>, LegError> {
        loop {
            let Some(head) = Head::parse(&self.input, self.reads)? else { return Ok(None) };
            // Control frames stand between fragments and are no part of the message.
            let control = matches!(head.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
            let so_far = self.fragments.as_ref().filter(|_| !control).map_or(0, |(_, data)| data.len() as u64);
            if head.len.saturating_add(so_far) > self.max_message {
                return Err(FrameError::TooLong.into());
            }
            let len = usize::try_from(head.len).map_err(|_| FrameError::TooLong)?;
            if self.input.len() - head.size < len {
                return Ok(None);
            }
            self.input.advance(head.size);
            let mut data = self.input.split_to(len);
            if self.reads == Writer::Client {
                frame::apply_mask(&mut data, head.mask, 0);
            }
            match (head.opcode, &mut self.fragments) {
                (Opcode::Close, _) => return Ok(Some(Incoming::Closed)),
                (Opcode::Pong, _) => {}
                (Opcode::Ping, _) => {
                    self.push(Opcode::Pong, &data);
                    return Ok(None);
                }
                (Opcode::Continuation, Some((_, whole))) => {
                    whole.extend_from_slice(&data);
                    if head.fin
                        && let Some((text, whole)) = self.fragments.take()
                    {
                        return Ok(Some(Incoming::Message { text, data: whole.freeze() }));
                    }
                }
                (Opcode::Text | Opcode::Binary, None) => {
                    let text = head.opcode == Opcode::Text;
                    if head.fin {
                        return Ok(Some(Incoming::Message { text, data: data.freeze() }));
                    }
                    self.fragments = Some((text, data));
                }
                _ => return Err(FrameError::Order.into()),
            }
        }
    }

    /// Queues one frame.
    pub fn push(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = self.mask();
        self.output.reserve(payload.len() + frame::MAX_HEAD);
        frame::encode(&mut self.output, opcode, payload, mask);
    }

    /// Queues bytes that are no frame: the 101 that goes first.
    pub fn push_raw(&mut self, bytes: Vec<u8>) {
        if self.output.is_empty() {
            self.output = bytes;
        } else {
            self.output.extend_from_slice(&bytes);
        }
    }

    /// Queues one Engine.IO packet.
    pub fn push_packet(&mut self, version: Version, packet: &Packet) {
        let (text, data) = packet.to_ws(version);
        self.push(if text { Opcode::Text } else { Opcode::Binary }, &data);
    }

    /// Queues a close frame.
    pub fn push_close(&mut self, code: u16, reason: &str) {
        let mask = self.mask();
        frame::encode_close(&mut self.output, code, reason, mask);
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.reads == Writer::Server).then(frame::mask_key)
    }

    /// Writes what is queued. Cancel safe: the rest stays queued.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn flush(&mut self) -> io::Result<()> {
        while let rest @ [_, ..] = &self.output[self.written..] {
            match self.stream.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.written += n,
            }
        }
        (self.output, self.written) = (Vec::new(), 0);
        self.stream.flush().await
    }
}

#[cfg(test)]
mod tests;
