//! Two gates, one Redis: what one has revoked the other refuses, whoever was away meanwhile.

use crate::revocation::revoke;
use crate::support::backend::Backend;
use crate::support::client::Ask;
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller, WEBSOCKET};
use crate::support::redis::{Server, installed};
use crate::support::tokens::{ISSUER, now, token};
use crate::support::{until, within};
use serde_json::json;
use siogate::config::model::OnReject;
use std::time::{Duration, Instant};

async fn gate(backend: &Backend, redis: &Server) -> Gate {
    Gate::with(backend, |config| {
        config.admin.listen = "127.0.0.1:0".into();
        config.socketio.on_reject = OnReject::Http;
        config.revocation.redis_url = Some(redis.url.clone());
    })
    .await
}

async fn shares(gate: &Gate) {
    until("revocations are shared", || gate.context.metrics.shared.get() == 1).await;
}

async fn knows(gate: &Gate, count: usize) {
    until("the revocations are known", || gate.context.revoker.table().len() == count).await;
}

#[tokio::test]
async fn p40_what_one_replica_revokes_ends_sockets_on_the_other_within_a_second() {
    if !installed() {
        return;
    }
    let (backend, redis) = (Backend::start().await, Server::start().await);
    let (one, two) = (gate(&backend, &redis).await, gate(&backend, &redis).await);
    tokio::join!(shares(&one), shares(&two));
    let old = token("alice");
    let (mut ws, _) = two.session(Ask::upgrade(WEBSOCKET).bearer(&old)).await;
    let bob = Poller::connected(&two, &token("bob")).await;
    let asked = Instant::now();
    assert_eq!(revoke(&one, json!({"subject": "alice"})).await.json()["ended"], json!(0));
    assert_eq!(ws.closed().await, (4401, "revoked".into()));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(two.ask(Ask::get(POLLING).bearer(&old)).await.reason(), "revoked");
    assert_eq!(bob.post("42[1]").await.text(), "ok");
    // It stays there no longer than it has to.
    let keys = redis.redis().scan("siogate:{revocations}:").await.unwrap();
    assert_eq!(keys.len(), 1);
    let ttl: u64 = redis.cli(&["TTL", &keys[0]]).await.parse().unwrap();
    assert!(ttl.abs_diff(30 * 24 * 3600) <= 5, "{ttl}");
}

