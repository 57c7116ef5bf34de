//! An application's session store: whose session is it, and is it there still? It is only ever read.

use crate::auth::cache::Fingerprint;
use crate::auth::claims::HeaderMapping;
use crate::auth::identity::{Identity, NEVER};
use crate::auth::jose::Fault;
use crate::auth::session_cookie::CookieSecrets;
use crate::auth::stored::{MAX_SESSION, StoredRules};
use crate::auth::vouch::{Hold, Voucher};
use crate::config::model::vouchers::SessionStore;
use crate::config::secret::vouchers::StoreSecrets;
use crate::reason::Reason;
use crate::store::redis::Redis;
use crate::telemetry::metrics::{Metrics, StoreSecret, Vouched};
use crate::vouch::{Again, Pace, unavailable};
use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One `[[session_store]]`.
pub struct Store {
    issuer: String,
    prefix: String,
    secrets: CookieSecrets,
    rules: StoredRules,
    redis: Redis,
    metrics: Arc<Metrics>,
    away: AtomicBool,
    /// How often live sessions are looked at.
    pub pace: Pace,
}

impl Store {
    /// Connects at the first question.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn open(
        section: &SessionStore,
        secrets: &StoreSecrets,
        kept: &HeaderMapping,
        metrics: Arc<Metrics>,
    ) -> Result<Self, (&'static str, String)> {
        let url = secrets.redis.as_ref().ok_or(("redis_url", "is not there".to_owned()))?;
        let ca = section.redis_ca_file.as_ref().map(std::fs::read).transpose();
        let ca = ca.map_err(|e| ("redis_ca_file", e.to_string()))?;
        Ok(Self {
            issuer: section.issuer.clone(),
            prefix: section.prefix.clone(),
            secrets: CookieSecrets::new(&secrets.cookie),
            rules: StoredRules::new(section, kept),
            redis: Redis::open(url, ca, section.timeout).map_err(|e| ("redis_url", e))?,
            metrics,
            away: AtomicBool::new(false),
            pace: Pace { recheck: section.recheck, grace: section.grace },
        })
    }

    /// For people.
    pub fn name(&self) -> String {
        format!("session_store {} at {}", self.issuer, self.redis.shown())
    }

    /// Whether the Redis answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), String> {
        self.redis.ping().await.map_err(|e| e.to_string())
    }

    /// Who is logged in by this cookie.
    ///
    /// # Errors
    /// As [`crate::vouch::Vouchers::cookie`].
    pub async fn identify(&self, index: usize, cookie: &str, now: u64) -> Result<Identity, Fault> {
        let opened = self.secrets.open(cookie)?;
        self.metrics
            .store_secret
            .get_or_create(&StoreSecret { store: self.issuer.clone(), secret: opened.secret })
            .inc();
        let mut identity = match self.look(&opened.id, now).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return Err(Fault::new(Reason::LoggedOut, "the session is not in the store")),
            Err(fault) => return Err(fault),
        };
        let mut print = Fingerprint::default();
        print.copy_from_slice(digest::digest(&digest::SHA256, opened.id.as_bytes()).as_ref());
        let credential = SecretString::from(opened.id);
        identity.hold = Some(Arc::new(Hold { voucher: Voucher::Store(index), credential, digest: print, asked: None }));
        Ok(identity)
    }

    /// Whether a session is there still, and whose it is.
    pub async fn again(&self, _index: usize, hold: &Hold, now: u64) -> Again {
        match self.look(hold.credential.expose_secret(), now).await {
            Ok(Some(identity)) => Again::Holds(Arc::new(identity)),
            Ok(None) => Again::Over(Reason::LoggedOut, "the session is gone from the store".into()),
            // Logged out, the session itself stays: `req.logout()`, or `delete req.session.user`.
            Err(fault) if fault.reason == Reason::CredentialMissing => Again::Over(Reason::LoggedOut, fault.detail),
            Err(fault) if fault.reason == Reason::KeysUnavailable => Again::Unknown(fault.detail),
            Err(fault) => Again::Over(fault.reason, fault.detail),
        }
    }

    /// The session's user; `None`: there is no such session.
    async fn look(&self, id: &str, now: u64) -> Result<Option<Identity>, Fault> {
        let found = self.redis.get(&format!("{}{id}", self.prefix), MAX_SESSION).await;
        self.note(found.as_ref().err().map(ToString::to_string));
        let entry = match found {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                self.count("refused");
                return Ok(None);
            }
            Err(error) => {
                self.count("unavailable");
                return Err(unavailable(format!("the session store: {error}")));
            }
        };
        match self.rules.judge(&entry.value, entry.ttl, now) {
            Ok(Some(identity)) => {
                self.count("ok");
                debug_assert_eq!(identity.ends_at, NEVER);
                Ok(Some(identity))
            }
            Ok(None) => {
                self.count("refused");
                Err(Fault::new(Reason::CredentialMissing, "nobody is logged in by the session"))
            }
            Err(fault) => {
                self.count("refused");
                Err(fault)
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        self.metrics
            .vouched
            .get_or_create(&Vouched { by: "session_store", issuer: self.issuer.clone(), outcome })
            .inc();
    }

    /// Once for each time that the store goes away, and once when it is back.
    fn note(&self, failed: Option<String>) {
        let away = failed.is_some();
        if self.away.swap(away, Ordering::Relaxed) == away {
            return;
        }
        match failed {
            Some(why) => tracing::warn!(store = self.issuer, redis = self.redis.shown(), why, "session store away"),
            None => tracing::info!(store = self.issuer, redis = self.redis.shown(), "session store back"),
        }
    }
}
