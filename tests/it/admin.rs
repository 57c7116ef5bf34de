//! The operator's door is its own: what it serves is nowhere else, and what is elsewhere cannot reach it.

use crate::support::backend::Backend;
use crate::support::client::Ask;
use crate::support::gate::Gate;
use crate::support::poller::{Poller, WEBSOCKET};
use crate::support::tokens::{expired, token};
use crate::support::until;
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
