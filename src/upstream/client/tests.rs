use super::*;
use crate::upstream::support::{Server, dead, drain, header_of, pool, read_head};
use http_body_util::{Empty, Full};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn client(urls: &[String]) -> ProxyClient {
    ProxyClient::new(pool(urls), Duration::from_secs(5))
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

async fn body(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Answers every request on a connection.
async fn keep_alive() -> Server {
    Server::start(|mut stream, _| async move {
        while !read_head(&mut stream).await.is_empty() {
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn requests_travel_in_origin_form_without_the_headers_of_the_other_connection() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let tx = tx.clone();
        async move {
            let head = read_head(&mut stream).await;
            let mut body = vec![0; header_of(&head, "content-length").map_or(0, |n| n.parse().unwrap())];
            stream.read_exact(&mut body).await.unwrap();
            tx.send((head, body)).unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let request = Request::post("https://public.example/api?x=%20")
        .version(Version::HTTP_2)
        .header("x-auth-subject", "alice")
        .header("connection", "x-auth-subject, upgrade")
        .header("upgrade", "h2c")
        .header("http2-settings", "AA")
        .header("te", "trailers")
        .header("transfer-encoding", "gzip, chunked")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    let response = client(&[server.url()]).send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await, "ok");
    let (head, sent) = rx.recv().await.unwrap();
    assert!(head.starts_with("POST /api?x=%20 HTTP/1.1\r\n"), "{head}");
    assert_eq!(header_of(&head, "host"), Some(server.addr.to_string().as_str()));
    assert_eq!(header_of(&head, "x-auth-subject"), Some("alice"));
    for gone in ["connection", "upgrade", "http2-settings", "te", "transfer-encoding"] {
        assert_eq!(header_of(&head, gone), None, "{gone}");
    }
    assert_eq!(sent, b"hello");
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_was_read() {
    let server = keep_alive().await;
    let client = client(&[server.url()]);
    for _ in 0..5 {
        let response = client.send(get("/")).await.unwrap();
        assert_eq!(body(response).await, "ok");
        // The connection's task puts it back; let it.
        while client.0.idle[0].lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(server.seen(), 1);
    let first = client.send(get("/")).await.unwrap();
    let second = client.send(get("/")).await.unwrap();
    assert_eq!((body(first).await, body(second).await), ("ok".into(), "ok".into()));
    assert!(server.seen() <= 2);
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_meanwhile_costs_nobody_an_answer() {
    let server = Server::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let client = client(&[server.url()]);
    for _ in 0..20 {
        assert_eq!(body(client.send(get("/")).await.unwrap()).await, "ok");
    }
}

#[tokio::test]
async fn idle_connections_are_bounded() {
    let server = keep_alive().await;
    let client = client(&[server.url()]);
    let mut open = Vec::new();
    for _ in 0..(MAX_IDLE + 10) {
        open.push(client.send(get("/")).await.unwrap());
    }
    for response in open {
        body(response).await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(client.0.idle[0].lock().unwrap().len() <= MAX_IDLE);
}

#[tokio::test]
async fn an_idle_connection_is_not_used_again_when_node_may_be_closing_it() {
    let server = keep_alive().await;
    let client = client(&[server.url()]);
    body(client.send(get("/")).await.unwrap()).await;
    while client.0.idle[0].lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(IDLE_LIFE).await;
    tokio::time::resume();
    body(client.send(get("/")).await.unwrap()).await;
    assert_eq!(server.seen(), 2);
}

#[tokio::test]
async fn a_body_that_was_not_sent_goes_to_the_next_backend() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let tx = tx.clone();
        async move {
            let head = read_head(&mut stream).await;
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            tx.send((head, body)).unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let client = client(&[dead().await, server.url()]);
    let request = Request::post("/").body(Full::new(Bytes::from_static(b"hello"))).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    let (head, sent) = rx.recv().await.unwrap();
    assert_eq!(&sent, b"hello");
    assert_eq!(header_of(&head, "host"), Some(server.addr.to_string().as_str()));
    assert_eq!(client.0.pool.healthy_count(Instant::now()), 1);
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_twice() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let server = Server::start(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            read_head(&mut stream).await;
            seen.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let other = keep_alive().await;
    let result = client(&[server.url(), other.url()]).send(get("/pay")).await;
    assert!(matches!(result, Err(ProxyError::Broken { .. })), "{result:?}");
    assert_eq!((count.load(Ordering::SeqCst), other.seen()), (1, 0));
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let result = client(&[dead().await]).send(get("/")).await;
    assert!(matches!(result, Err(ProxyError::Unavailable { .. })), "{result:?}");
}

#[tokio::test]
async fn p07_a_101_that_nobody_asked_for_is_an_error_and_its_connection_closed() {
    let (tx, mut closed) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let tx = tx.clone();
        async move {
            read_head(&mut stream).await;
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            drain(&mut stream).await;
            tx.send(()).unwrap();
        }
    })
    .await;
    let client = client(&[server.url()]);
    let result = client.send(get("/")).await;
    assert!(matches!(result, Err(ProxyError::Broken { .. })), "{result:?}");
    closed.recv().await.unwrap();
    assert!(client.0.idle[0].lock().unwrap().is_empty());
}

#[tokio::test]
async fn connect_and_strange_targets_are_not_passed_on() {
    let server = keep_alive().await;
    let client = client(&[server.url()]);
    let connect = Request::connect("evil:443").body(Empty::<Bytes>::new()).unwrap();
    assert!(matches!(client.send(connect).await, Err(ProxyError::Invalid { .. })));
    let star = Request::options("*").body(Empty::<Bytes>::new()).unwrap();
    assert!(matches!(client.send(star).await, Err(ProxyError::Invalid { .. })));
    assert_eq!(server.seen(), 0);
}

#[tokio::test]
async fn dropping_the_client_closes_its_connections() {
    let (tx, mut closed) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let tx = tx.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            drain(&mut stream).await;
            tx.send(()).unwrap();
        }
    })
    .await;
    let client = client(&[server.url()]);
    body(client.send(get("/")).await.unwrap()).await;
    drop(client);
    closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_a_backend() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    };
    let client = client(&[format!("unix:{}", path.display())]);
    let (response, ()) = tokio::join!(client.send(get("/")), serve);
    assert_eq!(body(response.unwrap()).await, "ok");
}
