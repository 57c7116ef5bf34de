//! Scripted servers for the tests of this room: raw bytes out, at port 0.

use crate::config::model;
use crate::upstream::answer;
use crate::upstream::pool::Pool;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server that plays a script to every connection; ends when dropped.
pub struct Server {
    pub addr: SocketAddr,
    seen: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Server {
    /// `script` gets each connection and its number from 0.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(TcpStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub fn on<F, Fut>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(TcpStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                connections.spawn(script(stream, count.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { addr, seen, _task: task }
    }

    /// Answers each connection's first request with fixed text, then reads until the client closes.
    pub async fn saying(text: impl Into<String>) -> Self {
        let text: Arc<str> = text.into().into();
        Self::start(move |mut stream, _| {
            let text = Arc::clone(&text);
            async move {
                let head = read_head(&mut stream).await;
                let text = text.replace("{accept}", &accept_of(&head));
                let _ = stream.write_all(text.as_bytes()).await;
                drain(&mut stream).await;
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Connections so far.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

/// An address where nobody listens.
pub async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub fn pool(urls: &[String]) -> Pool {
    Pool::new(&model::Upstream { urls: urls.to_vec(), ..model::Upstream::default() }).unwrap()
}

/// Everything up to the empty line; what was read until the end, where there is none.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Reads to the end.
pub async fn drain(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut sink = Vec::new();
    let _ = stream.read_to_end(&mut sink).await;
}

/// The accept value for the key in a request head; empty where there is none.
pub fn accept_of(head: &str) -> String {
    let key = header_of(head, "sec-websocket-key").and_then(|key| key.as_bytes().try_into().ok());
    key.map(|key| String::from_utf8(answer::accept_for(key).to_vec()).unwrap()).unwrap_or_default()
}

/// The value of the only header of that name.
pub fn header_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values =
        head.lines().filter_map(|line| line.split_once(": ")).filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let value = values.next().map(|(_, value)| value);
    assert!(values.next().is_none(), "two {name} headers");
    value
}

/// A good 101, up to the empty line.
pub const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n";
