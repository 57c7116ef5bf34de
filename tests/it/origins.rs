//! Cookies ride along from any page, so the page has to be one of ours; and our pages may read every answer.

use crate::support::backend::Backend;
use crate::support::client::{Answer, Ask};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{self, token};
use siogate::config::model::{Config, Route, RouteAuth};

const GOOD: &str = "https://app.test";

fn listed(config: &mut Config) {
    config.socketio.allowed_origins = vec![GOOD.into(), "https://other.test:8443".into()];
}

fn cookie(ask: Ask) -> Ask {
    ask.with("cookie", &format!("token={}", token("alice")))
}

/// Handshakes on both transports, POST and GET of a session, as a page would send them.
async fn everywhere(gate: &Gate, poller: &Poller, page: impl Fn(Ask) -> Ask) -> Vec<Answer> {
    let asks = [
        Ask::get(POLLING),
        Ask::upgrade(WEBSOCKET),
        Ask::post(&poller.target(), "3"),
        Ask::upgrade(&poller.upgrade_target()),
        Ask::new("OPTIONS", POLLING),
    ];
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(gate.ask(page(cookie(ask))).await);
    }
    answers
}

fn is_refused(answer: &Answer, name: &str) {
    assert_eq!((answer.status, answer.reason().as_str()), (403, "origin_not_allowed"), "{name}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{name}");
}

#[tokio::test]
async fn p19_p21_a_page_of_another_origin_gets_in_nowhere() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, listed).await;
    let poller = Poller::open(&gate, cookie).await;
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("another", vec![("origin", "https://evil.test")]),
        ("a suffix", vec![("origin", "https://app.test.evil.test")]),
        ("a prefix", vec![("origin", "https://evilapp.test")]),
        ("a subdomain", vec![("origin", "https://x.app.test")]),
        ("another scheme", vec![("origin", "http://app.test")]),
        ("another port", vec![("origin", "https://app.test:8443")]),
        ("null", vec![("origin", "null")]),
        ("nothing", vec![("origin", "")]),
        ("a path", vec![("origin", "https://app.test/")]),
        ("two in one", vec![("origin", "https://app.test, https://evil.test")]),
        ("twice", vec![("origin", GOOD), ("origin", GOOD)]),
        ("one after another", vec![("origin", GOOD), ("origin", "https://evil.test")]),
        ("the gate's own host is not listed", vec![("origin", "http://gate.test")]),
        ("none, and cross-site", vec![("sec-fetch-site", "cross-site")]),
        ("none, and same-site", vec![("sec-fetch-site", "same-site")]),
        ("a regex's dollar", vec![("origin", "https://app.test$")]),
        ("a template's backquote", vec![("origin", "https://app.test`")]),
    ];
    for (name, headers) in cases {
        let page = |ask: Ask| headers.iter().fold(ask, |ask, (name, value)| ask.with(name, value));
        for answer in everywhere(&gate, &poller, page).await {
            is_refused(&answer, name);
        }
    }
    assert_eq!(backend.accepted(), 1);
    for origin in [GOOD, "https://APP.test:443", "https://other.test:8443"] {
        for answer in
            everywhere(&gate, &poller, |ask| ask.with("origin", origin).with("sec-fetch-site", "cross-site")).await
        {
            assert!([200, 101, 204].contains(&answer.status), "{origin} {answer:?}");
        }
    }
}

#[tokio::test]
async fn p19_an_empty_list_is_the_gates_own_origin() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for (origin, fine) in [
        ("http://gate.test", true),
        ("https://gate.test", true),
        ("http://gate.test:8080", false),
        ("https://app.test", false),
        ("http://gate.test.evil.test", false),
        ("capacitor://gate.test", false),
    ] {
        let answer = gate.ask(cookie(Ask::get(POLLING)).with("origin", origin)).await;
        if fine { assert_eq!(answer.status, 200, "{origin}") } else { is_refused(&answer, origin) }
    }
    let downgraded = cookie(Ask::get(POLLING)).with("origin", "http://gate.test").with("sec-fetch-site", "cross-site");
    is_refused(&gate.ask(downgraded).await, "a page of the same host by plain HTTP");
}

