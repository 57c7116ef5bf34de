//! Session ids: bearer secrets with a narrow alphabet.
//!
//! Whoever knows an Engine.IO session id may speak for its session, so ids are unguessable, never
//! chosen by a client and never logged whole.

use crate::random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;

/// The longest session id that is looked up or passed on.
pub const MAX_LEN: usize = 64;

/// Whether `sid` could be a session id at all: `[A-Za-z0-9_-]{1,64}`.
pub fn is_valid(sid: &str) -> bool {
    (1..=MAX_LEN).contains(&sid.len()) && sid.bytes().all(is_sid_byte)
}

/// A fresh id: 24 characters that carry 144 bits of randomness.
pub fn generate() -> String {
    as_text(&characters()).to_owned()
}

/// The same, to be shared.
pub fn generate_shared() -> Arc<str> {
    as_text(&characters()).into()
}

fn characters() -> [u8; 24] {
    let mut bytes = [0_u8; 18];
    #[allow(clippy::expect_used)] // A machine without randomness must not hand out session ids.
    random::fill(&mut bytes).expect("the system's random source works");
    let mut characters = [0; 24];
    // 18 bytes are 24 characters; anything else would be no valid id.
    let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut characters);
    characters
}

fn as_text(characters: &[u8; 24]) -> &str {
    std::str::from_utf8(characters).unwrap_or_default()
}

/// What a log may show: the first six characters (fewer of a short id) and an ellipsis.
///
/// Ids come from anybody, so characters outside the alphabet are shown as `?`.
pub fn redact(sid: &str) -> String {
    let shown = 6.min(sid.chars().count() / 2);
    let mut out: String =
        sid.chars().take(shown).map(|c| if u8::try_from(c).is_ok_and(is_sid_byte) { c } else { '?' }).collect();
    out.push('…');
    out
}

fn is_sid_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn p15_only_the_narrow_alphabet_is_a_session_id() {
        for good in ["a", "2lJtyTD8VuZRZcwyAAAA", "-_u9SJPrh15YrJC9AAAE", &"x".repeat(64)] {
            assert!(is_valid(good), "{good}");
        }
        // `__proto__` is in the alphabet: what keeps it from the backend is that no session has it.
        for bad in ["", "a b", "a.b", "a/b", "a%62", "é", "a\0", "a\n", &"x".repeat(65)] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn generated_ids_are_valid_and_distinct() {
        let ids: HashSet<String> = (0..1000).flat_map(|_| [generate(), generate_shared().to_string()]).collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().all(|id| id.len() == 24 && is_valid(id)));
    }

    #[test]
    fn p14_a_redacted_id_shows_its_prefix_only() {
        assert_eq!(redact("2lJtyTD8VuZRZcwyAAAA"), "2lJtyT…");
        assert_eq!(redact("abcd"), "ab…");
        assert_eq!(redact("a"), "…");
        assert_eq!(redact(""), "…");
        assert_eq!(redact("é\u{1b}[2Jabcdefghijkl"), "??[2Ja…".replace('[', "?"));
    }
}
