//! A session's right, made longer without a new connection: what the client asks, and what is said to both sides.

use crate::auth::credential::{Found, Sources};
use crate::protocol::event::{EventName, Is};
use crate::protocol::socketio::{self, Event};
use crate::reason::Reason;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Refreshes that one session may ask for at once, and then one in so long.
const BURST: u32 = 5;
const EVERY: Duration = Duration::from_secs(1);

/// The names of `[session.refresh]`.
#[derive(Debug)]
pub struct Names {
    /// What the client's event begins with.
    pub event: Arc<EventName>,
    /// Tells the client that its end is near.
    pub warning: Box<str>,
    /// Tells the backend of a new end.
    pub notice: Option<Box<str>>,
}

/// A client's event that asks for a later end.
pub struct Request {
    namespace: Box<str>,
    id: Option<Box<str>>,
    /// The new token; `None` where there is none to be read.
    pub token: Option<SecretString>,
    /// It is a binary event, whose attachments have nowhere to go, or has more in front of its name than any client
    /// writes: the session ends.
    pub unfit: bool,
}

/// What a refresh comes to: when the session ends now, and in how many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Unix seconds.
    pub expires_at: u64,
    /// Seconds from now.
    pub expires_in: u64,
}

impl Names {
    /// The names as configured; an empty `notice` is none.
    pub fn new(event: &str, warning: &str, notice: &str) -> Self {
        let notice = Some(notice).filter(|name| !name.is_empty()).map(Into::into);
        Self { event: Arc::new(EventName::new(event)), warning: warning.into(), notice }
    }

    /// Reads a message of the client behind the Engine.IO type `4`; `None`: it is for the backend.
    pub fn request(&self, text: &str, sources: &Sources) -> Option<Request> {
        match self.event.begins(b"4".iter().chain(text.as_bytes()).copied()) {
            Is::Yes => {}
            Is::Endless => return Some(Request::unfit()),
            Is::No | Is::Unclear => return None,
        }
        let Some(Event { namespace, id, arguments }) = socketio::parse_event(text) else {
            return Some(Request::unfit());
        };
        let token = arguments.and_then(|arguments| match arguments.into_iter().nth(1) {
            Some(Value::String(token)) if !token.is_empty() => Some(token.into()),
            Some(Value::Object(object)) => match sources.in_connect(Some(&object)) {
                Found::Token { token, .. } => Some(token),
                _ => None,
            },
            _ => None,
        });
        Some(Request { namespace: namespace.into(), id: id.map(Into::into), token, unfit: false })
    }

    /// What the client is told, once in each of these namespaces.
    pub fn warnings<'a>(&self, namespaces: impl Iterator<Item = &'a str>, seconds: u64) -> Vec<String> {
        namespaces.map(|namespace| socketio::event(namespace, &self.warning, &json!({"seconds": seconds}))).collect()
    }

    /// What the backend is told, once in each of these namespaces.
    pub fn notices<'a>(&self, namespaces: impl Iterator<Item = &'a str>, expires_at: u64) -> Vec<String> {
        let Some(name) = &self.notice else { return Vec::new() };
        namespaces.map(|namespace| socketio::event(namespace, name, &json!({"expires_at": expires_at}))).collect()
    }
}

impl Request {
    fn unfit() -> Self {
        Self { namespace: socketio::ROOT.into(), id: None, token: None, unfit: true }
    }

    /// The acknowledgement, where the client waits for one.
    pub fn answer(&self, outcome: Result<Granted, Reason>) -> Option<String> {
        Some(socketio::ack(&self.namespace, self.id.as_deref()?, &said(outcome)))
    }
}

/// The answer to a refresh, however it was asked for.
pub fn said(outcome: Result<Granted, Reason>) -> Value {
    match outcome {
        Ok(Granted { expires_at, expires_in }) => {
            json!({"ok": true, "expires_at": expires_at, "expires_in": expires_in})
        }
        Err(reason) => json!({"ok": false, "reason": reason.word(), "message": reason.message()}),
    }
}

/// How often one session may ask.
#[derive(Debug, Default)]
pub struct Pace {
    /// When all of the burst is there again.
    full_at: Option<Instant>,
}

