//! WebSocket frames (RFC 6455 section 5): heads, encoding, and the scanner that lets a relay pass
//! bytes on untouched while it still sees every message.
//!
//! The scanner never copies what it passes. It looks at each frame's head and at the first bytes of
//! each message, and takes a message out of the stream only where somebody must read it whole (a
//! Socket.IO CONNECT, DISCONNECT or CONNECT_ERROR).

use aws_lc_rs::rand;
use thiserror::Error;

/// The longest head: two bytes, an eight-byte length and a mask.
pub const MAX_HEAD: usize = 14;

/// Bytes of a message that may be needed to classify it: `45`, ten digits and `-`.
const MAX_PREFIX: usize = 13;

/// A message that has to be read whole may not be longer than this: tokens are at most 8 KiB.
pub const MAX_CAPTURE: usize = 64 * 1024;

/// RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with the message that was begun.
    Continuation = 0,
    /// Begins a UTF-8 message.
    Text = 1,
    /// Begins a binary message.
    Binary = 2,
    /// Ends the connection.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// What is wrong with a peer's frames.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A reserved bit is set though no extension was agreed on.
    #[error("reserved bits set without an extension")]
    ReservedBits,
    /// An opcode that RFC 6455 does not define.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client frame without a mask, or a server frame with one.
    #[error("frame is masked the wrong way round")]
    Masking,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("control frame is fragmented or too long")]
    Control,
    /// The length does not use the shortest form, or exceeds 2^63.
    #[error("frame length is not in its shortest form")]
    Length,
    /// A continuation without a start, or a start within a message.
    #[error("frames of a message are out of order")]
    Order,
    /// The message is longer than allowed.
    #[error("message is too long")]
    TooLong,
    /// A binary message that no Socket.IO packet announced.
    #[error("binary message that no packet announced")]
    UnexpectedBinary,
}

impl FrameError {
    /// The close code that says it: 1009 or 1002.
    pub fn close_code(self) -> u16 {
        if self == FrameError::TooLong { 1009 } else { 1002 }
    }
}

/// Who wrote the frames: decides the direction of masking (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Frames must be masked.
    Client,
    /// Frames must not be masked.
    Server,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Last frame of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// The masking key; zero where there is none.
    pub mask: [u8; 4],
    /// Payload bytes.
    pub len: u64,
    /// Bytes of the head itself, 2 to 14.
    pub size: usize,
}

impl Head {
    /// Reads a head from the beginning of `buf`; `None` while it is incomplete.
    ///
    /// # Errors
    /// As soon as a rule of RFC 6455 sections 5.1, 5.2, 5.5 is broken, before any payload arrived.
    #[inline]
    pub fn parse(buf: &[u8], writer: Writer) -> Result<Option<Head>, FrameError> {
        let [first, second, rest @ ..] = buf else {
            return match buf {
                [first] => Head::check_first(*first).map(|_| None),
                _ => Ok(None),
            };
        };
        let (fin, opcode) = Head::check_first(*first)?;
        let masked = second & 0x80 != 0;
        if masked != (writer == Writer::Client) {
            return Err(FrameError::Masking);
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!fin || short > 125) {
            return Err(FrameError::Control);
        }
        let (len, used) = match (short, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
            (126 | 127, _) => return Ok(None),
            _ => (u64::from(short), 0),
        };
        if (short == 126 && len < 126) || (short == 127 && (len < 0x1_0000 || len > i64::MAX as u64)) {
            return Err(FrameError::Length);
        }
        let mut mask = [0; 4];
        let mut size = 2 + used;
        if masked {
            match rest.get(used..used + 4) {
                Some(key) => mask.copy_from_slice(key),
                None => return Ok(None),
            }
            size += 4;
        }
        Ok(Some(Head { fin, opcode, mask, len, size }))
    }

    #[inline]
    fn check_first(byte: u8) -> Result<(bool, Opcode), FrameError> {
        if byte & 0x70 != 0 {
            return Err(FrameError::ReservedBits);
        }
        let opcode = Opcode::from_bits(byte & 0x0f).ok_or(FrameError::ReservedOpcode)?;
        Ok((byte & 0x80 != 0, opcode))
    }
}

/// A fresh masking key (RFC 6455 section 5.3 wants it unpredictable).
pub fn mask_key() -> [u8; 4] {
    let mut key = [0; 4];
    // A failing system source would break TLS and session ids too; a zero key only loses the masking.
    let _ = rand::fill(&mut key);
    key
}

/// Masks or unmasks `data`, which begins `offset` bytes into its frame.
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    for (i, byte) in data.iter_mut().enumerate() {
        *byte ^= key[(offset + i) & 3];
    }
}

