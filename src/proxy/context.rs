//! What every engine needs: built once from the configuration, shared by all.

use crate::auth::assertion::Signer;
use crate::auth::cache::Fingerprint;
use crate::auth::claims::HeaderMapping;
use crate::auth::identity::Identity;
use crate::auth::jose::Fault;
use crate::auth::verifier::{Refusal, Verifier};
use crate::auth::vouch::Asked;
use crate::config::model::{Config, OnExpiry};
use crate::gate::admission::{Rules, User};
use crate::gate::budget::Budget;
use crate::gate::refresh::{Granted, Names};
use crate::protocol::engineio::Open;
use crate::protocol::origin::Origins;
use crate::proxy::headers::Peer;
use crate::proxy::keeper::Keeper;
use crate::proxy::own::Statements;
use crate::proxy::timers;
use crate::reason::Reason;
use crate::session::clock::Clock;
use crate::session::deadlines::End;
use crate::session::reaper::SWEEP;
use crate::session::registry::revoke::Card;
use crate::session::registry::term::Habits;
use crate::session::registry::{Entry, Registry, Stay};
use crate::session::revoker::Revoker;
use crate::telemetry::metrics::Metrics;
use crate::upstream::client::ProxyClient;
use crate::upstream::dial::{self, DialError, Dialed};
use crate::upstream::head::DialHead;
use crate::upstream::jwks::KeyFetcher;
use crate::upstream::pool::Pool;
use crate::upstream::timings::Timings;
use crate::vouch::Vouchers;
use aws_lc_rs::digest;
use http::{HeaderMap, Method};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

/// The gate's shared parts.
pub struct Context {
    /// The configuration, as loaded.
    pub config: Config,
    /// Where credentials stand, and whether they are passed on.
    pub rules: Rules,
    /// Token to identity.
    pub verifier: Verifier,
    /// Withdraws rights; the verifier refuses what it took.
    pub revoker: Arc<Revoker>,
    /// Fetches keys that are missing.
    pub keys: KeyFetcher,
    /// Those who are asked where no signature says enough.
    pub vouchers: Vouchers,
    /// Asks them again while sessions live.
    pub keeper: Keeper,
    /// Identity to headers.
    pub mapping: HeaderMapping,
    /// Signs what the backend is told; `None`: it is not told so.
    pub signer: Option<Signer>,
    /// Pages that may connect.
    pub origins: Origins,
    /// Backends.
    pub pool: Pool,
    /// Plain HTTP to them.
    pub client: ProxyClient,
    /// What the backend announces in OPEN.
    pub timings: Timings,
    /// Who is inside.
    pub registry: Registry,
    /// The time.
    pub clock: Clock,
    /// What clients say to ask for a later end; `None`: they cannot.
    pub refresh: Option<Names>,
    /// What identity providers have told.
    pub statements: Statements,
    /// How often an address may name sessions that are not there.
    pub strangers: Mutex<Budget>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Every session's task.
    pub tasks: TaskTracker,
    /// TLS is spoken on the public listener.
    pub tls: bool,
    /// No new sessions.
    pub draining: Arc<AtomicBool>,
}

