//! Requests that two readers could understand in two ways end at the gate.

use crate::support::backend::{Backend, Script, switching};
use crate::support::client::{Answer, Ask, KEY};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::token;
use siogate::config::model::{Config, Route, RouteAuth};

/// What stands behind a request on its connection: if this is ever answered, somebody misread the first one.
const FOLLOWER: &str = "GET /open/follower HTTP/1.1\r\nhost: gate.test\r\n\r\n";

fn open(config: &mut Config) {
    config.http.route = vec![Route { path: "/".into(), auth: RouteAuth::Pass, websocket: false }];
}

/// The one answer to raw bytes with a follower behind them; `None` where the connection was just closed.
async fn raw(gate: &Gate, bytes: &str) -> Option<Answer> {
    let mut conn = gate.conn().await;
    conn.write(format!("{bytes}{FOLLOWER}")).await;
    let answer = conn.try_answer().await;
    let rest = conn.rest().await;
    assert!(rest.is_empty(), "{bytes:?} was followed by {:?}", String::from_utf8_lossy(&rest));
    answer
}

fn status(answer: &Option<Answer>) -> u16 {
    answer.as_ref().map_or(0, |answer| answer.status)
}

#[tokio::test]
async fn p04_ambiguous_framing_is_400_and_nothing_behind_it_is_read() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for head in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked\r\n x: y",
        "Transfer-Encoding: chunked\r\nUpgrade: websocket\r\nConnection: upgrade",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: -1",
        "Content-Length: 5 ",
    ] {
        for target in [POLLING, "/open/a"] {
            let request = format!("POST {target} HTTP/1.1\r\nhost: gate.test\r\n{head}\r\n\r\n{body}");
            // A trailing blank is not part of a value.
            let expected = if head.ends_with(' ') { continue } else { 400 };
            assert_eq!(status(&raw(&gate, &request).await), expected, "{head:?} {target}");
        }
    }
    let old = format!("POST /open/a HTTP/1.0\r\nhost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    assert_eq!(status(&raw(&gate, &old).await), 400);
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p04_a_length_beside_chunked_does_not_count_and_ends_the_connection() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    for order in ["Transfer-Encoding: chunked\r\nContent-Length: 3", "Content-Length: 3\r\nTransfer-Encoding: chunked"]
    {
        let request = format!("POST /open/a HTTP/1.1\r\nhost: gate.test\r\n{order}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let answer = raw(&gate, &request).await;
        assert!([200, 400].contains(&status(&answer)), "{answer:?}");
    }
    // What went on was framed anew, and there was no second request in it.
    for (head, body) in backend.requests() {
        assert_eq!(body, b"hello");
        assert!(head.all("content-length").is_empty() || head.all("transfer-encoding").is_empty());
    }
}

#[tokio::test]
async fn p04_a_get_upgrade_with_a_body_is_no_upgrade() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let answer = gate.ask(Ask::upgrade(WEBSOCKET).with("content-length", "5").bearer(&token("alice"))).await;
    assert_eq!((answer.status, answer.closes()), (400, true));
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p05_http_2_is_not_spoken() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    let answer = raw(&gate, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!([0, 400, 505].contains(&status(&answer)), "{answer:?}");
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p06_only_a_flawless_websocket_handshake_is_one() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    let good = || Ask::upgrade(WEBSOCKET).bearer(&token("alice"));
    let cases: Vec<(&str, Ask, u16)> = vec![
        ("version 777", good().but("sec-websocket-version", "777"), 426),
        ("version 8", good().but("sec-websocket-version", "8"), 426),
        ("no version", good().without("sec-websocket-version"), 426),
        ("two versions", good().with("sec-websocket-version", "13"), 426),
        ("no key", good().without("sec-websocket-key"), 400),
        ("two keys", good().with("sec-websocket-key", KEY), 400),
        ("short key", good().but("sec-websocket-key", "c2hvcnQ="), 400),
        ("long key", good().but("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZSBpcyBsb25n"), 400),
        ("key that is not base64", good().but("sec-websocket-key", "!!!!!!!!!!!!!!!!!!!!!!=="), 400),
        ("no connection", good().without("connection"), 400),
        ("connection without upgrade", good().but("connection", "keep-alive"), 400),
        ("two upgrades", good().with("upgrade", "h2c"), 400),
        ("h2c", good().but("upgrade", "h2c"), 400),
        ("h2c too", good().but("upgrade", "h2c, websocket"), 400),
        ("a websocket of another version", good().but("upgrade", "websocket/13"), 400),
        ("POST", Ask { method: "POST".into(), ..good() }, 400),
        ("HTTP/1.0", Ask { version: "HTTP/1.0", ..good() }, 400),
        ("on polling", Ask { target: POLLING.into(), ..good() }, 400),
    ];
    for (name, ask, expected) in cases {
        let bytes = String::from_utf8(ask.bytes()).unwrap();
        let answer = raw(&gate, &bytes).await.unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!((answer.status, answer.closes()), (expected, true), "{name}: {answer:?}");
        if expected == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{name}");
        }
    }
    assert!(backend.is_untouched());
    // The same without a flaw, in other letters.
    let odd = good().but("upgrade", "WebSocket").but("connection", "keep-alive, uPGRADE");
    assert!(gate.ws(odd).await.is_ok());
}

