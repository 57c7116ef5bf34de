use super::*;
use secrecy::ExposeSecret;
use serde_json::json;

fn sources(list: &[&str]) -> Sources {
    Sources::parse(list).unwrap()
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn lines(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// `token@source`, `!` for malformed, empty for none.
fn said(found: Found) -> String {
    match found {
        Found::None => String::new(),
        Found::Token { token, source, cookie } => {
            format!("{}@{source}{}", token.expose_secret(), if cookie { " cookie" } else { "" })
        }
        Found::Malformed { detail } => {
            assert!(!detail.contains("xyz"), "{detail}");
            "!".into()
        }
    }
}

fn find(list: &[&str], lines: &[(&str, &str)], query: &[(&str, &str)]) -> String {
    let all = |name: &str| query.iter().filter(|(key, _)| *key == name).map(|(_, value)| value.to_string()).collect();
    said(sources(list).in_request(&headers(lines), all))
}

#[test]
fn p23_the_first_place_that_holds_something_decides() {
    let list = ["auth:token", "header:authorization", "query:token", "cookie:token", "subprotocol:jwt"];
    let header = ("authorization", "Bearer xyz-h");
    let cookie = ("cookie", "token=xyz-c");
    let protocol = ("sec-websocket-protocol", "jwt, xyz-p");
    let query = [("token", "xyz-q")];
    assert_eq!(find(&list, &[header, cookie, protocol], &query), "xyz-h@1");
    assert_eq!(find(&list, &[cookie, protocol], &query), "xyz-q@2");
    assert_eq!(find(&list, &[cookie, protocol], &[]), "xyz-c@3 cookie");
    assert_eq!(find(&list, &[protocol], &[]), "xyz-p@4");
    assert_eq!(find(&list, &[], &[]), "");
    let reversed = ["subprotocol:jwt", "cookie:token", "query:token", "header:authorization"];
    assert_eq!(find(&reversed, &[header, cookie, protocol], &query), "xyz-p@0");
    assert_eq!(find(&reversed, &[header, cookie], &query), "xyz-c@1 cookie");
    // Something unreadable in a higher place is not passed over for a lower one.
    assert_eq!(find(&list, &[("authorization", "Bearer xyz-a xyz-b"), cookie], &query), "!");
    assert_eq!(find(&["cookie:token"], &[header], &query), "", "not a configured place");
}

#[test]
fn the_authorization_header_holds_one_bearer_token() {
    for (values, expected) in [
        (&["Bearer xyz"][..], "xyz@0"),
        (&["bearer xyz"], "xyz@0"),
        (&["BEARER   xyz  "], "xyz@0"),
        (&["Bearer xyz", "Bearer xyz"], "xyz@0"),
        (&["Bearer xyz", "Bearer xyz2"], "!"),
        (&["Bearer xyz, Bearer xyz2"], "!"),
        (&["Bearer xyz,xyz2"], "!"),
        (&["Bearer xyz xyz2"], "!"),
        (&["Bearer xyz\ttok2"], "!"),
        (&["Bearer"], "!"),
        (&["Bearer "], "!"),
        (&["xyz"], "!"),
        (&[""], "!"),
        (&["Bearer tök"], "!"),
        (&["Bearer\ttok"], "!"),
        (&["Basic dXNlcjpwYXNz"], ""),
        (&["DPoP xyz"], ""),
        (&["Bearerx xyz"], ""),
        (&["Basic dXNlcjpwYXNz", "Bearer xyz"], "xyz@0"),
    ] {
        let lines: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
        assert_eq!(find(&["header:Authorization"], &lines, &[]), expected, "{values:?}");
    }
}

#[test]
fn other_headers_and_the_query_hold_the_token_as_it_is() {
    for (values, expected) in [
        (&["xyz"][..], "xyz@0"),
        (&["Bearer xyz"], "xyz@0"),
        (&["xyz", "xyz"], "xyz@0"),
        (&["xyz", "xyz2"], "!"),
        (&["xyz", ""], "!"),
        (&[""], ""),
        (&[], ""),
    ] {
        let lines: Vec<_> = values.iter().map(|value| ("x-access-token", *value)).collect();
        assert_eq!(find(&["header:X-Access-Token"], &lines, &[]), expected, "header {values:?}");
        let query: Vec<_> = values.iter().map(|value| ("token", *value)).collect();
        assert_eq!(find(&["query:token"], &[], &query), expected, "query {values:?}");
    }
    assert_eq!(find(&["header:x-access-token"], &[("x-access-token", "tök")], &[]), "!");
    assert_eq!(find(&["query:token"], &[], &[("Token", "xyz")]), "", "names have a case");
}

#[test]
fn c05_a_cookie_stands_there_once() {
    for (values, expected) in [
        (&["token=xyz"][..], "xyz@0 cookie"),
        (&["a=1; token=xyz; b=2"], "xyz@0 cookie"),
        (&["a=1;token=xyz"], "xyz@0 cookie"),
        (&["a=1", "token=xyz"], "xyz@0 cookie"),
        (&["token=\"xyz\""], "xyz@0 cookie"),
        (&["token=xyz; token=xyz"], "xyz@0 cookie"),
        (&["token=xyz; token=xyz2"], "!"),
        (&["token=xyz", "token=xyz2"], "!"),
        (&["token=xyz; token="], "!"),
        (&["token=tök"], "!"),
        (&["token=to k"], "!"),
        (&["token="], ""),
        (&["token"], ""),
        (&["Token=xyz; xtoken=xyz; token2=xyz"], ""),
        (&["a=token=xyz"], ""),
        (&["a=\"; token=xyz\""], "xyz\"@0 cookie"),
    ] {
        let lines: Vec<_> = values.iter().map(|value| ("cookie", *value)).collect();
        assert_eq!(find(&["cookie:token"], &lines, &[]), expected, "{values:?}");
    }
}

#[test]
fn a_subprotocol_is_followed_by_its_token() {
    for (values, expected) in [
        (&["jwt, xyz"][..], "xyz@0"),
        (&["jwt,xyz"], "xyz@0"),
        (&["chat, jwt, xyz, other"], "xyz@0"),
        (&["chat, jwt", "xyz"], "xyz@0"),
        (&["jwt, xyz, jwt, xyz"], "xyz@0"),
        (&["jwt, xyz, jwt, xyz2"], "!"),
        (&["jwt, jwt"], "jwt@0"),
        (&["jwt"], ""),
        (&["jwt, "], ""),
        (&["JWT, xyz"], ""),
        (&["xyz, chat"], ""),
    ] {
        let lines: Vec<_> = values.iter().map(|value| ("sec-websocket-protocol", *value)).collect();
        assert_eq!(find(&["subprotocol:jwt"], &lines, &[]), expected, "{values:?}");
        let answer = sources(&["header:authorization", "subprotocol:jwt"]);
        let answer = answer.subprotocol_answer(&headers(&lines)).is_some();
        assert_eq!(answer, expected.ends_with("@0"), "{values:?}");
    }
}

#[test]
fn the_connect_payload_is_read_by_path() {
    let find = |list: &[&str], data: Value| said(sources(list).in_connect(data.as_object()));
    for (data, expected) in [
        (json!({"token": "xyz"}), "xyz@1"),
        (json!({"token": "Bearer xyz"}), "xyz@1"),
        (json!({"token": "bearer  xyz"}), "xyz@1"),
        (json!({"user": {"jwt": "xyz2"}, "token": "xyz"}), "xyz@1"),
        (json!({"user": {"jwt": "xyz2"}}), "xyz2@2"),
        (json!({"user.jwt": "xyz3", "user": {"jwt": "xyz2"}}), "xyz3@2"),
        (json!({"token": null, "user": {"jwt": "xyz2"}}), "xyz2@2"),
        (json!({"token": "", "user": {"jwt": "xyz2"}}), "xyz2@2"),
        (json!({"token": 7, "user": {"jwt": "xyz2"}}), "!"),
        (json!({"token": {"toString": 1}}), "!"),
        (json!({"token": ["xyz"]}), "!"),
        (json!({"__proto__": {"token": "xyz"}}), ""),
        (json!({}), ""),
        (json!(null), ""),
    ] {
        let list = ["header:authorization", "auth:token", "auth:user.jwt"];
        assert_eq!(find(&list, data.clone()), expected, "{data}");
    }
    assert!(sources(&["auth:token"]).reads_connect() && !sources(&["cookie:a"]).reads_connect());
    assert!(sources(&["cookie:a"]).reads_cookies() && !sources(&["auth:token"]).reads_cookies());
    assert_eq!(sources(&["auth:token", "query:t0"]).name(1), "query:t0");
    assert_eq!(sources(&["auth:token"]).name(9), "");
}

#[test]
fn p24_credentials_are_taken_out_and_the_rest_is_untouched() {
    let list =
        ["header:authorization", "header:x-token", "cookie:token", "cookie:session", "subprotocol:jwt", "query:t0"];
    for (before, after) in [
        (vec![("authorization", "Bearer xyz")], vec![]),
        (vec![("authorization", "bearer  xyz")], vec![]),
        (vec![("authorization", "Bearer")], vec![]),
        (vec![("authorization", "xyz")], vec![]),
        (
            vec![("authorization", "Basic dXNlcg=="), ("authorization", "Bearer xyz")],
            vec![("authorization", "Basic dXNlcg==")],
        ),
        (vec![("x-token", "xyz"), ("x-token", "xyz2"), ("x-other", "1")], vec![("x-other", "1")]),
        (vec![("cookie", "token=xyz")], vec![]),
        (vec![("cookie", "token=xyz; session=xyz")], vec![]),
        (vec![("cookie", "a=1; token=xyz; b=\"x y\";c==")], vec![("cookie", "a=1; b=\"x y\";c==")]),
        (vec![("cookie", "token=xyz;  a=1 ;b")], vec![("cookie", "a=1 ;b")]),
        (vec![("cookie", "a=1; token=xyz")], vec![("cookie", "a=1")]),
        (vec![("cookie", "token=xyz; token=xyz2; a=ö")], vec![("cookie", "a=ö")]),
        (vec![("cookie", "token =xyz; a=1")], vec![("cookie", "a=1")]),
        (vec![("cookie", "a=1"), ("cookie", "token=xyz")], vec![("cookie", "a=1")]),
        (vec![("cookie", "a=1;; Token=x; tokens=y; =; token")], vec![("cookie", "a=1;; Token=x; tokens=y; =; token")]),
        (vec![("sec-websocket-protocol", "jwt, xyz")], vec![]),
        (vec![("sec-websocket-protocol", "chat, jwt, xyz,v2")], vec![("sec-websocket-protocol", "chat, v2")]),
        (vec![("sec-websocket-protocol", "chat,  v2")], vec![("sec-websocket-protocol", "chat,  v2")]),
        (vec![("sec-websocket-protocol", "jwt, tök")], vec![]),
        (vec![("x-other", "Bearer xyz")], vec![("x-other", "Bearer xyz")]),
    ] {
        let mut map = HeaderMap::new();
        sources(&list).without_credentials(&headers(&before), Passed::None, |name, value| {
            map.append(name, value.clone());
        });
        assert_eq!(lines(&map), lines(&headers(&after)), "{before:?}");
    }
    assert_eq!(sources(&list).query_names(), ["t0"]);
}

#[test]
fn p24_only_the_verified_one_of_several_credentials_goes_on() {
    let list = ["header:authorization", "header:x-token", "query:t0", "query:t1", "cookie:token", "subprotocol:jwt"];
    let sources = sources(&list).with_session("sid", 0, false).with_session("sid2", 1, true);
    let before = headers(&[
        ("authorization", "Bearer xyz"),
        ("x-token", "xyz"),
        ("cookie", "a=1; token=xyz; sid=s; sid2=s"),
        ("sec-websocket-protocol", "chat, jwt, xyz"),
    ]);
    let rest = [("cookie", "a=1; sid2=s"), ("sec-websocket-protocol", "chat")];
    let with = |line: (&'static str, &'static str)| {
        let mut lines = vec![line];
        lines.extend(rest.iter().filter(|(name, _)| *name != line.0));
        lines
    };
    for (passed, after, withheld) in [
        (Passed::None, rest.to_vec(), vec!["t0", "t1"]),
        (Passed::Verified(0), with(("authorization", "Bearer xyz")), vec!["t0", "t1"]),
        (Passed::Verified(1), with(("x-token", "xyz")), vec!["t0", "t1"]),
        (Passed::Verified(2), rest.to_vec(), vec!["t1"]),
        (Passed::Verified(4), with(("cookie", "a=1; token=xyz; sid2=s")), vec!["t0", "t1"]),
        (Passed::Verified(5), with(("sec-websocket-protocol", "chat, jwt, xyz")), vec!["t0", "t1"]),
        // What becomes of a store's cookie is said with the store.
        (Passed::Verified(6), rest.to_vec(), vec!["t0", "t1"]),
    ] {
        let mut map = HeaderMap::new();
        sources.without_credentials(&before, passed, |name, value| {
            map.append(name, value.clone());
        });
        let (mut got, mut want) = (lines(&map), lines(&headers(&after)));
        got.sort();
        want.sort();
        assert_eq!(got, want, "{passed:?}");
        assert_eq!(sources.query_names_withheld(passed).collect::<Vec<_>>(), withheld, "{passed:?}");
    }
    let mut map = HeaderMap::new();
    sources.without_credentials(&before, Passed::All, |name, value| {
        map.append(name, value.clone());
    });
    assert_eq!(map[COOKIE], "a=1; token=xyz; sid2=s");
    assert_eq!(map[AUTHORIZATION], "Bearer xyz");
}

#[test]
fn p24_what_was_taken_out_cannot_be_found_again() {
    let sources = sources(&["auth:token", "auth:user.jwt", "auth:a.b.c"]);
    for (before, after) in [
        (json!({"token": "xyz", "room": 1}), json!({"room": 1})),
        (json!({"token": ["xyz"]}), json!({})),
        (json!({"user": {"jwt": "xyz", "id": 7}}), json!({"user": {"id": 7}})),
        (json!({"user.jwt": "xyz", "user": {"jwt": "xyz"}}), json!({"user": {}})),
        (json!({"a.b": {"c": 1}, "a": {"b": {"c": 1, "d": 2}, "b.c": 1}}), json!({"a.b": {}, "a": {"b": {"d": 2}}})),
        (json!({"user": "text", "a": [1]}), json!({"user": "text", "a": [1]})),
    ] {
        let Value::Object(mut data) = before.clone() else { unreachable!() };
        sources.strip_connect(&mut data, Passed::None);
        assert!(matches!(sources.in_connect(Some(&data)), Found::None));
        assert_eq!(Value::Object(data), after, "{before}");
    }
}

#[test]
fn unusable_sources_are_refused_together() {
    let bad = [
        "token",
        "",
        ":",
        "auth:",
        "header:",
        "header:x y",
        "header:cookie",
        "header:Host",
        "query:",
        "query:sid",
        "query:EIO",
        "cookie:",
        "cookie:a b",
        "cookie:a=b",
        "subprotocol:a,b",
        "body:token",
        "Auth:token",
    ];
    assert_eq!(Sources::parse(&bad).unwrap_err().len(), bad.len());
    let twice = Sources::parse(&["header:X-Token", "header:x-token", "cookie:a", "cookie:A"]).unwrap_err();
    assert_eq!(twice, ["\"header:x-token\" stands twice"]);
    let config = crate::config::model::issuers::Credentials::default();
    assert!(Sources::parse(&config.sources).is_ok());
    assert!(Sources::parse(&[] as &[&str]).is_ok());
}

#[test]
fn p22_debug_shows_no_credential() {
    let found = sources(&["query:token"]).in_request(&HeaderMap::new(), |_| vec!["secret-value".into()]);
    assert!(!format!("{found:?}").contains("secret-value"));
}
