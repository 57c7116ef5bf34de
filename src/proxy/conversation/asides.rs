//! What a conversation says of its own between the packets of others: answers, warnings, notices.

use crate::gate::ending::Ending;
use crate::protocol::engineio::{Kind, Packet};
use crate::protocol::scanner::Watch;
use crate::protocol::socketio;
use crate::proxy::conversation::{Conversation, Flow};
use crate::proxy::refresh::{self, Asked, MAX_UNREAD};
use crate::reason::Reason;
use crate::session::registry::term::{NOTICE, WARN};
use secrecy::ExposeSecret;

impl Conversation {
    /// Says something to the client, but not between a binary packet and its attachments.
    pub(super) fn say(&mut self, text: String) {
        self.asides.push(Packet::text(text));
        self.say_asides();
    }

    /// Says what waited for its place.
    pub(super) fn say_asides(&mut self) {
        if self.attachments.1 == 0 {
            self.asides.drain(..).for_each(|packet| self.engine.send(packet));
        }
    }

    /// What it may be asked to say now.
    pub(super) fn callable(&self) -> u8 {
        let place = |attachments, what| if attachments == 0 { what } else { 0 };
        place(self.attachments.0, NOTICE) | place(self.attachments.1, WARN)
    }

    /// Says what others asked it to say.
    pub(super) fn answer_calls(&mut self, called: u8) {
        let entry = self.stay.entry().clone();
        entry.answered(called);
        if called & WARN != 0 {
            for packet in refresh::warnings(&self.context, &entry, &self.admission) {
                self.engine.send(Packet::text(packet));
            }
        }
        if called & NOTICE != 0 {
            for packet in refresh::notices(&self.context, &entry, &self.admission) {
                self.to_upstream(&Packet::text(packet));
            }
        }
    }

    /// One packet of the client, for the backend or for the gate.
    pub(super) async fn hear(&mut self, packet: Packet) -> Option<Flow> {
        if self.upstream.is_some()
            && packet.kind() == Kind::Message
            && let Some(body) = packet.body()
            && let Some(asked) = Asked::of(&self.context, self.stay.entry(), body)
        {
            return self.refresh(asked).await;
        }
        self.note(&packet);
        self.from_client(packet).await
    }

    /// Whether the application says something.
    pub(super) fn note(&self, packet: &Packet) {
        let said = match packet {
            Packet::Text(text) => self.watch == Watch::Frames || socketio::is_said(text.get(1..).unwrap_or_default()),
            Packet::Binary(_) => true,
        };
        if said && packet.kind() == Kind::Message {
            self.stay.entry().active();
        }
    }

    /// The client asks for a later end.
    async fn refresh(&mut self, asked: Asked) -> Option<Flow> {
        if asked.is_unfit() {
            return Some(Flow::Over(Ending::Gate(Reason::ProtocolError)));
        }
        let outcome = match asked.token(&self.context) {
            Ok(token) => {
                let answer = self.context.verify(token.expose_secret(), self.asked.as_ref()).await;
                refresh::settle(&self.context, self.stay.entry(), self.record.client, answer)
            }
            // Whoever asks without end and reads no answer.
            Err(_) if self.engine.queued() > self.context.config.limits.max_queue.saturating_add(MAX_UNREAD) => {
                return Some(Flow::Over(Ending::Gate(Reason::RateLimited)));
            }
            Err(reason) => Err(reason),
        };
        if let Some(answer) = asked.answer(outcome) {
            self.say(answer);
        }
        None
    }
}
