//! Those who vouch for a user besides a signature, asked over the network: session stores, introspection
//! endpoints, call-outs. What their answers mean is judged in `auth`.

pub mod callout;
pub mod introspector;
pub mod store;

use crate::auth::cache::Fingerprint;
use crate::auth::claims::HeaderMapping;
use crate::auth::identity::Identity;
use crate::auth::jose::Fault;
use crate::auth::verifier::Refusal;
use crate::auth::vouch::{Asked, Hold, Voucher, Word};
use crate::config::model::Config;
use crate::config::model::vouchers::Tokens;
use crate::config::secret::Secrets;
use crate::reason::Reason;
use crate::telemetry::metrics::Metrics;
use crate::upstream::fetch::{Bounds, Fetcher};
use crate::upstream::tls;
use crate::vouch::callout::Caller;
use crate::vouch::introspector::Introspector;
use crate::vouch::store::Store;
use http::HeaderName;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Everybody who can be asked.
pub struct Vouchers {
    stores: Vec<Store>,
    introspectors: Vec<Arc<Introspector>>,
    callers: Vec<Caller>,
    /// Client headers that any call-out wants to see.
    passed: Vec<HeaderName>,
    /// One of them is `Cookie`.
    sees_cookies: bool,
}

/// What came of asking again.
pub enum Again {
    /// Still this user.
    Holds(Arc<Identity>),
    /// No longer.
    Over(Reason, String),
    /// Nobody could say.
    Unknown(String),
}

/// How often, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Asked again within this time.
    pub recheck: Duration,
    /// Nobody is ended while nobody answers, for so long.
    pub grace: Duration,
}

impl Vouchers {
    /// Builds them from a configuration and its secrets. Connects to nobody.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn build(
        config: &Config,
        secrets: &Secrets,
        kept: &HeaderMapping,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, (String, String)> {
        let mut built = Self {
            stores: Vec::new(),
            introspectors: Vec::new(),
            callers: Vec::new(),
            passed: Vec::new(),
            sees_cookies: false,
        };
        for (i, (section, secrets)) in config.session_store.iter().zip(&secrets.session_stores).enumerate() {
            let store = Store::open(section, secrets, kept, metrics.clone());
            built.stores.push(store.map_err(|(key, why)| (format!("session_store[{i}].{key}"), why))?);
        }
        for (i, (section, secret)) in config.introspection.iter().zip(&secrets.introspections).enumerate() {
            let one = Introspector::new(i, section, secret, kept, metrics.clone());
            built.introspectors.push(Arc::new(one.map_err(|(key, why)| (format!("introspection[{i}].{key}"), why))?));
        }
        for (i, section) in config.callout.iter().enumerate() {
            let one = Caller::new(i, section, kept, metrics.clone());
            built.callers.push(one.map_err(|(key, why)| (format!("callout[{i}].{key}"), why))?);
            for name in section.headers.iter().filter_map(|name| HeaderName::try_from(name).ok()) {
                built.sees_cookies |= name == http::header::COOKIE;
                if !built.passed.contains(&name) {
                    built.passed.push(name);
                }
            }
        }
        Ok(built)
    }

    /// Whether anybody may be asked about a token that is (not) a JWT of one of the issuers.
    pub fn take(&self, of_issuer: bool) -> bool {
        let takes = |tokens: Tokens| tokens == Tokens::All || !of_issuer;
        self.introspectors.iter().any(|one| takes(one.tokens)) || self.callers.iter().any(|one| takes(one.tokens))
    }

    /// Whether nobody is ever asked about a token.
    pub fn know_no_tokens(&self) -> bool {
        self.introspectors.is_empty() && self.callers.is_empty()
    }

    /// Headers of clients that call-outs are shown; `None`: nobody wants to see a request.
    pub fn want_to_see(&self) -> Option<&[HeaderName]> {
        (!self.callers.is_empty()).then_some(&self.passed)
    }

    /// Whether a visitor's cookies may decide.
    pub fn see_cookies(&self) -> bool {
        self.sees_cookies
    }

    /// Who is logged in by a session cookie.
    ///
    /// # Errors
    /// The reason; [`Reason::CredentialMissing`] where it is nobody, [`Reason::KeysUnavailable`] where the
    /// store cannot be asked.
    pub async fn cookie(&self, store: usize, value: &str, now: u64) -> Result<Identity, Refusal> {
        let Some(one) = self.stores.get(store) else {
            return Err(Fault::new(Reason::CredentialMissing, "no such store").into());
        };
        one.identify(store, value, now).await.map_err(Refusal::from)
    }

