//! Every counter the gate keeps, in one struct, and its text form for Prometheus.
//!
//! Labels are words of closed lists: nothing that a client wrote becomes a label.

use crate::telemetry::endings::Endings;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

const WEBSOCKET: &str = "websocket";
const OK: &str = "ok";
const LEFT: End = End { by: "client", reason: "" };

/// One closed-list label.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Transport {
    /// `polling` or `websocket`
    pub transport: &'static str,
}

/// Why somebody was refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Refusal {
    /// A reason word.
    pub reason: &'static str,
}

/// How a session ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct End {
    /// `client`, `upstream` or `gate`
    pub by: &'static str,
    /// A reason word, or empty.
    pub reason: &'static str,
}

/// What was revoked, and who said so.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Revoked {
    /// `admin`, `logout`, `events` or `replica`
    pub origin: &'static str,
    /// `jti`, `subject`, `sub`, `sub_without_sid`, `sid` or `issuer`
    pub kind: &'static str,
}

/// What came of something.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// `ok`, `unavailable`, `refused`, `invalid`
    pub outcome: &'static str,
}

/// Which way.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Direction {
    /// `to_upstream` or `to_client`
    pub direction: &'static str,
}

/// Whose keys. Issuers are named in the configuration.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct IssuerKeys {
    /// The configured issuer.
    pub issuer: String,
}

/// Which secret verified a session cookie (C07): when the old one counts no more, it can go.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreSecret {
    /// The store, by its configured issuer.
    pub store: String,
    /// The secret's place in the configuration, from 0.
    pub secret: usize,
}

/// What those say who are asked about users.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Vouched {
    /// `session_store`, `introspection`, `callout`
    pub by: &'static str,
    /// The configured issuer.
    pub issuer: String,
    /// `ok`, `refused`, `unavailable`
    pub outcome: &'static str,
}

/// The counters that nearly every session moves: found once, not looked up each time. They are there from the
/// beginning, at 0.
struct Usual {
    websocket: Counter,
    polling: Counter,
    left: Counter,
    dialed: Counter,
    to_upstream: Counter,
    to_client: Counter,
}

