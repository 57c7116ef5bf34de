//! Lets a relay pass WebSocket bytes on untouched while it still sees every message.
//!
//! The scanner never copies what it passes. It looks at each frame's head and at the first bytes of
//! each message, and takes a message out of the stream only where somebody must read it whole (a
//! Socket.IO CONNECT, DISCONNECT or CONNECT_ERROR, or an event that is meant for the gate).

use crate::protocol::event::{EventName, Is};
use crate::protocol::frame::{FrameError, Head, Opcode, Writer, apply_mask};
use crate::protocol::socketio;
use std::sync::Arc;

/// Bytes of a message that may be needed to classify it: `45`, ten digits and `-`.
const MAX_PREFIX: usize = 13;

/// A message that has to be read whole may not be longer than this: tokens are at most 8 KiB.
pub const MAX_CAPTURE: usize = 64 * 1024;

/// What the scanner looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Frames only: raw Engine.IO, or a WebSocket of the application's own.
    Frames,
    /// Socket.IO packets: CONNECT, DISCONNECT, CONNECT_ERROR are taken out, attachments are counted.
    SocketIo,
}

/// A text message that was taken out of the stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Captured {
    /// The unmasked payload.
    pub data: Vec<u8>,
}

/// Why [`Scanner::scan`] stopped.
#[derive(PartialEq, Eq)]
pub enum Stop {
    /// Everything was looked at.
    End,
    /// What is left is an incomplete head: show it again with more behind it.
    Partial,
    /// Handle what was said so far and call again with the rest.
    More,
    /// A message was taken out.
    Message(Captured),
    /// The stream is broken from here on.
    Broken(FrameError),
}

/// What one call of [`Scanner::scan`] found.
pub struct Scanned {
    /// So many bytes from the start are passed on as they are.
    pub pass: usize,
    /// So many bytes are done with; those after `pass` were taken out.
    pub used: usize,
    /// Why it stopped there.
    pub stop: Stop,
}

/// Walks one direction of a WebSocket connection.
pub struct Scanner {
    writer: Writer,
    watch: Watch,
    max_message: u64,
    /// Payload bytes of the current frame still to come.
    left: u64,
    /// Payload bytes of the current message so far.
    message: u64,
    /// Within a fragmented message.
    open: bool,
    /// Attachments that the last packet announced and that have not come yet.
    attachments: u32,
    closing: bool,
    /// The current frame is a control frame: it passes even while a message is being taken out.
    control: bool,
    messages: u64,
    /// The current message is the application's.
    said: bool,
    /// Messages of the application and bytes of them.
    activity: u64,
    /// An event of the client that is taken out too.
    event: Option<Arc<EventName>>,
    capture: Option<Box<Capture>>,
}

struct Capture {
    data: Vec<u8>,
    mask: [u8; 4],
    offset: usize,
    fin: bool,
}

enum Interest {
    Pass,
    Take,
    Partial,
}

impl Scanner {
    /// `max_message` bounds a message's payload in bytes; `attachments` are those still to come.
    pub fn new(writer: Writer, watch: Watch, max_message: u64, attachments: u32) -> Self {
        Self {
            writer,
            watch,
            max_message,
            left: 0,
            message: 0,
            open: false,
            attachments,
            closing: false,
            control: false,
            messages: 0,
            said: false,
            activity: 0,
            event: None,
            capture: None,
        }
    }

    /// Takes out this event too.
    #[must_use]
    pub fn taking(mut self, event: Option<Arc<EventName>>) -> Self {
        self.event = event;
        self
    }

    /// Messages begun so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Another number whenever the application has said something, or more of it. What is no packet of it does not
    /// count (heartbeats, control frames), nor what is taken out, since that has still to be read.
    pub fn activity(&self) -> u64 {
        self.activity
    }

    /// Payload bytes of the current frame still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// True where a frame of the gate's own may be put in: between messages, and not between a binary
    /// packet and its attachments.
    pub fn between_packets(&self) -> bool {
        self.between_frames() && !self.open && self.attachments == 0
    }

    /// True where a control frame of the gate's own may be put in.
    pub fn between_frames(&self) -> bool {
        self.left == 0 && !self.closing
    }

    /// True once a close frame went by: nothing may follow it (RFC 6455 section 5.5.1).
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// True once a close frame went by whole.
    pub fn closed(&self) -> bool {
        self.closing && self.left == 0
    }

