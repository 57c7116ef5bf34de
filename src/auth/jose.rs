//! The compact form of a signed token, taken apart strictly: one spelling, no extensions, no repeated names.
//!
//! `jsonwebtoken` 11 reads a header with `crit`, `b64`, `zip` or `enc` as if they were not there, takes the
//! last of two equal member names and does not know the algorithm name `Ed25519`. So the form is judged
//! here, before any signature is looked at.

use crate::protocol::json::{self, JsonError};
use crate::reason::Reason;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::fmt;

/// No token is longer than this.
pub const MAX_TOKEN: usize = 8 * 1024;

/// No `kid` is longer than this.
pub const MAX_KID: usize = 256;

/// A signature algorithm that can be allowed for an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519, by its old name `EdDSA` or the one of RFC 9864, `Ed25519`: two names of one algorithm.
    EdDsa,
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl Algorithm {
    /// Every accepted name.
    pub const NAMES: &'static [(&'static str, Algorithm)] = &[
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
        ("Ed25519", Self::EdDsa),
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
    ];

    /// By its exact name: `none`, other cases and everything unknown are nothing.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, alg)| *alg)
    }

    /// The name in configuration and log.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, alg)| *alg == self).map_or("", |(name, _)| name)
    }

    /// Whether the key is a shared secret.
    pub fn is_hmac(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    /// Whether the key is an RSA key.
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512)
    }
}

/// Why a token is refused: the word for all, the detail for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The word.
    pub reason: Reason,
    /// What exactly, without token text.
    pub detail: String,
}

impl Fault {
    /// A fault.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Reason::CredentialMalformed, detail)
    }
}

/// A foreign value made fit for an operator's log: escaped, quoted, and short enough that no token hides in it.
pub fn shown(value: &str) -> String {
    const MAX: usize = 64;
    let mut text = String::from("\"");
    text.extend(value.chars().take(MAX).flat_map(char::escape_default));
    text.push_str(if value.chars().nth(MAX).is_some() { "…\"" } else { "\"" });
    text
}

/// The members of a protected header that the gate acts upon. Key hints (`jku`, `jwk`, `x5u`, `x5c`) are never read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub alg: Algorithm,
    /// `kid`.
    pub kid: Option<String>,
    /// `typ`.
    pub typ: Option<String>,
}

/// A token taken apart. Nothing of it is verified.
pub struct Compact<'a> {
    /// The header.
    pub header: Header,
    /// The claims, as claimed.
    pub claims: Map<String, Value>,
    /// The bytes that are signed.
    pub signing_input: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// Anything but the one accepted form.
    pub fn parse(token: &'a str) -> Result<Self, Fault> {
        let (head, body, signature) = split(token)?;
        // Header and body are two parts of `token` with one dot between.
        let signing_input = token.as_bytes().get(..head.len() + 1 + body.len()).unwrap_or_default();
        let header = Header::parse(&decode(head, "header")?)?;
        let claims = object(&decode(body, "payload")?)
            .map_err(|fault| Fault::malformed(format!("the token's payload {fault}")))?;
        Ok(Self { header, claims, signing_input, signature: decode(signature, "signature")? })
    }
}

/// Length, alphabet and exactly two dots, in one pass and before anything is decoded.
fn split(token: &str) -> Result<(&str, &str, &str), Fault> {
    if token.len() > MAX_TOKEN {
        return Err(Fault::malformed(format!("the token has {} bytes, more than {MAX_TOKEN}", token.len())));
    }
    // Several bytes at once: leaving early would cost more.
    let known = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'-') | (byte == b'_') | (byte == b'.');
    if !token.bytes().fold(true, |all, byte| all & known(byte)) {
        return Err(Fault::malformed("the token has a character outside of base64url"));
    }
    let dots = token.bytes().filter(|byte| *byte == b'.').count();
    let mut parts = token.split('.');
    match (dots, parts.next(), parts.next(), parts.next()) {
        (2, Some(head), Some(body), Some(signature)) => Ok((head, body, signature)),
        (4, ..) => Err(Fault::malformed("the token has five parts: encrypted tokens (JWE) are not accepted")),
        (0, ..) => Err(Fault::malformed("the token is not a JWT: it has no dots")),
        _ => Err(Fault::malformed(format!("the token has {} parts instead of three", dots + 1))),
    }
}

fn decode(part: &str, what: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::malformed(format!("the token's {what} is not base64url")))
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let members = object(bytes).map_err(|fault| Fault::malformed(format!("the token's header {fault}")))?;
        // RFC 7515 section 4.1.11: what is critical and not understood must be refused; we understand nothing.
        for name in ["crit", "b64", "zip", "enc"] {
            if members.contains_key(name) {
                return Err(Fault::malformed(format!("the token's header has {name}")));
            }
        }
        let text = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value.as_str())),
            Some(_) => Err(Fault::malformed(format!("the token's header has a {name} that is not a string"))),
        };
        if text("cty")?.is_some_and(|cty| media_type(cty) == "application/jwt") {
            return Err(Fault::malformed("the token holds another token (cty)"));
        }
        let kid = text("kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(Fault::malformed(format!("the token's kid is longer than {MAX_KID} bytes")));
        }
        let alg =
            text("alg")?.ok_or_else(|| Fault::new(Reason::AlgorithmNotAllowed, "the token's header has no alg"))?;
        let alg = Algorithm::parse(alg)
            .ok_or_else(|| Fault::new(Reason::AlgorithmNotAllowed, format!("alg {} is not supported", shown(alg))))?;
        Ok(Self { alg, kid: kid.map(String::from), typ: text("typ")?.map(String::from) })
    }
}

/// RFC 7515 section 4.1.9: compared without case; without a slash, `application/` is understood.
pub fn media_type(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.contains('/') { name } else { format!("application/{name}") }
}

/// Why a JSON text is no acceptable object; reads after "the token's header".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// A member name stands twice in one object.
    Repeated,
    /// Not JSON, too deep, or a number out of range.
    Invalid,
    /// JSON, but not an object.
    NotObject,
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeated => "repeats a member name",
            Self::Invalid => "is not valid JSON",
            Self::NotObject => "is not a JSON object",
        })
    }
}

impl From<JsonError> for JsonFault {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::DuplicateKey => Self::Repeated,
            JsonError::Malformed => Self::Invalid,
            JsonError::NotObject => Self::NotObject,
        }
    }
}

/// Reads one JSON object in which no name is repeated, at any depth.
///
/// Two readers of a token must not see two different claims: libraries differ in whether the first or the
/// last of two members counts.
///
/// # Errors
/// See [`JsonFault`].
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, JsonFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonFault::Invalid)?;
    Ok(json::object(text)?)
}

#[cfg(test)]
mod tests;
