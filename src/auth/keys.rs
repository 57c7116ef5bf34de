//! Keys to verify with: read one by one, each pinned to one algorithm, and swapped as a whole.
//!
//! `jsonwebtoken` reads JWKs and PEM; the signature itself is checked with `aws_lc_rs`, the library below
//! it, on keys parsed once at load. `jsonwebtoken::decode` would parse the key anew for each token and the
//! header and the claims twice, and ignores `use`, `key_ops` and the JWK's `alg`. The strict reading that it
//! leaves to us anyway is so paid for: one whole verification on a busy two-core machine took 19 to 26 us
//! against its 25 to 27 for RS256, 61 to 63 against 63 to 74 for ES256, 46 to 52 against 49 to 53 for EdDSA
//! (`verifier::tests::cost_of_one_verification`).

use crate::auth::jose::{self, Algorithm, shown};
use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, RSAKeyParameters};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a JWKS document.
pub const MAX_BODY: usize = 256 * 1024;

/// Keys used of one document.
pub const MAX_KEYS: usize = 64;

/// Keys tried for one token.
pub const MAX_CANDIDATES: usize = 4;

enum Material {
    Public(ParsedPublicKey),
    // Boxed: its prepared state is twenty times the size of a public key.
    Secret(Box<hmac::Key>),
}

/// One key, good for one algorithm.
pub struct Key {
    kid: Option<Box<str>>,
    alg: Algorithm,
    material: Material,
}

impl Key {
    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

/// A key of a document that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in `keys`.
    pub index: usize,
    /// Its `kid`, escaped for a log.
    pub kid: Option<String>,
    /// Why.
    pub why: String,
    /// Whether somebody should be told: a private or secret key was published.
    pub alarming: bool,
}

/// Why no key set could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Larger than [`MAX_BODY`].
    #[error("the key document is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// Not a JWKS document at all.
    #[error("not a JWKS document: an object with an array \"keys\" was expected")]
    NotAKeySet,
    /// A JWKS document without one usable key.
    #[error("none of the {} keys can be used{}", .0.len(), first(.0))]
    NoUsableKey(Vec<Skipped>),
    /// The PEM file does not hold one public key.
    #[error("{0}")]
    Pem(String),
    /// The shared secret cannot be used.
    #[error("{0}")]
    Secret(String),
}

fn first(skipped: &[Skipped]) -> String {
    skipped.first().map(|skip| format!("; the first: {}", skip.why)).unwrap_or_default()
}

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Which keys may have signed a token.
pub enum Candidates<'a> {
    /// These, in order; `exact` when chosen by the token's `kid`.
    Keys { keys: Vec<&'a Key>, exact: bool },
    /// The key meant is pinned to another algorithm.
    Pinned(Algorithm),
    /// More than [`MAX_CANDIDATES`], and no `kid` to choose by.
    TooMany(usize),
    /// None.
    Unknown,
}

