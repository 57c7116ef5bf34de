//! The operator's API: who is inside, showing somebody out, and withdrawing a right before its end.

use crate::support::backend::Backend;
use crate::support::client::{Answer, Ask};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{ISSUER, changed, claims, hs256, now, token};
use crate::support::until;
use serde_json::{Value, json};
use siogate::config::model::{Config, OnReject, Route, RouteAuth};

fn with_admin(config: &mut Config) {
    config.admin.listen = "127.0.0.1:0".into();
    config.socketio.on_reject = OnReject::Http;
    config.http.route = vec![Route { path: "/api".into(), auth: RouteAuth::Require, websocket: true }];
}

fn ask(method: &str, target: &str) -> Ask {
    Ask { host: Some("localhost".into()), ..Ask::new(method, target) }
}

pub async fn revoke(gate: &Gate, body: Value) -> Answer {
    let body = body.to_string();
    let ask = ask("POST", "/api/revocations").with("content-type", "application/json");
    let ask = ask.with("content-length", &body.len().to_string());
    gate.admin(Ask { body: body.into_bytes(), ..ask }).await
}

async fn sessions(gate: &Gate, query: &str) -> Vec<Value> {
    let answer = gate.admin(ask("GET", &format!("/api/sessions{query}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["sessions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn sessions_are_listed_with_what_an_operator_needs_and_no_secret() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    let alice = Poller::connected(&gate, &token("alice")).await;
    let (_bob, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("bob"))).await;
    let (_nobody, _) = gate.session(Ask::upgrade(WEBSOCKET)).await;
    let all = sessions(&gate, "").await;
    assert_eq!(all.len(), 3);
    let [first, second, third] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&first["subject"], &first["issuer"]), (&json!("alice"), &json!(ISSUER)));
    assert_eq!((&first["transport"], &first["state"]), (&json!("polling"), &json!("admitted")));
    assert_eq!(first["client"], "127.0.0.1");
    assert!(
        first["ends_at"].as_u64().unwrap().abs_diff(now() + 600) <= 2 && first["started"].as_u64().unwrap() <= now()
    );
    assert_eq!((&second["subject"], &second["transport"]), (&json!("bob"), &json!("websocket")));
    assert_eq!(
        (&third["subject"], &third["state"], &third["ends_at"]),
        (&json!(null), &json!("waiting"), &json!(null))
    );
    // The sid opens the session: it is nowhere.
    assert!(!format!("{all:?}").contains(&alice.sid));
    for (query, expected) in [
        ("?subject=bob", vec!["bob"]),
        ("?subject=alic", vec![]),
        (&format!("?issuer={}&state=admitted", "https%3A%2F%2Flogin.test%2F"), vec!["alice", "bob"]),
        ("?issuer=x", vec![]),
        ("?state=ending", vec![]),
        ("?limit=1", vec!["alice"]),
    ] {
        let named: Vec<_> = sessions(&gate, query).await.iter().map(|s| s["subject"].clone()).collect();
        assert_eq!(named, expected, "{query}");
    }
    let mut next = json!("0");
    for expected in [json!("alice"), json!("bob"), json!(null)] {
        let target = format!("/api/sessions?limit=1&after={}", next.as_str().unwrap());
        let page = gate.admin(ask("GET", &target)).await.json();
        assert_eq!((&page["sessions"][0]["subject"], &page["open"]), (&expected, &json!(3)));
        next = page["next"].clone();
    }
    let name = first["session"].as_str().unwrap();
    assert_eq!(&gate.admin(ask("GET", &format!("/api/sessions/{name}"))).await.json(), first);
    assert_eq!(gate.admin(ask("GET", &format!("/api/sessions/{}", alice.sid))).await.status, 404);
}

#[tokio::test]
async fn a_session_is_kicked_by_its_name_on_either_transport() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    let alice = Poller::connected(&gate, &token("alice")).await;
    let (mut bob, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&token("bob"))).await;
    let mut held = alice.hold().await;
    for session in sessions(&gate, "").await {
        let target = format!("/api/sessions/{}", session["session"].as_str().unwrap());
        assert_eq!(gate.admin(ask("DELETE", &target)).await.status, 204);
    }
    assert_eq!(held.answer().await.reason(), "kicked");
    assert_eq!(bob.closed().await, (4401, "kicked".into()));
    until("all have left", || gate.context.registry.is_empty()).await;
    for target in ["/api/sessions/nobody", "/api/sessions/%00", "/api/sessions/a/b"] {
        assert_eq!(gate.admin(ask("DELETE", target)).await.status, 404, "{target}");
    }
    // To be kicked is not to be revoked.
    Poller::connected(&gate, &token("alice")).await;
}