impl Pace {
    /// Takes one; `false` where there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let from = self.full_at.map_or(now, |at| at.max(now));
        let next = from + EVERY;
        let room = next.saturating_duration_since(now) <= EVERY * BURST;
        if room {
            self.full_at = Some(next);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn names() -> Names {
        Names::new("siogate:refresh", "siogate:expiring", "siogate:renewed")
    }

    fn sources() -> Sources {
        Sources::parse(&["auth:token", "header:authorization"]).unwrap()
    }

    fn token(text: &str) -> Option<Option<String>> {
        let request = names().request(text, &sources())?;
        Some(request.token.map(|token| token.expose_secret().to_owned()))
    }

    #[test]
    fn the_token_is_an_argument_or_stands_where_credentials_stand() {
        for (text, want) in [
            ("2[\"siogate:refresh\",\"a.b.c\"]", Some("a.b.c")),
            ("2/admin,7[\"siogate:refresh\",{\"token\":\"Bearer a.b.c\"}]", Some("a.b.c")),
            ("21[\"siogate:refresh\",\"a.b.c\",{\"more\":1}]", Some("a.b.c")),
            ("21[\"siogate:refresh\",{\"other\":\"a.b.c\"}]", None),
            ("21[\"siogate:refresh\",{\"token\":\"a\",\"token\":\"b\"}]", None),
            ("21[\"siogate:refresh\",{\"token\":5}]", None),
            ("21[\"siogate:refresh\",\"\"]", None),
            ("21[\"siogate:refresh\",5]", None),
            ("21[\"siogate:refresh\"]", None),
            ("21[\"siogate:refresh\",\"a.b.c\"", None),
            ("21[\"siogate:refresh\",\"a.b.c\"]x", None),
        ] {
            assert_eq!(token(text), Some(want.map(str::to_owned)), "{text}");
        }
        for text in ["2[\"other\",\"a.b.c\"]", "3[\"siogate:refresh\"]", "0/siogate:refresh,", "", "2"] {
            assert_eq!(token(text), None, "{text}");
        }
    }

    #[test]
    fn the_answer_goes_where_it_is_waited_for() {
        let answer = |text: &str, outcome| names().request(text, &sources()).unwrap().answer(outcome);
        let granted = Ok(Granted { expires_at: 1_000, expires_in: 5 });
        assert_eq!(answer("2[\"siogate:refresh\",\"t\"]", granted), None);
        assert_eq!(
            answer("2/admin,12[\"siogate:refresh\",\"t\"]", granted).unwrap(),
            "43/admin,12[{\"expires_at\":1000,\"expires_in\":5,\"ok\":true}]"
        );
        assert_eq!(
            answer("20[\"siogate:refresh\",\"t\"]", Err(Reason::RateLimited)).unwrap(),
            "430[{\"message\":\"too many requests\",\"ok\":false,\"reason\":\"rate_limited\"}]"
        );
    }

    #[test]
    fn both_sides_are_told_in_each_namespace() {
        let names = names();
        assert_eq!(
            names.warnings(["/", "/a"].into_iter(), 30),
            ["42[\"siogate:expiring\",{\"seconds\":30}]", "42/a,[\"siogate:expiring\",{\"seconds\":30}]"]
        );
        assert_eq!(names.notices(["/a"].into_iter(), 7), ["42/a,[\"siogate:renewed\",{\"expires_at\":7}]"]);
        assert!(Names::new("a", "b", "").notices(["/"].into_iter(), 7).is_empty());
    }

    #[test]
    fn five_at_once_and_then_one_a_second() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!((0..5).all(|_| pace.take(now)));
        assert!(!pace.take(now) && !pace.take(now + EVERY / 2));
        assert!(pace.take(now + EVERY) && !pace.take(now + EVERY));
        let later = now + EVERY * 100;
        assert!((0..5).all(|_| pace.take(later)) && !pace.take(later));
    }

    proptest! {
        #[test]
        fn no_message_of_a_stranger_panics_and_what_begins_so_is_taken(rest in ".{0,60}") {
            let names = names();
            let _ = names.request(&rest, &sources());
            let text = format!("2[\"siogate:refresh\"{rest}");
            prop_assert!(names.request(&text, &sources()).is_some());
        }
    }
}
