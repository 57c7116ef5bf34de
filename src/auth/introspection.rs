//! What an authorization server says about a token (RFC 7662 section 2.2).

use crate::auth::claims::{self, HeaderMapping};
use crate::auth::identity::{Claims, Identity, NEVER};
use crate::auth::jose::{Fault, shown};
use crate::auth::rules::{MAX_NAME, label, seconds, text};
use crate::auth::vouch::Word;
use crate::config::model::vouchers::Introspection;
use crate::protocol::json;
use crate::reason::Reason;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Two clocks that both say "now" may differ by so many seconds.
const SKEW: u64 = 5;

/// What an answer must say.
#[derive(Clone, Debug)]
pub struct IntrospectionRules {
    issuer: Arc<str>,
    audience: Vec<String>,
    scope: Vec<String>,
    subject: String,
    kept: HeaderMapping,
}

impl IntrospectionRules {
    /// Identities keep the claims that `kept` reads.
    pub fn new(section: &Introspection, kept: &HeaderMapping) -> Self {
        Self {
            issuer: section.issuer.as_str().into(),
            audience: section.audience.clone(),
            scope: section.scope.clone(),
            subject: section.subject.clone(),
            kept: kept.clone(),
        }
    }

    /// Judges an answer by its status and body.
    pub fn judge(&self, status: u16, body: &[u8], now: u64) -> Word {
        if status != 200 {
            // 401 is about the gate's own credentials.
            return Word::Unclear(format!("status {status}"));
        }
        let answer = std::str::from_utf8(body).map_err(|_| "not UTF-8".to_owned());
        let answer = match answer.and_then(|text| json::object(text.trim()).map_err(|e| e.to_string())) {
            Ok(answer) => answer,
            Err(why) => return Word::Unclear(why),
        };
        match answer.get("active") {
            Some(Value::Bool(true)) => match self.identity(answer, now) {
                Ok(identity) => Word::Yes(Box::new(identity)),
                Err(fault) => Word::No(fault),
            },
            Some(Value::Bool(false)) => Word::No(Fault::new(Reason::Revoked, "the token is not active")),
            _ => Word::Unclear("no member active of true or false".into()),
        }
    }

    fn identity(&self, answer: Map<String, Value>, now: u64) -> Result<Identity, Fault> {
        let expires_at = seconds(&answer, "exp")?.map_or(NEVER, |at| at.floor);
        if now >= expires_at {
            return Err(Fault::new(Reason::TokenExpired, format!("exp is {expires_at}; now is {now}")));
        }
        if seconds(&answer, "nbf")?.is_some_and(|at| at.ceil > now.saturating_add(SKEW)) {
            return Err(Fault::new(Reason::TokenNotYetValid, "nbf is in the future"));
        }
        match answer.get("iss") {
            None => {}
            Some(Value::String(iss)) if **iss == *self.issuer => {}
            Some(other) => {
                let named = other.as_str().map_or_else(|| "not a string".into(), shown);
                return Err(Fault::new(Reason::IssuerUnknown, format!("iss is {named}")));
            }
        }
        self.check_audience(&answer)?;
        self.check_scope(&answer)?;
        self.check_kind(&answer)?;
        let subject = claims::lookup(&answer, &self.subject)
            .and_then(text)
            .filter(|subject| !subject.is_empty() && subject.len() <= MAX_NAME)
            .ok_or_else(|| rejected(format!("{} is no short string or whole number", self.subject)))?;
        Ok(Identity {
            issuer: self.issuer.clone(),
            subject: subject.into(),
            expires_at,
            ends_at: expires_at,
            jti: label(&answer, "jti")?,
            session: label(&answer, "sid")?,
            issued_at: seconds(&answer, "iat")?.map(|at| at.floor),
            claims: Claims::keep(answer, |name| self.kept.reads(name)),
            hold: None,
        })
    }

    fn check_audience(&self, answer: &Map<String, Value>) -> Result<(), Fault> {
        let named = |aud: &Value| aud.as_str().is_some_and(|aud| self.audience.iter().any(|known| known == aud));
        let fits = match answer.get("aud") {
            _ if self.audience.is_empty() => true,
            Some(Value::Array(list)) => list.iter().any(named),
            Some(aud) => named(aud),
            None => false,
        };
        if fits { Ok(()) } else { Err(Fault::new(Reason::AudienceMismatch, "aud names none of audience")) }
    }

    /// RFC 7662: one string, with blanks. J33: any other type is no scope at all.
    fn check_scope(&self, answer: &Map<String, Value>) -> Result<(), Fault> {
        let has: Vec<&str> = answer.get("scope").and_then(Value::as_str).unwrap_or_default().split(' ').collect();
        match self.scope.iter().find(|needed| !has.contains(&needed.as_str())) {
            None => Ok(()),
            Some(missing) => Err(rejected(format!("the scope {} is missing", shown(missing)))),
        }
    }

