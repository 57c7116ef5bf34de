//! The keys of issuers, kept fresh: one task for each issuer fetches; everybody else only reads what it has published.

use crate::config::model::issuers::Issuer;
use crate::upstream::discovery;
use crate::upstream::fetch::{Bounds, Fetch, FetchError, FetchRequest, Fetched, Fetcher, Validators};
use crate::upstream::refresh::{self, Absent, FORCED_EVERY};
use crate::upstream::target::Location;
use crate::upstream::tls;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// A request waits no longer for keys than this.
const PATIENCE: Duration = Duration::from_secs(2);
/// And no more than so many wait for one issuer.
const MAX_WAITERS: usize = 256;
/// A discovered address is looked up again after a day, and after each failure.
const DISCOVERY_LIFE: Duration = Duration::from_secs(24 * 3600);

const ACCEPT_KEYS: &str = "application/jwk-set+json, application/json";
const ACCEPT_DOCUMENT: &str = "application/json";

/// Takes the body of a key set, stores it and says how many keys can be used. An error where that is none:
/// a good set is never replaced by it.
pub type Publish = Arc<dyn Fn(&[u8]) -> Result<usize, String> + Send + Sync>;

/// One issuer whose keys are fetched.
pub struct KeySource {
    /// Its place in the configuration.
    pub index: usize,
    /// For the operator.
    pub name: String,
    /// Where the keys are, or how to find out.
    pub place: Place,
    /// How old the last good answer may be.
    pub max_stale: Duration,
    /// Who fetches.
    pub fetch: Arc<dyn Fetch>,
    /// Who takes the keys.
    pub publish: Publish,
}

/// Where the keys are.
#[derive(Clone, Debug)]
pub enum Place {
    /// At an address the operator has given.
    Known(Location),
    /// Where the issuer's own document says.
    Discovered {
        /// The exact issuer.
        issuer: String,
        /// Hosts allowed besides the issuer's.
        hosts: Vec<String>,
        /// Plain HTTP to other machines too.
        allow_http: bool,
    },
}

impl KeySource {
    /// The source of an issuer; `None` where its keys are not fetched (a file, a secret).
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn from_config(index: usize, issuer: &Issuer, publish: Publish) -> Result<Option<Self>, String> {
        let fixed = [&issuer.jwks_file, &issuer.key_file, &issuer.secret_file].into_iter().any(|f| f.is_some());
        if fixed || issuer.secret_env.is_some() {
            return Ok(None);
        }
        let name = issuer.issuer.clone().or_else(|| issuer.jwks_url.clone()).unwrap_or_default();
        let allow_http = issuer.allow_http;
        let place = match (&issuer.jwks_url, &issuer.issuer) {
            (Some(url), _) => Place::Known(Location::parse(url, allow_http).map_err(|e| format!("jwks_url: {e}"))?),
            (None, Some(issuer_url)) => {
                discovery::documents(issuer_url, allow_http).map_err(|e| format!("issuer: {e}"))?;
                Place::Discovered { issuer: issuer_url.clone(), hosts: issuer.jwks_hosts.clone(), allow_http }
            }
            (None, None) => return Err("neither issuer nor jwks_url".into()),
        };
        let tls = tls::client_config(issuer.ca_file.as_deref()).map_err(|e| e.to_string())?;
        let fetch = Arc::new(Fetcher::new(tls, allow_http, Bounds::default()));
        Ok(Some(Self { index, name, place, max_stale: issuer.max_stale, fetch, publish }))
    }
}

/// What an operator may want to know about one issuer's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyStatus {
    /// Its place in the configuration.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Time since the last good answer; `None`: never one.
    pub age: Option<Duration>,
    /// Keys in use.
    pub keys: usize,
    /// Fetches begun.
    pub fetches: u64,
    /// Failures since the last good answer.
    pub failures: u32,
    /// The last of them.
    pub last_error: Option<String>,
}

/// The handle; when the last one is dropped, the tasks end.
#[derive(Clone)]
pub struct KeyFetcher {
    issuers: Arc<[Arc<Shared>]>,
    _tasks: Arc<JoinSet<()>>,
}

struct Shared {
    index: usize,
    name: String,
    max_stale: Duration,
    state: Mutex<State>,
    wake: Notify,
    done: watch::Sender<Done>,
    waiters: Semaphore,
}

#[derive(Default)]
struct State {
    in_flight: bool,
    wanted: bool,
    last_forced: Option<Instant>,
    absent: Absent,
    loaded_at: Option<Instant>,
    keys: usize,
    fetches: u64,
    failures: u32,
    last_error: Option<String>,
}

/// The outcome of the last fetch.
#[derive(Clone, Copy, Default)]
struct Done {
    count: u64,
    ok: bool,
}

