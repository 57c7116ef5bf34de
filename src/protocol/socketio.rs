//! Socket.IO packets, as they stand in Engine.IO messages behind the `4`.
//!
//! CONNECT is read strictly: only spellings with one certain meaning, whatever the backend's parser
//! is. The backend is never sent the client's bytes but [`Connect::serialise`]'s, so that gate and
//! backend cannot disagree on who connects to what. Of all other packets only the head is read.

use crate::protocol::engineio::Version;
use crate::protocol::json::{self, JsonError};
use serde_json::{Map, Value};
use std::fmt;
use thiserror::Error;

/// The namespace that every client of protocol 3 is in.
pub const ROOT: &str = "/";

/// The type of a Socket.IO packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SioKind {
    /// `0`
    Connect,
    /// `1`
    Disconnect,
    /// `2`
    Event,
    /// `3`
    Ack,
    /// `4`
    ConnectError,
    /// `5`
    BinaryEvent,
    /// `6`
    BinaryAck,
}

/// The beginning of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The type.
    pub kind: SioKind,
    /// How many binary messages follow.
    pub attachments: u32,
}

/// A CONNECT packet of a client.
///
/// `Debug` shows the namespace only: data and query hold tokens.
#[derive(Clone, PartialEq)]
pub struct Connect {
    /// `/` or such as `/admin`.
    pub namespace: String,
    /// What stood behind `?` (protocol 3 only).
    pub query: Option<String>,
    /// The `auth` payload (protocol 4 only).
    pub data: Option<Map<String, Value>>,
}

/// Why a CONNECT packet is refused. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The type is not 0.
    #[error("not a CONNECT packet")]
    NotConnect,
    /// The namespace holds characters that servers read in different ways.
    #[error("CONNECT with a malformed namespace")]
    Namespace,
    /// The namespace's query holds such characters, or is one in protocol 4.
    #[error("CONNECT with a malformed namespace query")]
    Query,
    /// Behind the namespace stands neither nothing nor a JSON object: an id, blanks, an array.
    #[error("CONNECT data is not a JSON object")]
    NotObject,
    /// The data is broken JSON, nested too deep, or followed by something.
    #[error("CONNECT data is malformed JSON")]
    Json,
    /// A key of the data, at whatever depth, stands there twice.
    #[error("CONNECT data has a duplicate key")]
    DuplicateKey,
}

/// Reads a CONNECT packet; `text` is the message without its `4`, so it starts with `0`.
pub fn parse_connect(v: Version, text: &str) -> Result<Connect, ConnectError> {
    let rest = text.strip_prefix('0').ok_or(ConnectError::NotConnect)?;
    let (address, data) = split_namespace(rest);
    let (namespace, query) = match address.split_once('?') {
        _ if address.is_empty() => (ROOT, None),
        Some((namespace, query)) => (namespace, Some(query)),
        None => (address, None),
    };
    if !is_namespace(namespace) || (v == Version::V3 && !is_plain_path(namespace)) {
        return Err(ConnectError::Namespace);
    }
    // Protocol 4: Node takes a query as part of the name, Python cuts it off.
    if query.is_some_and(|query| v == Version::V4 || !is_query(query)) {
        return Err(ConnectError::Query);
    }
    let data = match (v, data) {
        (_, "") => None,
        (Version::V4, data) => Some(json::object(data)?),
        (Version::V3, _) => return Err(ConnectError::NotObject),
    };
    Ok(Connect { namespace: namespace.to_owned(), query: query.map(str::to_owned), data })
}

