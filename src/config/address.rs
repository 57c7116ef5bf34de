//! The forms in which a configuration writes addresses: of listeners, backends, key servers and pages.

use crate::config::problem::shown;
use http::Uri;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`; the host may be a name.
    Tcp {
        /// A name, or an address without brackets.
        host: String,
        /// 0: any free port.
        port: u16,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_private(&self) -> bool {
        match self {
            Listen::Tcp { host, .. } => is_loopback(host),
            Listen::Unix(_) => true,
        }
    }
}

/// Whether `host` (a name, or an address with or without brackets) is this machine.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

const LISTEN_FORMS: &str = "allowed: \"host:port\", such as \"127.0.0.1:8080\" or \"[::1]:8080\", or \"unix:/path\"";

/// Reads the address of a listener.
///
/// # Errors
/// A sentence with the value and what is allowed.
pub fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(Listen::Unix).map_err(|why| format!("{}: {why}", shown(text)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen::Tcp { host: address.ip().to_string(), port: address.port() });
    }
    let refused = || format!("{} is not an address to listen on; {LISTEN_FORMS}", shown(text));
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let port = decimal_port(port).ok_or_else(refused)?;
    if !is_host_name(host) {
        return Err(refused());
    }
    Ok(Listen::Tcp { host: host.to_string(), port })
}

/// A socket's path must be absolute, and must fit `sockaddr_un` with its closing NUL.
fn unix_path(path: &str) -> Result<PathBuf, String> {
    const LONGEST: usize = 107;
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("not an absolute path; allowed: such as \"unix:/run/siogate.sock\"".into());
    }
    if path.len() > LONGEST {
        return Err(format!("too long; allowed: at most {LONGEST} bytes of path"));
    }
    Ok(PathBuf::from(path))
}

/// Checks the URL of a backend: `http://host[:port]`, `https://host[:port]` or `unix:/path`.
///
/// # Errors
/// A sentence with the value and what is allowed.
pub fn backend(text: &str) -> Result<(), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(|_| ()).map_err(|why| format!("{}: {why}", shown(text)));
    }
    let uri = web(text, "allowed: \"http://host:port\", \"https://host:port\" or \"unix:/path\"")?;
    if uri.path() != "/" || text.contains('?') {
        return Err(format!("{} has a path or a query; allowed: scheme, host and port alone", shown(text)));
    }
    Ok(())
}

/// Checks the URL of keys or of an issuer: https, or http where `allow_http` or on this machine.
///
/// # Errors
/// A sentence with the value and what is allowed.
pub fn key_server(text: &str, allow_http: bool) -> Result<Uri, String> {
    let uri = web(text, "allowed: an https:// URL")?;
    let near = uri.host().is_some_and(is_loopback);
    if uri.scheme_str() == Some("http") && !near && !allow_http {
        return Err(format!(
            "{} would fetch keys over plain HTTP; allowed: https://, or http:// on loopback or with allow_http = true",
            shown(text)
        ));
    }
    Ok(uri)
}

/// What all web URLs here have in common: http or https, a sound host and port, no user, no fragment.
fn web(text: &str, allowed: &str) -> Result<Uri, String> {
    let refused = |why: &str| format!("{} {why}; {allowed}", shown(text));
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https") => {}
        Some(_) => return Err(refused("has another scheme than http or https")),
        None => return Err(refused("is not a URL")),
    }
    if text.contains('#') {
        return Err(refused("has a fragment"));
    }
    let uri: Uri = text.parse().map_err(|_| refused("is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| refused("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(refused("carries a user or password"));
    }
    authority_parts(authority.as_str()).map_err(refused)?;
    Ok(uri)
}

