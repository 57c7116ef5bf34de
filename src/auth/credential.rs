//! Where a credential may stand, in which order it counts, and how it is taken out before a request goes on.
//!
//! Places are asked in the order of the configuration and the first that holds something decides, good or bad:
//! RFC 6750 section 2 forbids two methods at once, and a fixed order leaves no choice to the sender. Two
//! different values in one place are refused, since two readers could pick differently.

mod lines;

use crate::auth::claims::lookup;
use crate::auth::credential::lines::{
    Rewrite, authorization, cookie, header, other_scheme, session, single, strip_offers, subprotocol, unprefixed,
    without_cookie,
};
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use secrecy::SecretString;
use serde_json::{Map, Value};

/// Headers that can never carry a credential: they frame or route the request.
const UNFIT: [&str; 8] =
    ["connection", "content-length", "cookie", "host", "sec-websocket-protocol", "te", "transfer-encoding", "upgrade"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Auth(String),
    Header(HeaderName),
    Query(String),
    Cookie(String),
    Subprotocol(String),
    /// The cookie of a session store, and whether the backend gets it too.
    Session {
        name: String,
        store: usize,
        forward: bool,
    },
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// Nothing in any place.
    None,
    /// A credential; nothing is known about it yet.
    Token {
        /// The credential.
        token: SecretString,
        /// The place in the order: the lower, the more trusted.
        source: usize,
        /// Whether browsers send it unasked, so that the page's origin has to be checked.
        cookie: bool,
    },
    /// Something is there, but not one credential.
    Malformed {
        /// What, for operators; never the value.
        detail: String,
    },
}

/// Which credentials go on to the backend. One that nobody looked at could be anybody's, and a backend that leaves
/// the looking to the gate would believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// None.
    None,
    /// The one in this place, which was verified.
    Verified(usize),
    /// Whatever stands there: nobody is asked who it is.
    All,
}

/// `[credentials] sources`, compiled.
#[derive(Clone, Debug)]
pub struct Sources {
    places: Vec<(String, Place)>,
    query_names: Vec<String>,
}

impl Sources {
    /// Compiles the list.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<Self, Vec<String>> {
        let (mut places, mut problems) = (Vec::<(String, Place)>::new(), Vec::new());
        for source in list {
            let source = source.as_ref();
            match place(source) {
                Ok(place) if places.iter().any(|(_, known)| *known == place) => {
                    problems.push(format!("{source:?} stands twice"));
                }
                Ok(place) => places.push((source.to_owned(), place)),
                Err(problem) => problems.push(format!("{source:?} {problem}")),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let query_names = places
            .iter()
            .filter_map(|(_, place)| if let Place::Query(name) = place { Some(name.clone()) } else { None })
            .collect();
        Ok(Self { places, query_names })
    }

    /// Adds the cookie of session store number `store`, behind all other places.
    #[must_use]
    pub fn with_session(mut self, name: &str, store: usize, forward: bool) -> Self {
        self.places.push((format!("session:{name}"), Place::Session { name: name.into(), store, forward }));
        self
    }

    /// The session store whose cookie a source is; `None`: it holds tokens.
    pub fn store(&self, source: usize) -> Option<usize> {
        match self.places.get(source) {
            Some((_, Place::Session { store, .. })) => Some(*store),
            _ => None,
        }
    }

    /// Looks through a request. `query` gives all values of a decoded parameter name.
    pub fn in_request(&self, headers: &HeaderMap, query: impl Fn(&str) -> Vec<String>) -> Found {
        for (source, (_, place)) in self.places.iter().enumerate() {
            let value = match place {
                Place::Auth(_) => continue,
                Place::Header(name) if *name == AUTHORIZATION => authorization(headers),
                Place::Header(name) => header(headers, name),
                Place::Query(name) => single(query(name), "query parameter", name),
                Place::Cookie(name) => cookie(headers, name),
                Place::Subprotocol(name) => subprotocol(headers, name),
                Place::Session { name, .. } => session(headers, name),
            };
            match value {
                Ok(None) => {}
                Ok(Some(token)) => {
                    let cookie = matches!(place, Place::Cookie(_) | Place::Session { .. });
                    return Found::Token { token: token.into(), source, cookie };
                }
                Err(detail) => return Found::Malformed { detail },
            }
        }
        Found::None
    }

    /// Looks through the query of a namespace, of which `query` gives all values of a decoded parameter name.
    pub fn in_query(&self, query: impl Fn(&str) -> Vec<String>) -> Found {
        for (source, (_, place)) in self.places.iter().enumerate() {
            let Place::Query(name) = place else { continue };
            match single(query(name), "query parameter", name) {
                Ok(None) => {}
                Ok(Some(token)) => return Found::Token { token: token.into(), source, cookie: false },
                Err(detail) => return Found::Malformed { detail },
            }
        }
        Found::None
    }

    /// Looks through the payload of a CONNECT packet.
    pub fn in_connect(&self, data: Option<&Map<String, Value>>) -> Found {
        let Some(data) = data else { return Found::None };
        for (source, (_, place)) in self.places.iter().enumerate() {
            let Place::Auth(path) = place else { continue };
            match lookup(data, path) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text.is_empty() => {}
                Some(Value::String(text)) => {
                    return Found::Token { token: unprefixed(text).into(), source, cookie: false };
                }
                Some(_) => return Found::Malformed { detail: format!("{path} in the payload is not a string") },
            }
        }
        Found::None
    }

