//! What is known of a session, from its beginning to long after its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Filled in as the session goes on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When it began.
    pub started: Instant,
    /// The gate's name for it in the log and for the backend, which is no secret (the Engine.IO sid is).
    pub session: Arc<str>,
    /// The client's address.
    pub client: IpAddr,
    /// `polling` or `websocket`: how it began.
    pub transport: &'static str,
    /// Who, once known.
    pub subject: Option<Arc<str>>,
    /// Whose word it was.
    pub issuer: Option<Arc<str>>,
    /// `client`, `upstream` or `gate`.
    pub by: &'static str,
    /// The reason word, empty where the gate did not end it.
    pub reason: &'static str,
    /// For the operator only.
    pub detail: Option<String>,
    /// Messages to the backend.
    pub to_upstream: u64,
    /// Messages to the client.
    pub to_client: u64,
}

impl Facts {
    /// Of a session that begins now; until somebody says otherwise the gate ends it.
    pub fn new(session: Arc<str>, client: IpAddr, transport: &'static str) -> Self {
        Self {
            started: Instant::now(),
            session,
            client,
            transport,
            subject: None,
            issuer: None,
            by: "gate",
            reason: "",
            detail: None,
            to_upstream: 0,
            to_client: 0,
        }
    }

    /// Hands them on without copying a text; who the user was and the detail are gone from here then.
    pub fn take(&mut self) -> Self {
        let (subject, issuer, detail) = (self.subject.take(), self.issuer.take(), self.detail.take());
        Self { subject, issuer, detail, ..self.clone() }
    }
}