impl KeySet {
    /// Reads a JWKS document key by key: one bad key does not spoil the others.
    ///
    /// # Errors
    /// Where not one usable key is in it: an empty answer must never replace a good set.
    pub fn from_jwks(body: &[u8], allowed: &[Algorithm]) -> Result<(Self, Vec<Skipped>), KeysError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        if body.len() > MAX_BODY {
            return Err(KeysError::TooLarge);
        }
        let document: Document<'_> = serde_json::from_slice(body).map_err(|_| KeysError::NotAKeySet)?;
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, raw) in document.keys.iter().enumerate() {
            if keys.len() == MAX_KEYS {
                let why = format!("no more than {MAX_KEYS} keys are used");
                skipped.push(Skipped { index, kid: None, why, alarming: false });
                break;
            }
            let members = jose::object(raw.get().as_bytes());
            let kid = members.as_ref().ok().and_then(|m| m.get("kid")).and_then(Value::as_str).map(shown);
            let key = members.map_err(|fault| Refused::new(format!("the key {fault}")));
            match key.and_then(|members| from_jwk(members, allowed)) {
                Ok(key) => keys.push(key),
                Err(Refused { why, alarming }) => skipped.push(Skipped { index, kid, why, alarming }),
            }
        }
        if keys.is_empty() { Err(KeysError::NoUsableKey(skipped)) } else { Ok((Self { keys }, skipped)) }
    }

    /// One public key in PEM, which then verifies whatever `kid` a token has.
    ///
    /// # Errors
    /// Anything but exactly one public key for an allowed algorithm.
    pub fn from_pem(pem: &[u8], allowed: &[Algorithm]) -> Result<Self, KeysError> {
        let text = String::from_utf8_lossy(pem);
        let refuse = |why: &str| Err(KeysError::Pem(why.into()));
        match text.matches("-----BEGIN ").count() {
            0 => return refuse("no PEM block was found"),
            1 => {}
            _ => return refuse("more than one PEM block was found; use jwks_file for several keys"),
        }
        if text.contains("PRIVATE KEY-----") {
            return refuse("this is a private key; only the public key belongs here");
        }
        if text.contains("BEGIN CERTIFICATE-----") {
            return refuse("this is a certificate; extract its public key: openssl x509 -pubkey -noout");
        }
        // Each reader checks that the key is of its family.
        let key = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| KeysError::Pem("not a public key of RSA, P-256, P-384 or Ed25519".into()))?;
        let jwk = Jwk::from_decoding_key(&key, None)
            .map_err(|_| KeysError::Pem("not a public key of RSA, P-256, P-384 or Ed25519".into()))?;
        let key = pin(&jwk, None, allowed).map_err(|refused| KeysError::Pem(refused.why))?;
        Ok(Self { keys: vec![key] })
    }

    /// Shared secrets, the newest first; each is good for every one of `algorithms`, as configured.
    ///
    /// # Errors
    /// A secret shorter than the hash, or one that looks like a key file: whoever knows a public key could
    /// sign with it.
    pub fn from_secrets(secrets: &[SecretString], algorithms: &[Algorithm]) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for secret in secrets {
            let bytes = secret.expose_secret().as_bytes();
            if secret.expose_secret().contains("-----BEGIN ") {
                return Err(KeysError::Secret("the shared secret is a PEM file; use key_file for a public key".into()));
            }
            for alg in algorithms {
                let (hash, least) = match alg {
                    Algorithm::Hs256 => (hmac::HMAC_SHA256, 32),
                    Algorithm::Hs384 => (hmac::HMAC_SHA384, 48),
                    Algorithm::Hs512 => (hmac::HMAC_SHA512, 64),
                    other => {
                        return Err(KeysError::Secret(format!("{} does not use a shared secret", other.name())));
                    }
                };
                // RFC 7518 section 3.2.
                if bytes.len() < least {
                    return Err(KeysError::Secret(format!(
                        "the shared secret has {} bytes; {} needs at least {least}",
                        bytes.len(),
                        alg.name()
                    )));
                }
                keys.push(Key {
                    kid: None,
                    alg: *alg,
                    material: Material::Secret(Box::new(hmac::Key::new(hash, bytes))),
                });
            }
        }
        if keys.is_empty() {
            return Err(KeysError::Secret("no shared secret is set".into()));
        }
        Ok(Self { keys })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never, but clippy asks.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys to try for a token.
    pub fn candidates(&self, kid: Option<&str>, alg: Algorithm) -> Candidates<'_> {
        if let Some(kid) = kid {
            let named = || self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid));
            let keys: Vec<_> = named().filter(|key| key.alg == alg).take(MAX_CANDIDATES).collect();
            if !keys.is_empty() {
                return Candidates::Keys { keys, exact: true };
            }
            if let Some(other) = named().next() {
                return Candidates::Pinned(other.alg);
            }
        }
        // Without a `kid` in the token any key may be meant; with one, only keys that have none themselves.
        let meant = || self.keys.iter().filter(|key| kid.is_none() || key.kid.is_none());
        let keys: Vec<_> = meant().filter(|key| key.alg == alg).take(MAX_CANDIDATES + 1).collect();
        match (keys.len(), meant().next()) {
            (1..=MAX_CANDIDATES, _) => Candidates::Keys { keys, exact: false },
            (0, Some(only)) if self.keys.iter().all(|key| key.kid.is_none()) => Candidates::Pinned(only.alg),
            (0, _) => Candidates::Unknown,
            _ => Candidates::TooMany(meant().filter(|key| key.alg == alg).count()),
        }
    }
}

