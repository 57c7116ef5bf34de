//! WebSocket frames of the tests' own, good and bad. Nothing of the gate's own reader is used here.

use bytes::{Buf, BytesMut};

/// The mask of every client frame in these tests: visible, so that a missing unmasking shows.
pub const MASK: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { fin: true, rsv: 0, opcode, masked: false, payload: payload.as_ref().to_vec() }
    }

    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text)
    }

    pub fn part(opcode: u8, fin: bool, payload: impl AsRef<[u8]>) -> Self {
        Self { fin, ..Self::new(opcode, payload) }
    }

    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// As a client writes it.
    pub fn masked(&self) -> Vec<u8> {
        self.encode(Some(MASK))
    }

    /// As a server writes it.
    pub fn plain(&self) -> Vec<u8> {
        self.encode(None)
    }

    fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut out = vec![(u8::from(self.fin) << 7) | (self.rsv << 4) | self.opcode];
        match self.payload.len() {
            n @ 0..=125 => out.push(bit | n as u8),
            n @ 126..=0xffff => {
                out.push(bit | 126);
                out.extend((n as u16).to_be_bytes());
            }
            n => {
                out.push(bit | 127);
                out.extend((n as u64).to_be_bytes());
            }
        }
        out.extend(mask.iter().flatten());
        let mask = mask.unwrap_or_default();
        out.extend(self.payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        out
    }

    /// Takes the first whole frame out of `buf`.
    pub fn take(buf: &mut BytesMut) -> Option<Frame> {
        let (first, second) = (*buf.first()?, *buf.get(1)?);
        let (len, mut at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(buf.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(buf.get(2..10)?.try_into().ok()?), 10),
            n => (u64::from(n), 2),
        };
        let masked = second & 0x80 != 0;
        let mut mask = [0; 4];
        if masked {
            mask.copy_from_slice(buf.get(at..at + 4)?);
            at += 4;
        }
        let end = at + usize::try_from(len).ok()?;
        let payload = buf.get(at..end)?.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
        buf.advance(end);
        Some(Frame { fin: first & 0x80 != 0, rsv: (first >> 4) & 7, opcode: first & 15, masked, payload })
    }

    pub fn as_text(&self) -> &str {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// Close code and reason.
    pub fn as_close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        match self.payload.as_slice() {
            [a, b, rest @ ..] => (u16::from_be_bytes([*a, *b]), String::from_utf8(rest.to_vec()).unwrap()),
            _ => (1005, String::new()),
        }
    }
}
