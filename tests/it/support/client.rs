//! A client that says exactly what it is told to: raw HTTP and raw WebSocket frames.

use crate::support::frames::{CLOSE, Frame};
use crate::support::within;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A request as it will stand on the wire.
#[derive(Clone)]
pub struct Ask {
    pub method: String,
    pub target: String,
    pub version: &'static str,
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            version: "HTTP/1.1",
            host: Some("gate.test".into()),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST of a polling client.
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref().to_vec();
        let ask = Self::new("POST", target).with("content-type", "text/plain;charset=UTF-8");
        Self { body, ..ask }.with_length()
    }

    /// A flawless WebSocket handshake.
    pub fn upgrade(target: &str) -> Self {
        Self::get(target)
            .with("connection", "Upgrade")
            .with("upgrade", "websocket")
            .with("sec-websocket-version", "13")
            .with("sec-websocket-key", KEY)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// One header's value changed.
    pub fn but(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    fn with_length(self) -> Self {
        let length = self.body.len().to_string();
        self.with("content-length", &length)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} {}\r\n", self.method, self.target, self.version);
        let host = self.host.iter().map(|host| ("host".to_owned(), host.clone()));
        for (name, value) in host.chain(self.headers.iter().cloned()) {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        [out.as_bytes(), &self.body].concat()
    }
}

/// An answer.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text())
    }
}

impl Answer {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The Engine.IO error code.
    pub fn code(&self) -> i64 {
        self.json()["code"].as_i64().unwrap_or_else(|| panic!("{self:?}"))
    }

    /// The reason word.
    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

/// The head of a request, as a server reads it.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The value of a header that stands there exactly once.
    pub fn only(&self, name: &str) -> &str {
        match self.all(name).as_slice() {
            [value] => value,
            other => panic!("{name}: {other:?} in {self:?}"),
        }
    }
}

/// One connection, either end.
pub struct Conn {
    io: Box<dyn Io>,
    buf: BytesMut,
}

impl Conn {
    pub fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), buf: BytesMut::new() }
    }

    /// `127.0.0.1:8080` or `unix:/path`.
    pub async fn open(addr: &str) -> Self {
        match addr.strip_prefix("unix:") {
            Some(path) => Self::new(UnixStream::connect(path).await.unwrap()),
            None => {
                let stream = TcpStream::connect(addr).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Self::new(stream)
            }
        }
    }

    pub async fn tls(addr: &str, config: Arc<rustls::ClientConfig>) -> io::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Self::new(TlsConnector::from(config).connect(name, tcp).await?))
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        within("the peer takes bytes", self.try_write(bytes)).await.unwrap();
    }

    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.io.write_all(bytes.as_ref()).await?;
        self.io.flush().await
    }

    /// Sends FIN.
    pub async fn finish(&mut self) {
        let _ = self.io.shutdown().await;
    }

    pub async fn ask(&mut self, ask: Ask) -> Answer {
        self.write(ask.bytes()).await;
        self.answer().await
    }

    pub async fn ask_raw(&mut self, request: &str) -> Answer {
        self.write(request).await;
        self.answer().await
    }

    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer before the end")
    }

    /// The next answer; `None`: the connection ended instead.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        let (first, headers) = within("an answer", self.head()).await?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status != 101 && status != 204 && status != 304 && status != 100 {
            answer.body = within("a body", self.body(&answer)).await;
        }
        Some(answer)
    }

    /// The next request, with its body.
    pub async fn request(&mut self) -> Option<(Head, Vec<u8>)> {
        let (first, headers) = self.head().await?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let shape = Answer { status: 0, headers, body: Vec::new() };
        let has_body = shape.header("content-length").is_some() || shape.header("transfer-encoding").is_some();
        let body = if has_body { self.body(&shape).await } else { Vec::new() };
        Some((Head { method, target, headers: shape.headers }, body))
    }

    async fn head(&mut self) -> Option<(String, Vec<(String, String)>)> {
        let end = loop {
            if let Some(at) = self.buf.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if self.more().await == 0 {
                assert!(self.buf.is_empty(), "half a head: {:?}", self.buf);
                return None;
            }
        };
        let head = self.buf.split_to(end + 4);
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next()?.to_owned();
        let pair = |line: &str| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
        Some((first, lines.filter_map(pair).collect()))
    }

    async fn body(&mut self, shape: &Answer) -> Vec<u8> {
        if shape.header("transfer-encoding").is_some() {
            return self.chunks().await;
        }
        let length = shape.header("content-length").map(|l| l.parse::<usize>().unwrap());
        while self.buf.len() < length.unwrap_or(usize::MAX) {
            if self.more().await == 0 {
                break;
            }
        }
        let n = length.unwrap_or(self.buf.len()).min(self.buf.len());
        self.buf.split_to(n).to_vec()
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let Some(at) = self.buf.windows(2).position(|w| w == b"\r\n") else {
                if self.more().await == 0 {
                    return out;
                }
                continue;
            };
            let size = String::from_utf8_lossy(&self.buf[..at]).into_owned();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            while self.buf.len() < at + 2 + size + 2 {
                if self.more().await == 0 {
                    return out;
                }
            }
            self.buf.advance(at + 2);
            out.extend_from_slice(&self.buf.split_to(size));
            self.buf.advance(2);
            if size == 0 {
                return out;
            }
        }
    }

    async fn more(&mut self) -> usize {
        self.io.read_buf(&mut self.buf).await.unwrap_or(0)
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.buf) {
                return Some(frame);
            }
            if self.more().await == 0 {
                return None;
            }
        }
    }

    /// Everything up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<u8> {
        let all = async { while self.more().await > 0 {} };
        within("the end of the connection", all).await;
        self.buf.split().to_vec()
    }
}

/// A WebSocket of a client.
pub struct Ws {
    pub conn: Conn,
    pub answer: Answer,
}

impl Ws {
    pub async fn open(mut conn: Conn, ask: Ask) -> Result<Ws, Answer> {
        let answer = conn.ask(ask).await;
        if answer.status != 101 {
            return Err(answer);
        }
        assert_eq!(answer.header("sec-websocket-accept"), Some(accept(KEY).as_str()));
        assert!(answer.header("upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket")));
        assert_eq!(answer.header("sec-websocket-extensions"), None);
        Ok(Ws { conn, answer })
    }

    pub async fn send(&mut self, text: &str) {
        self.write(Frame::text(text).masked()).await;
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.conn.write(bytes).await;
    }

    /// The next frame, whatever it is.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame", self.conn.frame()).await
    }

    /// The next message, which is text.
    pub async fn text(&mut self) -> String {
        self.next().await.expect("a message before the end").as_text().to_owned()
    }

    /// Close code and reason; 1006 where the stream just ended. Messages before it are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(frame) if frame.opcode == CLOSE => {
                    // As every client does, so that the gate need not wait.
                    let _ = self.conn.try_write(frame.masked()).await;
                    self.conn.finish().await;
                    assert!(self.conn.rest().await.is_empty(), "nothing follows a close frame");
                    return frame.as_close();
                }
                Some(_) => {}
                None => return (1006, String::new()),
            }
        }
    }
}

/// RFC 6455 section 1.3.
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}
