//! The backend's answer to an upgrade request: bytes in, verdict out. A tunnel opens only on a flawless 101.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::{Header, ParserConfig, Status};
use std::mem::MaybeUninit;

/// A longer answer head is refused.
pub const MAX_HEAD: usize = 16 * 1024;
/// A head with more headers is refused.
const MAX_HEADERS: usize = 100;
/// RFC 6455 section 1.3.
const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Headers of a 101 that concern this connection only and end here.
const OURS: [&str; 12] = [
    "connection",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-version",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "trailer",
    "proxy-connection",
    "te",
];

/// What the bytes so far are.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// More bytes are needed.
    Incomplete,
    /// A 1xx of `len` bytes that announces another head.
    Interim {
        /// Bytes of this head.
        len: usize,
    },
    /// The upgrade was done.
    Switched {
        /// Bytes of the head; what follows is WebSocket.
        len: usize,
        /// The subprotocol chosen.
        protocol: Option<String>,
        /// The headers that are not about this connection, such as `set-cookie`; `None`: most have none.
        headers: Option<Box<HeaderMap>>,
    },
    /// An ordinary HTTP answer.
    Refused {
        /// Its status.
        status: u16,
        /// Bytes of the head; what follows is the body.
        len: usize,
        /// How the body ends.
        body: Framing,
    },
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With a chunk of length 0.
    Chunked,
    /// With the connection.
    Close,
}

/// The answer is not HTTP, or is a 101 that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AnswerError(pub &'static str);

/// `Sec-WebSocket-Accept` for `key`: base64(SHA-1(key + GUID)).
#[must_use]
pub fn accept_for(key: &[u8; 24]) -> [u8; 28] {
    let mut text = [0; 60];
    let (own, guid) = text.split_at_mut(key.len());
    own.copy_from_slice(key);
    guid.copy_from_slice(GUID);
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    let mut out = [0; 28];
    // 20 bytes are 28 characters; a miscount would leave zeros, which no header can equal.
    let _ = STANDARD.encode_slice(sha1.as_ref(), &mut out);
    out
}

/// Reads the head at the beginning of `bytes`. `accept` is what we must be told, `offered` the subprotocols we named.
///
/// # Errors
/// Where no tunnel may be opened and nothing can be told from the status either.
pub fn read(bytes: &[u8], accept: &[u8], offered: &[String]) -> Result<Answer, AnswerError> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut head, bytes, &mut headers);
    let len = match parsed {
        Ok(Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => return Ok(Answer::Incomplete),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(AnswerError("the answer's head is too large")),
        Err(_) => return Err(AnswerError("the answer is not HTTP")),
    };
    let status = head.code.unwrap_or(0);
    match status {
        101 => {
            if head.version != Some(1) {
                return Err(AnswerError("101 in HTTP/1.0"));
            }
            let protocol = verify(head.headers, accept, offered)?;
            Ok(Answer::Switched { len, protocol, headers: keep(head.headers)? })
        }
        100..=199 => Ok(Answer::Interim { len }),
        200..=599 => Ok(Answer::Refused { status, len, body: framing(head.headers) }),
        _ => Err(AnswerError("a status that does not exist")),
    }
}

/// RFC 6455 section 4.1, what the client must check. Returns the subprotocol.
fn verify(headers: &[Header<'_>], accept: &[u8], offered: &[String]) -> Result<Option<String>, AnswerError> {
    let upgrade = single(headers, "upgrade").ok_or(AnswerError("101 without exactly one Upgrade"))?;
    if !upgrade.eq_ignore_ascii_case(b"websocket") {
        return Err(AnswerError("101 to something that is not WebSocket"));
    }
    let mut connection = all(headers, "connection").flat_map(|value| value.split(|b| *b == b','));
    if !connection.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
        return Err(AnswerError("101 without Connection: upgrade"));
    }
    // Equal to what only a WebSocket server that saw our key can say: any other 101 is somebody else's tunnel.
    if single(headers, "sec-websocket-accept") != Some(accept) {
        return Err(AnswerError("101 with a missing or wrong Sec-WebSocket-Accept"));
    }
    if all(headers, "sec-websocket-extensions").next().is_some() {
        return Err(AnswerError("101 with extensions that were not asked for"));
    }
    if all(headers, "sec-websocket-protocol").next().is_none() {
        return Ok(None);
    }
    let chosen = single(headers, "sec-websocket-protocol").and_then(|value| std::str::from_utf8(value).ok());
    match chosen.filter(|chosen| offered.iter().any(|offer| offer == chosen)) {
        Some(chosen) => Ok(Some(chosen.to_string())),
        None => Err(AnswerError("101 with a subprotocol that was not asked for")),
    }
}

