//! Engine.IO packets, revisions 3 and 4, and the open packet.

use crate::protocol::json;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Written with padding as all clients do, read with or without.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The type byte of a message in revision 3's binary form.
const BINARY_MESSAGE: u8 = 4;

/// Revision of the Engine.IO protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// `EIO=3`: Socket.IO 2.x clients.
    V3,
    /// `EIO=4`: Socket.IO 3.x and 4.x clients.
    V4,
}

impl Version {
    /// The value of the query parameter `EIO`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V3 => "3",
            Version::V4 => "4",
        }
    }
}

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `0`, the server's first packet.
    Open,
    /// `1`
    Close,
    /// `2`, sent by the server in revision 4 and by the client in revision 3; `2probe` by the client in both.
    Ping,
    /// `3`
    Pong,
    /// `4`, the only kind that carries data of the application.
    Message,
    /// `5`, sent by the client at the end of an upgrade.
    Upgrade,
    /// `6`
    Noop,
}

impl Kind {
    fn from_digit(digit: u8) -> Option<Kind> {
        Some(match digit {
            b'0' => Kind::Open,
            b'1' => Kind::Close,
            b'2' => Kind::Ping,
            b'3' => Kind::Pong,
            b'4' => Kind::Message,
            b'5' => Kind::Upgrade,
            b'6' => Kind::Noop,
            _ => return None,
        })
    }
}

/// One packet.
///
/// `Debug` shows kind and length only: CONNECT packets hold tokens.
#[derive(Clone, PartialEq, Eq)]
pub enum Packet {
    /// The whole text with its type digit, such as `42["hello"]` or `2probe`; valid UTF-8.
    Text(Bytes),
    /// The data of a binary message, without any type byte.
    Binary(Bytes),
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PacketError {
    /// There is no type.
    #[error("empty packet")]
    Empty,
    /// The type is none of 0 to 6, or one that cannot be binary.
    #[error("unknown packet type")]
    UnknownType,
    /// Text that is not UTF-8.
    #[error("packet text is not UTF-8")]
    NotUtf8,
    /// Binary data in text form that does not decode.
    #[error("packet data is not base64")]
    BadBase64,
}

impl Packet {
    /// A text packet of ours.
    pub fn text(text: impl Into<String>) -> Packet {
        Packet::Text(Bytes::from(text.into()))
    }

    /// What the packet is for. A text without a type digit, which no parser here returns, is a noop.
    pub fn kind(&self) -> Kind {
        match self {
            Packet::Text(text) => text.first().and_then(|d| Kind::from_digit(*d)).unwrap_or(Kind::Noop),
            Packet::Binary(_) => Kind::Message,
        }
    }

