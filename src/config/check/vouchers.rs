//! Session stores, introspection endpoints and call-outs.

use crate::config::address;
use crate::config::check::issuers::variable_name;
use crate::config::model::Config;
use crate::config::problem::{Problems, shown};
use http::HeaderName;

pub(super) fn check(config: &Config, problems: &mut Problems) {
    stores(config, problems);
    introspections(config, problems);
    callouts(config, problems);
    names(config, problems);
    origins(config, problems);
}

/// Whether anybody but an `[[issuer]]` may vouch.
pub(super) fn any(config: &Config) -> bool {
    !(config.session_store.is_empty() && config.introspection.is_empty() && config.callout.is_empty())
}

/// RFC 6901.
fn is_pointer(text: &str) -> bool {
    let sound = |part: &str| part.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.starts_with('/') && text.len() > 1 && text.len() <= 256 && sound(text)
}

fn pointer(path: String, text: &str, problems: &mut Problems) {
    if !is_pointer(text) {
        problems.error(path, format!("{} is not a JSON pointer; allowed: such as \"/passport/user\"", shown(text)));
    }
}

fn stores(config: &Config, problems: &mut Problems) {
    for (i, store) in config.session_store.iter().enumerate() {
        let at = format!("session_store[{i}]");
        let key = |key: &str| format!("{at}.{key}");
        if HeaderName::from_bytes(store.cookie.as_bytes()).is_err() {
            problems.error(key("cookie"), format!("{} is not the name of a cookie", shown(&store.cookie)));
        }
        if let Some(other) = config.session_store.iter().take(i).position(|other| other.cookie == store.cookie) {
            problems.error(key("cookie"), format!("is the cookie of session_store[{other}] too"));
        }
        if config.credentials.sources.contains(&format!("cookie:{}", store.cookie)) {
            let message = "is in credentials.sources too, which holds tokens; allowed: here alone";
            problems.error(key("cookie"), message);
        }
        for name in &store.secret_env {
            variable_name(&key("secret_env"), name, problems);
        }
        if store.secret_env.is_empty() && store.secret_file.is_empty() {
            problems.error(&at, "has no secret; allowed: secret_env or secret_file, the application's own");
        }
        match (&store.redis_url, &store.redis_url_env) {
            (Some(_), Some(_)) => problems.error(&at, "has redis_url and redis_url_env; allowed: one of them"),
            (None, None) => problems.error(&at, "has no Redis; allowed: redis_url or redis_url_env"),
            (None, Some(name)) => variable_name(&key("redis_url_env"), name, problems),
            (Some(_), None) => {}
        }
        if store.prefix.len() > 256 || store.prefix.chars().any(char::is_control) {
            problems.error(key("prefix"), format!("{} is not what a key begins with", shown(&store.prefix)));
        }
        if store.subject.is_empty() {
            problems.error(key("subject"), "empty, and a session that names nobody admits nobody");
        }
        for (n, text) in store.subject.iter().enumerate() {
            pointer(format!("{at}.subject[{n}]"), text, problems);
        }
        if let Some(text) = &store.issued_at {
            pointer(key("issued_at"), text, problems);
        }
        for (claim, text) in &store.claims {
            pointer(format!("{at}.claims.{}", shown(claim)), text, problems);
        }
    }
}

fn endpoint(path: String, url: &str, allow_http: bool, problems: &mut Problems) {
    if let Err(why) = address::key_server(url, allow_http) {
        problems.error(path, why.replace("would fetch keys over", "would go over"));
    }
}

fn introspections(config: &Config, problems: &mut Problems) {
    for (i, one) in config.introspection.iter().enumerate() {
        let at = format!("introspection[{i}]");
        let key = |key: &str| format!("{at}.{key}");
        endpoint(key("url"), &one.url, one.allow_http, problems);
        if one.client_id.is_empty() {
            problems.error(key("client_id"), "empty; allowed: the gate's name at the endpoint");
        }
        match (&one.client_secret_env, &one.client_secret_file) {
            (Some(_), Some(_)) => {
                problems.error(&at, "has client_secret_env and client_secret_file; allowed: one of them");
            }
            (None, None) => problems.error(&at, "has no client_secret_env or client_secret_file"),
            (Some(name), None) => variable_name(&key("client_secret_env"), name, problems),
            (None, Some(_)) => {}
        }
        if !super::identity::is_claim_path(&one.subject) {
            problems.error(key("subject"), format!("{} is not the name of a member", shown(&one.subject)));
        }
        for (name, list) in [("audience", &one.audience), ("scope", &one.scope)] {
            for (n, _) in list.iter().enumerate().filter(|(_, text)| text.trim().is_empty()) {
                problems.error(format!("{at}.{name}[{n}]"), "empty; allowed: the exact value in the answers");
            }
        }
        // RFC 7662 section 4: the cache is the delay of a revocation.
        if one.cache > one.recheck {
            problems.warn(key("cache"), "is longer than recheck: a revoked token may open a socket that is cut soon");
        }
    }
}

