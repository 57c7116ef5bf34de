//! Every rule: a configuration that keeps it, one that breaks it, and where the problem is reported.

use crate::config::check::check;
use crate::config::model::{Assertion, Config, Issuer, Protocol, Route, RouteAuth};
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
fn listeners_parse_and_do_not_share_an_address() {
    assert_eq!(paths(|c| c.server.listen = strings(&["8080"])), ["server.listen[0]"]);
    assert_eq!(paths(|c| c.server.listen = vec![]), ["server.listen"]);
    assert_eq!(paths(|c| c.server.listen = strings(&["a:1", "b:2", "a:1"])), ["server.listen[2]"]);
    assert_eq!(paths(|c| c.server.listen = strings(&["127.0.0.1:9090"])), ["admin.listen"]);
    assert!(paths(|c| c.server.listen = strings(&["127.0.0.1:0", "127.0.0.1:0"])).is_empty());
    assert_eq!(paths(|c| c.admin.listen = "nowhere".into()), ["admin.listen"]);
    assert!(paths(|c| c.admin.listen = String::new()).is_empty());
}

#[test]
fn p44_an_admin_listener_off_loopback_needs_a_token() {
    for far in ["0.0.0.0:9090", "[::]:9090", "10.0.0.1:9090", "admin.internal:9090"] {
        assert_eq!(paths(|c| c.admin.listen = far.into()), ["admin.token_env"], "{far}");
        assert!(
            paths(|c| {
                c.admin.listen = far.into();
                c.admin.token_env = "ADMIN_TOKEN".into();
            })
            .is_empty()
        );
    }
    for near in ["127.0.0.1:9090", "[::1]:9090", "localhost:9090", "unix:/run/admin.sock"] {
        assert!(paths(|c| c.admin.listen = near.into()).is_empty(), "{near}");
    }
    assert_eq!(paths(|c| c.admin.token_env = "not a name".into()), ["admin.token_env"]);
}

#[test]
fn p41_trusting_everybody_is_said_aloud() {
    assert_eq!(
        warned(|c| c.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]),
        ["server.trusted_proxies[1]"]
    );
}

#[test]
fn backends_are_urls_without_paths() {
    assert_eq!(paths(|c| c.upstream.urls = vec![]), ["upstream.urls"]);
    assert_eq!(
        paths(|c| c.upstream.urls = strings(&["http://a:1", "ws://b", "http://c/x", "http://a:1"])),
        ["upstream.urls[1]", "upstream.urls[2]", "upstream.urls[3]"]
    );
    assert_eq!(warned(|c| c.upstream.ca_file = Some("ca.pem".into())), ["upstream.ca_file"]);
}

#[test]
fn the_socketio_path_is_plain() {
    for bad in ["", "socket.io/", "/a//", "/a/../", "/a%2f/", "/a?b/", "/a b/", "/é/", "/a;b/", "/.siogate/"] {
        assert_eq!(paths(|c| c.socketio.path = bad.into()), ["socketio.path"], "{bad}");
    }
    for good in ["/socket.io/", "/", "/a/b-c_d.e~f/", "/ws@2/"] {
        assert!(warned(|c| c.socketio.path = good.into()).is_empty(), "{good}");
    }
    assert_eq!(warned(|c| c.socketio.path = "/socket.io".into()), ["socketio.path"]);
}

#[test]
fn p20_any_origin_is_refused_together_with_cookies() {
    let any = |sources: &[&str]| {
        let sources = strings(sources);
        paths(|c| {
            c.socketio.allowed_origins = strings(&["*"]);
            c.credentials.sources = sources;
        })
    };
    assert_eq!(any(&["auth:token", "cookie:token"]), ["socketio.allowed_origins[0]"]);
    assert!(any(&["auth:token", "header:authorization"]).is_empty());
    let not_alone = |c: &mut Config| {
        c.socketio.allowed_origins = strings(&["https://a", "*"]);
        c.credentials.sources = strings(&["auth:token"]);
    };
    assert_eq!(paths(not_alone), ["socketio.allowed_origins[1]"]);
}

#[test]
fn p19_origins_are_scheme_host_and_port() {
    assert_eq!(
        paths(|c| c.socketio.allowed_origins = strings(&["https://A.com", "null", "https://a/"])),
        ["socketio.allowed_origins[1]", "socketio.allowed_origins[2]"]
    );
}

