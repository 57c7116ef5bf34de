//! What is taken out of a client's headers, and what is put in, on the way to a backend.

use crate::auth::identity::Identity;
use crate::protocol::forwarded::{self, Forwarded};
use crate::proxy::context::Context;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write;
use std::net::IpAddr;

/// RFC 9110 section 7.6.1, and what older proxies made of it.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// What a client may not have removed by naming it in `Connection`: it is what decisions rest on.
const KEPT: [&str; 7] =
    ["authorization", "cookie", "origin", "host", "content-length", "content-type", "x-forwarded-for"];

/// Rewritten for each WebSocket: its own handshake's business.
const WEBSOCKET: [&str; 4] =
    ["sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-accept"];

/// Written by the gate alone, unless a trusted proxy did.
const FORWARDED: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"];

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

/// A client's request headers, made fit for a backend: nothing hop-by-hop, no credential, nothing
/// that only the gate may say.
pub fn for_upstream(context: &Context, client: &HeaderMap, peer: &Peer) -> HeaderMap {
    let named = connection_tokens(client);
    let mut out = HeaderMap::with_capacity(client.len() + 8);
    for (name, value) in client {
        if may_pass(context, name, peer.trusted) && !named.contains(name) {
            out.append(name, value.clone());
        }
    }
    forwarded::strip_overrides(&mut out);
    if !context.rules.forward {
        context.rules.sources.strip_headers(&mut out);
    }
    add_forwarded(&mut out, client, peer);
    out
}

fn may_pass(context: &Context, name: &HeaderName, trusted: bool) -> bool {
    let text = name.as_str();
    let folded: String;
    // `x_forwarded_for` is the same header to WSGI and CGI backends.
    let plain = if text.contains(['_', '.']) {
        folded = text.replace(['_', '.'], "-");
        folded.as_str()
    } else {
        text
    };
    !(HOP_BY_HOP.contains(&plain)
        || WEBSOCKET.contains(&plain)
        || FORWARDED.contains(&plain)
        || context.mapping.protects(text)
        || (plain == "traceparent" || plain == "tracestate") && !trusted)
}

/// The headers that `Connection` names, less those that are not a client's to remove.
fn connection_tokens(client: &HeaderMap) -> Vec<HeaderName> {
    let values = client.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values
        .flat_map(|v| v.split(','))
        .filter_map(|token| HeaderName::from_bytes(token.trim().as_bytes()).ok())
        .filter(|name| !KEPT.contains(&name.as_str()))
        .collect()
}

fn add_forwarded(out: &mut HeaderMap, client: &HeaderMap, peer: &Peer) {
    let mut chain = String::new();
    if peer.trusted {
        for value in client.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()) {
            let _ = write!(chain, "{value}, ");
        }
    }
    let _ = write!(chain, "{}", peer.address);
    let proto = if peer.https { "https" } else { "http" };
    let host = peer.forwarded.host.as_deref().unwrap_or(&peer.authority);
    for (name, value) in [("x-forwarded-for", chain.as_str()), ("x-forwarded-proto", proto), ("x-forwarded-host", host)]
    {
        if let Ok(value) = HeaderValue::from_str(value) {
            out.insert(HeaderName::from_static(name), value);
        }
    }
    if !out.contains_key("traceparent")
        && let Some(value) = traceparent()
    {
        out.insert(HeaderName::from_static("traceparent"), value);
    }
}

/// A new trace (W3C Trace Context section 3.2).
fn traceparent() -> Option<HeaderValue> {
    let mut bytes = [0u8; 24];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    for (i, byte) in bytes.iter().enumerate() {
        if i == 16 {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str("-01");
    HeaderValue::try_from(text).ok()
}

/// Says who it is: the mapped claims and the signed assertion.
pub fn add_identity(context: &Context, out: &mut HeaderMap, identity: &Identity, session: &str) {
    for (name, value) in context.mapping.headers(identity, session) {
        out.insert(name, value);
    }
    let Some((signer, config)) = context.signer.as_ref().zip(context.config.identity.assertion.as_ref()) else {
        return;
    };
    let claims = context.mapping.claims(identity);
    let token = signer.sign(identity, session, &config.audience, &claims, context.clock.unix());
    if let (Ok(token), Ok(name)) = (token, HeaderName::try_from(config.header.as_str()))
        && let Ok(mut value) = HeaderValue::try_from(token)
    {
        value.set_sensitive(true);
        out.insert(name, value);
    }
}

/// A backend's answer headers, made fit for a client.
pub fn for_client(upstream: &HeaderMap) -> HeaderMap {
    let named = connection_tokens(upstream);
    let mut out = HeaderMap::with_capacity(upstream.len());
    for (name, value) in upstream {
        let hop = HOP_BY_HOP.contains(&name.as_str()) || WEBSOCKET.contains(&name.as_str());
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