    /// Looks at `buf`, which begins where the last call's `used` ended.
    pub fn scan(&mut self, buf: &[u8]) -> Scanned {
        let mut at = 0;
        loop {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len() - at);
                if self.capture.is_some() && !self.control {
                    if at > 0 && n > 0 {
                        return Scanned { pass: at, used: at, stop: Stop::More };
                    }
                    return self.take(&buf[..n], buf.len());
                }
                self.left -= n as u64;
                at += n;
                if self.said && !self.control {
                    self.activity = self.activity.wrapping_add(n as u64);
                }
            }
            if at == buf.len() {
                return Scanned { pass: at, used: at, stop: Stop::End };
            }
            let head = match Head::parse(&buf[at..], self.writer) {
                Ok(Some(head)) => head,
                Ok(None) => return Scanned { pass: at, used: at, stop: Stop::Partial },
                Err(e) => return Scanned { pass: at, used: at, stop: Stop::Broken(e) },
            };
            match self.enter(&head, &buf[at + head.size..]) {
                Ok(Interest::Pass) => {
                    at += head.size;
                    self.left = head.len;
                }
                Ok(Interest::Partial) => return Scanned { pass: at, used: at, stop: Stop::Partial },
                Ok(Interest::Take) => return self.begin_take(&head, at, &buf[at + head.size..]),
                Err(e) => return Scanned { pass: at, used: at, stop: Stop::Broken(e) },
            }
        }
    }

    /// Checks a frame against the message it belongs to and decides whether it is passed or taken.
    #[inline]
    fn enter(&mut self, head: &Head, payload: &[u8]) -> Result<Interest, FrameError> {
        self.control = head.opcode.is_control();
        if self.control {
            self.closing |= head.opcode == Opcode::Close;
            return Ok(Interest::Pass);
        }
        let goes_on = head.opcode == Opcode::Continuation;
        if goes_on != self.open {
            return Err(FrameError::Order);
        }
        let total = if goes_on { self.message.saturating_add(head.len) } else { head.len };
        if total > self.max_message {
            return Err(FrameError::TooLong);
        }
        let interest = if let Some(capture) = &mut self.capture {
            if total > MAX_CAPTURE as u64 {
                return Err(FrameError::TooLong);
            }
            capture.mask = head.mask;
            capture.offset = 0;
            capture.fin = head.fin;
            Interest::Take
        } else if goes_on {
            Interest::Pass
        } else {
            self.said = true;
            self.begin(head, payload)?
        };
        if matches!(interest, Interest::Partial) {
            return Ok(interest);
        }
        self.said &= !matches!(interest, Interest::Take);
        if !goes_on {
            self.messages += 1;
            self.activity = self.activity.wrapping_add(u64::from(self.said));
        }
        self.message = total;
        self.open = !head.fin;
        Ok(interest)
    }

    /// The first frame of a message.
    #[inline]
    fn begin(&mut self, head: &Head, payload: &[u8]) -> Result<Interest, FrameError> {
        if self.watch == Watch::Frames {
            if head.len == 1 && head.opcode == Opcode::Text {
                let Some(byte) = payload.first() else { return Ok(Interest::Partial) };
                self.said = !matches!(byte ^ head.mask[0], b'2' | b'3');
            }
            return Ok(Interest::Pass);
        }
        if head.opcode == Opcode::Binary {
            return self.attachment();
        }
        // Nearly all messages are events, and two bytes say so.
        if let ([first, second, ..], 2..) = (payload, head.len)
            && [first ^ head.mask[0], second ^ head.mask[1]] == *b"42"
        {
            return self.event(head, payload);
        }
        let shown = usize::try_from(head.len).unwrap_or(usize::MAX).min(payload.len()).min(MAX_PREFIX);
        let mut prefix = [0; MAX_PREFIX];
        prefix[..shown].copy_from_slice(&payload[..shown]);
        apply_mask(&mut prefix[..shown], head.mask, 0);
        let whole = shown as u64 == head.len;
        match classify(&prefix[..shown], whole && head.fin, self.writer) {
            Class::Pass => Ok(Interest::Pass),
            Class::EngineIo => {
                self.said = false;
                Ok(Interest::Pass)
            }
            Class::Event => self.event(head, payload),
            Class::Attachment => self.attachment(),
            Class::Announces(n) => {
                self.attachments = n;
                self.event(head, payload)
            }
            Class::Broken => Err(FrameError::Packet),
            // Only the frame's end or a full prefix settles it; a fragment that ends too early is taken whole.
            Class::Unclear if !whole && shown < MAX_PREFIX => Ok(Interest::Partial),
            Class::Unclear => Ok(Interest::Take),
            Class::Take if self.writer == Writer::Server && head.len > MAX_CAPTURE as u64 => Ok(Interest::Pass),
            Class::Take if head.len > MAX_CAPTURE as u64 => Err(FrameError::TooLong),
            Class::Take => Ok(Interest::Take),
        }
    }

    /// An event passes unless it is the one that is taken out.
    #[inline]
    fn event(&mut self, head: &Head, payload: &[u8]) -> Result<Interest, FrameError> {
        let Some(name) = &self.event else { return Ok(Interest::Pass) };
        let len = usize::try_from(head.len).unwrap_or(usize::MAX);
        let shown = payload.iter().take(len).enumerate().map(|(i, byte)| byte ^ head.mask[i & 3]);
        match name.begins(shown) {
            Is::No => Ok(Interest::Pass),
            Is::Unclear if payload.len() < len => Ok(Interest::Partial),
            Is::Unclear if head.fin => Ok(Interest::Pass),
            Is::Endless => Err(FrameError::Packet),
            Is::Yes if head.len > MAX_CAPTURE as u64 => Err(FrameError::TooLong),
            // A first fragment that says too little is taken whole.
            Is::Yes | Is::Unclear => Ok(Interest::Take),
        }
    }

    fn attachment(&mut self) -> Result<Interest, FrameError> {
        // A server may speak as it likes; a client's binary message without a packet that announced it
        // is another parser's CONNECT, or an attack (protocol notes: refuse what cannot be read).
        if self.attachments == 0 && self.writer == Writer::Client {
            return Err(FrameError::UnexpectedBinary);
        }
        self.attachments = self.attachments.saturating_sub(1);
        Ok(Interest::Pass)
    }

    /// Takes a frame whose head was read at `at`, or begins to.
    fn begin_take(&mut self, head: &Head, at: usize, payload: &[u8]) -> Scanned {
        let used = at + head.size;
        let len = usize::try_from(head.len).unwrap_or(usize::MAX);
        if self.capture.is_none() {
            // Nearly always the message is one frame, and all of it is here.
            if let (true, Some(payload)) = (head.fin, payload.get(..len)) {
                let mut data = payload.to_vec();
                apply_mask(&mut data, head.mask, 0);
                let message = Stop::Message(self.classify_whole(data));
                return Scanned { pass: at, used: used + len, stop: message };
            }
            let data = Vec::with_capacity(len.min(MAX_CAPTURE));
            self.capture = Some(Box::new(Capture { data, mask: head.mask, offset: 0, fin: head.fin }));
        }
        self.left = head.len;
        if head.len == 0 && head.fin {
            return Scanned { pass: at, used, stop: self.finish_capture() };
        }
        Scanned { pass: at, used, stop: Stop::More }
    }

    /// Takes payload bytes into the capture.
    fn take(&mut self, part: &[u8], available: usize) -> Scanned {
        let n = part.len();
        self.left -= n as u64;
        let mut fin = false;
        if let Some(capture) = &mut self.capture {
            let start = capture.data.len();
            capture.data.extend_from_slice(part);
            apply_mask(&mut capture.data[start..], capture.mask, capture.offset);
            capture.offset += n;
            fin = capture.fin;
        }
        let stop = match self.left {
            0 if fin => self.finish_capture(),
            _ if n == available => Stop::End,
            _ => Stop::More,
        };
        Scanned { pass: 0, used: n, stop }
    }

    fn finish_capture(&mut self) -> Stop {
        match self.capture.take() {
            Some(capture) => Stop::Message(self.classify_whole(capture.data)),
            None => Stop::More,
        }
    }

    /// A message that was taken only because its first fragment said too little still announces attachments.
    fn classify_whole(&mut self, data: Vec<u8>) -> Captured {
        let shown = data.len().min(MAX_PREFIX);
        match classify(&data[..shown], true, self.writer) {
            Class::Announces(n) => self.attachments = n,
            Class::Attachment => self.attachments = self.attachments.saturating_sub(1),
            _ => {}
        }
        Captured { data }
    }
}