impl Usual {
    fn of(
        opened: &Family<Transport, Counter>,
        ended: &Family<End, Counter>,
        dials: &Family<Outcome, Counter>,
        messages: &Family<Direction, Counter>,
    ) -> Self {
        let opened = |transport| opened.get_or_create_owned(&Transport { transport });
        let messages = |direction| messages.get_or_create_owned(&Direction { direction });
        Self {
            websocket: opened(WEBSOCKET),
            polling: opened("polling"),
            left: ended.get_or_create_owned(&LEFT),
            dialed: dials.get_or_create_owned(&Outcome { outcome: OK }),
            to_upstream: messages("to_upstream"),
            to_client: messages("to_client"),
        }
    }
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    /// Sessions opened, by the transport they began with.
    opened: Family<Transport, Counter>,
    /// Sessions ended.
    ended: Family<End, Counter>,
    /// Handshakes, CONNECTs and requests refused.
    pub refused: Family<Refusal, Counter>,
    /// WebSockets dialled to the backend.
    dials: Family<Outcome, Counter>,
    /// Messages relayed, counted at a session's end.
    messages: Family<Direction, Counter>,
    usual: Usual,
    /// Session cookies verified, by store and secret.
    pub store_secret: Family<StoreSecret, Counter>,
    /// Questions to session stores and endpoints.
    pub vouched: Family<Vouched, Counter>,
    /// Plain HTTP requests passed on.
    pub http_requests: Counter,
    /// From a handshake's arrival to its answer.
    pub handshake_seconds: Histogram,
    /// Sessions open now.
    pub sessions: Gauge,
    /// Sessions that have no user yet.
    pub unauthenticated: Gauge,
    /// Sessions that live on with a new token.
    pub refreshed: Counter,
    /// Revocations taken.
    pub revoked: Family<Revoked, Counter>,
    /// Revocations that are remembered.
    pub revocations: Gauge,
    /// Revocations that made room before their time.
    pub evicted: Counter,
    /// Messages of other replicas that are no revocations.
    pub misheard: Counter,
    /// 1 while revocations are shared with other replicas.
    pub shared: Gauge,
    /// Seconds since an issuer's keys were confirmed; -1: never.
    pub key_age: Family<IssuerKeys, Gauge>,
    /// What the last counts of [`Metrics::ended`] were.
    pub endings: Endings,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("siogate");
        let handshake = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        let (opened, ended) = (Family::<Transport, Counter>::default(), Family::<End, Counter>::default());
        let (dials, messages) = (Family::<Outcome, Counter>::default(), Family::<Direction, Counter>::default());
        let usual = Usual::of(&opened, &ended, &dials, &messages);
        let metrics = Self {
            opened,
            ended,
            refused: Family::default(),
            dials,
            messages,
            usual,
            store_secret: Family::default(),
            vouched: Family::default(),
            http_requests: Counter::default(),
            handshake_seconds: Histogram::new(handshake),
            sessions: Gauge::default(),
            unauthenticated: Gauge::default(),
            refreshed: Counter::default(),
            revoked: Family::default(),
            revocations: Gauge::default(),
            evicted: Counter::default(),
            misheard: Counter::default(),
            shared: Gauge::default(),
            key_age: Family::default(),
            endings: Endings::default(),
            registry: Registry::default(),
        };
        registry.register("sessions_opened", "Sessions opened, by first transport", metrics.opened.clone());
        registry.register("sessions_ended", "Sessions ended, by whom and why", metrics.ended.clone());
        registry.register("refused", "Handshakes, CONNECTs and requests refused", metrics.refused.clone());
        registry.register("upstream_dials", "WebSockets dialled to the backend", metrics.dials.clone());
        registry.register("messages", "Messages relayed in sessions that have ended", metrics.messages.clone());
        let help = "Session cookies verified, by the place of the secret in the configuration";
        registry.register("session_cookies", help, metrics.store_secret.clone());
        registry.register(
            "vouched",
            "Questions to session stores, introspection and call-outs",
            metrics.vouched.clone(),
        );
        registry.register("http_requests", "Plain HTTP requests passed on", metrics.http_requests.clone());
        registry.register_with_unit(
            "handshake",
            "Time to answer an Engine.IO handshake",
            Unit::Seconds,
            metrics.handshake_seconds.clone(),
        );
        registry.register("sessions", "Sessions open now", metrics.sessions.clone());
        registry.register("sessions_unauthenticated", "Sessions without a user", metrics.unauthenticated.clone());
        registry.register("refreshes", "Sessions that live on with a new token", metrics.refreshed.clone());
        registry.register("revocations_taken", "Revocations taken, by origin and kind", metrics.revoked.clone());
        registry.register("revocations", "Revocations remembered", metrics.revocations.clone());
        registry.register("revocations_evicted", "Revocations forgotten too early", metrics.evicted.clone());
        registry.register("revocations_misheard", "Messages that are no revocations", metrics.misheard.clone());
        registry.register("revocations_shared", "1 while revocations are shared", metrics.shared.clone());
        let help = "Seconds since an issuer's keys were confirmed, -1 for never";
        registry.register("jwks_age_seconds", help, metrics.key_age.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// The OpenMetrics text.
    ///
    /// # Errors
    /// None in practice: it writes into a string.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts a session that begins on `polling` or `websocket`.
    pub fn open(&self, transport: &'static str) {
        let usual = if transport == WEBSOCKET { &self.usual.websocket } else { &self.usual.polling };
        usual.inc();
    }

    /// Counts a session's end, and the messages that it relayed to its backend and to its client.
    pub fn end(&self, end: &End, to_upstream: u64, to_client: u64) {
        if *end == LEFT {
            self.usual.left.inc();
        } else {
            self.ended.get_or_create(end).inc();
        }
        self.usual.to_upstream.inc_by(to_upstream);
        self.usual.to_client.inc_by(to_client);
    }

    /// How many sessions ended like that.
    pub fn ended(&self, end: &End) -> u64 {
        self.ended.get_or_create(end).get()
    }

    /// Messages relayed in sessions that have ended: to backends, and to clients.
    pub fn messages(&self) -> (u64, u64) {
        (self.usual.to_upstream.get(), self.usual.to_client.get())
    }

    /// Counts a WebSocket that was dialled: `ok`, `unavailable`, `refused` or `invalid`.
    pub fn dial(&self, outcome: &'static str) {
        if outcome == OK {
            self.usual.dialed.inc();
        } else {
            self.dials.get_or_create(&Outcome { outcome }).inc();
        }
    }

    /// Counts a refusal.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Refusal { reason }).inc();
    }
}
