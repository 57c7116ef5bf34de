//! Path tricks and host tricks.

use super::*;
use http::HeaderValue;
use proptest::prelude::*;

const PATH: &str = "/socket.io/";

fn place(path: &str) -> Result<Place, TargetError> {
    classify(path, PATH)
}

#[test]
fn the_path_and_what_lies_beside_it() {
    for (path, expected) in [
        ("/socket.io/", Place::Engine),
        ("/socket.io/socket.io.js", Place::Bundle),
        ("/socket.io/socket.io.js.map", Place::Bundle),
        ("/socket.io/socket.io.min.js", Place::Bundle),
        ("/socket.io/socket.io.esm.min.js", Place::Bundle),
        ("/socket.io/socket.io.esm.min.js.map", Place::Bundle),
        ("/socket.io/socket.io.msgpack.min.js", Place::Bundle),
        ("/", Place::Other),
        ("/api/items", Place::Other),
        ("/api/items/", Place::Other),
        ("/a%20b/%C3%A9/%3Fx", Place::Other),
        ("/socket.iofoo", Place::Other),
        ("/socket.io.js", Place::Other),
        ("/x/socket.io/", Place::Other),
    ] {
        assert_eq!(place(path), Ok(expected), "{path}");
    }
}

#[test]
fn p10_whatever_a_backend_could_take_for_the_path_is_never_ordinary() {
    for path in [
        "/socket.io",
        "/socket.io/foo",
        "/socket.io/foo/",
        "/socket.io/foo/socket.io.js",
        "/socket.io/socket.io.js/",
        "/socket.io/socket.io.jsx",
        "/socket.io/socket.io.min.min.js",
        "/socket.io/socket.io.min.esm.js",
        "/socket.io/socket.io.css",
        "/socket.io/Socket.io.js",
        "/SOCKET.IO/",
        "/Socket.IO",
        "/socket.io/%20",
    ] {
        assert_eq!(place(path), Ok(Place::Under), "{path}");
    }
}

#[test]
fn p10_path_tricks_are_refused() {
    for (path, error) in [
        ("//socket.io/", TargetError::Segment),
        ("/socket.io//", TargetError::Segment),
        ("//", TargetError::Segment),
        ("/x/../socket.io/", TargetError::Segment),
        ("/socket.io/..", TargetError::Segment),
        ("/socket.io/.", TargetError::Segment),
        ("/./socket.io/", TargetError::Segment),
        ("/%73ocket.io/", TargetError::AmbiguousEscape),
        ("/socket%2Eio/", TargetError::AmbiguousEscape),
        ("/socket%2eio/", TargetError::AmbiguousEscape),
        ("/socket.io/%2e%2e/x", TargetError::AmbiguousEscape),
        ("/x%2fsocket.io/", TargetError::AmbiguousEscape),
        ("/socket.io%2F", TargetError::AmbiguousEscape),
        ("/x%5csocket.io/", TargetError::AmbiguousEscape),
        ("/socket.io/%00", TargetError::AmbiguousEscape),
        ("/a%0d%0aX:y", TargetError::AmbiguousEscape),
        ("/a%7f", TargetError::AmbiguousEscape),
        ("/a%7E", TargetError::AmbiguousEscape),
        ("/socket.io/..;/admin", TargetError::RawCharacter),
        ("/socket.io;x/", TargetError::RawCharacter),
        ("\\socket.io\\", TargetError::NotAPath),
        ("/x\\socket.io/", TargetError::RawCharacter),
        ("/socket.io/#x", TargetError::RawCharacter),
        ("/socket.io/?x", TargetError::RawCharacter),
        ("/sÖcket.io/", TargetError::RawCharacter),
        ("/a b", TargetError::RawCharacter),
        ("/a\tb", TargetError::RawCharacter),
        ("/a\0", TargetError::RawCharacter),
        ("/a\u{7f}", TargetError::RawCharacter),
        ("/a%", TargetError::BadEscape),
        ("/a%4", TargetError::BadEscape),
        ("/a%zz", TargetError::BadEscape),
        ("/a%%41", TargetError::BadEscape),
        ("*", TargetError::NotAPath),
        ("", TargetError::NotAPath),
        ("socket.io/", TargetError::NotAPath),
        ("http://x/socket.io/", TargetError::NotAPath),
    ] {
        assert_eq!(place(path), Err(error), "{path:?}");
    }
}

