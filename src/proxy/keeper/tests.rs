use super::*;
use crate::auth::identity::Claims;
use crate::protocol::engineio::Version;
use crate::session::registry::revoke::Card;
use crate::session::registry::{Capacity, Newcomer, Registry, Stay};
use secrecy::SecretString;

const UNIX: u64 = 1_700_000_000;
const PACE: Pace = Pace { recheck: Duration::from_secs(10), grace: Duration::from_secs(30) };

fn identity(voucher: Voucher, subject: &str, credential: u8, expires_at: u64) -> Identity {
    let hold = Hold { voucher, credential: SecretString::from("x"), digest: [credential; 32], asked: None };
    Identity {
        issuer: "app".into(),
        subject: subject.into(),
        expires_at,
        ends_at: NEVER,
        jti: None,
        session: None,
        issued_at: None,
        claims: Claims::default(),
        hold: Some(Arc::new(hold)),
    }
}

struct House {
    registry: Registry,
    keeper: Keeper,
    now: Instant,
}

impl House {
    fn new() -> Self {
        let capacity = Capacity { sessions: 100, unauthenticated: 100, unauthenticated_per_ip: 100 };
        Self { registry: Registry::new(capacity), keeper: Keeper::default(), now: Instant::now() }
    }

    fn enter(&self, sid: &str, identity: &Identity) -> Stay {
        let card = Card::new(sid.into(), [192, 0, 2, 1].into(), UNIX);
        let newcomer =
            Newcomer { sid, version: Version::V4, b64: false, credential: None, mailbox: None, waits: None, card };
        let mut stay = self.registry.enter(newcomer).unwrap_or_else(|r| panic!("{r}"));
        let end = crate::session::deadlines::End::of(self.now, UNIX * 1000, NEVER, Duration::from_secs(1000));
        stay.admit(User::of(identity), end);
        self.keeper.watch(stay.entry(), identity, PACE, self.now, UNIX);
        stay
    }

    /// Asks whoever is due `after` the beginning.
    fn due(&self, after: u64) -> Vec<u64> {
        self.keeper.take(self.now + Duration::from_secs(after)).into_iter().map(|(number, _)| number).collect()
    }

    fn answer(&self, number: u64, answer: Again, after: u64) -> Vec<Reason> {
        let gone = self.keeper.answered(number, answer, PACE, self.now + Duration::from_secs(after), UNIX + after);
        gone.into_iter().map(|(_, reason)| reason).collect()
    }
}

const STORE: Voucher = Voucher::Store(0);

fn away() -> Again {
    Again::Unknown("away".into())
}

fn holds(identity: Identity) -> Again {
    Again::Holds(Arc::new(identity))
}

#[test]
fn one_credential_is_one_question_within_recheck_and_again() {
    let house = House::new();
    let alice = identity(STORE, "alice", 1, NEVER);
    let _stays: Vec<_> = (0..5).map(|n| house.enter(&format!("s{n}"), &alice)).collect();
    let _other = house.enter("other", &identity(STORE, "bob", 2, NEVER));
    assert_eq!(house.keeper.len(), 2);
    assert!(house.due(5).is_empty());
    let mut asked = house.due(10);
    asked.sort_unstable();
    assert_eq!(asked.len(), 2);
    assert!(house.due(10).is_empty(), "a question is asked once at a time");
    assert!(house.answer(asked[0], holds(alice), 10).is_empty());
    assert_eq!(house.due(20), [asked[0]]);
}

#[test]
fn whoever_has_left_is_not_asked_about() {
    let house = House::new();
    drop(house.enter("s", &identity(STORE, "alice", 1, NEVER)));
    // The deadline of the session holds its entry until it is reaped or removed.
    assert!(house.due(10).is_empty());
    assert!(house.keeper.is_empty() && house.keeper.next_due().is_none());
    assert!(house.keeper.state().numbers.is_empty());
}

#[test]
fn a_right_that_is_gone_ends_all_its_sockets() {
    let house = House::new();
    let alice = identity(STORE, "alice", 1, NEVER);
    let _stays = [house.enter("a", &alice), house.enter("b", &alice)];
    let [number] = house.due(10)[..] else { panic!() };
    let gone = house.answer(number, Again::Over(Reason::LoggedOut, String::new()), 10);
    assert_eq!(gone, [Reason::LoggedOut, Reason::LoggedOut]);
    assert!(house.keeper.is_empty());
}

