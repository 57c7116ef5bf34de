//! Tokens that are no credentials but statements to the gate: what logout tokens and security events have in common.

use crate::auth::jose::{Fault, Header, media_type, shown};
use crate::auth::rules::{check_audience, label, rejected, seconds};
use crate::reason::Reason;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a kind of statement must look like.
#[derive(Clone, Debug)]
pub struct Form {
    /// `typ`, with its `application/`.
    pub typ: &'static str,
    /// `typ` may be absent, or say no more than `JWT`.
    pub any_typ: bool,
    /// `exp` must be there.
    pub exp: bool,
    /// Whom it must be for.
    pub audience: Vec<String>,
    /// For so many seconds after its `iat` it is listened to.
    pub max_age: u64,
}

/// What every statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its own name.
    pub jti: Arc<str>,
    /// When it was made.
    pub issued_at: u64,
    /// From then on it is refused whatever it says.
    pub stale_at: u64,
}

impl Form {
    /// Checks everything about a statement but its signature and its events.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(
        &self,
        header: &Header,
        claims: &Map<String, Value>,
        leeway: u64,
        now: u64,
    ) -> Result<Statement, Fault> {
        let typ = header.typ.as_deref().map(media_type);
        let fits = match typ.as_deref() {
            Some(typ) => typ == self.typ || (self.any_typ && typ == "application/jwt"),
            None => self.any_typ,
        };
        if !fits {
            let typ = header.typ.as_deref().map_or_else(|| "absent".into(), shown);
            return Err(rejected(format!("typ is {typ} instead of {}", self.typ)));
        }
        check_audience(&self.audience, claims)?;
        let issued_at = seconds(claims, "iat")?.ok_or_else(|| rejected("iat is missing"))?;
        let stale_at = issued_at.floor.saturating_add(self.max_age).saturating_add(leeway);
        let expires = seconds(claims, "exp")?.map(|exp| exp.floor.saturating_add(leeway));
        if self.exp && expires.is_none() {
            return Err(rejected("exp is missing"));
        }
        let stale_at = expires.map_or(stale_at, |expires| expires.min(stale_at));
        if now >= stale_at {
            return Err(Fault::new(Reason::TokenExpired, format!("it was good until {stale_at}; now is {now}")));
        }
        for (name, at) in [("nbf", seconds(claims, "nbf")?), ("iat", Some(issued_at))] {
            if at.is_some_and(|at| at.ceil > now.saturating_add(leeway)) {
                return Err(Fault::new(Reason::TokenNotYetValid, format!("{name} is in the future")));
            }
        }
        let jti = label(claims, "jti")?.filter(|jti| !jti.is_empty()).ok_or_else(|| rejected("jti is missing"))?;
        Ok(Statement { jti, issued_at: issued_at.floor, stale_at })
    }
}

/// One event of a statement, whose value must be an object; others are not looked at (RFC 8417 section 2.2).
pub fn event<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Map<String, Value>>, Fault> {
    let events = match claims.get("events") {
        Some(Value::Object(events)) => events,
        Some(_) => return Err(rejected("events is not an object")),
        None => return Err(rejected("events is missing")),
    };
    match events.get(name) {
        None => Ok(None),
        Some(Value::Object(event)) => Ok(Some(event)),
        Some(_) => Err(rejected(format!("the event {} is not an object", shown(name)))),
    }
}

/// Names of statements that were taken, each until it is stale.
#[derive(Debug, Default)]
pub struct Heard(Mutex<HashMap<(usize, Arc<str>), u64>>);

/// Statements remembered at once.
const MAX_HEARD: usize = 10_000;

impl Heard {
    /// Notes one; `false` where it has been heard before.
    pub fn first(&self, issuer: usize, statement: &Statement, now: u64) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= MAX_HEARD {
            heard.retain(|_, stale_at| *stale_at > now);
        }
        if heard.len() >= MAX_HEARD {
            // To hear one again does no harm: it withdraws what was issued before it, and no more.
            heard.clear();
        }
        heard.insert((issuer, statement.jti.clone()), statement.stale_at).is_none_or(|stale_at| stale_at <= now)
    }
}
