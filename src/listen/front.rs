//! The first request of a connection, read before it is known whether HTTP goes on.
//!
//! A WebSocket handshake is most of what a Socket.IO server is asked, and the last request of its
//! connection: it is read and answered here, in one buffer and one write. Everything else goes to
//! hyper, together with the bytes that were read.

use crate::proxy::reply::{Answer, Body, Inbound};
use crate::stream::Stream;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use http_body_util::{BodyExt, Either, Full};
use std::mem::MaybeUninit;
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
        let bytes = buffer.freeze();
        match parse(&bytes) {
            Head::Upgrade(request, end) => return First::Upgrade(request, bytes.slice(end..)),
            Head::Partial if bytes.len() < max_head => {
                buffer = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
                buffer.reserve(FIRST_READ);
            }
            Head::Partial | Head::Other => return First::Other(bytes),
        }
    }
}

enum Head {
    /// A request that asks for an upgrade and has no body, and where its head ends.
    Upgrade(Box<Request<Inbound>>, usize),
    /// Not whole yet.
    Partial,
    /// Anything else, and anything odd: hyper's to judge.
    Other,
}

fn parse(bytes: &Bytes) -> Head {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut lines) {
        Ok(httparse::Status::Complete(end)) => {
            upgrade(bytes, &parsed).map_or(Head::Other, |request| Head::Upgrade(request, end))
        }
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(_) => Head::Other,
    }
}

fn upgrade(bytes: &Bytes, parsed: &httparse::Request<'_, '_>) -> Option<Box<Request<Inbound>>> {
    let upgrades = || parsed.headers.iter().any(|line| line.name.eq_ignore_ascii_case("upgrade"));
    if parsed.method != Some("GET") || parsed.version != Some(1) || !upgrades() {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).ok()?;
        headers.append(name, value);
    }
    let has_body = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    if has_body || headers.contains_key(header::EXPECT) {
        return None;
    }
    let mut request = Box::new(Request::new(Either::Right(Full::default())));
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(parsed.path?.as_bytes())).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// An answer's status line and headers as bytes.
pub fn head(answer: &Answer) -> Vec<u8> {
    // A 101 and the OPEN behind it fit.
    let mut out = Vec::with_capacity(512);
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
        Body::Own(own) => own.collect().await.map(|c| c.to_bytes()).unwrap_or_default(),
        Body::Backend(_) | Body::Switch(_) => Bytes::new(),
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
        let head = |text: &str| match parse(&Bytes::from(text.replace('\n', "\r\n"))) {
            Head::Upgrade(request, end) => Some((request, end)),
            Head::Partial | Head::Other => None,
        };
        let (request, end) =
            head("GET /socket.io/?EIO=4 HTTP/1.1\nHost: a\nUpgrade: websocket\nX: 1\nx: 2\n\nrest").unwrap();
        assert_eq!(end, "GET /socket.io/?EIO=4 HTTP/1.1__Host: a__Upgrade: websocket__X: 1__x: 2____".len());
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
}
