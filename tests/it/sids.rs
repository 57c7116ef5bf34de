//! A session id is a bearer secret: it opens its own session and no other, and cannot be guessed at leisure.

use crate::support::backend::Backend;
use crate::support::client::{Answer, Ask};
use crate::support::gate::Gate;
use crate::support::poller::{POLLING, Poller};
use crate::support::tokens::{self, token};
use serde_json::json;
use siogate::config::model::Config;

const PAGE: &str = "http://gate.test";

/// The answers to a GET, a POST and an upgrade with somebody's credential and this session's sid.
async fn three_ways(poller: &Poller, credential: impl Fn(Ask) -> Ask) -> Vec<Answer> {
    let asks = [
        Ask::get(&poller.target()),
        Ask::post(&poller.target(), r#"42["from","mallory"]"#),
        Ask::upgrade(&poller.upgrade_target()),
    ];
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(poller.ask(credential(ask)).await);
    }
    answers
}

type Put = fn(Ask, &str) -> Ask;

fn places() -> Vec<(&'static str, Put)> {
    vec![
        ("header", |ask, token| ask.bearer(token)),
        ("cookie", |ask, token| ask.with("cookie", &format!("a=1; token={token}")).with("origin", PAGE)),
        ("query", |ask, token| Ask { target: format!("{}&token={token}", ask.target), ..ask }),
    ]
}

#[tokio::test]
async fn p13_another_users_credential_with_my_sid_is_403_on_every_way_in() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let (alice, mallory) = (token("alice"), token("mallory"));
    for (place, put) in places() {
        let poller = Poller::open(&gate, |ask| put(ask, &alice)).await;
        poller.post("40").await;
        poller.get().await;
        let mut link = backend.link().await;
        for answer in three_ways(&poller, |ask| put(ask, &mallory)).await {
            assert_eq!((answer.status, answer.reason().as_str()), (403, "subject_mismatch"), "{place}");
        }
        assert_eq!(link.waiting().len(), 1, "{place}: CONNECT and nothing of mallory's");
        // The session is none the worse for it.
        poller.post(r#"42["still","here"]"#).await;
        assert_eq!(poller.get().await.text(), r#"42["still","here"]"#);
    }
}

#[tokio::test]
async fn p13_the_same_subject_of_another_issuer_is_another_user() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config: &mut Config| {
        let mut other = config.issuer[0].clone();
        other.issuer = Some("https://other.test/".into());
        config.issuer.push(other);
    })
    .await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let foreign = tokens::hs256(&tokens::changed("alice", "iss", "https://other.test/".into()));
    for answer in three_ways(&poller, |ask| ask.bearer(&foreign)).await {
        assert_eq!((answer.status, answer.reason().as_str()), (403, "subject_mismatch"));
    }
    Poller::connected(&gate, &foreign).await;
}

