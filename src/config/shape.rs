//! Which keys exist and what each holds, read off the model itself.
//!
//! serde's derived code says everything a schema would: a struct names its fields, an enum its words.
//! [`Shape::of`] asks it by deserialising along one path after another and noting what is asked for there;
//! [`try_value`] deserialises one value at one path, so that every bad value is found, not only the first.

#![allow(
    clippy::result_large_err,
    reason = "figment's error is what its deserialiser returns, and nothing here is hot"
)]

use figment::value::Value;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::fmt;

type Error = figment::Error;

/// One step down the tree of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// An element of a list.
    Index(usize),
    /// A key of a table.
    Key(String),
}

/// A path of keys, written `issuer[0].leeway`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// This path and one key more.
    pub fn key(&self, key: impl Into<String>) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.into()));
        Path(steps)
    }

    /// This path and one index more.
    pub fn index(&self, index: usize) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Path(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if i > 0 { "." } else { "" };
                    let plain = !key.is_empty()
                        && key.len() <= 80
                        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                    if plain {
                        write!(f, "{dot}{key}")?;
                    } else {
                        write!(f, "{dot}{}", crate::config::problem::shown(key))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A table with these keys and no others.
    Table(Vec<(&'static str, Shape)>),
    /// A table whose keys are the user's.
    Map(Box<Shape>),
    /// A list.
    List(Box<Shape>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string; durations and address ranges too.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Whole,
}

impl Shape {
    /// The shape of `T`.
    pub fn of<T: DeserializeOwned>() -> Shape {
        Self::at::<T>(&Path::default())
    }

    fn at<T: DeserializeOwned>(path: &Path) -> Shape {
        let goal = Goal::Look(Cell::new(None));
        // Always fails: the walk is over as soon as it has seen what stands at the path.
        let _ = T::deserialize(Walker { path: &path.0, goal: &goal });
        let Goal::Look(kind) = goal else { return Shape::Text };
        match kind.get() {
            Some(Kind::Table(keys)) => {
                Shape::Table(keys.iter().map(|key| (*key, Self::at::<T>(&path.key(*key)))).collect())
            }
            Some(Kind::Map) => Shape::Map(Box::new(Self::at::<T>(&path.key("x")))),
            Some(Kind::List) => Shape::List(Box::new(Self::at::<T>(&path.index(0)))),
            Some(Kind::Word(words)) => Shape::Word(words),
            Some(Kind::Bool) => Shape::Bool,
            Some(Kind::Whole) => Shape::Whole,
            Some(Kind::Text) | None => Shape::Text,
        }
    }

    /// The shape of the key `name` of a table, or of any key of a map.
    pub fn child(&self, name: &str) -> Option<&Shape> {
        match self {
            Shape::Table(keys) => keys.iter().find(|(key, _)| *key == name).map(|(_, shape)| shape),
            Shape::Map(inner) => Some(inner),
            _ => None,
        }
    }

    /// What is allowed here, for a message.
    pub fn allowed(&self) -> String {
        match self {
            Shape::Table(_) | Shape::Map(_) => "a table".into(),
            Shape::List(inner) if matches!(**inner, Shape::Table(_)) => "a list of tables, each under [[...]]".into(),
            Shape::List(_) => "a list of strings".into(),
            Shape::Word(words) => crate::config::problem::one_of(words),
            Shape::Text => "a string".into(),
            Shape::Bool => "true or false".into(),
            Shape::Whole => "a whole number, zero or more".into(),
        }
    }

    /// Calls `visit` with the path of every key there is; lists stand with index 0.
    pub fn each_key(&self, at: &Path, visit: &mut impl FnMut(&Path, &Shape)) {
        match self {
            Shape::Table(keys) => {
                for (key, shape) in keys {
                    let path = at.key(*key);
                    visit(&path, shape);
                    shape.each_key(&path, visit);
                }
            }
            Shape::List(inner) => inner.each_key(&at.index(0), visit),
            _ => {}
        }
    }
}

/// Deserialises `value` as the key at `path` of `T`; the error is that key's own.
///
/// # Errors
/// What the model's own deserialiser says about the value.
pub fn try_value<T: DeserializeOwned>(path: &Path, value: &Value) -> Result<(), String> {
    let goal = Goal::Try(value, RefCell::new(None));
    // The outcome as a whole does not matter: other keys of the same table are missing on this walk.
    let _ = T::deserialize(Walker { path: &path.0, goal: &goal });
    match goal {
        Goal::Try(_, error) => error.into_inner().map_or(Ok(()), Err),
        Goal::Look(_) => Ok(()),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Table(&'static [&'static str]),
    Map,
    List,
    Word(&'static [&'static str]),
    Text,
    Bool,
    Whole,
}

enum Goal<'a> {
    Look(Cell<Option<Kind>>),
    Try(&'a Value, RefCell<Option<String>>),
}

/// A deserialiser that holds nothing but the way to one key.
#[derive(Clone, Copy)]
struct Walker<'a> {
    path: &'a [Step],
    goal: &'a Goal<'a>,
}

impl<'a> Walker<'a> {
    fn leaf<'de, V: Visitor<'de>>(self, kind: Kind, visitor: V) -> Result<V::Value, Error> {
        match self.goal {
            Goal::Look(seen) => {
                seen.set(Some(kind));
                Err(Error::custom("seen"))
            }
            Goal::Try(value, _) => value.deserialize_any(visitor),
        }
    }

    fn step<'de, V: Visitor<'de>>(self, kind: Kind, visitor: V) -> Result<V::Value, Error> {
        let Some((step, rest)) = self.path.split_first() else { return self.leaf(kind, visitor) };
        let inner = Walker { path: rest, goal: self.goal };
        match (step, kind) {
            (Step::Key(key), Kind::Table(_) | Kind::Map) => visitor.visit_map(One { key: Some(key), inner }),
            (Step::Index(_), Kind::List) => visitor.visit_seq(One { key: Some(""), inner }),
            _ => Err(Error::custom("no such path")),
        }
    }

    /// Keeps the error of the value itself, apart from those that follow from it.
    fn note<V>(self, result: Result<V, Error>) -> Result<V, Error> {
        if let (Err(error), Goal::Try(_, slot), true) = (&result, self.goal, self.path.is_empty()) {
            slot.borrow_mut().get_or_insert_with(|| error.kind.to_string());
        }
        result
    }
}

/// Leaf methods of [`Walker`] by what they tell about the key.
macro_rules! leaves {
    ($($method:ident => $kind:expr),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> { self.step($kind, visitor) })*
    };
}

impl<'de> Deserializer<'de> for Walker<'_> {
    type Error = Error;

    leaves! {
        deserialize_any => Kind::Text,
        deserialize_str => Kind::Text,
        deserialize_string => Kind::Text,
        deserialize_char => Kind::Text,
        deserialize_identifier => Kind::Text,
        deserialize_bool => Kind::Bool,
        deserialize_u8 => Kind::Whole,
        deserialize_u16 => Kind::Whole,
        deserialize_u32 => Kind::Whole,
        deserialize_u64 => Kind::Whole,
        deserialize_i8 => Kind::Whole,
        deserialize_i16 => Kind::Whole,
        deserialize_i32 => Kind::Whole,
        deserialize_i64 => Kind::Whole,
        deserialize_seq => Kind::List,
        deserialize_map => Kind::Map,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, v: V) -> Result<V::Value, Error> {
        v.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.step(Kind::Table(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.goal {
            Goal::Try(value, _) if self.path.is_empty() => value.deserialize_enum(name, words, visitor),
            _ => self.step(Kind::Word(words), visitor),
        }
    }

    serde::forward_to_deserialize_any! { f32 f64 bytes byte_buf unit unit_struct tuple tuple_struct ignored_any }
}

/// A table or list of one entry.
struct One<'a> {
    key: Option<&'a str>,
    inner: Walker<'a>,
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.key.take().map(|key| seed.deserialize(StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.inner.note(seed.deserialize(self.inner))
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.key.take().map(|_| self.inner.note(seed.deserialize(self.inner))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Config;

    fn at(path: &[&str]) -> Option<Shape> {
        path.iter().try_fold(Shape::of::<Config>(), |shape, key| match shape {
            Shape::List(inner) => inner.child(key).cloned(),
            other => other.child(key).cloned(),
        })
    }

    #[test]
    fn the_shape_of_the_model_is_read_off_its_derives() {
        assert_eq!(at(&["server", "listen"]), Some(Shape::List(Box::new(Shape::Text))));
        assert_eq!(at(&["server", "drain_timeout"]), Some(Shape::Text));
        assert_eq!(at(&["server", "trusted_proxies"]), Some(Shape::List(Box::new(Shape::Text))));
        assert_eq!(at(&["server", "tls", "cert"]), Some(Shape::Text));
        assert_eq!(at(&["socketio", "probe"]), Some(Shape::Bool));
        assert_eq!(at(&["socketio", "max_payload"]), Some(Shape::Whole));
        assert_eq!(at(&["socketio", "protocol"]), Some(Shape::Word(&["socket.io", "engine.io"])));
        assert_eq!(at(&["issuer", "max_age"]), Some(Shape::Text));
        assert_eq!(at(&["identity", "headers"]), Some(Shape::Map(Box::new(Shape::Text))));
        assert_eq!(at(&["identity", "assertion", "key_file"]), Some(Shape::Text));
        assert_eq!(at(&["http", "route", "auth"]), Some(Shape::Word(&["pass", "optional", "require", "deny"])));
        assert_eq!(at(&["limits", "max_sessions"]), Some(Shape::Whole));
        assert_eq!(at(&["nothing"]), None);
    }

    #[test]
    fn one_value_is_tried_at_its_path_alone() {
        let leeway = Path::default().key("issuer").index(0).key("leeway");
        assert_eq!(try_value::<Config>(&leeway, &Value::from("5s")), Ok(()));
        assert!(try_value::<Config>(&leeway, &Value::from("5")).unwrap_err().contains("allowed: a whole number"));
        // `[server.tls]` needs both of its keys; here only one is looked at.
        let cert = Path::default().key("server").key("tls").key("cert");
        assert_eq!(try_value::<Config>(&cert, &Value::from("a.crt")), Ok(()));
        let proxy = Path::default().key("server").key("trusted_proxies").index(3);
        assert_eq!(try_value::<Config>(&proxy, &Value::from("10.0.0.0/8")), Ok(()));
        assert!(try_value::<Config>(&proxy, &Value::from("ten")).is_err());
        let word = Path::default().key("log").key("format");
        assert!(try_value::<Config>(&word, &Value::from("xml")).is_err());
        assert_eq!(try_value::<Config>(&word, &Value::from("json")), Ok(()));
    }

    #[test]
    fn a_path_is_written_as_a_user_would() {
        let path = Path::default().key("issuer").index(2).key("leeway");
        assert_eq!(path.to_string(), "issuer[2].leeway");
        assert_eq!(Path::default().key("a b\n").to_string(), r#""a b\n""#);
    }
}
