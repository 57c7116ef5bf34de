//! The operator's door is its own: what it serves is nowhere else, and what is elsewhere cannot reach it.

use crate::support::backend::Backend;
use crate::support::client::Ask;
use crate::support::gate::Gate;
use crate::support::poller::{Poller, WEBSOCKET};
use crate::support::tokens::{ISSUER, expired, now, token};
use crate::support::until;
use serde_json::{Value, json};
use siogate::config::model::{Config, Route, RouteAuth};

fn with_admin(config: &mut Config) {
    config.admin.listen = "127.0.0.1:0".into();
}

fn ask(target: &str) -> Ask {
    Ask { host: Some("127.0.0.1:9090".into()), ..Ask::get(target) }
}

#[tokio::test]
async fn p44_the_public_door_knows_no_admin_path() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    for path in ["/metrics", "/healthz", "/readyz", "/admin", "/debug"] {
        assert_eq!(gate.get(path).await.status, 404, "{path}");
    }
    // Where everything else is passed on, it is the backend's.
    let gate = Gate::with(&backend, |config| {
        with_admin(config);
        config.http.route = vec![Route { path: "/".into(), auth: RouteAuth::Pass, websocket: false }];
    })
    .await;
    assert_eq!(gate.get("/metrics").await.text(), "backend");
    // And the admin door has neither sessions nor keys.
    for path in ["/socket.io/?EIO=4&transport=polling", "/", "/.well-known/siogate/jwks.json"] {
        assert_eq!(gate.admin(ask(path)).await.status, 404, "{path}");
    }
    assert_eq!(gate.admin(Ask { method: "POST".into(), ..ask("/metrics") }).await.status, 405);
}

#[tokio::test]
async fn p44_on_loopback_it_answers_to_loopback_names_only() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        for host in
            ["evil.test", "gate.test:9090", "127.0.0.1.evil.test", "localhost.evil.test", "10.0.0.1", "", "[::2]"]
        {
            let answer = gate.admin(Ask { host: Some(host.into()), ..Ask::get(path) }).await;
            assert_eq!(answer.status, 421, "{path} {host:?}");
        }
        for host in ["127.0.0.1", "127.0.0.1:9090", "localhost:9090", "LOCALHOST", "[::1]:9090", "127.8.8.8"] {
            let answer = gate.admin(Ask { host: Some(host.into()), ..Ask::get(path) }).await;
            assert_eq!(answer.status, 200, "{path} {host:?}");
        }
        assert_eq!(gate.admin(Ask { host: None, ..Ask::get(path) }).await.status, 421);
    }
}

#[tokio::test]
async fn p44_metrics_need_the_token_where_there_is_one_and_probes_do_not() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        with_admin(config);
        config.admin.token_env = "ADMIN_TOKEN".into();
    })
    .await;
    for bad in ["", "wrong", "the admin's toke", "the admin's token2", "THE ADMIN'S TOKEN"] {
        let answer = gate.admin(ask("/metrics").bearer(bad)).await;
        assert_eq!(answer.status, 401, "{bad:?}");
    }
    let answer = gate.admin(ask("/metrics")).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer realm=\"siogate admin\"")));
    assert_eq!(gate.admin(ask("/metrics").bearer("x").bearer("the admin's token")).await.status, 401);
    assert_eq!(gate.admin(ask("/unknown")).await.status, 401);
    assert_eq!(gate.admin(ask("/metrics").bearer("the admin's token")).await.status, 200);
    assert_eq!(gate.admin(ask("/healthz")).await.status, 200);
    assert_eq!(gate.admin(ask("/readyz")).await.status, 200);
}

