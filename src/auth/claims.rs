//! Which claims a backend is told, and in what words: the mapping from claims to headers.
//!
//! A header value is percent-encoded where it has to be (controls, non-ASCII, `%`, spaces at the ends, commas inside
//! of arrays), so that no claim can add a header or an element, and `decodeURIComponent` gives back exactly what the
//! token said. Objects, nulls and what is missing give no header: a backend that sees none knows nothing.

use crate::auth::identity::{Identity, NEVER};
use crate::config::header_name::{reserved, same};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// No header value is longer than this; a longer one is not sent at all.
pub const MAX_VALUE: usize = 8 * 1024;

const SCALAR: &AsciiSet = &CONTROLS.add(b'%');
const ELEMENT: &AsciiSet = &SCALAR.add(b',');

/// Names with a meaning of their own inside of an assertion.
const REGISTERED: [&str; 10] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "idp", "cnf"];

/// Whether a header that a client sent has to go because a backend could take it for one of `protected`.
pub fn is_protected<S: AsRef<str>>(name: &str, protected: &[S]) -> bool {
    protected.iter().any(|header| same(name, header.as_ref()))
}

/// Finds a claim by its name, else by its path: `user.id`, also below names with dots (`https://example.com/x.id`).
pub fn lookup<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    lookup_by(|name| claims.get(name), path)
}

/// The same for claims that are kept otherwise; `get` finds one by its name.
pub fn lookup_by<'a>(get: impl Fn(&str) -> Option<&'a Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| match get(path.get(..dot)?) {
        Some(Value::Object(inner)) => lookup(inner, path.get(dot + 1..)?),
        _ => None,
    })
}

/// Where a header's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Subject,
    Issuer,
    Expires,
    Session,
    Claims,
    Claim(String),
}

impl Origin {
    fn parse(claim: &str) -> Result<Self, String> {
        Ok(match claim {
            "sub" => Self::Subject,
            "iss" => Self::Issuer,
            "exp" => Self::Expires,
            "$session" => Self::Session,
            "$claims" => Self::Claims,
            "" => return Err("names no claim".into()),
            other if other.starts_with('$') => {
                return Err(format!("{other:?} is not known; allowed: \"$session\", \"$claims\" or a claim"));
            }
            other => Self::Claim(other.into()),
        })
    }
}

/// `[identity.headers]`, compiled.
#[derive(Clone, Debug)]
pub struct HeaderMapping {
    headers: Vec<(HeaderName, Origin)>,
    protected: Vec<String>,
    allowed: Vec<String>,
}

impl HeaderMapping {
    /// Compiles header names and claims; `allowed` are the claims that `$claims` may carry.
    ///
    /// # Errors
    /// Everything that is wrong, at once, each naming its header.
    pub fn compile<K, V, S>(headers: impl IntoIterator<Item = (K, V)>, allowed: &[S]) -> Result<Self, Vec<String>>
    where
        K: AsRef<str>,
        V: AsRef<str>,
        S: AsRef<str>,
    {
        let mut mapping = Self {
            headers: Vec::new(),
            protected: Vec::new(),
            allowed: allowed.iter().map(|claim| claim.as_ref().to_owned()).collect(),
        };
        let mut problems = Vec::new();
        for (name, claim) in headers {
            if let Err(problem) = mapping.add(name.as_ref(), claim.as_ref()) {
                problems.push(format!("{}: {problem}", name.as_ref()));
            }
        }
        if problems.is_empty() { Ok(mapping) } else { Err(problems) }
    }

    fn add(&mut self, name: &str, claim: &str) -> Result<(), String> {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is not a header name".to_owned())?;
        if reserved(name).is_some() {
            return Err("is written by the gate or frames the message and cannot carry a claim".into());
        }
        if self.protects(name) {
            return Err("looks the same as another header to some backends".into());
        }
        let origin = Origin::parse(claim)?;
        self.protected.push(header.as_str().to_owned());
        self.headers.push((header, origin));
        Ok(())
    }

    /// Protects one more name, such as the assertion's header.
    pub fn protect(&mut self, name: &str) {
        self.protected.push(name.to_ascii_lowercase());
    }

    /// Whether a client's header of this name must not reach a backend, in any spelling.
    pub fn protects(&self, name: &str) -> bool {
        is_protected(name, &self.protected)
    }

