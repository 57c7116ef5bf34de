//! One introspection endpoint: asked once for equal questions at a time, believed for a short while.

use crate::auth::cache::Fingerprint;
use crate::auth::claims::HeaderMapping;
use crate::auth::identity::Identity;
use crate::auth::introspection::IntrospectionRules;
use crate::auth::jose::Fault;
use crate::auth::vouch::{Hold, Voucher, Word};
use crate::config::model::vouchers::{ClientAuth, Introspection, Tokens};
use crate::telemetry::metrics::{Metrics, Vouched};
use crate::upstream::fetch::{Fetcher, Question};
use crate::upstream::target::Location;
use crate::vouch::{Pace, Said, fetcher, held};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::Method;
use http::header::{self, HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Questions on their way at once; more wait, within the same timeout.
const AT_ONCE: usize = 64;

/// Answers of each kind that are remembered.
const MAX_KNOWN: usize = 16 * 1024;

/// No token is longer.
const MAX_TOKEN: usize = 8 * 1024;

/// What stays as it is in a form.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');

/// One `[[introspection]]`.
pub struct Introspector {
    index: usize,
    rules: IntrospectionRules,
    issuer: String,
    location: Location,
    fetcher: Fetcher,
    headers: HeaderMap,
    /// The client's own fields, for `auth = "post"`.
    client: SecretString,
    metrics: Arc<Metrics>,
    cache: Duration,
    negative_cache: Duration,
    timeout: Duration,
    good: Mutex<HashMap<Fingerprint, (Arc<Identity>, Instant)>>,
    bad: Mutex<HashMap<Fingerprint, (Fault, Instant)>>,
    flights: Mutex<HashMap<Fingerprint, WeakShared<BoxFuture<'static, Said>>>>,
    places: Semaphore,
    /// Which tokens.
    pub tokens: Tokens,
    /// How often about live sessions.
    pub pace: Pace,
}

impl Introspector {
    /// Connects at the first question.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn new(
        index: usize,
        section: &Introspection,
        secret: &SecretString,
        kept: &HeaderMapping,
        metrics: Arc<Metrics>,
    ) -> Result<Self, (&'static str, String)> {
        let location = Location::parse(&section.url, section.allow_http).map_err(|e| ("url", e.to_string()))?;
        let (id, secret) = (form(&section.client_id), form(secret.expose_secret()));
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut client = SecretString::default();
        match section.auth {
            ClientAuth::Post => client = format!("&client_id={id}&client_secret={secret}").into(),
            // RFC 6749 section 2.3.1: both are encoded as in a form first.
            ClientAuth::Basic => {
                let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
                let mut basic = HeaderValue::try_from(basic).map_err(|e| ("client_id", e.to_string()))?;
                basic.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, basic);
            }
        }
        Ok(Self {
            index,
            rules: IntrospectionRules::new(section, kept),
            issuer: section.issuer.clone(),
            location,
            fetcher: fetcher(section.ca_file.as_deref(), section.allow_http, section.timeout)?,
            headers,
            client,
            metrics,
            cache: section.cache,
            negative_cache: section.negative_cache,
            timeout: section.timeout,
            good: Mutex::default(),
            bad: Mutex::default(),
            flights: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            tokens: section.tokens,
            pace: Pace { recheck: section.recheck, grace: section.grace },
        })
    }

    /// Whose token it is, from memory where the answer is fresh.
    pub(super) async fn identify(self: &Arc<Self>, token: &str, digest: &Fingerprint, now: u64) -> Said {
        let clock = Instant::now();
        if let Some((identity, until)) = lock(&self.good).get(digest)
            && *until > clock
            && identity.ends_at > now
        {
            return Said::Yes(identity.clone());
        }
        if let Some((fault, until)) = lock(&self.bad).get(digest)
            && *until > clock
        {
            return Said::No(fault.clone());
        }
        self.ask(token, digest, now).await
    }

    /// The same, from the endpoint in any case.
    pub(super) async fn again(self: &Arc<Self>, hold: &Hold, now: u64) -> Said {
        self.ask(hold.credential.expose_secret(), &hold.digest, now).await
    }

    /// Equal questions at one time are one.
    async fn ask(self: &Arc<Self>, token: &str, digest: &Fingerprint, now: u64) -> Said {
        if token.len() > MAX_TOKEN {
            return Said::No(Fault::new(crate::reason::Reason::CredentialMalformed, "the token is longer than 8 KiB"));
        }
        let flight: Shared<BoxFuture<'static, Said>> = {
            let mut flights = lock(&self.flights);
            match flights.get(digest).and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => {
                    let (one, token, digest) = (self.clone(), SecretString::from(token), *digest);
                    let flight = async move { one.exchange(token, digest, now).await }.boxed().shared();
                    // Those whose askers have all gone leave nothing but their name.
                    if flights.len() >= 4 * AT_ONCE {
                        flights.retain(|_, flight| flight.upgrade().is_some());
                    }
                    if let Some(weak) = flight.downgrade() {
                        flights.insert(digest, weak);
                    }
                    flight
                }
            }
        };
        flight.await
    }

    async fn exchange(&self, token: SecretString, digest: Fingerprint, now: u64) -> Said {
        let asked = tokio::time::timeout(self.timeout, self.question(&token));
        let word = match asked.await {
            Ok(Ok((status, body))) => self.rules.judge(status, &body, now),
            Ok(Err(why)) => Word::Unclear(why),
            Err(_) => Word::Unclear(format!("no answer in {:?}", self.timeout)),
        };
        let voucher = Voucher::Introspection(self.index);
        let said = held(word, || Hold { voucher, credential: token, digest, asked: None });
        self.remember(digest, &said);
        lock(&self.flights).remove(&digest);
        said
    }

    async fn question(&self, token: &SecretString) -> Result<(u16, Bytes), String> {
        let _place = self.places.acquire().await.map_err(|e| e.to_string())?;
        let body = format!(
            "token={}&token_type_hint=access_token{}",
            form(token.expose_secret()),
            self.client.expose_secret()
        );
        let question = Question {
            method: Method::POST,
            location: &self.location,
            headers: self.headers.clone(),
            body: body.into(),
        };
        let reply = self.fetcher.ask(question).await.map_err(|e| e.to_string())?;
        Ok((reply.status, reply.body))
    }

    /// Nothing is remembered of an endpoint that could not say.
    fn remember(&self, digest: Fingerprint, said: &Said) {
        let clock = Instant::now();
        let outcome = match said {
            Said::Yes(identity) => {
                put(&mut lock(&self.good), digest, (identity.clone(), clock + self.cache), |(_, until)| *until > clock);
                "ok"
            }
            Said::No(fault) => {
                lock(&self.good).remove(&digest);
                put(&mut lock(&self.bad), digest, (fault.clone(), clock + self.negative_cache), |(_, until)| {
                    *until > clock
                });
                "refused"
            }
            Said::Unclear(_) => "unavailable",
        };
        let label = Vouched { by: "introspection", issuer: self.issuer.clone(), outcome };
        self.metrics.vouched.get_or_create(&label).inc();
    }
}

fn put<V>(map: &mut HashMap<Fingerprint, V>, key: Fingerprint, value: V, fresh: impl Fn(&V) -> bool) {
    if map.len() >= MAX_KNOWN {
        map.retain(|_, known| fresh(known));
    }
    if map.len() >= MAX_KNOWN {
        // Nobody is more worth keeping than another.
        map.clear();
    }
    map.insert(key, value);
}

fn form(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
