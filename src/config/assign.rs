//! Single keys set from outside the file: `SIOGATE_SERVER__LISTEN=...` and `--set server.listen=...`.
//!
//! The text is read as what the key holds, never guessed: the issuer named `1e5` stays a string, `true` is a
//! boolean only where the model has one.

use crate::config::shape::{Path, Shape, Step};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

/// Where a walk along the model ended because there is no such key.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSuchKey<'a> {
    /// The last table that exists.
    pub parent: Path,
    /// Its shape.
    pub shape: &'a Shape,
    /// The name it does not have.
    pub name: String,
}

/// The key that a variable sets, from its name without the prefix: `ISSUER__0__LEEWAY`.
///
/// # Errors
/// Where the model has no such key.
pub fn variable_path<'a>(root: &'a Shape, name: &str) -> Result<(Path, &'a Shape), NoSuchKey<'a>> {
    walk(root, &name.to_ascii_lowercase().split("__").map(String::from).collect::<Vec<_>>(), |rest| {
        // No shell lets a variable be called X-AUTH-EMAIL.
        rest.join("__").replace('_', "-")
    })
}

/// The key of a `--set`: `issuer[0].leeway` or `issuer.0.leeway`.
///
/// # Errors
/// Where the model has no such key.
pub fn dotted_path<'a>(root: &'a Shape, text: &str) -> Result<(Path, &'a Shape), NoSuchKey<'a>> {
    let mut parts = Vec::new();
    for part in text.trim().split('.') {
        let (name, index) = match part.strip_suffix(']').and_then(|p| p.split_once('[')) {
            Some((name, index)) => (name, Some(index)),
            None => (part, None),
        };
        parts.push(name.to_string());
        parts.extend(index.map(String::from));
    }
    walk(root, &parts, |rest| rest.join("."))
}

fn walk<'a>(
    root: &'a Shape,
    parts: &[String],
    free_key: impl Fn(&[String]) -> String,
) -> Result<(Path, &'a Shape), NoSuchKey<'a>> {
    let (mut path, mut shape) = (Path::default(), root);
    for (i, part) in parts.iter().enumerate() {
        match shape {
            Shape::Map(inner) => {
                let name = free_key(parts.get(i..).unwrap_or_default());
                return if name.is_empty() {
                    Err(NoSuchKey { parent: path, shape, name })
                } else {
                    Ok((path.key(name), inner))
                };
            }
            Shape::List(inner) => match part.parse::<u16>() {
                Ok(index) => (path, shape) = (path.index(index.into()), inner),
                Err(_) => return Err(NoSuchKey { parent: path, shape, name: part.clone() }),
            },
            _ => match shape.child(part) {
                Some(inner) => (path, shape) = (path.key(part.as_str()), inner),
                None => return Err(NoSuchKey { parent: path, shape, name: part.clone() }),
            },
        }
    }
    Ok((path, shape))
}

/// `text` as what a key of this shape holds.
///
/// Lists are written as TOML or JSON (`["a", "b"]`), or plainly: `a` or `a,b`. Tables as TOML or JSON.
///
/// # Errors
/// What is allowed instead; never the text itself.
pub fn interpret(shape: &Shape, text: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    match shape {
        Shape::Text | Shape::Word(_) => Ok(Value::from(text)),
        Shape::Bool => match trimmed {
            "true" => Ok(Value::from(true)),
            "false" => Ok(Value::from(false)),
            _ => Err("not a boolean; allowed: true or false".into()),
        },
        Shape::Whole => {
            let digits = trimmed.replace('_', "");
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse::<u64>().ok().filter(|_| plain);
            number.map(Value::from).ok_or_else(|| format!("not a number; allowed: {}", shape.allowed()))
        }
        Shape::List(inner) => list(inner, trimmed),
        Shape::Table(_) | Shape::Map(_) => structured(trimmed, '{', '}')
            .unwrap_or_else(|| Err("not a table; allowed: { key = \"value\" } or {\"key\": \"value\"}".into())),
    }
}

fn list(inner: &Shape, text: &str) -> Result<Value, String> {
    // `[::1]:8080` also begins with a bracket, but does not end with one.
    if let Some(value) = structured(text, '[', ']') {
        return value;
    }
    if text.is_empty() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if matches!(inner, Shape::Table(_) | Shape::Map(_) | Shape::List(_)) {
        return interpret(inner, text).map(|one| Value::from(vec![one]));
    }
    let items: Result<Vec<Value>, String> = text.split(',').map(|item| interpret(inner, item.trim())).collect();
    items.map(Value::from)
}

/// JSON or TOML between these brackets; `None` where the text does not stand between them.
fn structured(text: &str, open: char, close: char) -> Option<Result<Value, String>> {
    if !(text.starts_with(open) && text.ends_with(close)) {
        return None;
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        return Some(Ok(value));
    }
    let parsed = Toml::from_str::<Dict>(&format!("value = {text}")).ok();
    // More than the one key: the text closed its bracket and went on.
    let value = parsed.filter(|dict| dict.len() == 1).and_then(|mut dict| dict.remove("value"));
    let what = if open == '[' { "[\"a\", \"b\"]" } else { "{ key = \"value\" }" };
    Some(value.ok_or_else(|| format!("neither TOML nor JSON; allowed: such as {what}")))
}

/// `current` with `value` put at `steps`; tables and lists on the way are kept, or made.
///
/// # Errors
/// An index that would leave a gap.
pub fn place(current: Option<&Value>, default: Option<&Value>, steps: &[Step], value: Value) -> Result<Value, String> {
    let Some((step, rest)) = steps.split_first() else { return Ok(value) };
    let base = current.or(default);
    match step {
        Step::Key(key) => {
            let mut dict = base.and_then(Value::as_dict).cloned().unwrap_or_default();
            let inner = default.and_then(Value::as_dict).and_then(|d| d.get(key));
            let placed = place(dict.get(key), inner, rest, value)?;
            dict.insert(key.clone(), placed);
            Ok(Value::from(dict))
        }
        Step::Index(index) => {
            let mut items = base.and_then(Value::as_array).map(<[Value]>::to_vec).unwrap_or_default();
            let placed = place(items.get(*index), None, rest, value)?;
            let length = items.len();
            match items.get_mut(*index) {
                Some(item) => *item = placed,
                None if *index == length => items.push(placed),
                None => return Err(format!("the list has {length} elements, so the next index is {length}")),
            }
            Ok(Value::from(items))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Config;

    fn shape_of(path: &str) -> Shape {
        dotted_path(&Shape::of::<Config>(), path).unwrap().1.clone()
    }

    #[test]
    fn variables_and_dots_lead_to_the_same_keys() {
        let root = Shape::of::<Config>();
        for (variable, dotted, shown) in [
            ("SERVER__DRAIN_TIMEOUT", "server.drain_timeout", "server.drain_timeout"),
            ("ISSUER__0__JWKS_URL", "issuer.0.jwks_url", "issuer[0].jwks_url"),
            ("ISSUER__0__JWKS_URL", "issuer[0].jwks_url", "issuer[0].jwks_url"),
            ("IDENTITY__HEADERS__X_AUTH_EMAIL", "identity.headers.x-auth-email", "identity.headers.x-auth-email"),
            ("SERVER__TLS", "server.tls", "server.tls"),
        ] {
            let from_variable = variable_path(&root, variable).unwrap();
            assert_eq!(from_variable, dotted_path(&root, dotted).unwrap());
            assert_eq!(from_variable.0.to_string(), shown);
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_says_where_it_ended() {
        let root = Shape::of::<Config>();
        for (name, parent, missing) in [
            ("SERVER_LISTEN", "", "server_listen"),
            ("SERVER__LISTN", "server", "listn"),
            ("ISSUER__X__LEEWAY", "issuer", "x"),
            ("LOG__LEVEL__MORE", "log.level", "more"),
            ("", "", ""),
        ] {
            let end = variable_path(&root, name).unwrap_err();
            assert_eq!((end.parent.to_string().as_str(), end.name.as_str()), (parent, missing), "{name}");
        }
    }

    #[test]
    fn a_text_key_keeps_the_text_whatever_it_looks_like() {
        let issuer = shape_of("issuer[0].issuer");
        for text in ["1e5", "true", "[a]", "{a=1}", "\"q\"", " spaced ", "0x10", "", "nan", "1979-05-27"] {
            assert_eq!(interpret(&issuer, text).unwrap().as_str(), Some(text));
        }
    }

    #[test]
    fn a_list_key_takes_toml_json_one_word_or_words_with_commas() {
        let list = shape_of("server.listen");
        let read = |text: &str| interpret(&list, text).unwrap().deserialize::<Vec<String>>().unwrap();
        assert_eq!(read(r#"["a:1", "b:2"]"#), ["a:1", "b:2"]);
        assert_eq!(read("['a:1',\n 'b:2',]"), ["a:1", "b:2"]);
        assert_eq!(read("a:1"), ["a:1"]);
        assert_eq!(read("a:1, b:2"), ["a:1", "b:2"]);
        assert_eq!(read("[::1]:80"), ["[::1]:80"]);
        assert_eq!(read("[::1]:80,[::]:81"), ["[::1]:80", "[::]:81"]);
        assert_eq!(read("1e5,true"), ["1e5", "true"]);
        assert!(read("").is_empty());
        assert!(read("[]").is_empty());
        assert!(interpret(&list, "[a, b]").is_err());
        assert!(interpret(&list, "[\"a\"]\nother = [1]").is_err());
    }

    #[test]
    fn tables_numbers_and_booleans_are_read_strictly() {
        let issuers = shape_of("issuer");
        let json = interpret(&issuers, r#"[{"issuer": "1e5", "audience": ["a"]}]"#).unwrap();
        assert_eq!(json, interpret(&issuers, "[{ issuer = '1e5', audience = ['a'] }]").unwrap());
        assert_eq!(json, interpret(&issuers, "{ issuer = '1e5', audience = ['a'] }").unwrap());
        assert!(interpret(&issuers, "x").is_err());
        let whole = shape_of("limits.max_sessions");
        assert_eq!(interpret(&whole, "100_000").unwrap().to_u128(), Some(100_000));
        for bad in ["-1", "+1", "1e5", "1.0", "", "_", "0x10", "99999999999999999999"] {
            assert!(interpret(&whole, bad).is_err(), "{bad}");
        }
        let flag = shape_of("socketio.probe");
        for bad in ["1", "yes", "TRUE", ""] {
            assert!(interpret(&flag, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_placed_without_disturbing_its_neighbours() {
        let root = Shape::of::<Config>();
        let defaults = Value::serialize(Config::default()).unwrap();
        let mut value = Value::from(Dict::new());
        for (path, text) in [
            ("issuer[0].issuer", "a"),
            ("issuer[0].leeway", "1s"),
            ("issuer[1].issuer", "b"),
            ("identity.headers.x-mail", "email"),
            ("upstream.urls[1]", "http://b:1"),
        ] {
            let (path, shape) = dotted_path(&root, path).unwrap();
            value = place(Some(&value), Some(&defaults), &path.0, interpret(shape, text).unwrap()).unwrap();
        }
        let config: Config = value.deserialize().unwrap();
        assert_eq!(config.issuer.len(), 2);
        assert_eq!(config.issuer[0].issuer.as_deref(), Some("a"));
        assert_eq!(config.issuer[0].leeway.as_secs(), 1);
        assert_eq!(config.identity.headers.len(), 5, "the defaults and one more");
        assert_eq!(config.upstream.urls, ["http://127.0.0.1:3000", "http://b:1"]);
        let gap = dotted_path(&root, "issuer[5].issuer").unwrap().0;
        assert!(place(Some(&value), None, &gap.0, Value::from("x")).is_err());
    }
}
