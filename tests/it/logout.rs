//! Back-channel logout from outside: what a provider is answered, and what happens to its user's sockets.

use crate::support::backend::Backend;
use crate::support::client::{Answer, Ask, Conn};
use crate::support::gate::Gate;
use crate::support::jwks::{Keys, Mood};
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::tokens::{AUDIENCE, ISSUER, Key, changed, claims, hs256, now, tampered, token, typed};
use crate::support::until;
use serde_json::{Value, json};
use siogate::config::model::issuers::Issuer;
use siogate::config::model::revocation::Logout;
use siogate::config::model::{Config, OnReject, Route, RouteAuth};

const PATH: &str = "/.siogate/backchannel-logout";

fn with_logout(config: &mut Config) {
    config.socketio.on_reject = OnReject::Http;
    config.issuer[0].logout = Some(Logout { audience: vec!["client".into()], ..Logout::default() });
}

fn said(changes: Value) -> Value {
    let events = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let base = json!({"iss": ISSUER, "aud": "client", "iat": now(), "exp": now() + 120, "jti": "j1", "events": events});
    let mut all = base;
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    all
}

fn logout_token(changes: Value) -> String {
    typed("logout+jwt", &said(changes))
}

fn form(body: &str) -> Ask {
    Ask::post(PATH, body).but("content-type", "application/x-www-form-urlencoded")
}

async fn logout(gate: &Gate, changes: Value) -> Answer {
    gate.ask(form(&format!("logout_token={}", logout_token(changes)))).await
}

#[tokio::test]
async fn a_logout_ends_the_sockets_of_the_login_and_its_tokens_stay_out() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_logout).await;
    let of = |sid: Value| hs256(&changed("alice", "sid", sid));
    let (one, two, none) = (of(json!("s1")), of(json!("s2")), token("alice"));
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&one)).await;
    let poller = Poller::connected(&gate, &one).await;
    let other_login = Poller::connected(&gate, &two).await;
    let unnamed = Poller::connected(&gate, &none).await;
    let bob = Poller::connected(&gate, &hs256(&changed("bob", "sid", json!("s3")))).await;
    let (mut held, mut held_unnamed) = (poller.hold().await, unnamed.hold().await);
    let answer = logout(&gate, json!({"sid": "s1", "sub": "alice"})).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    assert!(answer.body.is_empty());
    assert_eq!(ws.closed().await, (4401, "logged_out".into()));
    assert_eq!(held.answer().await.reason(), "logged_out");
    // A token that does not say which login it is of may be of this one.
    assert_eq!(held_unnamed.answer().await.reason(), "logged_out");
    for token in [&one, &none] {
        assert_eq!(gate.ask(Ask::get(POLLING).bearer(token)).await.reason(), "logged_out");
    }
    for stays in [&other_login, &bob] {
        assert_eq!(stays.post("42[1]").await.text(), "ok");
    }
    Poller::connected(&gate, &two).await;
    // Who logs in again has a token that was issued later.
    let later = hs256(&changed("alice", "iat", json!(now() + 1)));
    gate.context.clock.shift(2_000);
    Poller::connected(&gate, &later).await;
    // Where no login is named, all of the user's are meant.
    assert_eq!(logout(&gate, json!({"sub": "alice", "jti": "j2"})).await.status, 200);
    assert_eq!(gate.ask(Ask::get(POLLING).bearer(&two)).await.reason(), "logged_out");
    assert_eq!(other_login.get().await.reason(), "logged_out");
    assert_eq!(bob.post("42[1]").await.text(), "ok");
}