#[tokio::test]
async fn p19_require_origin_leaves_no_way_without_one() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        listed(config);
        config.socketio.require_origin = true;
    })
    .await;
    for ask in [Ask::get(POLLING), Ask::upgrade(WEBSOCKET), Ask::get(POLLING).with("sec-fetch-site", "same-origin")] {
        is_refused(&gate.ask(cookie(ask)).await, "none");
    }
    assert_eq!(gate.ask(cookie(Ask::get(POLLING)).with("origin", GOOD)).await.status, 200);
}

#[tokio::test]
async fn p20_our_pages_may_read_refusals_too_and_caches_are_told() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        listed(config);
        config.socketio.on_reject = siogate::config::model::OnReject::Http;
    })
    .await;
    let bad = tokens::expired("alice");
    for (ask, status) in [
        (Ask::get(POLLING).bearer(&bad), 401),
        (Ask::get(POLLING).bearer(&token("alice")), 200),
        (Ask::get("/socket.io/?EIO=4&transport=none"), 400),
        (Ask::get(&format!("{POLLING}&sid=unknown")), 400),
        (Ask::new("PUT", POLLING).bearer(&token("alice")), 400),
    ] {
        let answer = gate.ask(ask.with("origin", GOOD)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.all("access-control-allow-origin"), [GOOD]);
        assert_eq!(answer.all("access-control-allow-credentials"), ["true"]);
        assert_eq!(answer.all("vary"), ["Origin"]);
    }
    let answer = gate.ask(Ask::get(POLLING).bearer(&token("alice"))).await;
    assert_eq!(answer.header("access-control-allow-origin"), None, "nobody asked");
}

#[tokio::test]
async fn p20_a_preflight_needs_no_credential_and_reaches_nobody() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, listed).await;
    let ask = Ask::new("OPTIONS", POLLING)
        .with("access-control-request-method", "POST")
        .with("access-control-request-headers", "authorization, x-mine");
    let answer = gate.ask(ask.clone().with("origin", GOOD)).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,POST,OPTIONS"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, x-mine"));
    assert_eq!(answer.header("access-control-allow-origin"), Some(GOOD));
    assert!(answer.all("vary").join(",").contains("Origin"));
    is_refused(&gate.ask(ask.with("origin", "https://evil.test")).await, "preflight");
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p20_any_origin_is_any_but_never_with_credentials() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.socketio.allowed_origins = vec!["*".into()];
        config.credentials.sources = vec!["auth:token".into(), "header:authorization".into()];
    })
    .await;
    let answer = gate.ask(Ask::get(POLLING).with("origin", "https://any.test")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    is_refused(&gate.ask(Ask::get(POLLING).with("origin", "null")).await, "null");
}

#[tokio::test]
async fn p21_a_cookie_changes_nothing_on_plain_http_from_another_page() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.http.route = vec![Route { path: "/api".into(), auth: RouteAuth::Require, websocket: true }];
    })
    .await;
    let evil = |ask: Ask| cookie(ask).with("origin", "https://evil.test");
    for ask in [Ask::new("POST", "/api/pay"), Ask::new("DELETE", "/api/x"), Ask::upgrade("/api/ws")] {
        let answer = gate.ask(evil(ask)).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "origin_not_allowed"));
    }
    assert!(backend.is_untouched());
    assert_eq!(gate.ask(evil(Ask::get("/api/list"))).await.status, 200, "reading is the backend's CORS");
    let ours = cookie(Ask::new("POST", "/api/pay")).with("origin", "http://gate.test");
    assert_eq!(gate.ask(ours).await.status, 200);
    let answer =
        gate.ask(Ask::new("POST", "/api/pay").bearer(&token("alice")).with("origin", "https://evil.test")).await;
    assert_eq!(answer.status, 200, "a header is sent by nobody unasked");
}