#[tokio::test]
async fn a_revocation_ends_whom_it_concerns_and_keeps_them_out_everywhere() {
    let backend = Backend::start().await;
    let of = |changes: Value| {
        let mut claims = claims("alice");
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        hs256(&claims)
    };
    for (body, tokens, kept) in [
        (
            json!({"jti": "t1", "issuer": ISSUER, "exp": now() + 600}),
            of(json!({"jti": "t1"})),
            of(json!({"jti": "t2"})),
        ),
        (json!({"jti": "t1"}), of(json!({"jti": "t1"})), token("alice")),
        (json!({"sid": "s1", "issuer": ISSUER}), of(json!({"sid": "s1"})), of(json!({"sid": "s2"}))),
        (json!({"subject": "alice"}), token("alice"), token("bob")),
        (json!({"subject": "alice", "not_before": now() - 5}), of(json!({"iat": now() - 10})), token("alice")),
        (json!({"issuer": ISSUER, "not_before": now() - 5}), of(json!({"iat": now() - 10})), token("alice")),
    ] {
        let gate = Gate::with(&backend, with_admin).await;
        let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&tokens)).await;
        let poller = Poller::connected(&gate, &tokens).await;
        let late = Poller::open(&gate, |ask| ask).await;
        assert_eq!(late.post(&format!(r#"40{{"token":"{tokens}"}}"#)).await.text(), "ok");
        assert!(late.get().await.text().starts_with("40"));
        let other = Poller::connected(&gate, &kept).await;
        let (mut held, mut held_too) = (poller.hold().await, late.hold().await);
        let answer = revoke(&gate, body.clone()).await;
        assert_eq!((answer.status, &answer.json()["ended"]), (200, &json!(3)), "{body} {answer:?}");
        assert_eq!(ws.closed().await, (4401, "revoked".into()), "{body}");
        assert_eq!(
            (held.answer().await.reason(), held_too.answer().await.reason()),
            ("revoked".into(), "revoked".into())
        );
        // Back by handshake, by CONNECT, in another session's request, or by REST: the tokens were verified before.
        assert_eq!(gate.ask(Ask::get(POLLING).bearer(&tokens)).await.reason(), "revoked", "{body}");
        assert_eq!(gate.ask(Ask::get("/api/x").bearer(&tokens)).await.reason(), "revoked", "{body}");
        assert_eq!(gate.ask(Ask::get(&other.target()).bearer(&tokens)).await.reason(), "revoked", "{body}");
        let back = Poller::open(&gate, |ask| ask).await;
        assert_eq!(back.post(&format!(r#"40{{"token":"{tokens}"}}"#)).await.text(), "ok");
        assert!(back.get().await.text().contains(r#""code":"revoked""#), "{body}");
        // Whom it does not concern stays, and comes.
        assert_eq!(other.post("42[1]").await.text(), "ok", "{body}");
        Poller::connected(&gate, &kept).await;
        let listed = gate.admin(ask("GET", "/api/revocations")).await.json();
        assert_eq!((&listed["remembered"], &listed["revocations"][0]["reason"]), (&json!(1), &json!("revoked")));
        let again = revoke(&gate, body.clone()).await.json();
        assert_eq!(again["ended"], json!(0), "{body}");
        let text = gate.admin(ask("GET", "/metrics")).await.text();
        assert!(text.contains("siogate_sessions_ended_total{by=\"gate\",reason=\"revoked\"} 3"), "{text}");
        assert!(
            text.contains("siogate_revocations 1") && text.contains("revocations_taken_total{origin=\"admin\""),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_token_that_has_ended_needs_no_memory() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    revoke(&gate, json!({"jti": "t1", "exp": now() + 10})).await;
    revoke(&gate, json!({"jti": "t2", "until": now() + 100})).await;
    let until: Vec<_> = gate.admin(ask("GET", "/api/revocations")).await.json()["revocations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["value"].clone())
        .collect();
    assert_eq!(until, ["t2", "t1"], "what is forgotten first comes first; exp allows for the longest leeway");
    gate.context.clock.shift(3_600_000);
    let listed = gate.admin(ask("GET", "/api/revocations")).await.json();
    assert_eq!(listed["remembered"], json!(0));
}

#[tokio::test]
async fn what_is_misspelt_revokes_nobody_and_is_named() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    let inside = Poller::connected(&gate, &token("alice")).await;
    for (body, key) in [
        (json!({}), "issuer"),
        (json!({"subjet": "alice"}), "member"),
        (json!({"issuer": ISSUER, "subjet": "alice"}), "member"),
        (json!({"issuer": ISSUER, "subject": null}), "subject"),
        (json!({"issuer": ISSUER, "subject": ""}), "subject"),
        (json!({"issuer": ISSUER, "subject": ["alice"]}), "subject"),
        (json!({"issuer": ISSUER, "subject": "a".repeat(1025)}), "subject"),
        (json!({"issuer": "https://other.test/"}), "issuer"),
        (json!({"issuer": null, "subject": "alice"}), "issuer"),
        (json!({"jti": "a", "sid": "b"}), "sid"),
        (json!({"jti": "a", "not_before": now()}), "not_before"),
        (json!({"subject": "alice", "not_before": now() + 3600}), "not_before"),
        (json!({"subject": "alice", "not_before": "now"}), "not_before"),
        (json!({"subject": "alice", "not_before": -1}), "not_before"),
        (json!({"subject": "alice", "until": now() - 1}), "until"),
        (json!({"subject": "alice", "until": u64::MAX}), "until"),
        (json!({"jti": "a", "exp": u64::MAX}), "exp"),
        (json!({"jti": "a", "exp": now(), "until": now() + 5}), "exp"),
        (json!([]), "body"),
    ] {
        let answer = revoke(&gate, body.clone()).await;
        assert_eq!((answer.status, &answer.json()["key"]), (400, &json!(key)), "{body} {answer:?}");
        assert!(answer.json()["allowed"].as_str().is_some_and(|allowed| !allowed.is_empty()), "{body}");
    }
    for (target, key) in [
        ("/api/sessions?subjet=a", "parameter"),
        ("/api/sessions?subject=a&subject=b", "subject"),
        ("/api/sessions?limit=0", "limit"),
        ("/api/sessions?limit=1001", "limit"),
        ("/api/sessions?limit=-1", "limit"),
        ("/api/sessions?after=x", "after"),
        ("/api/sessions?state=open", "state"),
        ("/api/revocations?after=1", "after"),
        ("/api/revocations?limit=many", "limit"),
    ] {
        let answer = gate.admin(ask("GET", target)).await;
        assert_eq!((answer.status, &answer.json()["key"]), (400, &json!(key)), "{target} {answer:?}");
    }
    assert_eq!(inside.post("42[1]").await.text(), "ok");
    assert_eq!(gate.admin(ask("GET", "/api/revocations")).await.json()["remembered"], json!(0));
}

#[tokio::test]
async fn p44_the_api_is_for_operators_and_not_for_pages() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        with_admin(config);
        config.admin.token_env = "ADMIN_TOKEN".into();
    })
    .await;
    let _inside = Poller::connected(&gate, &token("alice")).await;
    let body = json!({"subject": "alice"}).to_string();
    let post = || {
        let ask = ask("POST", "/api/revocations").with("content-length", &body.len().to_string());
        Ask { body: body.clone().into_bytes(), ..ask }
    };
    let (kind, good) = (("content-type", "application/json"), "the admin's token");
    for (ask, status) in [
        (ask("GET", "/api/sessions"), 401),
        (ask("DELETE", "/api/sessions/x"), 401),
        (post().with(kind.0, kind.1), 401),
        (post().with(kind.0, kind.1).bearer("wrong"), 401),
        (post().bearer(good), 415),
        (post().with("content-type", "text/plain").bearer(good), 415),
        (post().with(kind.0, kind.1).with("origin", "http://localhost:9090").bearer(good), 403),
        (post().with(kind.0, kind.1).with("sec-fetch-site", "cross-site").bearer(good), 403),
        (ask("DELETE", "/api/sessions/x").with("origin", "null").bearer(good), 403),
        (Ask { host: Some("evil.test".into()), ..post() }.with(kind.0, kind.1).bearer(good), 421),
        (ask("PUT", "/api/sessions").bearer(good), 405),
        (ask("DELETE", "/api/revocations").bearer(good), 405),
        (ask("POST", "/api/sessions/x").bearer(good), 405),
        (ask("GET", "/api/").bearer(good), 404),
        (ask("GET", "/api/sessions/").bearer(good), 404),
    ] {
        let answer = gate.admin(ask.clone()).await;
        assert_eq!(answer.status, status, "{} {} {answer:?}", ask.method, ask.target);
    }
    assert_eq!((gate.context.registry.len(), gate.context.revoker.table().len()), (1, 0));
    let long = Ask { body: vec![b' '; 20_000], ..ask("POST", "/api/revocations") };
    let long = long.with(kind.0, kind.1).with("content-length", "20000").bearer(good);
    assert_eq!(gate.admin(long).await.status, 413);
    // None of it is on the public door.
    for path in ["/api/sessions", "/api/revocations"] {
        assert_ne!(gate.get(path).await.status, 200);
    }
}

#[tokio::test]
async fn l06_a_revocation_that_races_logins_lets_nobody_stay() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_admin).await;
    let old = hs256(&changed("alice", "iat", json!(now() - 10)));
    let storm = async {
        let mut inside = Vec::new();
        loop {
            match gate.ws(Ask::upgrade(WEBSOCKET).bearer(&old)).await {
                Ok(ws) => inside.push(ws),
                Err(answer) => {
                    assert_eq!(answer.status, 401, "{answer:?}");
                    return inside;
                }
            }
        }
    };
    let revocation = async {
        until("some are inside", || gate.context.registry.len() >= 5).await;
        revoke(&gate, json!({"subject": "alice"})).await
    };
    let (inside, answer) = tokio::join!(storm, revocation);
    assert_eq!(answer.status, 200);
    for mut ws in inside {
        let (code, reason) = ws.closed().await;
        assert_eq!((code, reason.as_str()), (4401, "revoked"));
    }
    until("nobody is inside", || gate.context.registry.is_empty()).await;
}
