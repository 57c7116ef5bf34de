//! Addresses as an operator writes them, checked once and taken apart.

use http::{HeaderValue, Uri};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address that needs no name service.
    Ip(SocketAddr),
    /// A host name, looked up for each connection.
    Name(String, u16),
    /// A Unix domain socket.
    Unix(PathBuf),
}

/// Scheme, host and port: what is needed for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub address: Address,
    /// TLS over it.
    pub tls: bool,
    /// The host without port and brackets, for certificates.
    pub host: String,
    /// What a `Host` header says, unless the caller knows better.
    pub authority: HeaderValue,
}

/// The address of one resource, for instance of a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The server.
    pub target: Target,
    /// Path and query, beginning with `/`.
    pub path_and_query: String,
    /// The address as it was written.
    pub text: String,
}

/// Why an address cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {problem}")]
pub struct TargetError {
    text: String,
    problem: &'static str,
}

impl TargetError {
    fn new(text: &str, problem: &'static str) -> Self {
        // Not the whole of it: the text may hold a password or be a megabyte from a discovery document.
        let text = text.split('@').next_back().unwrap_or_default().chars().take(200).collect();
        Self { text, problem }
    }
}

impl Target {
    /// Reads a backend's address: `http://host[:port]`, `https://host[:port]` or `unix:/path`.
    ///
    /// # Errors
    /// Where it is anything else, and where it names a path, a query or a user.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(TargetError::new(text, "a Unix socket needs an absolute path, such as unix:/run/app.sock"));
            }
            return Ok(Self {
                address: Address::Unix(PathBuf::from(path)),
                tls: false,
                host: "localhost".into(),
                authority: HeaderValue::from_static("localhost"),
            });
        }
        let (target, uri) = split(text)?;
        if uri.path_and_query().is_some_and(|p| p.as_str() != "/") {
            return Err(TargetError::new(text, "a backend is scheme, host and port only, without a path or query"));
        }
        Ok(target)
    }

    /// Is this machine the only one that can answer? `localhost` counts, its addresses are checked when connecting.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.address {
            Address::Ip(address) => address.ip().is_loopback(),
            Address::Name(name, _) => name.eq_ignore_ascii_case("localhost"),
            Address::Unix(_) => true,
        }
    }
}

impl Location {
    /// Reads the address of a key server's resource. Plain HTTP only to this machine, unless `allow_http`.
    ///
    /// # Errors
    /// Where the address is not an absolute http(s) one or the scheme is not allowed.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, TargetError> {
        let (target, uri) = split(text)?;
        if !target.tls && !allow_http && !target.is_loopback() {
            return Err(TargetError::new(text, "plain http is for loopback addresses only, unless allow_http is set"));
        }
        let path_and_query = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let path_and_query =
            if path_and_query.starts_with('/') { path_and_query.to_string() } else { format!("/{path_and_query}") };
        Ok(Self { target, path_and_query, text: text.to_string() })
    }
}

/// Scheme, host and port of an http(s) address.
fn split(text: &str) -> Result<(Target, Uri), TargetError> {
    let fail = |problem| TargetError::new(text, problem);
    // `Uri` drops fragments without a word.
    if text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(fail("only visible ASCII without a fragment"));
    }
    let uri: Uri =
        text.parse().map_err(|_| fail("not an address; http://host:port, https://host:port or unix:/path"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(fail("the scheme must be http, https or unix")),
    };
    let authority = uri.authority().ok_or_else(|| fail("a host is missing"))?;
    if authority.as_str().contains('@') {
        return Err(fail("no user or password in an address"));
    }
    let default = if tls { 443 } else { 80 };
    // Not `Authority::port`, which says "none" to a port that is too large.
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => None,
        Some(port) => Some(port.strip_prefix(':').and_then(number).ok_or_else(|| fail("a bad port"))?),
        None => return Err(fail("a bad host")),
    };
    let bracketed = authority.host();
    let host = bracketed.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(bracketed);
    let address = match host.parse::<IpAddr>() {
        Ok(ip) => Address::Ip(SocketAddr::new(ip, port.unwrap_or(default))),
        Err(_) if host.is_empty() || host != bracketed => return Err(fail("a bad host")),
        Err(_) => Address::Name(host.to_ascii_lowercase(), port.unwrap_or(default)),
    };
    let shown = match port.filter(|p| *p != default) {
        Some(port) => format!("{bracketed}:{port}"),
        None => bracketed.to_string(),
    };
    let authority = HeaderValue::try_from(shown).map_err(|_| fail("a bad host"))?;
    Ok((Target { address, tls, host: host.to_ascii_lowercase(), authority }, uri))
}

