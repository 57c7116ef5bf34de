//! What the HTTP side of a polling session asks of the task that owns the session.

use crate::gate::ending::Ending;
use crate::protocol::engineio::Packet;
use crate::stream::Stream;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for a session: one GET, one POST, one upgrade, and a few that will be refused.
pub const CAPACITY: usize = 8;

/// Where to send them.
pub type Mailbox = mpsc::Sender<Command>;

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
