//! An embedded Socket.IO server: Engine.IO 4 over WebSocket, the one transport a gate dials.

use crate::dev::door::{self, Answer, Hosts};
use crate::dev::echo::{Echo, Out, Over, Seen};
use crate::dev::page::CLIENT;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

/// `maxPayload`, Socket.IO's default.
const MAX_PAYLOAD: usize = 1_000_000;

/// Open sessions at a time.
const SESSIONS: usize = 1024;

/// Headers the application is shown.
const SHOWN: [&str; 4] = ["x-auth-", "x-siogate-", "x-forwarded-", "traceparent"];

/// Heartbeat and patience.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// From one pong to the next ping.
    pub ping_interval: Duration,
    /// From a ping to its pong.
    pub ping_timeout: Duration,
    /// From OPEN to the first CONNECT.
    pub connect_timeout: Duration,
}

impl Default for Timings {
    /// Short enough that a token of twenty seconds sees some heartbeats.
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
        }
    }
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, hosts: Hosts, timings: Timings, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(SESSIONS));
    let sessions = stop.clone();
    let handler = move |request| {
        let answer = answer(request, timings, &room, &sessions);
        async { answer }
    };
    door::serve(listener, hosts, stop, handler).await;
}

fn answer(mut request: Request<Incoming>, timings: Timings, room: &Arc<Semaphore>, stop: &CancellationToken) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => door::text(StatusCode::OK, "siogate dev: the embedded backend\n"),
        (&Method::GET, "/socket.io/socket.io.js" | "/socket.io/socket.io.min.js") => {
            door::answer(StatusCode::OK, "text/javascript; charset=utf-8", CLIENT)
        }
        (_, "/socket.io/") => match handshake(&request) {
            Ok(accept) => {
                let Ok(place) = Arc::clone(room).try_acquire_owned() else {
                    return door::text(StatusCode::SERVICE_UNAVAILABLE, "too many sessions\n");
                };
                let seen = seen(&request);
                let upgrade = hyper::upgrade::on(&mut request);
                let stop = stop.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let session = async {
                        if let Ok(stream) = upgrade.await {
                            run(TokioIo::new(stream), seen, timings).await;
                        }
                    };
                    let _ = stop.run_until_cancelled(session).await;
                });
                switching(accept)
            }
            Err((code, message)) => door::json(StatusCode::BAD_REQUEST, &json!({ "code": code, "message": message })),
        },
        _ => door::text(StatusCode::NOT_FOUND, "nothing here\n"),
    }
}

/// The errors are those of engine.io, to the digit.
fn handshake<B>(request: &Request<B>) -> Result<String, (u8, &'static str)> {
    let query = request.uri().query().unwrap_or_default();
    let last = |name: &str| query.split('&').rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    match last("transport") {
        Some("websocket" | "polling") => {}
        _ => return Err((0, "Transport unknown")),
    }
    if last("sid").is_some_and(|sid| !sid.is_empty()) {
        return Err((1, "Session ID unknown"));
    }
    if request.method() != Method::GET {
        return Err((2, "Bad handshake method"));
    }
    if last("EIO") != Some("4") {
        return Err((5, "Unsupported protocol version"));
    }
    let headers = request.headers();
    let has = |name, token: &str| {
        let mut values = headers.get_all(name).iter().filter_map(|v: &HeaderValue| v.to_str().ok());
        values.any(|v| v.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    let upgrading = last("transport") == Some("websocket") && has(CONNECTION, "upgrade") && has(UPGRADE, "websocket");
    match headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) if upgrading && has(SEC_WEBSOCKET_VERSION, "13") => Ok(derive_accept_key(key.as_bytes())),
        _ => Err((3, "Bad request")),
    }
}

fn switching(accept: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

fn seen<B>(request: &Request<B>) -> Seen {
    let target = request.uri().path_and_query().map(|t| t.as_str().to_owned()).unwrap_or_default();
    Seen { headers: shown(request.headers()), target }
}

/// The headers a gate may have set; equal names are joined as Node joins them.
fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let mut out = Map::new();
    for name in headers.keys().filter(|name| SHOWN.iter().any(|prefix| name.as_str().starts_with(prefix))) {
        let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        out.insert(name.as_str().to_owned(), values.join(", ").into());
    }
    out
}

