//! Recognises one event by the first bytes of its message, so that no other message is looked at further.
//!
//! In every spelling in which some server reads it. Node takes blanks for digits of an id; Python takes digits of other
//! scripts for them, and a count of attachments in front of any packet; JSON allows blanks, and `\u0061` for `a`. What
//! is let through here is more than any of them reads: `[`, blanks and the name decide.

/// Nothing that clients write has more in front of an event's name: a namespace, an id, blanks.
pub const MAX_LOOK: usize = 4096;

/// An event's name.
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
    /// It takes more than [`MAX_LOOK`] bytes to tell.
    Endless,
}

impl EventName {
    /// A name of letters, digits and `_:.-`.
    pub fn new(name: &str) -> Self {
        Self(name.as_bytes().into())
    }

    /// Looks at the beginning of a text message, Engine.IO's type included.
    pub fn begins(&self, message: impl Iterator<Item = u8>) -> Is {
        let mut look = Look { bytes: message, left: MAX_LOOK };
        match self.compare(&mut look) {
            Ok(true) => Is::Yes,
            Ok(false) => Is::No,
            Err(()) if look.left == 0 => Is::Endless,
            Err(()) => Is::Unclear,
        }
    }

    fn compare(&self, look: &mut Look<impl Iterator<Item = u8>>) -> Result<bool, ()> {
        if look.next()? != b'4' {
            return Ok(false);
        }
        let mut byte = match look.next()? {
            b'2' => look.next()?,
            b'5' => {
                while look.next()? != b'-' {}
                look.next()?
            }
            _ => return Ok(false),
        };
        while is_digit(byte) || byte == b'-' {
            byte = look.next()?;
        }
        if byte == b'/' {
            while look.next()? != b',' {}
            byte = look.next()?;
        }
        while is_digit(byte) {
            byte = look.next()?;
        }
        if byte != b'[' {
            return Ok(false);
        }
        byte = look.next()?;
        while byte.is_ascii_whitespace() {
            byte = look.next()?;
        }
        if byte != b'"' {
            return Ok(false);
        }
        for wanted in &self.0 {
            let byte = look.next()?;
            let same = if byte == b'\\' { look.escaped()? == Some(*wanted) } else { byte == *wanted };
            if !same {
                return Ok(false);
            }
        }
        Ok(look.next()? == b'"')
    }
}

/// Digits of an id, and what some server takes for them: blanks, and whatever is not ASCII.
fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || byte.is_ascii_whitespace() || byte == 0x0b || byte >= 0x80
}

struct Look<I> {
    bytes: I,
    left: usize,
}

impl<I: Iterator<Item = u8>> Look<I> {
    fn next(&mut self) -> Result<u8, ()> {
        let byte = if self.left == 0 { None } else { self.bytes.next() };
        self.left -= usize::from(byte.is_some());
        byte.ok_or(())
    }

