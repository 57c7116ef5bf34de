//! Those who vouch for a user besides a signature: what they say, and what they will be asked again.

use crate::auth::cache::Fingerprint;
use crate::auth::identity::Identity;
use crate::auth::jose::Fault;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;

/// Who was asked, by the place in its list of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Voucher {
    /// A `[[session_store]]`.
    Store(usize),
    /// An `[[introspection]]`.
    Introspection(usize),
    /// A `[[callout]]`.
    Callout(usize),
}

/// What is asked again while a session lives.
pub struct Hold {
    /// Of whom.
    pub voucher: Voucher,
    /// About what: the id of a stored session, or a token.
    pub credential: SecretString,
    /// Its digest: equal holds are one question.
    pub digest: Fingerprint,
    /// The request that it came with, for those who want to see more of it.
    pub asked: Option<Arc<Asked>>,
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        (self.voucher, self.digest, &self.asked) == (other.voucher, other.digest, &other.asked)
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("voucher", &self.voucher).finish_non_exhaustive()
    }
}

/// A request as a call-out is told of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// Method, target without credentials, address, and the headers that are passed on.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Asked {
    /// Takes what is passed on: `wanted` of the client's headers, and `own` ones of the gate about it.
    pub fn of(client: &HeaderMap, wanted: &[HeaderName], own: [(&'static str, &str); 3]) -> Self {
        let passed =
            wanted.iter().flat_map(|name| client.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        let own = own
            .into_iter()
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)));
        Self { headers: passed.chain(own).collect() }
    }
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// This is who it is.
    Yes(Box<Identity>),
    /// It is nobody who may come in.
    No(Fault),
    /// The answer is none: nothing is known. For operators, and in no way from the credential.
    Unclear(String),
}
