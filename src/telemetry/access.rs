//! One record per session, written once, when it is dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tracing::info;

use crate::telemetry::address::Address;
use crate::telemetry::endings::Ended;
use crate::telemetry::metrics::{End, Metrics};

/// What is known of a session; filled in as it goes on.
pub struct Record {
    metrics: Arc<Metrics>,
    started: Instant,
    /// The gate's name for the session, which is no secret (the Engine.IO sid is).
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
    /// The reason word, where the gate ended it.
    pub reason: &'static str,
    /// For the operator only.
    pub detail: Option<String>,
    /// Messages to the backend.
    pub to_upstream: u64,
    /// Messages to the client.
    pub to_client: u64,
}

impl Record {
    /// Begins the record of a session and counts it as opened.
    pub fn begin(metrics: Arc<Metrics>, session: Arc<str>, client: IpAddr, transport: &'static str) -> Self {
        metrics.open(transport);
        Self {
            metrics,
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
}

impl Drop for Record {
    fn drop(&mut self) {
        let ended = Instant::now();
        self.metrics.end(&End { by: self.by, reason: self.reason }, self.to_upstream, self.to_client);
        info!(
            session = &*self.session,
            client = %Address(self.client),
            transport = self.transport,
            subject = self.subject.as_deref(),
            issuer = self.issuer.as_deref(),
            by = self.by,
            reason = self.reason,
            detail = self.detail.as_deref(),
            to_upstream = self.to_upstream,
            to_client = self.to_client,
            seconds = ended.saturating_duration_since(self.started).as_secs_f64(),
            "session ended"
        );
        self.metrics.endings.note(Ended {
            number: 0,
            session: self.session.clone(),
            client: self.client,
            transport: self.transport,
            subject: self.subject.take(),
            issuer: self.issuer.take(),
            by: self.by,
            reason: self.reason,
            detail: self.detail.take().map(Into::into),
            to_upstream: self.to_upstream,
            to_client: self.to_client,
            started: self.started,
            ended,
        });
    }
}