#[tokio::test]
async fn p13_a_credential_that_is_there_has_to_be_good() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let alice = token("alice");
    let poller = Poller::connected(&gate, &alice).await;
    for (name, bad, word) in [
        ("expired", tokens::expired("alice"), "token_expired"),
        ("tampered", tokens::tampered(&token("alice2")), "signature_invalid"),
        ("garbage", "garbage".into(), "credential_malformed"),
        ("foreign", tokens::hs256(&tokens::changed("alice", "aud", "other".into())), "audience_mismatch"),
    ] {
        for answer in three_ways(&poller, |ask| ask.bearer(&bad)).await {
            assert_eq!((answer.status, answer.reason().as_str()), (401, word), "{name}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
        for answer in three_ways(&poller, |ask| ask.bearer(&alice).bearer(&bad)).await {
            assert_eq!((answer.status, answer.reason().as_str()), (401, "credential_malformed"), "two {name}");
        }
    }
    poller.post(r#"42["still","here"]"#).await;
    assert_eq!(poller.get().await.text(), r#"42["still","here"]"#);
}

#[tokio::test]
async fn p13_no_credential_or_a_fresh_one_of_the_same_user_is_fine() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for fresh in [None, Some(tokens::short("alice", 300))] {
        let poller = Poller::connected(&gate, &token("alice")).await;
        let with = |ask: Ask| match &fresh {
            Some(token) => ask.bearer(token),
            None => ask,
        };
        assert_eq!(poller.ask(with(Ask::post(&poller.target(), r#"42["a"]"#))).await.text(), "ok");
        assert_eq!(poller.ask(with(Ask::get(&poller.target()))).await.text(), r#"42["a"]"#);
        assert_eq!(poller.ask(with(Ask::upgrade(&poller.upgrade_target()))).await.status, 101);
    }
}

#[tokio::test]
async fn p13_the_sid_of_a_session_without_a_user_lends_nobody_its_connect() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::open(&gate, |ask| ask).await;
    // A good token beside the body is no CONNECT: it fixes no identity.
    let posted = poller.ask(Ask::post(&poller.target(), "40").bearer(&token("mallory"))).await;
    assert_eq!(posted.text(), "ok");
    assert!(poller.get().await.text().contains("credential_missing"));
    poller.post(&format!(r#"40{{"token":"{}"}}"#, token("alice"))).await;
    assert!(poller.get().await.text().starts_with("40{"));
    assert_eq!(backend.link().await.head.only("x-auth-subject"), "alice");
    let answer = poller.ask(Ask::get(&poller.target()).bearer(&token("mallory"))).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "subject_mismatch"));
}

#[tokio::test]
async fn p13_after_the_upgrade_the_sid_opens_nothing_more() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut ws = poller.upgrade().await;
    ws.send(r#"42["a"]"#).await;
    assert_eq!(ws.text().await, r#"42["a"]"#);
    let answers = three_ways(&poller, |ask| ask).await;
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [400, 400, 400]);
    assert_eq!((answers[0].code(), answers[1].code(), answers[2].text().as_str()), (3, 3, "Bad request"));
    ws.send(r#"42["b"]"#).await;
    assert_eq!(ws.text().await, r#"42["b"]"#);
}

#[tokio::test]
async fn p14_unknown_sids_are_limited_by_address_and_known_ones_are_not() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let guess = |n: usize, from: &str| {
        Ask::get(&format!("{POLLING}&sid=guess{n}")).with("x-forwarded-for", from).bearer(&token("mallory"))
    };
    let mut conn = gate.conn().await;
    let (mut statuses, started) = (Vec::new(), std::time::Instant::now());
    for n in 0..300 {
        let answer = conn.ask(guess(n, "198.51.100.7")).await;
        match answer.status {
            400 => assert_eq!(answer.code(), 1),
            _ => assert_eq!(answer.reason(), "rate_limited"),
        }
        statuses.push(answer.status);
    }
    assert!(statuses[..100].iter().all(|s| *s == 400), "a hundred clients may come back at once");
    // One more every tenth of a second, however long this took.
    let more = usize::try_from(started.elapsed().as_millis() / 100).unwrap() + 1;
    assert!(statuses.iter().filter(|s| **s == 400).count() <= 100 + more, "but nobody may go on guessing");
    let upgrade = Ask { target: format!("{}guess", poller.upgrade_target()), ..Ask::upgrade("") };
    let answer = gate.ask(upgrade.with("x-forwarded-for", "198.51.100.7")).await;
    assert_eq!((answer.status, answer.closes()), (429, true));
    // Neither other addresses nor known sessions of the same one are concerned.
    assert_eq!(conn.ask(guess(0, "198.51.100.8")).await.code(), 1);
    let post = Ask::post(&poller.target(), r#"42["a"]"#).with("x-forwarded-for", "198.51.100.7");
    assert_eq!(conn.ask(post).await.text(), "ok");
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn p14_a_client_never_chooses_its_sid() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let answer = gate.ask(Ask::get(&format!("{POLLING}&sid=mine")).bearer(&token("alice"))).await;
    assert_eq!((answer.status, answer.code()), (400, 1));
    let (a, b) = (Poller::open(&gate, |ask| ask).await, Poller::open(&gate, |ask| ask).await);
    assert!(a.sid != b.sid && a.sid.len() >= 20, "{} {}", a.sid, b.sid);
    assert!(backend.is_untouched());
}

#[tokio::test]
async fn p15_crafted_sids_are_unknown_and_reach_nobody() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let long = "a".repeat(65);
    let near = [
        format!("{}%00", poller.sid),
        format!("{}%20", poller.sid),
        format!("{}a", poller.sid),
        poller.sid.to_lowercase().to_uppercase(),
    ];
    let crafted =
        ["__proto__", "constructor", "toString", "hasOwnProperty", "..%2f..", "%F0%9F%92%A9", "*", "0", &long];
    for sid in crafted.into_iter().chain(near.iter().map(String::as_str)) {
        let target = format!("{POLLING}&sid={sid}");
        for ask in [Ask::get(&target), Ask::post(&target, "41"), Ask::get(&target).bearer(&token("alice"))] {
            let answer = gate.ask(ask).await;
            let expected = if sid.contains("%00") { 3 } else { 1 };
            assert_eq!((answer.status, answer.code()), (400, expected), "{sid}");
        }
        let answer = gate.ask(Ask::upgrade(&target.replace("polling", "websocket"))).await;
        assert_eq!((answer.status, answer.closes()), (400, true), "{sid}");
    }
    assert_eq!(backend.accepted(), 1);
    assert_eq!(poller.post(r#"42["a"]"#).await.text(), "ok");
}

#[tokio::test]
async fn a_refresh_of_no_session_is_answered_in_engine_ios_words_and_cannot_be_used_to_guess() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, |config| config.session.refresh.enabled = true).await;
    let alice = Poller::connected(&gate, &token("alice")).await;
    let waiting = Poller::open(&gate, |ask| ask).await;
    let post = |body: &[u8]| Ask::post("/.siogate/refresh", body).bearer(&token("alice"));
    let of = |sid: &str| post(json!({ "session": sid }).to_string().as_bytes());
    // Neither a stranger's invention nor a session without a user is one that could be refreshed.
    for sid in ["x", "", &waiting.sid, "../x", "\u{0}", &"x".repeat(3000)] {
        let answer = gate.ask(of(sid)).await;
        let expected = json!({"ok": false, "code": 1, "message": "Session ID unknown"});
        assert_eq!((answer.status, answer.json()), (404, expected), "{sid}");
    }
    let deep = format!(r#"{{"session":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    let twice = format!(r#"{{"session":"{0}","session":"{0}"}}"#, alice.sid);
    for body in ["", "[]", "null", "{", "{}", r#"{"session":1}"#, "{\"session\":\"\u{fffd}", &deep, &twice] {
        assert_eq!(gate.ask(post(body.as_bytes())).await.status, 400, "{body}");
    }
    assert_eq!(gate.ask(post(b"{\"session\":\"\xff\"}")).await.status, 400);
    let long = gate.ask(post(&[b' '; 5000])).await;
    assert_eq!((long.status, long.reason()), (413, "payload_too_large".into()));
    // Guessing is slowed down, and whoever knows is not.
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        statuses.push(gate.ask(of(&format!("guess{}", statuses.len()))).await.status);
        assert!(statuses.len() < 1000, "nobody may go on guessing");
    }
    let answer = gate.ask(of(&alice.sid)).await;
    assert_eq!((answer.status, &answer.json()["ok"]), (200, &json!(true)), "{answer:?}");
    assert_eq!(alice.post("42[1]").await.text(), "ok");
}