#[tokio::test]
async fn p08_no_tunnel_but_a_websocket_ever_opens() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    for request in [
        "CONNECT backend.test:80 HTTP/1.1\r\nhost: backend.test:80\r\n\r\n".to_owned(),
        "CONNECT gate.test:80 HTTP/1.1\r\nhost: gate.test:80\r\n\r\n".to_owned(),
        "CONNECT /socket.io/ HTTP/1.1\r\nhost: gate.test\r\n\r\n".to_owned(),
        "GET /open/a HTTP/1.1\r\nhost: gate.test\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n".to_string(),
        format!(
            "GET {POLLING} HTTP/1.1\r\nhost: gate.test\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        ),
        "GET /open/a HTTP/1.1\r\nhost: gate.test\r\nconnection: Upgrade\r\nupgrade: TLS/1.0\r\n\r\n".to_owned(),
    ] {
        let answer = raw(&gate, &request).await;
        assert_eq!(status(&answer), 400, "{request:?} {answer:?}");
    }
    // A WebSocket on a route that has none.
    let answer = gate.ask(Ask::upgrade("/open/a")).await;
    assert_eq!((answer.status, answer.closes()), (400, true));
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p10_paths_that_servers_read_differently_reach_nobody() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    let query = "?EIO=4&transport=polling";
    let refused = [
        "//socket.io/",
        "/%73ocket.io/",
        "/socket%2eio/",
        "/socket%2Eio/",
        "/x/../socket.io/",
        "/./socket.io/",
        "/socket.io/..;/admin",
        "/socket.io;/",
        "/socket.io/;a=b/",
        "/socket.io/%2e%2e/admin",
        "/socket.io/../admin",
        "/socket.io/..",
        "/socket.io/.",
        "/socket.io//",
        "/socket.io/a//b",
        "/socket.io%2f",
        "/socket.io%2F",
        "/socket.io%5c",
        "/socket.io\\",
        "/socket.io/\\..\\admin",
        "/socket.io/%00",
        "/a%00b",
        "/socket.io/%0d%0aX:y",
        "/open/%2e%2e/socket.io/",
        "/open/%7e",
        "/open/%41",
        "/open/%zz",
        "/open/%4",
        "/open/%",
        "/s\u{f6}cket.io/",
        "/open/\u{ff0f}socket.io/",
        "/open/a;jsessionid=1",
        "/open/%09",
        "/open/%7f",
    ];
    for path in refused {
        let answer = raw(&gate, &format!("GET {path}{query} HTTP/1.1\r\nhost: gate.test\r\n\r\n")).await;
        assert_eq!(status(&answer), 400, "{path} {answer:?}");
    }
    let nobody = [
        "/socket.io",
        "/SOCKET.IO/",
        "/Socket.io",
        "/socket.io/foo",
        "/socket.io/admin/",
        "/socket.io/socket.io.jsx",
        "/socket.io/socket.io.js/",
        "/socket.io/Socket.io.js",
        "/socket.io/socket.io.min.esm.js",
    ];
    for path in nobody {
        for ask in [Ask::get(&format!("{path}{query}")), Ask::upgrade(&format!("{path}{query}"))] {
            let answer = gate.ask(ask).await;
            assert_eq!(answer.status, 404, "{path} {answer:?}");
        }
    }
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p10_without_a_route_there_is_nothing_but_the_socket_io_path() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for path in
        ["/", "/index.html", "/socket.iox/", "/socket", "/admin", "/metrics", "/.well-known/siogate/", "/a/socket.io/"]
    {
        assert_eq!(gate.get(path).await.status, 404, "{path}");
    }
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p10_a_fragment_is_cut_before_it_is_judged() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    for target in ["/open/a#/../socket.io/", "/open/a?x=1#b", "/socket.io/#?EIO=4&transport=polling"] {
        let answer = gate.get(target).await;
        assert!([200, 400, 404].contains(&answer.status), "{answer:?}");
    }
    for (head, _) in backend.requests() {
        assert!(head.target.starts_with("/open/a") && !head.target.contains('#'), "{head:?}");
    }
}

