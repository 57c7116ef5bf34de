//! Names of headers: which look the same to a backend, and which carry nothing but what they are for.

/// Whether two header names look the same to some backend (P01): CGI and its heirs fold `-`, `_` and `.` into one.
pub fn same(one: &str, other: &str) -> bool {
    let fold = |byte: u8| match byte {
        b'_' | b'.' => b'-',
        other => other.to_ascii_lowercase(),
    };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| fold(a) == fold(b))
}

/// What all names become that look the same.
pub fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// Headers that mean something to HTTP, WebSocket or the path to the backend: an identity there would break or mislead.
const RESERVED: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
];

/// The reserved name that `name` folds to.
pub fn reserved(name: &str) -> Option<&'static str> {
    let folded = fold(name);
    if folded == "sec-websocket-protocol" {
        return Some("sec-websocket-protocol");
    }
    let families = ["sec-websocket-", "sec-fetch-", "x-forwarded-", "access-control-"];
    families
        .into_iter()
        .find(|family| folded.starts_with(family))
        .or_else(|| RESERVED.iter().copied().find(|reserved| *reserved == folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_found_in_every_spelling() {
        for name in ["Cookie", "content_length", "X.Forwarded.For", "x-forwarded-anything", "Sec-Fetch-Site", "VIA"] {
            assert!(reserved(name).is_some() && same(name, &fold(name)), "{name}");
        }
        assert_eq!(reserved("Sec_WebSocket-Protocol"), Some("sec-websocket-protocol"));
        for name in ["x-auth-subject", "cookies", "x-forwarded", "authorization-info", ""] {
            assert_eq!(reserved(name), None, "{name}");
        }
    }

    #[test]
    fn the_list_is_in_order_and_folded() {
        assert!(RESERVED.is_sorted() && RESERVED.iter().all(|name| fold(name) == *name));
    }
}
