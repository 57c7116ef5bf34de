//! Just enough WebSocket and HTTP for both ends. Written apart from siogate's own, so that no mistake is on both sides.

use std::ops::Range;

/// Text, unfragmented.
pub const TEXT: u8 = 0x81;
/// Close, unfragmented.
pub const CLOSE: u8 = 0x88;
/// Every client frame of the load is masked with it.
pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A whole frame at the beginning of a buffer.
pub struct Frame {
    /// FIN, reserved bits, opcode.
    pub first: u8,
    pub key: Option<[u8; 4]>,
    pub payload: Range<usize>,
}

/// Finds a whole frame at the beginning of `buf`.
pub fn frame(buf: &[u8]) -> Option<Frame> {
    let [first, second, rest @ ..] = buf else { return None };
    let (len, mut at) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (usize::try_from(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])).ok()?, 10)
        }
        (126 | 127, _) => return None,
        (short, _) => (usize::from(short), 2),
    };
    let mut key = None;
    if second & 0x80 != 0 {
        key = Some(<[u8; 4]>::try_from(buf.get(at..at + 4)?).ok()?);
        at += 4;
    }
    let payload = at..at.checked_add(len)?;
    (buf.len() >= payload.end).then_some(Frame { first: *first, key, payload })
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, first: u8, payload: &[u8], key: Option<[u8; 4]>) {
    let masked = if key.is_some() { 0x80 } else { 0 };
    out.push(first);
    match payload.len() {
        n @ 0..=125 => out.push(masked | n as u8),
        n @ 126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(masked | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(key.as_ref().map_or(&[][..], |key| &key[..]));
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key);
    }
}

/// Masks or unmasks, eight bytes at a time.
pub fn mask(data: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Where the head of an HTTP message ends, the empty line included.
pub fn head_end(buf: &[u8]) -> Option<usize> {
    buf.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// A header's value.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The body behind a head, and so many bytes are done with; `None` while it is incomplete.
pub fn body(buf: &[u8], head: usize) -> Option<(Vec<u8>, usize)> {
    let text = std::str::from_utf8(buf.get(..head)?).ok()?;
    if header(text, "transfer-encoding").is_none_or(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        let len: usize = header(text, "content-length").map_or(Some(0), |len| len.parse().ok())?;
        return Some((buf.get(head..head + len)?.to_vec(), head + len));
    }
    let (mut whole, mut at) = (Vec::new(), head);
    loop {
        let line = buf.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&buf[at..at + line]).ok()?.trim(), 16).ok()?;
        at += line + 2;
        whole.extend_from_slice(buf.get(at..at + len)?);
        at += len + 2;
        if len == 0 {
            return (buf.len() >= at).then_some((whole, at));
        }
    }
}
