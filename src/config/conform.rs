//! One layer held against the shape of the model: unknown keys and wrong values are reported and taken out,
//! so that what is left can be merged, read and checked further.

use crate::config::model::Config;
use crate::config::nearest::nearest;
use crate::config::problem::{Problem, Problems, shown};
use crate::config::shape::{Path, Shape, Step, try_value};
use figment::value::{Dict, Num, Value};

/// What one layer may hold, and what was found wrong with it so far.
pub struct Conform<'a> {
    root: &'a Shape,
    /// The variable or flag that the layer came from.
    pub origin: Option<String>,
    /// What was found.
    pub problems: Problems,
    /// Paths that something was said about, or that were probably meant: later checks of these would only repeat it.
    pub touched: Vec<String>,
}

impl<'a> Conform<'a> {
    /// For a model of shape `root`.
    pub fn new(root: &'a Shape) -> Self {
        Self { root, origin: None, problems: Problems::default(), touched: Vec::new() }
    }

    /// Reports `message` about `path`.
    pub fn refuse(&mut self, path: &Path, message: impl Into<String>) {
        let path = path.to_string();
        self.touched.push(path.clone());
        self.problems.errors.push(Problem { path, message: message.into(), origin: self.origin.clone() });
    }

    /// Reports the key `name`, which `parent` does not have.
    pub fn unknown(&mut self, parent: &Path, shape: &Shape, name: &str) {
        let message = match self.meant(parent, shape, name) {
            Some(path) => {
                self.touched.push(path.to_string());
                let variable = match &self.origin {
                    Some(origin) if origin.starts_with(VARIABLE_PREFIX) => format!(" ({})", variable(&path)),
                    _ => String::new(),
                };
                format!("unknown key; did you mean {path}{variable}?")
            }
            None => match shape {
                Shape::Table(keys) => {
                    let keys: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
                    format!("unknown key; allowed here: {}", keys.join(", "))
                }
                other => format!("unknown key; allowed here: {}", other.allowed()),
            },
        };
        self.refuse(&parent.key(name), message);
    }

    /// The known key nearest to `parent.name`: a path run together, a sibling, or the same name elsewhere.
    fn meant(&self, parent: &Path, shape: &Shape, name: &str) -> Option<Path> {
        let mut known: Vec<(String, Path)> = Vec::new();
        self.root.each_key(&Path::default(), &mut |path, _| known.push((run_together(path, "_"), path.clone())));
        let joined = |text: &str| known.iter().find(|(other, _)| other == text).map(|(_, path)| path.clone());
        let sibling = || match shape {
            Shape::Table(keys) => nearest(name, keys.iter().map(|(key, _)| *key)).map(|key| parent.key(key)),
            _ => None,
        };
        let named = |text: &str| known.iter().map(|(_, path)| path).find(|path| last_key(path) == Some(text)).cloned();
        joined(&name.to_ascii_lowercase())
            .filter(|path| path.0.len() > 1)
            .or_else(sibling)
            .or_else(|| named(name))
            .or_else(|| joined(nearest(name, known.iter().map(|(other, _)| other.as_str()))?))
            .or_else(|| named(nearest(name, known.iter().filter_map(|(_, path)| last_key(path)))?))
    }

    /// Takes everything out of `dict` that may not stand there.
    pub fn table(&mut self, dict: &mut Dict, shape: &Shape, at: &Path) {
        dict.retain(|key, value| match shape.child(key) {
            Some(inner) => self.keep(value, inner, &at.key(key.as_str())),
            None => {
                self.unknown(at, shape, key);
                false
            }
        });
    }

    /// Whether `value` may stand at `at`; inside lists and tables only what is wrong is taken out.
    pub fn keep(&mut self, value: &mut Value, shape: &Shape, at: &Path) -> bool {
        match (shape, &mut *value) {
            (Shape::Table(_) | Shape::Map(_), Value::Dict(_, dict)) if !is_date(dict) => {
                self.table(dict, shape, at);
                true
            }
            (Shape::List(inner), Value::Array(_, items)) => {
                self.list(items, inner, at);
                true
            }
            (Shape::Bool, Value::Bool(..)) => true,
            (Shape::Whole, Value::Num(_, number)) if is_whole(number) => self.tried(value, at),
            (Shape::Text | Shape::Word(_), Value::String(..)) => self.tried(value, at),
            _ => {
                let allowed = allowed(shape, at);
                self.refuse(at, format!("found {}; allowed: {allowed}", found(value, is_secret(at))));
                false
            }
        }
    }