    /// RFC 9700 section 2.2: a token bound to a key we cannot ask for is suspicious when it comes as plain bearer.
    fn check_kind(&self, answer: &Map<String, Value>) -> Result<(), Fault> {
        let bearer = |kind: &Value| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
        match answer.get("token_type") {
            None | Some(Value::Null) => {}
            Some(kind) if bearer(kind) => {}
            Some(_) => return Err(rejected("token_type is not Bearer")),
        }
        if answer.contains_key("cnf") {
            return Err(rejected("the token is bound to a key (cnf), which cannot be checked here"));
        }
        Ok(())
    }
}

fn rejected(detail: impl Into<String>) -> Fault {
    Fault::new(Reason::ClaimRejected, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: u64 = 1_700_000_000;

    fn rules(change: impl FnOnce(&mut Introspection)) -> IntrospectionRules {
        let mut section = Introspection { issuer: "https://as/".into(), ..Introspection::default() };
        change(&mut section);
        IntrospectionRules::new(&section, &HeaderMapping::compile::<&str, &str, &str>([], &[]).unwrap())
    }

    fn judged(rules: &IntrospectionRules, change: Value) -> Result<Identity, Reason> {
        let mut answer = json!({"active": true, "sub": "alice", "exp": NOW + 60});
        for (name, value) in change.as_object().unwrap() {
            answer[name] = value.clone();
        }
        match rules.judge(200, answer.to_string().as_bytes(), NOW) {
            Word::Yes(identity) => Ok(*identity),
            Word::No(fault) => Err(fault.reason),
            Word::Unclear(why) => panic!("{why}"),
        }
    }

    #[test]
    fn an_active_token_is_somebody_until_its_exp() {
        let identity = judged(&rules(|_| {}), json!({"jti": "j", "sid": 5, "token_type": "bearer"})).unwrap();
        assert_eq!((&*identity.subject, &*identity.issuer, identity.ends_at), ("alice", "https://as/", NOW + 60));
        assert_eq!((identity.jti.as_deref(), identity.session.as_deref()), (Some("j"), Some("5")));
        let endless = rules(|_| {}).judge(200, br#" {"active":true,"sub":7} "#, NOW);
        assert!(matches!(endless, Word::Yes(id) if &*id.subject == "7" && id.ends_at == NEVER));
    }

    #[test]
    fn every_member_that_speaks_against_it_refuses_it() {
        let all = rules(|s| (s.audience, s.scope) = (vec!["chat".into()], vec!["a".into(), "b".into()]));
        let good = json!({"aud": ["x", "chat"], "scope": "c b a", "iss": "https://as/"});
        assert!(judged(&all, good.clone()).is_ok());
        for (member, value, reason) in [
            ("exp", json!(NOW), Reason::TokenExpired),
            ("exp", json!("soon"), Reason::ClaimRejected),
            ("nbf", json!(NOW + 60), Reason::TokenNotYetValid),
            ("iss", json!("https://as"), Reason::IssuerUnknown),
            ("iss", json!(["https://as/"]), Reason::IssuerUnknown),
            ("aud", json!("other"), Reason::AudienceMismatch),
            ("aud", json!({"chat": 1}), Reason::AudienceMismatch),
            ("aud", Value::Null, Reason::AudienceMismatch),
            ("scope", json!("a"), Reason::ClaimRejected),
            ("scope", json!(["a", "b"]), Reason::ClaimRejected),
            ("scope", json!({"a": 1}), Reason::ClaimRejected),
            ("token_type", json!("DPoP"), Reason::ClaimRejected),
            ("cnf", json!({"jkt": "x"}), Reason::ClaimRejected),
            ("sub", Value::Null, Reason::ClaimRejected),
            ("sub", json!(""), Reason::ClaimRejected),
            ("sub", json!(1.5), Reason::ClaimRejected),
        ] {
            let mut answer = good.clone();
            answer[member] = value;
            assert_eq!(judged(&all, answer.clone()).map(|_| ()), Err(reason), "{answer}");
        }
    }

    #[test]
    fn inactive_is_a_refusal_and_anything_unclear_is_none() {
        let rules = rules(|_| {});
        let inactive = rules.judge(200, br#"{"active":false,"sub":"alice"}"#, NOW);
        assert!(matches!(inactive, Word::No(fault) if fault.reason == Reason::Revoked));
        let good = br#"{"active":true,"sub":"alice"}"#;
        for status in [201, 204, 301, 400, 401, 403, 429, 500] {
            assert!(matches!(rules.judge(status, good, NOW), Word::Unclear(_)), "{status}");
        }
        for body in [
            "",
            "[]",
            "null",
            "<html>",
            "{}",
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"active":true,"active":true}"#,
        ] {
            assert!(matches!(rules.judge(200, body.as_bytes(), NOW), Word::Unclear(_)), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(status in 100u16..600, body: Vec<u8>) {
            let _ = rules(|_| {}).judge(status, &body, NOW);
        }
    }
}
