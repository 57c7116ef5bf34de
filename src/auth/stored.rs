//! A session as an application has stored it: JSON of its own making, and in it, perhaps, a user.

use crate::auth::claims::HeaderMapping;
use crate::auth::identity::{Claims, Identity, NEVER};
use crate::auth::jose::Fault;
use crate::auth::rules::{MAX_NAME, text};
use crate::config::model::vouchers::SessionStore;
use crate::protocol::json;
use crate::reason::Reason;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// No stored session is larger.
pub const MAX_SESSION: usize = 256 * 1024;

/// Where in a session the user stands.
#[derive(Clone, Debug)]
pub struct StoredRules {
    issuer: Arc<str>,
    subject: Vec<String>,
    issued_at: Option<String>,
    claims: Vec<(String, String)>,
    kept: HeaderMapping,
}

impl StoredRules {
    /// Identities keep the claims that `kept` reads.
    pub fn new(store: &SessionStore, kept: &HeaderMapping) -> Self {
        Self {
            issuer: store.issuer.as_str().into(),
            subject: store.subject.clone(),
            issued_at: store.issued_at.clone(),
            claims: store.claims.iter().map(|(name, pointer)| (name.clone(), pointer.clone())).collect(),
            kept: kept.clone(),
        }
    }

    /// Who is logged in by a session that lives for `ttl` from `now` on; `None`: nobody (C06).
    ///
    /// The identity ends when the store says so and not before: rolling sessions move their end.
    ///
    /// # Errors
    /// [`Reason::ClaimRejected`] where the session cannot be read (C03), or names a user in no form for one.
    pub fn judge(&self, value: &[u8], ttl: Option<Duration>, now: u64) -> Result<Option<Identity>, Fault> {
        let rejected = |why: String| Fault::new(Reason::ClaimRejected, format!("the stored session {why}"));
        if value.len() > MAX_SESSION {
            return Err(rejected("is larger than 256 KiB".into()));
        }
        let text_of = std::str::from_utf8(value).map_err(|_| rejected("is not UTF-8".into()))?;
        let session = Value::Object(json::object(text_of).map_err(|e| rejected(format!("is {e}")))?);
        let found = self
            .subject
            .iter()
            .find_map(|pointer| Some((pointer, session.pointer(pointer)?)).filter(|(_, v)| !v.is_null()));
        let Some((pointer, value)) = found else { return Ok(None) };
        let subject = text(value)
            .filter(|subject| !subject.is_empty() && subject.len() <= MAX_NAME)
            .ok_or_else(|| rejected(format!("has at {pointer} neither a short string nor a whole number")))?;
        let claims: Map<String, Value> =
            self.claims.iter().filter_map(|(name, at)| Some((name.clone(), session.pointer(at)?.clone()))).collect();
        Ok(Some(Identity {
            issuer: self.issuer.clone(),
            subject: subject.into(),
            expires_at: ttl.map_or(NEVER, |ttl| now.saturating_add(ttl.as_secs())),
            ends_at: NEVER,
            jti: None,
            session: None,
            issued_at: self.issued_at.as_deref().and_then(|at| session.pointer(at)).and_then(moment),
            claims: Claims::keep(claims, |name| self.kept.reads(name)),
            hold: None,
        }))
    }
}