fn all<'a>(headers: &'a [Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

fn single<'a>(headers: &'a [Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut values = all(headers, name);
    values.next().filter(|_| values.next().is_none())
}

fn keep(headers: &[Header<'_>]) -> Result<Option<Box<HeaderMap>>, AnswerError> {
    let mut kept: Option<Box<HeaderMap>> = None;
    for header in headers.iter().filter(|h| !OURS.iter().any(|ours| h.name.eq_ignore_ascii_case(ours))) {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| AnswerError("a bad header name"))?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| AnswerError("a bad header value"))?;
        kept.get_or_insert_default().append(name, value);
    }
    Ok(kept)
}

fn framing(headers: &[Header<'_>]) -> Framing {
    if all(headers, "transfer-encoding").next().is_some() {
        return Framing::Chunked;
    }
    let length =
        single(headers, "content-length").and_then(|v| std::str::from_utf8(v).ok()).and_then(|v| v.parse().ok());
    length.map_or(Framing::Close, Framing::Length)
}

/// Is the body complete? `bytes` is everything after the head.
#[must_use]
pub fn is_whole(bytes: &[u8], framing: Framing) -> bool {
    match framing {
        Framing::Length(length) => u64::try_from(bytes.len()).unwrap_or(u64::MAX) >= length,
        Framing::Chunked => unchunk(bytes).1,
        Framing::Close => false,
    }
}

/// The body's content, as far as it is here.
#[must_use]
pub fn content(bytes: &[u8], framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Length(length) => {
            let end = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            bytes.get(..end).unwrap_or_default().to_vec()
        }
        Framing::Chunked => unchunk(bytes).0,
        Framing::Close => bytes.to_vec(),
    }
}

