//! Takes revocations: remembers them first, then shows out whom they concern, so that nobody slips in between (L06).
//! To look through 100,000 sessions takes some 10 ms for one revocation and 14 ms for a thousand (`cargo bench --bench
//! micro -- revoke`). A task of its own does it, in slices of less than a millisecond, for all that have come since it
//! began the last time: thousands of logouts at once are a few rounds.

use crate::auth::revocation::{Inserted, Kind, Revocation, Revocations};
use crate::session::clock::Clock;
use crate::session::registry::Registry;
use crate::session::registry::revoke::SLICES;
use crate::telemetry::metrics::{Metrics, Revoked};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot};

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
    /// What stands in the table, and of which the sessions are still to be found.
    queue: Mutex<Vec<Noted>>,
    more: Notify,
}

struct Noted {
    revocation: Revocation,
    origin: Origin,
    told: oneshot::Sender<usize>,
}

impl Revoker {
    /// Over this table and these sessions.
    pub fn new(table: Revocations, registry: Registry, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            table,
            registry,
            clock,
            metrics,
            others: None,
            taken: AtomicU64::new(0),
            told: AtomicU64::new(0),
            queue: Mutex::default(),
            more: Notify::new(),
        }
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

    /// From now on this is refused, and whoever is inside by it leaves; returns when they have been told to.
    pub async fn take(&self, revocations: &[Revocation], origin: Origin) -> Taken {
        let waiting: Vec<_> = revocations.iter().filter_map(|revocation| self.note(revocation, origin)).collect();
        let mut taken = Taken { ended: 0, new: !waiting.is_empty() };
        for ended in waiting {
            taken.ended += ended.await.unwrap_or_default();
        }
        taken
    }

    /// The same for those who do not wait.
    pub fn note(&self, revocation: &Revocation, origin: Origin) -> Option<oneshot::Receiver<usize>> {
        let Inserted { new, evicted } = self.table.insert(revocation, self.clock.unix());
        if evicted > 0 {
            self.metrics.evicted.inc_by(evicted as u64);
            tracing::error!(evicted, "more revocations than revocation.max_entries: the first are forgotten too early");
        }
        if !new {
            return None;
        }
        if let Some(others) = self.others.as_ref().filter(|_| origin != Origin::Replica) {
            let _full = others.try_send(revocation.clone());
            self.taken.fetch_add(1, Ordering::AcqRel);
        }
        self.metrics.revoked.get_or_create(&Revoked { origin: origin.word(), kind: revocation.kind.name() }).inc();
        let (told, ended) = oneshot::channel();
        self.queue().push(Noted { revocation: revocation.clone(), origin, told });
        self.more.notify_one();
        Some(ended)
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Noted>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for the sessions that are concerned, for as long as it is polled: for those of everything that has come
    /// meanwhile at once.
    pub async fn run(&self) {
        loop {
            self.more.notified().await;
            let noted = std::mem::take(&mut *self.queue());
            let mut sought = self.registry.seek(noted.iter().map(|noted| noted.revocation.clone()).collect());
            for slice in 0..SLICES {
                self.registry.revoke(&mut sought, slice);
                tokio::task::yield_now().await;
            }
            for (noted, (revocation, ended)) in noted.into_iter().zip(sought.ended()) {
                // Whoever asked may have gone.
                let _gone = noted.told.send(ended);
                log(revocation, noted.origin, ended);
            }
        }
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

fn log(revocation: &Revocation, origin: Origin, ended: usize) {
    // `jti` and `sid` are handles, which do not belong into a log.
    let named = matches!(revocation.kind, Kind::Subject | Kind::Sub | Kind::SubWithoutSid);
    tracing::info!(
        kind = revocation.kind.name(),
        origin = origin.word(),
        reason = revocation.reason.word(),
        issuer = &*revocation.issuer,
        subject = named.then_some(&*revocation.value),
        ended,
        "revoked"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::{Claims, Identity};
    use crate::gate::admission::User;
    use crate::protocol::engineio::Version;
    use crate::reason::Reason;
    use crate::session::deadlines::End;
    use crate::session::registry::revoke::Card;
    use crate::session::registry::{Capacity, Newcomer, Stay};
    use futures_util::FutureExt;
    use std::time::{Duration, Instant};

    fn admit(registry: &Registry, subject: &str) -> Stay {
        let card = Card::new(subject.into(), [192, 0, 2, 1].into(), 0);
        let newcomer = Newcomer {
            sid: subject,
            version: Version::V4,
            b64: false,
            credential: None,
            mailbox: None,
            card,
            waits: None,
        };
        let mut stay = registry.enter(newcomer).unwrap();
        let identity = Identity {
            issuer: "https://issuer/".into(),
            subject: subject.into(),
            expires_at: u64::MAX,
            ends_at: u64::MAX,
            jti: None,
            session: None,
            issued_at: None,
            claims: Claims::default(),
            hold: None,
        };
        stay.admit(User::of(&identity), End::of(Instant::now(), 0, u64::MAX, Duration::from_secs(3600)));
        registry.trace(stay.entry(), &identity, u64::MAX);
        stay
    }

    #[tokio::test]
    async fn sessions_end_also_where_whoever_asked_does_not_wait_and_are_counted_for_those_who_do() {
        let registry = Registry::new(Capacity { sessions: 9, unauthenticated: 9, unauthenticated_per_ip: 9 });
        let clock = Clock::default();
        let revoker = Revoker::new(Revocations::new(9), registry.clone(), clock.clone(), Arc::default());
        let (ada, bob, carol) = (admit(&registry, "ada"), admit(&registry, "bob"), admit(&registry, "carol"));
        let of = |value: &str| Revocation {
            kind: Kind::Subject,
            issuer: "https://issuer/".into(),
            value: value.into(),
            not_before: clock.unix(),
            until: clock.unix() + 60,
            reason: Reason::Revoked,
        };
        // Its sender hangs up before it is answered.
        assert_eq!(revoker.take(&[of("ada")], Origin::Logout).now_or_never(), None);
        let (first, second) = ([of("bob"), of("nobody"), of("ada")], [of("bob")]);
        let both = async { tokio::join!(revoker.take(&first, Origin::Events), revoker.take(&second, Origin::Admin)) };
        let taken = tokio::select! {
            taken = both => taken,
            () = revoker.run() => unreachable!("it runs for ever"),
        };
        assert_eq!(taken, (Taken { ended: 1, new: true }, Taken::default()));
        let ended = [&ada, &bob, &carol].map(|stay| stay.entry().ended());
        assert_eq!(ended, [Some(Reason::Revoked), Some(Reason::Revoked), None]);
    }
}
