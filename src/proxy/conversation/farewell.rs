//! How a conversation ends: what each side is told, and in which order.

use crate::gate::ending::Ending;
use crate::gate::engine::Rest;
use crate::protocol::engineio::{Kind, Packet};
use crate::proxy::conversation::{Conversation, command, now};
use crate::proxy::frames::{Incoming, Leg};
use crate::proxy::refusal;
use crate::proxy::relay;
use crate::proxy::takeover::Running;
use crate::reason::Reason;
use crate::session::mailbox::{Command, GetReply, PostReply};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A peer that is shown out has so long to take its last packets.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is left of a packet when its session ends has so long to arrive.
const LAST_PACKET: Duration = Duration::from_millis(250);

/// A polling client is told to stay away with its next poll, if that comes within this time.
const LAST_POLL: Duration = Duration::from_secs(5);

impl Conversation {
    /// Goes on as a relay.
    pub(super) fn into_relay(self: Box<Self>) -> Option<Running> {
        let Self { context, stay, record, watch, admission, client, upstream, attachments, .. } = *self;
        let (client, upstream) = (client?.into_parts(), upstream?.into_parts());
        Some(Box::pin(relay::run(relay::Parts {
            context,
            stay,
            record,
            admission,
            watch,
            client: (client.0, client.1.into()),
            upstream: (upstream.0, upstream.1.into()),
            greeting: Vec::new(),
            attachments,
            beats: true,
        })))
    }

    /// Tells both sides and leaves.
    pub(super) async fn finish(mut self: Box<Self>, ending: Ending) {
        // A client that was refused and left did not leave of its own accord.
        let refused = self.admission.refused().filter(|_| self.admission.user().is_none());
        let reason = ending.reason().or(refused);
        self.record.by = if reason.is_some() { "gate" } else { ending.by() };
        self.record.reason = reason.map_or("", Reason::word);
        let goodbye = self.goodbye(ending).await;
        if let Some(upstream) = self.upstream.take() {
            self.context.tasks.spawn(hang_up(upstream, 1001, ""));
        }
        if let Some(reply) = self.post.take() {
            // engine.io answers `ok` to a payload that it then closes the session for, and to a close packet.
            let done = matches!(ending, Ending::Gate(Reason::ProtocolError) | Ending::Client);
            let _ = reply.send(if done { PostReply::Done } else { PostReply::Over(ending) });
        }
        let told = !self.gets.is_empty();
        for reply in self.gets.drain() {
            let _ = reply.send(last_poll(&goodbye, ending));
        }
        if let Some(mut client) = self.client.take() {
            if self.engine.on_websocket() {
                for packet in &goodbye {
                    client.push_packet(self.version, packet);
                }
            }
            let (code, reason) = refusal::close(ending);
            self.context.tasks.spawn(hang_up(client, code, reason));
        }
        if self.engine.on_websocket() || told {
            return self.stay.leave();
        }
        if !goodbye.is_empty() {
            return self.wait_for_last_poll(&goodbye, ending).await;
        }
        if let Some(reason) = ending.reason().filter(|r| *r != Reason::ProtocolError) {
            self.stay.say_farewell(now(), reason);
        }
    }

    /// DISCONNECT packets where the client is to stay away, behind what is left of a packet that it has in part.
    async fn goodbye(&mut self, ending: Ending) -> Vec<Packet> {
        let Rest { mut attachments, last } = self.engine.stop();
        let ends = matches!(ending, Ending::Gate(Reason::TokenExpired | Reason::MaxSession));
        if !(ends && self.context.says_goodbye()) {
            return Vec::new();
        }
        if last && !matches!(timeout(LAST_PACKET, self.owed(&mut attachments)).await, Ok(Some(()))) {
            return Vec::new();
        }
        attachments.extend(self.admission.disconnects().into_iter().map(Packet::text));
        attachments
    }

    /// Reads the attachments that the backend announced and has not sent yet; `None`: they will not come.
    async fn owed(&mut self, attachments: &mut Vec<Packet>) -> Option<()> {
        while self.attachments.1 > 0 {
            let Incoming::Message { text, data } = self.upstream.as_mut()?.next().await.ok()? else { return None };
            match Packet::from_ws(self.version, text, data).ok()? {
                packet @ Packet::Binary(_) => {
                    self.attachments.1 -= 1;
                    attachments.push(packet);
                }
                packet if packet.kind() == Kind::Message => return None,
                _ => {}
            }
        }
        Some(())
    }

    async fn wait_for_last_poll(&mut self, goodbye: &[Packet], ending: Ending) {
        let told = async {
            while let Some(next) = command(&mut self.mailbox).await {
                match next {
                    Command::Get(reply) => {
                        let _ = reply.send(last_poll(goodbye, ending));
                        return;
                    }
                    Command::Post(_, reply) => {
                        let _ = reply.send(PostReply::Over(ending));
                    }
                    Command::Upgrade(..) => {}
                }
            }
        };
        let _ = timeout(LAST_POLL, told).await;
    }
}

fn last_poll(goodbye: &[Packet], ending: Ending) -> GetReply {
    if goodbye.is_empty() { GetReply::Over(ending) } else { GetReply::Packets(goodbye.to_vec()) }
}

/// Sends a close frame and waits a moment for the peer to close: a reset could overtake the frame.
async fn hang_up(mut leg: Leg, code: u16, reason: &str) {
    leg.push_close(code, reason);
    let _ = timeout(LAST_WORDS, async {
        leg.flush().await?;
        let (mut stream, _) = leg.into_parts();
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}