#[tokio::test]
async fn p10_the_bundle_is_fetched_without_the_query() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let answer = gate.get("/socket.io/socket.io.js?EIO=4&transport=polling&token=secret").await;
    assert_eq!(answer.text(), "backend");
    assert_eq!(backend.requests().pop().unwrap().0.target, "/socket.io/socket.io.js");
    for method in ["POST", "PUT", "OPTIONS", "DELETE"] {
        assert_eq!(gate.ask(Ask::new(method, "/socket.io/socket.io.js")).await.status, 404, "{method}");
    }
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn p11_a_request_names_one_host_once() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    for (target, hosts) in [
        ("/open/a", &[][..]),
        ("/open/a", &["gate.test", "gate.test"]),
        ("/open/a", &["gate.test", "other.test"]),
        ("/open/a", &[""]),
        ("/open/a", &["user@gate.test"]),
        ("/open/a", &["gate.test:"]),
        ("/open/a", &["gate.test:99999"]),
        ("/open/a", &["gate.test/x"]),
        ("/open/a", &["gate.test, other.test"]),
        ("/open/a", &["gate.test other.test"]),
        ("http://other.test/open/a", &["gate.test"]),
        ("http://user@gate.test/open/a", &["gate.test"]),
        ("http://gate.test:81/open/a", &["gate.test"]),
        ("ftp://gate.test/open/a", &["gate.test"]),
        ("gate.test:80", &["gate.test:80"]),
        ("*", &["gate.test"]),
    ] {
        let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        for method in ["GET", "OPTIONS"] {
            let answer = raw(&gate, &format!("{method} {target} HTTP/1.1\r\n{hosts}\r\n")).await;
            assert_eq!(status(&answer), 400, "{method} {target} {hosts:?} {answer:?}");
        }
    }
    assert!(backend.is_untouched());
    let answer = gate.get("http://gate.test/open/a?x=1").await;
    assert_eq!(answer.status, 200);
    let (head, _) = backend.requests().pop().unwrap();
    assert_eq!((head.target.as_str(), head.only("host")), ("/open/a?x=1", "gate.test"));
}