#[tokio::test]
async fn j27_a_logout_that_is_signed_with_a_new_key_is_believed_once_the_key_is_fetched() {
    let backend = Backend::start().await;
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    let keys = Keys::start(Mood::Body(json!({"keys": [old.jwk()]}).to_string())).await;
    let gate = Gate::with(&backend, |config| {
        with_logout(config);
        let logout = config.issuer[0].logout.take();
        config.issuer = vec![Issuer {
            issuer: Some(ISSUER.into()),
            jwks_url: Some(keys.url.clone()),
            audience: vec![AUDIENCE.into()],
            algorithms: vec!["ES256".into()],
            logout,
            ..Issuer::default()
        }];
    })
    .await;
    until("the keys are there", || gate.context.keys.ready()).await;
    let (mut ws, _) = gate.session(Ask::upgrade(WEBSOCKET).bearer(&old.sign(&claims("alice")))).await;
    keys.mood(Mood::Body(json!({"keys": [new.jwk()]}).to_string()));
    let token = new.typed("logout+jwt", &said(json!({"sub": "alice"})));
    let answer = gate.ask(form(&format!("logout_token={token}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(ws.closed().await, (4401, "logged_out".into()));
}

#[tokio::test]
async fn nothing_to_do_is_done_and_the_same_again_is_too() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_logout).await;
    for _ in 0..3 {
        assert_eq!(logout(&gate, json!({"sub": "nobody"})).await.status, 200);
    }
    assert_eq!(gate.context.revoker.table().len(), 1);
    // L02: what is sent again withdraws nothing more, not even under the same name.
    let bob = Poller::connected(&gate, &token("bob")).await;
    assert_eq!(logout(&gate, json!({"sub": "bob"})).await.status, 200);
    assert_eq!(bob.post("42[1]").await.text(), "ok");
}

#[tokio::test]
async fn l01_l03_l05_what_is_not_believed_is_answered_400_and_does_nothing() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_logout).await;
    let inside = Poller::connected(&gate, &token("alice")).await;
    let with_token = |token: &str| form(&format!("logout_token={token}"));
    let good = logout_token(json!({"sub": "alice"}));
    for (what, ask) in [
        ("an access token", with_token(&token("alice"))),
        ("an old one", with_token(&logout_token(json!({"sub": "alice", "iat": now() - 3600})))),
        ("events in a list", with_token(&logout_token(json!({"sub": "alice", "events": ["x"]})))),
        ("a nonce", with_token(&logout_token(json!({"sub": "alice", "nonce": "n"})))),
        ("two", form(&format!("logout_token={good}&logout_token={good}"))),
        ("two, one of them hidden", form(&format!("logout_token={good}&logout%5Ftoken={good}"))),
        ("none", form("token=x")),
        ("nothing", form("")),
        ("empty", form("logout_token=")),
        ("JSON", Ask::post(PATH, format!(r#"{{"logout_token":"{good}"}}"#)).but("content-type", "application/json")),
        ("no type", form(&format!("logout_token={good}")).without("content-type")),
        ("two types", form(&format!("logout_token={good}")).with("content-type", "application/x-www-form-urlencoded")),
        ("in the query", Ask { target: format!("{PATH}?logout_token={good}"), ..form("") }),
        ("not UTF-8", Ask { body: vec![0xff; 3], ..form("abc") }),
    ] {
        let answer = gate.ask(ask).await;
        assert_eq!((answer.status, answer.header("cache-control")), (400, Some("no-store")), "{what} {answer:?}");
        assert_eq!(answer.json()["error"], "invalid_request", "{what}");
        assert!(!answer.text().contains("alice"), "{what}: {answer:?}");
    }
    let answer = gate.ask(form(&"a".repeat(33 * 1024))).await;
    assert_eq!((answer.status, answer.closes()), (413, true));
    let answer = gate.get(PATH).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(inside.post("42[1]").await.text(), "ok");
    assert!(gate.context.revoker.table().is_empty());
    assert_eq!(gate.ask(Ask::get(POLLING).bearer(&good)).await.reason(), "claim_rejected", "nor is it a credential");
}

#[tokio::test]
async fn it_is_heard_whatever_origin_cookie_or_route_there_is_and_only_where_configured() {
    let backend = Backend::start().await;
    let everything = |config: &mut Config| {
        with_logout(config);
        config.socketio.require_origin = true;
        config.http.route = vec![Route { path: "/".into(), auth: RouteAuth::Deny, websocket: false }];
    };
    let gate = Gate::with(&backend, everything).await;
    let body = format!("x=1&logout_token={}&y=%zz", logout_token(json!({"sub": "alice"})));
    let ask = form(&body).with("origin", "https://evil.test").with("cookie", "a=b").with("authorization", "Bearer x");
    assert_eq!(gate.ask(ask).await.status, 200);
    for path in ["/.siogate", "/.siogate/", "/.siogate/other", "/.siogate/backchannel-logout/", "/.siogate/refresh"] {
        assert_eq!(gate.get(path).await.status, 404, "{path}");
    }
    let deaf = Gate::with(&backend, |config| {
        everything(config);
        config.issuer[0].logout = None;
    })
    .await;
    assert_eq!(logout(&deaf, json!({"sub": "alice"})).await.status, 404);
}

#[tokio::test]
async fn l06_a_login_that_races_its_logout_never_survives() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, with_logout).await;
    let old = hs256(&changed("alice", "sid", json!("s1")));
    let storm = async {
        let mut inside = Vec::new();
        loop {
            match gate.ws(Ask::upgrade(WEBSOCKET).bearer(&old)).await {
                Ok(ws) => inside.push(ws),
                Err(answer) => {
                    assert_eq!(answer.reason(), "logged_out");
                    return inside;
                }
            }
        }
    };
    let out = async {
        until("some are inside", || gate.context.registry.len() >= 5).await;
        logout(&gate, json!({"sid": "s1"})).await
    };
    let (inside, answer) = tokio::join!(storm, out);
    assert_eq!(answer.status, 200);
    for mut ws in inside {
        assert_eq!(ws.closed().await, (4401, "logged_out".into()));
    }
    until("nobody is inside", || gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn l07_a_flood_is_listened_to_less_and_less_and_a_provider_is_not() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        with_logout(config);
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let inside = Poller::connected(&gate, &token("bob")).await;
    let bad = format!("logout_token={}", tampered(&logout_token(json!({"sub": "alice"}))));
    let mut conn = Conn::open(&gate.addr).await;
    let (mut refused, mut slower) = (0, 0);
    for _ in 0..10_000 {
        conn.write(form(&bad).with("x-forwarded-for", "192.0.2.1").bytes()).await;
        let answer = conn.answer().await;
        match answer.status {
            400 => refused += 1,
            429 => {
                slower += 1;
                assert_eq!(answer.header("retry-after"), Some("1"));
                conn = Conn::open(&gate.addr).await;
            }
            other => panic!("{other}"),
        }
        if slower >= 200 {
            break;
        }
    }
    assert!((50..150).contains(&refused), "{refused} were looked at");
    // Others are heard, as often as they have something to say.
    for n in 0..200 {
        let token = logout_token(json!({"sub": format!("user-{n}"), "jti": format!("j{n}")}));
        let answer = gate.ask(form(&format!("logout_token={token}")).with("x-forwarded-for", "192.0.2.2")).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(inside.post("42[1]").await.text(), "ok");
}