/// The digest of a credential. Nothing is looked up by it but equality with the same session's own.
pub fn fingerprint(token: &str) -> Fingerprint {
    let mut out = Fingerprint::default();
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

/// Session ids that one address may guess at once, and then one in so long: clients come back with an old
/// one after a restart, and many of them may share an address.
const GUESSES: u32 = 100;
const GUESS_EVERY: Duration = Duration::from_millis(100);

/// The names of refreshes, where they are on.
pub fn names(config: &Config) -> Option<Names> {
    let refresh = &config.session.refresh;
    refresh.enabled.then(|| Names::new(&refresh.event, &refresh.warn_event, &refresh.notify))
}

/// What the registry is to look for.
pub fn habits(config: &Config) -> Habits {
    let session = &config.session;
    let warn_before = if session.refresh.enabled { session.refresh.warn_before } else { Duration::ZERO };
    Habits { warn_before, idle_timeout: session.idle_timeout }
}

impl Context {
    /// A full budget of guesses for everybody.
    pub fn strangers() -> Mutex<Budget> {
        Mutex::new(Budget::new(GUESSES, GUESS_EVERY))
    }

    /// Counts an unknown session id; `false` where its sender has named too many.
    pub fn may_guess(&self, client: IpAddr) -> bool {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).take(client, Instant::now())
    }

    /// Verifies a token, fetching the issuer's keys where that may help.
    ///
    /// # Errors
    /// The reason, and a detail for the operator.
    pub async fn verify(&self, token: &str, asked: Option<&Arc<Asked>>) -> Result<Arc<Identity>, Refusal> {
        self.verify_known(token, &fingerprint(token), asked).await
    }

    /// Verifies a credential of a request: a token, or the cookie of a session store.
    ///
    /// # Errors
    /// As [`Context::verify`].
    pub async fn identify(
        &self,
        source: usize,
        credential: &str,
        fingerprint: &Fingerprint,
        asked: Option<&Arc<Asked>>,
    ) -> Result<Arc<Identity>, Refusal> {
        match self.rules.sources.store(source) {
            Some(store) => {
                // Boxed, here and below: a question to somebody else is rare, and every request's future would have room for it.
                let identity = Box::pin(self.vouchers.cookie(store, credential, self.clock.unix())).await?;
                self.unless_revoked(Arc::new(identity))
            }
            None => self.verify_known(credential, fingerprint, asked).await,
        }
    }

    /// The same, where the token's fingerprint is known already.
    ///
    /// # Errors
    /// As [`Context::verify`].
    async fn verify_known(
        &self,
        token: &str,
        fingerprint: &Fingerprint,
        asked: Option<&Arc<Asked>>,
    ) -> Result<Arc<Identity>, Refusal> {
        if !self.vouchers.know_no_tokens() {
            let of_issuer = self.verifier.knows(token);
            if self.vouchers.take(of_issuer) {
                let now = self.clock.unix();
                let identity = Box::pin(self.vouchers.token(token, fingerprint, asked, of_issuer, now)).await?;
                return self.unless_revoked(identity);
            }
        }
        let refusal = match self.verifier.verify_again(token, fingerprint, self.clock.unix()) {
            Ok(identity) => return Ok(identity),
            Err(refusal) => refusal,
        };
        let Some(need) = &refusal.need_key else { return Err(refusal) };
        // Whatever the answer: somebody else's fetch may have brought the key meanwhile.
        Box::pin(self.keys.want(need.issuer, need.kid.as_deref())).await;
        self.verifier.verify_again(token, fingerprint, self.clock.unix())
    }

    /// Whoever vouches need not know what was revoked here.
    fn unless_revoked(&self, identity: Arc<Identity>) -> Result<Arc<Identity>, Refusal> {
        match self.revoker.table().find(&identity, self.clock.unix()) {
            Some(reason) => Err(Fault::new(reason, "the right was withdrawn before its end").into()),
            None => Ok(identity),
        }
    }

    /// What call-outs are shown of a request; `None` where there are none.
    pub fn asked(&self, method: &Method, target: &str, headers: &HeaderMap, peer: &Peer) -> Option<Arc<Asked>> {
        let wanted = self.vouchers.want_to_see()?;
        let client = peer.forwarded.client.to_string();
        let own = [("x-forwarded-method", method.as_str()), ("x-forwarded-uri", target), ("x-forwarded-for", &*client)];
        Some(Arc::new(Asked::of(headers, wanted, own)))
    }

    /// The session has a user from now on, unless the user's right was withdrawn meanwhile.
    ///
    /// # Errors
    /// Why it was.
    pub fn admit(&self, stay: &mut Stay, identity: &Identity) -> Result<(), Reason> {
        let now_ms = self.clock.unix_ms();
        let end = End::of(Instant::now(), now_ms, identity.ends_at, self.config.session.max_lifetime);
        stay.admit(User::of(identity), end);
        self.registry.trace(stay.entry(), identity, end.wall_ms / 1000);
        self.keep(stay.entry(), identity);
        // Only now: a revocation that came earlier stands in the table, a later one finds the session (L06).
        self.revoker.table().find(identity, now_ms / 1000).map_or(Ok(()), Err)
    }

    /// Whoever vouched is asked again while the session lives.
    fn keep(&self, entry: &Arc<Entry>, identity: &Identity) {
        if let Some(hold) = &identity.hold {
            let pace = self.vouchers.pace(hold.voucher);
            self.keeper.watch(entry, identity, pace, Instant::now(), self.clock.unix());
        }
    }

    /// Why this identity's right counts no more, where it was withdrawn before its end.
    pub fn withdrawn(&self, identity: &Identity) -> Option<Reason> {
        self.revoker.table().find(identity, self.clock.unix())
    }

    /// The session of the same user lives by this identity from now on.
    ///
    /// # Errors
    /// Why it does not; it is as it was then, or over.
    pub fn refresh(&self, entry: &Arc<Entry>, identity: &Identity) -> Result<Granted, Reason> {
        match entry.user() {
            Some(user) if *user == User::of(identity) => {}
            Some(_) => return Err(Reason::SubjectMismatch),
            None => return Err(Reason::CredentialMissing),
        }
        let (now, now_ms) = (timers::now(), self.clock.unix_ms());
        let end = self.registry.extend(entry, |since| {
            let lived = now.saturating_duration_since(since);
            End::of(now, now_ms, identity.ends_at, self.config.session.max_lifetime.saturating_sub(lived))
        })?;
        self.registry.trace(entry, identity, end.wall_ms / 1000);
        self.keep(entry, identity);
        // As at admission: an earlier revocation stands in the table, a later one finds the session.
        if let Some(reason) = self.withdrawn(identity) {
            entry.end(reason);
            return Err(reason);
        }
        let (expires_at, expires_in) = entry.ends(now).unwrap_or_default();
        Ok(Granted { expires_at, expires_in })
    }

    /// What operators are told of a session that begins now.
    pub fn card(&self, name: &Arc<str>, client: IpAddr) -> Card {
        Card::new(name.clone(), client, self.clock.unix())
    }

    /// Opens a WebSocket to a backend.
    ///
    /// # Errors
    /// As [`dial::websocket`].
    pub async fn dial(&self, head: &DialHead) -> Result<Dialed, DialError> {
        let deadline = tokio::time::Instant::now() + self.config.upstream.connect_timeout;
        let result = dial::websocket(&self.pool, head, deadline).await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(DialError::Unavailable { .. }) => "unavailable",
            Err(DialError::Refused { .. }) => "refused",
            Err(DialError::Invalid { .. }) => "invalid",
        };
        self.metrics.dial(outcome);
        result
    }

    /// A session's OPEN, by what is known of the backend.
    pub fn open(&self, sid: String, upgrades: bool) -> Open {
        let numbers = self.timings.current();
        Open {
            sid,
            upgrades: if upgrades { vec!["websocket".into()] } else { Vec::new() },
            ping_interval: numbers.ping_interval,
            ping_timeout: numbers.ping_timeout,
            max_payload: Some(numbers.max_payload),
        }
    }

    /// The longest message in bytes: what the configuration fixes, else what the backend has said.
    pub fn max_payload(&self) -> u64 {
        self.timings.current().max_payload
    }

    /// Ends the session when one of its sides is silent for longer than a heartbeat may take.
    pub fn watch(&self, entry: &Entry) {
        let numbers = self.timings.current();
        entry.watch(Duration::from_millis(numbers.ping_interval.saturating_add(numbers.ping_timeout)), SWEEP);
    }

    /// Whether a recovery id was given to this user.
    pub fn owns(&self, pid: &str, user: &User) -> bool {
        self.registry.owns_recovery(pid, user)
    }

    /// Whether clients are to stay away when their time is over.
    pub fn says_goodbye(&self) -> bool {
        self.config.socketio.on_expiry == OnExpiry::Disconnect
    }

    /// True from the beginning of a drain.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