/// Splits `host[:port]`, the host as written.
fn authority_parts(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port.map(decimal_port) {
        None => None,
        Some(Some(port)) if port > 0 => Some(port),
        Some(_) => return Err("has no valid port"),
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let sound = match bracketed {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    if sound { Ok((host, port)) } else { Err("has no valid host") }
}

fn decimal_port(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// A DNS name or an IPv4 address. What ends in a number must be the latter: `10.0.0.256` is no name.
pub fn is_host_name(host: &str) -> bool {
    let labels: Vec<&str> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
    let sound = |label: &&str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let numeric = labels.last().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 254 && labels.iter().all(sound) && (!numeric || host.parse::<std::net::Ipv4Addr>().is_ok())
}

/// Checks an origin as a browser writes it: `scheme://host[:port]`.
///
/// # Errors
/// A sentence with the value and what is allowed.
pub fn origin(text: &str) -> Result<(), String> {
    let refused = |why: &str| {
        format!("{} {why}; allowed: \"scheme://host\" or \"scheme://host:port\", or \"*\" alone", shown(text))
    };
    let Some((scheme, rest)) = text.split_once("://") else { return Err(refused("is not an origin")) };
    let begins = scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    if !begins || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return Err(refused("is not an origin"));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(refused("has a path"));
    }
    if rest.contains('@') {
        return Err(refused("carries a user"));
    }
    if rest.contains('*') {
        return Err(refused("has a wildcard"));
    }
    authority_parts(rest).map_err(refused).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listeners_are_host_and_port_or_a_socket_path() {
        let tcp = |host: &str, port| Listen::Tcp { host: host.into(), port };
        assert_eq!(listen("127.0.0.1:8080"), Ok(tcp("127.0.0.1", 8080)));
        assert_eq!(listen("[::1]:0"), Ok(tcp("::1", 0)));
        assert_eq!(listen("localhost:80"), Ok(tcp("localhost", 80)));
        assert_eq!(listen("unix:/run/x.sock"), Ok(Listen::Unix("/run/x.sock".into())));
        for bad in [
            "",
            "8080",
            ":8080",
            "a",
            "a:",
            "a:b",
            "a:65536",
            "a:+80",
            "::1:80",
            "10.0.0.256:80",
            "http://a:1",
            "a b:1",
            "unix:",
            "unix:rel.sock",
            "unix:/run/",
            "[::1]",
            "a:80/",
            "*:80",
        ] {
            assert!(listen(bad).is_err(), "{bad}");
        }
        assert!(listen(&format!("unix:/{}", "x".repeat(200))).is_err());
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for near in ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LOCALHOST"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.nip.io", ""] {
            assert!(!is_loopback(far), "{far}");
        }
    }

    #[test]
    fn backends_have_a_scheme_a_host_and_a_port_alone() {
        for good in ["http://a:1", "https://a.example.com", "http://[::1]:3000", "unix:/run/a.sock", "http://a:1/"] {
            assert_eq!(backend(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a:1",
            "ws://a:1",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a/path",
            "http://a?x",
            "http://a#f",
            "http://u:secret@a",
            "unix:a.sock",
            "http://a b",
            "http://[::1",
            "http://a:",
            "http:/a",
            "http://10.0.0.300",
        ] {
            let error = backend(bad).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for good in ["https://a/jwks?x=1", "http://127.0.0.1:1/jwks", "http://localhost/jwks", "http://[::1]:1/"] {
            assert!(key_server(good, false).is_ok(), "{good}");
        }
        assert!(key_server("http://a/jwks", false).is_err());
        assert!(key_server("http://a/jwks", true).is_ok());
        assert!(key_server("ftp://a/jwks", true).is_err());
    }

    #[test]
    fn p19_origins_have_no_path_no_wildcard_and_are_never_null() {
        for good in ["https://a.example.com", "http://localhost:3000", "capacitor://localhost", "http://[::1]:1"] {
            assert_eq!(origin(good), Ok(()), "{good}");
        }
        for bad in [
            "null",
            "",
            "a.example.com",
            "https://a/",
            "https://a/x",
            "https://*.a.com",
            "https://u@a",
            "https://a:0",
            "//a",
            "https://",
            "https://a?x",
            "1a://b",
            "https://a b",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
            let _ = (listen(&text), backend(&text), key_server(&text, true), origin(&text));
        }
    }
}
