//! One of the sides leaves, by a close frame or without.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_close_handshake_passes_and_the_session_is_over() {
    for by_client in [true, false] {
        let mut rig = Rig::plain();
        let (up, down) =
            (rig.client.frame(Opcode::Close, b"\x0f\xa0bye"), rig.backend.frame(Opcode::Close, b"\x0f\xa0bye"));
        let Rig { client, backend, .. } = &mut rig;
        let (first, second) = if by_client { ((client, up), (backend, down)) } else { ((backend, down), (client, up)) };
        let ((first, hello), (second, answer)) = (first, second);
        first.send(&hello).await;
        assert_eq!(second.next().await.payload, b"\x0f\xa0bye");
        second.send(&answer).await;
        assert_eq!(first.next().await.payload, b"\x0f\xa0bye");
        if by_client {
            assert_eq!(first.rest().await, b"", "the server is the first to close");
            second.shutdown().await;
        } else {
            assert_eq!(second.rest().await, b"", "the server is the first to close");
            first.shutdown().await;
        }
        rig.ended(if by_client { "client" } else { "upstream" }, "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_side_still_hears_the_other_one_for_five_seconds() {
    let mut rig = Rig::plain();
    rig.client.say("42[\"last\"]").await;
    rig.client.shutdown().await;
    assert_eq!(rig.backend.hears().await, "42[\"last\"]");
    assert_eq!(rig.backend.rest().await, b"");
    rig.backend.say("42[\"answer\"]").await;
    assert_eq!(rig.client.hears().await, "42[\"answer\"]");
    let start = Instant::now();
    assert_eq!(rig.client.rest().await, b"");
    assert!(start.elapsed() <= FOLLOW && start.elapsed() > FOLLOW / 2, "{:?}", start.elapsed());
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_within_a_frame_ends_on_the_other_side_too() {
    for (by_client, cut) in [(true, 1), (true, 8), (false, 1), (false, 6)] {
        let mut rig = Rig::plain();
        let Rig { client, backend, .. } = &mut rig;
        let (from, to) = if by_client { (client, backend) } else { (backend, client) };
        let frame = from.text("42[\"half\"]");
        from.send(&frame[..cut]).await;
        from.shutdown().await;
        // A head that is not whole was not passed on.
        let want = if cut == 1 { b"" } else { &frame[..cut] };
        assert_eq!(to.rest().await, want);
        rig.ended(if by_client { "client" } else { "upstream" }, "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_vanishes_ends_the_session_on_the_other() {
    let mut rig = Rig::plain();
    drop(rig.client);
    assert_eq!(rig.backend.rest().await, b"");
    drop(rig.backend);
    rig.relay.await.unwrap();
    assert_eq!(rig.gate.ended("client", ""), 1);
    let mut rig = Rig::plain();
    drop(rig.backend);
    assert_eq!(rig.client.rest().await, b"");
    drop(rig.client);
    rig.relay.await.unwrap();
    assert_eq!(rig.gate.ended("upstream", ""), 1);
}
