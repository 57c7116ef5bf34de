//! The address of a Redis: one server, a socket, a Sentinel's choice or a cluster, in one line.

use crate::config::address::is_host_name;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use std::net::Ipv6Addr;
use std::path::PathBuf;

const FORMS: &str = "allowed: redis://[user:password@]host[:port][/db], rediss:// for TLS, unix:/path, \
     redis+sentinel://host,host/master[/db][?sentinel_username=...&sentinel_password=...] or \
     redis+cluster://host,host (also rediss+sentinel, rediss+cluster)";

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Which servers answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One of them.
    One(String, u16),
    /// One of them, on this machine.
    Unix(PathBuf),
    /// Whoever the Sentinels say is the master of that name.
    Sentinel(Vec<(String, u16)>, String),
    /// A cluster, by some of its nodes.
    Cluster(Vec<(String, u16)>),
}

/// A Redis as an operator names it. `Debug` does not show the password.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    /// Where.
    pub servers: Servers,
    /// TLS to all of them.
    pub tls: bool,
    /// Where the server knows users.
    pub username: Option<String>,
    /// What the server asks for.
    pub password: Option<SecretString>,
    /// The database; a cluster has only 0.
    pub db: i64,
    /// What the Sentinels themselves ask for, which know nothing of the user and password above.
    pub sentinel: Login,
}

/// Who the gate is to a server.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Where the server knows users.
    pub username: Option<String>,
    /// What the server asks for.
    pub password: Option<SecretString>,
}

impl RedisUrl {
    /// Reads one of the forms.
    ///
    /// # Errors
    /// A sentence that says what is allowed; it repeats nothing that could be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = |why: &str| format!("{why}; {FORMS}");
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refused("holds a blank or something else than ASCII"));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::socket(path).map_err(refused);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("is not the address of a Redis"))?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => return Err(refused("has an unknown scheme")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if rest.contains('#') || query.contains('#') || (kind != "sentinel" && text.contains('?')) {
            return Err(refused("has a query or a fragment"));
        }
        let sentinel = Login::in_query(query).map_err(refused)?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = place.rsplit_once('@').map_or((None, place), |(user, hosts)| (Some(user), hosts));
        let path: Vec<&str> = path.trim_end_matches('/').split('/').filter(|part| !part.is_empty()).collect();
        let (servers, db) = match (kind, path.as_slice()) {
            ("", db @ ([] | [_])) => {
                let (host, port) = one(hosts, PORT).map_err(refused)?;
                (Servers::One(host, port), number(db.first()).map_err(refused)?)
            }
            ("sentinel", [master, db @ ..]) if db.len() < 2 => {
                let hosts = list(hosts, SENTINEL_PORT).map_err(refused)?;
                let master = decoded(master).map_err(refused)?;
                (Servers::Sentinel(hosts, master), number(db.first()).map_err(refused)?)
            }
            ("cluster", []) => (Servers::Cluster(list(hosts, PORT).map_err(refused)?), 0),
            ("" | "sentinel" | "cluster", _) => return Err(refused("has an unexpected path")),
            _ => return Err(refused("has an unknown scheme")),
        };
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            None => (None, None),
            Some((name, password)) => (
                Some(decoded(name).map_err(refused)?).filter(|name| !name.is_empty()),
                Some(decoded(password).map_err(refused)?).filter(|p| !p.is_empty()).map(SecretString::from),
            ),
        };
        if username.is_some() && password.is_none() {
            return Err(refused("names a user without a password"));
        }
        Ok(Self { servers, tls, username, password, db, sentinel })
    }

    fn socket(path: &str) -> Result<Self, &'static str> {
        // Also the form of URLs, `unix:///run/redis.sock`.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.ends_with('/') {
            return Err("is not an absolute path");
        }
        let servers = Servers::Unix(path.into());
        Ok(Self { servers, tls: false, username: None, password: None, db: 0, sentinel: Login::default() })
    }

    /// Whether the address is a secret.
    pub fn has_password(&self) -> bool {
        self.password.is_some() || self.sentinel.password.is_some()
    }

    /// For the log: where, without user and password.
    pub fn shown(&self) -> String {
        let joined = |hosts: &[(String, u16)]| {
            hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",")
        };
        match &self.servers {
            Servers::One(host, port) => format!("{host}:{port}"),
            Servers::Unix(path) => format!("unix:{}", path.display()),
            Servers::Sentinel(hosts, master) => format!("{}/{master}", joined(hosts)),
            Servers::Cluster(hosts) => joined(hosts),
        }
    }
}

impl Login {
    fn in_query(query: &str) -> Result<Self, &'static str> {
        let (mut username, mut password) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "sentinel_username" => &mut username,
                "sentinel_password" => &mut password,
                _ => return Err("has an unknown parameter"),
            };
            if value.is_empty() || place.replace(decoded(value)?).is_some() {
                return Err("has a parameter twice or empty");
            }
        }
        if username.is_some() && password.is_none() {
            return Err("names a user of the Sentinels without a password");
        }
        Ok(Self { username, password: password.map(SecretString::from) })
    }
}

fn decoded(text: &str) -> Result<String, &'static str> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| "is not UTF-8")
}

fn number(db: Option<&&str>) -> Result<i64, &'static str> {
    db.map_or(Ok(0), |db| db.parse::<u16>().map(i64::from).map_err(|_| "names no number of a database"))
}

