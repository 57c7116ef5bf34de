//! What an endpoint of the operator's says about a request: an identity in JSON or in headers, or no.

use crate::auth::claims::HeaderMapping;
use crate::auth::identity::{Claims, Identity, NEVER};
use crate::auth::jose::Fault;
use crate::auth::rules::{MAX_NAME, seconds, text};
use crate::auth::vouch::Word;
use crate::config::model::vouchers::Callout;
use crate::protocol::json;
use crate::reason::Reason;
use http::HeaderMap;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// How an answer is read.
#[derive(Clone, Debug)]
pub struct CalloutRules {
    issuer: Arc<str>,
    subject: String,
    subject_header: Option<String>,
    claims_from_headers: Vec<(String, String)>,
    kept: HeaderMapping,
}

impl CalloutRules {
    /// Identities keep the claims that `kept` reads.
    pub fn new(section: &Callout, kept: &HeaderMapping) -> Self {
        let claims = section.claims_from_headers.iter();
        Self {
            issuer: section.issuer.as_str().into(),
            subject: section.subject.clone(),
            subject_header: section.subject_header.clone(),
            claims_from_headers: claims.map(|(claim, header)| (claim.clone(), header.clone())).collect(),
            kept: kept.clone(),
        }
    }

    /// Judges an answer. `max_age`: what `Cache-Control` allows, if it allows anything.
    pub fn judge(&self, status: u16, headers: &HeaderMap, body: &[u8], max_age: Option<Duration>, now: u64) -> Word {
        match status {
            200..=299 => {}
            401 | 403 => return Word::No(Fault::new(Reason::Revoked, format!("status {status}"))),
            _ => return Word::Unclear(format!("status {status}")),
        }
        let identity = match self.identity(headers, body, max_age, now) {
            Ok(identity) => identity,
            Err(why) => return Word::Unclear(why),
        };
        if now >= identity.expires_at {
            return Word::No(Fault::new(Reason::TokenExpired, "expires_at has passed"));
        }
        Word::Yes(Box::new(identity))
    }

    /// What says 2xx and does not say who is broken: no refusal.
    fn identity(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        max_age: Option<Duration>,
        now: u64,
    ) -> Result<Identity, String> {
        let mut claims = match &self.subject_header {
            Some(_) => Map::new(),
            None => {
                let body = std::str::from_utf8(body).map_err(|_| "not UTF-8")?;
                json::object(body.trim()).map_err(|e| e.to_string())?
            }
        };
        let subject = match &self.subject_header {
            Some(name) => one(headers, name)?,
            None => Value::Object(claims.clone()).pointer(&self.subject).and_then(text),
        };
        let subject = subject
            .filter(|subject| !subject.is_empty() && subject.len() <= MAX_NAME)
            .ok_or("no subject that is a short string or a whole number")?;
        let said = match claims.get("expires_at") {
            None | Some(Value::Null) => None,
            Some(_) => seconds(&claims, "expires_at").map_err(|fault| fault.detail)?,
        };
        let aged = max_age.filter(|age| !age.is_zero()).map(|age| now.saturating_add(age.as_secs()));
        let expires_at = said.map(|at| at.floor).into_iter().chain(aged).min().unwrap_or(NEVER);
        for (claim, header) in &self.claims_from_headers {
            if let Some(value) = one(headers, header)? {
                claims.insert(claim.clone(), value.into());
            }
        }
        Ok(Identity {
            issuer: self.issuer.clone(),
            subject: subject.into(),
            expires_at,
            ends_at: NEVER,
            jti: None,
            session: None,
            issued_at: None,
            claims: Claims::keep(claims, |name| self.kept.reads(name)),
            hold: None,
        })
    }
}