#[test]
fn routes_have_plain_paths_of_their_own() {
    let route = |path: &str, auth| Route { path: path.into(), auth, websocket: false };
    let with = |list: &[&str]| {
        let routes = list.iter().map(|path| route(path, RouteAuth::Pass)).collect();
        paths(|c| c.http.route = routes)
    };
    assert!(with(&["/", "/api", "/api/v2", "/socket.iox"]).is_empty());
    assert_eq!(with(&["api", "", "/a/../b"]), ["http.route[0].path", "http.route[1].path", "http.route[2].path"]);
    assert_eq!(with(&["/api", "/api/"]), ["http.route[1].path"]);
    for under in ["/socket.io", "/socket.io/", "/socket.io/x", "/.siogate/refresh", "/.well-known/siogate"] {
        assert_eq!(with(&[under]), ["http.route[0].path"], "{under}");
    }
    let barred = |auth| {
        warned(|c| {
            c.credentials.sources = strings(&["auth:token"]);
            c.http.route = vec![route("/", auth)];
        })
    };
    assert_eq!(barred(RouteAuth::Require), ["http.route[0].auth"]);
    assert!(barred(RouteAuth::Optional).is_empty());
}

#[test]
fn an_issuer_has_exactly_one_source_of_keys() {
    assert_eq!(issuer_paths(|i| i.issuer = None), ["issuer[0]"]);
    assert_eq!(issuer_paths(|i| (i.issuer, i.key_file) = (None, Some("k".into()))), ["issuer[0].issuer"]);
    assert_eq!(issuer_paths(|i| i.issuer = Some(" ".into())), ["issuer[0].issuer"]);
    assert_eq!(
        issuer_paths(|i| (i.jwks_url, i.jwks_file) = (Some("https://a/j".into()), Some("j".into()))),
        ["issuer[0]"]
    );
    assert_eq!(issuer_paths(|i| (i.secret_env, i.secret_file) = (Some("S".into()), Some("s".into()))), ["issuer[0]"]);
    assert_eq!(issuer_paths(|i| (i.secret_env, i.key_file) = (Some("S".into()), Some("k".into()))), ["issuer[0]"]);
    for one in 0..5 {
        let change = |i: &mut Issuer| match one {
            0 => i.jwks_url = Some("https://a/jwks".into()),
            1 => i.jwks_file = Some("jwks.json".into()),
            2 => i.key_file = Some("key.pem".into()),
            3 => (i.secret_env, i.issuer) = (Some("JWT_SECRET".into()), None),
            _ => (i.secret_file, i.issuer) = (Some("secret".into()), None),
        };
        assert!(issuer_paths(change).is_empty(), "{one}");
    }
}

#[test]
fn keys_are_fetched_over_https_only() {
    assert_eq!(issuer_paths(|i| i.jwks_url = Some("http://login.example.com/jwks".into())), ["issuer[0].jwks_url"]);
    assert_eq!(issuer_paths(|i| i.issuer = Some("http://login.example.com".into())), ["issuer[0].issuer"]);
    assert_eq!(issuer_paths(|i| i.issuer = Some("accounts.example.com".into())), ["issuer[0].issuer"]);
    assert!(issuer_paths(|i| i.jwks_url = Some("http://127.0.0.1:1/jwks".into())).is_empty());
    assert!(issuer_paths(|i| (i.issuer, i.allow_http) = (Some("http://keycloak:8080/r".into()), true)).is_empty());
    let named = |i: &mut Issuer| (i.issuer, i.jwks_url) = (Some("accounts".into()), Some("https://a/j".into()));
    assert!(issuer_paths(named).is_empty(), "the name of an issuer is any string where the keys are named");
    assert_eq!(issuer_paths(|i| i.jwks_hosts = strings(&["a.b", "https://c"])), ["issuer[0].jwks_hosts[1]"]);
}

#[test]
fn j02_algorithms_fit_the_kind_of_key() {
    let algorithms = |list: &[&str], secret: bool| {
        let list = strings(list);
        issuer_paths(|i| {
            i.algorithms = list;
            if secret {
                (i.issuer, i.secret_env) = (None, Some("JWT_SECRET".into()));
            }
        })
    };
    assert!(algorithms(&["RS256", "PS512", "ES384", "EdDSA"], false).is_empty());
    assert!(algorithms(&["HS256", "HS384", "HS512"], true).is_empty());
    assert_eq!(algorithms(&["RS256", "HS256"], false), ["issuer[0].algorithms[1]"]);
    assert_eq!(algorithms(&["HS256", "RS256"], true), ["issuer[0].algorithms[1]"]);
    for unknown in ["none", "None", "", "ES512", "rs256", "RSA-OAEP"] {
        assert_eq!(algorithms(&[unknown], false), ["issuer[0].algorithms[0]"], "{unknown}");
        assert_eq!(algorithms(&[unknown], true), ["issuer[0].algorithms[0]"], "{unknown}");
    }
    let hint = checked(|c| c.issuer[0].algorithms = strings(&["rs256"])).to_string();
    assert!(hint.ends_with("did you mean \"RS256\"?"), "{hint}");
}

