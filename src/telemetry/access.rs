//! One record per session, written once, when it is dropped.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;
use tracing::info;

use crate::telemetry::address::Address;
use crate::telemetry::facts::Facts;
use crate::telemetry::metrics::{End, Metrics};

/// What is known of a session, to be written at its end.
pub struct Record {
    metrics: Arc<Metrics>,
    facts: Facts,
}

impl Record {
    /// Begins the record of a session and counts it as opened.
    pub fn begin(metrics: Arc<Metrics>, session: Arc<str>, client: IpAddr, transport: &'static str) -> Self {
        metrics.open(transport);
        Self { metrics, facts: Facts::new(session, client, transport) }
    }
}

impl Deref for Record {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ended = Instant::now();
        let facts = &mut self.facts;
        self.metrics.end(&End { by: facts.by, reason: facts.reason }, facts.to_upstream, facts.to_client);
        info!(
            session = &*facts.session,
            client = %Address(facts.client),
            transport = facts.transport,
            subject = facts.subject.as_deref(),
            issuer = facts.issuer.as_deref(),
            by = facts.by,
            reason = facts.reason,
            detail = facts.detail.as_deref(),
            to_upstream = facts.to_upstream,
            to_client = facts.to_client,
            seconds = ended.saturating_duration_since(facts.started).as_secs_f64(),
            "session ended"
        );
        self.metrics.endings.note(facts.take(), ended);
    }
}
