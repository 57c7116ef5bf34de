//! What one session keeps: one POST at a time, its mailbox, its recovery ids.

use super::*;
use crate::session::mailbox;
use futures_util::FutureExt;

#[test]
fn one_post_at_a_time() {
    let registry = Registry::new(ROOMY);
    let stay = registry.enter(newcomer("a")).unwrap();
    let entry = stay.entry();
    assert!(entry.begin_post());
    assert!(!entry.begin_post() && !entry.begin_post());
    entry.posted();
    assert!(entry.begin_post());
}

#[test]
fn a_session_on_a_websocket_takes_no_requests() {
    let registry = Registry::new(ROOMY);
    let (mailbox, mut requests) = mailbox::new();
    let stay = registry.enter(Newcomer { mailbox: Some(mailbox), ..newcomer("a") }).unwrap();
    assert!(stay.entry().mailbox().is_some());
    stay.entry().close_mailbox();
    assert!(stay.entry().mailbox().is_none());
    assert!(matches!(requests.recv().now_or_never(), Some(None)));
}

#[test]
fn p51_recovery_ids_belong_to_the_sessions_user_and_are_bounded() {
    let registry = Registry::new(ROOMY);
    let mut stay = registry.enter(newcomer("a")).unwrap();
    stay.recovery_id("before anybody is known".into());
    stay.admit(user("alice"), ends_in(Instant::now(), 60));
    for i in 0..10_000 {
        stay.recovery_id(format!("p{i}"));
    }
    assert_eq!(stay.recovery_ids.len(), MAX_NAMESPACES);
    drop(stay);
    assert!(registry.owns_recovery("p9999", &user("alice")));
    assert!(!registry.owns_recovery("p9999", &user("bob")));
    assert!(!registry.owns_recovery("before anybody is known", &user("alice")));
}
