//! The head of a request in the form that most of them have: bytes in, request out.

use crate::proxy::reply::Inbound;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use http_body_util::{Either, Full};
use httparse::Status;
use std::mem::MaybeUninit;

/// More headers are hyper's to refuse.
const MAX_HEADERS: usize = 100;

/// Digits of the longest body that is read here.
const MAX_DIGITS: usize = 7;

/// What bytes begin with.
#[allow(clippy::large_enum_variant)] // taken apart at once
pub enum Head {
    /// Half a head.
    Partial,
    /// Anything unusual, anything odd: not to be judged here.
    Other,
    /// A request, with its body.
    Whole(Whole),
}

/// A request that is there from its first byte to its last.
pub struct Whole {
    /// The request.
    pub request: Box<Request<Inbound>>,
    /// How many bytes it is.
    pub len: usize,
    /// It asks for an upgrade.
    pub upgrade: bool,
    /// It is the last one of its connection.
    pub close: bool,
}

/// Reads the first request.
pub fn parse(bytes: &Bytes) -> Head {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut lines) {
        Ok(Status::Complete(end)) => whole(bytes, &parsed, end).map_or(Head::Other, Head::Whole),
        Ok(Status::Partial) => Head::Partial,
        Err(_) => Head::Other,
    }
}

fn method(name: &str) -> Option<(Method, bool)> {
    Some(match name {
        "GET" => (Method::GET, false),
        "HEAD" => (Method::HEAD, false),
        "OPTIONS" => (Method::OPTIONS, false),
        "DELETE" => (Method::DELETE, false),
        "POST" => (Method::POST, true),
        "PUT" => (Method::PUT, true),
        "PATCH" => (Method::PATCH, true),
        _ => return None,
    })
}

fn whole(bytes: &Bytes, parsed: &httparse::Request<'_, '_>, head: usize) -> Option<Whole> {
    let (method, may_have_body) = method(parsed.method?)?;
    let path = parsed.path.filter(|path| path.starts_with('/') && parsed.version == Some(1))?;
    let (mut length, mut upgrade, mut close) = (None, false, false);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        match name {
            header::TRANSFER_ENCODING | header::EXPECT => return None,
            header::CONTENT_LENGTH if length.is_some() || !may_have_body => return None,
            header::CONTENT_LENGTH => length = Some(decimal(line.value)?),
            header::UPGRADE => upgrade = true,
            header::CONNECTION => close |= names_close(line.value),
            _ => {}
        }
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).ok()?);
    }
    if upgrade && method != Method::GET {
        return None;
    }
    // A body that is still on its way has limits of its own.
    let len = head.checked_add(length.unwrap_or(0)).filter(|len| *len <= bytes.len())?;
    let mut request = Box::new(Request::new(Either::Right(Full::new(bytes.slice(head..len)))));
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(path.as_bytes())).ok()?;
    *request.headers_mut() = headers;
    Some(Whole { request, len, upgrade, close })
}

fn decimal(digits: &[u8]) -> Option<usize> {
    let fits = (1..=MAX_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    fits.then(|| digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// Whether a `Connection` header says that nothing follows.
fn names_close(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Head {
        parse(&Bytes::from(text.replace('\n', "\r\n")))
    }

    #[test]
    fn requests_follow_each_other_to_the_byte() {
        let text = "POST /a HTTP/1.1\nhost: x\ncontent-length: 3\n\nabcGET /b HTTP/1.1\nconnection: x, Close\n\n";
        let bytes = Bytes::from(text.replace('\n', "\r\n"));
        let Head::Whole(first) = parse(&bytes) else { panic!() };
        let Either::Right(body) = first.request.into_body() else { panic!() };
        assert_eq!((body.into_inner().unwrap(), first.close), (Bytes::from_static(b"abc"), false));
        let Head::Whole(second) = parse(&bytes.slice(first.len..)) else { panic!() };
        assert_eq!((second.request.uri().path(), second.close), ("/b", true));
        assert_eq!(first.len + second.len, bytes.len());
    }

    #[test]
    fn p04_whatever_could_be_read_in_two_ways_is_not_read_here() {
        for head in [
            "POST / HTTP/1.1\ncontent-length: 1\ncontent-length: 1\n\na",
            "POST / HTTP/1.1\ncontent-length: 1, 1\n\na",
            "POST / HTTP/1.1\ncontent-length: +1\n\na",
            "POST / HTTP/1.1\ncontent-length:\n\na",
            "POST / HTTP/1.1\ncontent-length: 99999999999999999999\n\na",
            "POST / HTTP/1.1\ncontent-length: 2\n\na",
            "POST / HTTP/1.1\ntransfer-encoding: chunked\n\n0\n\n",
            "POST / HTTP/1.1\ncontent-length: 1\ntransfer-encoding: x\n\na",
            "POST / HTTP/1.1\ncontent-length : 1\n\na",
            "POST / HTTP/1.1\ncontent-length: 1\n x\n\na",
            "POST / HTTP/1.1\nexpect: 100-continue\n\n",
            "POST / HTTP/1.1\nupgrade: websocket\n\n",
            "GET / HTTP/1.1\ncontent-length: 1\n\na",
            "GET / HTTP/1.1\nx: a\0b\n\n",
            "GET / HTTP/1.1\nx: a\rb\n\n",
            "GET / HTTP/1.0\n\n",
            "GET http://a/ HTTP/1.1\n\n",
            "OPTIONS * HTTP/1.1\n\n",
            "TRACE / HTTP/1.1\n\n",
            "get / HTTP/1.1\n\n",
            "GET  / HTTP/1.1\n\n",
            "PRI * HTTP/2.0\n\nSM\n\n",
        ] {
            assert!(matches!(read(head), Head::Other), "{head:?}");
        }
        assert!(matches!(read(&format!("GET / HTTP/1.1\n{}\n", "a: b\n".repeat(MAX_HEADERS + 1))), Head::Other));
        assert!(matches!(read("GET / HTTP/1.1\nhost: a\n"), Head::Partial) && matches!(read(""), Head::Partial));
    }
}
