//! Builds every room from the configuration, opens the doors, and closes them in order.
//!
//! Whatever runs is held by [`App`] or by its tracker: when [`App::run`] returns, nothing is left.

mod issuers;

use crate::admin::readiness::Readiness;
use crate::admin::revocations::Scope;
use crate::admin::routes::Admin;
use crate::auth::assertion::Signer;
use crate::auth::claims::HeaderMapping;
use crate::auth::credential::Sources;
use crate::auth::events::Transmitter;
use crate::auth::keys::KeyStore;
use crate::auth::revocation::Revocations;
use crate::auth::verifier::Verifier;
use crate::config::address::{self, Listen};
use crate::config::load::Loaded;
use crate::config::model::{Config, identity::IdentityOut};
use crate::config::redis_url::RedisUrl;
use crate::gate::admission::Rules;
use crate::listen::door::Door;
use crate::listen::{private, public, tls};
use crate::protocol::origin::Origins;
use crate::proxy::context::{self, Context};
use crate::proxy::keeper::{self, Keeper};
use crate::proxy::own::Statements;
use crate::reason::Reason;
use crate::session::clock::Clock;
use crate::session::reaper;
use crate::session::registry::ebb::{self, Passer};
use crate::session::registry::{Capacity, Registry};
use crate::session::revoker::Revoker;
use crate::session::sharing::{self, Sharing};
use crate::store::redis::Redis;
use crate::telemetry::metrics::Metrics;
use crate::upstream::client::ProxyClient;
use crate::upstream::jwks::KeyFetcher;
use crate::upstream::pool::Pool;
use crate::upstream::probe::Probe;
use crate::upstream::timings::Timings;
use crate::vouch::Vouchers;
use secrecy::SecretString;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Sessions are asked to leave at least this fast; more of them are spread over half the drain.
const LEAVE_PER_TICK: usize = 100;

/// The pace of a drain.
const TICK: Duration = Duration::from_millis(50);

/// Every question to the Redis that replicas share is answered within this time, or not at all.
const REDIS_PATIENCE: Duration = Duration::from_secs(2);

/// For so long the doors stay closed at start until it is known what the other replicas have revoked.
const FIRST_NEWS: Duration = Duration::from_secs(2);

/// At the end it is waited for so long until the other replicas know everything.
const LAST_NEWS: Duration = Duration::from_secs(1);

/// After a drain's end, what is left is torn down within this time.
const TEAR_DOWN: Duration = Duration::from_secs(3);

/// Why the gate cannot start.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The configuration passed its checks, but a part cannot be built from it.
    #[error("{0}")]
    Config(String),
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Which one.
        address: String,
        /// As the system says.
        error: std::io::Error,
    },
}

/// Everything but the doors: enough to check a configuration.
pub struct Parts {
    /// What the engines share.
    pub context: Arc<Context>,
    store: KeyStore,
    sharing: Option<Sharing>,
    tls: Option<TlsAcceptor>,
    admin_token: Option<SecretString>,
}

/// The gate with its doors open, not yet serving.
pub struct App {
    parts: Parts,
    public: Vec<Door>,
    private: Option<(Door, bool)>,
}

/// Builds what a configuration describes. Needs a running tokio runtime: key fetching starts at once.
///
/// # Errors
/// [`BuildError::Config`], naming the key.
pub fn build(loaded: Loaded) -> Result<Parts, BuildError> {
    let Loaded { config, secrets, .. } = loaded;
    let wrong = |key: &str, what: String| BuildError::Config(format!("{key}: {what}"));
    let clock = Clock::default();
    let (mut rules, store, sources) = issuers::build(&config, &secrets.issuers, &clock)?;
    let transmitters = rules.split_off(config.issuer.len());
    let tokens = secrets.transmitters.iter().cloned().chain(std::iter::repeat_with(|| None));
    let transmitters = config.transmitter.iter().zip(transmitters).zip(tokens);
    let transmitters = transmitters.map(|((section, rules), token)| Transmitter::new(section, rules, token)).collect();
    let mut credentials =
        Sources::parse(&config.credentials.sources).map_err(|all| wrong("credentials.sources", all.join("; ")))?;
    for (index, store) in config.session_store.iter().enumerate() {
        credentials = credentials.with_session(&store.cookie, index, store.forward);
    }
    let mapping = mapping(&config).map_err(|all| wrong("identity.headers", all.join("; ")))?;
    let origins = Origins::parse(&config.socketio.allowed_origins)
        .map_err(|all| wrong("socketio.allowed_origins", all.join("; ")))?;
    let pool = Pool::new(&config.upstream).map_err(|e| wrong("upstream", e.to_string()))?;
    let acceptor = config.server.tls.as_ref().map(tls::acceptor).transpose();
    let acceptor = acceptor.map_err(|e| BuildError::Config(e.to_string()))?;
    let (registry, metrics) = (table(&config), Arc::new(Metrics::default()));
    let revocations = Revocations::new(config.revocation.max_entries);
    let revoker = Revoker::new(revocations, registry.clone(), clock.clone(), metrics.clone());
    let (revoker, sharing) = shared(revoker, &config, secrets.revocation.as_ref())?;
    let vouchers = Vouchers::build(&config, &secrets, &mapping, &metrics).map_err(|(key, why)| wrong(&key, why))?;
    let context = Context {
        vouchers,
        keeper: Keeper::default(),
        rules: Rules { sources: credentials, forward: config.credentials.forward },
        verifier: Verifier::new(rules, store.clone())
            .keeping(&mapping)
            .refusing(revoker.table().clone())
            .hearing(transmitters),
        revoker,
        keys: KeyFetcher::start(sources),
        mapping,
        signer: signer(&config)?,
        origins,
        client: ProxyClient::new(pool.clone(), config.upstream.connect_timeout),
        pool,
        timings: Timings::new(&config.socketio),
        registry,
        clock,
        refresh: context::names(&config),
        statements: Statements::default(),
        strangers: Context::strangers(),
        metrics,
        tasks: TaskTracker::new(),
        tls: acceptor.is_some(),
        draining: Arc::new(AtomicBool::new(false)),
        config,
    };
    Ok(Parts { context: Arc::new(context), store, sharing, tls: acceptor, admin_token: secrets.admin_token })
}