    /// Bytes of the text, or of the binary data.
    pub fn len(&self) -> usize {
        match self {
            Packet::Text(bytes) | Packet::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text behind the type digit; `None` for binary data.
    pub fn body(&self) -> Option<&str> {
        match self {
            Packet::Text(text) => text.get(1..).and_then(|body| std::str::from_utf8(body).ok()),
            Packet::Binary(_) => None,
        }
    }

    /// Reads one WebSocket message.
    pub fn from_ws(v: Version, text: bool, data: Bytes) -> Result<Packet, PacketError> {
        if text {
            std::str::from_utf8(&data).map_err(|_| PacketError::NotUtf8)?;
            return Packet::from_text(v, data);
        }
        match v {
            Version::V4 => Ok(Packet::Binary(data)),
            Version::V3 => Packet::from_typed_binary(data),
        }
    }

    /// The WebSocket message: whether it is a text message, and its data.
    pub fn to_ws(&self, v: Version) -> (bool, Bytes) {
        match (self, v) {
            (Packet::Text(text), _) => (true, text.clone()),
            (Packet::Binary(data), Version::V4) => (false, data.clone()),
            (Packet::Binary(data), Version::V3) => {
                let mut out = BytesMut::with_capacity(data.len().saturating_add(1));
                out.put_u8(BINARY_MESSAGE);
                out.extend_from_slice(data);
                (false, out.freeze())
            }
        }
    }

    /// The packet as text: on polling, and for revision 3 clients that asked for `b64` on WebSocket too.
    pub fn to_text(&self, v: Version) -> Bytes {
        match self {
            Packet::Text(text) => text.clone(),
            Packet::Binary(data) => {
                let mark = match v {
                    Version::V3 => "b4",
                    Version::V4 => "b",
                };
                let mut out =
                    String::with_capacity(data.len().div_ceil(3).saturating_mul(4).saturating_add(mark.len()));
                out.push_str(mark);
                BASE64.encode_string(data, &mut out);
                Bytes::from(out)
            }
        }
    }

    /// Reads a packet in text form. The caller has checked that `data` is UTF-8.
    pub(super) fn from_text(v: Version, data: Bytes) -> Result<Packet, PacketError> {
        match data.first() {
            None => Err(PacketError::Empty),
            Some(b'b') => {
                let encoded = match v {
                    Version::V4 => data.get(1..),
                    Version::V3 => data.strip_prefix(b"b4"),
                };
                let encoded = encoded.ok_or(PacketError::UnknownType)?;
                BASE64.decode(encoded).map(|d| Packet::Binary(d.into())).map_err(|_| PacketError::BadBase64)
            }
            Some(digit) => match Kind::from_digit(*digit) {
                Some(_) => Ok(Packet::Text(data)),
                None => Err(PacketError::UnknownType),
            },
        }
    }

    /// Reads revision 3's binary form: a type byte, then data. Only messages are ever sent so.
    pub(super) fn from_typed_binary(data: Bytes) -> Result<Packet, PacketError> {
        match data.first() {
            None => Err(PacketError::Empty),
            Some(&BINARY_MESSAGE) => Ok(Packet::Binary(data.slice(1..))),
            Some(_) => Err(PacketError::UnknownType),
        }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self {
            Packet::Text(_) => "text",
            Packet::Binary(_) => "binary",
        };
        write!(f, "{:?}({form}, {} bytes)", self.kind(), self.len())
    }
}

/// The open packet's data. Times are milliseconds.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// The Engine.IO session id.
    pub sid: String,
    /// Transports the client may move on to.
    #[serde(default)]
    pub upgrades: Vec<String>,
    /// From ping to ping.
    pub ping_interval: u64,
    /// How long a pong may take.
    pub ping_timeout: u64,
    /// The longest polling body the server takes; servers before Socket.IO 4 do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_payload: Option<u64>,
}

/// The data of an open packet that cannot be used. Does not quote it: it holds a session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed open packet")]
pub struct OpenError;

impl Open {
    /// Reads what stands behind the `0`. Unknown fields are ignored.
    pub fn parse(data: &[u8]) -> Result<Open, OpenError> {
        let open = match Rest(data).open() {
            Some(open) => open,
            None => serde_json::from_slice(data).map_err(|_| OpenError)?,
        };
        if open.sid.is_empty() { Err(OpenError) } else { Ok(open) }
    }

    /// The text of the packet, `0{...}`, with the fields in the order of the Node.js server.
    pub fn text(&self) -> String {
        let mut text = Vec::with_capacity(160);
        text.push(b'0');
        // A struct of strings and integers always serialises, and JSON is UTF-8.
        let _ = serde_json::to_writer(&mut text, self);
        String::from_utf8(text).unwrap_or_default()
    }

    /// The whole packet.
    pub fn packet(&self) -> Packet {
        Packet::text(self.text())
    }
}

/// Reads an open packet's data as both servers write it, at a tenth of the price of any JSON.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// `None`: it may be right all the same.
    fn open(mut self) -> Option<Open> {
        self.skip(b"{\"sid\":")?;
        let sid = self.string()?.to_owned();
        self.skip(b",\"upgrades\":[")?;
        let upgrades = if self.0.starts_with(b"]") { Vec::new() } else { vec![self.string()?.to_owned()] };
        self.skip(b"],\"pingInterval\":")?;
        let ping_interval = self.number()?;
        self.skip(b",\"pingTimeout\":")?;
        let ping_timeout = self.number()?;
        let max_payload = match self.skip(b",\"maxPayload\":") {
            Some(()) => Some(self.number()?),
            None => None,
        };
        let open = Open { sid, upgrades, ping_interval, ping_timeout, max_payload };
        (self.0 == b"}").then_some(open)
    }

    fn skip(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn take(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !is(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// One that needs no escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.skip(b"\"")?;
        let text = self.take(json::is_plain);
        self.skip(b"\"")?;
        std::str::from_utf8(text).ok()
    }

    /// One without a sign, a fraction or a leading zero.
    fn number(&mut self) -> Option<u64> {
        let digits = self.take(|byte| byte.is_ascii_digit());
        let fits = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && digits.len() < 19;
        fits.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("upgrades", &self.upgrades)
            .field("ping_interval", &self.ping_interval)
            .field("ping_timeout", &self.ping_timeout)
            .field("max_payload", &self.max_payload)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
