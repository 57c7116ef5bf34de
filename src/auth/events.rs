//! Security event tokens of OpenID Shared Signals (RFC 8417, CAEP 1.0): which are believed, and what they withdraw.

use crate::auth::jose::{Compact, Fault, shown};
use crate::auth::revocation::{ALL, Kind, MAX_VALUE, Revocation};
use crate::auth::rules::{IssuerRules, rejected};
use crate::auth::statement::{Form, Statement, event};
use crate::auth::verifier::{Refusal, Verifier};
use crate::config::model::issuers::Issuer;
use crate::config::model::revocation::Transmitter as Section;
use crate::reason::Reason;
use aws_lc_rs::constant_time;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use std::sync::Arc;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CREDENTIAL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/credential-change";

/// The keys of a transmitter, as those of an issuer of its name.
pub fn keys_of(section: &Section) -> Issuer {
    Issuer {
        issuer: Some(section.issuer.clone()),
        jwks_url: section.jwks_url.clone(),
        jwks_file: section.jwks_file.clone(),
        ca_file: section.ca_file.clone(),
        allow_http: section.allow_http,
        algorithms: section.algorithms.clone(),
        audience: section.audience.clone(),
        ..Issuer::default()
    }
}

/// Who may tell of withdrawn rights.
#[derive(Debug)]
pub struct Transmitter {
    rules: IssuerRules,
    form: Form,
    speaks_for: Vec<Arc<str>>,
    token: Option<SecretString>,
}

impl Transmitter {
    /// By its section; `rules` are those of [`keys_of`].
    pub fn new(section: &Section, rules: IssuerRules, token: Option<SecretString>) -> Self {
        let form = Form {
            typ: "application/secevent+jwt",
            any_typ: false,
            // RFC 8417 section 2.2: what has happened does not expire.
            exp: false,
            audience: section.audience.clone(),
            max_age: section.max_age.as_secs(),
        };
        let own = std::slice::from_ref(&section.issuer);
        let names = if section.speaks_for.is_empty() { own } else { &section.speaks_for };
        Self { rules, form, speaks_for: names.iter().map(|name| name.as_str().into()).collect(), token }
    }

    fn is_authentic(&self, bearer: Option<&str>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = bearer.unwrap_or_default().as_bytes();
        constant_time::verify_slices_are_equal(given, token.expose_secret().as_bytes()).is_ok()
    }

