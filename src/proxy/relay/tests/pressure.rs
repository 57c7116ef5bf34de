//! A side that does not read slows the other one down, and is given up when it takes nothing at all.

use super::*;

#[tokio::test(start_paused = true)]
async fn p28_a_client_that_does_not_read_slows_its_backend_down_and_nobody_else() {
    let mut rig = Rig::plain();
    let message = rig.backend.frame(Opcode::Text, [b"42[\"", &[b'x'; 100_000][..], b"\"]"].concat());
    let flood = message.repeat(200);
    let sent = rig.backend.flood(&flood).await;
    assert!(sent < 4 * MEGABYTE, "{sent} bytes were taken for a client that reads nothing");
    rig.client.say("42[\"up\"]").await;
    assert_eq!(rig.backend.hears().await, "42[\"up\"]");
    let Rig { client, backend, .. } = &mut rig;
    let ((), got) = tokio::join!(backend.send(&flood[sent..]), client.bytes(flood.len()));
    assert!(got == flood);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_backend_that_does_not_read_slows_its_client_down_and_nobody_else() {
    let mut rig = Rig::plain();
    let message = rig.client.frame(Opcode::Text, [b"42[\"", &[b'x'; 100_000][..], b"\"]"].concat());
    let flood = message.repeat(200);
    let sent = rig.client.flood(&flood).await;
    assert!(sent < 4 * MEGABYTE, "{sent} bytes were taken for a backend that reads nothing");
    rig.backend.say("42[\"down\"]").await;
    assert_eq!(rig.client.hears().await, "42[\"down\"]");
    let Rig { client, backend, .. } = &mut rig;
    let ((), got) = tokio::join!(client.send(&flood[sent..]), backend.bytes(flood.len()));
    assert!(got == flood);
    rig.ended("client", "").await;
}

#[tokio::test(start_paused = true)]
async fn p28_a_side_that_takes_nothing_at_all_is_given_up_and_a_slow_one_is_not() {
    let config: fn(&mut Config) = |config| config.limits.write_timeout = Duration::from_secs(30);
    for slow in [true, false] {
        let mut rig = Rig::new(Setup { config, beats: false, ..Setup::default() });
        let flood = rig.backend.frame(Opcode::Text, vec![b'x'; 8 * MEGABYTE]);
        let sent = rig.backend.flood(&flood).await;
        let start = Instant::now();
        if slow {
            let Rig { client, backend, .. } = &mut rig;
            let sips = async {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    client.bytes(MEGABYTE / 2).await;
                }
                client.bytes(flood.len() - 5 * MEGABYTE / 2).await
            };
            tokio::join!(backend.send(&flood[sent..]), sips);
            rig.ended("client", "").await;
        } else {
            let Rig { client: _still_there, mut backend, relay, gate, entry } = rig;
            backend.rest().await;
            assert_eq!(start.elapsed().as_secs(), 29, "of 30, less the moment the flood took");
            drop((backend, entry));
            relay.await.unwrap();
            assert_eq!(gate.ended("client", ""), 1);
            gate.assert_empty();
        }
    }
}
