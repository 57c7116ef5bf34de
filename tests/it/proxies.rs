//! Headers by which proxies vouch for clients count where the operator says so, and nowhere else.

use crate::support::backend::Backend;
use crate::support::client::{Ask, Head};
use crate::support::gate::Gate;
use crate::support::logs::Logs;
use crate::support::poller::{POLLING, WEBSOCKET};
use crate::support::tokens::token;
use siogate::config::model::{Config, LogFormat, Route, RouteAuth};

fn open(config: &mut Config) {
    config.http.route = vec![
        Route { path: "/".into(), auth: RouteAuth::Pass, websocket: false },
        Route { path: "/admin".into(), auth: RouteAuth::Require, websocket: false },
    ];
}

fn trusting(config: &mut Config) {
    open(config);
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn spoofed(ask: Ask) -> Ask {
    ask.with("x-forwarded-for", "203.0.113.66, 203.0.113.9")
        .with("x-forwarded-for", "10.1.2.3")
        .with("x-forwarded-proto", "https")
        .with("x-forwarded-host", "public.test")
        .with("x_forwarded_for", "203.0.113.67")
        .with("X.Forwarded.For", "203.0.113.68")
        .with("X_Forwarded_Proto", "https")
        .with("forwarded", "for=203.0.113.69;proto=https")
        .with("x-real-ip", "203.0.113.70")
        .with("x_real_ip", "203.0.113.71")
        .with("traceparent", TRACE)
        .with("tracestate", "a=b")
}

async fn seen(gate: &Gate, backend: &Backend) -> Vec<Head> {
    let (_ws, _) = gate.session(spoofed(Ask::upgrade(WEBSOCKET)).bearer(&token("alice"))).await;
    gate.ask(spoofed(Ask::get("/a"))).await;
    gate.ask(spoofed(Ask::get("/socket.io/socket.io.js"))).await;
    backend.requests().into_iter().map(|(head, _)| head).collect()
}

#[tokio::test]
async fn p41_a_stranger_cannot_say_where_he_comes_from() {
    let logs = Logs::capture(LogFormat::Json);
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, open).await;
    for head in seen(&gate, &backend).await {
        assert_eq!(head.only("x-forwarded-for"), "127.0.0.1");
        assert_eq!(head.only("x-forwarded-proto"), "http");
        assert_eq!(head.only("x-forwarded-host"), "gate.test");
        assert!(!format!("{head:?}").contains("203.0.113."), "{head:?}");
        for name in ["forwarded", "x-real-ip", "tracestate"] {
            assert_eq!(head.all(name), [""; 0], "{name}");
        }
        assert_ne!(head.only("traceparent"), TRACE);
    }
    gate.stop().await;
    assert!(!logs.text().contains("203.0.113."));
    assert!(logs.text().contains(r#""client":"127.0.0.1""#));
}

#[tokio::test]
async fn p41_a_trusted_proxy_is_believed_as_far_as_it_can_see() {
    let logs = Logs::capture(LogFormat::Json);
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, trusting).await;
    for head in seen(&gate, &backend).await {
        assert_eq!(head.only("x-forwarded-for"), "203.0.113.66, 203.0.113.9, 10.1.2.3, 127.0.0.1");
        assert_eq!(head.only("x-forwarded-proto"), "https");
        assert_eq!(head.only("x-forwarded-host"), "public.test");
        assert_eq!(head.only("traceparent"), TRACE);
        assert_eq!(head.only("tracestate"), "a=b");
        for name in ["forwarded", "x-real-ip", "x_forwarded_for", "x.forwarded.for", "x_forwarded_proto"] {
            assert_eq!(head.all(name), [""; 0], "{name}");
        }
    }
    gate.stop().await;
    // The nearest address that is no proxy of ours; what stands further left, anybody may have written.
    assert!(logs.text().contains(r#""client":"203.0.113.9""#), "{}", logs.text());
    assert!(!logs.text().contains("203.0.113.66"));
}

#[tokio::test]
async fn p41_the_host_that_the_proxy_was_asked_for_is_the_own_origin() {
    let backend = Backend::start().await;
    let page = |ask: Ask| ask.with("origin", "https://public.test").with("x-forwarded-host", "public.test");
    let gate = Gate::with(&backend, trusting).await;
    assert_eq!(gate.ask(page(Ask::get(POLLING))).await.status, 200);
    let gate = Gate::with(&backend, open).await;
    assert_eq!(gate.ask(page(Ask::get(POLLING))).await.status, 403);
}

#[tokio::test]
async fn p42_no_header_names_another_target_than_the_request_line() {
    let backend = Backend::start().await;
    for trusting_or_not in [open as fn(&mut Config), trusting] {
        let gate = Gate::with(&backend, trusting_or_not).await;
        let names = [
            "x-forwarded-uri",
            "x-original-uri",
            "x-original-url",
            "x-rewrite-url",
            "x-original-method",
            "X_Original_URL",
            "X.Rewrite.Url",
        ];
        let overridden = |ask: Ask, to: &str| names.iter().fold(ask, |ask, name| ask.with(name, to));
        // Neither to get in where one may not, nor to be seen elsewhere by the backend.
        let answer = gate.ask(overridden(Ask::get("/admin/x"), "/public")).await;
        assert_eq!((answer.status, answer.reason().as_str()), (401, "credential_missing"));
        let answer = gate.ask(overridden(Ask::get("/admin/x").with("user-agent", "kube-probe/1.30"), "/healthz")).await;
        assert_eq!(answer.status, 401);
        assert_eq!(gate.ask(overridden(Ask::get("/public"), "/admin/x")).await.status, 200);
        let (head, _) = backend.requests().pop().unwrap();
        assert_eq!(head.target, "/public");
        assert!(!format!("{head:?}").contains("/admin"), "{head:?}");
        let (_ws, _) = gate.session(overridden(Ask::upgrade(WEBSOCKET), "/admin/x").bearer(&token("alice"))).await;
        assert!(!format!("{:?}", backend.link().await.head).contains("/admin"));
    }
}
