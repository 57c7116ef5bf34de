//! What withdraws rights: where it is shared, and who may tell of it.

use crate::config::address;
use crate::config::model::Config;
use crate::config::model::revocation::Transmitter;
use crate::config::problem::{Problems, one_of, shown};

const ALGORITHMS: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

pub(super) fn check(config: &Config, problems: &mut Problems) {
    let shared = &config.revocation;
    if shared.redis_url.is_some() && shared.redis_url_env.is_some() {
        problems.error("revocation", "has redis_url and redis_url_env; allowed: one of them");
    }
    if let Some(name) = &shared.redis_url_env {
        super::issuers::variable_name("revocation.redis_url_env", name, problems);
    }
    let prefix = &shared.key_prefix;
    if prefix.is_empty() || prefix.len() > 200 || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
        let allowed = "allowed: 1 to 200 characters without blanks, such as \"siogate:{revocations}:\"";
        problems.error("revocation.key_prefix", format!("{} is no prefix of keys; {allowed}", shown(prefix)));
    }
    for (i, issuer) in config.issuer.iter().enumerate() {
        let Some(logout) = &issuer.logout else { continue };
        if issuer.issuer.is_none() {
            problems.error(format!("issuer[{i}].logout"), "needs the issuer's name; allowed: together with issuer");
        }
        // L01: what was said to somebody else must not end sessions here.
        if logout.audience.is_empty() || logout.audience.iter().any(|text| text.trim().is_empty()) {
            problems.error(
                format!("issuer[{i}].logout.audience"),
                "required; allowed: the client ids that the provider knows your applications by",
            );
        }
    }
    for (i, transmitter) in config.transmitter.iter().enumerate() {
        one(config, i, transmitter, problems);
    }
}

fn one(config: &Config, index: usize, transmitter: &Transmitter, problems: &mut Problems) {
    let at = format!("transmitter[{index}]");
    let key = |name: &str| format!("{at}.{name}");
    if transmitter.issuer.trim().is_empty() {
        problems.error(key("issuer"), "required; allowed: the exact `iss` of its security events");
    }
    if let Some(other) = config.transmitter.iter().take(index).position(|other| other.issuer == transmitter.issuer) {
        problems.error(key("issuer"), format!("{} is transmitter[{other}] too", shown(&transmitter.issuer)));
    }
    match (&transmitter.jwks_url, &transmitter.jwks_file) {
        (Some(url), None) => {
            if let Err(why) = address::key_server(url, transmitter.allow_http) {
                problems.error(key("jwks_url"), why);
            }
        }
        (None, Some(_)) => {}
        _ => problems.error(&at, "needs one source of keys; allowed: jwks_url or jwks_file"),
    }
    if transmitter.audience.is_empty() || transmitter.audience.iter().any(|text| text.trim().is_empty()) {
        problems.error(key("audience"), "required; allowed: what the stream of events was made for");
    }
    for (i, algorithm) in transmitter.algorithms.iter().enumerate() {
        if !ALGORITHMS.contains(&algorithm.as_str()) {
            let message = format!("{} is not known here; allowed: {}", shown(algorithm), one_of(ALGORITHMS));
            problems.error(key(&format!("algorithms[{i}]")), message);
        }
    }
    let names: Vec<&str> = config.issuer.iter().filter_map(|issuer| issuer.issuer.as_deref()).collect();
    for (i, name) in transmitter.speaks_for.iter().enumerate() {
        if !names.contains(&name.as_str()) {
            let message = format!("{} is no issuer here; allowed: {}", shown(name), one_of(&names));
            problems.error(key(&format!("speaks_for[{i}]")), message);
        }
    }
    if transmitter.speaks_for.is_empty() && !names.contains(&transmitter.issuer.as_str()) {
        let message = "no [[issuer]] has this name, so it speaks of nobody; allowed: the names of its issuers";
        problems.error(key("speaks_for"), message);
    }
    if !transmitter.token_env.is_empty() {
        super::issuers::variable_name(&key("token_env"), &transmitter.token_env, problems);
    }
}