#[test]
fn a_session_of_somebody_else_ends_the_sockets_of_the_first_only() {
    let house = House::new();
    let _alice = house.enter("a", &identity(STORE, "alice", 1, NEVER));
    let _bob = house.enter("b", &identity(STORE, "bob", 1, NEVER));
    let [number] = house.due(10)[..] else { panic!() };
    let gone = house.keeper.answered(number, holds(identity(STORE, "bob", 1, NEVER)), PACE, house.now, UNIX);
    assert_eq!(
        gone.iter().map(|(entry, reason)| (entry.sid(), *reason)).collect::<Vec<_>>(),
        [("a", Reason::SubjectMismatch)]
    );
}

#[test]
fn c04_nobody_answers_for_a_grace_and_no_longer() {
    let house = House::new();
    let _stay = house.enter("a", &identity(STORE, "alice", 1, NEVER));
    let [number] = house.due(10)[..] else { panic!() };
    assert!(house.answer(number, away(), 10).is_empty());
    assert_eq!(house.due(12), [number], "asked sooner than usual");
    assert!(house.answer(number, away(), 35).is_empty());
    // Not later than the end of the grace.
    assert_eq!(house.due(40), [number]);
    assert_eq!(house.answer(number, away(), 40), [Reason::KeysUnavailable]);
}

#[test]
fn c04_an_answer_in_between_begins_a_new_grace() {
    let house = House::new();
    let alice = identity(STORE, "alice", 1, NEVER);
    let _stay = house.enter("a", &alice);
    let [number] = house.due(10)[..] else { panic!() };
    assert!(house.answer(number, away(), 10).is_empty());
    house.due(12);
    assert!(house.answer(number, holds(alice), 35).is_empty());
    house.due(45);
    assert!(house.answer(number, away(), 45).is_empty());
}

#[test]
fn a_stored_session_is_looked_at_when_its_time_is_over() {
    let house = House::new();
    let _stay = house.enter("a", &identity(STORE, "alice", 1, UNIX + 3));
    assert!(house.due(3).is_empty());
    let [number] = house.due(4)[..] else { panic!() };
    // The application has moved it.
    assert!(house.answer(number, holds(identity(STORE, "alice", 1, UNIX + 7)), 4).is_empty());
    assert_eq!(house.due(8), [number]);
    assert_eq!(house.answer(number, Again::Over(Reason::LoggedOut, String::new()), 8), [Reason::TokenExpired]);
}

#[test]
fn a_call_out_is_asked_before_its_word_ends_and_ends_with_it() {
    let house = House::new();
    let callout = Voucher::Callout(0);
    let _stay = house.enter("a", &identity(callout, "alice", 1, UNIX + 5));
    let [number] = house.due(4)[..] else { panic!() };
    assert!(house.answer(number, away(), 4).is_empty());
    assert_eq!(house.due(5), [number]);
    assert_eq!(house.answer(number, away(), 5), [Reason::TokenExpired]);
}

#[test]
fn whoever_hangs_keeps_nobody_else_waiting() {
    let house = House::new();
    let hung = Voucher::Callout(0);
    let of = |voucher, n: u8| identity(voucher, &format!("user {n}"), n, NEVER);
    let _waiting: Vec<_> = (0..90).map(|n| house.enter(&format!("h{n}"), &of(hung, n))).collect();
    assert_eq!(house.due(10).len(), AT_ONCE, "so many questions are on their way");
    let alice = of(STORE, 100);
    let _stay = house.enter("s", &alice);
    let asked = house.due(20);
    assert_eq!(asked.len(), 1, "the store is asked all the same");
    assert!(house.answer(asked[0], holds(alice), 20).is_empty());
    // The next one that is due is the store's: there is no room for a question to the other.
    assert!(house.keeper.next_due().is_some_and(|at| at > house.now + Duration::from_secs(20)));
}

#[test]
fn a_long_queue_gives_nobody_more_than_the_grace() {
    let house = House::new();
    let _stay = house.enter("s", &identity(STORE, "alice", 1, NEVER));
    // Due within ten seconds, and asked much later.
    let asked = house.due(50);
    assert_eq!(house.answer(asked[0], away(), 50), [Reason::KeysUnavailable]);
}