    /// The issuer whose user is meant, where this transmitter may speak of it.
    fn issuer(&self, name: Option<&str>) -> Option<&Arc<str>> {
        match (name, self.speaks_for.as_slice()) {
            (Some(name), all) => all.iter().find(|issuer| ***issuer == *name),
            // A name that only makes sense at one place.
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// What a transmitter has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The place of the transmitter in the configuration.
    pub index: usize,
    /// What every statement says.
    pub statement: Statement,
    /// What is refused from now on.
    pub revocations: Vec<Revocation>,
}

impl Verifier {
    /// Whether anybody may send events here.
    pub fn hears_events(&self) -> bool {
        !self.transmitters().is_empty()
    }

    /// Judges a security event token at `now`; `bearer` is the token that its sender has shown. Events and subjects
    /// that mean nothing here withdraw nothing.
    ///
    /// # Errors
    /// The first rule that is broken. [`Reason::CredentialMissing`]: the sender is not who it should be.
    pub fn event(&self, token: &str, bearer: Option<&str>, remember: u64, now: u64) -> Result<News, Refusal> {
        let token = Compact::parse(token)?;
        let Some(Value::String(iss)) = token.claims.get("iss") else {
            return Err(Fault::new(Reason::IssuerUnknown, "iss is missing or not a string").into());
        };
        let known = self.transmitters().iter().enumerate().find(|(_, known)| known.rules.name() == Some(iss));
        let (index, transmitter) =
            known.ok_or_else(|| Fault::new(Reason::IssuerUnknown, format!("iss {} is no transmitter", shown(iss))))?;
        if !transmitter.is_authentic(bearer) {
            return Err(Fault::new(Reason::CredentialMissing, "the bearer token is not the transmitter's").into());
        }
        let rules = &transmitter.rules;
        let statement = transmitter.form.check(&token.header, &token.claims, rules.leeway(), now)?;
        let meant = meant(transmitter, &token.claims, &statement)?;
        // Its keys stand behind those of all issuers.
        self.signed(self.issuers().len() + index, rules, &token, now)?;
        let revocations = meant.into_iter().map(|(whom, not_before)| {
            let spoken_of = self.issuers().iter().find(|rules| rules.name() == Some(&*whom.issuer));
            let rules = spoken_of.unwrap_or(rules);
            let until = rules.longest_life(statement.issued_at, remember);
            let not_before = if matches!(whom.kind, Kind::Sid | Kind::Token) { ALL } else { not_before };
            let Whom { kind, issuer, value } = whom;
            Revocation { kind, issuer, value, not_before, until, reason: Reason::Revoked }
        });
        Ok(News { index, revocations: revocations.collect(), statement })
    }
}

struct Whom {
    kind: Kind,
    issuer: Arc<str>,
    value: Arc<str>,
}

/// Whom the events of a token concern, and until when what they were given counts no more.
fn meant(
    transmitter: &Transmitter,
    claims: &Map<String, Value>,
    statement: &Statement,
) -> Result<Vec<(Whom, u64)>, Fault> {
    let mut all = Vec::new();
    let revoked = event(claims, SESSION_REVOKED)?;
    let changed = event(claims, CREDENTIAL_CHANGE)?;
    // Another way in harms nobody who came by an old one.
    let changed = changed.filter(|event| event.get("change_type").and_then(Value::as_str) != Some("create"));
    for event in [revoked, changed].into_iter().flatten() {
        // Shared Signals 1.0 names the subject beside the events, its drafts within each.
        let subject = claims.get("sub_id").or_else(|| event.get("subject"));
        let Some(Value::Object(subject)) = subject else { return Err(rejected("the event has no subject")) };
        let at = event.get("event_timestamp").and_then(Value::as_u64).unwrap_or(u64::MAX).min(statement.issued_at);
        all.extend(subjects(transmitter, subject)?.into_iter().map(|whom| (whom, at)));
    }
    Ok(all)
}

/// RFC 9493, as far as it names what tokens name.
fn subjects(transmitter: &Transmitter, subject: &Map<String, Value>) -> Result<Vec<Whom>, Fault> {
    let format = subject.get("format").and_then(Value::as_str).ok_or_else(|| rejected("the subject has no format"))?;
    if format != "complex" {
        return Ok(simple(transmitter, format, subject, Kind::Sub)?.into_iter().collect());
    }
    let member = |name: &str, kind| match subject.get(name) {
        None => Ok(None),
        Some(Value::Object(member)) => {
            let format = member.get("format").and_then(Value::as_str).unwrap_or_default();
            simple(transmitter, format, member, kind)
        }
        Some(_) => Err(rejected(format!("{name} of the subject is not an object"))),
    };
    let session = member("session", Kind::Sid)?;
    // Without a session that can be told, any session of the user may be the one that is meant, whatever device or
    // application the subject names besides.
    let kind = if session.is_some() { Kind::SubWithoutSid } else { Kind::Sub };
    let user = member("user", kind)?;
    Ok(session.into_iter().chain(user).collect())
}

/// `None`: a subject that means nothing here.
fn simple(
    transmitter: &Transmitter,
    format: &str,
    subject: &Map<String, Value>,
    kind: Kind,
) -> Result<Option<Whom>, Fault> {
    let text = |name: &str| match subject.get(name) {
        Some(Value::String(text)) if (1..=MAX_VALUE).contains(&text.len()) => Ok(text.as_str()),
        _ => Err(rejected(format!("{name} of the subject is no text of 1 to 1024 bytes"))),
    };
    let (issuer, kind, value) = match format {
        "iss_sub" => (Some(text("iss")?), kind, text("sub")?),
        "jwt_id" => (Some(text("iss")?), Kind::Token, text("jti")?),
        "opaque" => (None, kind, text("id")?),
        _ => return Ok(None),
    };
    // L04: nobody speaks of another's users.
    match transmitter.issuer(issuer) {
        Some(issuer) => Ok(Some(Whom { kind, issuer: issuer.clone(), value: value.into() })),
        None => Err(rejected("the transmitter may not speak of users of that issuer, or does not say which")),
    }
}

#[cfg(test)]
mod tests;