#[tokio::test]
async fn p40_who_was_down_learns_it_at_its_start_before_it_lets_anybody_in() {
    if !installed() {
        return;
    }
    let (backend, redis) = (Backend::start().await, Server::start().await);
    let one = gate(&backend, &redis).await;
    shares(&one).await;
    for n in 0..500 {
        revoke(&one, json!({"jti": format!("t{n}"), "exp": now() + 600})).await;
    }
    let old = token("alice");
    revoke(&one, json!({"subject": "alice"})).await;
    until("it is told", || one.context.revoker.table().len() == 501).await;
    let count = async {
        while redis.redis().scan("siogate:").await.unwrap().len() < 501 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("all are written", count).await;
    one.stop().await;
    let two = gate(&backend, &redis).await;
    assert_eq!(two.ask(Ask::get(POLLING).bearer(&old)).await.reason(), "revoked");
    assert_eq!(two.context.revoker.table().len(), 501);
}

#[tokio::test]
async fn p40_what_is_revoked_while_redis_is_away_is_not_lost() {
    if !installed() {
        return;
    }
    let (backend, mut redis) = (Backend::start().await, Server::start().await);
    let tokens = ["before", "alice", "bob"].map(token);
    let (one, two) = (gate(&backend, &redis).await, gate(&backend, &redis).await);
    tokio::join!(shares(&one), shares(&two));
    revoke(&one, json!({"subject": "before"})).await;
    knows(&two, 1).await;
    redis.kill().await;
    until("the loss is noticed", || one.context.metrics.shared.get() == 0 && two.context.metrics.shared.get() == 0)
        .await;
    // Here it counts at once.
    let (mut ws, _) = one.session(Ask::upgrade(WEBSOCKET).bearer(&token("alice"))).await;
    let far = Poller::connected(&two, &token("alice")).await;
    assert_eq!(revoke(&one, json!({"subject": "alice"})).await.json()["ended"], json!(1));
    assert_eq!(ws.closed().await, (4401, "revoked".into()));
    revoke(&two, json!({"subject": "bob"})).await;
    assert_eq!(far.post("42[1]").await.text(), "ok", "nobody can tell the other one");
    assert_eq!(far.get().await.text(), "42[1]");
    // It comes back empty, and is told everything anew, also what it had known.
    let mut held = far.hold().await;
    redis.revive().await;
    assert_eq!(held.answer().await.reason(), "revoked");
    tokio::join!(knows(&one, 3), knows(&two, 3), shares(&one), shares(&two));
    let three = gate(&backend, &redis).await;
    for token in &tokens {
        for gate in [&one, &two, &three] {
            assert_eq!(gate.ask(Ask::get(POLLING).bearer(token)).await.reason(), "revoked");
        }
    }
}

#[tokio::test]
async fn p40_what_is_revoked_at_the_last_moment_is_told() {
    if !installed() {
        return;
    }
    let (backend, redis) = (Backend::start().await, Server::start().await);
    let (one, old) = (gate(&backend, &redis).await, token("alice"));
    shares(&one).await;
    for n in 0..200 {
        revoke(&one, json!({"jti": format!("t{n}")})).await;
    }
    revoke(&one, json!({"subject": "alice"})).await;
    one.stop().await;
    let two = gate(&backend, &redis).await;
    assert_eq!(two.ask(Ask::get(POLLING).bearer(&old)).await.reason(), "revoked");
    assert_eq!(two.context.revoker.table().len(), 201);
}

#[tokio::test]
async fn a_redis_that_is_not_there_at_start_keeps_nobody_out_for_long() {
    if !installed() {
        return;
    }
    let (backend, mut redis) = (Backend::start().await, Server::start().await);
    redis.kill().await;
    let (one, old) = (gate(&backend, &redis).await, token("alice"));
    Poller::connected(&one, &token("bob")).await;
    revoke(&one, json!({"subject": "alice"})).await;
    redis.revive().await;
    shares(&one).await;
    let two = gate(&backend, &redis).await;
    assert_eq!(two.ask(Ask::get(POLLING).bearer(&old)).await.reason(), "revoked");
}

#[tokio::test]
async fn p40_what_is_no_revocation_does_nothing_and_what_is_one_names_its_victims() {
    if !installed() {
        return;
    }
    let (backend, redis) = (Backend::start().await, Server::start().await);
    for (key, value) in [("key:a", "junk"), ("key:b", "{}"), ("key:c", ""), ("key:d", &"x".repeat(100_000))] {
        redis.cli(&["SET", &format!("siogate:{{revocations}}:{key}"), value]).await;
    }
    redis.cli(&["LPUSH", "siogate:{revocations}:key:list", "a"]).await;
    let gate = gate(&backend, &redis).await;
    let inside = Poller::connected(&gate, &token("alice")).await;
    let good = |kind: &str, value: &str| json!({"v": 1, "kind": kind, "issuer": ISSUER, "value": value, "not_before": now(), "until": now() + 60, "reason": "revoked"});
    let publish = async |text: String| redis.cli(&["PUBLISH", "siogate:{revocations}:channel", &text]).await;
    for message in ["", "junk", "{\"v\":2}", &good("everybody", "").to_string(), &good("issuer", "x").to_string()] {
        publish(message.into()).await;
    }
    publish(good("subject", "bob").to_string()).await;
    knows(&gate, 1).await;
    assert_eq!(inside.post("42[1]").await.text(), "ok");
    assert!(gate.context.metrics.misheard.get() >= 5);
}
