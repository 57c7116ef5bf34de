//! The layers against each other, and everything that a user can get wrong in them.

use crate::config::assign::{dotted_path, variable_path};
use crate::config::conform::{VARIABLE_PREFIX, variable};
use crate::config::load::{Loaded, Override, Sources, load};
use crate::config::model::Config;
use crate::config::problem::Problems;
use crate::config::secret::Environment;
use crate::config::shape::{Path, Shape};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::path::PathBuf;
use std::time::Duration;

const ISSUER: &str = "[[issuer]]\nissuer = 'https://a.example.com/'\naudience = ['chat']\n";

struct Setup {
    dir: tempfile::TempDir,
    sources: Sources,
}

impl Setup {
    fn file(text: &str) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Setup { dir, sources: Sources { file: Some(path), ..Sources::default() } }
    }

    fn env(mut self, name: &str, value: &str) -> Setup {
        self.sources.env.insert(name.into(), value.into());
        self
    }

    fn flag(mut self, flag: &str, key: &str, value: &str) -> Setup {
        self.sources.overrides.push(Override { flag: flag.into(), key: key.into(), value: value.into() });
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        load(&self.sources)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|problems| panic!("{problems}")).config
    }

    fn problems(&self) -> Vec<String> {
        self.load().unwrap_err().errors.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn defaults_then_file_then_variables_then_flags() {
    let setup = Setup::file(ISSUER);
    assert_eq!(setup.config().server.listen, ["127.0.0.1:8080"]);
    let setup = Setup::file(&format!("{ISSUER}[server]\nlisten = ['127.0.0.1:1']\ndrain_timeout = '1s'"));
    assert_eq!(setup.config().server.listen, ["127.0.0.1:1"]);
    let setup = setup.env("SIOGATE_SERVER__LISTEN", "127.0.0.1:2");
    let config = setup.config();
    assert_eq!(config.server.listen, ["127.0.0.1:2"], "lists replace each other");
    assert_eq!(config.server.drain_timeout, Duration::from_secs(1), "other keys stay");
    let setup = setup.flag("--listen", "server.listen", "127.0.0.1:3").env("SIOGATE_SERVER__DRAIN_TIMEOUT", "2s");
    let config = setup.config();
    assert_eq!(config.server.listen, ["127.0.0.1:3"]);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(2));
    let config = setup.flag("--set", "server.listen", "127.0.0.1:4").config();
    assert_eq!(config.server.listen, ["127.0.0.1:4"], "the last flag wins");
}

