//! The first request of a connection, read before it is known whether HTTP goes on.
//!
//! A WebSocket handshake is most of what a Socket.IO server is asked, and the last request of its
//! connection: it is read and answered here, in one buffer and one write. Everything else goes to
//! hyper, together with the bytes that were read.

use crate::proxy::reply::{Answer, Inbound};
use crate::stream::Stream;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use http_body_util::{BodyExt, Either, Empty};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Most handshakes fit.
const FIRST_READ: usize = 2 * 1024;

/// More headers are hyper's to refuse.
const MAX_HEADERS: usize = 100;

/// What a connection begins with.
pub enum First {
    /// A request for an upgrade, and what was sent behind it.
    Upgrade(Box<Request<Inbound>>, Bytes),
    /// Something else: bytes for hyper.
    Other(Bytes),
    /// Nothing, or nothing in time.
    Closed,
}

/// Reads the first head.
pub async fn first(stream: &mut Stream, max_head: usize, patience: Duration) -> First {
    timeout(patience, read(stream, max_head)).await.unwrap_or(First::Closed)
}

async fn read(stream: &mut Stream, max_head: usize) -> First {
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return First::Closed,
            Ok(_) => {}
        }
        // A look at the end is enough to know that the head is not there yet, in nearly all cases.
        match head_end(&buffer) {
            Some(end) => {
                let whole = buffer.freeze();
                return match upgrade(whole.slice(..end)) {
                    Some(request) => First::Upgrade(Box::new(request), whole.slice(end..)),
                    None => First::Other(whole),
                };
            }
            None if buffer.len() >= max_head => return First::Other(buffer.freeze()),
            None => buffer.reserve(FIRST_READ),
        }
    }
}

/// Where the first empty line ends. A bare line feed ends a line too, as it does for hyper (RFC 9112 section 2.2).
fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(at, _)| match buffer.get(at + 1..) {
        Some([b'\n', ..]) => Some(at + 2),
        Some([b'\r', b'\n', ..]) => Some(at + 3),
        _ => None,
    })
}

/// The request in a head, where it asks for an upgrade and has no body; anything odd is hyper's to judge.
fn upgrade(head: Bytes) -> Option<Request<Inbound>> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut lines);
    if !matches!(parsed.parse(&head), Ok(httparse::Status::Complete(end)) if end == head.len()) {
        return None;
    }
    if parsed.method != Some("GET") || parsed.version != Some(1) {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(line.value)).ok()?;
        headers.append(name, value);
    }
    let has_body = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    if has_body || !headers.contains_key(header::UPGRADE) || headers.contains_key(header::EXPECT) {
        return None;
    }
    let mut request = Request::new(Either::Right(Empty::new()));
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = Uri::from_maybe_shared(head.slice_ref(parsed.path?.as_bytes())).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// An answer's status line and headers as bytes.
pub fn head(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let status = answer.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in answer.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Writes a refusal and closes. Refusals are the gate's own and short.
pub async fn refuse(mut stream: Stream, answer: Answer, patience: Duration) {
    let mut out = head(&answer);
    let body = match answer.into_body() {
        Either::Left(own) => own.collect().await.map(|c| c.to_bytes()).unwrap_or_default(),
        Either::Right(_) => Bytes::new(),
    };
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
    let _ = timeout(patience, async {
        stream.write_all(&out).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the refusal might be lost.
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_read_without_hyper_and_everything_else_is_left_to_it() {
        let head = |text: &str| upgrade(Bytes::copy_from_slice(text.replace('\n', "\r\n").as_bytes()));
        let request = head("GET /socket.io/?EIO=4 HTTP/1.1\nHost: a\nUpgrade: websocket\nX: 1\nx: 2\n\n").unwrap();
        assert_eq!(request.uri().path(), "/socket.io/");
        assert_eq!(request.headers().get_all("x").iter().count(), 2);
        for other in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "POST / HTTP/1.1\nHost: a\nUpgrade: websocket\n\n",
            "GET / HTTP/1.0\nHost: a\nUpgrade: websocket\n\n",
            "GET / HTTP/1.1\nHost: a\nUpgrade: websocket\nContent-Length: 1\n\n",
            "GET / HTTP/1.1\nHost: a\nUpgrade: websocket\nTransfer-Encoding: chunked\n\n",
            "GET / HTTP/1.1\nHost: a\nUpgrade: websocket\nBad Name: 1\n\n",
            "GET / HTTP/1.1\nHost: a\n Upgrade: websocket\n\n",
            "GET  / HTTP/1.1\nUpgrade: websocket\n\n",
        ] {
            assert!(head(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
        assert_eq!(head_end(b"GET / HTTP/1.1\n\nrest"), Some(16));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nA: b\n\r\n"), Some(23));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n\r"), None);
        assert_eq!(head_end(b""), None);
    }
}
