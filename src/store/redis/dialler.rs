//! How a Redis is dialled: one server, the master that Sentinels name, or a cluster.

use crate::config::redis_url::{RedisUrl, Servers};
use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::{ClusterClient, ClusterClientBuilder};
use ::redis::cluster_async::ClusterConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates, TlsMode,
};
use secrecy::ExposeSecret;
use std::time::Duration;
use tokio::sync::Mutex;

pub(super) enum Dialler {
    One(Client),
    Sentinel(Mutex<SentinelClient>),
    Cluster(ClusterClient, Vec<Client>),
}

#[derive(Clone)]
pub(super) enum Line {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Dialler {
    /// Connects to nothing yet.
    pub(super) fn new(url: &RedisUrl, ca: Option<Vec<u8>>, timeout: Duration) -> Result<Self, RedisError> {
        let certificates = ca.filter(|_| url.tls).map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let mut settings = RedisConnectionInfo::default().set_db(url.db);
        if let Some(username) = &url.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &url.password {
            settings = settings.set_password(password.expose_secret());
        }
        let plan = Plan { url, certificates, settings, tcp: TcpSettings::default().set_nodelay(true), timeout };
        match &url.servers {
            Servers::One(host, port) => plan.client(plan.address(host, *port)).map(Self::One),
            Servers::Unix(path) => plan.client(ConnectionAddr::Unix(path.clone())).map(Self::One),
            Servers::Sentinel(hosts, master) => plan.sentinel(hosts, master),
            Servers::Cluster(hosts) => plan.cluster(hosts),
        }
    }

    pub(super) async fn dial(&self, patience: Duration) -> Result<Line, RedisError> {
        // The bound is ours, for the whole of it.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(None);
        match self {
            Self::One(client) => client.get_multiplexed_async_connection_with_config(&config).await.map(Line::One),
            Self::Sentinel(client) => {
                let mut client = client.lock().await;
                client.get_async_connection_with_config(&config).await.map(Line::One)
            }
            Self::Cluster(client, _) => client.get_async_connection().await.map(Line::Cluster),
        }
    }
}

/// What all connections have in common.
struct Plan<'a> {
    url: &'a RedisUrl,
    certificates: Option<TlsCertificates>,
    settings: RedisConnectionInfo,
    tcp: TcpSettings,
    timeout: Duration,
}

impl Plan<'_> {
    fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        match self.url.tls {
            true => ConnectionAddr::TcpTls { host: host.into(), port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host.into(), port),
        }
    }

    fn client(&self, address: ConnectionAddr) -> Result<Client, RedisError> {
        let info = address.into_connection_info()?;
        let info = info.set_redis_settings(self.settings.clone()).set_tcp_settings(self.tcp.clone());
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    fn sentinel(self, hosts: &[(String, u16)], master: &str) -> Result<Dialler, RedisError> {
        let addresses = hosts.iter().map(|(host, port)| self.address(host, *port));
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
            .set_client_to_redis_db(self.url.db)
            .set_client_to_redis_tcp_settings(self.tcp.clone());
        if self.url.tls {
            builder =
                builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = self.certificates {
            builder = builder
                .set_client_to_sentinel_certificates(certificates.clone())
                .set_client_to_redis_certificates(certificates);
        }
        if let Some(username) = &self.url.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &self.url.password {
            builder = builder.set_client_to_redis_password(password.expose_secret());
        }
        if let Some(username) = &self.url.sentinel.username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = &self.url.sentinel.password {
            builder = builder.set_client_to_sentinel_password(password.expose_secret());
        }
        Ok(Dialler::Sentinel(Mutex::new(builder.build()?)))
    }

    fn cluster(self, hosts: &[(String, u16)]) -> Result<Dialler, RedisError> {
        let nodes = hosts.iter().map(|(host, port)| self.client(self.address(host, *port)));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let infos = nodes.iter().map(|node| node.get_connection_info().clone());
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(self.timeout)
            .response_timeout(self.timeout)
            .tcp_settings(self.tcp.clone())
            .retries(3);
        if let Some(certificates) = self.certificates {
            builder = builder.certs(certificates);
        }
        Ok(Dialler::Cluster(builder.build()?, nodes))
    }
}