fn mapping(config: &Config) -> Result<HeaderMapping, Vec<String>> {
    let mut mapping = HeaderMapping::compile(&config.identity.headers, &config.identity.claims)?;
    // The default names are what backends are taught to trust: nobody may send them, mapped or not.
    IdentityOut::default().headers.keys().for_each(|name| mapping.protect(name));
    mapping.protect(&config.identity.assertion.clone().unwrap_or_default().header);
    Ok(mapping)
}

/// The table of sessions.
fn table(config: &Config) -> Registry {
    let limits = &config.limits;
    let capacity = Capacity {
        sessions: limits.max_sessions,
        unauthenticated: limits.max_unauthenticated,
        unauthenticated_per_ip: limits.max_unauthenticated_per_ip,
    };
    Registry::with(capacity, context::habits(config))
}

/// A revoker that shares with the other replicas, where there is a Redis.
fn shared(
    revoker: Revoker,
    config: &Config,
    url: Option<&RedisUrl>,
) -> Result<(Arc<Revoker>, Option<Sharing>), BuildError> {
    let Some(url) = url else { return Ok((Arc::new(revoker), None)) };
    let wrong = |key: &str, what: String| BuildError::Config(format!("revocation.{key}: {what}"));
    let ca = config.revocation.redis_ca_file.as_ref().map(std::fs::read).transpose();
    let ca = ca.map_err(|error| wrong("redis_ca_file", error.to_string()))?;
    let redis = Redis::open(url, ca, REDIS_PATIENCE).map_err(|why| wrong("redis_url", why))?;
    let (others, taken) = mpsc::channel(sharing::WAITING);
    let revoker = Arc::new(revoker.telling(others));
    let sharing = Sharing::new(redis, &config.revocation.key_prefix, revoker.clone(), taken);
    Ok((revoker, Some(sharing)))
}

fn signer(config: &Config) -> Result<Option<Signer>, BuildError> {
    let Some(assertion) = &config.identity.assertion else { return Ok(None) };
    let wrong = |what: String| BuildError::Config(format!("identity.assertion.key_file: {what}"));
    let signer = match &assertion.key_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|e| wrong(format!("{}: {e}", path.display())))?;
            Signer::from_pem(&pem)
        }
        None => Signer::generate(),
    };
    signer.map(|s| Some(s.with_issuer(&assertion.issuer))).map_err(|e| wrong(e.to_string()))
}

impl Parts {
    /// How replicas share revocations, where they do.
    pub fn sharing(&self) -> Option<&Sharing> {
        self.sharing.as_ref()
    }

    /// Opens the doors.
    ///
    /// # Errors
    /// [`BuildError::Bind`].
    pub async fn bind(self) -> Result<App, BuildError> {
        let config = &self.context.config;
        let mut public = Vec::with_capacity(config.server.listen.len());
        for text in &config.server.listen {
            public.push(open(text).await?.0);
        }
        let private = match config.admin.listen.as_str() {
            "" => None,
            text => {
                let (door, listen) = open(text).await?;
                Some((door, listen.is_private()))
            }
        };
        Ok(App { parts: self, public, private })
    }
}

async fn open(text: &str) -> Result<(Door, Listen), BuildError> {
    let listen = address::listen(text).map_err(BuildError::Config)?;
    match Door::bind(&listen).await {
        Ok(door) => Ok((door, listen)),
        Err(error) => Err(BuildError::Bind { address: text.to_owned(), error }),
    }
}

impl App {
    /// Where clients are served.
    pub fn public_addresses(&self) -> Vec<String> {
        self.public.iter().map(Door::address).collect()
    }

    /// Where the operator is served.
    pub fn admin_address(&self) -> Option<String> {
        self.private.as_ref().map(|(door, _)| door.address())
    }

