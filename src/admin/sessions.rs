//! `/api/sessions`: who is inside, and showing somebody out.

use crate::admin::query::{Query, Wrong};
use crate::admin::routes::Admin;
use crate::reason::Reason;
use crate::session::registry::Registry;
use crate::session::registry::revoke::Seen;
use crate::telemetry::endings::Ended;
use serde_json::{Value, json};
use std::time::Instant;

const STATES: [&str; 4] = ["waiting", "admitted", "ending", ENDED];

/// Those who are not inside any more are asked for by this word only.
const ENDED: &str = "ended";

/// `GET /api/sessions`: a page of them, the oldest first; of those that have ended the last one first.
///
/// # Errors
/// A parameter that is none, or that has a value of another form.
pub fn list(admin: &Admin, raw: &str) -> Result<Value, Wrong> {
    let registry = &admin.readiness.registry;
    let query = Query::parse(raw, &["subject", "issuer", "state", "limit", "after"])?;
    let limit = query.limit()?;
    let after = query.read("after", "`next` of the page before")?;
    let wanted_state = query.get("state");
    if let Some(other) = wanted_state.filter(|word| !STATES.contains(word)) {
        return Err(Wrong::new("state", other, STATES.join(", ")));
    }
    let is = |wanted: Option<&str>, value: Option<&str>| wanted.is_none() || wanted == value;
    if wanted_state == Some(ENDED) {
        let page = admin.metrics.endings.page(after.unwrap_or(u64::MAX), limit, |Ended { facts, .. }| {
            is(query.get("subject"), facts.subject.as_deref()) && is(query.get("issuer"), facts.issuer.as_deref())
        });
        let next = page.last().filter(|_| page.len() == limit).map(|last| last.number.to_string());
        let now = (Instant::now(), admin.clock.unix_ms());
        let sessions: Vec<_> = page.iter().map(|ended| show_ended(ended, now)).collect();
        return Ok(json!({"sessions": sessions, "next": next, "open": registry.len()}));
    }
    let page = registry.page(after.unwrap_or(0), limit, |seen| {
        let user = seen.user.as_ref();
        is(query.get("subject"), user.map(|user| &*user.subject))
            && is(query.get("issuer"), user.map(|user| &*user.issuer))
            && is(wanted_state, Some(state(seen)))
    });
    let next = page.last().filter(|_| page.len() == limit).map(|last| last.number.to_string());
    let sessions: Vec<_> = page.iter().map(show).collect();
    Ok(json!({"sessions": sessions, "next": next, "open": registry.len()}))
}

/// `GET /api/sessions/NAME`; `None` where there is no such session.
pub fn one(registry: &Registry, name: &str) -> Option<Value> {
    registry.named(name).as_ref().map(show)
}

/// `DELETE /api/sessions/NAME`; `false` where there is no such session.
pub fn kick(registry: &Registry, name: &str) -> bool {
    registry.kick(name, Reason::Kicked)
}

fn state(seen: &Seen) -> &'static str {
    match (seen.ended, seen.ends_at) {
        (Some(_), _) => "ending",
        (None, Some(_)) => "admitted",
        (None, None) => "waiting",
    }
}

fn show(seen: &Seen) -> Value {
    let user = seen.user.as_ref();
    json!({
        "session": &*seen.name,
        "subject": user.map(|user| &*user.subject),
        "issuer": user.map(|user| &*user.issuer),
        "client": seen.client.to_string(),
        "transport": if seen.polls { "polling" } else { "websocket" },
        "namespaces": seen.namespaces,
        "started": seen.since,
        "ends_at": seen.ends_at,
        "state": state(seen),
        "reason": seen.ended.map(Reason::word),
    })
}

/// As the record in the log; `now` by both clocks.
fn show_ended(ended: &Ended, now: (Instant, u64)) -> Value {
    let Ended { ended, facts, .. } = ended;
    let ago = now.0.saturating_duration_since(*ended).as_millis();
    let at = now.1.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX)) / 1000;
    let millis = ended.saturating_duration_since(facts.started).as_millis();
    json!({
        "session": &*facts.session,
        "subject": facts.subject.as_deref(),
        "issuer": facts.issuer.as_deref(),
        "client": facts.client.to_string(),
        "transport": facts.transport,
        "state": ENDED,
        "ended": at,
        "seconds": millis as f64 / 1000.0,
        "by": facts.by,
        "reason": Some(facts.reason).filter(|word| !word.is_empty()),
        "detail": facts.detail.as_deref(),
        "to_upstream": facts.to_upstream,
        "to_client": facts.to_client,
    })
}