#[tokio::test]
async fn p12_queries_that_servers_read_differently_are_refused() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let alice = token("alice");
    for (query, code) in [
        ("EIO=4&transport=polling&sid=a&sid=b", 3),
        ("EIO=4&transport=polling&sid=a&%73id=b", 3),
        ("EIO=4&transport=polling&%73id=&sid=b", 3),
        ("EIO=4&EIO=3&transport=polling", 3),
        ("EIO=4&E%49O=4&transport=polling", 3),
        ("EIO=4&transport=polling&transport=websocket", 3),
        ("EIO=4&transport=polling&b64=1&b64=1", 3),
        ("EIO=4&transport=polling&j=0", 3),
        ("EIO=4&transport=polling&j=0&j=1", 3),
        ("EIO=4&transport=polling&a=%0d%0ax:y", 3),
        ("EIO=4&transport=polling&a=%00", 3),
        ("EIO=4&transport=polling&a=%", 3),
        ("EIO=4&transport=polling&a=%ff", 3),
        ("EIO=4&transport=polling&a=%e", 3),
        ("EIO=4", 0),
        ("EIO=4&transport=", 0),
        ("EIO=4&transport=webtransport", 0),
        ("EIO=4&transport=Polling", 0),
        ("EIO=4&transport=__proto__", 0),
        ("EIO=4&transport=websocket", 3),
        ("EIO=5&transport=polling", 5),
        ("EIO=4.0&transport=polling", 5),
        ("EIO=04&transport=polling", 5),
        ("EIO=&transport=polling", 5),
        ("transport=polling", 5),
        ("eio=4&transport=polling", 5),
        ("EIO=4&transport=polling&%73id=unknown", 1),
        ("EIO=4&transport=polling&sid=unknown", 1),
    ] {
        let answer = gate.ask(Ask::get(&format!("/socket.io/?{query}")).bearer(&alice)).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{query} {answer:?}");
    }
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p12_an_empty_sid_is_a_handshake_and_the_backend_gets_the_gates_spelling() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let target = "/socket.io/?x=a%20b+c&E%49O=4&sid=&transport=polling&t=abc&b64=1&x=2&%74oken=&y=%26&z";
    let poller = Poller::open(&gate, |ask| Ask { target: target.into(), ..ask }.bearer(&token("alice"))).await;
    assert_eq!(poller.open["upgrades"], serde_json::json!(["websocket"]));
    let head = backend.link().await.head;
    assert_eq!(head.target, "/socket.io/?x=a%20b%20c&x=2&y=%26&z=&EIO=4&transport=websocket");
}

#[tokio::test]
async fn p12_protocol_3_is_refused_where_it_is_switched_off() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.socketio.eio3 = false).await;
    let answer = gate.ask(Ask::get("/socket.io/?EIO=3&transport=polling").bearer(&token("alice"))).await;
    assert_eq!((answer.status, answer.code()), (400, 5));
    let answer = gate.ask(Ask::upgrade("/socket.io/?EIO=3&transport=websocket").bearer(&token("alice"))).await;
    assert_eq!((answer.status, answer.text().as_str()), (400, "Unsupported protocol version"));
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p29_heads_are_bounded_in_every_direction() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    let many: String = (0..120).map(|i| format!("x-{i}: 1\r\n")).collect();
    let long = "a".repeat(20_000);
    for (name, request, expected) in [
        ("120 headers", format!("GET /open/a HTTP/1.1\r\nhost: gate.test\r\n{many}\r\n"), 431),
        ("a 20 kB header", format!("GET /open/a HTTP/1.1\r\nhost: gate.test\r\nx: {long}\r\n\r\n"), 431),
        ("a 9 kB target", format!("GET /open/{} HTTP/1.1\r\nhost: gate.test\r\n\r\n", &long[..9000]), 414),
        ("a 9 kB query", format!("GET {POLLING}&x={} HTTP/1.1\r\nhost: gate.test\r\n\r\n", &long[..9000]), 414),
    ] {
        let answer = raw(&gate, &request).await;
        assert_eq!(status(&answer), expected, "{name} {answer:?}");
    }
    let mut conn = gate.conn().await;
    let huge = format!("GET /open/{} HTTP/1.1\r\nhost: gate.test\r\n\r\n", "a".repeat(200_000));
    let _ = conn.try_write(huge).await;
    let answer = conn.try_answer().await;
    assert!([0, 414, 431].contains(&status(&answer)), "{answer:?}");
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p53_answers_before_the_answer_are_not_passed_on() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\nset-cookie: early=1\r\n\r\n";
    let script = Script::default()
        .switch(move |head| [interim.as_bytes(), &switching(head, "set-cookie: late=1\r\n")].concat())
        .plain(move |_| format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").into_bytes());
    let backend = Backend::with(script).await;
    let gate = Gate::with(&backend, open).await;
    let (ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    assert_eq!(ws.answer.all("set-cookie"), ["late=1"]);
    let answer = gate.get("/open/a").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("set-cookie")), (200, "ok", None));
}

