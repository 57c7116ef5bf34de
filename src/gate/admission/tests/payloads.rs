//! What of a CONNECT goes on to the backend: its spelling, credentials, recovery ids.

use super::*;
use std::cell::RefCell;

#[test]
fn a_connect_goes_on_in_the_gates_own_spelling() {
    let mut s = Session::of("alice");
    assert_eq!(s.client("0"), replace("40"));
    assert_eq!(s.client(r#"0/admin,{ "a" : 1 }"#), replace(r#"40/admin,{"a":1}"#));
    assert_eq!(s.client("0/other"), replace("40/other,"));
    s.rules = rules(true);
    assert_eq!(s.client(r#"0/third,{"token":"good:alice"}"#), replace(r#"40/third,{"token":"good:alice"}"#));
}

#[test]
fn p51_recovery_ids_of_others_are_taken_out_with_their_offset() {
    let owns = |pid: &str, user: &User| pid == "alices" && &*user.subject == "alice";
    let connect = r#"0{"pid":"alices","offset":"o","token":"good:alice"}"#;
    let mut s = Session::stranger();
    assert_eq!(s.client_owning(connect, &owns), replace(r#"40{"offset":"o","pid":"alices"}"#));
    let mut s = Session::stranger();
    let stolen = connect.replace("good:alice", "good:bob");
    assert_eq!(s.client_owning(&stolen, &owns), replace("40{}"), "bob knows alice's pid");
    let cases = [
        (r#"{"pid":"other","offset":"o"}"#, "{}"),
        (r#"{"offset":"o","x":1}"#, r#"{"x":1}"#),
        (r#"{"pid":5,"offset":"o"}"#, "{}"),
        (r#"{"pid":["alices"],"offset":"o"}"#, "{}"),
        (r#"{"pid":null}"#, "{}"),
        (r#"{"pid":"alices"}"#, r#"{"pid":"alices"}"#),
    ];
    for (given, want) in cases {
        let mut s = Session::of("alice");
        assert_eq!(s.client_owning(&format!("0/a,{given}"), &owns), replace(&format!("40/a,{want}")), "{given}");
    }
}

#[test]
fn the_user_asked_for_a_recovery_id_is_the_sessions() {
    let asked = RefCell::new(Vec::new());
    let owns = |pid: &str, user: &User| {
        asked.borrow_mut().push(format!("{pid} {} {}", user.issuer, user.subject));
        true
    };
    let mut s = Session::stranger();
    s.client_owning(r#"0{"pid":"p","token":"good:carol"}"#, &owns);
    assert_eq!(*asked.borrow(), ["p idp carol"]);
}

#[test]
fn what_the_backend_gave_out_as_recovery_id_is_reported() {
    let mut s = Session::of("alice");
    s.client("0");
    assert_eq!(s.server(r#"0{"sid":"s","pid":"p"}"#).as_deref(), Some("p"));
    assert_eq!(s.server(r#"0{"sid":"s"}"#), None);
    for other in ["", "2[\"pid\"]", "0{broken", "0[]", "9", "1", r#"4{"pid":"x"}"#] {
        assert_eq!(s.server(other), None, "{other}");
    }
}

#[test]
fn p22_credentials_in_a_namespaces_query_are_taken_out() {
    let mut s = Session::of_v3("alice");
    assert_eq!(s.client("0/a?x=1&token=t&y=2,"), replace("40/a?x=1&y=2,"));
    assert_eq!(s.client("0/b?token=t,"), replace("40/b,"));
    assert_eq!(s.client("0/c?%74oken=t&KEY=1&key=2&tok%65n,"), replace("40/c?KEY=1,"), "any spelling of the name");
    assert_eq!(s.client("0/d?x=token=t,"), replace("40/d?x=token=t,"));
}

#[test]
fn p51_a_credential_in_a_namespaces_query_goes_on_only_where_it_was_verified() {
    let mut s = Session::of_v3("alice");
    s.rules = rules(true);
    assert_eq!(s.first("0/a?x=1&token=t,"), Said::Judge("t".into()));
    let of_v3 = |namespace: &str, reason: Reason| {
        Said::Answer(socketio::connect_error(Version::V3, namespace, reason.message(), reason.word()))
    };
    for (text, want) in [
        ("0/a?token=good:alice&x=1,", replace("40/a?token=good:alice&x=1,")),
        ("0/b?%74oken=Bearer+good:alice,", replace("40/b?%74oken=Bearer+good:alice,")),
        ("0/c?token=good:bob,", of_v3("/c", Reason::SubjectMismatch)),
        ("0/c?tok%65n=t,", of_v3("/c", Reason::SignatureInvalid)),
        ("0/c?token=good:alice&token=good:bob,", of_v3("/c", Reason::CredentialMalformed)),
        // What stands in another place was not looked at.
        ("0/c?token=good:alice&key=good:bob&x=1,", replace("40/c?token=good:alice&x=1,")),
        ("0/d?key=good:bob,", of_v3("/d", Reason::SubjectMismatch)),
        ("0/d?token=&key=good:alice,", replace("40/d?key=good:alice,")),
        ("0/e?x=1,", replace("40/e?x=1,")),
        ("0/f", replace("40/f,")),
    ] {
        assert_eq!(s.client(text), want, "{text}");
    }
}

#[test]
fn p24_of_a_payload_with_several_credentials_the_verified_one_goes_on() {
    let mut s = Session::of("alice");
    s.rules = Rules { sources: Sources::parse(&["auth:jwt", "auth:user.token"]).unwrap(), forward: true };
    let connect = r#"{"jwt":"good:alice","user":{"token":"good:bob","id":7}}"#;
    assert_eq!(s.client(&format!("0/a,{connect}")), replace(r#"40/a,{"jwt":"good:alice","user":{"id":7}}"#));
    let connect = r#"{"jwt":null,"user":{"token":"good:alice"}}"#;
    assert_eq!(s.client(&format!("0/b,{connect}")), replace(r#"40/b,{"user":{"token":"good:alice"}}"#));
}

#[test]
fn p51_what_only_some_servers_take_for_a_packet_ends_the_session() {
    for text in [
        "",
        " ",
        r#" {"token":"good:bob"}"#,
        r#" /admin,{"token":"good:bob","pid":"p"}"#,
        "\t/admin,{}",
        "\u{feff}{}",
        "\u{660}/admin,{}",
        r#""0/admin,{}""#,
        "7",
        "5-[]",
        "5\u{661}-[]",
        "1 ",
        "1{}",
        "10-/admin,",
        "1/admin?x,",
        "1/admin,{}",
    ] {
        for mut s in [Session::of("alice"), Session::of_v3("alice")] {
            assert_eq!(s.client(text), Said::Close(Reason::ProtocolError), "{text:?}");
        }
    }
    for text in ["1", "1/,", "1/admin,", "1/admin", "2[\"e\"]", "3/a,1[]", "51-[{}]", "60-[]", "4{}"] {
        assert_eq!(Session::of("alice").client(text), Said::Forward, "{text:?}");
    }
}