/// Unix seconds, also from the milliseconds of `Date.now()`. What is neither says nothing: any revocation covers it.
fn moment(value: &Value) -> Option<u64> {
    const MILLISECONDS: u64 = 100_000_000_000;
    let at = value.as_u64().filter(|at| *at > 0)?;
    Some(if at < MILLISECONDS { at } else { at / 1000 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn rules() -> StoredRules {
        let claims = [("email", "/user/email"), ("roles", "/user/roles")].map(|(k, v)| (k.into(), v.into())).into();
        let store = SessionStore { claims, ..SessionStore::default() };
        let headers = [("x-auth-email", "email"), ("x-auth-roles", "roles")];
        StoredRules::new(&store, &HeaderMapping::compile::<_, _, &str>(headers, &[]).unwrap())
    }

    fn judge(session: &str) -> Result<Option<String>, Reason> {
        let judged = rules().judge(session.as_bytes(), None, NOW);
        judged.map(|who| who.map(|id| id.subject.to_string())).map_err(|f| f.reason)
    }

    #[test]
    fn the_user_stands_where_passport_or_the_application_has_put_it() {
        assert_eq!(judge(r#"{"cookie":{},"passport":{"user":"alice"}}"#), Ok(Some("alice".into())));
        assert_eq!(judge(r#"{"cookie":{},"passport":{"user":7}}"#), Ok(Some("7".into())));
        assert_eq!(judge(r#"{"cookie":{},"user":{"id":"bob","email":"b@x"}}"#), Ok(Some("bob".into())));
        assert_eq!(judge(r#"{"passport":{"user":null},"user":{"id":"bob"}}"#), Ok(Some("bob".into())));
        let id = rules().judge(
            br#"{"user":{"id":"bob","email":"b@x","roles":["a"],"password":"x"}}"#,
            Some(Duration::from_millis(9_900)),
            NOW,
        );
        let id = id.unwrap().unwrap();
        assert_eq!((id.expires_at, id.ends_at, &*id.issuer), (NOW + 9, NEVER, "express-session"));
        assert_eq!(id.claims.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["email", "roles"]);
    }

    #[test]
    fn c06_a_session_without_a_user_is_nobody() {
        for anonymous in
            ["{}", r#"{"cookie":{"path":"/"}}"#, r#"{"passport":{}}"#, r#"{"passport":null}"#, r#"{"user":{}}"#]
        {
            assert_eq!(judge(anonymous), Ok(None), "{anonymous}");
        }
    }

    #[test]
    fn c06_what_is_no_name_is_refused_and_never_taken_for_another() {
        for odd in ["true", "[]", "{}", "1.5", "\"\"", "1e400", &format!("\"{}\"", "x".repeat(1025))] {
            assert_eq!(judge(&format!(r#"{{"passport":{{"user":{odd}}}}}"#)), Err(Reason::ClaimRejected), "{odd}");
        }
    }

    #[test]
    fn c03_hostile_sessions_are_refused() {
        let deep = format!(r#"{{"a":{}1{},"passport":{{"user":"x"}}}}"#, "[".repeat(200), "]".repeat(200));
        let long = format!(r#"{{"a":"{}","passport":{{"user":"x"}}}}"#, "x".repeat(MAX_SESSION));
        let twice = r#"{"passport":{"user":"a"},"passport":{"user":"b"}}"#;
        for hostile in ["", "[]", "null", "\"x\"", "{", "{}{}", twice, &deep, &long] {
            assert_eq!(judge(hostile), Err(Reason::ClaimRejected), "{:.60}", hostile);
        }
        assert!(rules().judge(b"{\"a\":\"\xff\"}", None, NOW).is_err());
    }

    #[test]
    fn the_login_is_dated_by_the_application_in_seconds_or_milliseconds_or_not_at_all() {
        let mut rules = rules();
        let session = |at: &str| format!(r#"{{"user":{{"id":"bob","at":{at}}}}}"#);
        let dated = |rules: &StoredRules, at: &str| {
            let judged = rules.judge(session(at).as_bytes(), None, NOW);
            judged.unwrap().unwrap().issued_at
        };
        assert_eq!(dated(&rules, "1700000000"), None, "nobody said where it stands");
        rules.issued_at = Some("/user/at".into());
        for at in ["1700000000", "1700000000000", "1700000000999"] {
            assert_eq!(dated(&rules, at), Some(NOW), "{at}");
        }
        for odd in ["null", "0", "-1", "1.5", "\"1700000000\"", "{}", "1e300"] {
            assert_eq!(dated(&rules, odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn c03_no_session_makes_it_panic(bytes: Vec<u8>, near in "\\{(\"(passport|user)\":[{]?(\"(id|user)\":)?(1|\"a\"|null|[{]|\\[)?[}]*,?){0,3}\\}") {
            let _ = (rules().judge(&bytes, None, NOW), judge(&near));
        }
    }
}