    /// Whether a claim of this name, or one inside of it, may ever be asked for.
    pub fn reads(&self, name: &str) -> bool {
        let below = |path: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.headers.iter().any(|(_, origin)| match origin {
            Origin::Claim(path) => below(path),
            Origin::Claims => self.allowed.iter().any(|path| below(path)),
            _ => false,
        })
    }

    /// The headers for one identity in the session `sid`: visible ASCII.
    pub fn headers(&self, identity: &Identity, sid: &str) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::with_capacity(self.headers.len());
        self.each(identity, sid, |name, text| {
            headers.extend(HeaderValue::from_str(text).ok().map(|value| (name.clone(), value)));
        });
        headers
    }

    /// The same, one by one.
    pub fn each(&self, identity: &Identity, sid: &str, mut add: impl FnMut(&HeaderName, &str)) {
        for (name, origin) in &self.headers {
            let text = match origin {
                Origin::Subject => Some(scalar(&identity.subject, SCALAR)),
                Origin::Issuer => Some(scalar(&identity.issuer, SCALAR)),
                Origin::Expires => (identity.expires_at != NEVER).then(|| identity.expires_at.to_string().into()),
                Origin::Session => Some(scalar(sid, SCALAR)),
                Origin::Claims => self.claims_value(identity).map(Cow::Owned),
                Origin::Claim(path) => identity.claims.lookup(path).and_then(render),
            };
            if let Some(text) = text.filter(|text| !text.is_empty() && text.len() <= MAX_VALUE) {
                add(name, &text);
            }
        }
    }

    /// The mapped claims by name, as the token has them, for the signed assertion.
    pub fn claims(&self, identity: &Identity) -> Vec<(String, Value)> {
        let mut list: Vec<(String, Value)> = Vec::new();
        for (_, origin) in &self.headers {
            let names: &[String] = match origin {
                Origin::Claim(path) => std::slice::from_ref(path),
                Origin::Claims => &self.allowed,
                _ => &[],
            };
            for name in names {
                let known = REGISTERED.contains(&name.as_str()) || list.iter().any(|(listed, _)| listed == name);
                match identity.claims.lookup(name) {
                    Some(value) if !known && !value.is_null() => list.push((name.clone(), value.clone())),
                    _ => {}
                }
            }
        }
        list
    }

    /// base64url JSON of the allowed claims; `sub`, `iss` and `exp` are the identity's, never a claim unverified.
    fn claims_value(&self, identity: &Identity) -> Option<String> {
        let mut members = Map::new();
        for name in &self.allowed {
            let value = match name.as_str() {
                "sub" => Some(Value::from(&*identity.subject)),
                "iss" if identity.issuer.is_empty() => None,
                "iss" => Some(Value::from(&*identity.issuer)),
                "exp" if identity.expires_at == NEVER => None,
                "exp" => Some(Value::from(identity.expires_at)),
                name => identity.claims.lookup(name).cloned(),
            };
            if let Some(value) = value {
                members.insert(name.clone(), value);
            }
        }
        if members.is_empty() {
            return None;
        }
        Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&members).ok()?))
    }
}

fn render(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| plain(item, ELEMENT)).collect();
            Some(items?.join(",").into())
        }
        other => plain(other, SCALAR),
    }
}

fn plain<'v>(value: &'v Value, set: &'static AsciiSet) -> Option<Cow<'v, str>> {
    match value {
        Value::String(text) => Some(scalar(text, set)),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(flag) => Some(if *flag { "true" } else { "false" }.into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn scalar<'t>(text: &'t str, set: &'static AsciiSet) -> Cow<'t, str> {
    // Spaces at the ends would be trimmed on the way and make two names one.
    let core = text.trim_matches(' ');
    let lead = text.len() - text.trim_start_matches(' ').len();
    let trail = if core.is_empty() { 0 } else { text.len() - text.trim_end_matches(' ').len() };
    let encoded = Cow::from(utf8_percent_encode(core, set));
    if lead == 0 && trail == 0 {
        return encoded;
    }
    format!("{}{encoded}{}", "%20".repeat(lead), "%20".repeat(trail)).into()
}

#[cfg(test)]
mod tests;
