//! What passes between the two sides and what does not, up to the last word of a backend that left.

use super::*;
use crate::protocol::frame::Opcode;

#[tokio::test(start_paused = true)]
async fn what_the_backend_said_before_it_left_is_delivered_and_then_the_session_is_over() {
    let (rig, mut backend) = Rig::known(|_| {});
    for i in 0..5 {
        backend.say(&format!("42[{i}]")).await;
    }
    backend.send(backend.frame(Opcode::Close, b"\x03\xe8")).await;
    drop(backend);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.get().await, packets(&["42[0]", "42[1]", "42[2]", "42[3]", "42[4]"]));
    rig.ended("upstream", "").await;
    // With a poll held there is nothing left to deliver.
    let (rig, backend) = Rig::known(|_| {});
    let mut poll = rig.ask().await;
    is_held(&mut poll).await;
    drop(backend);
    assert_eq!(got(poll).await, Got::Over(Ending::Upstream));
    rig.ended("upstream", "").await;
    // And a client that never comes back is not waited for longer than a ping.
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("42[]").await;
    drop(backend);
    let start = tokio::time::Instant::now();
    rig.ended("upstream", "").await;
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn attachments_pass_with_their_packet_and_strays_end_the_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.get().await, packets(&["451-[\"bin\",{}]"]));
    backend.send(backend.frame(Opcode::Binary, [1, 2, 3])).await;
    assert_eq!(rig.get().await, packets(&["bAQID"]));
    let binary = |bytes: &'static [u8]| Packet::Binary(Bytes::from_static(bytes));
    let (reply, answer) = oneshot::channel();
    let body = vec![Packet::text("452-[\"bin\",{},{}]"), binary(b"one")];
    rig.mailbox.send(Command::Post(Some(body), reply)).await.ok().unwrap();
    answer.await.ok().unwrap();
    assert_eq!(backend.hears().await, "452-[\"bin\",{},{}]");
    assert_eq!(backend.next().await.payload, b"one");
    // The second attachment comes by WebSocket, and one more that nobody announced.
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    client.send(client.frame(Opcode::Binary, b"two")).await;
    assert_eq!(backend.next().await.payload, b"two");
    client.send(client.frame(Opcode::Binary, b"stray")).await;
    assert_eq!(client.is_closed().await, (1002, "protocol_error".into()));
    assert_eq!(backend.is_closed().await.0, 1001);
    drop((client, backend));
    rig.gate.context.tasks.close();
    rig.gate.context.tasks.wait().await;
    assert_eq!(rig.gate.ended("gate", "protocol_error"), 1);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_protocol_3_run_from_end_to_end_or_to_the_gate() {
    let (mut backend, stream) = Wire::new(Writer::Server);
    let rig = Rig::new(Setup { version: Version::V3, upstream: Some(stream), ..Setup::default() });
    rig.post(&["2"]).await;
    assert_eq!(backend.hears().await, "2");
    backend.say("3").await;
    assert_eq!(rig.get().await, packets(&["3"]));
    rig.post(&["1"]).await;
    rig.ended("client", "").await;
    let rig = Rig::new(Setup { version: Version::V3, ..Setup::default() });
    rig.post(&["2"]).await;
    assert_eq!(rig.get().await, packets(&["3"]), "there is no backend to answer");
    rig.post(&["1"]).await;
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn open_close_and_noop_of_the_backend_are_not_for_the_client_and_nonsense_ends_the_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    for text in ["0{}", "1", "5", "6", "42[]"] {
        backend.say(text).await;
    }
    assert_eq!(rig.get().await, packets(&["42[]"]));
    backend.say("9").await;
    assert_eq!(rig.get().await, over(Reason::UpstreamUnavailable));
    rig.ended("gate", "upstream_unavailable").await;
}
