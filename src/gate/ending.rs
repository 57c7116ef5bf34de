//! How a session came to its end.

use crate::reason::Reason;

/// Who ended a session, and with which word where it was the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closed its transport or went away.
    Client,
    /// The backend closed its side.
    Upstream,
    /// The gate ended it.
    Gate(Reason),
}

impl Ending {
    /// For the session's record: `client`, `upstream` or `gate`.
    pub fn by(self) -> &'static str {
        match self {
            Ending::Client => "client",
            Ending::Upstream => "upstream",
            Ending::Gate(_) => "gate",
        }
    }

    /// The reason word where the gate ended the session.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Ending::Gate(reason) => Some(reason),
            _ => None,
        }
    }
}
