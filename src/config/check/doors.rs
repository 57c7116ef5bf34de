//! Addresses and paths: where the gate listens, what it dials, and which path belongs to whom.

use crate::config::address;
use crate::config::model::{Config, RouteAuth};
use crate::config::problem::{Problems, shown};
use std::collections::BTreeMap;

pub(super) fn check(config: &Config, problems: &mut Problems) {
    listeners(config, problems);
    upstream(config, problems);
    socketio_path(config, problems);
    origins(config, problems);
    routes(config, problems);
}

fn listeners(config: &Config, problems: &mut Problems) {
    if config.server.listen.is_empty() {
        problems.error("server.listen", "the list is empty; allowed: at least one address");
    }
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut listeners: Vec<(String, &str)> = config
        .server
        .listen
        .iter()
        .enumerate()
        .map(|(i, text)| (format!("server.listen[{i}]"), text.as_str()))
        .collect();
    if !config.admin.listen.is_empty() {
        listeners.push(("admin.listen".into(), &config.admin.listen));
    }
    for (path, text) in listeners {
        match address::listen(text) {
            Err(why) => problems.error(&path, why),
            Ok(listen) => {
                // P44: whoever reaches the admin listener ends sessions.
                if path == "admin.listen" && !listen.is_private() && config.admin.token_env.is_empty() {
                    problems.error(
                        "admin.token_env",
                        format!("required, as admin.listen {} can be reached from other machines", shown(text)),
                    );
                }
                let any_port = matches!(listen, address::Listen::Tcp { port: 0, .. });
                if let Some(other) = taken.insert(format!("{listen:?}"), path.clone()).filter(|_| !any_port) {
                    problems.error(&path, format!("{} is taken by {other}", shown(text)));
                }
            }
        }
    }
    if !config.admin.token_env.is_empty() {
        super::issuers::variable_name("admin.token_env", &config.admin.token_env, problems);
    }
    if let Some(tls) = &config.server.tls {
        for (path, file) in [("server.tls.cert", &tls.cert), ("server.tls.key", &tls.key)] {
            if file.as_os_str().is_empty() {
                problems.error(path, "required; allowed: the path of a PEM file");
            }
        }
    }
    // P41: the list decides whose word about addresses is believed.
    for (i, net) in config.server.trusted_proxies.iter().enumerate() {
        if net.prefix_len() == 0 {
            problems.warn(
                format!("server.trusted_proxies[{i}]"),
                "everybody is a trusted proxy: any client can claim any address",
            );
        }
    }
}

fn upstream(config: &Config, problems: &mut Problems) {
    let urls = &config.upstream.urls;
    if urls.is_empty() {
        problems.error("upstream.urls", "the list is empty; allowed: at least one URL");
    }
    for (i, url) in urls.iter().enumerate() {
        let path = format!("upstream.urls[{i}]");
        if let Err(why) = address::backend(url) {
            problems.error(&path, why);
        } else if urls.iter().take(i).any(|earlier| earlier == url) {
            problems.error(&path, format!("{} is listed twice", shown(url)));
        }
    }
    if config.upstream.ca_file.is_some() && !urls.iter().any(|url| url.starts_with("https:")) {
        problems.warn("upstream.ca_file", "has no effect without an https:// backend");
    }
}

/// What is wrong with a path prefix, if anything. A path that two programs read differently guards nothing.
fn path_fault(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        Some("does not begin with \"/\"")
    } else if path.contains("//") {
        Some("has an empty segment")
    } else if path.split('/').any(|segment| segment == "." || segment == "..") {
        Some("has a dot segment")
    } else if !path.bytes().all(|b| b.is_ascii_graphic() && !b"?#%\\;\"<>^`{|}".contains(&b)) {
        Some("has a character that a plain path does not have")
    } else {
        None
    }
}

fn socketio_path(config: &Config, problems: &mut Problems) {
    let path = &config.socketio.path;
    if let Some(fault) = path_fault(path) {
        problems.error("socketio.path", format!("{} {fault}; allowed: such as \"/socket.io/\"", shown(path)));
    } else if is_under(path, "/.siogate") || is_under(path, "/.well-known/siogate") {
        problems.error("socketio.path", format!("{} is the gate's own", shown(path)));
    } else if !path.ends_with('/') {
        problems.warn("socketio.path", format!("{} does not end with \"/\": stock clients add one", shown(path)));
    }
}

/// Whether `path` is `prefix` or below it, whatever slash either ends with.
fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn origins(config: &Config, problems: &mut Problems) {
    let origins = &config.socketio.allowed_origins;
    for (i, origin) in origins.iter().enumerate() {
        let path = format!("socketio.allowed_origins[{i}]");
        if origin != "*" {
            if let Err(why) = address::origin(origin) {
                problems.error(path, why);
            }
            continue;
        }
        // P20: any page could then use its visitor's cookie.
        let cookies = config.credentials.sources.iter().any(|source| source.trim().starts_with("cookie:"));
        if cookies {
            problems.error(
                &path,
                "\"*\" together with a cookie in credentials.sources lets any page act as its visitor; \
                 allowed: the origins by name, or no cookie source",
            );
        }
        if origins.len() > 1 {
            problems.error(&path, "\"*\" is any origin, the others included; allowed: \"*\" alone, or origins by name");
        }
    }
}

fn routes(config: &Config, problems: &mut Problems) {
    let socketio = &config.socketio.path;
    let only_connect = config.credentials.sources.iter().all(|source| source.trim().starts_with("auth:"));
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, route) in config.http.route.iter().enumerate() {
        let key = format!("http.route[{i}].path");
        let path = route.path.as_str();
        if path.is_empty() {
            problems.error(key, "required; allowed: such as \"/\" or \"/api\"");
            continue;
        }
        if let Some(fault) = path_fault(path) {
            problems.error(key, format!("{} {fault}; allowed: such as \"/\" or \"/api\"", shown(path)));
            continue;
        }
        if let Some(other) = taken.insert(path.trim_end_matches('/'), i) {
            problems.error(&key, format!("{} is the path of http.route[{other}] too", shown(path)));
        } else if is_under(path, socketio) {
            problems.error(&key, format!("{} lies under socketio.path {}", shown(path), shown(socketio)));
        } else if is_under(path, "/.siogate") || is_under(path, "/.well-known/siogate") {
            problems.error(&key, format!("{} is the gate's own", shown(path)));
        }
        if route.auth == RouteAuth::Require && only_connect {
            problems.warn(
                format!("http.route[{i}].auth"),
                "nobody can pass: no entry of credentials.sources can stand in a plain request",
            );
        }
    }
}
