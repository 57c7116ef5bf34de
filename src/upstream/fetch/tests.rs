use super::*;
use crate::upstream::support::{Server, header_of, read_head};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

fn bounds() -> Bounds {
    Bounds { connect: Duration::from_secs(3), total: Duration::from_secs(5), size: 1000 }
}

fn request(server: &Server) -> FetchRequest {
    let location = Location::parse(&format!("{}/keys?a=b", server.url()), false).unwrap();
    FetchRequest { location, accept: "application/json", validators: Validators::default() }
}

fn fetcher(bounds: Bounds) -> Fetcher {
    Fetcher::new(crate::upstream::tls::client_config(None).unwrap(), false, bounds)
}

async fn answer(text: &str) -> Result<Fetched, FetchError> {
    let server = Server::saying(text).await;
    fetcher(bounds()).fetch(&request(&server)).await
}

#[tokio::test]
async fn a_document_comes_with_what_makes_the_next_request_conditional() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, n| {
        let tx = tx.clone();
        async move {
            tx.send(read_head(&mut stream).await).unwrap();
            let answer = match n {
                0 => "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nLast-Modified: Mon\r\nCache-Control: max-age=77\r\nContent-Length: 2\r\n\r\n{}",
                _ => "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=78\r\n\r\n",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut request = request(&server);
    let fetcher = fetcher(bounds());
    let Fetched::Body { body, validators, max_age } = fetcher.fetch(&request).await.unwrap() else { panic!() };
    assert_eq!((&body[..], max_age), (&b"{}"[..], Some(Duration::from_secs(77))));
    let head = rx.recv().await.unwrap();
    assert!(head.starts_with("GET /keys?a=b HTTP/1.1\r\n"), "{head}");
    assert_eq!(header_of(&head, "host"), Some(server.addr.to_string().as_str()));
    assert_eq!(header_of(&head, "accept"), Some("application/json"));
    assert_eq!(header_of(&head, "accept-encoding"), Some("identity"));
    assert_eq!(header_of(&head, "if-none-match"), None);
    request.validators = validators;
    let second = fetcher.fetch(&request).await.unwrap();
    assert_eq!(second, Fetched::NotModified { max_age: Some(Duration::from_secs(78)) });
    let head = rx.recv().await.unwrap();
    assert_eq!(header_of(&head, "if-none-match"), Some("\"a\""));
    assert_eq!(header_of(&head, "if-modified-since"), Some("Mon"));
}

#[tokio::test]
async fn j29_p45_a_redirect_is_a_failure_and_not_followed() {
    let inner = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    for status in [301, 302, 303, 307, 308] {
        let text = format!("HTTP/1.1 {status} Moved\r\nLocation: {}/\r\nContent-Length: 0\r\n\r\n", inner.url());
        assert_eq!(answer(&text).await, Err(FetchError::Status(status)));
    }
    assert_eq!(inner.seen(), 0);
}

#[tokio::test]
async fn other_statuses_are_failures() {
    for status in [201, 204, 206, 404, 500, 503] {
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answer(&text).await, Err(FetchError::Status(status)));
    }
    assert!(answer("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n").await.is_err());
    assert!(answer("garbage\r\n\r\n").await.is_err());
}

#[tokio::test]
async fn j24_a_large_body_is_not_taken() {
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000));
    assert!(answer(&whole).await.is_ok());
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n").await.is_err());
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n").await.is_err());
    // Without a length and without an end: the connection is closed on the way.
    let (tx, mut cut) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let tx = tx.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 10_000]).await.is_ok() {}
            tx.send(()).unwrap();
        }
    })
    .await;
    assert!(fetcher(bounds()).fetch(&request(&server)).await.is_err());
    cut.recv().await.unwrap();
}

#[tokio::test]
async fn j24_a_compressed_body_is_not_unpacked() {
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}").await.is_err());
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}").await.is_ok());
}

#[tokio::test]
async fn j24_slowness_ends_with_the_total_time() {
    let short = Bounds { total: Duration::from_millis(150), ..bounds() };
    let silent = Server::saying("").await;
    assert!(fetcher(short).fetch(&request(&silent)).await.is_err());
    let dripping = Server::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let error = fetcher(short).fetch(&request(&dripping)).await.unwrap_err();
    assert!(error.to_string().contains("not done"), "{error}");
}

#[tokio::test]
async fn a_body_cut_short_is_a_failure() {
    let server = Server::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"keys\":[").await;
    })
    .await;
    assert!(fetcher(bounds()).fetch(&request(&server)).await.is_err());
}

#[tokio::test]
async fn localhost_over_plain_http_reaches_this_machine_only() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let location = Location::parse(&format!("http://localhost:{}/", server.addr.port()), false).unwrap();
    let request = FetchRequest { location, ..request(&server) };
    assert!(fetcher(bounds()).fetch(&request).await.is_ok());
}
