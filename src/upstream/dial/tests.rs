use super::*;
use crate::config::model;
use crate::upstream::support::{SWITCH, Server, accept_of, dead, drain, header_of, pool, read_head};
use http::{HeaderName, HeaderValue, header};
use proptest::prelude::{any, prop_assert_eq, proptest};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

fn head(path: &str) -> DialHead {
    DialHead::new(path)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn dial(server: &Server) -> Result<Dialed, DialError> {
    websocket(&pool(&[server.url()]), &head("/socket.io/?EIO=4&transport=websocket"), soon()).await
}

fn invalid_detail(result: Result<Dialed, DialError>) -> String {
    match result {
        Err(DialError::Invalid { detail }) => detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bytes_after_the_101_arrive_as_leftover_and_the_rest_by_the_stream() {
    let server = Server::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await;
        let text = format!("{SWITCH}Set-Cookie: io=1\r\n\r\n\u{1}early").replace("{accept}", &accept_of(&head));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut five = [0; 5];
        stream.read_exact(&mut five).await.unwrap();
        stream.write_all(&five).await.unwrap();
    })
    .await;
    let mut dialed = dial(&server).await.unwrap();
    assert_eq!(&dialed.leftover[..], b"\x01early");
    let headers = dialed.headers.unwrap();
    assert_eq!((headers.get("set-cookie").unwrap(), headers.len()), (&HeaderValue::from_static("io=1"), 1));
    assert_eq!((dialed.backend, dialed.protocol), (0, None));
    dialed.stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    dialed.stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    let Stream::Tcp(tcp) = &dialed.stream else { panic!() };
    assert!(tcp.nodelay().unwrap());
}

#[tokio::test]
async fn the_request_is_a_complete_upgrade_with_the_callers_headers() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let tx = tx.clone();
        async move {
            let head = read_head(&mut stream).await;
            let text = format!("{SWITCH}Sec-WebSocket-Protocol: two\r\n\r\n").replace("{accept}", &accept_of(&head));
            tx.send(head).unwrap();
            let _ = stream.write_all(text.as_bytes()).await;
        }
    })
    .await;
    let mut request = head("/socket.io/?EIO=4&transport=websocket&a=%0d%0a");
    for (name, value) in [
        ("x-auth-subject", "alice"),
        ("cookie", "a=1"),
        ("connection", "x-auth-subject, keep-alive"),
        ("upgrade", "h2c"),
        ("sec-websocket-key", "mine"),
        ("sec-websocket-version", "777"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("expect", "100-continue"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("sec-websocket-protocol", "one, two"),
    ] {
        request.add(&HeaderName::from_static(name), &HeaderValue::from_static(value));
    }
    let pool = pool(&[server.url()]);
    let first = websocket(&pool, &request, soon()).await.unwrap();
    assert_eq!(first.protocol.as_deref(), Some("two"));
    let seen = rx.recv().await.unwrap();
    assert!(seen.starts_with("GET /socket.io/?EIO=4&transport=websocket&a=%0d%0a HTTP/1.1\r\n"), "{seen}");
    for (name, value) in [
        ("host", server.addr.to_string().as_str()),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "one, two"),
        ("x-auth-subject", "alice"),
        ("cookie", "a=1"),
    ] {
        assert_eq!(header_of(&seen, name), Some(value), "{name}");
    }
    for name in ["sec-websocket-extensions", "content-length", "transfer-encoding", "expect", "http2-settings"] {
        assert_eq!(header_of(&seen, name), None, "{name}");
    }
    let key = header_of(&seen, "sec-websocket-key").unwrap().to_string();
    assert_eq!(key.len(), 24);

    request.add(&header::HOST, &HeaderValue::from_static("chat.example"));
    request.add(&header::HOST, &HeaderValue::from_static("second.example"));
    websocket(&pool, &request, soon()).await.unwrap();
    let seen = rx.recv().await.unwrap();
    assert_eq!(header_of(&seen, "host"), Some("chat.example"));
    assert_ne!(header_of(&seen, "sec-websocket-key"), Some(key.as_str()), "a key is used once");
}

#[tokio::test]
async fn a_path_that_would_split_the_head_is_never_sent() {
    let server = Server::saying(format!("{SWITCH}\r\n")).await;
    let pool = pool(&[server.url()]);
    for path in
        ["", "socket.io/", "/a b", "/a\r\nx: y", "/a\n", "/a\0", "/a\tb", "/\u{fc}", "/a#b", "http://evil/", "*"]
    {
        invalid_detail(websocket(&pool, &head(path), soon()).await);
    }
    assert_eq!(server.seen(), 0);
}

