//! One client: comes in by whichever door, with a token in whichever place, and looks at what it gets.

use crate::Res;
use crate::backend::NOBODY;
use crate::tokens::Credential;
use crate::wire;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where the token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Nowhere,
    Header,
    Query,
    Cookie,
    Connect,
}

/// How a client logs in, and what the backend must have been told.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    pub place: Place,
    pub token: &'a str,
    /// The user that the backend must see; `None` where the proxy in between verifies nothing.
    pub user: Option<&'a str>,
}

impl<'a> Login<'a> {
    pub fn new(place: Place, credential: &'a Credential, verified: bool) -> Self {
        Self { place, token: &credential.token, user: verified.then_some(&credential.user) }
    }

    fn head(&self, method: &str, path: &str, query: &str, more: &str) -> String {
        let (mut header, mut suffix) = (String::new(), String::new());
        match self.place {
            Place::Header => header = format!("Authorization: Bearer {}\r\n", self.token),
            Place::Cookie => header = format!("Cookie: theme=dark; token={}; lang=en\r\n", self.token),
            Place::Query => suffix = format!("&token={}", self.token),
            Place::Nowhere | Place::Connect => {}
        }
        format!(
            "{method} {path}{query}{suffix} HTTP/1.1\r\nHost: app.example.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux \
             x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\nAccept: */*\r\n\
             Accept-Language: en-US,en;q=0.9\r\nOrigin: https://app.example.test\r\n{more}{header}\r\n"
        )
    }

    fn connect(&self) -> String {
        match self.place {
            Place::Connect => format!("40{{\"token\":\"{}\"}}", self.token),
            _ => "40".into(),
        }
    }

    fn check(&self, sid: &str) -> Res<()> {
        let expected = self.user.unwrap_or(NOBODY);
        match sid.rsplit_once('_') {
            Some((who, _)) if who == expected => Ok(()),
            _ => Err(format!("the backend was told {sid:?} instead of {expected:?}").into()),
        }
    }
}

/// The sid in an OPEN or in the answer to a CONNECT.
fn sid(packet: &str) -> Option<&str> {
    packet.split_once("\"sid\":\"")?.1.split('"').next()
}