    /// What stands behind a `\`, where it is a character of a name: only `\u` can be.
    fn escaped(&mut self) -> Result<Option<u8>, ()> {
        if self.next()? != b'u' {
            return Ok(None);
        }
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.next()?).to_digit(16) else { return Ok(None) };
            code = code * 16 + digit;
        }
        Ok(u8::try_from(code).ok())
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
    fn the_event_is_recognised_in_every_spelling_that_some_server_reads() {
        for text in [
            "42[\"siogate:refresh\"",
            "42[\"siogate:refresh\",\"a.b.c\"]",
            "4217[\"siogate:refresh\",{}]",
            "42/admin,[\"siogate:refresh\"]",
            "42/admin,0[\"siogate:refresh\"]",
            "42/admin?x=[,7[\"siogate:refresh\"]",
            // Blanks for digits, before and within the array.
            "42 [\"siogate:refresh\"]",
            "42\t\u{b}\u{c}\r\n 7\u{feff}8\u{2003}[\"siogate:refresh\"]",
            "42/admin, 1 2[ \t\r\n\"siogate:refresh\" , 1]",
            "42123456789012345678901[\"siogate:refresh\"]",
            // Escapes.
            "42[\"\\u0073iogate\\u003Arefres\\u0068\"]",
            "42[\"\\u0073\\u0069\\u006f\\u0067\\u0061\\u0074\\u0065\\u003a\\u0072\\u0065\\u0066\\u0072\\u0065\\u0073\\u0068\"]",
            // Python: a count before any packet, and other digits.
            "420-[\"siogate:refresh\"]",
            "420-/admin,7[\"siogate:refresh\"]",
            "42\u{661}-\u{662}[\"siogate:refresh\"]",
            // A binary event, with attachments or without.
            "450-[\"siogate:refresh\"]",
            "451-/admin,3[\"siogate:refresh\",{\"_placeholder\":true,\"num\":0}]",
            "451e0-[\"siogate:refresh\"]",
        ] {
            assert_eq!(is(text), Is::Yes, "{text}");
        }
        for text in [
            "2",
            "40",
            "43[\"siogate:refresh\"]",
            "461-[\"siogate:refresh\"]",
            "42[\"siogate:refreshed\"]",
            "42[\"siogate:refres\"]",
            "42[\"Siogate:refresh\"]",
            "42[\"siogate:refres\\h\"]",
            "42[\"siogate:refres\\u0168\"]",
            "42[\"siogate:refres\\u006g\"]",
            "42[[\"siogate:refresh\"]]",
            "42[1,\"siogate:refresh\"]",
            "42{\"siogate:refresh\"",
            "42\"siogate:refresh\"",
            "42/admin[\"siogate:refresh\"],[\"x\"]",
        ] {
            assert_eq!(is(text), Is::No, "{text}");
        }
    }

    #[test]
    fn what_stands_before_the_name_is_bounded() {
        for (before, behind) in [("42/", ","), ("42", ""), ("42/a,", ""), ("42[", ""), ("45", "-")] {
            let fill = if before == "42[" { " " } else { "1" };
            let spelled = |n: usize| {
                let array = if before == "42[" { "\"siogate:refresh\"]" } else { "[\"siogate:refresh\"]" };
                format!("{before}{}{behind}{array}", fill.repeat(n))
            };
            assert_eq!(is(&spelled(4000)), Is::Yes, "{before}");
            assert_eq!(is(&spelled(5000)), Is::Endless, "{before}");
        }
    }

    #[test]
    fn every_beginning_of_it_is_unclear() {
        for whole in ["42/admin,17[\"siogate:refresh\"", "451- [ \"\\u0073iogate:refres\\u0068\""] {
            for end in 0..whole.len() {
                assert_eq!(is(&whole[..end]), Is::Unclear, "{}", &whole[..end]);
            }
            assert_eq!(is(whole), Is::Yes);
        }
    }

    /// The event as JSON allows it to be written, with everything in front that some server reads over.
    fn spelling() -> impl Strategy<Value = String> {
        let blanks = "[ \t\r\n]{0,3}";
        let id = prop_oneof!["[0-9]{0,4}", "[ \t\u{b}\u{c}\u{a0}\u{feff}\u{2028}0-9]{0,5}", "[\u{660}-\u{669}]{0,3}"];
        let escaped = proptest::collection::vec((0u8..3, any::<bool>()), 15);
        let head = prop_oneof![Just("42"), Just("420-"), Just("451-"), Just("4512-")];
        (head, "(/[a-z?=&]{0,5},)?", id, blanks, escaped).prop_map(|(head, namespace, id, blanks, escaped)| {
            let name: String = "siogate:refresh"
                .chars()
                .zip(escaped)
                .map(|(c, (how, upper))| match (how, upper) {
                    (0, true) => format!("\\u{:04X}", u32::from(c)),
                    (0, false) => format!("\\u{:04x}", u32::from(c)),
                    _ => c.to_string(),
                })
                .collect();
            format!("{head}{namespace}{id}[{blanks}\"{name}\"")
        })
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_clear_answer(text in "4?[25]?(1-)?(/[a-z]{0,3},?)?[0-9]{0,3}(\\[ ?\"siogate:refres(h|\\\\u0068)\")?.{0,9}", cut in 0usize..40) {
            let bytes = text.as_bytes();
            let name = EventName::new("siogate:refresh");
            let early = name.begins(bytes[..cut.min(bytes.len())].iter().copied());
            if early != Is::Unclear {
                prop_assert_eq!(early, name.begins(bytes.iter().copied()));
            }
        }

        #[test]
        fn no_spelling_of_it_is_passed_over(text in spelling(), rest in ".{0,20}") {
            prop_assert_eq!(is(&format!("{text}{rest}")), Is::Yes);
        }

        #[test]
        fn another_name_is_never_taken_for_it(name in "[a-zA-Z:_.-]{1,20}", rest in ",\\{\\}\\]") {
            prop_assume!(name != "siogate:refresh");
            prop_assert_eq!(is(&format!("42[\"{name}\"{rest}")), Is::No);
        }
    }
}
