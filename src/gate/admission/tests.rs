use super::*;
use crate::auth::identity::Identity;
use proptest::prelude::*;
use secrecy::ExposeSecret;
use std::cell::RefCell;

fn rules(forward: bool) -> Rules {
    let sources = Sources::parse(&["auth:token", "query:token", "query:key"]).unwrap();
    Rules { sources, forward }
}

fn user(subject: &str) -> User {
    User { issuer: "idp".into(), subject: subject.into() }
}

fn identity(issuer: &str, subject: &str) -> Identity {
    Identity {
        issuer: issuer.into(),
        subject: subject.into(),
        expires_at: 10,
        ends_at: 15,
        jti: None,
        session: None,
        issued_at: None,
        claims: Default::default(),
        hold: None,
    }
}

fn nobodys(_: &str, _: &User) -> bool {
    false
}

/// What a verdict says, in short.
#[derive(Debug, PartialEq)]
enum Said {
    Forward,
    Replace(String),
    Answer(String),
    Judge(String),
    Close(Reason),
}

fn said(verdict: Verdict) -> Said {
    match verdict {
        Verdict::Forward => Said::Forward,
        Verdict::Replace(text) => Said::Replace(text),
        Verdict::Answer(text) => Said::Answer(text),
        Verdict::Judge(judgement) => Said::Judge(judgement.token.expose_secret().into()),
        Verdict::Close(reason) => Said::Close(reason),
    }
}

fn replace(text: &str) -> Said {
    Said::Replace(text.into())
}

fn refusal(namespace: &str, reason: Reason) -> Said {
    Said::Answer(socketio::connect_error(Version::V4, namespace, reason.message(), reason.word()))
}

/// A session whose tokens are `good:<subject>` or anything else, and bad.
struct Session {
    admission: Admission,
    rules: Rules,
}

impl Session {
    fn new(admission: Admission) -> Self {
        Self { admission, rules: rules(false) }
    }

    fn stranger() -> Self {
        Self::new(Admission::without_user(Version::V4, Reason::CredentialMissing))
    }

    fn of(subject: &str) -> Self {
        Self::new(Admission::with_user(Version::V4, user(subject)))
    }

    fn of_v3(subject: &str) -> Self {
        Self::new(Admission::with_user(Version::V3, user(subject)))
    }

    /// The client's packet up to the verifier.
    fn first(&mut self, text: &str) -> Said {
        said(self.admission.from_client(text, &self.rules, &nobodys))
    }

    /// The client's packet, verified where it asks for that.
    fn client(&mut self, text: &str) -> Said {
        self.client_owning(text, &nobodys)
    }

    fn client_owning(&mut self, text: &str, owns: OwnsPid<'_>) -> Said {
        let verdict = self.admission.from_client(text, &self.rules, owns);
        let Verdict::Judge(judgement) = verdict else { return said(verdict) };
        let answer = match judgement.token.expose_secret().strip_prefix("good:") {
            Some(subject) => Ok(identity("idp", subject)),
            None => Err(Reason::SignatureInvalid),
        };
        let answer = answer.as_ref().map_err(|reason| *reason);
        said(self.admission.judged(*judgement, answer, &self.rules, owns))
    }

    fn server(&mut self, text: &str) -> Option<String> {
        self.admission.from_server(text)
    }

    fn subject(&self) -> Option<&str> {
        self.admission.user().map(|user| &*user.subject)
    }
}