struct Refused {
    why: String,
    alarming: bool,
}

impl Refused {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), alarming: false }
    }
}

fn from_jwk(members: Map<String, Value>, allowed: &[Algorithm]) -> Result<Key, Refused> {
    if members.get("kty").and_then(Value::as_str) == Some("oct") {
        return Err(Refused { why: "a shared secret (oct) in a JWKS document is never used".into(), alarming: true });
    }
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| members.contains_key(*name)) {
        return Err(Refused {
            why: "the private key is published; it can no longer be trusted".into(),
            alarming: true,
        });
    }
    match members.get("use").map(Value::as_str) {
        None | Some(Some("sig")) => {}
        Some(_) => return Err(Refused::new("its use is not sig")),
    }
    match members.get("key_ops") {
        None => {}
        Some(Value::Array(ops)) if ops.iter().any(|op| op == "verify") => {}
        Some(_) => return Err(Refused::new("its key_ops do not have verify")),
    }
    let alg =
        match members.get("alg") {
            None => None,
            Some(Value::String(name)) => Some(Algorithm::parse(name).ok_or_else(|| {
                Refused::new(format!("its alg {} is not a supported signature algorithm", shown(name)))
            })?),
            Some(_) => return Err(Refused::new("its alg is not a string")),
        };
    let jwk: Jwk = serde_json::from_value(Value::Object(members)).map_err(|_| Refused::new("it is malformed"))?;
    pin(&jwk, alg, allowed)
}

/// RFC 8725bis section 3.1: one key, one algorithm.
///
/// The JWK's own `alg`; without one, what its type and curve allow. An RSA key without `alg` is for the
/// first RSA algorithm of the issuer's list: configuration decides, never the token.
fn pin(jwk: &Jwk, alg: Option<Algorithm>, allowed: &[Algorithm]) -> Result<Key, Refused> {
    let fits: fn(Algorithm) -> bool = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::is_rsa,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => |alg| alg == Algorithm::Es256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => |alg| alg == Algorithm::Es384,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => |alg| alg == Algorithm::EdDsa,
        _ => return Err(Refused::new("its type or curve is not supported")),
    };
    let alg = match alg {
        Some(alg) if !fits(alg) => return Err(Refused::new(format!("its type does not fit its alg {}", alg.name()))),
        Some(alg) if !allowed.contains(&alg) => {
            return Err(Refused::new(format!("its alg {} is not in algorithms", alg.name())));
        }
        Some(alg) => alg,
        None => {
            *allowed.iter().find(|alg| fits(**alg)).ok_or_else(|| Refused::new("no algorithm for it is allowed"))?
        }
    };
    let key = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => rsa_key(rsa, alg)?,
        _ => point_key(jwk, alg)?,
    };
    let kid = jwk.common.key_id.as_deref().map(Box::from);
    Ok(Key { kid, alg, material: Material::Public(key) })
}