enum Class {
    Pass,
    /// Of Engine.IO: heartbeats, mostly.
    EngineIo,
    Event,
    Take,
    Attachment,
    Announces(u32),
    Broken,
    Unclear,
}

/// What a text message is, by its first bytes; `whole` says that there are no more.
///
/// A client's packets must be what every server reads alike. Node takes a blank for the type 0, CONNECT, and so the
/// message without a type; Python takes digits of other scripts for digits, and a packet in quotes for one without.
#[inline]
fn classify(prefix: &[u8], whole: bool, writer: Writer) -> Class {
    match prefix {
        [] | [b'4'] if !whole => Class::Unclear,
        [b'b', ..] => Class::Attachment,
        [b'4', b'0' | b'1', ..] => Class::Take,
        [b'4', b'2', ..] => Class::Event,
        [b'0'..=b'3' | b'5' | b'6', ..] => Class::EngineIo,
        [b'4', b'4', ..] if writer == Writer::Server => Class::Take,
        [b'4', b'3' | b'4', ..] => Class::Pass,
        [b'4', b'5' | b'6', digits @ ..] => match digits.iter().position(|b| !b.is_ascii_digit()) {
            None if !whole && prefix.len() < MAX_PREFIX => Class::Unclear,
            _ if writer == Writer::Client => socketio::head(prefix.get(1..).unwrap_or_default())
                .map_or(Class::Broken, |head| Class::Announces(head.attachments)),
            end => Class::Announces(decimal(digits.get(..end.unwrap_or(digits.len())).unwrap_or_default())),
        },
        [b'4' | 0x80..=0xff, ..] if writer == Writer::Client => Class::Broken,
        _ => Class::Pass,
    }
}

fn decimal(digits: &[u8]) -> u32 {
    digits.iter().fold(0u32, |n, d| n.saturating_mul(10).saturating_add(u32::from(d - b'0')))
}

/// Counts attachments for the packet-wise engine as the scanner does for the relay: returns how many
/// the message announces, or `None` where it is not a binary packet's head.
pub fn announced(text: &[u8]) -> Option<u32> {
    match classify(&text[..text.len().min(MAX_PREFIX)], true, Writer::Server) {
        Class::Announces(n) => Some(n),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
