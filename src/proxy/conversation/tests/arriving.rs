//! From a stranger to a user with a backend, or out of the door again.

use super::*;
use crate::protocol::frame::Opcode;
use tokio::io::AsyncWriteExt;

#[tokio::test(start_paused = true)]
async fn a_poller_shows_its_token_then_the_backend_is_dialled_with_its_identity() {
    let rig = Rig::stranger();
    let poll = rig.ask().await;
    rig.backend.is_left_alone().await;
    let connect = [connect("alice")];
    let connect = [connect[0].as_str()];
    let (posted, (mut backend, head)) = tokio::join!(rig.send(Some(&connect)), rig.backend.opened());
    assert!(matches!(posted, Some(PostReply::Done)));
    assert!(head.contains("x-auth-subject: alice\r\n"), "{head}");
    assert_eq!(rig.entry.user().map(|u| u.subject.to_string()).as_deref(), Some("alice"));
    assert_eq!(backend.hears().await, "40{}", "OPEN is swallowed, the token is taken out");
    backend.say("40{\"sid\":\"x\"}").await;
    assert_eq!(got(poll).await, packets(&["40{\"sid\":\"x\"}"]));
    rig.post(&["42[\"up\"]"]).await;
    assert_eq!(backend.hears().await, "42[\"up\"]");
    rig.post(&["1"]).await;
    assert_eq!(backend.is_closed().await.0, 1001, "as a transport, without 41");
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p31_who_shows_no_token_in_time_is_shown_out() {
    let start = tokio::time::Instant::now();
    let rig = Rig::stranger();
    assert_eq!(rig.get().await, over(Reason::ConnectTimeout));
    assert_eq!(start.elapsed().as_secs(), 10);
    rig.backend.is_left_alone().await;
    rig.ended("gate", "connect_timeout").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    assert_eq!(client.is_closed().await, (4400, "connect_timeout".into()));
    rig.ended("gate", "connect_timeout").await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_refused_with_its_reason_on_either_transport() {
    let bad = "40{\"token\":\"a.b.c\"}";
    let rig = Rig::stranger();
    rig.post(&[bad]).await;
    assert_eq!(rig.get().await, packets(&[&refused("/", Reason::CredentialMalformed)]));
    rig.post(&["1"]).await;
    rig.backend.is_left_alone().await;
    rig.ended("gate", "credential_malformed").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(bad).await;
    assert_eq!(client.hears().await, refused("/", Reason::CredentialMalformed));
    client.say("40").await;
    assert_eq!(client.hears().await, refused("/", Reason::CredentialMissing));
    client.say("42[]").await;
    assert_eq!(client.is_closed().await, (1002, "protocol_error".into()));
    rig.ended("gate", "protocol_error").await;
}

#[tokio::test(start_paused = true)]
async fn p35_before_a_user_is_known_messages_are_short_and_text() {
    let cases = [
        (vec![b'x'; 65_537], Opcode::Text, (1009, "payload_too_large")),
        (b"40".to_vec(), Opcode::Binary, (1002, "protocol_error")),
        (b"".to_vec(), Opcode::Text, (1002, "protocol_error")),
        (vec![b'4', b'0', 0xff], Opcode::Text, (1002, "protocol_error")),
        (b"2".to_vec(), Opcode::Text, (1002, "protocol_error")),
        (b"451-[{}]".to_vec(), Opcode::Text, (1002, "protocol_error")),
    ];
    for (payload, opcode, (code, word)) in cases {
        let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
        let frame = client.frame(opcode, &payload);
        client.flood(&frame).await;
        assert_eq!(client.is_closed().await, (code, word.into()), "{payload:.10?}");
        rig.backend.is_left_alone().await;
        rig.ended("gate", word).await;
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_backend_is_there_the_gate_pings_and_silence_ends_the_session() {
    let patient: fn(&mut Config) = |config| config.socketio.connect_deadline = Duration::from_secs(3600);
    let (rig, mut client) = Rig::stranger_on_websocket(patient);
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(client.hears().await, "2");
        client.say("3").await;
    }
    assert_eq!(start.elapsed().as_secs(), 75);
    assert_eq!(client.hears().await, "2");
    assert_eq!(client.is_closed().await.0, 1001);
    assert_eq!(start.elapsed().as_secs(), 120);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_be_had_ends_the_transport_so_that_clients_try_again() {
    let config: fn(&mut Config) = |config| config.upstream.urls = vec!["unix:/nowhere/at/all".into()];
    let rig = Rig::new(Setup { config, ..Setup::default() });
    let poll = rig.ask().await;
    let unavailable = Ending::Gate(Reason::UpstreamUnavailable);
    assert!(matches!(rig.send(Some(&[&connect("alice")])).await, Some(PostReply::Over(e)) if e == unavailable));
    assert_eq!(got(poll).await, Got::Over(unavailable));
    rig.ended("gate", "upstream_unavailable").await;
    let (rig, mut client) = Rig::stranger_on_websocket(config);
    client.say(&connect("alice")).await;
    assert_eq!(client.is_closed().await, (4503, "upstream_unavailable".into()));
    rig.ended("gate", "upstream_unavailable").await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_says_no_or_no_open_is_told_apart() {
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(&connect("alice")).await;
    let (mut stream, _) = rig.backend.asked().await;
    stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(client.is_closed().await, (4502, "upstream_refused".into()));
    rig.ended("gate", "upstream_refused").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(&connect("alice")).await;
    let (mut backend, _) = rig.backend.accept().await;
    backend.say("42[\"no open\"]").await;
    assert_eq!(client.is_closed().await, (4502, "upstream_refused".into()));
    rig.ended("gate", "upstream_refused").await;
    let (rig, mut client) = Rig::stranger_on_websocket(|_| {});
    client.say(&connect("alice")).await;
    let (_silent, _) = rig.backend.accept().await;
    assert_eq!(client.is_closed().await, (4503, "upstream_unavailable".into()));
    rig.ended("gate", "upstream_unavailable").await;
}