#[test]
fn everything_can_be_set_by_variables_alone() {
    let mut env = Environment::new();
    for (name, value) in [
        ("SIOGATE_UPSTREAM__URLS", r#"["http://a:1", "http://b:1"]"#),
        ("SIOGATE_ISSUER__0__ISSUER", "1e5"),
        ("SIOGATE_ISSUER__0__JWKS_URL", "https://a/jwks"),
        ("SIOGATE_ISSUER__0__AUDIENCE", "true"),
        ("SIOGATE_ISSUER__1__SECRET_ENV", "SIOGATE_SECRET"),
        ("SIOGATE_SECRET", "0123456789abcdef0123456789abcdef"),
        ("SIOGATE_SOCKETIO__ON_EXPIRY", "disconnect"),
        ("SIOGATE_SOCKETIO__PROBE", "false"),
        ("SIOGATE_LIMITS__MAX_SESSIONS", "5"),
        ("SIOGATE_IDENTITY__HEADERS__X_AUTH_EMAIL", "email"),
        ("SIOGATE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,fd00::/8"),
        ("SIOGATE_CONFIG", "/nowhere"),
        ("SIOGATE_LOG", "debug"),
        ("OTHER", "x"),
    ] {
        env.insert(name.into(), value.into());
    }
    let loaded = load(&Sources { env, ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"));
    let config = loaded.config;
    assert_eq!(config.upstream.urls, ["http://a:1", "http://b:1"]);
    assert_eq!(config.issuer[0].issuer.as_deref(), Some("1e5"), "no number");
    assert_eq!(config.issuer[0].audience, ["true"], "no boolean");
    assert_eq!(loaded.secrets.issuers[1].len(), 1);
    assert_eq!(config.socketio.on_expiry, crate::config::model::OnExpiry::Disconnect);
    assert!(!config.socketio.probe);
    assert_eq!(config.limits.max_sessions, 5);
    assert_eq!(config.identity.headers.len(), 5, "one header more than the default ones");
    assert_eq!(config.server.trusted_proxies.len(), 2);
}

#[test]
fn the_eleventh_issuer_comes_after_the_third() {
    let mut setup = Setup::file("");
    for i in 0..12 {
        setup = setup.env(&format!("SIOGATE_ISSUER__{i}__ISSUER"), &format!("https://i{i}/"));
    }
    let issuers = setup.config().issuer;
    assert_eq!(issuers[10].issuer.as_deref(), Some("https://i10/"));
    let setup = Setup::file("").env("SIOGATE_ISSUER__1__ISSUER", "https://a/");
    let problems = setup.problems();
    assert!(problems[0].contains("issuer[1].issuer: the list has 0 elements"), "{problems:?}");
}

#[test]
fn a_variable_changes_one_key_of_an_issuer_in_the_file() {
    let config = Setup::file(ISSUER).env("SIOGATE_ISSUER__0__LEEWAY", "1s").config();
    assert_eq!(config.issuer.len(), 1);
    assert_eq!(config.issuer[0].audience, ["chat"]);
    assert_eq!(config.issuer[0].leeway, Duration::from_secs(1));
}

#[test]
fn headers_in_the_file_replace_the_default_ones() {
    let config = Setup::file(&format!("{ISSUER}[identity.headers]\nx-user = 'sub'")).config();
    assert_eq!(config.identity.headers.into_iter().collect::<Vec<_>>(), [("x-user".into(), "sub".into())]);
}

#[test]
fn unknown_names_are_refused_in_every_layer() {
    let setup = Setup::file(&format!("{ISSUER}[server]\nlistne = []"))
        .env("SIOGATE_SERVER__DRAIN_TIMOUT", "1s")
        .env("SIOGATE_SERVER_LISTEN", "x")
        .env("SIOGATE_NONSENSE_AT_ALL", "hunter2")
        .flag("--set", "socketio.pth", "/x/")
        .flag("--set", "log.level.more", "x");
    let problems = setup.problems();
    for expected in [
        "server.listne: unknown key; did you mean server.listen?",
        "server.drain_timout: unknown key; did you mean server.drain_timeout (SIOGATE_SERVER__DRAIN_TIMEOUT)? (from SIOGATE_SERVER__DRAIN_TIMOUT)",
        "server_listen: unknown key; did you mean server.listen (SIOGATE_SERVER__LISTEN)? (from SIOGATE_SERVER_LISTEN)",
        "socketio.pth: unknown key; did you mean socketio.path? (from --set)",
        "log.level.more: unknown key; allowed here: a string (from --set)",
    ] {
        assert!(problems.iter().any(|p| p == expected), "{expected}\nnot in {problems:#?}");
    }
    assert!(problems.iter().any(|p| p.starts_with("nonsense_at_all: unknown key") && !p.contains("hunter2")));
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn variables_that_the_configuration_names_are_no_keys() {
    let secret = "0123456789abcdef0123456789abcdef";
    let setup = Setup::file("[[issuer]]\nsecret_env = 'SIOGATE_SECRET'\nprevious_secret_env = 'SIOGATE_OLD'\n[admin]\ntoken_env = 'SIOGATE_ADMIN_TOKEN'")
        .env("SIOGATE_SECRET", secret)
        .env("SIOGATE_OLD", &secret.replace('0', "x"))
        .env("SIOGATE_ADMIN_TOKEN", secret);
    let loaded = setup.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.secrets.issuers[0].len(), 2);
    assert!(loaded.secrets.admin_token.is_some());
    let setup = Setup::file(ISSUER).env("SIOGATE_SECRET", secret);
    let problems = setup.problems().join("\n");
    assert!(problems.contains("secret: unknown key") && !problems.contains(secret), "{problems}");
}

#[test]
fn a_kubernetes_service_called_siogate_is_no_mistake() {
    let mut setup = Setup::file(ISSUER);
    for name in [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_8080_TCP",
        "PORT_8080_TCP_PROTO",
        "PORT_8080_TCP_PORT",
        "PORT_8080_TCP_ADDR",
        "PUBLIC_SERVICE_HOST",
        "PUBLIC_PORT_443_TCP",
    ] {
        setup = setup.env(&format!("SIOGATE_{name}"), "tcp://10.0.0.1:8080");
    }
    setup.config();
    for mistake in ["SIOGATE_SERVER__PORT", "SIOGATE_SERVER_PORT", "SIOGATE_PORT", "SIOGATE_SERVER_PORTS"] {
        assert_eq!(Setup::file(ISSUER).env(mistake, "8080").problems().len(), 1, "{mistake}");
    }
}

#[test]
fn all_problems_of_all_layers_come_at_once() {
    let setup = Setup::file(&format!(
        "{ISSUER}leeway = '400s'\n[socketio]\nprobe = 'no'\npath = 'x'\n[server]\nfoo = 1\ndrain_timeout = 'soon'"
    ))
    .env("SIOGATE_LIMITS__MAX_SESSIONS", "many")
    .env("SIOGATE_UPSTREAM__URLS", "ws://b")
    .flag("--log-level", "log.level", "loud");
    let problems = setup.problems();
    for expected in [
        "socketio.probe: found the string \"no\"; allowed: true or false",
        "server.drain_timeout: \"soon\" is not a duration; allowed: ",
        "limits.max_sessions: \"many\" is not a number; allowed: a whole number, zero or more (from SIOGATE_LIMITS__MAX_SESSIONS)",
        "upstream.urls[0]: \"ws://b\" has another scheme than http or https; allowed: ",
        "socketio.path: \"x\" does not begin with \"/\"; allowed: such as \"/socket.io/\"",
        "issuer[0].leeway: \"400s\" is too long; allowed: at most 300s",
        "log.level: \"loud\" is not known here; allowed: ",
        "server.foo: unknown key; allowed here: ",
    ] {
        assert!(problems.iter().any(|p| p.starts_with(expected)), "{expected}\nnot in {problems:#?}");
    }
    assert_eq!(problems.len(), 8, "{problems:#?}");
    assert!(problems.iter().any(|p| p.ends_with("(from SIOGATE_UPSTREAM__URLS)")));
    assert!(problems.iter().any(|p| p.ends_with("(from --log-level)")));
}

#[test]
fn one_mistake_is_not_reported_twice() {
    for (text, expected) in [
        ("issuer = 5", "issuer: found the number 5"),
        ("[[issuer]]\nisuer = 'https://a/'", "issuer[0].isuer: unknown key"),
        ("[[isuer]]\nissuer = 'https://a/'", "isuer: unknown key"),
        ("[[issuer]]\njwks_file = 5", "issuer[0].jwks_file: found the number 5"),
        (&format!("{ISSUER}[server.tls]\ncert = 'tests/config/files/cert.pem'"), "server.tls.key: required"),
        (&format!("{ISSUER}[server]\nlisten = 5"), "server.listen: found the number 5"),
        (&format!("{ISSUER}[server]\nlisten = [5]"), "server.listen[0]: found the number 5"),
    ] {
        let problems = Setup::file(text).problems();
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
        assert!(problems[0].starts_with(expected), "{problems:#?}");
    }
}

#[test]
fn indexes_are_counted_as_in_the_file_even_after_a_bad_element() {
    let text = "issuer = [5, { issuer = 'https://a/', audience = ['x'], leeway = '400s' }]";
    let problems = Setup::file(text).problems();
    assert!(problems.iter().any(|p| p.starts_with("issuer[1].leeway")), "{problems:#?}");
    assert_eq!(problems.len(), 2);
}

#[test]
fn a_mistake_in_the_file_is_found_under_a_variable_that_covers_it() {
    let setup = Setup::file(&format!("{ISSUER}[log]\nlevel = 5")).env("SIOGATE_LOG__LEVEL", "debug");
    assert_eq!(setup.problems(), ["log.level: found the number 5; allowed: a string"]);
}

#[test]
fn a_file_that_cannot_be_read_is_the_only_problem_of_the_file() {
    let setup = Setup::file("[server]\nlisten = ['a'\nsecret = 'hunter2'");
    let problems = setup.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("config.toml: line 3, column 1: "), "{problems:?}");
    assert!(!problems[0].contains("hunter2"));
    let setup = Setup::file("[a]\n[a]").env("SIOGATE_LIMITS__MAX_QUEUE", "x");
    assert_eq!(setup.problems().len(), 2);
    let mut setup = Setup::file("");
    setup.sources.file = Some(setup.dir.path().join("missing.toml"));
    let problems = setup.problems();
    assert!(problems.len() == 1 && problems[0].starts_with("cannot read"), "{problems:?}");
    setup.sources.file = Some(PathBuf::from(setup.dir.path()));
    assert!(setup.problems()[0].starts_with("cannot read"));
    std::fs::write(setup.dir.path().join("bad"), b"\xff").unwrap();
    setup.sources.file = Some(setup.dir.path().join("bad"));
    assert!(setup.problems()[0].ends_with("is not UTF-8"));
}

#[test]
fn warnings_do_not_refuse_and_say_where_they_come_from() {
    let loaded = Setup::file(ISSUER).env("SIOGATE_ISSUER__0__AUDIENCE", "").load().unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].path, "issuer[0].audience");
    assert_eq!(loaded.warnings[0].origin.as_deref(), Some("SIOGATE_ISSUER__0__AUDIENCE"));
}