fn rsa_key(rsa: &RSAKeyParameters, alg: Algorithm) -> Result<ParsedPublicKey, Refused> {
    let params: &'static RsaParameters = match alg {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return Err(Refused::new("its type does not fit its alg")),
    };
    let number = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::new("it is not base64url"))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok::<_, Refused>(bytes.get(zeros..).unwrap_or_default().to_vec())
    };
    let (n, e) = (number(&rsa.n)?, number(&rsa.e)?);
    let bits = n.first().map_or(0, |top| n.len().saturating_mul(8) - top.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(Refused::new(format!("it has {bits} bits; RSA keys need 2048 to 8192")));
    }
    if e.last().is_none_or(|low| low % 2 == 0) || e == [1] {
        return Err(Refused::new("its exponent is not an odd number above 1"));
    }
    RsaPublicKeyComponents { n, e }.to_parsed_public_key(params).map_err(|_| Refused::new("it is not an RSA key"))
}

fn point_key(jwk: &Jwk, alg: Algorithm) -> Result<ParsedPublicKey, Refused> {
    let (verifier, length): (&'static dyn signature::VerificationAlgorithm, _) = match alg {
        Algorithm::Es256 => (&signature::ECDSA_P256_SHA256_FIXED, 65),
        Algorithm::Es384 => (&signature::ECDSA_P384_SHA384_FIXED, 97),
        Algorithm::EdDsa => (&signature::ED25519, 32),
        _ => return Err(Refused::new("its type does not fit its alg")),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|_| Refused::new("it is not base64url"))?;
    let point = key.try_get_as_bytes().map_err(|_| Refused::new("it is malformed"))?;
    if point.len() != length {
        return Err(Refused::new("its coordinates have the wrong length"));
    }
    ParsedPublicKey::new(verifier, point).map_err(|_| Refused::new("it is not a point of its curve"))
}

/// A set and its age.
#[derive(Debug)]
pub struct Loaded {
    /// The keys.
    pub set: KeySet,
    loaded_at: AtomicU64,
    stale_since: AtomicU64,
}

const FRESH: u64 = u64::MAX;

impl Loaded {
    /// When the keys were last confirmed, in unix seconds.
    pub fn loaded_at(&self) -> u64 {
        self.loaded_at.load(Ordering::Relaxed)
    }

    /// For how long the key server has failed to confirm them; `None` while it has not.
    pub fn stale_for(&self, now: u64) -> Option<u64> {
        let since = self.stale_since.load(Ordering::Relaxed);
        (since != FRESH).then(|| now.saturating_sub(since))
    }
}

/// The current keys of every issuer. Cloning clones the handle; readers never wait.
#[derive(Clone, Debug)]
pub struct KeyStore {
    slots: Arc<[ArcSwapOption<Loaded>]>,
}

impl KeyStore {
    /// Room for the keys of so many issuers, in the order of the configuration.
    pub fn new(issuers: usize) -> Self {
        Self { slots: (0..issuers).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// The keys of an issuer, where there are any.
    pub fn get(&self, issuer: usize) -> Option<Arc<Loaded>> {
        self.slots.get(issuer)?.load_full()
    }

    /// A new set: removed keys are gone at once.
    pub fn replace(&self, issuer: usize, set: KeySet, now: u64) {
        let loaded = Loaded { set, loaded_at: AtomicU64::new(now), stale_since: AtomicU64::new(FRESH) };
        if let Some(slot) = self.slots.get(issuer) {
            slot.store(Some(Arc::new(loaded)));
        }
    }

    /// The key server confirmed the set (304).
    pub fn confirm(&self, issuer: usize, now: u64) {
        if let Some(loaded) = self.get(issuer) {
            loaded.loaded_at.store(now, Ordering::Relaxed);
            loaded.stale_since.store(FRESH, Ordering::Relaxed);
        }
    }

    /// A fetch failed: `max_stale` counts from the first failure on.
    pub fn fail(&self, issuer: usize, now: u64) {
        if let Some(loaded) = self.get(issuer) {
            let _first = loaded.stale_since.compare_exchange(FRESH, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Seconds since the keys of an issuer were confirmed.
    pub fn age(&self, issuer: usize, now: u64) -> Option<u64> {
        self.get(issuer).map(|loaded| now.saturating_sub(loaded.loaded_at()))
    }
}

#[cfg(test)]
mod tests;
