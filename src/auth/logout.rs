//! Logout tokens of OpenID Connect Back-Channel Logout 1.0: which are believed, and what they withdraw.

use crate::auth::jose::{Compact, Fault, shown};
use crate::auth::revocation::{ALL, Kind, Revocation};
use crate::auth::rules::{IssuerRules, label, rejected};
use crate::auth::statement::{Form, Statement, event};
use crate::auth::verifier::{Refusal, Verifier};
use crate::config::model::revocation::Logout as Section;
use crate::reason::Reason;
use serde_json::Value;
use std::sync::Arc;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The form that a section asks for.
pub fn form(section: &Section) -> Form {
    Form {
        typ: "application/logout+jwt",
        any_typ: section.lenient,
        exp: !section.lenient,
        audience: section.audience.clone(),
        max_age: section.max_age.as_secs(),
    }
}

/// A logout that an issuer has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logout {
    /// The place of the issuer in the configuration.
    pub index: usize,
    /// What every statement says.
    pub statement: Statement,
    issuer: Arc<str>,
    sub: Option<Arc<str>>,
    sid: Option<Arc<str>>,
    until: u64,
}

impl Logout {
    /// What is refused from now on: the login, and tokens of the user that do not say which login they are of; where
    /// no login is named, everything that the user was given until then.
    pub fn revocations(&self) -> Vec<Revocation> {
        let revocation = |kind, value: &Arc<str>, not_before| Revocation {
            kind,
            issuer: self.issuer.clone(),
            value: value.clone(),
            not_before,
            until: self.until,
            reason: Reason::LoggedOut,
        };
        let issued_at = self.statement.issued_at;
        let login = self.sid.iter().map(|sid| revocation(Kind::Sid, sid, ALL));
        let kind = if self.sid.is_some() { Kind::SubWithoutSid } else { Kind::Sub };
        login.chain(self.sub.iter().map(|sub| revocation(kind, sub, issued_at))).collect()
    }
}

impl Verifier {
    /// Whether any issuer may log users out here.
    pub fn hears_logouts(&self) -> bool {
        self.issuers().iter().any(|rules| rules.logout().is_some())
    }

    /// Judges a logout token at `now`. Everything that costs nothing is checked before the signature (L07). Without a
    /// longest life of its own, an issuer's tokens live no longer than `remember` seconds.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn logout(&self, token: &str, remember: u64, now: u64) -> Result<Logout, Refusal> {
        let token = Compact::parse(token)?;
        let (index, rules, form) = self.speaker(&token)?;
        let claims = &token.claims;
        let statement = form.check(&token.header, claims, rules.leeway(), now)?;
        if event(claims, EVENT)?.is_none() {
            return Err(rejected("events does not have the logout event").into());
        }
        // That is what tells it from an ID token (L01).
        if claims.contains_key("nonce") {
            return Err(rejected("nonce is not allowed").into());
        }
        let named = |name| label(claims, name).map(|value| value.filter(|value| !value.is_empty()));
        let (sub, sid) = (named("sub")?, named("sid")?);
        if sub.is_none() && sid.is_none() {
            return Err(rejected("neither sub nor sid says who").into());
        }
        self.signed(index, rules, &token, now)?;
        let issuer = rules.name().unwrap_or_default().into();
        let until = rules.longest_life(statement.issued_at, remember);
        Ok(Logout { index, statement, issuer, sub, sid, until })
    }

    /// The configured issuer that the token names, where it may log users out.
    fn speaker(&self, token: &Compact<'_>) -> Result<(usize, &IssuerRules, &Form), Fault> {
        let Some(Value::String(iss)) = token.claims.get("iss") else {
            return Err(rejected("iss is missing or not a string"));
        };
        let rules = self.issuers().iter().enumerate().find(|(_, rules)| rules.name() == Some(iss));
        let speaker = rules.and_then(|(index, rules)| Some((index, rules, rules.logout()?)));
        speaker.ok_or_else(|| Fault::new(Reason::IssuerUnknown, format!("iss {} has no [issuer.logout]", shown(iss))))
    }
}

#[cfg(test)]
mod tests;
