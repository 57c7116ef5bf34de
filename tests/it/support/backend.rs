//! A Socket.IO server that does what its script says, and remembers every byte it was sent.

use crate::support::client::{Conn, Head, accept};
use crate::support::frames::{BINARY, CLOSE, Frame, PING, PONG, TEXT};
use crate::support::within;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

type Reply = Arc<dyn Fn(&Head) -> Vec<u8> + Send + Sync>;

/// How it behaves.
#[derive(Clone)]
pub struct Script {
    /// What a WebSocket handshake is answered with.
    pub switch: Reply,
    /// What follows it: OPEN.
    pub greeting: Reply,
    /// The connection ends behind that.
    pub hangs_up: bool,
    /// CONNECTs are answered, events and binary messages come back.
    pub answers: bool,
    /// What a plain request is answered with.
    pub plain: Reply,
}

/// OPEN as socket.io 4 writes it.
pub fn open_packet(sid: &str) -> String {
    format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket","webtransport"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    )
}

static SIDS: AtomicUsize = AtomicUsize::new(1);

/// A 101 with further header lines.
pub fn switching(head: &Head, more: &str) -> Vec<u8> {
    let accept = accept(head.only("sec-websocket-key"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
    .into_bytes()
}

impl Default for Script {
    fn default() -> Self {
        let greeting = |head: &Head| {
            let sid = format!("backendsid{}", SIDS.fetch_add(1, Ordering::Relaxed));
            let mut out = Frame::text(&open_packet(&sid)).plain();
            if head.target.contains("EIO=3") {
                out.extend(Frame::text("40").plain());
            }
            out
        };
        let plain =
            |_: &Head| b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\nbackend".to_vec();
        Self {
            switch: Arc::new(|head| switching(head, "")),
            greeting: Arc::new(greeting),
            hangs_up: false,
            answers: true,
            plain: Arc::new(plain),
        }
    }
}

impl Script {
    pub fn switch(mut self, reply: impl Fn(&Head) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.switch = Arc::new(reply);
        self
    }

    pub fn greeting(mut self, reply: impl Fn(&Head) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.greeting = Arc::new(reply);
        self
    }

    pub fn plain(mut self, reply: impl Fn(&Head) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.plain = Arc::new(reply);
        self
    }

    pub fn hangs_up(self) -> Self {
        Self { hangs_up: true, ..self }
    }

    pub fn silent(self) -> Self {
        Self { answers: false, ..self }
    }

    /// Another OPEN.
    pub fn opens(self, open: &str) -> Self {
        let frame = Frame::text(open).plain();
        self.greeting(move |_| frame.clone())
    }
}

#[derive(Default)]
struct Seen {
    accepted: AtomicUsize,
    closed: AtomicUsize,
    requests: Mutex<Vec<(Head, Vec<u8>)>>,
}

/// A running backend; it ends when dropped.
pub struct Backend {
    pub url: String,
    seen: Arc<Seen>,
    links: AsyncMutex<mpsc::UnboundedReceiver<Link>>,
    task: AbortOnDropHandle<()>,
}

enum Order {
    Write(Vec<u8>),
    Close(Vec<u8>),
    Cut,
}

/// One WebSocket of the gate.
pub struct Link {
    pub head: Head,
    frames: mpsc::UnboundedReceiver<Frame>,
    out: mpsc::UnboundedSender<Order>,
    /// Bytes that the gate's socket has taken.
    pub written: Arc<AtomicU64>,
}

impl Backend {
    pub async fn start() -> Backend {
        Self::with(Script::default()).await
    }

    pub async fn with(script: Script) -> Backend {
        Self::at("127.0.0.1:0", script).await
    }

    pub async fn at(address: &str, script: Script) -> Backend {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(url, script, listener, |listener| async move {
            let (stream, listener) = (listener.accept().await.ok()?.0, listener);
            stream.set_nodelay(true).ok()?;
            Some((Conn::new(stream), listener))
        })
    }

    pub async fn tls(script: Script, config: Arc<rustls::ServerConfig>) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(config);
        Self::serve(url, script, (listener, acceptor), |(listener, acceptor)| async move {
            loop {
                let (stream, _) = listener.accept().await.ok()?;
                if let Ok(stream) = acceptor.accept(stream).await {
                    return Some((Conn::new(stream), (listener, acceptor)));
                }
            }
        })
    }

    pub async fn unix(script: Script, path: &std::path::Path) -> Backend {
        let listener = UnixListener::bind(path).unwrap();
        Self::serve(format!("unix:{}", path.display()), script, listener, |listener| async move {
            Some((Conn::new(listener.accept().await.ok()?.0), listener))
        })
    }

    fn serve<L, F, R>(url: String, script: Script, mut listener: L, accept: F) -> Backend
    where
        L: Send + 'static,
        F: Fn(L) -> R + Send + 'static,
        R: Future<Output = Option<(Conn, L)>> + Send,
    {
        let seen = Arc::new(Seen::default());
        let (sender, links) = mpsc::unbounded_channel();
        let shared = seen.clone();
        let run = async move {
            let mut connections = JoinSet::new();
            while let Some((conn, back)) = accept(listener).await {
                listener = back;
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                while connections.try_join_next().is_some() {}
                let (script, seen, sender) = (script.clone(), shared.clone(), sender.clone());
                connections.spawn(async move {
                    serve(conn, script, &seen, &sender).await;
                    seen.closed.fetch_add(1, Ordering::Relaxed);
                });
            }
        };
        Backend { url, seen, links: AsyncMutex::new(links), task: AbortOnDropHandle::new(tokio::spawn(run)) }
    }

    /// Connections that it has accepted.
    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::Relaxed)
    }

    /// Connections that have ended.
    pub fn closed(&self) -> usize {
        self.seen.closed.load(Ordering::Relaxed)
    }

    /// Every request so far, with its body.
    pub fn requests(&self) -> Vec<(Head, Vec<u8>)> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Nobody has ever come.
    pub fn is_untouched(&self) -> bool {
        self.accepted() == 0
    }

    /// The next WebSocket of the gate.
    pub async fn link(&self) -> Link {
        let mut links = self.links.lock().await;
        within("the gate dials", links.recv()).await.unwrap()
    }

    /// Dies, with all its connections.
    pub async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Link {
    /// The next frame of the gate; `None`: it has gone.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame at the backend", self.frames.recv()).await
    }

    pub async fn text(&mut self) -> String {
        self.next().await.expect("a message before the end").as_text().to_owned()
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await {
            all.push(frame);
        }
        all
    }

    /// Frames that are there already.
    pub fn waiting(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frames.try_recv().ok()).collect()
    }

    pub fn send(&self, text: &str) {
        self.write(Frame::text(text).plain());
    }

    pub fn write(&self, bytes: Vec<u8>) {
        let _ = self.out.send(Order::Write(bytes));
    }

    /// Begins the close handshake.
    pub fn close(&self, code: u16, reason: &str) {
        let _ = self.out.send(Order::Close(Frame::close(code, reason).plain()));
    }

    /// Ends the connection without a word.
    pub fn cut(&self) {
        let _ = self.out.send(Order::Cut);
    }
}