#[test]
fn secrets_are_never_shown() {
    let secret = "hunter2hunter2";
    let setup = Setup::file("[[issuer]]\nsecret_env = 'S'\nsecret = 'hunter2hunter2'\n[admin]\ntoken_env = 'hunter2hunter2'\n[upstream]\nurls = ['http://u:hunter2hunter2@a']")
        .env("S", secret)
        .env("SIOGATE_ADMIN__TOKEN", secret)
        .env("SIOGATE_ISSUER__0__SECRET", secret)
        .flag("--set", "issuer[0].password", secret);
    let problems = setup.problems();
    assert!(problems.len() >= 5, "{problems:#?}");
    assert!(!problems.join("\n").contains("hunter2"), "{problems:#?}");
}

/// Every key of the model, as `--set` writes it.
fn every_key() -> Vec<String> {
    let mut keys = Vec::new();
    Shape::of::<Config>().each_key(&Path::default(), &mut |path, _| keys.push(path.to_string()));
    keys
}

#[test]
fn every_key_can_be_named_by_a_flag_and_by_a_variable() {
    let root = Shape::of::<Config>();
    assert!(every_key().len() > 60);
    for key in every_key() {
        let (path, _) = dotted_path(&root, &key).unwrap();
        let variable = variable(&path);
        let name = variable.strip_prefix(VARIABLE_PREFIX).unwrap();
        assert_eq!(variable_path(&root, name).unwrap().0, path, "{key} {variable}");
    }
}

proptest! {
    #[test]
    fn no_value_makes_it_panic_and_every_problem_is_one_line(
        sets in vec((select(every_key()), "[ -~\u{1b}\n\u{e9}]{0,16}|\\[.{0,8}\\]|\\{.{0,8}\\}|[0-9]{1,20}(ms|s|d)?"), 1..6),
        odd in "[a-z\\[\\]._0-9]{0,24}",
    ) {
        let mut setup = Setup::file(ISSUER).flag("--set", &odd, "x");
        for (key, value) in sets {
            setup = setup.flag("--set", &key, &value);
        }
        if let Err(problems) = setup.load() {
            for problem in problems.errors {
                let line = problem.to_string();
                prop_assert!(!line.contains(char::is_control), "{:?}", line);
            }
        }
    }
}
