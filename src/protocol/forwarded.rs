//! The client's address, scheme and host, as far as trusted proxies vouch for them.

use crate::protocol::target;
use http::header::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";

/// Headers by which some backends route again, after the gate has judged the request line.
const OVERRIDES: [&str; 5] =
    ["x-forwarded-uri", "x-original-uri", "x-original-url", "x-original-method", "x-rewrite-url"];

/// Who is on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The nearest address that is not a trusted proxy.
    pub client: IpAddr,
    /// Whether the client spoke TLS; `None`: no trusted proxy says.
    pub proto_https: Option<bool>,
    /// The host that the client asked for; `None`: no trusted proxy says.
    pub host: Option<String>,
}

/// Reads the forwarding headers, which count for nothing unless `peer` is trusted.
///
/// Proxies append, so the list of addresses is walked from its end: an entry is believed where
/// the one behind it is a trusted proxy. What an attacker wrote himself lies further left.
pub fn resolve(peer: IpAddr, trusted: &[IpNet], headers: &HeaderMap) -> Forwarded {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return Forwarded { client, proto_https: None, host: None };
    }
    for entry in from_the_end(headers, FOR) {
        let Some(address) = parse_address(entry) else { break };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    let proto_https = from_the_end(headers, PROTO).next().and_then(|proto| match proto {
        _ if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => Some(true),
        _ if proto.eq_ignore_ascii_case("http") || proto.eq_ignore_ascii_case("ws") => Some(false),
        _ => None,
    });
    let host = from_the_end(headers, HOST).next().filter(|host| target::is_authority(host));
    Forwarded { client, proto_https, host: host.map(str::to_ascii_lowercase) }
}

/// Whether a header would make a backend act on another target than the one judged.
///
/// Backends that pass headers as environment variables fold `_`, `.` and `-` together.
pub fn is_override(name: &str) -> bool {
    let same = |over: u8, byte: u8| over == byte || (over == b'-' && b"_.".contains(&byte));
    OVERRIDES.iter().any(|over| over.len() == name.len() && over.bytes().zip(name.bytes()).all(|(o, n)| same(o, n)))
}

/// The comma-separated entries of all headers of this name, last first. Stops at what is not ASCII text.
fn from_the_end<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(|line| line.to_str().unwrap_or_default().rsplit(',').map(str::trim))
}

/// An address, with or without a port, IPv6 with or without brackets.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => entry.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip())),
    };
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const PROXY: &str = "10.0.0.1";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn client(peer: &str, trusted: &[&str], pairs: &[(&'static str, &str)]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        resolve(peer.parse().unwrap(), &trusted, &headers(pairs)).client.to_string()
    }

    #[test]
    fn p41_nothing_is_believed_from_an_untrusted_peer() {
        let pairs = [(FOR, "1.1.1.1"), (PROTO, "https"), (HOST, "evil.example")];
        assert_eq!(client("9.9.9.9", &[], &pairs), "9.9.9.9");
        assert_eq!(client("9.9.9.9", &["10.0.0.0/8"], &pairs), "9.9.9.9");
        let resolved = resolve("9.9.9.9".parse().unwrap(), &[], &headers(&pairs));
        assert_eq!((resolved.proto_https, resolved.host), (None, None));
    }

    #[test]
    fn p41_the_list_is_walked_from_the_right_to_the_first_stranger() {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        for (list, expected) in [
            (&[][..], PROXY),
            (&["1.1.1.1"], "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1 ,10.2.3.4"], "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1", "10.2.3.4"], "1.1.1.1"),
            (&["10.2.3.4", "1.1.1.1"], "1.1.1.1"),
            (&["10.9.9.9, 10.2.3.4"], "10.9.9.9"),
            (&["1.1.1.1:4711"], "1.1.1.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1, fd00::1"], "2001:db8::1"),
            (&["::ffff:1.1.1.1"], "1.1.1.1"),
            (&["1.1.1.1, unknown"], PROXY),
            (&["1.1.1.1, "], PROXY),
            (&["1.1.1.1, _hidden, 10.0.0.7"], "10.0.0.7"),
            (&["1.1.1.1", "\u{e9}"], PROXY),
            (&["[1.1.1.1]"], PROXY),
            (&["1.1.1.1:99999"], PROXY),
        ] {
            let pairs: Vec<_> = list.iter().map(|value| (FOR, *value)).collect();
            assert_eq!(client(PROXY, &trusted, &pairs), expected, "{list:?}");
        }
    }

    #[test]
    fn p41_mapped_peers_are_the_address_they_map() {
        assert_eq!(client("::ffff:10.0.0.1", &["10.0.0.0/8"], &[(FOR, "1.1.1.1")]), "1.1.1.1");
        assert_eq!(client("::ffff:9.9.9.9", &["10.0.0.0/8"], &[(FOR, "1.1.1.1")]), "9.9.9.9");
    }

    #[test]
    fn p41_other_forwarding_headers_count_for_nothing() {
        let pairs = [("forwarded", "for=1.1.1.1"), ("x-real-ip", "1.1.1.1"), ("x-client-ip", "1.1.1.1")];
        assert_eq!(client(PROXY, &["10.0.0.0/8"], &pairs), PROXY);
    }

    #[test]
    fn scheme_and_host_are_the_nearest_proxys() {
        let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
        let read = |pairs: &[(&'static str, &str)]| {
            let resolved = resolve(PROXY.parse().unwrap(), &trusted, &headers(pairs));
            (resolved.proto_https, resolved.host)
        };
        assert_eq!(read(&[]), (None, None));
        let app = Some("app.example:8443".to_owned());
        assert_eq!(read(&[(PROTO, "HTTPS"), (HOST, "App.example:8443")]), (Some(true), app.clone()));
        assert_eq!(read(&[(PROTO, "https, http"), (HOST, "evil, app.example:8443")]), (Some(false), app));
        assert_eq!(read(&[(PROTO, "wss"), (PROTO, "ws")]).0, Some(false));
        assert_eq!(read(&[(PROTO, "gopher"), (HOST, "a b")]), (None, None));
        assert_eq!(read(&[(HOST, "user@app.example")]).1, None);
    }

    #[test]
    fn p42_headers_that_name_another_target_are_removed() {
        let map = headers(&[
            ("x-forwarded-uri", "/admin"),
            ("x-original-url", "/admin"),
            ("x-original-url", "/admin2"),
            ("x-rewrite-url", "/admin"),
            ("x_original_url", "/admin"),
            ("x-forwarded_uri", "/admin"),
            ("x.forwarded.uri", "/admin"),
            ("x-original-uri", "/admin"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-original", "kept"),
        ]);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).filter(|name| !is_override(name)).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-forwarded-for", "x-original"]);
    }

    proptest! {
        #[test]
        fn p41_the_last_stranger_is_the_client_whatever_stands_before(junk in "[ -~]{0,60}") {
            let list = format!("{junk},1.1.1.1, 10.7.7.7");
            prop_assert_eq!(client(PROXY, &["10.0.0.0/8"], &[(FOR, &list)]), "1.1.1.1");
        }

        #[test]
        fn reading_never_panics(value in proptest::collection::vec(0x20_u8..=0xff, 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut map = HeaderMap::new();
                for name in [FOR, PROTO, HOST] {
                    map.insert(name, value.clone());
                }
                let trusted: [IpNet; 1] = ["0.0.0.0/0".parse().unwrap()];
                let _ = resolve(PROXY.parse().unwrap(), &trusted, &map);
            }
        }
    }
}
