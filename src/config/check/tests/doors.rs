//! Rules about listeners, backends, origins and routes.

use super::*;
use crate::config::model::{Route, RouteAuth};

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
