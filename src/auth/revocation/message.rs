//! A revocation as replicas tell it each other: one JSON object, always spelt the same, so that its hash names it.
//!
//! Whoever can write where replicas share may send anything: what is not exactly of this form is no revocation.

use crate::auth::revocation::{ALL, Kind, MAX_VALUE, Revocation};
use crate::protocol::json as strict;
use crate::reason::Reason;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// No message is longer: two names of a kibibyte, each byte escaped.
pub const MAX_MESSAGE: usize = 13 * 1024;

/// The clocks of replicas, and of an issuer, may differ by this.
const AHEAD: u64 = 600;

/// Nobody means a time beyond.
const LONGEST: u64 = 3651 * 24 * 3600;

const REASONS: [Reason; 2] = [Reason::Revoked, Reason::LoggedOut];

const MEMBERS: [&str; 7] = ["v", "kind", "issuer", "value", "not_before", "until", "reason"];

/// Writes one.
pub fn write(revocation: &Revocation) -> String {
    let Revocation { kind, issuer, value, not_before, until, reason } = revocation;
    let not_before = (*not_before != ALL).then_some(not_before);
    // The members come out sorted.
    json!({
        "v": 1,
        "kind": kind.name(),
        "issuer": &**issuer,
        "value": &**value,
        "not_before": not_before,
        "until": until,
        "reason": reason.word(),
    })
    .to_string()
}

/// The name of a message: the same for the same, and another for another.
pub fn name(message: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, message))
}

/// Reads one at `now`.
///
/// # Errors
/// What is wrong with it, in words that quote nothing.
pub fn read(message: &[u8], now: u64) -> Result<Revocation, &'static str> {
    if message.len() > MAX_MESSAGE {
        return Err("too long");
    }
    let text = std::str::from_utf8(message).map_err(|_| "not UTF-8")?;
    let members = strict::object(text).map_err(|_| "not a JSON object")?;
    if members.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
        return Err("unknown member");
    }
    if members.get("v") != Some(&Value::from(1)) {
        return Err("unknown version");
    }
    let kind = text_of(&members, "kind").and_then(Kind::parse).ok_or("unknown kind")?;
    let named = |name| text_of(&members, name).filter(|value| value.len() <= MAX_VALUE);
    let (issuer, value) = (named("issuer").ok_or("no issuer")?, named("value").ok_or("no value")?);
    if value.is_empty() != (kind == Kind::Issuer) {
        return Err("no value, or one too many");
    }
    let not_before = match (kind, members.get("not_before")) {
        (Kind::Token | Kind::Sid, None | Some(Value::Null)) => ALL,
        (Kind::Token | Kind::Sid, _) => return Err("not_before where there is none"),
        (_, at) => at.and_then(Value::as_u64).filter(|at| *at <= now.saturating_add(AHEAD)).ok_or("no not_before")?,
    };
    let until = members.get("until").and_then(Value::as_u64).ok_or("no until")?;
    if until > now.saturating_add(LONGEST) {
        return Err("until is too far away");
    }
    let word = text_of(&members, "reason").ok_or("no reason")?;
    let reason = REASONS.into_iter().find(|reason| reason.word() == word).ok_or("unknown reason")?;
    Ok(Revocation { kind, issuer: issuer.into(), value: value.into(), not_before, until, reason })
}

fn text_of<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn good() -> Value {
        json!({"v": 1, "kind": "sub", "issuer": "i", "value": "alice", "not_before": NOW, "until": NOW + 60, "reason": "revoked"})
    }

    #[test]
    fn p40_a_message_is_of_one_form_or_nothing() {
        assert!(read(good().to_string().as_bytes(), NOW).is_ok());
        for (name, values) in [
            ("v", vec![json!(null), json!(0), json!(2), json!("1"), json!(1.0)]),
            (
                "kind",
                vec![
                    json!(null),
                    json!("SUB"),
                    json!("everybody"),
                    json!(1),
                    json!("jti"),
                    json!("sid"),
                    json!("issuer"),
                ],
            ),
            ("issuer", vec![json!(null), json!(1), json!(["i"]), json!("i".repeat(1025))]),
            ("value", vec![json!(null), json!(""), json!(7), json!({}), json!("a".repeat(1025))]),
            ("not_before", vec![json!(null), json!(-1), json!("1"), json!(1.5), json!(NOW + 601), json!(u64::MAX)]),
            ("until", vec![json!(null), json!(-1), json!("1"), json!(u64::MAX), json!(NOW + LONGEST + 1)]),
            ("reason", vec![json!(null), json!("kicked"), json!("draining"), json!("Revoked"), json!(1)]),
            ("more", vec![json!(null), json!(1)]),
        ] {
            for value in values {
                let mut message = good();
                message[name] = value.clone();
                assert!(read(message.to_string().as_bytes(), NOW).is_err(), "{name}: {value}");
            }
            if name != "more" {
                let mut message = good();
                message.as_object_mut().unwrap().remove(name);
                assert!(read(message.to_string().as_bytes(), NOW).is_err(), "without {name}");
            }
        }
        for text in
            ["", "{}", "[]", "null", "{", "\u{0}", r#"{"v":1,"v":1}"#, &"[".repeat(100_000), &" ".repeat(100_000)]
        {
            assert!(read(text.as_bytes(), NOW).is_err());
        }
        assert!(read(&[0xff; 10], NOW).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            kind in prop::sample::select(Kind::NAMES.map(|(_, kind)| kind).to_vec()),
            issuer in "\\PC{0,100}", value in ".{1,100}", before in 0..NOW + 600, until in 0..NOW + LONGEST,
            reason in prop::sample::select(REASONS.to_vec()),
        ) {
            let value = if kind == Kind::Issuer { String::new() } else { value };
            let not_before = if matches!(kind, Kind::Token | Kind::Sid) { ALL } else { before };
            let (issuer, value) = (issuer.as_str().into(), value.as_str().into());
            let revocation = Revocation { kind, issuer, value, not_before, until, reason };
            let message = write(&revocation);
            prop_assert!(message.len() <= MAX_MESSAGE);
            prop_assert_eq!(read(message.as_bytes(), NOW), Ok(revocation.clone()));
            prop_assert_eq!(name(message.as_bytes()), name(write(&revocation).as_bytes()));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, NOW);
        }
    }
}