/// Appends one whole, unfragmented frame.
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode as u8);
    match payload.len() {
        len @ 0..=125 => out.push(mask_bit | len as u8),
        len @ 126..=0xffff => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key, 0);
    }
}

/// Appends a close frame; `reason` is cut to the 123 bytes that fit.
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    encode(out, Opcode::Close, &payload, mask);
}

/// What the scanner looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Frames only: raw Engine.IO, or a WebSocket of the application's own.
    Frames,
    /// Socket.IO packets: CONNECT, DISCONNECT, CONNECT_ERROR are taken out, attachments are counted.
    SocketIo,
}

/// A message that was taken out of the stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Captured {
    /// Text or binary.
    pub text: bool,
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
    capture: Option<Box<Capture>>,
}

struct Capture {
    text: bool,
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
            capture: None,
        }
    }

    /// Messages begun so far.
    pub fn messages(&self) -> u64 {
        self.messages
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
                Ok(Interest::Take) => {
                    self.left = head.len;
                    let used = at + head.size;
                    if head.len == 0 && head.fin {
                        let stop = self.finish_capture();
                        return Scanned { pass: at, used, stop };
                    }
                    return Scanned { pass: at, used, stop: Stop::More };
                }
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
            self.begin(head, payload)?
        };
        if matches!(interest, Interest::Partial) {
            return Ok(interest);
        }
        self.messages += u64::from(!goes_on);
        self.message = total;
        self.open = !head.fin;
        Ok(interest)
    }

    /// The first frame of a message.
    #[inline]
    fn begin(&mut self, head: &Head, payload: &[u8]) -> Result<Interest, FrameError> {
        if self.watch == Watch::Frames {
            return Ok(Interest::Pass);
        }
        if head.opcode == Opcode::Binary {
            return self.attachment();
        }
        let shown = usize::try_from(head.len).unwrap_or(usize::MAX).min(payload.len()).min(MAX_PREFIX);
        let mut prefix = [0; MAX_PREFIX];
        prefix[..shown].copy_from_slice(&payload[..shown]);
        apply_mask(&mut prefix[..shown], head.mask, 0);
        let whole = shown as u64 == head.len;
        match classify(&prefix[..shown], whole && head.fin, self.writer) {
            Class::Pass => Ok(Interest::Pass),
            Class::Attachment => self.attachment(),
            Class::Announces(n) => {
                self.attachments = n;
                Ok(Interest::Pass)
            }
            // Only the frame's end or a full prefix settles it; a fragment that ends too early is taken whole.
            Class::Unclear if !whole && shown < MAX_PREFIX => Ok(Interest::Partial),
            Class::Unclear => Ok(self.start_capture(head)),
            Class::Take if self.writer == Writer::Server && head.len > MAX_CAPTURE as u64 => Ok(Interest::Pass),
            Class::Take if head.len > MAX_CAPTURE as u64 => Err(FrameError::TooLong),
            Class::Take => Ok(self.start_capture(head)),
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

    fn start_capture(&mut self, head: &Head) -> Interest {
        let data = Vec::with_capacity(usize::try_from(head.len).unwrap_or(0).min(MAX_CAPTURE));
        self.capture = Some(Box::new(Capture { text: true, data, mask: head.mask, offset: 0, fin: head.fin }));
        Interest::Take
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
            Some(capture) => Stop::Message(self.classify_whole(*capture)),
            None => Stop::More,
        }
    }

    /// A message that was taken only because its first fragment said too little still announces attachments.
    fn classify_whole(&mut self, capture: Capture) -> Captured {
        let shown = capture.data.len().min(MAX_PREFIX);
        match classify(&capture.data[..shown], true, self.writer) {
            Class::Announces(n) => self.attachments = n,
            Class::Attachment => self.attachments = self.attachments.saturating_sub(1),
            _ => {}
        }
        Captured { text: capture.text, data: capture.data }
    }
}

enum Class {
    Pass,
    Take,
    Attachment,
    Announces(u32),
    Unclear,
}

/// What a text message is, by its first bytes; `whole` says that there are no more.
#[inline]
fn classify(prefix: &[u8], whole: bool, writer: Writer) -> Class {
    match prefix {
        [] | [b'4'] if !whole => Class::Unclear,
        [b'b', ..] => Class::Attachment,
        [b'4', b'0' | b'1', ..] => Class::Take,
        [b'4', b'4', ..] if writer == Writer::Server => Class::Take,
        [b'4', b'5' | b'6', digits @ ..] => match digits.iter().position(|b| !b.is_ascii_digit()) {
            Some(end) => Class::Announces(decimal(&digits[..end])),
            None if whole || prefix.len() == MAX_PREFIX => Class::Announces(decimal(digits)),
            None => Class::Unclear,
        },
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