    /// A bad element leaves a harmless one behind: the elements after it keep the index that the user counts.
    fn list(&mut self, items: &mut Vec<Value>, inner: &Shape, at: &Path) {
        let mut index = 0;
        items.retain_mut(|item| {
            let path = at.index(index);
            index += 1;
            if self.keep(item, inner, &path) {
                return true;
            }
            *item = if matches!(inner, Shape::Table(_)) { Value::from(Dict::new()) } else { Value::from("") };
            matches!(inner, Shape::Table(_)) || try_value::<Config>(&path, item).is_ok()
        });
    }

    fn tried(&mut self, value: &Value, at: &Path) -> bool {
        let Err(error) = try_value::<Config>(at, value) else { return true };
        let text = value.as_str().map(shown).unwrap_or_else(|| found(value, false));
        let message = match self.shape_at(at) {
            Some(Shape::Word(words)) => {
                let hint = nearest(value.as_str().unwrap_or_default(), words.iter().copied());
                let hint = hint.map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
                format!("{text} is not known here; allowed: {}{hint}", crate::config::problem::one_of(words))
            }
            // The model's own sentence already names the value and what is allowed.
            _ if error.contains("; allowed: ") || error.ends_with("is too long") => error,
            Some(shape) => format!("{text} cannot be used; allowed: {}", allowed(&shape, at)),
            None => error,
        };
        self.refuse(at, message);
        false
    }

    fn shape_at(&self, path: &Path) -> Option<Shape> {
        let mut shape = self.root;
        for step in &path.0 {
            shape = match (step, shape) {
                (Step::Key(key), _) => shape.child(key)?,
                (Step::Index(_), Shape::List(inner)) => inner,
                _ => return None,
            };
        }
        Some(shape.clone())
    }
}

/// The prefix of variables that set keys.
pub const VARIABLE_PREFIX: &str = "SIOGATE_";

/// The variable that sets `path`.
pub fn variable(path: &Path) -> String {
    format!("{VARIABLE_PREFIX}{}", run_together(path, "__").to_ascii_uppercase())
}

/// The steps joined; indexes are left out where the joint is a single underscore, as nobody writes them there.
fn run_together(path: &Path, joint: &str) -> String {
    let steps: Vec<String> = path
        .0
        .iter()
        .filter_map(|step| match step {
            Step::Key(key) => Some(key.replace('-', "_")),
            Step::Index(index) => (joint == "__").then(|| index.to_string()),
        })
        .collect();
    steps.join(joint)
}

/// What may stand at `at`. A string may have a form of its own, such as a duration: an empty one makes the model say so.
fn allowed(shape: &Shape, at: &Path) -> String {
    match (shape, try_value::<Config>(at, &Value::from(""))) {
        (Shape::Text, Err(error)) => match error.split_once("; allowed: ") {
            Some((_, allowed)) => allowed.to_string(),
            None => "an address range, such as \"10.0.0.0/8\" or \"10.0.0.1/32\"".into(),
        },
        (Shape::List(inner), _) if matches!(**inner, Shape::Table(_)) => {
            format!("a list of tables, each under [[{at}]]")
        }
        _ => shape.allowed(),
    }
}

fn last_key(path: &Path) -> Option<&str> {
    path.0.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    })
}

/// Values under these names are not repeated, lest somebody wrote the secret itself there.
fn is_secret(path: &Path) -> bool {
    let last = last_key(path).map(str::to_ascii_lowercase);
    last.is_some_and(|key| ["secret", "token", "password"].iter().any(|word| key.contains(word)))
}

fn found(value: &Value, secret: bool) -> String {
    match value {
        Value::String(_, text) if !secret => format!("the string {}", shown(text)),
        Value::String(..) | Value::Char(..) => "a string".into(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(..) if secret => "a number".into(),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(whole), ..) => format!("the number {whole}"),
            (_, Some(whole), _) => format!("the number {whole}"),
            (_, _, Some(float)) => format!("the number {float}"),
            _ => "a number".into(),
        },
        Value::Empty(..) => "nothing".into(),
        Value::Dict(_, dict) if is_date(dict) => "a date".into(),
        Value::Dict(..) => "a table".into(),
        Value::Array(..) => "a list".into(),
    }
}

/// figment keeps TOML's numbers signed and a variable's unsigned.
fn is_whole(number: &Num) -> bool {
    number.to_u128().is_some() || number.to_i128().is_some_and(|signed| signed >= 0)
}