    /// What the engines share, for those who embed the gate.
    pub fn context(&self) -> Arc<Context> {
        self.parts.context.clone()
    }

    /// Serves until `drain` resolves, then lets everybody leave; returns early when `force` resolves.
    pub async fn run(self, drain: impl Future<Output = ()>, force: impl Future<Output = ()>) {
        let context = self.parts.context.clone();
        let stop = CancellationToken::new();
        let mut own = JoinSet::new();
        own.spawn(reaper::run(context.registry.clone(), context.clock.clone()));
        let mut passer = Passer::default();
        own.spawn(ebb::run(context.registry.clone(), move || passer.pass()));
        own.spawn(keeper::run(context.clone()));
        let revoker = context.revoker.clone();
        own.spawn(async move { revoker.run().await });
        own.spawn(note_the_time(context.clone(), self.parts.store.clone()));
        let _probe = context.config.socketio.probe.then(|| {
            let (path, patience) = (&context.config.socketio.path, context.config.upstream.connect_timeout);
            Probe::start(context.pool.clone(), path, context.timings.clone(), patience)
        });
        let stop_admin = CancellationToken::new();
        if let Some((door, loopback)) = self.private {
            tracing::info!(door = "admin", address = door.address(), "listening");
            let admin = admin(&context, self.parts.admin_token, loopback);
            own.spawn(private::run(Arc::new(admin), door, stop_admin.clone()));
        }
        if let Some(sharing) = self.parts.sharing {
            let mut level = sharing.level();
            own.spawn(sharing.run());
            let _late = timeout(FIRST_NEWS, level.wait_for(|level| *level)).await;
        }
        let mut doors = JoinSet::new();
        for door in self.public {
            tracing::info!(door = "public", address = door.address(), "listening");
            doors.spawn(public::run(context.clone(), door, self.parts.tls.clone(), stop.clone()));
        }
        drain.await;
        context.draining.store(true, Ordering::Relaxed);
        let patience = context.config.server.drain_timeout;
        tracing::info!(sessions = context.registry.len(), timeout = ?patience, "draining");
        stop.cancel();
        context.tasks.close();
        let leave = async {
            while doors.join_next().await.is_some() {}
            show_out(&context, patience / 2).await;
            context.tasks.wait().await;
        };
        tokio::select! {
            ended = timeout(patience, leave) => {
                if ended.is_err() {
                    tracing::warn!(sessions = context.registry.len(), "drain timed out");
                    let _ = timeout(TEAR_DOWN, context.tasks.wait()).await;
                }
            }
            () = force => tracing::warn!("forced"),
        }
        stop_admin.cancel();
        tell_others(&context).await;
        tracing::info!("stopped");
    }
}

/// What the private door knows.
fn admin(context: &Context, token: Option<SecretString>, loopback: bool) -> Admin {
    let readiness = Readiness {
        keys: context.keys.clone(),
        issuers: context.config.issuer.len(),
        pool: context.pool.clone(),
        registry: context.registry.clone(),
        draining: context.draining.clone(),
    };
    let config = &context.config;
    let vouchers = config.session_store.iter().map(|one| &one.issuer);
    let vouchers = vouchers.chain(config.introspection.iter().map(|one| &one.issuer));
    let vouchers = vouchers.chain(config.callout.iter().map(|one| &one.issuer)).map(String::as_str);
    let issuers = context.verifier.issuers().iter().map(|rules| rules.name().unwrap_or_default());
    let scope = Scope {
        issuers: issuers.chain(vouchers).map(Into::into).collect(),
        remember: config.revocation.remember.as_secs(),
    };
    Admin {
        readiness,
        metrics: context.metrics.clone(),
        revoker: context.revoker.clone(),
        scope,
        clock: context.clock.clone(),
        token,
        loopback,
    }
}

/// Asks sessions to leave, a few at a time: their clients come back at once, to somebody else.
async fn show_out(context: &Context, within: Duration) {
    let everybody = context.registry.all();
    let ticks = usize::try_from(within.as_millis() / TICK.as_millis().max(1)).unwrap_or(usize::MAX).max(1);
    let pace = everybody.len().div_ceil(ticks).max(LEAVE_PER_TICK);
    for group in everybody.chunks(pace) {
        group.iter().for_each(|entry| entry.end(Reason::Draining));
        sleep(TICK).await;
    }
}

/// What was revoked a moment ago must not be forgotten with this process.
async fn tell_others(context: &Context) {
    let told = async {
        while context.revoker.is_ahead() {
            sleep(TICK).await;
        }
    };
    if timeout(LAST_NEWS, told).await.is_err() {
        tracing::warn!("the other replicas were not told of everything that was revoked here");
    }
}

/// Keys may be used for `max_stale` from the first failed fetch on; the store has to know of it. And what was revoked is
/// forgotten in its time.
async fn note_the_time(context: Arc<Context>, store: KeyStore) {
    let mut every = interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        context.revoker.table().purge(context.clock.unix());
        for status in context.keys.status() {
            if status.failures > 0 {
                store.fail(status.index, context.clock.unix());
            }
        }
    }
}
