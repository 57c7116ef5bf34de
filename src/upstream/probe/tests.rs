use super::*;
use crate::config::model;
use crate::upstream::support::{SWITCH, Server, accept_of, header_of, pool, read_head};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const OPEN: &str = r#"0{"sid":"x","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":1234567}"#;

fn timings() -> Timings {
    Timings::new(&model::SocketIo::default())
}

fn frame(text: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(length) if length < 126 => out.push(length),
        _ => {
            out.push(126);
            out.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
    out
}

/// Upgrades, sends `first`, returns the request's head and all that the client says after it.
async fn play(mut stream: TcpStream, first: Vec<u8>) -> (String, Vec<u8>) {
    let head = read_head(&mut stream).await;
    stream.write_all(format!("{SWITCH}\r\n").replace("{accept}", &accept_of(&head)).as_bytes()).await.unwrap();
    let _ = stream.write_all(&first).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    (head, rest)
}

async fn until(timings: &Timings, ping_interval: u64) {
    while timings.current().ping_interval != ping_interval {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_backends_numbers_are_learned_and_the_probe_leaves_politely() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let server = Server::start(move |stream, _| {
        let tx = tx.clone();
        async move { tx.send(play(stream, frame(OPEN)).await).unwrap() }
    })
    .await;
    let timings = timings();
    let _probe = Probe::start(pool(&[server.url()]), "/socket.io/", timings.clone(), Duration::from_secs(5));
    let (head, said) = rx.recv().await.unwrap();
    assert!(head.starts_with("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"), "{head}");
    assert_eq!(header_of(&head, "origin"), None);
    // A Close and nothing else: no CONNECT, so no application sees a socket.
    assert_eq!(said, [0x88, 0x80, 0, 0, 0, 0]);
    until(&timings, 300).await;
    let now = timings.current();
    assert_eq!((now.ping_timeout, now.max_payload), (200, 1_234_567));
    assert_eq!(server.seen(), 1);
}

#[tokio::test]
async fn a_backend_that_comes_later_is_learned_from_then() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let (timings, pool) = (timings(), pool(&[format!("http://{addr}")]));
    let _probe = Probe::start(pool.clone(), "/socket.io/", timings.clone(), Duration::from_secs(5));
    while !pool.backends()[0].is_failing() {
        tokio::task::yield_now().await;
    }
    let listener = TcpListener::bind(addr).await.unwrap();
    let _server = Server::on(listener, |stream, _| async move {
        play(stream, frame(OPEN)).await;
    });
    until(&timings, 300).await;
    assert!(!pool.backends()[0].is_failing(), "and it is well again before a client has come");
}

#[tokio::test]
async fn a_backend_that_failed_is_asked_again() {
    let server = Server::start(|stream, n| async move {
        play(stream, frame(&OPEN.replace("300", if n == 0 { "300" } else { "400" }))).await;
    })
    .await;
    let (timings, pool) = (timings(), pool(&[server.url()]));
    let _probe = Probe::start(pool.clone(), "/socket.io/", timings.clone(), Duration::from_secs(5));
    until(&timings, 300).await;
    pool.failed(&pool.backends()[0], Instant::now());
    until(&timings, 400).await;
    assert!(!pool.backends()[0].is_failing());
}

#[tokio::test]
async fn what_is_not_an_open_teaches_nothing() {
    let pool_of = |server: &Server| pool(&[server.url()]);
    for first in [
        frame("40"),
        frame("0{"),
        frame("0[]"),
        frame(r#"0{"sid":"x","pingInterval":-1,"pingTimeout":1}"#),
        frame(r#"0{"sid":"x"}"#),
        vec![0x82, 1, 0],
        vec![0x81, 0xff],
        vec![0x81, 127, 0, 0, 0, 0, 0, 0, 0, 1],
        vec![0x81, 126, 0xff, 0xff],
        vec![0x01, 2, b'0', b'{'],
        vec![0x88, 0],
        Vec::new(),
    ] {
        let sent = first.clone();
        let server = Server::start(move |mut stream, _| {
            let first = first.clone();
            async move {
                let head = read_head(&mut stream).await;
                let text = format!("{SWITCH}\r\n").replace("{accept}", &accept_of(&head));
                stream.write_all(text.as_bytes()).await.unwrap();
                let _ = stream.write_all(&first).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let pool = pool_of(&server);
        let head = DialHead::new("/");
        let result = once(&pool, &pool.backends()[0], &head, Duration::from_secs(5)).await;
        assert!(matches!(result, Err(DialError::Invalid { .. })), "{sent:?}: {result:?}");
    }
}

#[test]
fn an_open_in_pieces_is_waited_for() {
    let whole = frame(OPEN);
    for cut in 0..whole.len() {
        assert_eq!(text_frame(&whole[..cut]), Ok(None), "{cut}");
    }
    assert_eq!(text_frame(&whole), Ok(Some(OPEN.as_bytes())));
    let long = frame(&format!("0{{\"pingInterval\":1,\"pingTimeout\":2,\"x\":\"{}\"}}", "y".repeat(200)));
    assert!(text_frame(&long[..100]) == Ok(None) && text_frame(&long).unwrap().is_some());
}

#[test]
fn pauses_grow_and_are_longer_for_a_backend_that_refuses() {
    let away = DialError::Unavailable { detail: String::new() };
    let no = DialError::Refused { status: 401, body: Vec::new(), detail: String::new() };
    let seconds = |error, failures| retry(error, failures).as_secs();
    assert_eq!([0, 1, 4, 5, 40].map(|n| seconds(&away, n)), [1, 2, 16, 30, 30]);
    assert_eq!([0, 1, 4, 5, 40].map(|n| seconds(&no, n)), [1, 2, 16, 32, 300]);
}
