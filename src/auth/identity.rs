//! Who a verified token speaks for, and until when. Thousands of these are kept, so they are small.

use crate::auth::claims;
use crate::auth::vouch::Hold;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// The end of what says nothing about its end; `max_lifetime` bounds its sessions.
pub const NEVER: u64 = u64::MAX;

/// What is left of a token once it has been verified.
#[derive(Clone, PartialEq)]
pub struct Identity {
    /// The configured issuer; empty for a shared secret that names none.
    ///
    /// Never the token's own `iss` alone: two issuers cannot speak for each other's users.
    pub issuer: Arc<str>,
    /// Who, as the issuer's `subject` claim says.
    pub subject: Arc<str>,
    /// `exp`, in unix seconds.
    pub expires_at: u64,
    /// The first second at which the verifier would refuse the token: `exp` plus leeway, or the end of `max_age`.
    pub ends_at: u64,
    /// `jti`, where the token has one.
    pub jti: Option<Arc<str>>,
    /// `sid`: the user's session at the identity provider.
    pub session: Option<Arc<str>>,
    /// `iat`, in unix seconds.
    pub issued_at: Option<u64>,
    /// What else is asked of the token later.
    pub claims: Claims,
    /// Who has to be asked again while a session lives by it; `None`: the token says everything.
    pub hold: Option<Arc<Hold>>,
}

/// Claims of a token that are kept: those that the configuration names. A map would take 600 bytes for one.
#[derive(Clone, Default, PartialEq)]
pub struct Claims(Box<[(Box<str>, Value)]>);

impl Claims {
    /// Keeps those claims of which `wanted` says so.
    pub fn keep(claims: Map<String, Value>, wanted: impl Fn(&str) -> bool) -> Self {
        let kept = claims.into_iter().filter(|(name, _)| wanted(name));
        Self(kept.map(|(name, value)| (name.into_boxed_str(), value)).collect())
    }

    /// A claim by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// A claim by its name or path, as [`claims::lookup`].
    pub fn lookup(&self, path: &str) -> Option<&Value> {
        claims::lookup_by(|name| self.get(name), path)
    }

    /// All that are kept.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl From<Map<String, Value>> for Claims {
    fn from(claims: Map<String, Value>) -> Self {
        Self::keep(claims, |_| true)
    }
}

impl Identity {
    /// Whether both speak for the same user of the same issuer.
    pub fn same_user(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }

    /// The user as the provider itself names it: `sub`, also where the issuer's `subject` is another claim.
    pub fn sub(&self) -> &str {
        self.claims.get("sub").and_then(Value::as_str).unwrap_or(&self.subject)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Claims are personal data and `sid` is a handle for logout: neither belongs into a log.
        f.debug_struct("Identity")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .field("expires_at", &self.expires_at)
            .field("ends_at", &self.ends_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(issuer: &str, subject: &str) -> Identity {
        let Value::Object(claims) = json!({"email": "private@example.com"}) else { unreachable!() };
        Identity {
            issuer: issuer.into(),
            subject: subject.into(),
            expires_at: 10,
            ends_at: 15,
            jti: Some("secret-jti".into()),
            session: Some("secret-sid".into()),
            issued_at: None,
            claims: claims.into(),
            hold: None,
        }
    }

    #[test]
    fn the_same_subject_of_two_issuers_is_two_users() {
        assert!(identity("a", "7").same_user(&identity("a", "7")));
        assert!(!identity("a", "7").same_user(&identity("b", "7")));
        assert!(!identity("a", "7").same_user(&identity("a", "8")));
    }

    #[test]
    fn debug_shows_neither_claims_nor_session() {
        let shown = format!("{:?}", identity("a", "7"));
        assert!(shown.contains("subject: \"7\""));
        assert!(!shown.contains("private") && !shown.contains("secret"), "{shown}");
    }
}