impl KeyFetcher {
    /// Starts a task for each source; the first fetch begins at once.
    #[must_use]
    pub fn start(sources: Vec<KeySource>) -> Self {
        let mut tasks = JoinSet::new();
        let mut issuers = Vec::with_capacity(sources.len());
        for source in sources {
            let shared = Arc::new(Shared {
                index: source.index,
                name: source.name.clone(),
                max_stale: source.max_stale,
                // In flight from the beginning: who comes before the task has run waits for the first fetch.
                state: Mutex::new(State { in_flight: true, ..State::default() }),
                wake: Notify::new(),
                done: watch::Sender::default(),
                waiters: Semaphore::new(MAX_WAITERS),
            });
            issuers.push(Arc::clone(&shared));
            tasks.spawn(run(shared, source));
        }
        Self { issuers: issuers.into(), _tasks: Arc::new(tasks) }
    }

    /// A token names a key that is not there. True where it is worth verifying again: a fetch has just succeeded.
    /// Never takes longer than two seconds, never fetches more than once in 30 s.
    pub async fn want(&self, issuer: usize, kid: Option<&str>) -> bool {
        match self.issuers.iter().find(|shared| shared.index == issuer) {
            Some(shared) => shared.want(kid).await,
            None => false,
        }
    }

    /// Has every issuer keys that are not too old?
    #[must_use]
    pub fn ready(&self) -> bool {
        self.issuers.iter().all(|shared| shared.ready())
    }

    /// Those whose keys were never fetched or are too old, by their place in the configuration.
    pub fn lacking(&self) -> impl Iterator<Item = usize> {
        self.issuers.iter().filter(|shared| !shared.ready()).map(|shared| shared.index)
    }

    /// Waits until the first fetch of every issuer has ended, one way or the other; then as [`Self::ready`].
    pub async fn first_load(&self) -> bool {
        for shared in self.issuers.iter() {
            let _ = shared.done.subscribe().wait_for(|done| done.count > 0).await;
        }
        self.ready()
    }

    /// For metrics and the admin page.
    #[must_use]
    pub fn status(&self) -> Vec<KeyStatus> {
        self.issuers.iter().map(|shared| shared.status()).collect()
    }
}

impl Shared {
    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn want(&self, kid: Option<&str>) -> bool {
        let now = Instant::now();
        let waiting = self.state(|state| {
            if !state.in_flight {
                if !state.wanted {
                    if state.absent.contains(kid, now) {
                        return Err(false);
                    }
                    state.absent.insert(kid, now);
                    state.wanted = true;
                    self.wake.notify_one();
                }
                // Who comes just before a fetch waits for it; who would have to wait for long does not.
                if state.forced_at(now).saturating_duration_since(now) >= PATIENCE {
                    // The set may have been replaced between the caller's look at it and this question.
                    return Err(state.loaded_at.is_some_and(|at| now.saturating_duration_since(at) < PATIENCE));
                }
            }
            // Before the lock is let go: the outcome cannot be missed.
            Ok(self.done.subscribe())
        });
        let mut done = match waiting {
            Ok(done) => done,
            Err(answer) => return answer,
        };
        let Ok(_permit) = self.waiters.try_acquire() else { return false };
        matches!(timeout(PATIENCE, done.changed()).await, Ok(Ok(()))) && done.borrow().ok
    }

    fn ready(&self) -> bool {
        let age = self.state(|state| state.loaded_at).map(|at| Instant::now().saturating_duration_since(at));
        // `max_stale = 0` is "never older than the refreshes make it", not "never ready".
        age.is_some_and(|age| age <= self.max_stale || self.state(|state| state.failures == 0))
    }

    fn status(&self) -> KeyStatus {
        self.state(|state| KeyStatus {
            index: self.index,
            name: self.name.clone(),
            age: state.loaded_at.map(|at| Instant::now().saturating_duration_since(at)),
            keys: state.keys,
            fetches: state.fetches,
            failures: state.failures,
            last_error: state.last_error.clone(),
        })
    }

