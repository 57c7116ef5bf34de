//! A side that takes nothing slows the other one down, and is given up where it can be.

use super::*;
use crate::protocol::frame::Opcode;

#[tokio::test(start_paused = true)]
async fn p28_a_slow_poller_slows_its_backend_down_and_loses_nothing() {
    let (rig, mut backend) = Rig::known(|config| config.limits.max_queue = 100_000);
    let message = format!("42[\"{}\"]", "x".repeat(10_000));
    let flood = backend.text(&message).repeat(1000);
    let sent = backend.flood(&flood).await;
    assert!(sent < 2_000_000, "{sent} bytes were taken for a client that does not poll");
    rig.post(&["42[\"up\"]"]).await;
    assert_eq!(backend.hears().await, "42[\"up\"]");
    let poller = async {
        let mut n = 0;
        while n < 1000 {
            let Got::Packets(packets) = rig.get().await else { panic!("the session is over") };
            assert!(packets.iter().all(|p| *p == message));
            n += packets.len();
        }
        assert_eq!(n, 1000);
    };
    tokio::join!(backend.send(&flood[sent..]), poller);
    drop(backend);
    rig.ended("upstream", "").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_websocket_that_takes_nothing_is_given_up_and_its_session_ends() {
    let (rig, mut backend) = Rig::known(|config| config.limits.write_timeout = Duration::from_secs(30));
    // Fragments keep the session from becoming a relay.
    backend.send(backend.fragment(false, Opcode::Text, b"42")).await;
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    backend.hears_nothing().await;
    let rest = [
        backend.fragment(true, Opcode::Continuation, vec![b'x'; 8_000_000]),
        backend.fragment(false, Opcode::Text, b"42"),
    ];
    backend.send(&rest.concat()).await;
    let start = tokio::time::Instant::now();
    assert_eq!(backend.is_closed().await.0, 1001);
    assert_eq!(start.elapsed().as_secs(), 30);
    drop(client);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_backend_that_takes_nothing_is_given_up_and_what_it_said_is_delivered() {
    let (rig, mut backend) = Rig::known(|config| config.limits.write_timeout = Duration::from_secs(30));
    backend.say("42[\"last words\"]").await;
    backend.hears_nothing().await;
    let long = format!("42[\"{}\"]", "x".repeat(8_000_000));
    let start = tokio::time::Instant::now();
    rig.post(&[&long]).await;
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(rig.get().await, packets(&["42[\"last words\"]"]));
    rig.ended("upstream", "").await;
}