impl Connect {
    /// The whole Engine.IO packet, such as `40/admin,{"token":"T"}`.
    pub fn serialise(&self, v: Version) -> String {
        let mut out = String::from("40");
        match (v, &self.query) {
            (Version::V3, Some(query)) => {
                out.push_str(&self.namespace);
                out.push('?');
                out.push_str(query);
                out.push(',');
            }
            _ => push_namespace(&mut out, &self.namespace),
        }
        if let (Version::V4, Some(data)) = (v, &self.data) {
            out.push_str(&json_text(data));
        }
        out
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The packet that refuses a CONNECT: `44/admin,{...}`.
pub fn connect_error(v: Version, ns: &str, message: &str, code: &str) -> String {
    let (message, code) = (Value::from(message), Value::from(code));
    let mut out = String::from("44");
    push_namespace(&mut out, ns);
    out.push_str(&match v {
        // Clients of protocol 3 hand the value itself to their `error` event.
        Version::V3 => format!(r#"{{"message":{message},"code":{code}}}"#),
        Version::V4 => format!(r#"{{"message":{message},"data":{{"code":{code}}}}}"#),
    });
    out
}

/// The packet that ends a namespace: `41` or `41/admin,`.
pub fn disconnect(ns: &str) -> String {
    let mut out = String::from("41");
    push_namespace(&mut out, ns);
    out
}

/// Reads the head of a message, whose `4` has been removed and which may have been cut off behind 16 bytes.
///
/// `None`: not a packet that all servers read alike.
pub fn head(message: &[u8]) -> Option<Head> {
    let (digit, rest) = message.split_first()?;
    let kind = match digit {
        b'0' => SioKind::Connect,
        b'1' => SioKind::Disconnect,
        b'2' => SioKind::Event,
        b'3' => SioKind::Ack,
        b'4' => SioKind::ConnectError,
        b'5' => SioKind::BinaryEvent,
        b'6' => SioKind::BinaryAck,
        _ => return None,
    };
    let attachments = match kind {
        SioKind::BinaryEvent | SioKind::BinaryAck => attachments(rest)?,
        _ => 0,
    };
    Some(Head { kind, attachments })
}

/// Reads the server's answer to CONNECT (without the `4`): namespace, `sid` and `pid`.
pub fn parse_connected(text: &str) -> Option<(String, Option<String>, Option<String>)> {
    let (address, data) = split_namespace(text.strip_prefix('0')?);
    let namespace = if address.is_empty() { ROOT } else { address };
    if data.is_empty() {
        return Some((namespace.to_owned(), None, None));
    }
    // Nearly always there is nothing else in it.
    let only = data.strip_prefix("{\"sid\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    if let Some(sid) = only.filter(|sid| sid.bytes().all(json::is_plain)) {
        return Some((namespace.to_owned(), Some(sid.to_owned()), None));
    }
    let mut data = json::object(data).ok()?;
    let mut take = |key: &str| match data.remove(key) {
        Some(Value::String(value)) => Some(value),
        _ => None,
    };
    Some((namespace.to_owned(), take("sid"), take("pid")))
}

/// Whether a packet (without the `4`) is what an application says, not who comes and goes.
pub fn is_said(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'2' | b'3' | b'5' | b'6'))
}

/// Reads a client's DISCONNECT (without the `4`): its namespace, where every server reads the same.
pub fn parse_disconnect(text: &str) -> Option<&str> {
    let (address, rest) = split_namespace(text.strip_prefix('1')?);
    let namespace = if address.is_empty() { ROOT } else { address };
    (rest.is_empty() && is_namespace(namespace)).then_some(namespace)
}

/// The namespace of any packet (without the `4`), literally, with a query if one stands there.
pub fn namespace_of(text: &str) -> &str {
    let mut rest = text.get(1..).unwrap_or_default();
    if text.starts_with(['5', '6']) {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest = rest.strip_prefix('-').unwrap_or(rest);
    }
    match split_namespace(rest).0 {
        "" => ROOT,
        namespace => namespace,
    }
}

/// Splits at the comma that ends the namespace. Without a comma all of it is the namespace, as in every server.
fn split_namespace(rest: &str) -> (&str, &str) {
    if rest.starts_with('/') { rest.split_once(',').unwrap_or((rest, "")) } else { ("", rest) }
}

fn push_namespace(out: &mut String, ns: &str) {
    if ns != ROOT {
        out.push_str(ns);
        out.push(',');
    }
}

/// An event with one argument of JSON, such as `42/admin,["name",{}]`.
pub fn event(ns: &str, name: &str, argument: &Value) -> String {
    let mut out = String::from("42");
    push_namespace(&mut out, ns);
    out.push_str(&Value::from(vec![Value::from(name), argument.clone()]).to_string());
    out
}

/// An event of a client.
pub struct Event<'a> {
    /// `/` or such as `/admin`.
    pub namespace: &'a str,
    /// The digits of the id that its acknowledgement carries.
    pub id: Option<&'a str>,
    /// The name, then what it is called with; `None` where it is no JSON.
    pub arguments: Option<Vec<Value>>,
}

/// Reads an event (without the `4`).
pub fn parse_event(text: &str) -> Option<Event<'_>> {
    let (address, rest) = split_namespace(text.strip_prefix('2')?);
    let namespace = if address.is_empty() { ROOT } else { address };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (id, arguments) = rest.split_at(digits);
    Some(Event { namespace, id: Some(id).filter(|id| !id.is_empty()), arguments: json::array(arguments) })
}

/// The acknowledgement of an event, such as `43/admin,7[{}]`.
pub fn ack(ns: &str, id: &str, argument: &Value) -> String {
    let mut out = String::from("43");
    push_namespace(&mut out, ns);
    out.push_str(id);
    out.push_str(&Value::from(vec![argument.clone()]).to_string());
    out
}

/// No blanks and no controls; nothing that a URL parser escapes, cuts or folds; nothing that begins data.
fn is_namespace(namespace: &str) -> bool {
    namespace.starts_with('/') && !namespace.contains(|c: char| is_ambiguous(c) || "{}[]|^'?".contains(c))
}

/// Servers of protocol 3 read the namespace as a URL: no host, no dot segments.
fn is_plain_path(namespace: &str) -> bool {
    let dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    !namespace.starts_with("//") && !namespace.split('/').any(dots)
}

fn is_query(query: &str) -> bool {
    !query.contains(is_ambiguous)
}

fn is_ambiguous(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\u{feff}\"\\#<>`,".contains(c)
}

/// The count in front of `-`, in decimal without leading zeros; whatever follows is not looked at.
fn attachments(rest: &[u8]) -> Option<u32> {
    // Ten digits are the longest u32; the cut of 16 bytes lies behind them.
    let dash = rest.iter().take(11).position(|byte| *byte == b'-')?;
    let digits = rest.get(..dash)?;
    let canonical = match digits {
        [b'0', _, ..] => false,
        digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
    };
    if canonical { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

fn json_text(data: &Map<String, Value>) -> String {
    // Maps with string keys always serialise.
    serde_json::to_string(data).unwrap_or_default()
}

impl From<JsonError> for ConnectError {
    fn from(error: JsonError) -> ConnectError {
        match error {
            JsonError::NotObject => ConnectError::NotObject,
            JsonError::Malformed => ConnectError::Json,
            JsonError::DuplicateKey => ConnectError::DuplicateKey,
        }
    }
}

#[cfg(test)]
mod tests;