#[tokio::test]
async fn p07_a_101_that_is_not_for_us_opens_no_tunnel() {
    let start = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    for (answer, word) in [
        (format!("{start}\r\n"), "Accept"),
        (format!("{start}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), "Accept"),
        (format!("{SWITCH}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "extensions"),
        (format!("{SWITCH}Sec-WebSocket-Protocol: chat\r\n\r\n"), "subprotocol"),
        (format!("{SWITCH}X-Big: {}\r\n\r\n", "a".repeat(20 * 1024)), "too large"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "not HTTP"),
        (format!("{}{SWITCH}\r\n", "HTTP/1.1 100 Continue\r\n\r\n".repeat(9)), "interim"),
    ] {
        let server = Server::saying(answer).await;
        let detail = invalid_detail(dial(&server).await);
        assert!(detail.contains(word), "{detail}");
    }
}

#[tokio::test]
async fn p53_interim_answers_are_skipped() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let server = Server::saying(format!("{early}{SWITCH}\r\n")).await;
    let dialed = dial(&server).await.unwrap();
    assert!(dialed.leftover.is_empty());
    assert!(dialed.headers.is_none());
}

#[tokio::test]
async fn a_head_in_single_bytes_is_read() {
    let server = Server::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await;
        for byte in format!("{SWITCH}\r\nabc").replace("{accept}", &accept_of(&head)).as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut dialed = dial(&server).await.unwrap();
    let mut rest = dialed.leftover.to_vec();
    dialed.stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"abc");
}

#[tokio::test]
async fn p06_p09_a_refusal_is_told_and_its_connection_closed() {
    let (tx, mut closed) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let tx = tx.clone();
        async move {
            read_head(&mut stream).await;
            let answer =
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 30\r\n\r\n{\"code\":4,\"message\":\"nope\u{1}\"}  extra";
            stream.write_all(answer.as_bytes()).await.unwrap();
            drain(&mut stream).await;
            tx.send(()).unwrap();
        }
    })
    .await;
    let Err(DialError::Refused { status, body, detail }) = dial(&server).await else { panic!() };
    assert_eq!(status, 403);
    assert_eq!(body, b"{\"code\":4,\"message\":\"nope\x01\"}  ");
    assert!(detail.contains("\\u{1}"), "{detail}");
    closed.recv().await.unwrap();
}

#[tokio::test]
async fn the_body_of_a_refusal_is_bounded_and_not_waited_for() {
    let long = Server::saying(format!("HTTP/1.1 500 X\r\n\r\n{}", "x".repeat(100_000))).await;
    let Err(DialError::Refused { body, .. }) = dial(&long).await else { panic!() };
    assert_eq!(body.len(), 1024);
    let chunked = Server::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let Err(DialError::Refused { body, status: 200, .. }) = dial(&chunked).await else { panic!() };
    assert_eq!(body, b"abc");
    let stuck = Server::saying("HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 9\r\n\r\nab").await;
    let Err(DialError::Refused { body, status: 302, .. }) = dial(&stuck).await else { panic!() };
    assert_eq!(body, b"ab");
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let server = Server::saying("").await;
    let pool = pool(&[server.url()]);
    let began = Instant::now();
    let result = websocket(&pool, &head("/"), began + Duration::from_millis(100)).await;
    assert!(matches!(result, Err(DialError::Unavailable { .. })), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(pool.backends()[0].is_failing());
}

#[tokio::test]
async fn half_a_head_is_no_reason_to_ask_another_backend() {
    let half = Server::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 101 Swi").await;
    })
    .await;
    let other = Server::saying(format!("{SWITCH}\r\n")).await;
    let result = websocket(&pool(&[half.url(), other.url()]), &head("/"), soon()).await;
    assert!(invalid_detail(result).contains("middle"));
    assert_eq!(other.seen(), 0);
}

#[tokio::test]
async fn connections_that_fail_go_to_the_next_backend_and_are_remembered() {
    let closing = Server::start(|mut stream, _| async move {
        read_head(&mut stream).await;
    })
    .await;
    let good = Server::saying(format!("{SWITCH}\r\n")).await;
    let pool = pool(&[dead().await, closing.url(), good.url()]);
    assert_eq!(websocket(&pool, &head("/"), soon()).await.unwrap().backend, 2);
    assert_eq!(pool.healthy_count(Instant::now()), 1);
    // Both are left alone now, whoever's turn it is.
    for _ in 0..3 {
        assert_eq!(websocket(&pool, &head("/"), soon()).await.unwrap().backend, 2);
    }
    assert_eq!(closing.seen(), 1);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let busy = Server::saying("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let good = Server::saying(format!("{SWITCH}\r\n")).await;
    let pool = pool(&[busy.url(), good.url()]);
    let result = websocket(&pool, &head("/"), soon()).await;
    assert!(matches!(result, Err(DialError::Refused { status: 503, .. })));
    assert_eq!(good.seen(), 0);
    assert_eq!(pool.healthy_count(Instant::now()), 2);
}

#[tokio::test]
async fn a_backend_that_comes_back_is_well_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let pool = pool(&[format!("http://{addr}")]);
    let result = websocket(&pool, &head("/"), soon()).await;
    assert!(matches!(result, Err(DialError::Unavailable { .. })), "{result:?}");
    assert_eq!(pool.healthy_count(Instant::now()), 0);
    let listener = TcpListener::bind(addr).await.unwrap();
    let _server = Server::on(listener, |mut stream, _| async move {
        let head = read_head(&mut stream).await;
        let _ = stream.write_all(format!("{SWITCH}\r\n").replace("{accept}", &accept_of(&head)).as_bytes()).await;
    });
    // The only one there is, so it is tried although it is being left alone.
    websocket(&pool, &head("/"), soon()).await.unwrap();
    assert_eq!(pool.healthy_count(Instant::now()), 1);
}