#[test]
fn j13_leeway_is_at_most_300_seconds() {
    assert!(issuer_paths(|i| i.leeway = Duration::from_secs(300)).is_empty());
    assert!(issuer_paths(|i| i.leeway = Duration::ZERO).is_empty());
    assert_eq!(issuer_paths(|i| i.leeway = Duration::from_secs(301)), ["issuer[0].leeway"]);
}

#[test]
fn j16_an_unchecked_audience_is_said_aloud() {
    assert_eq!(warned(|c| c.issuer[0].audience = vec![]), ["issuer[0].audience"]);
    let secret = |i: &mut Issuer| {
        *i = Issuer { secret_env: Some("JWT_SECRET".into()), ..Issuer::default() };
    };
    assert!(warned(|c| secret(&mut c.issuer[0])).is_empty());
    assert_eq!(issuer_paths(|i| i.audience = strings(&["a", " "])), ["issuer[0].audience[1]"]);
    assert_eq!(issuer_paths(|i| i.typ = strings(&[""])), ["issuer[0].typ[0]"]);
    assert_eq!(
        issuer_paths(|i| i.typ = strings(&["at+jwt", "Logout+JWT", "application/secevent+jwt"])),
        ["issuer[0].typ[1]", "issuer[0].typ[2]"]
    );
}

#[test]
fn issuers_are_told_apart_by_name() {
    let two = |name: Option<&str>| {
        let name = name.map(String::from);
        paths(|c| {
            for issuer in [&name, &name] {
                c.issuer.push(Issuer { issuer: issuer.clone(), secret_env: Some("S".into()), ..Issuer::default() });
            }
        })
    };
    assert_eq!(two(Some("a")), ["issuer[2].issuer"]);
    assert_eq!(two(None), ["issuer[2].issuer"]);
}

#[test]
fn a_variable_s_name_is_checked_and_not_repeated() {
    let problems = checked(|c| c.issuer[0] = Issuer { secret_env: Some("hunter2!".into()), ..Issuer::default() });
    assert_eq!(problems.errors.len(), 1);
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
    assert_eq!(issuer_paths(|i| i.previous_secret_env = Some("OLD".into())), ["issuer[0].previous_secret_env"]);
    let useless = |i: &mut Issuer| {
        *i = Issuer { secret_env: Some("S".into()), allow_http: true, ca_file: Some("x".into()), ..Issuer::default() };
    };
    assert_eq!(warned(|c| useless(&mut c.issuer[0])), ["issuer[0].ca_file", "issuer[0].allow_http"]);
}

#[test]
fn sources_are_places_and_names() {
    let with = |list: &[&str]| {
        let list = strings(list);
        paths(|c| c.credentials.sources = list)
    };
    assert!(
        with(&[
            "auth:user.token",
            "header:Authorization",
            "header:x-token",
            "query:access_token",
            "cookie:sid",
            "subprotocol:bearer"
        ])
        .is_empty()
    );
    for bad in [
        "token",
        "auth:",
        "auth:a..b",
        "header:",
        "header:a b",
        "header:cookie",
        "header:host",
        "header:Sec-WebSocket-Key",
        "header:sec-websocket-protocol",
        "query:",
        "query:sid",
        "query:EIO",
        "query:a b",
        "cookie:a;b",
        "subprotocol:a,b",
        "body:token",
        "AUTH:token",
        " auth:token",
        "",
    ] {
        assert_eq!(with(&[bad, "auth:other"]), ["credentials.sources[0]"], "{bad}");
    }
    assert_eq!(with(&[]), ["credentials.sources"]);
    assert_eq!(with(&["header:X-Token", "header:x-token"]), ["credentials.sources[1]"]);
    assert!(with(&["query:a", "query:A"]).is_empty(), "queries have case");
}

#[test]
fn raw_engine_io_has_no_connect_packet_for_a_credential() {
    let raw = |sources: &[&str]| {
        let sources = strings(sources);
        paths(|c| {
            c.socketio.protocol = Protocol::EngineIo;
            c.credentials.sources = sources;
        })
    };
    assert_eq!(raw(&["auth:token"]), ["credentials.sources"]);
    assert!(raw(&["auth:token", "query:token"]).is_empty());
}

