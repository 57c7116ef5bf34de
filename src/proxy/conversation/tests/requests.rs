//! Requests that are given up, doubled or broken.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_aborted_poll_ends_the_session_and_the_backend_leg_at_once() {
    let (rig, mut backend) = Rig::known(|_| {});
    let mut poll = rig.ask().await;
    is_held(&mut poll).await;
    drop(poll);
    assert_eq!(backend.is_closed().await.0, 1001);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn packets_for_a_poll_that_was_just_given_up_are_lost_with_their_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("42[]").await;
    backend.hears_nothing().await;
    // Given up before the session can answer it.
    drop(rig.ask().await);
    assert_eq!(backend.is_closed().await.0, 1001);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn two_polls_at_once_end_the_session_as_engine_io_does() {
    let (rig, mut backend) = Rig::known(|_| {});
    let first = rig.ask().await;
    let second = rig.ask().await;
    assert_eq!((got(first).await, got(second).await), (packets(&["1"]), Got::Conflict));
    assert_eq!(backend.is_closed().await.0, 1001);
    rig.ended("gate", "protocol_error").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_payload_is_answered_ok_and_ends_the_session() {
    let (rig, mut backend) = Rig::known(|_| {});
    let poll = rig.ask().await;
    assert!(matches!(rig.send(None).await, Some(PostReply::Done)));
    assert_eq!(got(poll).await, over(Reason::ProtocolError));
    assert_eq!(backend.is_closed().await.0, 1001);
    let registry = rig.gate.context.registry.clone();
    rig.ended("gate", "protocol_error").await;
    assert_eq!(registry.farewell("sid"), None, "the next poll gets code 1");
}