/// The `toml` crate hands dates on as a table with one private key.
fn is_date(dict: &Dict) -> bool {
    dict.keys().any(|key| key.starts_with("$__toml_private"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use figment::providers::{Format, Toml};

    fn problems(toml: &str) -> Vec<String> {
        let root = Shape::of::<Config>();
        let mut conform = Conform::new(&root);
        let mut dict: Dict = Toml::from_str(toml).unwrap();
        conform.table(&mut dict, &root, &Path::default());
        let rest = Value::from(dict);
        rest.deserialize::<Config>().expect("whatever is left is good");
        conform.problems.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_name_their_path_and_the_nearest_known_one() {
        for (toml, expected) in [
            ("[server]\nlistne = []", "server.listne: unknown key; did you mean server.listen?"),
            (
                "[[issuer]]\n[[issuer]]\njwks_uri = 'x'",
                "issuer[1].jwks_uri: unknown key; did you mean issuer[1].jwks_url?",
            ),
            ("[[issuer]]\nsecret = 'hunter2'", "issuer[0].secret: unknown key; did you mean issuer[0].secret_env?"),
            ("connect_deadline = '1s'", "connect_deadline: unknown key; did you mean socketio.connect_deadline?"),
            ("conect_deadline = '1s'", "conect_deadline: unknown key; did you mean socketio.connect_deadline?"),
            ("server_listen = []", "server_listen: unknown key; did you mean server.listen?"),
            ("[log]\nzz = 1", "log.zz: unknown key; allowed here: level, format"),
            ("[[isuer]]", "isuer: unknown key; did you mean issuer?"),
        ] {
            assert_eq!(problems(toml), [expected], "{toml}");
        }
    }

    #[test]
    fn wrong_types_say_what_was_found_and_what_is_allowed() {
        for (toml, expected) in [
            ("server = 5", "server: found the number 5; allowed: a table"),
            ("[issuer]", "issuer: found a table; allowed: a list of tables, each under [[issuer]]"),
            (
                "[http]\nroute = 1",
                "http.route: found the number 1; allowed: a list of tables, each under [[http.route]]",
            ),
            ("[server]\nlisten = '1'", "server.listen: found the string \"1\"; allowed: a list of strings"),
            ("[server]\nlisten = [1]", "server.listen[0]: found the number 1; allowed: a string"),
            ("[socketio]\nprobe = 'yes'", "socketio.probe: found the string \"yes\"; allowed: true or false"),
            (
                "[limits]\nmax_sessions = -1",
                "limits.max_sessions: found the number -1; allowed: a whole number, zero or more",
            ),
            (
                "[limits]\nmax_sessions = 1e5",
                "limits.max_sessions: found the number 100000; allowed: a whole number, zero or more",
            ),
            (
                "[server]\ndrain_timeout = 30",
                "server.drain_timeout: found the number 30; allowed: a whole number and a unit: ms, s, m, h or d, such as \"30s\"",
            ),
            (
                "[server]\ndrain_timeout = '30'",
                "server.drain_timeout: \"30\" is not a duration; allowed: a whole number and a unit: ms, s, m, h or d, such as \"30s\"",
            ),
            (
                "[server]\ntrusted_proxies = ['10.0.0.1']",
                "server.trusted_proxies[0]: \"10.0.0.1\" cannot be used; allowed: an address range, such as \"10.0.0.0/8\" or \"10.0.0.1/32\"",
            ),
            (
                "[socketio]\nprotocol = 'socketio'",
                "socketio.protocol: \"socketio\" is not known here; allowed: \"socket.io\" or \"engine.io\"; did you mean \"socket.io\"?",
            ),
            ("[socketio]\npath = 1979-05-27", "socketio.path: found a date; allowed: a string"),
            ("[admin]\ntoken_env = 12345", "admin.token_env: found a number; allowed: a string"),
            ("[identity.headers]\nx-a = true", "identity.headers.x-a: found true; allowed: a string"),
        ] {
            assert_eq!(problems(toml), [expected], "{toml}");
        }
    }

    #[test]
    fn good_values_are_left_alone() {
        let good = "[limits]\nmax_sessions = 5\nmax_queue = 0x10\n[socketio]\nmax_payload = 1\nprobe = false\n[identity.headers]\nX_a = 'b'";
        assert!(problems(good).is_empty(), "{:?}", problems(good));
    }

    #[test]
    fn all_problems_of_a_layer_are_found_at_once() {
        let toml = "[server]\nlisten = 1\ndrain_timeout = 'x'\nfoo = 1\n[[issuer]]\nleeway = 5\naudience = [1, 'a', 2]\n[log]\nformat = 'xml'";
        assert_eq!(problems(toml).len(), 7, "{:?}", problems(toml));
    }
}
