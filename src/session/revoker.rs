//! Takes revocations: remembers them first, then shows out whom they concern, so that nobody slips in between (L06).

use crate::auth::revocation::{Inserted, Kind, Revocation, Revocations};
use crate::session::clock::Clock;
use crate::session::registry::Registry;
use crate::telemetry::metrics::{Metrics, Revoked};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator, by the admin API.
    Admin,
    /// An identity provider, by a logout token.
    Logout,
    /// A transmitter of shared signals.
    Events,
    /// Another replica.
    Replica,
}

impl Origin {
    /// Its name in log and metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Logout => "logout",
            Self::Events => "events",
            Self::Replica => "replica",
        }
    }
}

/// What came of a revocation here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Sessions that were shown out.
    pub ended: usize,
    /// Nobody had said so before.
    pub new: bool,
}

/// Everything that a revocation touches.
pub struct Revoker {
    table: Revocations,
    registry: Registry,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// To the other replicas.
    others: Option<mpsc::Sender<Revocation>>,
    taken: AtomicU64,
    told: AtomicU64,
}

impl Revoker {
    /// Over this table and these sessions.
    pub fn new(table: Revocations, registry: Registry, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { table, registry, clock, metrics, others: None, taken: AtomicU64::new(0), told: AtomicU64::new(0) }
    }

    /// What is taken here goes to others, too. Should they be so many that it has no place, they find it in the table.
    #[must_use]
    pub fn telling(self, others: mpsc::Sender<Revocation>) -> Self {
        Self { others: Some(others), ..self }
    }

    /// What is revoked.
    pub fn table(&self) -> &Revocations {
        &self.table
    }

    /// The time that revocations are judged by, in unix seconds.
    pub fn now(&self) -> u64 {
        self.clock.unix()
    }

    /// From now on this is refused, and whoever is inside by it leaves.
    pub fn take(&self, revocation: &Revocation, origin: Origin) -> Taken {
        let Inserted { new, evicted } = self.table.insert(revocation, self.clock.unix());
        if evicted > 0 {
            self.metrics.evicted.inc_by(evicted as u64);
            tracing::error!(evicted, "more revocations than revocation.max_entries: the first are forgotten too early");
        }
        if !new {
            return Taken::default();
        }
        if let Some(others) = self.others.as_ref().filter(|_| origin != Origin::Replica) {
            let _full = others.try_send(revocation.clone());
            self.taken.fetch_add(1, Ordering::AcqRel);
        }
        let ended = self.registry.revoke(revocation);
        let kind = revocation.kind.name();
        self.metrics.revoked.get_or_create(&Revoked { origin: origin.word(), kind }).inc();
        // `jti` and `sid` are handles, which do not belong into a log.
        let named = matches!(revocation.kind, Kind::Subject | Kind::Sub | Kind::SubWithoutSid);
        tracing::info!(
            kind,
            origin = origin.word(),
            reason = revocation.reason.word(),
            issuer = &*revocation.issuer,
            subject = named.then_some(&*revocation.value),
            ended,
            "revoked"
        );
        Taken { ended, new }
    }

    /// How many were taken here for the others.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// The others know the first so many of them.
    pub fn told(&self, count: u64) {
        self.told.fetch_max(count, Ordering::AcqRel);
    }

    /// Whether the others do not know yet what was taken here.
    pub fn is_ahead(&self) -> bool {
        self.told.load(Ordering::Acquire) < self.taken()
    }

    /// Another replica said something that is no revocation.
    pub fn misheard(&self) {
        self.metrics.misheard.inc();
    }

    /// Whether revocations reach the other replicas.
    pub fn shared(&self, shared: bool) {
        self.metrics.shared.set(shared.into());
    }
}
