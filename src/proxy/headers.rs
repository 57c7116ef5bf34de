//! What is taken out of a client's headers, and what is put in, on the way to a backend.

use crate::auth::credential::Passed;
use crate::auth::identity::Identity;
use crate::protocol::forwarded::{self, Forwarded};
use crate::proxy::context::Context;
use crate::random;
use crate::telemetry::address;
use crate::upstream::head::DialHead;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write;
use std::net::IpAddr;

/// What a client may not have removed by naming it in `Connection`: it is what decisions rest on.
const KEPT: [&str; 7] =
    ["authorization", "cookie", "origin", "host", "content-length", "content-type", "x-forwarded-for"];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// What most clients send, and what no claim may be mapped to: looked up before anything is compared.
fn is_usual(name: &str) -> bool {
    matches!(name, "host" | "origin" | "cookie" | "authorization" | "accept" | "accept-encoding")
}

/// RFC 9110 section 7.6.1, and what older proxies made of it.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Rewritten for each WebSocket: its own handshake's business.
fn is_websockets(name: &str) -> bool {
    matches!(name, "sec-websocket-key" | "sec-websocket-version" | "sec-websocket-extensions" | "sec-websocket-accept")
}

/// Written by the gate alone, unless a trusted proxy did.
fn is_forwarding(name: &str) -> bool {
    matches!(name, "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-real-ip")
}

/// Where headers are written to.
pub trait Sink {
    /// Adds one.
    fn add(&mut self, name: &HeaderName, value: &HeaderValue);

    /// Adds one of the gate's own; a text that fits into no header is left out.
    fn add_text(&mut self, name: &HeaderName, text: &str);
}

impl Sink for HeaderMap {
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn add_text(&mut self, name: &HeaderName, text: &str) {
        if let Ok(value) = HeaderValue::from_str(text) {
            self.append(name, value);
        }
    }
}

impl Sink for DialHead {
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        DialHead::add(self, name, value);
    }

    fn add_text(&mut self, name: &HeaderName, text: &str) {
        DialHead::add_text(self, name, text);
    }
}

/// Who asks, and how.
#[derive(Clone)]
pub struct Peer {
    /// The other end of the connection.
    pub address: IpAddr,
    /// What trusted proxies say about the client.
    pub forwarded: Forwarded,
    /// The host that was asked for.
    pub authority: String,
    /// True where `address` is a trusted proxy.
    pub trusted: bool,
    /// True where the client speaks TLS, to the gate or to a trusted proxy.
    pub https: bool,
}

/// A client's request headers, made fit for a backend: nothing hop-by-hop, no credential but what is passed on,
/// nothing that only the gate may say.
pub fn for_upstream(context: &Context, client: &HeaderMap, peer: &Peer, passed: Passed) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(client.len() + 8);
    write_for_upstream(context, client, peer, passed, &mut out);
    out
}

/// The same, written to where they go on.
pub fn write_for_upstream(context: &Context, client: &HeaderMap, peer: &Peer, passed: Passed, out: &mut impl Sink) {
    let named = connection_tokens(client);
    let pass = |name: &HeaderName, value: &HeaderValue| {
        if may_pass(context, name, peer.trusted) && !named.contains(name) {
            out.add(name, value);
        }
    };
    context.rules.sources.without_credentials(client, passed, pass);
    add_forwarded(out, client, peer);
}

fn may_pass(context: &Context, name: &HeaderName, trusted: bool) -> bool {
    let text = name.as_str();
    if is_usual(text) {
        return true;
    }
    let folded: String;
    // `x_forwarded_for` is the same header to WSGI and CGI backends.
    let plain = if text.bytes().any(|byte| matches!(byte, b'_' | b'.')) {
        folded = text.replace(['_', '.'], "-");
        folded.as_str()
    } else {
        text
    };
    let traces = matches!(plain, "traceparent" | "tracestate");
    !(is_hop_by_hop(plain)
        || is_websockets(plain)
        || is_forwarding(plain)
        || forwarded::is_override(plain)
        || context.mapping.protects(text)
        || traces && !trusted)
}

