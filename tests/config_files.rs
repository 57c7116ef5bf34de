//! The sample at the top of the repository, and the files in `tests/config`: every good one loads, and every bad one
//! is refused with the lines beside it. `BLESS=1 cargo test --test config_files` writes those lines anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use siogate::config::load::{Sources, load};
use siogate::config::model::identity::Assertion;
use siogate::config::model::issuers::Issuer;
use siogate::config::model::revocation::{Logout, Transmitter};
use siogate::config::model::vouchers::{Callout, Introspection, SessionStore};
use siogate::config::model::{Config, Route, RouteAuth};
use siogate::config::secret::Environment;
use siogate::config::shape::{Path as Key, Shape};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Paths in the files start at the top of the repository, where cargo runs this.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new("tests/config").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn sources(file: &Path) -> Sources {
    let variables = [
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("SIOGATE_OLD_SECRET", "fedcba9876543210fedcba9876543210"),
        ("SESSION_SECRET", "the secret of the application"),
        ("SHORT_SECRET", "secret"),
        ("EMPTY_SECRET", ""),
        ("ADMIN_TOKEN", "0123456789abcdef"),
    ];
    // Only what the file names: anything else with the prefix would be a mistake of its own.
    let text = std::fs::read_to_string(file).unwrap();
    let named = variables.into_iter().filter(|(name, _)| text.contains(name));
    let env: Environment = named.map(|(name, value)| (name.to_string(), value.into())).collect();
    Sources { file: Some(file.to_path_buf()), env, overrides: Vec::new() }
}

#[test]
fn every_good_file_loads_without_a_warning() {
    for file in files("good") {
        match load(&sources(&file)) {
            Ok(loaded) => assert!(loaded.warnings.is_empty(), "{}: {:?}", file.display(), loaded.warnings),
            Err(problems) => panic!("{}:\n{problems}", file.display()),
        }
    }
}

#[test]
fn every_bad_file_is_refused_with_the_lines_beside_it() {
    for file in files("bad") {
        let problems = load(&sources(&file)).expect_err(&file.display().to_string());
        let said = format!("{problems}\n");
        assert!(!said.contains("hunter2") && !said.contains("horse"), "{}: a secret is shown", file.display());
        let beside = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&beside, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(said, expected, "{}", file.display());
    }
}

fn sample() -> String {
    std::fs::read_to_string("config.toml").unwrap()
}

/// The sample with its examples switched on.
fn examples() -> String {
    let lines = sample();
    let switched = lines.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
        _ => line,
    });
    switched.collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Config {
    use figment::providers::{Format, Toml};
    Toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_sample_is_the_default_configuration() {
    assert_eq!(parsed(&sample()), Config::default());
}

#[test]
fn the_sample_lacks_nothing_but_an_issuer() {
    let problems = load(&Sources { file: Some("config.toml".into()), ..Sources::default() }).unwrap_err();
    assert_eq!(problems.errors.len(), 1, "{problems}");
    assert_eq!(problems.errors[0].path, "issuer");
}

#[test]
fn the_sample_shows_every_key_of_the_model() {
    let mut missing = BTreeSet::new();
    Shape::of::<Config>().each_key(&Key::default(), &mut |path, _| {
        missing.insert(path.to_string().replace("[0]", ""));
    });
    let mut section = String::new();
    for line in examples().lines() {
        let header = line.strip_prefix('[').map(|l| l.trim_matches(['[', ']']));
        match (header, line.split_once(" = ")) {
            (Some(name), _) => {
                section = name.to_string();
                missing.remove(name);
            }
            (None, Some((key, _))) if !line.starts_with('#') => {
                missing.remove(&format!("{section}.{key}"));
            }
            _ => {}
        }
    }
    assert!(missing.is_empty(), "not in config.toml: {missing:?}");
}

#[test]
fn the_examples_of_the_sample_parse_and_show_the_defaults_there_are() {
    let config = parsed(&examples());
    let [jwks, keys, secret] = config.issuer.as_slice() else { panic!("three issuers") };
    let mut shown = jwks.clone();
    (shown.issuer, shown.jwks_url, shown.max_age, shown.ca_file) = (None, None, None, None);
    shown.audience.clear();
    let logout = shown.logout.take().unwrap();
    assert_eq!(logout, Logout { audience: logout.audience.clone(), ..Logout::default() });
    assert_eq!(shown, Issuer::default());
    let [transmitter] = config.transmitter.as_slice() else { panic!("one transmitter") };
    assert_eq!(transmitter.max_age, Transmitter::default().max_age);
    assert!(keys.jwks_file.is_some() && keys.key_file.is_some());
    assert!(secret.secret_env.is_some() && secret.secret_file.is_some());
    let [mut store] = <[_; 1]>::try_from(config.session_store).unwrap();
    (store.redis_url, store.redis_url_env, store.redis_ca_file) = (None, None, None);
    store.issued_at = None;
    store.secret_env.clear();
    store.claims.clear();
    assert_eq!(store, SessionStore::default());
    let [mut endpoint] = <[_; 1]>::try_from(config.introspection).unwrap();
    (endpoint.client_secret_env, endpoint.client_secret_file, endpoint.ca_file) = (None, None, None);
    let Introspection { url, issuer, client_id, .. } = Introspection::default();
    (endpoint.url, endpoint.issuer, endpoint.client_id) = (url, issuer, client_id);
    assert_eq!(endpoint, Introspection::default());
    let [mut callout] = <[_; 1]>::try_from(config.callout).unwrap();
    (callout.url, callout.subject_header, callout.ca_file) = (String::new(), None, None);
    callout.claims_from_headers.clear();
    assert_eq!(callout, Callout::default());
    let mut assertion = config.identity.assertion.unwrap();
    assertion.key_file = None;
    assert_eq!(assertion, Assertion::default());
    assert_eq!(config.http.route, [Route { path: "/".into(), auth: RouteAuth::default(), websocket: false }]);
}
