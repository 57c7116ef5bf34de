//! WebSocket frames (RFC 6455 section 5): heads, masks, encoding.

use crate::random;
use thiserror::Error;

/// The longest head: two bytes, an eight-byte length and a mask.
pub const MAX_HEAD: usize = 14;

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

    /// Control frames are never fragmented, and may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
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
    /// Text that is no Socket.IO packet as clients write it, though some server may take it for one.
    #[error("text that is no Socket.IO packet")]
    Packet,
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
    let _ = random::fill(&mut key);
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

#[cfg(test)]
mod tests;