    /// Until the next fetch is due, or wanted and allowed.
    async fn wait(&self, due: Instant) {
        loop {
            let now = Instant::now();
            let at = self.state(|state| if state.wanted { due.min(state.forced_at(now)) } else { due });
            if at <= now {
                return;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn begin(&self, due: Instant) {
        let now = Instant::now();
        self.state(|state| {
            if state.wanted && now < due {
                state.last_forced = Some(now);
            }
            state.wanted = false;
            state.in_flight = true;
            state.fetches = state.fetches.saturating_add(1);
        });
    }

    /// Notes the outcome, wakes those who wait, and says when to come back.
    fn finish(&self, outcome: Result<Loaded, String>) -> Instant {
        let now = Instant::now();
        let mut random = [0; 2];
        let _ = aws_lc_rs::rand::fill(&mut random);
        let random = u16::from_ne_bytes(random);
        let ok = outcome.is_ok();
        let pause = self.state(|state| {
            state.in_flight = false;
            match outcome {
                Ok(loaded) => {
                    if state.failures > 0 || state.loaded_at.is_none() {
                        tracing::info!(issuer = %self.name, keys = loaded.keys, "keys loaded");
                    }
                    state.loaded_at = Some(now);
                    state.keys = loaded.keys;
                    state.failures = 0;
                    state.last_error = None;
                    refresh::after_success(loaded.max_age, random)
                }
                Err(error) => {
                    tracing::warn!(issuer = %self.name, %error, "keys could not be fetched; the old ones stay");
                    state.failures = state.failures.saturating_add(1);
                    state.last_error = Some(error);
                    state.absent.clear();
                    refresh::after_failure(state.failures, random)
                }
            }
        });
        self.done.send_modify(|done| *done = Done { count: done.count.saturating_add(1), ok });
        now.checked_add(pause).unwrap_or(now)
    }
}

impl State {
    /// The earliest moment for a fetch that a token causes.
    fn forced_at(&self, now: Instant) -> Instant {
        self.last_forced.and_then(|last| last.checked_add(FORCED_EVERY)).unwrap_or(now).max(now)
    }
}

async fn run(shared: Arc<Shared>, source: KeySource) {
    let mut memory = Memory::default();
    let mut due = Instant::now();
    loop {
        shared.wait(due).await;
        shared.begin(due);
        due = shared.finish(memory.load(&source).await);
    }
}

/// A good fetch.
struct Loaded {
    keys: usize,
    max_age: Option<Duration>,
}

/// What one task remembers from fetch to fetch.
#[derive(Default)]
struct Memory {
    discovered: Option<(Location, Instant)>,
    /// The last good answer: published again after a 304, so that the store knows that it is fresh.
    body: Bytes,
    validators: Validators,
}

impl Memory {
    async fn load(&mut self, source: &KeySource) -> Result<Loaded, String> {
        let result = self.try_load(source).await;
        if result.is_err() {
            self.discovered = None;
        }
        result
    }

    async fn try_load(&mut self, source: &KeySource) -> Result<Loaded, String> {
        let location = match &source.place {
            Place::Known(location) => location.clone(),
            Place::Discovered { issuer, hosts, allow_http } => {
                self.discover(source, issuer, hosts, *allow_http).await?
            }
        };
        let request = FetchRequest { location, accept: ACCEPT_KEYS, validators: self.validators.clone() };
        match source.fetch.fetch(&request).await.map_err(|e| format!("{}: {e}", request.location.text))? {
            Fetched::Body { body, validators, max_age } => {
                let keys = (source.publish)(&body)?;
                // Only now: a bad answer's ETag must not make us believe in it later.
                (self.body, self.validators) = (body, validators);
                Ok(Loaded { keys, max_age })
            }
            Fetched::NotModified { .. } if self.body.is_empty() => Err("304 to an unconditional request".into()),
            Fetched::NotModified { max_age } => Ok(Loaded { keys: (source.publish)(&self.body)?, max_age }),
        }
    }

    async fn discover(
        &mut self,
        source: &KeySource,
        issuer: &str,
        hosts: &[String],
        allow_http: bool,
    ) -> Result<Location, String> {
        let now = Instant::now();
        if let Some((location, at)) = &self.discovered
            && now.saturating_duration_since(*at) < DISCOVERY_LIFE
        {
            return Ok(location.clone());
        }
        let mut last = String::new();
        for location in discovery::documents(issuer, allow_http).map_err(|e| e.to_string())? {
            let request = FetchRequest { location, accept: ACCEPT_DOCUMENT, validators: Validators::default() };
            match source.fetch.fetch(&request).await {
                Ok(Fetched::Body { body, .. }) => {
                    let keys = discovery::read(&body, issuer, hosts, allow_http).map_err(|e| e.to_string())?;
                    if self.discovered.as_ref().is_none_or(|(old, _)| *old != keys) {
                        // Another place: what was known about the old one's answers says nothing.
                        self.validators = Validators::default();
                    }
                    self.discovered = Some((keys.clone(), now));
                    return Ok(keys);
                }
                Ok(Fetched::NotModified { .. }) => last = "304 to an unconditional request".into(),
                Err(error @ FetchError::Status(_)) => last = format!("{}: {error}", request.location.text),
                Err(error) => return Err(format!("{}: {error}", request.location.text)),
            }
        }
        Err(format!("discovery: {last}"))
    }
}

#[cfg(test)]
mod tests;
