//! One endpoint of the operator's that decides about requests.

use crate::auth::cache::Fingerprint;
use crate::auth::callout::CalloutRules;
use crate::auth::claims::HeaderMapping;
use crate::auth::vouch::{Asked, Hold, Voucher, Word};
use crate::config::model::vouchers::{Callout, CalloutMethod, Tokens};
use crate::telemetry::metrics::{Metrics, Vouched};
use crate::upstream::fetch::{Fetcher, Question};
use crate::upstream::refresh;
use crate::upstream::target::Location;
use crate::vouch::{Pace, Said, fetcher, held};
use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Questions on their way at once; more wait, within the same timeout.
const AT_ONCE: usize = 64;

/// One `[[callout]]`.
pub struct Caller {
    index: usize,
    rules: CalloutRules,
    issuer: String,
    method: Method,
    location: Location,
    fetcher: Fetcher,
    credential: Place,
    passed: Vec<HeaderName>,
    metrics: Arc<Metrics>,
    timeout: Duration,
    places: Semaphore,
    /// Which tokens.
    pub tokens: Tokens,
    /// How often about live sessions.
    pub pace: Pace,
}

/// Where the endpoint finds the credential.
enum Place {
    Bearer,
    Header(HeaderName),
    Cookie(String),
}

impl Caller {
    /// Connects at the first question.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn new(
        index: usize,
        section: &Callout,
        kept: &HeaderMapping,
        metrics: Arc<Metrics>,
    ) -> Result<Self, (&'static str, String)> {
        let name = |text: &str| HeaderName::try_from(text).map_err(|e| ("credential", e.to_string()));
        let credential = match section.credential.split_once(':') {
            Some(("header", text)) if text.eq_ignore_ascii_case("authorization") => Place::Bearer,
            Some(("header", text)) => Place::Header(name(text)?),
            Some(("cookie", text)) => Place::Cookie(text.to_owned()),
            _ => return Err(("credential", "is no place for it".into())),
        };
        Ok(Self {
            index,
            rules: CalloutRules::new(section, kept),
            issuer: section.issuer.clone(),
            method: if section.method == CalloutMethod::Post { Method::POST } else { Method::GET },
            location: Location::parse(&section.url, section.allow_http).map_err(|e| ("url", e.to_string()))?,
            fetcher: fetcher(section.ca_file.as_deref(), section.allow_http, section.timeout)?,
            credential,
            passed: section.headers.iter().filter_map(|name| HeaderName::try_from(name).ok()).collect(),
            metrics,
            timeout: section.timeout,
            places: Semaphore::new(AT_ONCE),
            tokens: section.tokens,
            pace: Pace { recheck: section.recheck, grace: section.grace },
        })
    }

    /// Whose request it is.
    pub(super) async fn identify(
        &self,
        token: &str,
        digest: &Fingerprint,
        asked: Option<&Arc<Asked>>,
        now: u64,
    ) -> Said {
        let credential = SecretString::from(token);
        let word = self.ask(&credential, asked.map(Arc::as_ref), now).await;
        let outcome = match &word {
            Word::Yes(_) => "ok",
            Word::No(_) => "refused",
            Word::Unclear(_) => "unavailable",
        };
        let label = Vouched { by: "callout", issuer: self.issuer.clone(), outcome };
        self.metrics.vouched.get_or_create(&label).inc();
        let voucher = Voucher::Callout(self.index);
        held(word, || Hold { voucher, credential, digest: *digest, asked: asked.cloned() })
    }

    /// The same about a live session.
    pub(super) async fn again(&self, hold: &Hold, now: u64) -> Said {
        self.identify(hold.credential.expose_secret(), &hold.digest, hold.asked.as_ref(), now).await
    }

    async fn ask(&self, credential: &SecretString, asked: Option<&Asked>, now: u64) -> Word {
        let headers = match self.headers(credential, asked) {
            Ok(headers) => headers,
            Err(why) => {
                return Word::No(crate::auth::jose::Fault::new(crate::reason::Reason::CredentialMalformed, why));
            }
        };
        let exchange = async {
            let _place = self.places.acquire().await.map_err(|e| e.to_string())?;
            let question =
                Question { method: self.method.clone(), location: &self.location, headers, body: Bytes::new() };
            self.fetcher.ask(question).await.map_err(|e| e.to_string())
        };
        match timeout(self.timeout, exchange).await {
            Ok(Ok(reply)) => {
                let max_age = refresh::max_age(&reply.headers);
                self.rules.judge(reply.status, &reply.headers, &reply.body, max_age, now)
            }
            Ok(Err(why)) => Word::Unclear(why),
            Err(_) => Word::Unclear(format!("no answer in {:?}", self.timeout)),
        }
    }

    /// The gate's own say last: nobody passes off a header of his as one of them.
    fn headers(&self, credential: &SecretString, asked: Option<&Asked>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in asked.map(|asked| asked.headers.as_slice()).unwrap_or_default() {
            if self.passed.contains(name) || name.as_str().starts_with("x-forwarded-") {
                headers.append(name, value.clone());
            }
        }
        let secret = |text: String| {
            let mut value = HeaderValue::try_from(text).map_err(|_| "the token is no header's value".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        let token = credential.expose_secret();
        match &self.credential {
            Place::Bearer => {
                headers.insert(header::AUTHORIZATION, secret(format!("Bearer {token}"))?);
            }
            Place::Header(name) => {
                headers.insert(name, secret(token.to_owned())?);
            }
            // Where all cookies are passed on, it is among them.
            Place::Cookie(_) if headers.contains_key(header::COOKIE) => {}
            Place::Cookie(_) if token.contains([';', ',', ' ', '"', '\\']) => {
                return Err("the token is no cookie's value".into());
            }
            Place::Cookie(name) => {
                headers.insert(header::COOKIE, secret(format!("{name}={token}"))?);
            }
        }
        Ok(headers)
    }
}