#[test]
fn other_configured_paths() {
    for (path, configured, expected) in [
        ("/ws", "/ws", Place::Engine),
        ("/ws/", "/ws", Place::Under),
        ("/wsfoo", "/ws", Place::Under),
        ("/ws/socket.io.js", "/ws", Place::Bundle),
        ("/ws/", "/ws/", Place::Engine),
        ("/wsfoo", "/ws/", Place::Other),
        ("/api/v1/socket.io/", "/api/v1/socket.io/", Place::Engine),
        ("/api/v1", "/api/v1/socket.io/", Place::Other),
        ("/api@v1/", "/api@v1/", Place::Engine),
        ("/api%40v1/", "/api@v1/", Place::Under),
        ("/api%40V1", "/api@v1/", Place::Under),
        ("/", "/", Place::Engine),
        ("/x", "/", Place::Under),
        ("/socket.io.js", "/", Place::Bundle),
    ] {
        assert_eq!(classify(path, configured), Ok(expected), "{path} {configured}");
    }
}

fn ask(uri: &str, hosts: &[&str]) -> Result<String, TargetError> {
    let mut headers = HeaderMap::new();
    for host in hosts {
        headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
    }
    authority(&uri.parse().unwrap(), &headers)
}

#[test]
fn p11_the_host_must_be_one_and_the_targets_own() {
    assert_eq!(ask("/x", &["App.example:8080"]).as_deref(), Ok("app.example:8080"));
    assert_eq!(ask("/x", &["[::1]:80"]).as_deref(), Ok("[::1]:80"));
    assert_eq!(ask("/x", &["127.0.0.1"]).as_deref(), Ok("127.0.0.1"));
    assert_eq!(ask("http://App.example/x", &["app.example"]).as_deref(), Ok("app.example"));
    assert_eq!(ask("/x", &[]), Err(TargetError::HostCount));
    assert_eq!(ask("/x", &["a", "a"]), Err(TargetError::HostCount));
    assert_eq!(ask("http://a/x", &[]), Err(TargetError::HostCount));
    for (uri, host) in [
        ("http://evil/x", "app"),
        ("http://app:81/x", "app"),
        ("http://user@app/x", "app"),
        ("ftp://app/x", "app"),
        ("app:443", "app:443"),
    ] {
        assert_eq!(ask(uri, &[host]), Err(TargetError::HostMismatch), "{uri}");
    }
    for host in [
        "",
        "a b",
        "user@app",
        "app:",
        "app:x",
        "app:99999",
        "app:080800",
        "a,b",
        "a/b",
        "::1",
        "[::1",
        "[x]",
        "[::1]x",
        "é",
        "a:1:2",
        "app:+1",
    ] {
        assert_eq!(ask("/x", &[host]), Err(TargetError::BadHost), "{host:?}");
    }
}

proptest! {
    #[test]
    fn judging_never_panics(path: String, near in "/(socket|%2e|[.]|%|io|/|[a-z%0-9;]){0,8}") {
        for path in [path, near] {
            let _ = (classify(&path, PATH), classify(&path, &path), is_authority(&path));
        }
    }

    /// Decoding, folding and resolving a path that was let pass as ordinary never leads into the Socket.IO path.
    #[test]
    fn p10_no_reading_of_an_ordinary_path_leads_in(
        path in "/?(socket[.]io|SOCKET[.]IO|socket|[.]io|[.][.]?|/|//|x|%2[eEfF]|%5c|%73|;|\\\\){1,8}",
    ) {
        if classify(&path, PATH) == Ok(Place::Other) {
            let mut resolved: Vec<Vec<u8>> = Vec::new();
            for segment in fold(&fold(&path).iter().map(|b| char::from(*b)).collect::<String>()).split(|b| b"/\\".contains(b)) {
                match segment.split(|b| *b == b';').next().unwrap_or_default() {
                    b"" | b"." => {}
                    b".." => drop(resolved.pop()),
                    segment => resolved.push(segment.to_vec()),
                }
            }
            prop_assert_ne!(resolved.first().map(Vec::as_slice), Some(b"socket.io".as_slice()));
        }
    }
}
