//! Who the session's user is, and what is said before that is known.

use super::*;

#[test]
fn the_first_valid_connect_fixes_the_user_and_goes_on_without_its_token() {
    let mut s = Session::stranger();
    assert_eq!(s.first(r#"0{"token":"good:alice"}"#), Said::Judge("good:alice".into()));
    assert_eq!(s.subject(), None, "a token is nothing before it is verified");
    assert_eq!(s.client(r#"0{"token":"good:alice","room":7}"#), replace(r#"40{"room":7}"#));
    assert_eq!(s.subject(), Some("alice"));
}

#[test]
fn p51_events_before_a_user_is_known_end_the_session() {
    for text in ["2[\"a\"]", "51-[\"a\",{}]", "1", "1/admin,", "3[]", "4{}", "60-[]"] {
        assert_eq!(Session::stranger().client(text), Said::Close(Reason::ProtocolError), "{text:?}");
        assert_eq!(Session::of("alice").client(text), Said::Forward, "{text:?} is the backend's affair");
    }
    let mut s = Session::stranger();
    s.client(r#"0{"token":"bad"}"#);
    assert_eq!(s.client("2[]"), Said::Close(Reason::ProtocolError), "a refused CONNECT changes nothing");
}

#[test]
fn p51_further_namespaces_pass_with_the_sessions_user_or_a_token_of_it() {
    let mut s = Session::stranger();
    s.client(r#"0{"token":"good:alice"}"#);
    assert_eq!(s.client("0/none,"), replace("40/none,"), "no token: as the session's user");
    assert_eq!(s.client(r#"0/empty,{"token":""}"#), replace("40/empty,{}"));
    assert_eq!(s.client(r#"0/own,{"token":"good:alice"}"#), replace("40/own,{}"));
    assert_eq!(s.client(r#"0/bob,{"token":"good:bob"}"#), refusal("/bob", Reason::SubjectMismatch));
    assert_eq!(s.client(r#"0/bad,{"token":"bad"}"#), refusal("/bad", Reason::SignatureInvalid));
    assert_eq!(s.subject(), Some("alice"));
    assert_eq!(s.client(r#"0/bob,{"token":"good:alice"}"#), replace("40/bob,{}"), "refused is not joined");
}

#[test]
fn p51_a_token_in_connect_is_verified_also_where_the_handshake_had_one() {
    let mut s = Session::of("alice");
    assert_eq!(s.client(r#"0{"token":"good:bob"}"#), refusal("/", Reason::SubjectMismatch));
    assert_eq!(s.client(r#"0{"token":"bad"}"#), refusal("/", Reason::SignatureInvalid));
    assert_eq!(s.client(r#"0{"token":"good:alice"}"#), replace("40{}"));
}

#[test]
fn p51_the_same_subject_of_another_issuer_is_another_user() {
    let mut s = Session::of("alice");
    let Verdict::Judge(judgement) = s.admission.from_client(r#"0{"token":"t"}"#, &s.rules, &nobodys) else {
        panic!("a token is judged")
    };
    let stranger = identity("elsewhere", "alice");
    let verdict = s.admission.judged(*judgement, Ok(&stranger), &s.rules, &nobodys);
    assert_eq!(said(verdict), refusal("/", Reason::SubjectMismatch));
}

#[test]
fn without_a_token_the_refusal_says_what_was_wrong_with_the_handshake() {
    for fallback in [Reason::CredentialMissing, Reason::TokenExpired] {
        let mut s = Session::new(Admission::without_user(Version::V4, fallback));
        assert_eq!(s.client("0"), refusal("/", fallback));
        assert_eq!(s.client("0/admin,{}"), refusal("/admin", fallback));
        assert_eq!(s.client(r#"0{"token":null}"#), refusal("/", fallback));
        assert_eq!(s.client(r#"0{"token":"good:alice"}"#), replace("40{}"), "a good token mends it");
    }
}

#[test]
fn p12_what_is_no_token_and_no_connect_is_refused() {
    for data in [r#"{"token":5}"#, r#"{"token":["good:alice"]}"#, r#"{"token":{"a":"good:alice"}}"#] {
        assert_eq!(Session::stranger().client(&format!("0{data}")), refusal("/", Reason::CredentialMalformed));
        assert_eq!(Session::of("alice").client(&format!("0{data}")), refusal("/", Reason::CredentialMalformed));
    }
    let odd = ["00{}", "0[]", "0null", "0\"A\"", "0 {}", r#"0{"a":1,"a":2}"#, r#"0{"token":"x"} "#, "0admin", "0/a b,"];
    for text in odd {
        assert_eq!(Session::stranger().client(text), Said::Close(Reason::ProtocolError), "{text}");
        assert_eq!(Session::of("alice").client(text), Said::Close(Reason::ProtocolError), "{text}");
    }
}

#[test]
fn p31_after_ten_refusals_the_session_is_closed() {
    let mut s = Session::stranger();
    for _ in 0..MAX_REFUSALS {
        assert_eq!(s.client(r#"0{"token":"bad"}"#), refusal("/", Reason::SignatureInvalid));
    }
    for _ in 0..300 {
        assert_eq!(s.client(r#"0{"token":"bad"}"#), Said::Close(Reason::SignatureInvalid));
    }
}

#[test]
fn keys_that_cannot_be_had_end_the_transport_so_that_clients_try_again() {
    let mut s = Session::stranger();
    let Verdict::Judge(judgement) = s.admission.from_client(r#"0{"token":"t"}"#, &s.rules, &nobodys) else {
        panic!("a token is judged")
    };
    let verdict = s.admission.judged(*judgement, Err(Reason::KeysUnavailable), &s.rules, &nobodys);
    assert_eq!(said(verdict), Said::Close(Reason::KeysUnavailable));
}