/// The content of the chunks that are here, and whether the last one is.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Ok(Status::Complete((skip, size))) = httparse::parse_chunk_size(bytes) {
        if size == 0 {
            return (content, true);
        }
        let rest = bytes.get(skip..).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        content.extend_from_slice(rest.get(..size.min(rest.len())).unwrap_or_default());
        let Some(after) = size.checked_add(2).and_then(|n| rest.get(n..)) else { break };
        bytes = after;
    }
    (content, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const GOOD: &str =
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn judge(text: &str) -> Result<Answer, AnswerError> {
        read(text.as_bytes(), ACCEPT.as_bytes(), &["chat".to_owned(), "mqtt".to_owned()])
    }

    fn switched(headers: &str) -> Result<Answer, AnswerError> {
        judge(&format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n"))
    }

    #[test]
    fn the_accept_value_is_that_of_rfc_6455() {
        assert_eq!(accept_for(KEY), ACCEPT.as_bytes());
    }

    #[test]
    fn a_flawless_101_opens_a_tunnel_and_its_own_headers_end_here() {
        let text = format!("HTTP/1.1 101 OK\r\n{GOOD}Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: x\r\n\r\nrest");
        let Answer::Switched { len, protocol, headers: Some(headers) } = judge(&text).unwrap() else { panic!() };
        assert_eq!(&text[len..], "rest");
        assert_eq!(protocol, None);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn p07_every_flaw_of_a_101_is_refused() {
        let accept = format!("Sec-WebSocket-Accept: {ACCEPT}\r\n");
        for bad in [
            String::new(),
            accept.clone(),
            format!("Upgrade: websocket\r\n{accept}"),
            format!("Connection: upgrade\r\n{accept}"),
            "Upgrade: websocket\r\nConnection: Upgrade\r\n".into(),
            format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{accept}"),
            format!("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n{accept}"),
            format!("Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n{accept}"),
            format!("Upgrade: websocket\r\nConnection: keep-alive\r\n{accept}"),
            format!("{GOOD}Sec-WebSocket-Accept: other\r\n"),
            format!("{GOOD}{accept}"),
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                .into(),
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo\r\n".into(),
            format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            format!("{GOOD}Sec-WebSocket-Protocol: other\r\n"),
            format!("{GOOD}Sec-WebSocket-Protocol: Chat\r\n"),
            format!("{GOOD}Sec-WebSocket-Protocol: chat, mqtt\r\n"),
            format!("{GOOD}Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt\r\n"),
            format!("{GOOD}Sec-WebSocket-Protocol:\r\n"),
        ] {
            assert!(switched(&bad).is_err(), "{bad:?}");
        }
        assert!(judge(&format!("HTTP/1.0 101 OK\r\n{GOOD}\r\n")).is_err());
    }

    #[test]
    fn spellings_that_mean_the_same_are_accepted() {
        let odd = format!(
            "UPGRADE: WebSocket\r\nconnection: keep-alive\r\nconnection: x , uPGRADE\r\nsec-websocket-accept:  {ACCEPT} \r\nSec-WebSocket-Protocol: mqtt\r\n"
        );
        let Answer::Switched { protocol, .. } = switched(&odd).unwrap() else { panic!() };
        assert_eq!(protocol.as_deref(), Some("mqtt"));
    }

    #[test]
    fn p53_interim_answers_are_not_the_answer() {
        assert_eq!(judge("HTTP/1.1 100 Continue\r\n\r\nHTTP"), Ok(Answer::Interim { len: 25 }));
        assert!(matches!(judge("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), Ok(Answer::Interim { .. })));
    }

    #[test]
    fn statuses_are_told_apart() {
        let status = |code: &str| judge(&format!("HTTP/1.1 {code} X\r\nContent-Length: 3\r\n\r\nabc"));
        for code in ["200", "204", "302", "401", "426", "503", "599"] {
            assert!(matches!(status(code), Ok(Answer::Refused { body: Framing::Length(3), .. })), "{code}");
        }
        for code in ["000", "099", "600", "999"] {
            assert!(status(code).is_err(), "{code}");
        }
    }

    #[test]
    fn garbage_and_bloat_are_not_an_answer() {
        for bad in ["SSH-2.0-OpenSSH\r\n", "\u{0}\u{1}", "HTTP/2 200\r\n", "HTTP/1.1 101 X\r\nA : b\r\n\r\n"] {
            assert!(judge(bad).is_err(), "{bad:?}");
        }
        assert_eq!(judge("HTTP/1.1 101 Switch"), Ok(Answer::Incomplete));
        assert_eq!(judge(""), Ok(Answer::Incomplete));
        let long = format!("{GOOD}X: {}\r\n", "a".repeat(20 * 1024));
        assert!(switched(&long).is_err());
        assert!(judge(&format!("HTTP/1.1 101 OK\r\nX: {}", "a".repeat(MAX_HEAD))).is_err());
        assert!(switched(&format!("{GOOD}{}", "a: b\r\n".repeat(MAX_HEADERS))).is_err());
    }

    #[test]
    fn bodies_end_as_they_say() {
        assert_eq!(content(b"abcdef", Framing::Length(3)), b"abc");
        assert!(is_whole(b"abc", Framing::Length(3)) && !is_whole(b"ab", Framing::Length(3)));
        assert_eq!(content(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", Framing::Chunked), b"abc");
        assert!(is_whole(b"2\r\nab\r\n0\r\n\r\n", Framing::Chunked) && !is_whole(b"2\r\nab\r\n", Framing::Chunked));
        assert_eq!(content(b"9\r\nab", Framing::Chunked), b"ab");
        assert_eq!(content(b"zz\r\nab", Framing::Chunked), b"");
        assert!(!is_whole(b"ab", Framing::Close));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), chunked: bool) {
            let _ = read(&bytes, ACCEPT.as_bytes(), &[]);
            let framing = if chunked { Framing::Chunked } else { Framing::Close };
            let _ = (is_whole(&bytes, framing), content(&bytes, framing));
        }

        #[test]
        fn every_cut_of_a_good_answer_is_incomplete(cut in 0_usize..150) {
            let text = format!("HTTP/1.1 101 OK\r\n{GOOD}\r\n");
            prop_assume!(cut < text.len());
            prop_assert_eq!(judge(&text[..cut]), Ok(Answer::Incomplete));
        }
    }
}