#[test]
fn p01_identity_headers_are_names_that_nothing_else_means() {
    let with = |list: &[(&str, &str)]| {
        let headers = list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        paths(|c| c.identity.headers = headers)
    };
    assert!(with(&[("x-auth-email", "email"), ("X-User", "user.id"), ("x-s", "$session")]).is_empty());
    for bad in [
        "host",
        "Host",
        "connection",
        "cookie",
        "set_cookie",
        "authorization",
        "content-length",
        "content.length",
        "Transfer-Encoding",
        "transfer_encoding",
        "upgrade",
        "sec-websocket-key",
        "sec_websocket_accept",
        "x-forwarded-for",
        "x_forwarded_proto",
        "forwarded",
        "origin",
        "te",
        "keep-alive",
        "expect",
        "sec-fetch-site",
        "traceparent",
    ] {
        assert_eq!(with(&[(bad, "sub")]).len(), 1, "{bad}");
    }
    assert_eq!(with(&[("x a", "sub"), ("x-b", ""), ("x-c", "$x"), ("x-d", "a..b")]).len(), 4);
    assert_eq!(with(&[("x-auth-user", "sub"), ("X_Auth.User", "email")]).len(), 1);
    assert_eq!(
        paths(|c| {
            c.credentials.sources = strings(&["header:X-Token"]);
            c.identity.headers = [("x_token".to_string(), "sub".to_string())].into();
        }),
        ["identity.headers.x_token"]
    );
}

#[test]
fn p25_the_assertion_has_a_header_and_names_of_its_own() {
    let with = |assertion: Assertion| paths(|c| c.identity.assertion = Some(assertion));
    assert!(with(Assertion::default()).is_empty());
    assert_eq!(
        with(Assertion { header: "X_Auth_Subject".into(), ..Assertion::default() }),
        ["identity.assertion.header"]
    );
    assert_eq!(with(Assertion { header: "cookie".into(), ..Assertion::default() }), ["identity.assertion.header"]);
    assert_eq!(with(Assertion { audience: " ".into(), ..Assertion::default() }), ["identity.assertion.audience"]);
    assert_eq!(with(Assertion { issuer: String::new(), ..Assertion::default() }), ["identity.assertion.issuer"]);
}

#[test]
fn claims_for_the_backend_are_named() {
    assert_eq!(paths(|c| c.identity.claims = strings(&["email", "", "$session"])).len(), 2);
    let claims = |c: &mut Config| {
        c.identity.headers.insert("x-auth-claims".into(), "$claims".into());
    };
    assert_eq!(warned(claims), ["identity.headers.x-auth-claims"]);
}

#[test]
fn times_are_neither_zero_nor_endless() {
    let changes: [fn(&mut Config, Duration); 9] = [
        |c, d| c.upstream.connect_timeout = d,
        |c, d| c.socketio.connect_deadline = d,
        |c, d| c.socketio.ping_interval = Some(d),
        |c, d| c.socketio.ping_timeout = Some(d),
        |c, d| c.session.max_lifetime = d,
        |c, d| c.limits.header_timeout = d,
        |c, d| c.limits.body_timeout = d,
        |c, d| c.limits.write_timeout = d,
        |c, d| c.issuer[0].max_age = Some(d),
    ];
    for change in changes {
        assert_eq!(paths(|c| change(c, Duration::ZERO)).len(), 1);
        assert_eq!(paths(|c| change(c, Duration::MAX)).len(), 1);
        assert!(paths(|c| change(c, Duration::from_secs(1))).is_empty());
    }
    assert!(paths(|c| c.server.drain_timeout = Duration::ZERO).is_empty());
    assert_eq!(paths(|c| c.server.drain_timeout = Duration::MAX), ["server.drain_timeout"]);
}

#[test]
fn a_heartbeat_fits_a_javascript_timer() {
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(
        paths(|c| (c.socketio.ping_interval, c.socketio.ping_timeout) = (Some(day * 20), Some(day * 10))),
        ["socketio.ping_interval"]
    );
    assert!(paths(|c| c.socketio.ping_interval = Some(day * 24)).is_empty());
}

#[test]
fn limits_admit_something_and_bound_it() {
    let changes: [fn(&mut Config); 6] = [
        |c| c.limits.max_sessions = 0,
        |c| c.limits.max_unauthenticated = 0,
        |c| c.limits.max_unauthenticated_per_ip = 0,
        |c| c.limits.max_packets_per_payload = 0,
        |c| c.limits.max_queue = 0,
        |c| c.socketio.max_payload = Some(0),
    ];
    for change in changes {
        assert_eq!(paths(change).len(), 1);
    }
    for (size, good) in [(0, false), (8191, false), (8192, true), (1 << 20, true), (usize::MAX, false)] {
        assert_eq!(paths(|c| c.limits.max_header_size = size).is_empty(), good, "{size}");
    }
}

#[test]
fn log_levels_are_words_or_filters() {
    for good in ["info", "DEBUG", "off", "info,siogate=debug", "siogate::proxy=trace, hyper=warn"] {
        assert!(paths(|c| c.log.level = good.into()).is_empty(), "{good}");
    }
    for bad in ["", "verbose", "info,", "siogate=", "=info", "siogate=loud"] {
        assert_eq!(paths(|c| c.log.level = bad.into()), ["log.level"], "{bad}");
    }
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
