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
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The header in which proxies that verify say who it is.
pub const IDENTITY: &str = "x-auth-sub";

/// How clients call a user that no proxy named.
pub const NOBODY: &str = "nobody";

/// What it says to all sessions at once.
pub const SHOUT: &str = "42[\"m\",\"to all of you, from the backend, in just 64 bytes! ---\"]";

/// A running backend; its threads end with the process.
pub struct Backend {
    pub address: SocketAddr,
    pub jwks: SocketAddr,
    seen: Arc<Seen>,
    /// Kept while it runs.
    life: Mutex<Option<oneshot::Sender<()>>>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    sessions: AtomicU64,
    polling: Mutex<HashMap<String, Vec<u8>>>,
    shout: watch::Sender<()>,
}

impl Seen {
    /// A session id that tells whom it was made for.
    fn sid(&self, who: &str) -> String {
        format!("{who}_{:016}", self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

impl Backend {
    /// Starts the backend, and the identity provider's key server beside it.
    pub fn start(jwks: String) -> Res<Self> {
        let seen = Arc::new(Seen::default());
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let keys = thread(anywhere, None, move |stream| drop(tokio::spawn(serve_keys(stream, jwks.clone()))))?;
        let backend = Self { address: anywhere, jwks: keys, seen, life: Mutex::default() };
        let address = backend.revive()?;
        Ok(Self { address, ..backend })
    }

    /// As if it were killed: every connection ends, and nobody listens.
    pub fn kill(&self) {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Starts, where it was if it ran before.
    pub fn revive(&self) -> Res<SocketAddr> {
        let (life, end) = oneshot::channel();
        let seen = self.seen.clone();
        let serve = move |stream| drop(tokio::spawn(serve(stream, seen.clone())));
        let address = thread(self.address, Some(end), serve)?;
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life);
        Ok(address)
    }

    /// One message to every session by WebSocket.
    pub fn shout(&self) {
        self.seen.shout.send_replace(());
    }

    /// Requests that came in so far, upgrades among them.
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }
}

/// Accepts on a thread of its own, until the end; says where.
fn thread(
    address: SocketAddr,
    end: Option<oneshot::Receiver<()>>,
    serve: impl Fn(TcpStream) + Send + 'static,
) -> Res<SocketAddr> {
    let (ready, bound) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> Res<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            let listener = socket.bind(address).and_then(|()| socket.listen(4096));
            ready.send(listener.as_ref().map_err(ToString::to_string).and_then(address_of))?;
            let listener = listener?;
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    serve(stream);
                }
            };
            let end = async {
                match end {
                    Some(end) => drop(end.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = accept => result,
                () = end => Ok(()),
            }
        })
    });
    Ok(bound.recv()??)
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|e| e.to_string())
}

async fn serve_keys(mut stream: TcpStream, jwks: String) -> Res<()> {
    let mut buf = BytesMut::new();
    while wire::head_end(&buf).is_none() && stream.read_buf(&mut buf).await? > 0 {}
    let mut out = Vec::new();
    respond(&mut out, "200 OK", "application/json", jwks.as_bytes());
    Ok(stream.write_all(&out).await?)
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
            let sid = seen.sid(&who);
            wire::put(&mut out, wire::TEXT, open(&sid, false).as_bytes(), None);
            stream.write_all(&out).await?;
            return websocket(stream, buf, &sid, seen.shout.subscribe()).await;
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
            let sid = seen.sid(who);
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
async fn websocket(mut stream: TcpStream, mut buf: BytesMut, sid: &str, mut shout: watch::Receiver<()>) -> Res<()> {
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
        let read = tokio::select! {
            biased;
            read = stream.read_buf(&mut buf) => read?,
            _ = shout.changed() => {
                wire::put(&mut out, wire::TEXT, SHOUT.as_bytes(), None);
                continue;
            }
        };
        match read {
            0 => return Ok(()),
            // Only connections with much to read get much room.
            n if n >= room => room = (room * 4).min(256 * 1024),
            _ => {}
        }
    }
}
