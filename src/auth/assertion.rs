//! The signed assertion: a short JWT by the gate's own key that says to the backend who is calling.
//!
//! Plain headers can be written by anybody who reaches the backend; this one cannot. It is signed anew for each
//! upstream request, lives at most 60 seconds and names the session it was made for.

use crate::auth::identity::Identity;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType, Jwk,
    JwkSet, KeyAlgorithm, OctetKeyPairParameters, OctetKeyPairType, PublicKeyUse, ThumbprintHash,
};
use serde_json::{Map, Value, json};
use std::fmt;

/// How long an assertion is good, in seconds.
pub const LIFETIME: u64 = 60;

/// The `typ` of an assertion, so that it is never taken for another kind of token.
pub const TYPE: &str = "siogate-assertion+jwt";

/// Why there is no signer or no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// The file is not one PEM private key.
    #[error("no PEM private key was found; expected PKCS#8: openssl genpkey -algorithm ed25519")]
    NotPem,
    /// The key is neither Ed25519 nor P-256.
    #[error("the private key is neither Ed25519 nor P-256")]
    UnsupportedKey,
    /// The cryptographic library failed.
    #[error("the assertion could not be signed")]
    Failed,
}

enum Private {
    Ed25519(Ed25519KeyPair),
    P256(Box<EcdsaKeyPair>),
}

/// The gate's own key.
pub struct Signer {
    key: Private,
    jwk: Jwk,
    head: String,
    issuer: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.jwk.common.key_id).finish_non_exhaustive()
    }
}

impl Signer {
    /// From a PEM file with one Ed25519 or P-256 private key, PKCS#8 or SEC 1.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AssertionError> {
        let der = private_der(pem).ok_or(AssertionError::NotPem)?;
        if let Ok(key) = Ed25519KeyPair::from_pkcs8(&der) {
            return Self::build(Private::Ed25519(key));
        }
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| AssertionError::UnsupportedKey)
            .and_then(|key| Self::build(Private::P256(Box::new(key))))
    }

    /// A new Ed25519 key, gone with the process.
    ///
    /// # Errors
    /// Where no random numbers are to be had.
    pub fn generate() -> Result<Self, AssertionError> {
        Ed25519KeyPair::generate()
            .map_err(|_| AssertionError::Failed)
            .and_then(|key| Self::build(Private::Ed25519(key)))
    }

    fn build(key: Private) -> Result<Self, AssertionError> {
        let (algorithm, alg) = match &key {
            Private::Ed25519(pair) => (
                AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
                    key_type: OctetKeyPairType::OctetKeyPair,
                    curve: EllipticCurve::Ed25519,
                    x: URL_SAFE_NO_PAD.encode(pair.public_key()),
                }),
                KeyAlgorithm::EdDSA,
            ),
            Private::P256(pair) => {
                // 0x04, x, y: SEC 1 section 2.3.3.
                let point = pair.public_key().as_ref();
                let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
                    return Err(AssertionError::UnsupportedKey);
                };
                let curve = EllipticCurveKeyParameters {
                    key_type: EllipticCurveKeyType::EC,
                    curve: EllipticCurve::P256,
                    x: URL_SAFE_NO_PAD.encode(x),
                    y: URL_SAFE_NO_PAD.encode(y),
                };
                (AlgorithmParameters::EllipticCurve(curve), KeyAlgorithm::ES256)
            }
        };
        let mut jwk = Jwk { common: CommonParameters::default(), algorithm };
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| AssertionError::Failed)?;
        let header = json!({"alg": alg.to_string(), "kid": kid, "typ": TYPE});
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_algorithm = Some(alg);
        jwk.common.key_id = Some(kid);
        let head = URL_SAFE_NO_PAD.encode(header.to_string());
        Ok(Self { key, jwk, head, issuer: "siogate".into() })
    }

    /// With another `iss` than `siogate`.
    #[must_use]
    pub fn with_issuer(mut self, issuer: &str) -> Self {
        self.issuer = issuer.into();
        self
    }

    /// Says to `aud` who is calling in the session `sid` (left out where empty), with the `mapped` claims.
    ///
    /// `sub` is unique per `idp` only: the user's issuer stands there, since `iss` is the gate.
    ///
    /// # Errors
    /// Where the library fails: no random numbers.
    pub fn sign(
        &self,
        identity: &Identity,
        sid: &str,
        aud: &str,
        mapped: &[(String, Value)],
        now: u64,
    ) -> Result<String, AssertionError> {
        let mut jti = [0_u8; 16];
        rand::fill(&mut jti).map_err(|_| AssertionError::Failed)?;
        let mut claims: Map<String, Value> = mapped.iter().cloned().collect();
        // After the mapped ones: nothing of a token can stand for what the gate says itself.
        claims.insert("iss".into(), self.issuer.as_str().into());
        claims.insert("sub".into(), (&*identity.subject).into());
        claims.insert("aud".into(), aud.into());
        claims.insert("iat".into(), now.into());
        claims.insert("exp".into(), now.saturating_add(LIFETIME).min(identity.ends_at).into());
        claims.insert("jti".into(), URL_SAFE_NO_PAD.encode(jti).into());
        for (name, value) in [("sid", sid), ("idp", &*identity.issuer)] {
            claims.remove(name);
            if !value.is_empty() {
                claims.insert(name.into(), value.into());
            }
        }
        let body = serde_json::to_vec(&claims).map_err(|_| AssertionError::Failed)?;
        let mut token = format!("{}.{}", self.head, URL_SAFE_NO_PAD.encode(body));
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }

    fn signature(&self, message: &[u8]) -> Result<String, AssertionError> {
        let signature = match &self.key {
            Private::Ed25519(key) => key.try_sign(message),
            Private::P256(key) => key.sign(&SystemRandom::new(), message),
        };
        signature.map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| AssertionError::Failed)
    }

    /// The public key as a JWKS document, for `/.well-known/siogate/jwks.json`. Its `kid` is the RFC 7638 thumbprint.
    pub fn jwks(&self) -> String {
        serde_json::to_string(&JwkSet { keys: vec![self.jwk.clone()] }).unwrap_or_default()
    }
}

/// The bytes of the one private key of a PEM file. Parameters before an EC key are passed over.
fn private_der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let label =
        ["PRIVATE KEY", "EC PRIVATE KEY"].into_iter().find(|l| text.contains(&format!("-----BEGIN {l}-----")))?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, after) = rest.split_once(&format!("-----END {label}-----"))?;
    if after.contains("-----BEGIN ") {
        return None;
    }
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests;