/// An id as base64id makes them: 20 characters.
fn new_id() -> String {
    let mut id = [0_u8; 15];
    // Without randomness there is no TLS and no token either; ids that collide harm nobody here.
    let _ = aws_lc_rs::rand::fill(&mut id);
    URL_SAFE_NO_PAD.encode(id)
}

/// What the heartbeat waits for.
enum Beat {
    Ping(Instant),
    Pong(Instant),
}

async fn run<S>(stream: S, seen: Seen, timings: Timings)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .max_message_size(Some(MAX_PAYLOAD))
        .max_frame_size(Some(MAX_PAYLOAD));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let _ = converse(&mut socket, seen, timings).await;
    let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
}

/// Until either side is done.
async fn converse<S>(socket: &mut WebSocketStream<S>, seen: Seen, timings: Timings) -> Result<(), Over>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let open = json!({
        "sid": new_id(),
        "upgrades": [],
        "pingInterval": millis(timings.ping_interval),
        "pingTimeout": millis(timings.ping_timeout),
        "maxPayload": MAX_PAYLOAD,
    });
    let mut echo = Echo::new(seen, new_id);
    let patience = Instant::now() + timings.connect_timeout;
    let mut beat = Beat::Ping(Instant::now() + timings.ping_interval);
    send(socket, timings, vec![Out::Text(format!("0{open}"))]).await?;
    loop {
        let (Beat::Ping(due) | Beat::Pong(due)) = beat;
        let answers = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => match text.as_str().split_at_checked(1) {
                    Some(("4", packet)) => echo.text(packet)?,
                    Some(("3", _)) => {
                        beat = Beat::Ping(Instant::now() + timings.ping_interval);
                        Vec::new()
                    }
                    _ => return Err(Over),
                },
                Some(Ok(Message::Binary(data))) => echo.binary(data)?,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => Vec::new(),
                _ => return Err(Over),
            },
            () = sleep_until(due) => match beat {
                Beat::Ping(_) => {
                    beat = Beat::Pong(Instant::now() + timings.ping_timeout);
                    vec![Out::Text("2".into())]
                }
                Beat::Pong(_) => return Err(Over),
            },
            () = sleep_until(patience), if !echo.joined() => return Err(Over),
        };
        send(socket, timings, answers).await?;
    }
}