fn callouts(config: &Config, problems: &mut Problems) {
    for (i, one) in config.callout.iter().enumerate() {
        let at = format!("callout[{i}]");
        let key = |key: &str| format!("{at}.{key}");
        endpoint(key("url"), &one.url, one.allow_http, problems);
        let place = one.credential.split_once(':');
        let sound = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
        let fits = match place {
            Some(("header", name)) => sound(name) && !UNFIT.contains(&name.to_ascii_lowercase().as_str()),
            Some(("cookie", name)) => sound(name),
            _ => false,
        };
        if !fits {
            problems.error(
                key("credential"),
                format!(
                    "{} is no place for it; allowed: \"header:authorization\", \"header:NAME\" or \"cookie:NAME\"",
                    shown(&one.credential)
                ),
            );
        }
        for (n, name) in one.headers.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let unfit = lower != "cookie" && UNFIT.contains(&lower.as_str());
            if !sound(name) || unfit || lower.starts_with("x-forwarded-") {
                problems.error(format!("{at}.headers[{n}]"), format!("{} cannot be passed on", shown(name)));
            }
        }
        pointer(key("subject"), &one.subject, problems);
        let headers = one.subject_header.iter().map(|name| (key("subject_header"), name));
        let claims = one.claims_from_headers.iter();
        for (path, name) in
            headers.chain(claims.map(|(claim, name)| (key(&format!("claims_from_headers.{claim}")), name)))
        {
            // P46: what frames an answer or speaks to browsers is never somebody's identity.
            if !sound(name) || UNFIT.contains(&name.to_ascii_lowercase().as_str()) {
                problems.error(path, format!("{} cannot say who somebody is", shown(name)));
            }
        }
    }
}

/// Headers that frame or route a message.
const UNFIT: &[&str] = &[
    "connection",
    "content-length",
    "content-encoding",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// L04: users are told apart by who vouches for them.
fn names(config: &Config, problems: &mut Problems) {
    let issuers = config
        .issuer
        .iter()
        .enumerate()
        .filter_map(|(i, one)| Some((format!("issuer[{i}].issuer"), one.issuer.as_ref()?)));
    let stores =
        config.session_store.iter().enumerate().map(|(i, one)| (format!("session_store[{i}].issuer"), &one.issuer));
    let endpoints =
        config.introspection.iter().enumerate().map(|(i, one)| (format!("introspection[{i}].issuer"), &one.issuer));
    let callouts = config.callout.iter().enumerate().map(|(i, one)| (format!("callout[{i}].issuer"), &one.issuer));
    let all: Vec<_> = issuers.chain(stores).chain(endpoints).chain(callouts).collect();
    for (at, (path, name)) in all.iter().enumerate().skip(config.issuer.len()) {
        if name.trim().is_empty() {
            problems.error(path, "empty; allowed: a name for those who vouch, such as \"app\"");
        } else if let Some((other, _)) = all.iter().take(at).find(|(_, earlier)| earlier == name) {
            problems.error(path, format!("{} stands in {other} too: their users would be the same", shown(name)));
        }
    }
}

/// P19, P20: browsers send cookies unasked, from any page.
fn origins(config: &Config, problems: &mut Problems) {
    let with_cookies = |one: &crate::config::model::vouchers::Callout| {
        one.headers.iter().any(|name| name.eq_ignore_ascii_case("cookie"))
    };
    if config.session_store.is_empty() && !config.callout.iter().any(with_cookies) {
        return;
    }
    // Said already where a source is a cookie.
    if config.credentials.sources.iter().any(|source| source.starts_with("cookie:")) {
        return;
    }
    if let Some(at) = config.socketio.allowed_origins.iter().position(|origin| origin == "*") {
        problems.error(
            format!("socketio.allowed_origins[{at}]"),
            "\"*\" would let any page act with its visitor's session cookie; allowed: the origins of your pages",
        );
    }
}
