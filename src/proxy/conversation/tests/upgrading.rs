//! A poller becomes a WebSocket and its session a relay, or neither.

use super::*;
use crate::gate::engine::UPGRADE_TIMEOUT;
use crate::protocol::frame::Opcode;

#[tokio::test(start_paused = true)]
async fn the_stock_order_connect_upgrade_and_poll_at_once_ends_in_a_relay() {
    let rig = Rig::stranger();
    let poll = rig.ask().await;
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    assert_eq!(got(poll).await, packets(&["6"]));
    let connect = [connect("alice")];
    let connect = [connect[0].as_str()];
    let (posted, (mut backend, _)) = tokio::join!(rig.send(Some(&connect)), rig.backend.opened());
    assert!(matches!(posted, Some(PostReply::Done)));
    assert_eq!(backend.hears().await, "40{}");
    // What the backend says meanwhile waits for the end of the upgrade.
    backend.say("40{\"sid\":\"x\"}").await;
    backend.say("42[\"early\"]").await;
    client.hears_nothing().await;
    client.say("5").await;
    assert_eq!(client.hears().await, "40{\"sid\":\"x\"}");
    assert_eq!(client.hears().await, "42[\"early\"]");
    // From here on it is a relay: pings pass from end to end.
    backend.say("2").await;
    assert_eq!(client.hears().await, "2");
    client.say("3").await;
    assert_eq!(backend.hears().await, "3");
    assert!(rig.entry.mailbox().is_none(), "no more requests");
    drop(client);
    assert_eq!(backend.rest().await, b"");
    drop(backend);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn requests_behind_the_upgrade_are_refused_and_the_session_lives() {
    let (rig, mut backend) = Rig::known(|_| {});
    // A fragment keeps the session from becoming a relay.
    backend.send(backend.fragment(false, Opcode::Text, b"42[")).await;
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    backend.hears_nothing().await;
    assert!(rig.entry.mailbox().is_none());
    // These were under way already.
    assert_eq!(rig.get().await, Got::Conflict);
    assert!(rig.send(Some(&["42[\"late\"]"])).await.is_none(), "not answered ok: it was not taken");
    let mut second = rig.upgrade().await;
    assert_eq!(second.rest().await, b"", "a second WebSocket is closed");
    client.say("42[\"up\"]").await;
    assert_eq!(backend.hears().await, "42[\"up\"]");
    client.shutdown().await;
    backend.is_closed().await;
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn the_relay_knows_of_attachments_that_a_poll_announced() {
    let (rig, mut backend) = Rig::known(|_| {});
    backend.say("451-[\"bin\",{}]").await;
    assert_eq!(rig.get().await, packets(&["451-[\"bin\",{}]"]));
    let mut client = rig.upgrade().await;
    client.say("2probe").await;
    assert_eq!(client.hears().await, "3probe");
    client.say("5").await;
    client.say("40/a,{\"token\":5}").await;
    client.hears_nothing().await;
    backend.send(backend.frame(Opcode::Binary, b"at last")).await;
    assert_eq!(client.next().await.payload, b"at last");
    assert_eq!(client.hears().await, refused("/a", Reason::CredentialMalformed));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_fails_leaves_the_session_polling() {
    let (rig, mut backend) = Rig::known(|_| {});
    for how in ["broken frame", "wrong packet", "gone", "late"] {
        let mut client = rig.upgrade().await;
        client.say("2probe").await;
        assert_eq!(client.hears().await, "3probe");
        let start = tokio::time::Instant::now();
        match how {
            "broken frame" => client.send([0xff; 20]).await,
            "wrong packet" => client.say("42[]").await,
            "gone" => client.shutdown().await,
            _ => {}
        }
        assert_eq!(client.rest().await, b"", "{how}");
        if how == "late" {
            assert!(start.elapsed() > UPGRADE_TIMEOUT - Duration::from_secs(1));
        }
        rig.post(&["42[\"still\"]"]).await;
        assert_eq!(backend.hears().await, "42[\"still\"]", "{how}");
        backend.say("42[\"here\"]").await;
        assert_eq!(rig.get().await, packets(&["42[\"here\"]"]), "{how}");
    }
    rig.post(&["1"]).await;
    rig.ended("client", "").await;
}
