//! Every rule: a configuration that keeps it, one that breaks it, and where the problem is reported.

mod bounds;
mod doors;
mod identity;
mod issuers;

use crate::config::check::check;
use crate::config::model::Config;
use crate::config::model::issuers::Issuer;
use crate::config::problem::Problems;
use std::time::Duration;

/// A configuration without problems or warnings, changed by `change`.
fn checked(change: impl FnOnce(&mut Config)) -> Problems {
    let issuer = Issuer {
        issuer: Some("https://login.example.com/".into()),
        audience: vec!["chat".into()],
        ..Issuer::default()
    };
    let mut config = Config { issuer: vec![issuer], ..Config::default() };
    change(&mut config);
    check(&config)
}

fn paths(change: impl FnOnce(&mut Config)) -> Vec<String> {
    checked(change).errors.into_iter().map(|p| p.path).collect()
}

fn warned(change: impl FnOnce(&mut Config)) -> Vec<String> {
    let problems = checked(change);
    assert!(problems.errors.is_empty(), "{problems}");
    problems.warnings.into_iter().map(|p| p.path).collect()
}

fn issuer_paths(change: impl FnOnce(&mut Issuer)) -> Vec<String> {
    paths(|c| change(&mut c.issuer[0]))
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_plain_configuration_has_no_problems() {
    assert_eq!(checked(|_| {}), Problems::default());
}

#[test]
fn the_defaults_lack_nothing_but_an_issuer() {
    let problems = check(&Config::default());
    assert_eq!(problems.errors.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["issuer"]);
    assert!(problems.warnings.is_empty());
}

#[test]
fn all_rules_speak_at_once() {
    let broken = paths(|c| {
        c.server.listen = strings(&["x"]);
        c.upstream.urls = vec![];
        c.socketio.path = "x".into();
        c.issuer[0].leeway = Duration::from_secs(1000);
        c.identity.headers.insert("host".into(), "sub".into());
        c.limits.max_queue = 0;
        c.log.level = "x".into();
    });
    assert_eq!(broken.len(), 7, "{broken:?}");
}