    /// Asks about a token until somebody vouches for it. That one could not be asked counts only where nobody
    /// else says yes.
    ///
    /// # Errors
    /// The last refusal, or that nobody could say.
    pub async fn token(
        &self,
        token: &str,
        digest: &Fingerprint,
        asked: Option<&Arc<Asked>>,
        of_issuer: bool,
        now: u64,
    ) -> Result<Arc<Identity>, Refusal> {
        let takes = |tokens: Tokens| tokens == Tokens::All || !of_issuer;
        let (mut refused, mut unclear) = (None, None);
        let mut hear = |said: Said| match said {
            Said::Yes(identity) => Some(identity),
            Said::No(fault) => {
                refused = Some(fault);
                None
            }
            Said::Unclear(why) => {
                unclear = Some(why);
                None
            }
        };
        for one in self.introspectors.iter().filter(|one| takes(one.tokens)) {
            if let Some(identity) = hear(one.identify(token, digest, now).await) {
                return Ok(identity);
            }
        }
        for one in self.callers.iter().filter(|one| takes(one.tokens)) {
            if let Some(identity) = hear(one.identify(token, digest, asked, now).await) {
                return Ok(identity);
            }
        }
        Err(match (unclear, refused) {
            (Some(why), _) => unavailable(why).into(),
            (None, Some(fault)) => fault.into(),
            (None, None) => Fault::new(Reason::CredentialMalformed, "nobody takes this token").into(),
        })
    }

    /// Asks again about a live session.
    pub async fn again(&self, hold: &Hold, now: u64) -> Again {
        let said = match hold.voucher {
            Voucher::Store(index) => match self.stores.get(index) {
                Some(one) => return one.again(index, hold, now).await,
                None => return Again::Unknown("no such store".into()),
            },
            Voucher::Introspection(index) => match self.introspectors.get(index) {
                Some(one) => one.again(hold, now).await,
                None => return Again::Unknown("no such endpoint".into()),
            },
            Voucher::Callout(index) => match self.callers.get(index) {
                Some(one) => one.again(hold, now).await,
                None => return Again::Unknown("no such endpoint".into()),
            },
        };
        match said {
            Said::Yes(identity) => Again::Holds(identity),
            Said::No(fault) => Again::Over(fault.reason, fault.detail),
            Said::Unclear(why) => Again::Unknown(why),
        }
    }

    /// How a voucher wants to be asked.
    pub fn pace(&self, voucher: Voucher) -> Pace {
        let pace = match voucher {
            Voucher::Store(index) => self.stores.get(index).map(|one| one.pace),
            Voucher::Introspection(index) => self.introspectors.get(index).map(|one| one.pace),
            Voucher::Callout(index) => self.callers.get(index).map(|one| one.pace),
        };
        pace.unwrap_or(Pace { recheck: Duration::from_secs(30), grace: Duration::ZERO })
    }

    /// Asks every store whether it answers: its name, and what is wrong.
    pub async fn ping(&self) -> Vec<(String, Result<(), String>)> {
        let mut all = Vec::new();
        for store in &self.stores {
            all.push((store.name(), store.ping().await));
        }
        all
    }
}

/// The one word for whoever cannot be asked: clients try again, at 503 or 4503.
fn unavailable(detail: String) -> Fault {
    Fault::new(Reason::KeysUnavailable, detail)
}

/// [`Word`], with an identity that may be shared.
#[derive(Clone)]
enum Said {
    Yes(Arc<Identity>),
    No(Fault),
    Unclear(String),
}

/// An identity with what will be asked again.
fn held(word: Word, hold: impl FnOnce() -> Hold) -> Said {
    match word {
        Word::Yes(mut identity) => {
            identity.hold = Some(Arc::new(hold()));
            Said::Yes(Arc::new(*identity))
        }
        Word::No(fault) => Said::No(fault),
        Word::Unclear(why) => Said::Unclear(why),
    }
}

/// A client for one endpoint, within the bounds of its section.
fn fetcher(ca: Option<&Path>, allow_http: bool, timeout: Duration) -> Result<Fetcher, (&'static str, String)> {
    let tls = tls::client_config(ca).map_err(|e| ("ca_file", e.to_string()))?;
    let bounds = Bounds { connect: timeout, total: timeout, ..Bounds::default() };
    Ok(Fetcher::new(tls, allow_http, bounds))
}