/// The headers that `Connection` names, less those that are not a client's to remove.
fn connection_tokens(client: &HeaderMap) -> Vec<HeaderName> {
    let values = client.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values
        .flat_map(|v| v.split(','))
        .map(str::trim)
        // Those do not go on anyway.
        .filter(|token| !["upgrade", "keep-alive", "close"].iter().any(|usual| token.eq_ignore_ascii_case(usual)))
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !KEPT.contains(&name.as_str()))
        .collect()
}

fn add_forwarded(out: &mut impl Sink, client: &HeaderMap, peer: &Peer) {
    let mut chain = String::new();
    if peer.trusted {
        for value in client.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()) {
            let _ = write!(chain, "{value}, ");
        }
    }
    address::push(&mut chain, peer.address);
    out.add_text(&FORWARDED_PROTO, if peer.https { "https" } else { "http" });
    out.add_text(&FORWARDED_FOR, &chain);
    out.add_text(&FORWARDED_HOST, peer.forwarded.host.as_deref().unwrap_or(&peer.authority));
    if !(peer.trusted && client.contains_key(TRACE_PARENT))
        && let Some(trace) = traceparent()
    {
        out.add_text(&TRACE_PARENT, std::str::from_utf8(&trace).unwrap_or_default());
    }
}

/// A new trace (W3C Trace Context section 3.2).
fn traceparent() -> Option<[u8; 55]> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0_u8; 24];
    random::fill(&mut bytes).ok()?;
    let mut text = *b"00-________________________________-________________-01";
    let (trace, parent) = text.split_at_mut(36);
    let digits = trace.get_mut(3..35)?.chunks_exact_mut(2).chain(parent.get_mut(..16)?.chunks_exact_mut(2));
    for (pair, byte) in digits.zip(bytes) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    Some(text)
}

/// Says who it is: the mapped claims and the signed assertion.
pub fn add_identity(context: &Context, out: &mut impl Sink, identity: &Identity, session: &str) {
    context.mapping.each(identity, session, |name, text| out.add_text(name, text));
    let Some((signer, config)) = context.signer.as_ref().zip(context.config.identity.assertion.as_ref()) else {
        return;
    };
    let claims = context.mapping.claims(identity);
    let token = signer.sign(identity, session, &config.audience, &claims, context.clock.unix());
    if let (Ok(token), Ok(name)) = (token, HeaderName::try_from(config.header.as_str()))
        && let Ok(mut value) = HeaderValue::try_from(token)
    {
        value.set_sensitive(true);
        out.add(&name, &value);
    }
}

/// A backend's answer headers, made fit for a client.
pub fn for_client(upstream: &HeaderMap) -> HeaderMap {
    let named = connection_tokens(upstream);
    let mut out = HeaderMap::with_capacity(upstream.len());
    for (name, value) in upstream {
        let hop = is_hop_by_hop(name.as_str()) || is_websockets(name.as_str());
        if !hop && !named.contains(name) {
            out.append(name, value.clone());
        }
    }
    // RFC 9112 section 6.3: chunked overrides a length, which then must not go on.
    if upstream.contains_key(header::TRANSFER_ENCODING) {
        out.remove(header::CONTENT_LENGTH);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::header_name::reserved;

    #[test]
    fn p01_what_passes_unlooked_at_can_never_be_a_header_of_the_gates() {
        let names = ["host", "origin", "cookie", "authorization", "accept", "accept-encoding", "user-agent", "x-a"];
        let usual: Vec<_> = names.into_iter().filter(|name| is_usual(name)).collect();
        assert_eq!(usual.len(), 6);
        for text in usual {
            assert!(reserved(text).is_some(), "{text}");
            assert!(!is_hop_by_hop(text) && !is_websockets(text) && !is_forwarding(text), "{text}");
        }
    }

    #[test]
    fn a_new_trace_has_the_form_of_the_standard() {
        let (one, other) = (traceparent().unwrap(), traceparent().unwrap());
        assert_ne!(one, other);
        let parts: Vec<_> = std::str::from_utf8(&one).unwrap().split('-').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len(), parts[3]), ("00", 32, 16, "01"));
        assert!(one.iter().all(|byte| b"0123456789abcdef-".contains(byte)), "{one:?}");
    }
}
