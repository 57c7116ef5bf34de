//! Recognises one event by the first bytes of its message, so that no other message is looked at further.
//!
//! In the spelling of the stock clients: `42`, a namespace, the id of an acknowledgement, `["name"`. An event's name
//! holds nothing that any writer of JSON escapes.

/// The longest namespace that is looked through.
const MAX_NAMESPACE: usize = 1024;

/// The longest id of an acknowledgement.
const MAX_ID: usize = 20;

/// An event's name, as it begins the arguments: `["name"`.
#[derive(Debug)]
pub struct EventName(Box<[u8]>);

/// Whether a message is the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// The bytes end too early.
    Unclear,
}

impl EventName {
    /// A name of letters, digits and `_:.-`.
    pub fn new(name: &str) -> Self {
        Self(format!("[\"{name}\"").into_bytes().into())
    }

    /// Looks at the beginning of a text message, Engine.IO's type included.
    pub fn begins(&self, message: impl Iterator<Item = u8>) -> Is {
        let mut message = message.peekable();
        for wanted in *b"42" {
            match message.next() {
                Some(byte) if byte == wanted => {}
                Some(_) => return Is::No,
                None => return Is::Unclear,
            }
        }
        if message.peek() == Some(&b'/') {
            let mut namespace = message.by_ref().take(MAX_NAMESPACE + 2).take_while(|byte| *byte != b',');
            if namespace.by_ref().count() > MAX_NAMESPACE {
                return Is::No;
            }
        }
        let mut digits = 0;
        while message.next_if(u8::is_ascii_digit).is_some() {
            digits += 1;
            if digits > MAX_ID {
                return Is::No;
            }
        }
        for wanted in &self.0 {
            match message.next() {
                Some(byte) if byte == *wanted => {}
                Some(_) => return Is::No,
                None => return Is::Unclear,
            }
        }
        Is::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is(text: &str) -> Is {
        EventName::new("siogate:refresh").begins(text.bytes())
    }

    #[test]
    fn only_the_event_is_recognised_with_and_without_namespace_and_id() {
        for text in [
            "42[\"siogate:refresh\"",
            "42[\"siogate:refresh\",\"a.b.c\"]",
            "4217[\"siogate:refresh\",{}]",
            "42/admin,[\"siogate:refresh\"]",
            "42/admin,0[\"siogate:refresh\"]",
        ] {
            assert_eq!(is(text), Is::Yes, "{text}");
        }
        for text in [
            "2",
            "40",
            "43[\"siogate:refresh\"]",
            "42[\"siogate:refreshed\"]",
            "42[\"siogate:refres\"]",
            "42[ \"siogate:refresh\"]",
            "42{\"siogate:refresh\"",
            "42/admin[\"siogate:refresh\"],[\"x\"]",
            "450-[\"siogate:refresh\"]",
            "42123456789012345678901[\"siogate:refresh\"]",
        ] {
            assert_eq!(is(text), Is::No, "{text}");
        }
        let long = format!("42/{},[\"siogate:refresh\"]", "n".repeat(MAX_NAMESPACE));
        assert_eq!(is(&long), Is::No);
        let longest = format!("42/{},[\"siogate:refresh\"]", "n".repeat(MAX_NAMESPACE - 1));
        assert_eq!(is(&longest), Is::Yes);
    }

    #[test]
    fn every_beginning_of_it_is_unclear() {
        let whole = "42/admin,17[\"siogate:refresh\"";
        for end in 0..whole.len() {
            assert_eq!(is(&whole[..end]), Is::Unclear, "{}", &whole[..end]);
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_clear_answer(text in "4?2?(/[a-z]{0,3},?)?[0-9]{0,3}(\\[\"siogate:refresh\")?.{0,9}", cut in 0usize..40) {
            let bytes = text.as_bytes();
            let name = EventName::new("siogate:refresh");
            let early = name.begins(bytes[..cut.min(bytes.len())].iter().copied());
            if early != Is::Unclear {
                prop_assert_eq!(early, name.begins(bytes.iter().copied()));
            }
        }
    }
}
