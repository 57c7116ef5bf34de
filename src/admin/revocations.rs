//! `/api/revocations`: what is refused before its time.

use crate::admin::query::{Query, Wrong};
use crate::auth::revocation::{ALL, Kind, MAX_VALUE, Place, Revocation};
use crate::reason::Reason;
use crate::session::revoker::{Origin, Revoker};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// No clock is further ahead than the longest leeway.
const AHEAD: u64 = 300;

/// Nobody means a time beyond.
const LONGEST: u64 = 3650 * 24 * 3600;

/// Who may be revoked, and for how long.
pub struct Scope {
    /// The issuers of the configuration, of tokens and of those who vouch; empty for a shared secret without a name.
    pub issuers: Vec<Arc<str>>,
    /// `revocation.remember`, in seconds.
    pub remember: u64,
}

/// `GET /api/revocations`: a page of them, those that are forgotten first first.
///
/// # Errors
/// A parameter that is none, or that has a value of another form.
pub fn list(revoker: &Revoker, raw: &str) -> Result<Value, Wrong> {
    let query = Query::parse(raw, &["limit", "after"])?;
    let limit = query.limit()?;
    let after = query.get("after").map(place).transpose()?;
    revoker.table().purge(revoker.now());
    let page = revoker.table().list(after, limit);
    let next = page.last().filter(|_| page.len() == limit).map(|((until, number), _)| format!("{until}-{number}"));
    let entries: Vec<_> = page.iter().map(|(_, revocation)| show(revocation)).collect();
    Ok(json!({"revocations": entries, "next": next, "remembered": revoker.table().len()}))
}

fn place(text: &str) -> Result<Place, Wrong> {
    let parts = text.split_once('-').and_then(|(until, number)| Some((until.parse().ok()?, number.parse().ok()?)));
    parts.ok_or_else(|| Wrong::new("after", text, "`next` of the page before"))
}

fn show(revocation: &Revocation) -> Value {
    let Revocation { kind, issuer, value, not_before, until, reason } = revocation;
    json!({
        "kind": kind.name(),
        "issuer": &**issuer,
        "value": &**value,
        "not_before": (*not_before != ALL).then_some(not_before),
        "until": until,
        "reason": reason.word(),
    })
}

/// `POST /api/revocations`.
///
/// # Errors
/// A member that is none, is missing, or has another form: nothing is revoked then.
pub async fn take(revoker: &Revoker, scope: &Scope, body: &Map<String, Value>) -> Result<Value, Wrong> {
    let revocation = read(scope, body, revoker.now())?;
    let taken = revoker.take(std::slice::from_ref(&revocation), Origin::Admin).await;
    let mut answer = show(&revocation);
    if let Some(members) = answer.as_object_mut() {
        members.insert("ended".into(), taken.ended.into());
        members.insert("new".into(), taken.new.into());
    }
    Ok(answer)
}

fn read(scope: &Scope, body: &Map<String, Value>, now: u64) -> Result<Revocation, Wrong> {
    const KNOWN: [&str; 7] = ["issuer", "jti", "subject", "sid", "not_before", "until", "exp"];
    if let Some(name) = body.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(Wrong::new("member", name, KNOWN.join(", ")));
    }
    let issuer = issuer(scope, body)?;
    let named = [("jti", Kind::Token), ("subject", Kind::Subject), ("sid", Kind::Sid)];
    let mut named = named.into_iter().filter(|(name, _)| body.contains_key(*name));
    let (kind, value) = match (named.next(), named.next()) {
        (None, _) => (Kind::Issuer, "".into()),
        (Some((name, kind)), None) => (kind, text(name, &body[name])?),
        (Some(_), Some((name, _))) => return Err(Wrong::new(name, &body[name], "one of jti, subject and sid")),
    };
    let by_time = matches!(kind, Kind::Subject | Kind::Issuer);
    let not_before = match body.get("not_before") {
        Some(value) if !by_time => return Err(Wrong::new("not_before", value, "with subject or issuer alone")),
        Some(value) => seconds("not_before", value, 0, now.saturating_add(AHEAD))?,
        None if by_time => now,
        None => ALL,
    };
    let latest = now.saturating_add(LONGEST);
    let until = match (body.get("until"), body.get("exp")) {
        (Some(_), Some(value)) => return Err(Wrong::new("exp", value, "until or exp")),
        (Some(value), None) => seconds("until", value, now.saturating_add(1), latest)?,
        // The verifier may still accept the token for the longest leeway.
        (None, Some(value)) => seconds("exp", value, 0, latest)?.max(now).saturating_add(AHEAD),
        (None, None) => now.saturating_add(scope.remember),
    };
    Ok(Revocation { kind, issuer, value, not_before, until, reason: Reason::Revoked })
}

fn issuer(scope: &Scope, body: &Map<String, Value>) -> Result<Arc<str>, Wrong> {
    let known = || {
        let names: Vec<_> = scope.issuers.iter().map(|name| format!("{name:?}")).collect();
        names.join(", ")
    };
    match (body.get("issuer"), scope.issuers.as_slice()) {
        (Some(Value::String(name)), all) => match all.iter().find(|issuer| ***issuer == **name) {
            Some(issuer) => Ok(issuer.clone()),
            None => Err(Wrong::new("issuer", name, known())),
        },
        (Some(other), _) => Err(Wrong::new("issuer", other, known())),
        // Whom else could it mean? But an empty object shall not end everybody.
        (None, [only]) if ["jti", "subject", "sid"].iter().any(|name| body.contains_key(*name)) => Ok(only.clone()),
        (None, _) => Err(Wrong::new("issuer", "", known())),
    }
}

fn text(name: &str, value: &Value) -> Result<Arc<str>, Wrong> {
    match value {
        Value::String(text) if (1..=MAX_VALUE).contains(&text.len()) => Ok(text.as_str().into()),
        other => Err(Wrong::new(name, other, "a string of 1 to 1024 bytes")),
    }
}

fn seconds(name: &str, value: &Value, least: u64, most: u64) -> Result<u64, Wrong> {
    let allowed = || format!("unix seconds from {least} to {most}");
    value.as_u64().filter(|at| (least..=most).contains(at)).ok_or_else(|| Wrong::new(name, value, allowed()))
}
