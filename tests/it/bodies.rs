//! Polling bodies: late, large, many, twice. What breaks the rules ends its session, what is only too large does not.

use crate::support::backend::Backend;
use crate::support::client::{Answer, Ask, Conn};
use crate::support::gate::{Gate, hurried};
use crate::support::poller::{POLLING, Poller};
use crate::support::tokens::token;
use crate::support::until;

/// The head of a POST whose body is the caller's business.
fn head(poller: &Poller, framing: (&str, &str)) -> Ask {
    Ask::new("POST", &poller.target()).with("content-type", "text/plain").with(framing.0, framing.1)
}

async fn is_alive(poller: &Poller) {
    assert_eq!(poller.post(r#"42["still","here"]"#).await.text(), "ok");
    assert_eq!(poller.get().await.text(), r#"42["still","here"]"#);
}

async fn is_gone(poller: &Poller) {
    assert_eq!(poller.get().await.code(), 1);
    assert_eq!(poller.post("2").await.code(), 1);
}

#[tokio::test]
async fn p16_a_binary_body_of_protocol_4_is_400_and_the_end() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for kind in [
        "application/octet-stream",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let poller = Poller::connected(&gate, &token("alice")).await;
        let answer = poller.ask(Ask::post(&poller.target(), "4hello").but("content-type", kind)).await;
        assert_eq!((answer.status, answer.code()), (400, 3), "{kind}");
        is_gone(&poller).await;
    }
    for kind in ["text/plain", "TEXT/PLAIN; charset=utf-8"] {
        let poller = Poller::connected(&gate, &token("alice")).await;
        let answer = poller.ask(Ask::post(&poller.target(), r#"42["a"]"#).but("content-type", kind)).await;
        assert_eq!(answer.text(), "ok", "{kind}");
    }
    until("all ended", || gate.context.registry.len() == 2).await;
}

#[tokio::test]
async fn p17_a_body_that_trickles_is_408_and_the_session_survives() {
    let backend = Backend::start().await;
    let gate = Gate::with(&backend, hurried).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    for framing in [("content-length", "10"), ("transfer-encoding", "chunked")] {
        let mut conn = gate.conn().await;
        conn.write(head(&poller, framing).bytes()).await;
        conn.write("3\r\n42[\r\n").await;
        let answer = conn.answer().await;
        assert_eq!((answer.status, answer.code(), answer.closes()), (408, 3, true));
        assert!(conn.rest().await.is_empty());
        is_alive(&poller).await;
    }
}

#[tokio::test]
async fn p17_a_body_whose_sender_leaves_leaves_nothing() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut conn = gate.conn().await;
    conn.write(head(&poller, ("content-length", "1000")).bytes()).await;
    conn.write(r#"42["half"#).await;
    drop(conn);
    // Its place as the one POST of the session is free again.
    let mut answer = poller.post(r#"42["whole"]"#).await;
    if answer.status == 400 {
        // The first one was not gone yet: engine.io's own answer to two at a time.
        is_gone(&poller).await;
        return;
    }
    assert_eq!(answer.text(), "ok");
    answer = poller.get().await;
    assert_eq!(answer.text(), r#"42["whole"]"#);
}

#[tokio::test]
async fn p17_too_large_a_body_is_413_and_the_session_survives() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let large = "4".repeat(1_000_001);
    let answer = poller.post(&large).await;
    assert_eq!((answer.status, answer.reason().as_str()), (413, "payload_too_large"));
    is_alive(&poller).await;
    // Without a length it is counted as it comes.
    let mut conn = gate.conn().await;
    conn.write(head(&poller, ("transfer-encoding", "chunked")).bytes()).await;
    let _ = conn.try_write(format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len())).await;
    assert_eq!(conn.answer().await.status, 413);
    is_alive(&poller).await;
    // A length alone is enough to be refused.
    let mut conn = gate.conn().await;
    conn.write(head(&poller, ("content-length", "99999999999")).bytes()).await;
    assert_eq!(conn.answer().await.status, 413);
    is_alive(&poller).await;
    assert_eq!(poller.post(&format!(r#"42["{}"]"#, "x".repeat(999_990))).await.text(), "ok", "to the last byte");
}

#[tokio::test]
async fn p17_before_there_is_a_user_a_body_holds_a_connect_and_no_more() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::open(&gate, |ask| ask).await;
    let answer = poller.post(&"4".repeat(65_537)).await;
    assert_eq!((answer.status, answer.reason().as_str()), (413, "payload_too_large"));
    let padded = format!(r#"40{{"token":"{}","pad":"{}"}}"#, token("alice"), "x".repeat(60_000));
    assert_eq!(poller.post(&padded).await.text(), "ok");
    assert!(poller.get().await.text().starts_with("40{"));
}

#[tokio::test]
async fn p17_a_hundred_thousand_packets_are_no_payload() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut link = backend.link().await;
    let many = vec!["42[1]"; 100_000].join("\x1e");
    let answer = poller.post(&many).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "as engine.io answers a bad payload");
    is_gone(&poller).await;
    let frames = link.rest().await;
    assert!(frames.iter().filter(|f| f.opcode == 1).count() == 1, "CONNECT and none of them");

    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut link = backend.link().await;
    link.text().await;
    assert_eq!(poller.post(&vec!["42[1]"; 10_000].join("\x1e")).await.text(), "ok");
    for _ in 0..10_000 {
        assert_eq!(link.text().await, "42[1]");
    }
}

#[tokio::test]
async fn p17_bodies_that_are_no_payload_are_answered_ok_and_end_the_session() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for body in ["", "x", "9", "\x1e", "42[1]\x1e", "\x1e42[1]", "42[1]\x1e\x1e42[1]", "b!!!", "b", "2", "2probe"] {
        let poller = Poller::connected(&gate, &token("alice")).await;
        let answer = poller.post(body).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{body:?}");
        is_gone(&poller).await;
    }
    let poller = Poller::connected(&gate, &token("alice")).await;
    let not_text = Ask::post(&poller.target(), b"42[\"\xff\"]");
    assert_eq!(poller.ask(not_text).await.text(), "ok");
    is_gone(&poller).await;
    until("all ended", || gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn p17_a_second_post_at_a_time_ends_the_session() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut first = gate.conn().await;
    first.write(head(&poller, ("content-length", "10")).bytes()).await;
    first.write("4").await;
    // Whichever of the two the gate reads first: one of them is the second.
    let second: Answer = loop {
        let answer = poller.post("42[1]").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((second.status, second.code()), (400, 3));
    first.write("2[\"late\"]").await;
    assert_eq!(first.answer().await.status, 400);
    is_gone(&poller).await;
}

#[tokio::test]
async fn p17_a_second_get_at_a_time_closes_the_first_and_ends_the_session() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let (mut one, mut two) = (poller.hold().await, poller.hold().await);
    let mut answers = [one.answer().await, two.answer().await];
    answers.sort_by_key(|answer| answer.status);
    assert_eq!((answers[0].status, answers[0].text().as_str()), (200, "1"));
    assert_eq!((answers[1].status, answers[1].code()), (400, 3));
    is_gone(&poller).await;
}

#[tokio::test]
async fn a_get_that_is_given_up_ends_the_session_on_both_sides() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut link = backend.link().await;
    let held: Conn = poller.hold().await;
    // Held: whatever the backend says now would be its answer.
    until("the poll is held", || gate.context.tasks.len() >= 2).await;
    drop(held);
    assert!(link.rest().await.iter().any(|frame| frame.opcode == 8));
    is_gone(&poller).await;
}

#[tokio::test]
async fn a_get_that_is_given_up_as_soon_as_it_is_written_ends_the_session_too() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    for _ in 0..100 {
        let poller = Poller::connected(&gate, &token("alice")).await;
        let mut conn = gate.conn().await;
        assert_eq!(conn.ask(Ask::get("/")).await.status, 404);
        // Request and end arrive together, often before anybody has looked at either.
        conn.write(Ask::get(&poller.target()).bytes()).await;
        drop(conn);
    }
    until("all have left", || gate.context.registry.is_empty()).await;
}

#[tokio::test]
async fn a_client_that_says_it_leaves_is_answered_and_gone() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let poller = Poller::connected(&gate, &token("alice")).await;
    let mut held = poller.hold().await;
    assert_eq!(poller.post("1").await.text(), "ok");
    assert_eq!(held.answer().await.text(), "6");
    is_gone(&poller).await;
}

#[tokio::test]
async fn jsonp_is_refused_in_words() {
    let backend = Backend::start().await;
    let gate = Gate::of(&backend).await;
    let answer = gate.get(&format!("{POLLING}&j=0")).await;
    assert_eq!((answer.status, answer.code()), (400, 3));
    assert!(answer.text().contains("JSONP"));
}