fn list(hosts: &str, default: u16) -> Result<Vec<(String, u16)>, &'static str> {
    hosts.split(',').map(|host| one(host, default)).collect()
}

fn one(host: &str, default: u16) -> Result<(String, u16), &'static str> {
    let port =
        |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0 && !text.starts_with('+')).ok_or("has a bad port");
    if let Some(rest) = host.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or("has a bad host")?;
        ip.parse::<Ipv6Addr>().map_err(|_| "has a bad host")?;
        let port = match rest.strip_prefix(':') {
            Some(text) => port(text)?,
            None if rest.is_empty() => default,
            None => return Err("has a bad host"),
        };
        return Ok((ip.to_owned(), port));
    }
    let (name, port) = match host.split_once(':') {
        Some((name, text)) => (name, port(text)?),
        None => (host, default),
    };
    if is_host_name(name) { Ok((name.to_owned(), port)) } else { Err("has a bad host") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn servers(text: &str) -> Servers {
        RedisUrl::parse(text).unwrap().servers
    }

    #[test]
    fn one_server_a_socket_sentinels_and_a_cluster() {
        let host = |name: &str, port| (name.to_owned(), port);
        assert_eq!(servers("redis://redis"), Servers::One("redis".into(), 6379));
        assert_eq!(servers("rediss://r.example.com:7000/"), Servers::One("r.example.com".into(), 7000));
        assert_eq!(servers("redis://[::1]:7"), Servers::One("::1".into(), 7));
        assert_eq!(servers("unix:/run/redis.sock"), Servers::Unix("/run/redis.sock".into()));
        assert_eq!(servers("unix:///run/redis.sock"), Servers::Unix("/run/redis.sock".into()));
        let sentinels = vec![host("a", 26379), host("b", 5)];
        assert_eq!(servers("redis+sentinel://a,b:5/mymaster"), Servers::Sentinel(sentinels, "mymaster".into()));
        assert_eq!(servers("rediss+cluster://a,b:5"), Servers::Cluster(vec![host("a", 6379), host("b", 5)]));
    }

    #[test]
    fn database_user_and_password_are_read() {
        let url = RedisUrl::parse("rediss://me:p%40ss%2f@redis:1/3").unwrap();
        assert!(url.tls && url.db == 3 && url.username.as_deref() == Some("me"));
        assert_eq!(url.password.as_ref().map(ExposeSecret::expose_secret), Some("p@ss/"));
        assert_eq!(RedisUrl::parse("redis+sentinel://:pw@a/m/2").unwrap().db, 2);
        assert!(!format!("{url:?} {}", url.shown()).contains("p@ss"));
    }

    #[test]
    fn sentinels_may_have_a_user_and_a_password_of_their_own() {
        let of = |query: &str| RedisUrl::parse(&format!("redis+sentinel://me:data@a,b/m/2?{query}")).unwrap();
        let url = of("sentinel_username=watch%26er&sentinel_password=p%40ss%3d");
        assert_eq!((url.db, url.username.as_deref()), (2, Some("me")));
        assert_eq!(url.password.as_ref().map(ExposeSecret::expose_secret), Some("data"));
        assert_eq!(url.sentinel.username.as_deref(), Some("watch&er"));
        assert_eq!(url.sentinel.password.as_ref().map(ExposeSecret::expose_secret), Some("p@ss="));
        assert!(!format!("{url:?} {}", url.shown()).contains("p@ss"));
        let alone = RedisUrl::parse("redis+sentinel://a/m?sentinel_password=x").unwrap();
        assert!(alone.has_password() && alone.password.is_none() && alone.sentinel.username.is_none());
        // Neither goes to those whom the other is for.
        assert!(RedisUrl::parse("redis+sentinel://:x@a/m").unwrap().sentinel.password.is_none());
        assert!(!RedisUrl::parse("redis+sentinel://a/m").unwrap().has_password());
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for bad in [
            "",
            "redis",
            "redis:6379",
            "http://redis",
            "redis://",
            "redis://hunter2@",
            "redis://hunter2@redis",
            "redis://a/x",
            "redis://a/1/2",
            "redis://a:0",
            "redis://a:99999",
            "redis://a,b",
            "redis://a?hunter2",
            "redis://a#insecure",
            "redis+sentinel://a",
            "redis://a?sentinel_password=hunter2",
            "redis+cluster://a?sentinel_password=hunter2",
            "redis+sentinel://a/m?password=hunter2",
            "redis+sentinel://a/m?hunter2",
            "redis+sentinel://a/m?sentinel_username=hunter2",
            "redis+sentinel://a/m?sentinel_password=",
            "redis+sentinel://a/m?sentinel_password=hunter2&sentinel_password=hunter2",
            "redis+sentinel://a/m?sentinel_password=hunter2#x",
            "redis+sentinel://a/m?sentinel_password=%ff",
            "redis+cluster://a/1",
            "redis+x://a",
            "unix:redis.sock",
            "unix:/run/",
            "redis://a b",
        ] {
            let why = RedisUrl::parse(bad).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(redis|rediss|unix)?(\\+sentinel|\\+cluster)?:?/{0,3}\\PC{0,30}") {
            let _ = RedisUrl::parse(&text);
        }
    }
}
