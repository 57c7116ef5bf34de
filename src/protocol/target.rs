//! Request targets: which place a path means, and which host was asked for.
//!
//! Backends compare paths raw, decoded, folded or normalised. A path that could mean different
//! places to different readers is refused, and whatever any reader could take for the Socket.IO
//! path is never passed on as ordinary HTTP.

use http::header::HOST;
use http::{HeaderMap, Uri};
use thiserror::Error;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The Socket.IO path itself.
    Engine,
    /// A file of the client bundle. To be passed on by GET or HEAD *without its query*: where the
    /// backend serves no bundle, its Engine.IO would read a handshake out of the query.
    Bundle,
    /// Something else that a backend could take for the Socket.IO path: 404.
    Under,
    /// Everything else.
    Other,
}

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The path does not begin with `/`, as in `*`.
    #[error("request target is not a path")]
    NotAPath,
    /// A raw character that paths do not have.
    #[error("path with a raw `\\`, `;`, `#`, `?`, blank, control or non-ASCII character")]
    RawCharacter,
    /// `%` without two hexadecimal digits.
    #[error("path with a broken escape")]
    BadEscape,
    /// An escape that hides a separator, a control character, or a character that needs none.
    #[error("path with an ambiguous escape")]
    AmbiguousEscape,
    /// An empty segment, `.` or `..`.
    #[error("path with an empty or dot segment")]
    Segment,
    /// No `Host`, or more than one.
    #[error("request without exactly one Host")]
    HostCount,
    /// A malformed host, or one with user information.
    #[error("malformed host")]
    BadHost,
    /// The target names another host than `Host`, or a scheme that is not HTTP.
    #[error("request target names another host")]
    HostMismatch,
}

/// Where `raw_path` leads; `socketio_path` is the configured one, such as `/socket.io/`.
///
/// A configured path without a trailing slash protects every path that begins with it, as Engine.IO compares prefixes.
pub fn classify(raw_path: &str, socketio_path: &str) -> Result<Place, TargetError> {
    check_path(raw_path)?;
    let base = socketio_path.strip_suffix('/').unwrap_or(socketio_path);
    if raw_path == socketio_path {
        return Ok(Place::Engine);
    }
    let file = raw_path.strip_prefix(base).and_then(|rest| rest.strip_prefix('/'));
    if file.is_some_and(is_bundle) {
        return Ok(Place::Bundle);
    }
    let (path, base) = (fold(raw_path), fold(base));
    let under = match path.strip_prefix(base.as_slice()) {
        // Python's servers take the path without its slash too.
        Some(rest) => !socketio_path.ends_with('/') || matches!(rest.first(), None | Some(b'/')),
        None => false,
    };
    Ok(if under { Place::Under } else { Place::Other })
}

/// The host and port that the request is for, from its only `Host` header.
///
/// An absolute-form target must name the same.
pub fn authority(uri: &Uri, headers: &HeaderMap) -> Result<String, TargetError> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(TargetError::HostCount) };
    let host = host.to_str().map_err(|_| TargetError::BadHost)?;
    if !is_authority(host) {
        return Err(TargetError::BadHost);
    }
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => {}
        (Some("http" | "https"), Some(target)) if target.as_str().eq_ignore_ascii_case(host) => {}
        _ => return Err(TargetError::HostMismatch),
    }
    Ok(host.to_ascii_lowercase())
}

/// Whether `text` is `host` or `host:port`, without user information.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => (None, port),
            _ => return false,
        },
        None => match text.find(':') {
            Some(colon) => {
                let (host, port) = text.split_at(colon);
                (Some(host), port)
            }
            None => (Some(text), ""),
        },
    };
    let name = |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let number = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    };
    host.is_none_or(name) && (port.is_empty() || port.strip_prefix(':').is_some_and(number))
}

fn check_path(path: &str) -> Result<(), TargetError> {
    if !path.starts_with('/') {
        return Err(TargetError::NotAPath);
    }
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || b"\\;#?".contains(&byte)) {
        return Err(TargetError::RawCharacter);
    }
    for (at, _) in path.match_indices('%') {
        match escaped_byte(path.as_bytes(), at).ok_or(TargetError::BadEscape)? {
            b'/' | b'\\' | b'-' | b'.' | b'_' | b'~' => return Err(TargetError::AmbiguousEscape),
            byte if byte.is_ascii_alphanumeric() || byte.is_ascii_control() => {
                return Err(TargetError::AmbiguousEscape);
            }
            _ => {}
        }
    }
    // The first piece is what stands before the leading slash, the last may be empty behind a trailing one.
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if matches!(segment, "." | "..") || (segment.is_empty() && segments.peek().is_some()) {
            return Err(TargetError::Segment);
        }
    }
    Ok(())
}

/// `socket.io.js` and its siblings, as Socket.IO's own `serveClient` names them.
fn is_bundle(file: &str) -> bool {
    let Some(rest) = file.strip_prefix("socket.io") else { return false };
    let rest = rest.strip_prefix(".esm").or_else(|| rest.strip_prefix(".msgpack")).unwrap_or(rest);
    let rest = rest.strip_prefix(".min").unwrap_or(rest);
    matches!(rest, ".js" | ".js.map")
}

/// The path as the most forgiving backend could read it: decoded, in lower case.
fn fold(path: &str) -> Vec<u8> {
    let mut decoded: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    decoded.make_ascii_lowercase();
    decoded
}

fn escaped_byte(path: &[u8], percent: usize) -> Option<u8> {
    let digit = |offset: usize| {
        let byte = path.get(percent.checked_add(offset)?)?;
        char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
    };
    Some((digit(1)? << 4) | digit(2)?)
}

#[cfg(test)]
mod tests;