/// P46: a header that stands twice is nobody's word.
fn one(headers: &HeaderMap, name: &str) -> Result<Option<String>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let value = value.to_str().map_err(|_| format!("{name} is not plain ASCII"))?;
            Ok(Some(value.trim().to_owned()))
        }
        (Some(_), Some(_)) => Err(format!("{name} stands more than once")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn rules(change: impl FnOnce(&mut Callout)) -> CalloutRules {
        let mut section = Callout::default();
        change(&mut section);
        let kept = HeaderMapping::compile::<_, _, &str>([("x-auth-tenant", "tenant")], &[]).unwrap();
        CalloutRules::new(&section, &kept)
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn json(body: &str) -> Word {
        rules(|_| {}).judge(200, &HeaderMap::new(), body.as_bytes(), None, NOW)
    }

    #[test]
    fn json_says_who_until_when_and_what_else() {
        let Word::Yes(id) = json(&format!("{{\"sub\":\"alice\",\"tenant\":\"t\",\"expires_at\":{}}}\n", NOW + 5))
        else {
            panic!()
        };
        assert_eq!((&*id.subject, &*id.issuer, id.expires_at, id.ends_at), ("alice", "callout", NOW + 5, NEVER));
        assert_eq!(id.claims.get("tenant"), Some(&Value::from("t")));
        let nested = rules(|s| s.subject = "/user/id".into());
        let word = nested.judge(201, &HeaderMap::new(), br#"{"user":{"id":7}}"#, Some(Duration::from_secs(9)), NOW);
        assert!(matches!(word, Word::Yes(id) if &*id.subject == "7" && id.expires_at == NOW + 9));
        let no_store = rules(|_| {}).judge(200, &HeaderMap::new(), br#"{"sub":"a"}"#, Some(Duration::ZERO), NOW);
        assert!(matches!(no_store, Word::Yes(id) if id.expires_at == NEVER));
    }

    #[test]
    fn p46_headers_say_it_by_the_allow_list_and_once() {
        let rules = rules(|s| {
            s.subject_header = Some("x-user".into());
            s.claims_from_headers = [("tenant".to_owned(), "x-tenant".to_owned())].into();
        });
        let said = headers(&[("x-user", " alice "), ("x-tenant", "t"), ("x-role", "admin"), ("connection", "x-auth")]);
        let Word::Yes(id) = rules.judge(204, &said, b"{\"sub\":\"mallory\"", None, NOW) else { panic!() };
        assert_eq!((&*id.subject, id.claims.iter().count()), ("alice", 1));
        for bad in [
            headers(&[]),
            headers(&[("x-user", "")]),
            headers(&[("x-user", "a"), ("x-user", "a")]),
            headers(&[("x-user", "a"), ("x-tenant", "1"), ("x-tenant", "2")]),
        ] {
            assert!(matches!(rules.judge(200, &bad, b"", None, NOW), Word::Unclear(_)), "{bad:?}");
        }
    }

    #[test]
    fn only_401_and_403_are_refusals() {
        let rules = rules(|_| {});
        for status in 100..600 {
            let word = rules.judge(status, &HeaderMap::new(), br#"{"sub":"a"}"#, None, NOW);
            match status {
                200..=299 => assert!(matches!(word, Word::Yes(_)), "{status}"),
                401 | 403 => assert!(matches!(word, Word::No(fault) if fault.reason == Reason::Revoked), "{status}"),
                _ => assert!(matches!(word, Word::Unclear(_)), "{status}"),
            }
        }
        for body in [
            "",
            "ok",
            "[]",
            "{}",
            r#"{"sub":null}"#,
            r#"{"sub":""}"#,
            r#"{"sub":{}}"#,
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"sub":"a","expires_at":"soon"}"#,
        ] {
            assert!(matches!(json(body), Word::Unclear(_)), "{body}");
        }
        assert!(
            matches!(json(r#"{"sub":"a","expires_at":5}"#), Word::No(fault) if fault.reason == Reason::TokenExpired)
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(body: Vec<u8>, near in "\\{\"sub\":[0-9\"{\\[a-z\\]}]{0,9}(,\"expires_at\":[-0-9.e]{0,9})?\\}") {
            let _ = (rules(|_| {}).judge(200, &HeaderMap::new(), &body, None, NOW), json(&near));
        }
    }
}