    /// Whether a credential may stand in a CONNECT packet at all.
    pub fn reads_connect(&self) -> bool {
        self.places.iter().any(|(_, place)| matches!(place, Place::Auth(_)))
    }

    /// Whether a credential may stand in a cookie.
    pub fn reads_cookies(&self) -> bool {
        self.places.iter().any(|(_, place)| matches!(place, Place::Cookie(_) | Place::Session { .. }))
    }

    /// A source as it was configured, for the log: `header:authorization`.
    pub fn name(&self, source: usize) -> &str {
        self.places.get(source).map_or("", |(name, _)| name)
    }

    /// Query parameters that hold credentials: to be dropped on the way on, and masked in logs.
    pub fn query_names(&self) -> &[String] {
        &self.query_names
    }

    /// Those of them that do not go on to the backend.
    pub fn query_names_withheld(&self, passed: Passed) -> impl Iterator<Item = &str> {
        self.withheld(passed)
            .filter_map(|place| if let Place::Query(name) = place { Some(name.as_str()) } else { None })
    }

    /// The places whose credentials do not go on; what becomes of a store's cookie is said with the store.
    fn withheld(&self, passed: Passed) -> impl Iterator<Item = &Place> {
        let stays = move |source: usize, place: &Place| match passed {
            _ if matches!(place, Place::Session { .. }) => true,
            Passed::None => true,
            Passed::Verified(verified) => verified != source,
            Passed::All => false,
        };
        let places = self.places.iter().enumerate();
        places.filter_map(move |(source, (_, place))| stays(source, place).then_some(place))
    }