/// A connection to a proxy.
pub struct Client {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Client {
    pub async fn dial(proxy: SocketAddr) -> Res<Self> {
        let stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buf: Vec::new() })
    }

    /// A session by WebSocket, up to the answer to its CONNECT.
    pub async fn open(proxy: SocketAddr, login: &Login<'_>) -> Res<Self> {
        let mut client = Self::dial(proxy).await?;
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = login.head("GET", "/socket.io/", "?EIO=4&transport=websocket", upgrade);
        client.stream.write_all(request.as_bytes()).await?;
        let end = client.until(wire::head_end).await?;
        let status = String::from_utf8_lossy(&client.buf[..end]).chars().skip(9).take(3).collect::<String>();
        if status != "101" {
            return Err(format!("refused with {status}").into());
        }
        client.buf.drain(..end);
        let open = client.packet().await?;
        if !open.starts_with("0{") {
            return Err("no OPEN".into());
        }
        client.send(&login.connect()).await?;
        let answer = client.packet().await?;
        match sid(&answer) {
            Some(sid) if answer.starts_with("40") => login.check(sid)?,
            _ => return Err("refused by CONNECT_ERROR".into()),
        }
        Ok(client)
    }

    async fn until<T>(&mut self, whole: impl Fn(&[u8]) -> Option<T>) -> Res<T> {
        loop {
            if let Some(found) = whole(&self.buf) {
                return Ok(found);
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err("closed".into());
            }
        }
    }

    /// The next text frame.
    pub async fn packet(&mut self) -> Res<String> {
        let frame = self.until(wire::frame).await?;
        let end = frame.payload.end;
        let text = String::from_utf8_lossy(&self.buf[frame.payload]).into_owned();
        self.buf.drain(..end);
        if frame.first == wire::TEXT { Ok(text) } else { Err("closed".into()) }
    }

    async fn send(&mut self, packet: &str) -> Res<()> {
        let mut frame = Vec::new();
        wire::put(&mut frame, wire::TEXT, packet.as_bytes(), Some(wire::KEY));
        Ok(self.stream.write_all(&frame).await?)
    }

    /// A close frame, and the end of the connection.
    pub async fn close(mut self) -> Res<()> {
        let mut frame = Vec::new();
        wire::put(&mut frame, wire::CLOSE, &[0x03, 0xe8], Some(wire::KEY));
        self.stream.write_all(&frame).await?;
        while self.stream.read_buf(&mut self.buf).await? > 0 {}
        Ok(())
    }

    /// Writes `sent` and compares what comes back with `expected`.
    pub async fn exchange(&mut self, sent: &[u8], expected: &[u8], buf: &mut Vec<u8>) -> Res<()> {
        // More room than expected: a read that fills its buffer would cost another one that finds nothing.
        buf.resize(expected.len() + 64, 0);
        let (mut reader, mut writer) = self.stream.split();
        let read = async {
            let mut have = 0;
            while have < expected.len() {
                match reader.read(&mut buf[have..]).await? {
                    0 => return Err::<_, Box<dyn Error + Send + Sync>>("closed".into()),
                    n => have += n,
                }
            }
            if buf[..have] == *expected { Ok(()) } else { Err("what came back is not what was sent".into()) }
        };
        let write = async { writer.write_all(sent).await.map_err(Into::into) };
        let ((), ()) = tokio::try_join!(write, read)?;
        Ok(())
    }

    /// Messages of one size, `in_flight` at a time, until the time is over; how many came back intact.
    pub async fn echo(&mut self, size: usize, in_flight: usize, until: Instant) -> Res<u64> {
        let message = event(size);
        let (mut sent, mut expected, mut buf) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..in_flight {
            wire::put(&mut sent, wire::TEXT, message.as_bytes(), Some(wire::KEY));
            wire::put(&mut expected, wire::TEXT, message.as_bytes(), None);
        }
        let mut count = 0;
        while Instant::now() < until {
            self.exchange(&sent, &expected, &mut buf).await?;
            count += in_flight as u64;
        }
        Ok(count)
    }

    async fn request(&mut self, request: String) -> Res<String> {
        self.stream.write_all(request.as_bytes()).await?;
        let (body, used) = self.until(|buf| wire::body(buf, wire::head_end(buf)?)).await?;
        let status = String::from_utf8_lossy(&self.buf).chars().skip(9).take(3).collect::<String>();
        self.buf.drain(..used);
        if status == "200" { Ok(String::from_utf8(body)?) } else { Err(format!("refused with {status}").into()) }
    }

    /// One request to the application.
    pub async fn call(&mut self, login: &Login<'_>) -> Res<()> {
        let body = self.request(login.head("GET", "/api/items", "?page=1", "")).await?;
        let expected = login.user.unwrap_or(NOBODY);
        if body == format!("{{\"who\":\"{expected}\"}}") {
            return Ok(());
        }
        Err(format!("the backend was told {body} instead of {expected:?}").into())
    }
}

/// A whole session by polling on one connection: GET OPEN, POST CONNECT, GET its answer, POST close.
pub async fn poll(proxy: SocketAddr, login: &Login<'_>) -> Res<()> {
    let mut client = Client::dial(proxy).await?;
    let path = "/socket.io/";
    let opened = client.request(login.head("GET", path, "?EIO=4&transport=polling", "")).await?;
    let query = format!("?EIO=4&transport=polling&sid={}", sid(&opened).ok_or("no OPEN")?);
    let post = |body: &str| {
        let more = format!("Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n", body.len());
        login.head("POST", path, &query, &more) + body
    };
    client.request(post(&login.connect())).await?;
    for _ in 0..3 {
        let packets = client.request(login.head("GET", path, &query, "")).await?;
        if packets == "6" {
            continue;
        }
        match sid(&packets) {
            Some(sid) if packets.starts_with("40") => login.check(sid)?,
            _ => return Err("refused by CONNECT_ERROR".into()),
        }
        client.request(post("1")).await?;
        return Ok(());
    }
    Err("no answer to CONNECT".into())
}

/// A Socket.IO event of exactly so many bytes.
pub fn event(size: usize) -> String {
    let (head, tail) = ("42[\"m\",\"", "\"]");
    let filling = size.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", "abcdefghijklmnopqrstuvwxyz".chars().cycle().take(filling).collect::<String>())
}
