//! What the HTTP side of a polling session asks of the task that owns the session.
//!
//! A channel like tokio's, which would keep room for 32 requests in each session, 2 KiB, where hardly ever more than
//! two wait.

use crate::gate::ending::Ending;
use crate::protocol::engineio::Packet;
use crate::stream::Stream;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};

/// Requests that may wait for a session: one GET, one POST, one upgrade, and a few that will be refused.
const CAPACITY: usize = 8;

/// One request of the client.
pub enum Command {
    /// A polling GET. Dropping the other end means that the client gave it up.
    Get(oneshot::Sender<GetReply>),
    /// A polling POST; `None`: its body was no payload.
    Post(Option<Vec<Packet>>, oneshot::Sender<PostReply>),
    /// A WebSocket that wants to take over, with what was read beyond its handshake.
    Upgrade(Box<Stream>, Bytes),
}

/// The answer to a GET.
pub enum GetReply {
    /// 200 with these packets.
    Packets(Vec<Packet>),
    /// 400, code 3.
    Conflict,
    /// The session is over.
    Over(Ending),
}

/// The answer to a POST.
pub enum PostReply {
    /// 200 `ok`.
    Done,
    /// The session is over.
    Over(Ending),
}

/// The session takes no more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the session takes no more requests")]
pub struct Gone;

/// Where to send requests.
pub struct Mailbox(Arc<Shared>);

/// Where they come out, in order. Dropped, it drops what waits: whoever asked hears that nobody will answer.
pub struct Requests(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// For those who find no room.
    room: Notify,
}

struct State {
    waiting: VecDeque<Command>,
    senders: usize,
    open: bool,
    reader: Option<Waker>,
}

enum Offer {
    Taken,
    Full(Command),
    Gone,
}

/// A mailbox and its other end.
pub fn new() -> (Mailbox, Requests) {
    let state = State { waiting: VecDeque::new(), senders: 1, open: true, reader: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), room: Notify::new() });
    (Mailbox(shared.clone()), Requests(shared))
}

impl Mailbox {
    /// Waits for room.
    ///
    /// # Errors
    /// [`Gone`], and the request is dropped.
    pub async fn send(&self, mut command: Command) -> Result<(), Gone> {
        loop {
            // Made before the look, so that no room that is made after it is missed.
            let room = self.0.room.notified();
            match self.0.offer(command) {
                Offer::Taken => return Ok(()),
                Offer::Gone => return Err(Gone),
                Offer::Full(back) => command = back,
            }
            room.await;
        }
    }

    /// Drops the request where there is no room; `false` then.
    pub fn try_send(&self, command: Command) -> bool {
        matches!(self.0.offer(command), Offer::Taken)
    }
}

impl Clone for Mailbox {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(self.0.clone())
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.senders -= 1;
        let reader = if state.senders == 0 { state.reader.take() } else { None };
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, command: Command) -> Offer {
        let mut state = self.state();
        if !state.open {
            return Offer::Gone;
        }
        if state.waiting.len() >= CAPACITY {
            return Offer::Full(command);
        }
        state.waiting.push_back(command);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        Offer::Taken
    }
}

impl Requests {
    /// The next request; `None`: there will be none. Cancel safe.
    pub async fn recv(&mut self) -> Option<Command> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Command>> {
        let mut state = self.0.state();
        let was_full = state.waiting.len() >= CAPACITY;
        match state.waiting.pop_front() {
            Some(command) => {
                drop(state);
                if was_full {
                    self.0.room.notify_waiters();
                }
                Poll::Ready(Some(command))
            }
            None if state.senders == 0 => Poll::Ready(None),
            None => {
                match &mut state.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open = false;
        let (waiting, reader) = (std::mem::take(&mut state.waiting), state.reader.take());
        drop(state);
        // Both may call elsewhere.
        drop((waiting, reader));
        self.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::task::yield_now;

    fn get() -> (Command, oneshot::Receiver<GetReply>) {
        let (reply, answer) = oneshot::channel();
        (Command::Get(reply), answer)
    }

    async fn is_post(requests: &mut Requests) -> bool {
        matches!(requests.recv().await, Some(Command::Post(..)))
    }

    #[tokio::test]
    async fn requests_come_out_in_order_and_the_end_when_nobody_can_send() {
        let (mailbox, mut requests) = new();
        let other = mailbox.clone();
        mailbox.send(get().0).await.unwrap();
        let (reply, _answer) = oneshot::channel();
        assert!(other.try_send(Command::Post(None, reply)));
        assert!(!is_post(&mut requests).await && is_post(&mut requests).await);
        drop(mailbox);
        let end = tokio::spawn(async move { requests.recv().await.is_none() });
        yield_now().await;
        assert!(!end.is_finished());
        drop(other);
        assert!(end.await.unwrap());
    }

    #[tokio::test]
    async fn whoever_finds_no_room_waits_for_it_and_nobody_is_forgotten() {
        let (mailbox, mut requests) = new();
        let senders: Vec<_> = (0..3 * CAPACITY)
            .map(|_| {
                let mailbox = mailbox.clone();
                tokio::spawn(async move { mailbox.send(get().0).await })
            })
            .collect();
        yield_now().await;
        assert!(!mailbox.try_send(get().0));
        drop(mailbox);
        let mut came = 0;
        while requests.recv().await.is_some() {
            came += 1;
        }
        assert_eq!(came, 3 * CAPACITY);
        for sender in senders {
            sender.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_when_the_session_goes_is_told() {
        let (mailbox, requests) = new();
        let answers: Vec<_> = (0..CAPACITY)
            .map(|_| {
                let (command, answer) = get();
                assert!(mailbox.try_send(command));
                answer
            })
            .collect();
        let late = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.send(get().0).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(requests);
        assert_eq!(late.await.unwrap(), Err(Gone));
        for answer in answers {
            assert!(answer.await.is_err());
        }
        assert_eq!(mailbox.send(get().0).await, Err(Gone));
        assert!(!mailbox.try_send(get().0));
    }
}
