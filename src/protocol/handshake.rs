//! The query of an Engine.IO request, and the error answers of the handshake.
//!
//! Servers disagree on a query with a name in it twice (Node takes the last, Python the first) and
//! on broken escapes. Here such a query is refused, and the backend is sent [`Query::upstream`]'s
//! spelling, never the client's.

use crate::protocol::engineio::Version;
use crate::protocol::sid;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// Everything but RFC 3986's unreserved characters is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Names that Engine.IO gives a meaning, which therefore may stand there once only.
const ENGINE: [&str; 5] = ["EIO", "transport", "sid", "b64", "j"];
/// Pairs of most queries.
const USUAL: usize = 4;
/// The cache buster; says nothing.
const TIMESTAMP: &str = "t";

/// How the client wants to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    Websocket,
}

impl Transport {
    /// The value of the query parameter `transport`.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Polling => "polling",
            Transport::Websocket => "websocket",
        }
    }
}

/// An error answer of Engine.IO, with its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineError {
    /// `transport` is none we speak.
    TransportUnknown = 0,
    /// No session has this `sid`.
    UnknownSid = 1,
    /// The handshake is not a GET.
    BadHandshakeMethod = 2,
    /// The request does not fit its session.
    BadRequest = 3,
    /// The request is not allowed.
    Forbidden = 4,
    /// `EIO` is none we speak.
    UnsupportedVersion = 5,
}

impl EngineError {
    /// The number in the body.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The sentence in the body, or on an upgrade the whole body.
    pub fn message(self) -> &'static str {
        match self {
            EngineError::TransportUnknown => "Transport unknown",
            EngineError::UnknownSid => "Session ID unknown",
            EngineError::BadHandshakeMethod => "Bad handshake method",
            EngineError::BadRequest => "Bad request",
            EngineError::Forbidden => "Forbidden",
            EngineError::UnsupportedVersion => "Unsupported protocol version",
        }
    }

    /// The JSON body.
    pub fn body(self) -> &'static str {
        match self {
            EngineError::TransportUnknown => r#"{"code":0,"message":"Transport unknown"}"#,
            EngineError::UnknownSid => r#"{"code":1,"message":"Session ID unknown"}"#,
            EngineError::BadHandshakeMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            EngineError::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            EngineError::Forbidden => r#"{"code":4,"message":"Forbidden"}"#,
            EngineError::UnsupportedVersion => r#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }

    /// The HTTP status of a request that is not an upgrade.
    pub fn status(self) -> u16 {
        match self {
            EngineError::Forbidden => 403,
            _ => 400,
        }
    }
}

/// Why a query is refused. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// A raw character that has no place in a query.
    #[error("query with a raw blank, control, `#` or non-ASCII character")]
    RawCharacter,
    /// `%` without two hexadecimal digits, or escapes that make no UTF-8.
    #[error("query with a broken escape")]
    BadEscape,
    /// A control character in a decoded name or value.
    #[error("query with a control character")]
    Control,
    /// One of Engine.IO's names stands there twice, in whatever spelling.
    #[error("query with a duplicate `{0}`")]
    Duplicate(&'static str),
}

/// A query, read.
///
/// `Debug` shows neither session id nor values: any of them may be a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Query {
    /// `EIO`; `None`: absent, or neither `3` nor `4`.
    pub eio: Option<Version>,
    /// `None`: absent, or none we speak.
    pub transport: Option<Transport>,
    /// The session; `None`: absent or empty, a handshake. Not yet checked by [`sid::is_valid`].
    pub sid: Option<String>,
    /// The client cannot take binary data (`EIO=3`).
    pub b64: bool,
    /// The client wants JSONP.
    pub jsonp: bool,
    /// Names and values, decoded, one behind the other.
    text: String,
    /// Where each name begins in it, and its value, and where that ends.
    pairs: Vec<[usize; 3]>,
}

