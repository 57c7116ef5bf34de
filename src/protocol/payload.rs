//! Bodies of HTTP long-polling: several packets in one request or response.
//!
//! Revision 4 joins packets with the record separator. Revision 3 writes the length before each
//! packet: in UTF-16 code units where the body is text, in bytes where it is binary.

use crate::protocol::engineio::{Packet, PacketError, Version};
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Content type of every body that is text.
pub const TEXT: &str = "text/plain; charset=UTF-8";
/// Content type of revision 3's binary bodies.
pub const OCTETS: &str = "application/octet-stream";

const SEPARATOR: u8 = 0x1e;
/// No length has more digits than this: a body of ten thousand million units is far beyond any limit.
const MAX_DIGITS: usize = 10;

/// A body ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

/// Why a body is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// A body without a packet.
    #[error("empty payload")]
    Empty,
    /// Revision 4 knows no binary bodies.
    #[error("binary payloads belong to protocol 3")]
    BinaryBody,
    /// More packets than allowed.
    #[error("too many packets in one payload")]
    TooManyPackets,
    /// Text that is not UTF-8.
    #[error("payload text is not UTF-8")]
    NotUtf8,
    /// A packet length that is missing, malformed, beyond the end, or inside a character.
    #[error("bad packet length in payload")]
    BadLength,
    /// One of the packets is malformed.
    #[error(transparent)]
    Packet(#[from] PacketError),
}

/// Writes packets into one body. `b64`: the client of revision 3 cannot take binary bodies.
pub fn encode(v: Version, b64: bool, packets: &[Packet]) -> Encoded {
    let binary = v == Version::V3 && !b64 && packets.iter().any(|p| matches!(p, Packet::Binary(_)));
    let bound = packets.iter().fold(0_usize, |sum, p| sum.saturating_add(encoded_len(v, b64, p)));
    let mut body = BytesMut::with_capacity(bound);
    for (index, packet) in packets.iter().enumerate() {
        match v {
            Version::V4 => {
                if index > 0 {
                    body.put_u8(SEPARATOR);
                }
                body.extend_from_slice(&packet.to_text(v));
            }
            Version::V3 if binary => put_binary(&mut body, packet),
            Version::V3 => {
                let text = packet.to_text(v);
                body.extend_from_slice(utf16_len(&text).to_string().as_bytes());
                body.put_u8(b':');
                body.extend_from_slice(&text);
            }
        }
    }
    Encoded { content_type: if binary { OCTETS } else { TEXT }, body: body.freeze() }
}

/// An upper bound of what `packet` adds to a body.
pub fn encoded_len(v: Version, b64: bool, packet: &Packet) -> usize {
    // The longest decimal usize has 20 digits; binary framing adds a kind, a mark and a type byte.
    const LENGTH: usize = 20;
    let len = packet.len();
    let base64 = len.div_ceil(3).saturating_mul(4);
    match (v, packet) {
        (Version::V4, Packet::Text(_)) => len.saturating_add(1),
        (Version::V4, Packet::Binary(_)) => base64.saturating_add(2),
        (Version::V3, Packet::Binary(_)) if b64 => base64.saturating_add(LENGTH + 3),
        (Version::V3, _) => len.saturating_add(LENGTH + 3),
    }
}

/// Reads the packets of a body. `binary_body`: its content type was `application/octet-stream`.
pub fn decode(v: Version, binary_body: bool, body: Bytes, max_packets: usize) -> Result<Vec<Packet>, PayloadError> {
    if body.is_empty() {
        return Err(PayloadError::Empty);
    }
    match (v, binary_body) {
        (Version::V4, true) => Err(PayloadError::BinaryBody),
        (Version::V4, false) => decode_separated(&body, max_packets),
        (Version::V3, true) => decode_binary(body, max_packets),
        (Version::V3, false) => decode_lengths(body, max_packets),
    }
}

