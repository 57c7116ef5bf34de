//! The backend: a Socket.IO server as far as the load goes. It answers every message with itself and every CONNECT
//! with a sid that names the user whose identity header came along, so that the client can compare.
//!
//! It never pings: no session of a measurement lives for a pingInterval.

use crate::Res;
use crate::wire;
use bytes::{Buf, BytesMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The header in which proxies that verify say who it is.
pub const IDENTITY: &str = "x-auth-sub";

/// How clients call a user that no proxy named.
pub const NOBODY: &str = "nobody";

/// A running backend; its thread ends with the process.
pub struct Backend {
    pub address: SocketAddr,
    pub jwks: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    sessions: AtomicU64,
    polling: Mutex<HashMap<String, Vec<u8>>>,
}

impl Backend {
    /// Starts the backend, and the identity provider's key server beside it.
    pub fn start(jwks: String) -> Res<Self> {
        let seen = Arc::new(Seen::default());
        let (ready, addresses) = std::sync::mpsc::channel();
        let shared = seen.clone();
        std::thread::spawn(move || -> Res<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (backend, keys) = (listen()?, listen()?);
                ready.send((backend.local_addr()?, keys.local_addr()?))?;
                tokio::spawn(serve_keys(keys, jwks));
                loop {
                    let (stream, _) = backend.accept().await?;
                    stream.set_nodelay(true)?;
                    tokio::spawn(serve(stream, shared.clone()));
                }
            })
        });
        let (address, jwks) = addresses.recv()?;
        Ok(Self { address, jwks, seen })
    }

    /// Requests that came in so far, upgrades among them.
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }
}

fn listen() -> Res<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(socket.listen(4096)?)
}

async fn serve_keys(listener: TcpListener, jwks: String) -> Res<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut buf = BytesMut::new();
        while wire::head_end(&buf).is_none() && stream.read_buf(&mut buf).await? > 0 {}
        let mut out = Vec::new();
        respond(&mut out, "200 OK", "application/json", jwks.as_bytes());
        stream.write_all(&out).await?;
    }
}

fn respond(out: &mut Vec<u8>, status: &str, kind: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

/// One connection: requests until one of them upgrades.
async fn serve(mut stream: TcpStream, seen: Arc<Seen>) -> Res<()> {
    let mut buf = BytesMut::with_capacity(4096);
    let mut out = Vec::new();
    loop {
        let whole = wire::head_end(&buf).and_then(|end| Some((end, wire::body(&buf, end)?)));
        let Some((end, (body, used))) = whole else {
            if stream.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
            continue;
        };
        seen.requests.fetch_add(1, Ordering::Relaxed);
        let head = String::from_utf8_lossy(&buf[..end]).into_owned();
        let who = wire::header(&head, IDENTITY).unwrap_or(NOBODY).to_owned();
        buf.advance(used);
        out.clear();
        if let Some(key) = wire::header(&head, "sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            out.extend_from_slice(answer.as_bytes());
            let sid = format!("{who}.{}", seen.sessions.fetch_add(1, Ordering::Relaxed));
            wire::put(&mut out, wire::TEXT, open(&sid, false).as_bytes(), None);
            stream.write_all(&out).await?;
            return websocket(stream, buf, &sid).await;
        }
        answer(&mut out, &head, &body, &who, &seen);
        stream.write_all(&out).await?;
    }
}

fn open(sid: &str, polling: bool) -> String {
    let upgrades = if polling { "\"websocket\"" } else { "" };
    let timings = "\"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1000000";
    format!("0{{\"sid\":\"{sid}\",\"upgrades\":[{upgrades}],{timings}}}")
}

/// A polling request or one to the application.
fn answer(out: &mut Vec<u8>, head: &str, body: &[u8], who: &str, seen: &Seen) {
    let mut first = head.split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let Some(query) = target.strip_prefix("/socket.io/?") else {
        return respond(out, "200 OK", "application/json", format!("{{\"who\":\"{who}\"}}").as_bytes());
    };
    let mut polling = seen.polling.lock().unwrap_or_else(PoisonError::into_inner);
    let sid = query.split('&').find_map(|pair| pair.strip_prefix("sid="));
    match (method, sid) {
        ("GET", None) => {
            let sid = format!("{who}.{}", seen.sessions.fetch_add(1, Ordering::Relaxed));
            respond(out, "200 OK", "text/plain; charset=UTF-8", open(&sid, true).as_bytes());
            polling.insert(sid, Vec::new());
        }
        ("GET", Some(sid)) if polling.contains_key(sid) => {
            let queue = polling.get_mut(sid).map(std::mem::take).unwrap_or_default();
            let packets = if queue.is_empty() { b"6".to_vec() } else { queue };
            respond(out, "200 OK", "text/plain; charset=UTF-8", &packets);
        }
        ("POST", Some(sid)) if polling.contains_key(sid) => {
            match body {
                b"1" => drop(polling.remove(sid)),
                body if body.starts_with(b"40") => {
                    polling.insert(sid.to_owned(), format!("40{{\"sid\":\"{sid}\"}}").into_bytes());
                }
                _ => {}
            }
            respond(out, "200 OK", "text/html", b"ok");
        }
        _ => respond(out, "400 Bad Request", "application/json", br#"{"code":1,"message":"Session ID unknown"}"#),
    }
}

/// Frames in, the same frames out; one write for what was read.
async fn websocket(mut stream: TcpStream, mut buf: BytesMut, sid: &str) -> Res<()> {
    let (mut out, mut room) = (Vec::new(), 4096);
    loop {
        let mut over = false;
        while let Some(frame) = wire::frame(&buf) {
            let end = frame.payload.end;
            let payload = &mut buf[frame.payload];
            if let Some(key) = frame.key {
                wire::mask(payload, key);
            }
            match (frame.first & 0x0f, &payload[..]) {
                (1, [b'4', b'0', ..]) => {
                    wire::put(&mut out, wire::TEXT, format!("40{{\"sid\":\"{sid}\"}}").as_bytes(), None);
                }
                (1, [b'4', b'1', ..]) => {}
                (1, [b'1', ..]) => over = true,
                (8, payload) => {
                    wire::put(&mut out, wire::CLOSE, payload, None);
                    over = true;
                }
                (_, payload) => wire::put(&mut out, frame.first, payload, None),
            }
            buf.advance(end);
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        if over {
            return Ok(());
        }
        buf.reserve(room);
        match stream.read_buf(&mut buf).await? {
            0 => return Ok(()),
            // Only connections with much to read get much room.
            n if n >= room => room = (room * 4).min(256 * 1024),
            _ => {}
        }
    }
}