#[tokio::test]
async fn a_unix_socket_is_a_backend() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        assert_eq!(header_of(&head, "host"), Some("localhost"));
        stream.write_all(format!("{SWITCH}\r\n").replace("{accept}", &accept_of(&head)).as_bytes()).await.unwrap();
    };
    let pool = pool(&[format!("unix:{}", path.display())]);
    let request = head("/");
    let (dialed, ()) = tokio::join!(websocket(&pool, &request, soon()), serve);
    assert!(matches!(dialed.unwrap().stream, Stream::Unix(_)));
}

#[tokio::test]
async fn a_host_name_is_looked_up() {
    let server = Server::saying(format!("{SWITCH}\r\n")).await;
    let pool = pool(&[format!("http://localhost:{}", server.addr.port())]);
    for _ in 0..2 {
        websocket(&pool, &head("/"), soon()).await.unwrap();
    }
    assert_eq!(server.seen(), 2, "a fresh connection each");
}

proptest! {
    #[test]
    fn whatever_the_caller_gives_the_request_is_one_head(
        path in "/[ -~\r\n\t\u{0}\u{e9}]{0,40}",
        values in proptest::collection::vec(("[a-z-]{1,20}", proptest::collection::vec(any::<u8>(), 0..30)), 0..20),
    ) {
        let mut request = head(&path);
        for (name, value) in &values {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
                request.add(&name, &value);
            }
        }
        if let Some(bytes) = request.request(&HeaderValue::from_static("app"), b"dGhlIHNhbXBsZSBub25jZQ==") {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut headers);
            prop_assert_eq!(parsed.parse(&bytes).unwrap().unwrap(), bytes.len());
            prop_assert_eq!(parsed.path, Some(path.as_str()));
            for name in ["host", "connection", "upgrade", "sec-websocket-key", "sec-websocket-version"] {
                prop_assert_eq!(parsed.headers.iter().filter(|h| h.name == name).count(), 1);
            }
        }
    }
}

mod tls {
    use super::*;
    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use std::path::Path;
    use tokio_rustls::TlsAcceptor;

    /// A TLS server for `localhost`, its certificate in `ca_file`.
    async fn server(ca_file: &Path) -> Server {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(ca_file, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start(move |stream, _| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let head = read_head(&mut stream).await;
                let answer = format!("{SWITCH}\r\nhi").replace("{accept}", &accept_of(&head));
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                drain(&mut stream).await;
            }
        })
        .await
    }

    fn with(url: String, ca_file: Option<&Path>) -> Pool {
        let ca_file = ca_file.map(Path::to_path_buf);
        Pool::new(&model::Upstream { urls: vec![url], ca_file, ..model::Upstream::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_backend_with_tls_is_reached_when_its_certificate_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let server = server(&ca).await;
        let port = server.addr.port();
        let good = with(format!("https://localhost:{port}"), Some(&ca));
        let mut dialed = websocket(&good, &head("/"), soon()).await.unwrap();
        assert!(matches!(dialed.stream, Stream::Tls(_)));
        let mut rest = dialed.leftover.to_vec();
        while rest.len() < 2 {
            dialed.stream.read_buf(&mut rest).await.unwrap();
        }
        assert_eq!(rest, b"hi");
        for bad in
            [with(format!("https://localhost:{port}"), None), with(format!("https://127.0.0.1:{port}"), Some(&ca))]
        {
            let result = websocket(&bad, &head("/"), soon()).await;
            let Err(DialError::Unavailable { detail }) = result else { panic!("{result:?}") };
            assert!(detail.contains("certificate"), "{detail}");
        }
    }

    #[tokio::test]
    async fn a_backend_that_hangs_in_tls_does_not_eat_the_time_of_the_next() {
        let hanging = Server::start(|mut stream, _| async move { drain(&mut stream).await }).await;
        let good = Server::saying(format!("{SWITCH}\r\n")).await;
        let pool = pool(&[format!("https://{}", hanging.addr), good.url()]);
        let dialed = websocket(&pool, &head("/"), Instant::now() + Duration::from_secs(2)).await.unwrap();
        assert_eq!(dialed.backend, 1);
    }
}