fn decode_separated(body: &Bytes, max_packets: usize) -> Result<Vec<Packet>, PayloadError> {
    // One check for all: the separator is ASCII, so every part of valid UTF-8 is valid too.
    std::str::from_utf8(body).map_err(|_| PayloadError::NotUtf8)?;
    let mut packets = Vec::new();
    for part in body.split(|byte| *byte == SEPARATOR) {
        admit(&packets, max_packets)?;
        packets.push(Packet::from_text(Version::V4, body.slice_ref(part))?);
    }
    Ok(packets)
}

fn decode_lengths(mut body: Bytes, max_packets: usize) -> Result<Vec<Packet>, PayloadError> {
    std::str::from_utf8(&body).map_err(|_| PayloadError::NotUtf8)?;
    let mut packets = Vec::new();
    while !body.is_empty() {
        admit(&packets, max_packets)?;
        let colon = body.iter().take(MAX_DIGITS + 1).position(|b| *b == b':').ok_or(PayloadError::BadLength)?;
        let units = decimal(body.split_to(colon).iter().map(|digit| digit.wrapping_sub(b'0')))?;
        let _colon = body.split_to(1);
        let end = utf16_offset(&body, units).ok_or(PayloadError::BadLength)?;
        packets.push(Packet::from_text(Version::V3, body.split_to(end))?);
    }
    Ok(packets)
}

fn decode_binary(mut body: Bytes, max_packets: usize) -> Result<Vec<Packet>, PayloadError> {
    let mut packets = Vec::new();
    while !body.is_empty() {
        admit(&packets, max_packets)?;
        let binary = match body.split_to(1).first() {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(PayloadError::BadLength),
        };
        let mark = body.iter().take(MAX_DIGITS + 1).position(|b| *b == 0xff).ok_or(PayloadError::BadLength)?;
        let len = decimal(body.split_to(mark).iter().copied())?;
        let _mark = body.split_to(1);
        if len > body.len() {
            return Err(PayloadError::BadLength);
        }
        let data = body.split_to(len);
        packets.push(if binary {
            Packet::from_typed_binary(data)?
        } else {
            std::str::from_utf8(&data).map_err(|_| PayloadError::NotUtf8)?;
            Packet::from_text(Version::V3, data)?
        });
    }
    Ok(packets)
}

fn put_binary(body: &mut BytesMut, packet: &Packet) {
    let (text, data) = packet.to_ws(Version::V3);
    body.put_u8(u8::from(!text));
    body.extend(data.len().to_string().bytes().map(|digit| digit.wrapping_sub(b'0')));
    body.put_u8(0xff);
    body.extend_from_slice(&data);
}

fn admit(packets: &[Packet], max_packets: usize) -> Result<(), PayloadError> {
    if packets.len() < max_packets { Ok(()) } else { Err(PayloadError::TooManyPackets) }
}

/// A number from its decimal digits; none, or one that is no digit, is an error.
fn decimal(digits: impl ExactSizeIterator<Item = u8>) -> Result<usize, PayloadError> {
    if digits.len() == 0 {
        return Err(PayloadError::BadLength);
    }
    let mut value = 0_usize;
    for digit in digits {
        if digit > 9 {
            return Err(PayloadError::BadLength);
        }
        value = value.checked_mul(10).and_then(|v| v.checked_add(usize::from(digit))).ok_or(PayloadError::BadLength)?;
    }
    Ok(value)
}

/// How many UTF-16 code units valid UTF-8 has: one a character, two where UTF-8 needs four bytes.
fn utf16_len(text: &[u8]) -> usize {
    text.iter().map(|byte| utf16_units(*byte)).fold(0, usize::saturating_add)
}

/// Where the first `units` code units of valid UTF-8 end; `None` beyond the end or inside a pair.
fn utf16_offset(text: &[u8], units: usize) -> Option<usize> {
    let mut seen = 0_usize;
    for (offset, byte) in text.iter().enumerate() {
        let here = utf16_units(*byte);
        // Continuation bytes add nothing, and belong to the character before the end.
        if seen == units && here > 0 {
            return Some(offset);
        }
        seen = seen.checked_add(here)?;
    }
    (seen == units).then_some(text.len())
}

fn utf16_units(byte: u8) -> usize {
    match byte {
        0x80..=0xbf => 0,
        0xf0.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