#[test]
fn the_first_valid_connect_fixes_the_user_and_goes_on_without_its_token() {
    let mut s = Session::stranger();
    assert_eq!(s.first(r#"0{"token":"good:alice"}"#), Said::Judge("good:alice".into()));
    assert_eq!(s.subject(), None, "a token is nothing before it is verified");
    assert_eq!(s.client(r#"0{"token":"good:alice","room":7}"#), replace(r#"40{"room":7}"#));
    assert_eq!(s.subject(), Some("alice"));
}

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

/// What happens next where packets of both sides are on their way.
#[derive(Clone, Copy, Debug)]
enum Move {
    Connect(usize),
    Leave(usize),
    /// The backend takes the client's next packet, and accepts if it is a CONNECT.
    Take(bool),
    Kick(usize),
    /// The backend's next packet arrives.
    Arrive,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (0usize..2).prop_map(Move::Connect),
        2 => (0usize..2).prop_map(Move::Leave),
        4 => any::<bool>().prop_map(Move::Take),
        1 => (0usize..2).prop_map(Move::Kick),
        4 => Just(Move::Arrive),
    ];
    proptest::collection::vec(one, 0..80)
}

/// A backend that answers each CONNECT, and what is on its way to and from it.
#[derive(Default)]
struct Far {
    inside: [bool; 2],
    up: std::collections::VecDeque<(bool, usize)>,
    down: std::collections::VecDeque<String>,
}

impl Far {
    const NAMES: [&'static str; 2] = ["", "/a,"];

    fn take(&mut self, accepts: bool) {
        let Some((connects, i)) = self.up.pop_front() else { return };
        assert!(!(connects && self.inside[i]), "a second socket in one namespace");
        self.inside[i] = connects && accepts;
        if connects {
            self.down.push_back(format!("{}{}{{}}", if accepts { '0' } else { '4' }, Self::NAMES[i]));
        }
    }

    fn kick(&mut self, i: usize) {
        if std::mem::take(&mut self.inside[i]) {
            self.down.push_back(format!("1{}", Self::NAMES[i]));
        }
    }
}

proptest! {
    /// However the packets of both sides cross: the backend never gets a CONNECT of a namespace that it has the
    /// session in, and in the end both know the same.
    #[test]
    fn p51_gate_and_backend_agree_on_who_is_where(moves in moves()) {
        let (mut s, mut far) = (Session::of("alice"), Far::default());
        for step in moves {
            match step {
                Move::Connect(i) => match s.client(&format!("0{}", Far::NAMES[i])) {
                    Said::Replace(_) => far.up.push_back((true, i)),
                    said => {
                        prop_assert_eq!(said, Said::Close(Reason::ProtocolError));
                        return Ok(());
                    }
                },
                Move::Leave(i) => {
                    prop_assert_eq!(s.client(&format!("1{}", Far::NAMES[i])), Said::Forward);
                    far.up.push_back((false, i));
                }
                Move::Take(accepts) => far.take(accepts),
                Move::Kick(i) => far.kick(i),
                Move::Arrive => drop(far.down.pop_front().and_then(|text| s.server(&text))),
            }
        }
        while !far.up.is_empty() {
            far.take(true);
        }
        while let Some(text) = far.down.pop_front() {
            s.server(&text);
        }
        for (i, namespace) in ["/", "/a"].into_iter().enumerate() {
            prop_assert_eq!(s.admission.joined().any(|joined| joined == namespace), far.inside[i], "{}", namespace);
        }
        prop_assert_eq!(s.admission.disconnects().len(), far.inside.iter().filter(|inside| **inside).count());
    }
}

fn packet() -> impl Strategy<Value = (bool, String)> {
    let namespace = prop_oneof![Just(""), Just("/a,"), Just("/b,")];
    let data = prop_oneof![Just(""), Just(r#"{"token":"good:alice"}"#), Just(r#"{"token":"good:bob"}"#), Just("{")];
    (any::<bool>(), prop_oneof!["0", "1", "2", "4"], namespace, data)
        .prop_map(|(client, digit, namespace, data)| (client, format!("{digit}{namespace}{data}")))
}

proptest! {
    /// Whatever the client and the backend say, one session has one user, and the backend is never sent a
    /// second CONNECT of a namespace that it has not left, refused or closed.
    #[test]
    fn p51_one_session_has_one_user_and_no_namespace_twice(packets in proptest::collection::vec(packet(), 0..60)) {
        let mut s = Session::stranger();
        let mut joined = std::collections::HashSet::new();
        let mut owner: Option<String> = None;
        for (by_client, text) in packets {
            let namespace = socketio::namespace_of(&text).to_owned();
            if !by_client {
                s.server(&text);
                if text.starts_with(['1', '4']) {
                    joined.remove(&namespace);
                }
                continue;
            }
            match s.client(&text) {
                Said::Replace(packet) => {
                    prop_assert!(packet.starts_with("40") && !packet.contains("good:"));
                    prop_assert!(joined.insert(namespace), "twice: {text}");
                }
                Said::Forward => {
                    prop_assert!(s.subject().is_some(), "{text} went on for nobody");
                    if text.starts_with('1') {
                        joined.remove(&namespace);
                    }
                }
                Said::Close(_) => return Ok(()),
                Said::Answer(packet) => prop_assert!(packet.starts_with("44")),
                Said::Judge(_) => prop_assert!(false),
            }
            let subject = s.subject().map(String::from);
            prop_assert!(owner.is_none() || owner == subject, "the user changed");
            owner = subject;
        }
    }

    #[test]
    fn p35_no_text_of_either_side_panics(text in "[0-9]{0,2}(/[a-z?=&%+]{0,8},?)?.{0,20}", v3 in any::<bool>()) {
        let mut s = if v3 { Session::of_v3("alice") } else { Session::stranger() };
        s.client(&text);
        s.server(&text);
        s.admission.disconnects();
    }
}