fn number(port: &str) -> Option<u16> {
    port.parse().ok().filter(|p| *p > 0 && !port.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text).unwrap()
    }

    #[test]
    fn an_ip_literal_needs_no_name_service() {
        assert_eq!(target("http://127.0.0.1:3000").address, Address::Ip("127.0.0.1:3000".parse().unwrap()));
        assert_eq!(target("http://[::1]:3000/").address, Address::Ip("[::1]:3000".parse().unwrap()));
        assert_eq!(target("http://[::1]:3000/").authority, "[::1]:3000");
        assert_eq!(target("https://[::1]").host, "::1");
    }

    #[test]
    fn default_ports_are_known_and_left_out_of_the_host_header() {
        assert_eq!(target("http://app").address, Address::Name("app".into(), 80));
        assert_eq!(target("https://App.Example").address, Address::Name("app.example".into(), 443));
        assert_eq!(target("https://app:443").authority, "app");
        assert_eq!(target("http://app:443").authority, "app:443");
    }

    #[test]
    fn a_unix_socket_is_an_absolute_path() {
        assert_eq!(target("unix:/run/app.sock").address, Address::Unix("/run/app.sock".into()));
        assert!(Target::parse("unix:app.sock").is_err());
        assert!(Target::parse("unix:").is_err());
    }

    #[test]
    fn addresses_with_more_than_a_backend_needs_are_refused() {
        for text in [
            "",
            "app",
            "app:3000",
            "ftp://app",
            "http://",
            "http://user:pw@app",
            "http://app/path",
            "http://app/?q",
            "http://app/#f",
            "http://app:0",
            "http://app:99999",
            "http://app:",
            "http://a b",
            "http://app\r\nx: y",
            "http://[::1",
            "http://[app]:1",
            "//app",
            "http:/app",
            "ws://app",
            "http://\u{fc}",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        let error = Target::parse("http://user:hunter2@app").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn j29_plain_http_key_servers_are_loopback_only() {
        assert!(Location::parse("https://login.example/keys", false).is_ok());
        assert!(Location::parse("http://127.0.0.1:1/keys", false).is_ok());
        assert!(Location::parse("http://[::1]:1/keys", false).is_ok());
        assert!(Location::parse("http://localhost/keys", false).is_ok());
        for text in ["http://169.254.169.254/", "http://login.example/keys", "http://localhost.evil/", "file:///etc"] {
            assert!(Location::parse(text, false).is_err(), "{text}");
        }
        assert!(Location::parse("http://login.example/keys", true).is_ok());
    }

    #[test]
    fn a_location_keeps_path_and_query() {
        let location = Location::parse("https://h/a/b?c=d", false).unwrap();
        assert_eq!(location.path_and_query, "/a/b?c=d");
        assert_eq!(Location::parse("https://h", false).unwrap().path_and_query, "/");
        assert_eq!(Location::parse("https://h?x", false).unwrap().path_and_query, "/?x");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(http|https|unix|)(:|://|)[ -~\\u{e9}]{0,30}") {
            let _ = Target::parse(&text);
            if let Ok(location) = Location::parse(&text, true) {
                proptest::prop_assert!(location.path_and_query.starts_with('/'));
            }
        }
    }
}
