//! Rules about issuers, their keys and where credentials are looked for.

use super::*;
use crate::config::model::Protocol;

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
