//! However the packets of both sides cross: one user, and no namespace twice.

use super::*;
use proptest::prelude::*;

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
