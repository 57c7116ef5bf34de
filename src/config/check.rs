//! What no single key can say: rules between keys, and forms that the types do not hold.
//!
//! Pure: what needs the environment or a file is in [`crate::config::secret`].

mod doors;
mod identity;
mod issuers;
mod revocation;
mod session;
mod vouchers;

use crate::config::duration;
use crate::config::model::Config;
use crate::config::problem::{Problems, one_of, shown};
use std::time::Duration;

/// Every problem of `config`, each with its key.
pub fn check(config: &Config) -> Problems {
    let mut problems = Problems::default();
    doors::check(config, &mut problems);
    issuers::check(config, &mut problems);
    vouchers::check(config, &mut problems);
    identity::check(config, &mut problems);
    revocation::check(config, &mut problems);
    session::check(config, &mut problems);
    durations(config, &mut problems);
    heartbeat(config, &mut problems);
    limits(config, &mut problems);
    log(config, &mut problems);
    problems
}

/// The clock's arithmetic overflows somewhere beyond; nobody means a time this long.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

fn durations(config: &Config, problems: &mut Problems) {
    let (socketio, limits) = (&config.socketio, &config.limits);
    let mut all = vec![
        ("server.drain_timeout".to_string(), Some(config.server.drain_timeout), true),
        ("upstream.connect_timeout".to_string(), Some(config.upstream.connect_timeout), false),
        ("upstream.response_timeout".to_string(), Some(config.upstream.response_timeout), false),
        ("socketio.connect_deadline".to_string(), Some(socketio.connect_deadline), false),
        ("socketio.ping_interval".to_string(), socketio.ping_interval, false),
        ("socketio.ping_timeout".to_string(), socketio.ping_timeout, false),
        ("session.max_lifetime".to_string(), Some(config.session.max_lifetime), false),
        ("session.idle_timeout".to_string(), Some(config.session.idle_timeout), true),
        ("session.refresh.warn_before".to_string(), Some(config.session.refresh.warn_before), true),
        ("revocation.remember".to_string(), Some(config.revocation.remember), false),
        ("limits.header_timeout".to_string(), Some(limits.header_timeout), false),
        ("limits.body_timeout".to_string(), Some(limits.body_timeout), false),
        ("limits.write_timeout".to_string(), Some(limits.write_timeout), false),
    ];
    for (i, issuer) in config.issuer.iter().enumerate() {
        all.push((format!("issuer[{i}].max_age"), issuer.max_age, false));
        all.push((format!("issuer[{i}].logout.max_age"), issuer.logout.as_ref().map(|logout| logout.max_age), false));
        all.push((format!("issuer[{i}].max_stale"), Some(issuer.max_stale), true));
    }
    for (i, transmitter) in config.transmitter.iter().enumerate() {
        all.push((format!("transmitter[{i}].max_age"), Some(transmitter.max_age), false));
    }
    for (i, one) in config.session_store.iter().enumerate() {
        waits(&mut all, &format!("session_store[{i}]"), one.recheck, one.grace, one.timeout);
    }
    for (i, one) in config.introspection.iter().enumerate() {
        waits(&mut all, &format!("introspection[{i}]"), one.recheck, one.grace, one.timeout);
        all.push((format!("introspection[{i}].cache"), Some(one.cache), true));
        all.push((format!("introspection[{i}].negative_cache"), Some(one.negative_cache), true));
    }
    for (i, one) in config.callout.iter().enumerate() {
        waits(&mut all, &format!("callout[{i}]"), one.recheck, one.grace, one.timeout);
    }
    for (path, value, may_be_zero) in all {
        let Some(value) = value else { continue };
        if value.is_zero() && !may_be_zero {
            problems.error(path, "\"0s\" is too short; allowed: more than zero");
        } else if value > LONGEST {
            let (value, longest) = (duration::format(value), duration::format(LONGEST));
            problems.error(path, format!("{value:?} is too long; allowed: at most {longest}"));
        }
    }
}

/// What all have who are asked again.
fn waits(
    all: &mut Vec<(String, Option<Duration>, bool)>,
    at: &str,
    recheck: Duration,
    grace: Duration,
    timeout: Duration,
) {
    all.push((format!("{at}.recheck"), Some(recheck), false));
    all.push((format!("{at}.grace"), Some(grace), true));
    all.push((format!("{at}.timeout"), Some(timeout), false));
}

/// A JavaScript timer of more than 2^31 - 1 ms fires at once: clients would find every session dead.
fn heartbeat(config: &Config, problems: &mut Problems) {
    const LONGEST_TIMER: Duration = Duration::from_millis(i32::MAX as u64);
    let interval = config.socketio.ping_interval.unwrap_or_default();
    let timeout = config.socketio.ping_timeout.unwrap_or_default();
    if interval <= LONGEST && timeout <= LONGEST && interval.saturating_add(timeout) > LONGEST_TIMER {
        let path = if interval >= timeout { "socketio.ping_interval" } else { "socketio.ping_timeout" };
        problems.error(path, "ping_interval and ping_timeout together are too long; allowed: at most 24d");
    }
}

fn limits(config: &Config, problems: &mut Problems) {
    let limits = &config.limits;
    let counts = [
        ("limits.max_sessions", limits.max_sessions),
        ("limits.max_unauthenticated", limits.max_unauthenticated),
        ("limits.max_unauthenticated_per_ip", limits.max_unauthenticated_per_ip),
        ("limits.max_packets_per_payload", limits.max_packets_per_payload),
        ("limits.max_queue", limits.max_queue),
        ("revocation.max_entries", config.revocation.max_entries),
    ];
    for (path, value) in counts {
        if value == 0 {
            problems.error(path, "0 would admit nothing; allowed: 1 or more");
        }
    }
    if config.socketio.max_payload == Some(0) {
        problems.error("socketio.max_payload", "0 would admit nothing; allowed: 1 or more");
    }
    // The HTTP library's smallest buffer, and a bound on what one stranger may make the gate hold.
    let (least, most) = (8192, 1 << 20);
    if !(least..=most).contains(&limits.max_header_size) {
        problems.error(
            "limits.max_header_size",
            format!("{} is out of range; allowed: {least} to {most} bytes", limits.max_header_size),
        );
    }
}

/// The levels that a log filter knows.
pub const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

fn log(config: &Config, problems: &mut Problems) {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let sound = |directive: &str| match directive.trim().rsplit_once('=') {
        Some((target, level)) => !target.trim().is_empty() && is_level(level.trim()),
        None => is_level(directive.trim()),
    };
    if !config.log.level.split(',').all(sound) {
        let words = one_of(LEVELS);
        problems.error(
            "log.level",
            format!(
                "{} is not known here; allowed: {words}, or a filter such as \"info,siogate=debug\"",
                shown(&config.log.level)
            ),
        );
    }
}

#[cfg(test)]
mod tests;