impl Query {
    /// Reads what stands behind the `?` of the request target.
    pub fn parse(raw: &str) -> Result<Query, QueryError> {
        if raw.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
            return Err(QueryError::RawCharacter);
        }
        let mut query = Query {
            eio: None,
            transport: None,
            sid: None,
            b64: false,
            jsonp: false,
            text: String::with_capacity(raw.len()),
            pairs: Vec::with_capacity(USUAL),
        };
        let mut seen = [false; ENGINE.len()];
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            for (known, seen) in ENGINE.iter().zip(&mut seen) {
                if **known == *name && std::mem::replace(seen, true) {
                    return Err(QueryError::Duplicate(known));
                }
            }
            query.note(&name, &value);
            query.push(&name, &value);
        }
        Ok(query)
    }

    fn push(&mut self, name: &str, value: &str) {
        let begins = self.text.len();
        self.text.push_str(name);
        let value_begins = self.text.len();
        self.text.push_str(value);
        self.pairs.push([begins, value_begins, self.text.len()]);
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let piece = |from: usize, to: usize| self.text.get(from..to).unwrap_or_default();
        self.pairs.iter().map(move |[name, value, end]| (piece(*name, *value), piece(*value, *end)))
    }

    fn note(&mut self, name: &str, value: &str) {
        match name {
            "EIO" => {
                self.eio = match value {
                    "3" => Some(Version::V3),
                    "4" => Some(Version::V4),
                    _ => None,
                }
            }
            "transport" => {
                self.transport = match value {
                    "polling" => Some(Transport::Polling),
                    "websocket" => Some(Transport::Websocket),
                    _ => None,
                }
            }
            "sid" => self.sid = Some(value.to_owned()).filter(|sid| !sid.is_empty()),
            // Node asks whether the string is there and not empty; `b64=0` is a yes.
            "b64" => self.b64 = !value.is_empty(),
            "j" => self.jsonp = true,
            _ => {}
        }
    }

    /// The decoded values of a name, in order.
    pub fn get_all(&self, name: &str) -> Vec<&str> {
        self.pairs().filter(|(n, _)| *n == name).map(|(_, value)| value).collect()
    }

    /// The target of the gate's own WebSocket handshake with the backend: `path`, and behind the `?` the user's pairs
    /// in their order without those named in `drop`, then what Engine.IO needs.
    pub fn upstream(&self, path: &str, drop: &[&str]) -> String {
        let mut out = String::with_capacity(path.len() + self.text.len() + 64);
        out.push_str(path);
        let mut pair = |mark: char, name: &str, value: &str| {
            out.push(mark);
            push_pair(&mut out, name, value);
        };
        let mut mark = '?';
        for (name, value) in self.pairs() {
            if !is_engine(name) && !drop.contains(&name) {
                pair(std::mem::replace(&mut mark, '&'), name, value);
            }
        }
        if let Some(version) = self.eio {
            pair(std::mem::replace(&mut mark, '&'), "EIO", version.as_str());
        }
        pair(mark, "transport", Transport::Websocket.as_str());
        if self.b64 && self.eio == Some(Version::V3) {
            pair('&', "b64", "1");
        }
        out
    }

    /// What a log may show: names in order, values only of Engine.IO's own parameters.
    ///
    /// A token under a name that nobody configured is a token still, so users' values are always
    /// left out; those in `drop` are marked as the credential.
    pub fn redacted(&self, drop: &[&str]) -> String {
        let mut out = String::new();
        for (name, value) in self.pairs() {
            if !out.is_empty() {
                out.push('&');
            }
            match name {
                "sid" if value.is_empty() => push_pair(&mut out, name, ""),
                // Known values only: a token may stand anywhere.
                "EIO" if self.eio.is_some() => push_pair(&mut out, name, value),
                "transport" if self.transport.is_some() => push_pair(&mut out, name, value),
                _ => {
                    push_pair(&mut out, name, "");
                    match name {
                        "sid" => out.push_str(&sid::redact(value)),
                        _ if drop.contains(&name) => out.push_str("(credential)"),
                        _ if value.is_empty() => {}
                        _ => out.push('…'),
                    }
                }
            }
        }
        out
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({})", self.redacted(&[]))
    }
}

fn is_engine(name: &str) -> bool {
    ENGINE.contains(&name) || name == TIMESTAMP
}

fn push_pair(out: &mut String, name: &str, value: &str) {
    push_escaped(out, name);
    out.push('=');
    push_escaped(out, value);
}

fn push_escaped(out: &mut String, text: &str) {
    if is_unreserved(text) {
        out.push_str(text);
    } else {
        out.extend(utf8_percent_encode(text, ESCAPED));
    }
}

fn is_unreserved(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// `application/x-www-form-urlencoded`, strictly.
fn decode(raw: &str) -> Result<Cow<'_, str>, QueryError> {
    if is_unreserved(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    for (at, _) in raw.match_indices('%') {
        let digits = raw.as_bytes().get(at.saturating_add(1)..at.saturating_add(3));
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(QueryError::BadEscape);
        }
    }
    let spaced = if raw.contains('+') { Cow::Owned(raw.replace('+', " ")) } else { Cow::Borrowed(raw) };
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| QueryError::BadEscape)?;
    if decoded.contains(char::is_control) { Err(QueryError::Control) } else { Ok(Cow::Owned(decoded.into_owned())) }
}

#[cfg(test)]
mod tests;