#[tokio::test]
async fn p44_metrics_count_and_name_nobody() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    let poller = Poller::connected(&gate, &token("alice-in-metrics")).await;
    let (ws, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    gate.ask(Ask::get(&format!("{}x", poller.target()))).await;
    gate.ask(Ask::get(&poller.target()).bearer(&expired("mallory-in-metrics"))).await;
    gate.ask(Ask::get("/socket.io/?EIO=4&transport=polling").with("origin", "https://evil-in-metrics.test")).await;
    let text = gate.admin(ask("/metrics")).await.text();
    for line in [
        "siogate_sessions 2",
        "siogate_sessions_unauthenticated 1",
        r#"siogate_refused_total{reason="token_expired"} 1"#,
        r#"siogate_refused_total{reason="origin_not_allowed"} 1"#,
        r#"siogate_upstream_dials_total{outcome="ok"} 1"#,
        r#"siogate_sessions_opened_total{transport="polling"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(!text.contains("in-metrics") && !text.contains(&poller.sid), "{text}");
    drop(ws);
    until("it is gone", || gate.context.registry.len() == 1).await;
    assert!(gate.admin(ask("/metrics")).await.text().contains("siogate_sessions 1\n"));
}

async fn sessions(gate: &Gate, query: &str) -> Vec<Value> {
    let answer = gate.admin(ask(&format!("/api/sessions{query}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["sessions"].as_array().unwrap().clone()
}

async fn namespaces(gate: &Gate, subject: &str) -> Value {
    let mut all = sessions(gate, &format!("?subject={subject}")).await;
    assert_eq!(all.len(), 1);
    all.remove(0)["namespaces"].take()
}

#[tokio::test]
async fn a_session_is_listed_with_the_namespaces_that_its_client_is_in() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    let alice = Poller::open(&gate, |ask| ask.bearer(&token("alice"))).await;
    assert_eq!(namespaces(&gate, "alice").await, json!([]));
    assert_eq!(alice.post("40/chat,\x1e40").await.text(), "ok");
    while namespaces(&gate, "alice").await != json!(["/", "/chat"]) {
        alice.get().await;
    }
    // By WebSocket it goes on where it was.
    let mut ws = alice.upgrade().await;
    ws.send("40/news,").await;
    // What was not polled for comes first.
    while !ws.text().await.starts_with("40/news,") {}
    assert_eq!(namespaces(&gate, "alice").await, json!(["/", "/chat", "/news"]));
    for (left, expected) in [("41/chat,", json!(["/", "/news"])), ("41", json!(["/news"]))] {
        ws.send(left).await;
        ws.send(r#"42/news,["x"]"#).await;
        assert_eq!(ws.text().await, r#"42/news,["x"]"#);
        assert_eq!(namespaces(&gate, "alice").await, expected);
    }
    // Protocol 3 is in "/" without having asked.
    let target = "/socket.io/?EIO=3&transport=websocket";
    let (_bob, _) = gate.session(Ask::upgrade(target).bearer(&token("bob"))).await;
    assert_eq!(namespaces(&gate, "bob").await, json!(["/"]));
    // And a client may leave by polling, too.
    let carol = Poller::connected(&gate, &token("carol")).await;
    assert_eq!(namespaces(&gate, "carol").await, json!(["/"]));
    assert_eq!(carol.post("41").await.text(), "ok");
    assert_eq!(namespaces(&gate, "carol").await, json!([]));
}

#[tokio::test]
async fn ended_sessions_are_listed_with_reason_counts_and_duration_and_no_secret() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    let (mut alice, open) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    for message in ["40", "42[1]", "42[2]"] {
        alice.send(message).await;
        alice.text().await;
    }
    let name = sessions(&gate, "").await[0]["session"].as_str().unwrap().to_owned();
    let kick = Ask { method: "DELETE".into(), ..ask(&format!("/api/sessions/{name}")) };
    assert_eq!(gate.admin(kick).await.status, 204);
    assert_eq!(alice.closed().await, (4401, "kicked".into()));
    let ended = |n| {
        let endings = &gate.context.metrics.endings;
        until("the session's record is written", move || endings.page(u64::MAX, 9, |_| true).len() == n)
    };
    ended(1).await;
    let bob = Poller::connected(&gate, &token("bob")).await;
    assert_eq!(bob.post("1").await.text(), "ok");
    ended(2).await;
    let (mut stranger, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    stranger.send(&format!(r#"40{{"token":"{}"}}"#, expired("mallory"))).await;
    assert!(stranger.text().await.contains("token_expired"));
    drop(stranger);
    ended(3).await;
    assert_eq!(sessions(&gate, "").await, Vec::<Value>::new());

    let all = sessions(&gate, "?state=ended").await;
    let [third, second, first] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&first["session"], &first["state"]), (&json!(name), &json!("ended")));
    assert_eq!((&first["subject"], &first["issuer"]), (&json!("alice"), &json!(ISSUER)));
    assert_eq!((&first["client"], &first["transport"]), (&json!("127.0.0.1"), &json!("websocket")));
    assert_eq!((&first["by"], &first["reason"]), (&json!("gate"), &json!("kicked")));
    assert_eq!((&first["to_upstream"], &first["to_client"]), (&json!(3), &json!(3)));
    assert!(first["ended"].as_u64().unwrap().abs_diff(now()) <= 5, "{first}");
    assert!((0.0..60.0).contains(&first["seconds"].as_f64().unwrap()), "{first}");
    assert_eq!((&second["subject"], &second["by"], &second["reason"]), (&json!("bob"), &json!("client"), &json!(null)));
    assert_eq!((&third["subject"], &third["by"]), (&json!(null), &json!("gate")));
    assert_eq!(third["reason"], "token_expired");
    assert!(third["detail"].as_str().unwrap().contains("the token ended at"), "{third}");
    // Neither tokens nor ids of sessions.
    let shown = format!("{all:?}");
    assert!(!shown.contains("eyJ") && !shown.contains(&bob.sid) && !shown.contains("backendsid"), "{shown} {open}");

    let named = |all: Vec<Value>| all.iter().map(|s| s["subject"].clone()).collect::<Vec<_>>();
    for (query, expected) in [
        ("&subject=alice", vec![json!("alice")]),
        ("&subject=alic", vec![]),
        ("&issuer=https%3A%2F%2Flogin.test%2F", vec![json!("bob"), json!("alice")]),
        ("&limit=1", vec![json!(null)]),
    ] {
        assert_eq!(named(sessions(&gate, &format!("?state=ended{query}")).await), expected, "{query}");
    }
    let (mut target, mut pages) = ("/api/sessions?state=ended&limit=1".to_owned(), Vec::new());
    for _ in 0..3 {
        let page = gate.admin(ask(&target)).await.json();
        pages.extend(page["sessions"].as_array().unwrap().clone());
        target = format!("/api/sessions?state=ended&limit=1&after={}", page["next"].as_str().unwrap());
    }
    assert_eq!(named(pages), [json!(null), json!("bob"), json!("alice")]);
    assert_eq!(gate.admin(ask(&target)).await.json()["sessions"], json!([]));
    // Who has left is not inside: there is nobody to show or to end.
    assert_eq!(gate.admin(ask(&format!("/api/sessions/{name}"))).await.status, 404);
}

#[tokio::test]
async fn readiness_follows_the_backend() {
    let backend = Backend::start().await;
    let url = backend.url.clone();
    let gate = Gate::with(&backend, with_admin).await;
    assert_eq!(gate.admin(ask("/readyz")).await.text(), "ready\n");
    backend.die().await;
    gate.ask(Ask::get("/socket.io/?EIO=4&transport=polling").bearer(&token("alice"))).await;
    let answer = gate.admin(ask("/readyz")).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "upstream_unavailable\n"));
    assert_eq!(gate.admin(ask("/healthz")).await.status, 200);
    let _again = Backend::at(url.strip_prefix("http://").unwrap(), Default::default()).await;
    gate.ask(Ask::get("/socket.io/?EIO=4&transport=polling").bearer(&token("alice"))).await;
    assert_eq!(gate.admin(ask("/readyz")).await.status, 200);
}
