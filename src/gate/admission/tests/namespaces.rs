//! Which namespaces are joined: once each, however joining, leaving and refusing cross.

use super::*;

#[test]
fn p51_a_second_connect_of_a_pending_or_connected_namespace_ends_the_session() {
    for (first, second) in [("0", "0"), ("0/admin,", "0/admin,{\"token\":\"good:bob\"}"), ("0", "0/,")] {
        let mut s = Session::of("alice");
        s.client(first);
        assert_eq!(s.client(second), Said::Close(Reason::ProtocolError), "pending: {second}");
        let mut s = Session::of("alice");
        s.client(first);
        s.server(if first == "0" { r#"0{"sid":"x"}"# } else { r#"0/admin,{"sid":"x"}"# });
        assert_eq!(s.client(second), Said::Close(Reason::ProtocolError), "connected: {second}");
    }
}

#[test]
fn p51_a_namespace_may_be_joined_again_after_it_was_left_refused_or_closed() {
    for (by_client, text) in [(true, "1/admin,"), (false, "1/admin,"), (false, r#"4/admin,{"message":"no"}"#)] {
        let mut s = Session::of("alice");
        for _ in 0..3 {
            assert_eq!(s.client("0/admin,"), replace("40/admin,"), "{text}");
            if !text.starts_with('4') {
                s.server(r#"0/admin,{"sid":"x"}"#);
            }
            if by_client {
                assert_eq!(s.client(text), Said::Forward);
            } else {
                s.server(text);
            }
        }
    }
    let mut s = Session::of("alice");
    for texts in [&["0", "1"][..], &["4{}"], &["0", "1{\"message\":\"no\"}"]] {
        assert_eq!(s.client("0"), replace("40"));
        texts.iter().for_each(|text| assert_eq!(s.server(text), None));
    }
    assert!(s.admission.disconnects().is_empty());
}

#[test]
fn p51_a_disconnect_that_crosses_a_new_connect_is_about_the_time_before() {
    for namespace in ["", "/admin,"] {
        let (connect, leave, accept) = (format!("0{namespace}"), format!("1{namespace}"), format!("0{namespace}{{}}"));
        let mut s = Session::of("alice");
        s.client(&connect);
        s.server(&accept);
        // On its way while the client leaves and comes back.
        s.client(&leave);
        assert_eq!(s.client(&connect), Said::Replace(format!("4{connect}")));
        s.server(&leave);
        assert_eq!(s.admission.joined().count(), 0, "not yet");
        s.server(&accept);
        assert_eq!(s.admission.joined().count(), 1);
        assert_eq!(s.admission.disconnects(), [format!("4{leave}")]);
        assert_eq!(s.client(&connect), Said::Close(Reason::ProtocolError), "it would be in it twice");
    }
}

#[test]
fn p51_each_answer_is_to_the_connect_that_waited_longest() {
    let mut s = Session::of("alice");
    for text in ["0/a,", "1/a,", "0/a,"] {
        s.client(text);
    }
    s.server(r#"4/a,{"message":"no"}"#);
    assert_eq!(s.client("0/a,"), Said::Close(Reason::ProtocolError), "the second one is still on its way");
    s.server("0/a,{}");
    assert_eq!(s.admission.joined().collect::<Vec<_>>(), ["/a"]);
    s.client("1/a,");
    assert_eq!(s.client("0/a,"), replace("40/a,"));
    s.client("1/a,");
    s.server("0/a,{}");
    assert!(s.admission.joined().next().is_none() && s.admission.disconnects().is_empty(), "left before the answer");
}

#[test]
fn an_error_of_protocol_3_is_no_end() {
    let mut s = Session::of_v3("alice");
    s.client("0/admin");
    s.server("0/admin,");
    for text in ["4\"no\"", "4/admin,\"no\""] {
        s.server(text);
    }
    assert_eq!(s.admission.joined().collect::<Vec<_>>(), ["/", "/admin"]);
    s.client("0/other");
    s.server("4/other,\"no\"");
    assert_eq!(s.client("0/other"), replace("40/other,"), "this one was refused");
}

#[test]
fn p32_a_session_joins_at_most_256_namespaces() {
    let mut s = Session::of("alice");
    for i in 0..MAX_NAMESPACES {
        assert_eq!(s.client(&format!("0/{i},")), replace(&format!("40/{i},")));
    }
    assert_eq!(s.client("0/more,"), refusal("/more", Reason::NamespaceForbidden));
    s.server("0/7,{}");
    s.client("1/7,");
    assert_eq!(s.client("0/more,"), replace("40/more,"), "one was left");
    assert_eq!(s.admission.disconnects().len(), MAX_NAMESPACES);
}

#[test]
fn p32_a_namespace_has_a_name_of_bounded_length() {
    let name = |n: usize| format!("/{}", "x".repeat(n - 1));
    let mut s = Session::of("alice");
    assert_eq!(s.client(&format!("0{},", name(MAX_NAME))), replace(&format!("40{},", name(MAX_NAME))));
    assert_eq!(s.client(&format!("0{},", name(MAX_NAME + 1))), Said::Close(Reason::ProtocolError));
}

#[test]
fn p51_protocol_3_is_in_the_root_unasked() {
    let mut s = Session::of_v3("alice");
    assert_eq!(s.client("0"), Said::Close(Reason::ProtocolError));
    let mut s = Session::of_v3("alice");
    s.server("0");
    assert_eq!(s.client("0/admin"), replace("40/admin,"));
    assert_eq!(s.client("0/admin?x=1,"), Said::Close(Reason::ProtocolError), "the query is no part of the name");
    assert_eq!(s.admission.disconnects(), ["41/admin,", "41"]);
}

#[test]
fn p51_protocol_4_has_no_query_in_a_namespace() {
    assert_eq!(Session::of("alice").client("0/admin?x=1,"), Said::Close(Reason::ProtocolError));
}

#[test]
fn a_backend_connects_nothing_that_nobody_asked_for() {
    let mut s = Session::of("alice");
    s.server(r#"0{"sid":"s"}"#);
    s.server(r#"0/admin,{"sid":"s"}"#);
    assert!(s.admission.disconnects().is_empty());
    assert_eq!(s.client("0"), replace("40"));
    assert_eq!(s.client("0/admin,"), replace("40/admin,"));
}

#[test]
fn disconnects_name_every_namespace_that_was_joined_the_root_last() {
    let mut s = Session::of("alice");
    assert!(s.admission.disconnects().is_empty());
    for text in ["0/a,", "0", "0/b,", "0/c,"] {
        s.client(text);
    }
    for text in [r#"0/a,{"sid":"x"}"#, r#"0/b,{"sid":"y"}"#, "1/b,"] {
        s.server(text);
    }
    let mut got = s.admission.disconnects();
    assert_eq!(got.pop().as_deref(), Some("41"));
    got.sort();
    assert_eq!(got, ["41/a,", "41/c,"], "one that waits for its answer is told too");
}