    /// The subprotocol to answer with where a credential came as one: browsers fail a WebSocket whose offer is
    /// not taken up.
    pub fn subprotocol_answer(&self, headers: &HeaderMap) -> Option<&str> {
        self.places.iter().find_map(|(_, place)| match place {
            Place::Subprotocol(name) if matches!(subprotocol(headers, name), Ok(Some(_))) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Goes through a request's headers without the credentials in them that do not go on; the rest is left byte for
    /// byte.
    pub fn without_credentials(
        &self,
        headers: &HeaderMap,
        passed: Passed,
        mut each: impl FnMut(&HeaderName, &HeaderValue),
    ) {
        let offers = self.withheld(passed).any(|place| matches!(place, Place::Subprotocol(_)));
        let mut offers_told = false;
        for (name, value) in headers {
            if *name == SEC_WEBSOCKET_PROTOCOL && offers {
                // A credential may be spread over two lines.
                if !std::mem::replace(&mut offers_told, true) {
                    self.remaining_offers(headers, passed).iter().for_each(|value| each(name, value));
                }
                continue;
            }
            match self.judge(name, value, passed) {
                Rewrite::Keep => each(name, value),
                Rewrite::Drop => {}
                Rewrite::Replace(value) => each(name, &value),
            }
        }
    }

    fn judge(&self, name: &HeaderName, value: &HeaderValue, passed: Passed) -> Rewrite {
        let concerns = |(_, place): &(String, Place)| matches!(place, Place::Header(header) if header == name);
        if *name != COOKIE && !self.places.iter().any(concerns) {
            return Rewrite::Keep;
        }
        let mut verdict = Rewrite::Keep;
        for place in self.withheld(passed) {
            let kept = if let Rewrite::Replace(value) = &verdict { value } else { value };
            let next = match place {
                // Another scheme is somebody else's credential.
                Place::Header(header) if header == name && *name == AUTHORIZATION && other_scheme(kept) => {
                    Rewrite::Keep
                }
                Place::Header(header) if header == name => Rewrite::Drop,
                Place::Cookie(cookie) | Place::Session { name: cookie, forward: false, .. } if *name == COOKIE => {
                    without_cookie(kept, cookie)
                }
                _ => Rewrite::Keep,
            };
            match next {
                Rewrite::Keep => {}
                Rewrite::Drop => return Rewrite::Drop,
                replaced => verdict = replaced,
            }
        }
        verdict
    }

    fn remaining_offers(&self, headers: &HeaderMap, passed: Passed) -> Vec<HeaderValue> {
        let mut lines: Vec<HeaderValue> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
        for place in self.withheld(passed) {
            if let Place::Subprotocol(name) = place {
                strip_offers(&mut lines, name);
            }
        }
        lines
    }

    /// Takes every credential that does not go on out of the payload of a CONNECT packet.
    pub fn strip_connect(&self, data: &mut Map<String, Value>, passed: Passed) {
        for place in self.withheld(passed) {
            if let Place::Auth(path) = place {
                remove(data, path);
            }
        }
    }
}

fn place(source: &str) -> Result<Place, String> {
    const ALLOWED: &str = "allowed: auth:KEY, header:NAME, query:NAME, cookie:NAME, subprotocol:NAME";
    let (kind, name) = source.split_once(':').ok_or_else(|| format!("has no kind; {ALLOWED}"))?;
    let token = |what: &str| {
        // RFC 9110 section 5.6.2; the same set as for header names.
        let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if fits && !name.is_empty() { Ok(name.to_owned()) } else { Err(format!("does not name a {what}")) }
    };
    match kind {
        "auth" if name.is_empty() => Err("does not name a member of the payload".into()),
        "auth" => Ok(Place::Auth(name.into())),
        "header" => {
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "does not name a header".to_owned())?;
            if UNFIT.contains(&header.as_str()) {
                return Err("names a header that cannot carry a credential".into());
            }
            Ok(Place::Header(header))
        }
        // The Engine.IO parameters are read before any credential.
        "query" if ["EIO", "transport", "sid", "t", "j", "b64"].contains(&name) => {
            Err("names a parameter of Engine.IO".into())
        }
        "query" if name.is_empty() => Err("does not name a query parameter".into()),
        "query" => Ok(Place::Query(name.into())),
        "cookie" => token("cookie").map(Place::Cookie),
        "subprotocol" => token("subprotocol").map(Place::Subprotocol),
        other => Err(format!("has the unknown kind {other:?}; {ALLOWED}")),
    }
}

/// Removes whatever [`lookup`] would find, until it finds nothing.
fn remove(data: &mut Map<String, Value>, path: &str) {
    data.remove(path);
    for (dot, _) in path.match_indices('.') {
        let (Some(head), Some(rest)) = (path.get(..dot), path.get(dot + 1..)) else { continue };
        if let Some(Value::Object(inner)) = data.get_mut(head) {
            remove(inner, rest);
        }
    }
}

#[cfg(test)]
mod tests;
