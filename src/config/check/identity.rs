//! Where a credential may stand, and in which headers the backend is told who it was.

use crate::config::header_name::{fold, reserved};
use crate::config::model::{Config, Protocol};
use crate::config::problem::{Problems, one_of, shown};
use http::HeaderName;
use std::collections::BTreeMap;

pub(super) fn check(config: &Config, problems: &mut Problems) {
    sources(config, problems);
    headers(config, problems);
    assertion(config, problems);
}

/// A claim's name, or names joined by dots for claims inside claims.
pub(super) fn is_claim_path(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control) && text.split('.').all(|name| !name.trim().is_empty())
}

/// The Engine.IO query has these for itself.
const QUERY_TAKEN: &[&str] = &["EIO", "transport", "sid", "t", "j", "b64"];

fn sources(config: &Config, problems: &mut Problems) {
    let sources = &config.credentials.sources;
    if sources.is_empty() {
        problems.error("credentials.sources", "the list is empty; allowed: at least one place");
    }
    for (i, source) in sources.iter().enumerate() {
        let path = format!("credentials.sources[{i}]");
        if let Err(why) = source_fault(source) {
            problems.error(path, format!("{} {why}", shown(source)));
        } else if sources.iter().take(i).any(|earlier| same_place(earlier, source)) {
            problems.error(path, format!("{} is listed twice", shown(source)));
        }
    }
    let only_connect = !sources.is_empty() && sources.iter().all(|source| source.starts_with("auth:"));
    if config.socketio.protocol == Protocol::EngineIo && only_connect {
        problems.error(
            "credentials.sources",
            "nobody can be let in: with socketio.protocol = \"engine.io\" there is no CONNECT packet for \"auth:\"; \
             allowed: a header, query, cookie or subprotocol",
        );
    }
}

/// Header names have no case.
fn same_place(a: &str, b: &str) -> bool {
    a == b || (a.starts_with("header:") && a.eq_ignore_ascii_case(b))
}

fn source_fault(source: &str) -> Result<(), String> {
    const KINDS: &[&str] = &["auth:KEY", "header:NAME", "query:NAME", "cookie:NAME", "subprotocol:NAME"];
    let (kind, name) = source.split_once(':').unwrap_or((source, ""));
    let token = HeaderName::from_bytes(name.as_bytes()).is_ok();
    match kind {
        "auth" if is_claim_path(name) => Ok(()),
        "header" if token => match reserved(name) {
            Some("authorization") | None => Ok(()),
            Some("cookie") => Err("is the whole Cookie header; allowed: \"cookie:NAME\"".into()),
            Some("sec-websocket-protocol") => Err("is a list of its own kind; allowed: \"subprotocol:NAME\"".into()),
            Some(_) => Err("belongs to HTTP itself; allowed: another header".into()),
        },
        "query" if QUERY_TAKEN.contains(&name) => Err("belongs to Engine.IO; allowed: another name".into()),
        "query" if !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace()) => Ok(()),
        "cookie" | "subprotocol" if token => Ok(()),
        "auth" | "header" | "query" | "cookie" | "subprotocol" => Err(format!("has no valid {kind} name")),
        _ => Err(format!("is not a place for a credential; allowed: {}", one_of(KINDS))),
    }
}

fn headers(config: &Config, problems: &mut Problems) {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for (name, claim) in &config.identity.headers {
        let path = format!("identity.headers.{}", crate::config::shape::Path::default().key(name.as_str()));
        header_name(config, &path, name, problems);
        if let Some(other) = taken.insert(fold(name), name.clone()) {
            problems.error(&path, format!("backends may take it for {} too; allowed: one of them", shown(&other)));
        }
        let pseudo = claim.starts_with('$');
        if pseudo && !["$session", "$claims"].contains(&claim.as_str()) {
            problems.error(&path, format!("{} is not known here; allowed: \"$session\" or \"$claims\"", shown(claim)));
        } else if !is_claim_path(claim) {
            problems.error(&path, format!("{} is not the name of a claim", shown(claim)));
        }
        if claim == "$claims" && config.identity.claims.is_empty() {
            problems.warn(&path, "is empty as long as identity.claims names no claim");
        }
    }
    if let Some(assertion) = &config.identity.assertion {
        let path = "identity.assertion.header";
        header_name(config, path, &assertion.header, problems);
        if let Some(other) = taken.get(&fold(&assertion.header)) {
            problems.error(path, format!("backends may take it for {} too; allowed: another name", shown(other)));
        }
    }
    for (i, claim) in config.identity.claims.iter().enumerate() {
        if !is_claim_path(claim) || claim.starts_with('$') {
            problems.error(format!("identity.claims[{i}]"), format!("{} is not the name of a claim", shown(claim)));
        }
    }
}

fn header_name(config: &Config, path: &str, name: &str, problems: &mut Problems) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        problems.error(path, format!("{} is not a header name", shown(name)));
    } else if reserved(name).is_some() {
        problems.error(
            path,
            "is reserved: HTTP or the way to the backend depends on it; allowed: such as \"x-auth-email\"",
        );
        return;
    }
    // What the gate sets it first removes from the client's request, and with it the credential.
    let is_source = |source: &String| source.strip_prefix("header:").is_some_and(|header| fold(header) == fold(name));
    if config.credentials.sources.iter().any(is_source) {
        problems.error(path, "is a header in credentials.sources too; allowed: another name");
    }
}

fn assertion(config: &Config, problems: &mut Problems) {
    let Some(assertion) = &config.identity.assertion else { return };
    // P25: an assertion for nobody in particular is one for everybody.
    for (key, value) in [("issuer", &assertion.issuer), ("audience", &assertion.audience)] {
        if value.trim().is_empty() {
            problems.error(format!("identity.assertion.{key}"), "empty; allowed: the name that the backend checks");
        }
    }
}