#[tokio::test]
async fn p53_a_backend_cannot_split_an_answer_and_polling_is_never_cached() {
    let script = Script::default().plain(|head| match head.target.as_str() {
        "/open/cr" => b"HTTP/1.1 200 OK\r\nx: a\rset-cookie: evil=1\r\ncontent-length: 2\r\n\r\nok".to_vec(),
        "/open/101" => b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_vec(),
        "/open/both" => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec()
        }
        _ => b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n".to_vec(),
    });
    let backend = Backend::with(script).await;
    let gate = Gate::with(&backend, open).await;
    for target in ["/open/cr", "/open/101", "/open/garbage"] {
        let answer = gate.get(target).await;
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_refused"), "{target}");
    }
    let answer = gate.get("/open/both").await;
    assert!(answer.status == 502 || (answer.text() == "ok" && answer.header("content-length").is_none()), "{answer:?}");
    let poller = Poller::open(&gate, |ask| ask).await;
    assert_eq!(poller.answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn p54_engine_io_knows_get_post_and_options() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for method in ["get", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "POST", "M-SEARCH"] {
        let ask = Ask::new(method, POLLING).with("content-length", "0").with("connection", "close");
        let answer = gate.ask(ask).await;
        assert_eq!(answer.status, 400, "{method} {answer:?}");
        if method != "HEAD" {
            assert_eq!(answer.code(), 2, "{method}");
        }
    }
    let poller = Poller::connected(&gate, &token("alice")).await;
    for method in ["get", "PUT", "DELETE", "PATCH", "TRACE"] {
        assert_eq!(gate.ask(Ask::new(method, &poller.target())).await.status, 500, "{method}");
    }
    assert_eq!(gate.ask(Ask { version: "HTTP/1.0", ..Ask::get(POLLING) }).await.status, 200);
    let answer = gate.conn().await.ask_raw(&format!("GET {POLLING} HTTP/1.1\nhost: gate.test\n\n")).await;
    assert_eq!(answer.status, 200, "bare line feeds are line ends: the gate writes its own heads");
    let gate = Gate::with(&backend, open).await;
    for method in ["get", "TRACE", "M-SEARCH"] {
        assert_eq!(gate.ask(Ask::new(method, "/open/a")).await.status, 405, "{method}");
    }
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn p04_requests_that_are_sent_together_are_answered_in_their_order() {
    let backend = Backend::with(Script::default().plain(|head| {
        let name = head.target.as_bytes();
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", name.len()).as_bytes(), name].concat()
    }))
    .await;
    let gate = Gate::with(&backend, open).await;
    let mut conn = gate.conn().await;
    let host = "HTTP/1.1\r\nhost: gate.test\r\n";
    // The chunked one is hyper's, and so is what follows it.
    conn.write(format!(
        "GET /open/a {host}\r\nPOST /open/b {host}content-length: 3\r\n\r\nabcGET /open/c {host}\r\n\
         POST /open/d {host}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /open/e {host}connection: close\r\n\r\n"
    ))
    .await;
    for name in ["a", "b", "c", "d", "e"] {
        let answer = conn.try_answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, format!("/open/{name}")));
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT") && date.len() == 29), "{answer:?}");
        assert_eq!(answer.closes(), name == "e");
    }
    assert!(conn.rest().await.is_empty());
}
