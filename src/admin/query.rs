//! Parameters of the admin API, read strictly: what is misspelt must not be taken for "everything".

use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::str::FromStr;

/// What is wrong with a request, for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The parameter or member.
    pub key: String,
    /// What stood there.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

impl Wrong {
    /// One.
    pub fn new(key: &str, value: impl ToString, allowed: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// A query string, each of whose names is known and stands there once.
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads one.
    ///
    /// # Errors
    /// Names that are not in `known`, or stand there twice.
    pub fn parse(raw: &str, known: &[&str]) -> Result<Self, Wrong> {
        let mut found = BTreeMap::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name), decode(value));
            if !known.contains(&name.as_str()) {
                return Err(Wrong::new("parameter", &name, known.join(", ")));
            }
            if found.contains_key(&name) {
                return Err(Wrong::new(&name, value, "one value"));
            }
            found.insert(name, value);
        }
        Ok(Self(found))
    }

    /// A value as it is.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A value of some form.
    ///
    /// # Errors
    /// Where it has another.
    pub fn read<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, Wrong> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| Wrong::new(name, value, allowed))
    }

    /// How many are asked for.
    ///
    /// # Errors
    /// None, or more than are given at once.
    pub fn limit(&self) -> Result<usize, Wrong> {
        const USUAL: usize = 100;
        const MOST: usize = 1000;
        match self.read("limit", "1 to 1000")? {
            None => Ok(USUAL),
            Some(limit @ 1..=MOST) => Ok(limit),
            Some(limit) => Err(Wrong::new("limit", limit, "1 to 1000")),
        }
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
