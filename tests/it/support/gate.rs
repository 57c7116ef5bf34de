//! The gate, in this process, on a port of its own.

use crate::support::backend::Backend;
use crate::support::client::{Answer, Ask, Conn, Ws};
use crate::support::tokens::{AUDIENCE, ISSUER, SECRET};
use crate::support::{ms, within};
use siogate::app::{self, App};
use siogate::config::load::Loaded;
use siogate::config::model::Config;
use siogate::config::model::issuers::Issuer;
use siogate::config::model::vouchers::SessionStore;
use siogate::config::redis_url::RedisUrl;
use siogate::config::secret::Secrets;
use siogate::config::secret::vouchers::StoreSecrets;
use siogate::proxy::context::Context;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

static PROVIDER: Once = Once::new();

/// A running gate; it ends when dropped.
pub struct Gate {
    pub addr: String,
    pub admin: String,
    pub context: Arc<Context>,
    drain: oneshot::Sender<()>,
    task: AbortOnDropHandle<()>,
}

/// The configuration of most tests: one backend, one issuer by shared secret, no probe, no admin door.
pub fn config(urls: &[&str]) -> Config {
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    let mut config = Config::default();
    config.server.listen = vec!["127.0.0.1:0".into()];
    config.server.drain_timeout = Duration::from_secs(5);
    config.admin.listen = String::new();
    config.upstream.urls = urls.iter().map(ToString::to_string).collect();
    config.upstream.connect_timeout = Duration::from_secs(5);
    config.socketio.probe = false;
    config.issuer = vec![Issuer {
        issuer: Some(ISSUER.into()),
        audience: vec![AUDIENCE.into()],
        secret_env: Some("THE_SECRET".into()),
        algorithms: vec!["HS256".into()],
        leeway: Duration::ZERO,
        ..Issuer::default()
    }];
    config
}

/// What signs session cookies in these tests.
pub const SESSION_SECRETS: [&str; 2] = ["the new session secret of the application", "the old one, of last year"];

fn store_secrets(store: &SessionStore) -> StoreSecrets {
    let redis = store.redis_url.as_deref().map(|url| RedisUrl::parse(url).unwrap());
    StoreSecrets { cookie: SESSION_SECRETS.map(Into::into).to_vec(), redis }
}

impl Gate {
    /// In front of one backend.
    pub async fn of(backend: &Backend) -> Gate {
        Self::with(backend, |_| {}).await
    }

    /// The same with some of the configuration changed.
    pub async fn with(backend: &Backend, change: impl FnOnce(&mut Config)) -> Gate {
        let mut config = config(&[&backend.url]);
        change(&mut config);
        Self::start(config).await
    }

    pub async fn start(config: Config) -> Gate {
        let secret = |issuer: &Issuer| issuer.secret_env.as_ref().map(|_| SECRET.into()).into_iter().collect();
        let secrets = Secrets {
            issuers: config.issuer.iter().map(secret).collect(),
            admin_token: (!config.admin.token_env.is_empty()).then(|| "the admin's token".into()),
            revocation: config.revocation.redis_url.as_deref().map(|url| RedisUrl::parse(url).unwrap()),
            session_stores: config.session_store.iter().map(store_secrets).collect(),
            ..Secrets::default()
        };
        let loaded = Loaded { config, secrets, warnings: Vec::new() };
        let parts = app::build(loaded).unwrap_or_else(|e| panic!("{e}"));
        let app: App = parts.bind().await.unwrap();
        let addr = app.public_addresses().remove(0);
        let admin = app.admin_address().unwrap_or_default();
        let context = app.context();
        let (drain, drained) = oneshot::channel::<()>();
        let asked = async {
            if drained.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(app.run(asked, std::future::pending())));
        Gate { addr, admin, context, drain, task }
    }

    pub async fn conn(&self) -> Conn {
        Conn::open(&self.addr).await
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let mut conn = self.conn().await;
        conn.ask(ask).await
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.ask(Ask::get(target)).await
    }

    /// A WebSocket, or the answer that came instead.
    pub async fn ws(&self, ask: Ask) -> Result<Ws, Answer> {
        Ws::open(self.conn().await, ask).await
    }

    /// A WebSocket that has been given its OPEN.
    pub async fn session(&self, ask: Ask) -> (Ws, String) {
        let mut ws = self.ws(ask).await.unwrap_or_else(|answer| panic!("{answer:?}"));
        let open = ws.text().await;
        (ws, open)
    }

    pub async fn admin(&self, ask: Ask) -> Answer {
        Conn::open(&self.admin).await.ask(ask).await
    }

    /// Asks for the drain; the returned future resolves when the gate is down.
    pub fn drain(self) -> AbortOnDropHandle<()> {
        let _ = self.drain.send(());
        self.task
    }

    pub async fn stop(self) {
        within("the gate stops", self.drain()).await.unwrap();
    }
}

/// Everything fast: what otherwise takes seconds takes fractions of one.
pub fn hurried(config: &mut Config) {
    config.upstream.connect_timeout = ms(400);
    config.socketio.connect_deadline = ms(300);
    config.limits.header_timeout = ms(300);
    config.limits.body_timeout = ms(300);
}
