//! The polling GETs that a session holds.

use crate::gate::engine::GetId;
use crate::session::mailbox::GetReply;
use std::future::pending;
use tokio::sync::oneshot;

/// Held GETs by number. There are never more than two: the second ends the session.
#[derive(Default)]
pub struct Gets {
    waiting: Vec<(GetId, oneshot::Sender<GetReply>)>,
    next: GetId,
}

impl Gets {
    /// Holds one more.
    pub fn add(&mut self, reply: oneshot::Sender<GetReply>) -> GetId {
        self.next += 1;
        self.waiting.push((self.next, reply));
        self.next
    }

    /// `false` where nobody waits for it any more.
    pub fn answer(&mut self, id: GetId, answer: GetReply) -> bool {
        let held = self.waiting.iter().position(|(held, _)| *held == id);
        held.is_some_and(|i| self.waiting.swap_remove(i).1.send(answer).is_ok())
    }

    /// True where nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets one whose client has gone.
    pub fn forget(&mut self, id: GetId) {
        self.waiting.retain(|(held, _)| *held != id);
    }

    /// Takes everybody who waits.
    pub fn drain(&mut self) -> impl Iterator<Item = oneshot::Sender<GetReply>> + '_ {
        self.waiting.drain(..).map(|(_, reply)| reply)
    }

    /// Resolves when the client gives up a GET.
    pub async fn gone(&mut self) -> GetId {
        match self.waiting.first_mut() {
            Some((id, reply)) => {
                reply.closed().await;
                *id
            }
            None => pending().await,
        }
    }
}