/// A peer that does not read for a whole `pingTimeout` is gone.
async fn send<S>(socket: &mut WebSocketStream<S>, timings: Timings, packets: Vec<Out>) -> Result<(), Over>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if packets.is_empty() {
        return Ok(());
    }
    let write = async {
        for packet in packets {
            let message = match packet {
                Out::Text(text) => Message::text(text),
                Out::Binary(data) => Message::Binary(data),
            };
            socket.feed(message).await.map_err(|_| Over)?;
        }
        socket.flush().await.map_err(|_| Over)
    };
    timeout(timings.ping_timeout, write).await.unwrap_or(Err(Over))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    type Client = WebSocketStream<DuplexStream>;

    /// A session over a pipe; with time paused, a wait is as long as it is exact.
    async fn session() -> (Client, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut seen = Seen::default();
        seen.headers.insert("x-auth-subject".into(), "alice".into());
        let server = tokio::spawn(run(far, seen, Timings::default()));
        (WebSocketStream::from_raw_socket(near, Role::Client, None).await, server)
    }

    async fn text(client: &mut Client) -> String {
        client.next().await.unwrap().unwrap().into_text().unwrap().to_string()
    }

    async fn say(client: &mut Client, packet: &str) {
        client.send(Message::text(packet)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn open_says_the_timings_and_pings_keep_to_them() {
        let (mut client, _server) = session().await;
        let open: Value = serde_json::from_str(text(&mut client).await.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["pingInterval"], 5000);
        assert_eq!(open["pingTimeout"], 10_000);
        assert_eq!(open["maxPayload"], 1_000_000);
        assert_eq!(open["sid"].as_str().unwrap().len(), 20);
        for _ in 0..3 {
            let before = Instant::now();
            assert_eq!(text(&mut client).await, "2");
            assert_eq!(before.elapsed().as_secs(), 5);
            say(&mut client, "3").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_answer_pings_is_left() {
        let (mut client, server) = session().await;
        text(&mut client).await;
        say(&mut client, "40").await;
        let before = Instant::now();
        while let Some(Ok(_)) = client.next().await {}
        assert_eq!(before.elapsed().as_secs(), 15);
        drop(client);
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_connects_is_left() {
        let (mut client, _server) = session().await;
        text(&mut client).await;
        let before = Instant::now();
        while let Some(Ok(message)) = client.next().await {
            if message.is_text() {
                let _ = client.send(Message::text("3")).await; // a ping is due just when patience ends
            }
        }
        assert_eq!(before.elapsed().as_secs(), 45);
    }

    #[tokio::test(start_paused = true)]
    async fn events_and_attachments_come_back() {
        let (mut client, _server) = session().await;
        text(&mut client).await;
        say(&mut client, "40").await;
        assert!(text(&mut client).await.starts_with("40{"));
        assert!(text(&mut client).await.starts_with(r#"42["identity","#));
        say(&mut client, r#"420["hello"]"#).await;
        assert_eq!(text(&mut client).await, r#"430["hello, alice"]"#);
        say(&mut client, r#"451-["echo",{"_placeholder":true,"num":0}]"#).await;
        client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
        assert_eq!(text(&mut client).await, r#"451-["echo",{"_placeholder":true,"num":0}]"#);
        assert_eq!(client.next().await.unwrap().unwrap().into_data(), Bytes::from_static(&[1, 2, 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn engine_packets_that_a_client_may_not_send_end_the_session() {
        for bad in ["2", "2probe", "5", "0{}", "7", "", "é"] {
            let (mut client, _server) = session().await;
            text(&mut client).await;
            say(&mut client, bad).await;
            assert!(client.next().await.unwrap().unwrap().is_close(), "{bad}");
        }
    }

    #[test]
    fn a_handshake_is_refused_as_engine_io_refuses_it() {
        let ask = |query: &str, upgrade: bool| {
            let mut builder = Request::builder().uri(format!("/socket.io/?{query}"));
            if upgrade {
                builder = builder
                    .header(CONNECTION, "keep-alive, Upgrade")
                    .header(UPGRADE, "websocket")
                    .header(SEC_WEBSOCKET_VERSION, "13")
                    .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
            }
            handshake(&builder.body(()).unwrap()).map_err(|(code, _)| code)
        };
        // RFC 6455 section 1.3
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert_eq!(ask("x=1&EIO=4&transport=websocket", true), Ok(accept));
        assert_eq!(ask("EIO=4&transport=webtransport", true), Err(0));
        assert_eq!(ask("", true), Err(0));
        assert_eq!(ask("EIO=4&transport=websocket&sid=abc", true), Err(1));
        assert_eq!(ask("EIO=4&transport=websocket", false), Err(3));
        assert_eq!(ask("EIO=4&transport=polling", true), Err(3));
        assert_eq!(ask("EIO=3&transport=websocket", true), Err(5));
    }

    #[test]
    fn only_identity_and_forwarding_headers_are_shown() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-auth-subject", "alice"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-siogate-assertion", "a.b.c"),
            ("traceparent", "00-1-2-3"),
            ("authorization", "Bearer t"),
            ("cookie", "token=t"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.append("x-forwarded-for", HeaderValue::from_static("5.6.7.8"));
        let shown = shown(&headers);
        let names: Vec<_> = shown.keys().map(String::as_str).collect();
        assert_eq!(names, ["traceparent", "x-auth-subject", "x-forwarded-for", "x-siogate-assertion"]);
        assert_eq!(shown["x-forwarded-for"], "1.2.3.4, 5.6.7.8");
    }
}
