//! `/api/sessions`: who is inside, and showing somebody out.

use crate::admin::query::{Query, Wrong};
use crate::reason::Reason;
use crate::session::registry::Registry;
use crate::session::registry::revoke::Seen;
use serde_json::{Value, json};

const STATES: [&str; 3] = ["waiting", "admitted", "ending"];

/// `GET /api/sessions`: a page of them, the oldest first.
///
/// # Errors
/// A parameter that is none, or that has a value of another form.
pub fn list(registry: &Registry, raw: &str) -> Result<Value, Wrong> {
    let query = Query::parse(raw, &["subject", "issuer", "state", "limit", "after"])?;
    let limit = query.limit()?;
    let after = query.read("after", "`next` of the page before")?.unwrap_or(0);
    let wanted_state = query.get("state");
    if let Some(other) = wanted_state.filter(|word| !STATES.contains(word)) {
        return Err(Wrong::new("state", other, STATES.join(", ")));
    }
    let is = |wanted: Option<&str>, value: Option<&str>| wanted.is_none() || wanted == value;
    let page = registry.page(after, limit, |seen| {
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
        "started": seen.since,
        "ends_at": seen.ends_at,
        "state": state(seen),
        "reason": seen.ended.map(Reason::word),
    })
}
