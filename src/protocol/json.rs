//! JSON from strangers: an object or array, whole, with every key once.
//!
//! `serde_json::Value` is not read directly. It keeps the last of two equal keys where others keep
//! the first, and with the feature `raw_value` it parses text inside a map with a magic key anew,
//! each time with a fresh depth limit: a small message could then nest without bound.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;
use thiserror::Error;

/// Why a text is refused. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// It does not begin with `{`.
    #[error("not a JSON object")]
    NotObject,
    /// It is broken, nested too deep, or followed by something.
    #[error("malformed JSON")]
    Malformed,
    /// An object in it has a key twice, in whatever spelling.
    #[error("JSON with a duplicate key")]
    DuplicateKey,
}

/// Whether a byte stands for itself in a string of JSON, alone and in every reader: visible ASCII or a blank, no escape.
pub fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// Reads an object of at most 127 levels with nothing around it, not even blanks.
pub fn object(text: &str) -> Result<Map<String, Value>, JsonError> {
    if !text.starts_with('{') {
        return Err(JsonError::NotObject);
    }
    match value(text, '}')? {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotObject),
    }
}

/// Reads an array of at most 127 levels with nothing around it; `None` where it is none.
pub fn array(text: &str) -> Option<Vec<Value>> {
    match value(text, ']') {
        Ok(Value::Array(array)) if text.starts_with('[') => Some(array),
        _ => None,
    }
}

fn value(text: &str, last: char) -> Result<Value, JsonError> {
    // The parser would allow blanks at the end.
    if !text.ends_with(last) {
        return Err(JsonError::Malformed);
    }
    let duplicate = Cell::new(false);
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Plain { duplicate: &duplicate }.deserialize(&mut parser);
    match value.and_then(|value| parser.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) if duplicate.get() => Err(JsonError::DuplicateKey),
        Err(_) => Err(JsonError::Malformed),
    }
}

/// Reads any value as what it is.
#[derive(Clone, Copy)]
struct Plain<'a> {
    duplicate: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Plain<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = entries.next_element_seed(self)? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self)?;
            if object.insert(key, value).is_some() {
                self.duplicate.set(true);
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The magic key of `serde_json::value::RawValue`.
    const RAW: &str = "$serde_json::private::RawValue";

    #[test]
    fn every_kind_of_value_is_read_as_what_it_is() {
        let text = r#"{"a":[null,true,-1,18446744073709551615,2.5,"é\n",[],{}],"b":{"c":{"d":1}}}"#;
        assert_eq!(serde_json::to_string(&object(text).unwrap()).unwrap(), text);
    }

    #[test]
    fn only_one_whole_object_is_read() {
        for (text, error) in [
            ("", JsonError::NotObject),
            ("[]", JsonError::NotObject),
            ("null", JsonError::NotObject),
            (" {}", JsonError::NotObject),
            ("\u{feff}{}", JsonError::NotObject),
            ("{} ", JsonError::Malformed),
            ("{}{}", JsonError::Malformed),
            ("{", JsonError::Malformed),
            ("{}}", JsonError::Malformed),
            ("{'a':1}", JsonError::Malformed),
            ("{a:1}", JsonError::Malformed),
            (r#"{"a":1,}"#, JsonError::Malformed),
            (r#"{"a":NaN}"#, JsonError::Malformed),
            (r#"{"a":01}"#, JsonError::Malformed),
            (r#"{"a":1e400}"#, JsonError::Malformed),
            (r#"{"a":"\ud800"}"#, JsonError::Malformed),
            ("{\"a\":\"\n\"}", JsonError::Malformed),
            ("{\"a\":1}//}", JsonError::Malformed),
        ] {
            assert_eq!(object(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn j10_a_key_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"{"x":[0,{"a":{},"a":{}}]}"#,
        ] {
            assert_eq!(object(text), Err(JsonError::DuplicateKey), "{text}");
        }
        assert!(object(r#"{"a":{"a":{"a":1}},"A":[{"a":1},{"a":1}]}"#).is_ok());
    }

    #[test]
    fn j20_depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(&nested(126)).is_ok());
        assert_eq!(object(&nested(127)), Err(JsonError::Malformed));
        assert_eq!(object(&nested(100_000)), Err(JsonError::Malformed));
        assert_eq!(object(&r#"{"a":"#.repeat(100_000)), Err(JsonError::Malformed));
        assert_eq!(
            object(&format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000))),
            Err(JsonError::Malformed)
        );
    }

    #[test]
    fn j20_the_parsers_magic_key_is_a_key_like_any_other() {
        let text = format!(r#"{{"a":{{"{RAW}":"{{\"token\":[1]}}"}}}}"#);
        let read = object(&text).unwrap();
        assert_eq!(read["a"][RAW], r#"{"token":[1]}"#);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    proptest! {
        #[test]
        fn numbers_keep_their_digits(number in 0.0_f64..1.0) {
            let text = format!("{{\"a\":{number}}}");
            prop_assert_eq!(serde_json::to_string(&object(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn reading_never_panics(text: String, near in "[{]([]\\[{}\",:a1e.-]|\"a\":|\\\\u00e9){0,20}[}]") {
            let _ = object(&text);
            if let Ok(read) = object(&near) {
                prop_assert_eq!(object(&serde_json::to_string(&read).unwrap()), Ok(read));
            }
        }
    }
}