async fn serve(mut conn: Conn, script: Script, seen: &Seen, links: &mpsc::UnboundedSender<Link>) {
    while let Some((head, body)) = conn.request().await {
        seen.requests.lock().unwrap().push((head.clone(), body));
        if head.all("upgrade").is_empty() {
            if conn.try_write((script.plain)(&head)).await.is_err() {
                return;
            }
            continue;
        }
        let switch = (script.switch)(&head);
        let greets = switch.windows(13).any(|w| w == b"HTTP/1.1 101 ");
        let greeting = if greets { (script.greeting)(&head) } else { Vec::new() };
        if conn.try_write([switch, greeting].concat()).await.is_err() || script.hangs_up {
            return;
        }
        let (frame_sender, frames) = mpsc::unbounded_channel();
        let (out, orders) = mpsc::unbounded_channel();
        let written = Arc::new(AtomicU64::new(0));
        let _ = links.send(Link { head, frames, out, written: written.clone() });
        return talk(conn, &script, frame_sender, orders, &written).await;
    }
}

async fn talk(
    mut conn: Conn,
    script: &Script,
    frames: mpsc::UnboundedSender<Frame>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    written: &AtomicU64,
) {
    let (mut ordered, mut closing) = (true, false);
    loop {
        let reply = tokio::select! {
            order = orders.recv(), if ordered => {
                let bytes = match order {
                    Some(Order::Write(bytes)) => bytes,
                    Some(Order::Close(bytes)) => {
                        closing = true;
                        bytes
                    }
                    Some(Order::Cut) => return,
                    None => {
                        ordered = false;
                        continue;
                    }
                };
                for piece in bytes.chunks(16 * 1024) {
                    if conn.try_write(piece).await.is_err() {
                        return;
                    }
                    written.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                continue;
            }
            frame = conn.frame() => {
                let Some(frame) = frame else { return };
                let reply = answer(&frame, script.answers);
                let closed = closing && frame.opcode == CLOSE;
                let _ = frames.send(frame);
                if closed {
                    return conn.finish().await;
                }
                reply
            }
        };
        if let Some(reply) = reply {
            let _ = conn.try_write(reply.plain()).await;
            if reply.opcode == CLOSE {
                return conn.finish().await;
            }
        }
    }
}

fn answer(frame: &Frame, answers: bool) -> Option<Frame> {
    let text = std::str::from_utf8(&frame.payload).unwrap_or_default();
    match frame.opcode {
        CLOSE => Some(Frame::new(CLOSE, &frame.payload)),
        PING => Some(Frame::new(PONG, &frame.payload)),
        TEXT if !answers => None,
        TEXT if text.starts_with("40") => {
            let namespace = match text[2..].split_once(',') {
                Some((namespace, _)) if namespace.starts_with('/') => format!("{namespace},"),
                _ => String::new(),
            };
            Some(Frame::text(&format!(r#"40{namespace}{{"sid":"socket"}}"#)))
        }
        TEXT if text.starts_with("42") || text.starts_with("45") => Some(frame.clone()),
        TEXT if text == "2" => Some(Frame::text("3")),
        BINARY if answers => Some(frame.clone()),
        _ => None,
    }
}
