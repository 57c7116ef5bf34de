//! Tokens of every kind, and the keys that sign them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub const ISSUER: &str = "https://login.test/";
pub const AUDIENCE: &str = "chat";
/// The shared secret of the gate's default issuer in these tests.
pub const SECRET: &str = "a secret of the tests, long enough for HS256";

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Good claims for ten minutes.
pub fn claims(sub: &str) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "iat": now(), "exp": now() + 600})
}

/// Good claims with one changed; null takes it away.
pub fn changed(sub: &str, claim: &str, value: Value) -> Value {
    let mut claims = claims(sub);
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(claim),
        value => claims.as_object_mut().unwrap().insert(claim.into(), value),
    };
    claims
}

/// A good token by shared secret.
pub fn token(sub: &str) -> String {
    hs256(&claims(sub))
}

pub fn expired(sub: &str) -> String {
    hs256(&changed(sub, "exp", json!(now() - 60)))
}

/// A good token that is good no longer than this.
pub fn short(sub: &str, seconds: u64) -> String {
    hs256(&changed(sub, "exp", json!(now() + seconds)))
}

pub fn hs256(claims: &Value) -> String {
    typed("JWT", claims)
}

/// Of another type.
pub fn typed(typ: &str, claims: &Value) -> String {
    signed(json!({"alg": "HS256", "typ": typ}), claims, |message| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::sign(&key, message).as_ref().to_vec()
    })
}

/// The same token with another signature.
pub fn tampered(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    // The first character: the last one holds bits that decoders check for zero.
    let (first, rest) = signature.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    format!("{message}.{other}{rest}")
}

fn signed(header: Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", b64(signature))
}

/// A key of an issuer that publishes its keys.
pub struct Key {
    pub kid: String,
    pair: Pair,
}

enum Pair {
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    pub fn es256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.into(), pair: Pair::P256(pair) }
    }

    pub fn rs256(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())) }
    }

    pub fn alg(&self) -> &'static str {
        match self.pair {
            Pair::P256(_) => "ES256",
            Pair::Rsa(_) => "RS256",
        }
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.typed("JWT", claims)
    }

    /// Of another type.
    pub fn typed(&self, typ: &str, claims: &Value) -> String {
        signed(json!({"alg": self.alg(), "typ": typ, "kid": self.kid}), claims, |message| {
            let random = SystemRandom::new();
            match &self.pair {
                Pair::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
                Pair::Rsa(pair) => {
                    let mut out = vec![0; pair.public_modulus_len()];
                    pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut out).unwrap();
                    out
                }
            }
        })
    }

    /// The public key as an identity provider publishes it.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..65])})
            }
            Pair::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
            }
        };
        jwk["kid"] = self.kid.clone().into();
        jwk["alg"] = self.alg().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The private key of an elliptic curve, as PKCS#8.
    pub fn pkcs8_pem(&self) -> String {
        let Pair::P256(pair) = &self.pair else { panic!("an elliptic curve's") };
        let text = STANDARD.encode(pair.to_pkcs8v1().unwrap());
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1): a sequence of two integers.
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (len, at) = match der[1] {
            n @ 0..=127 => (usize::from(n), 2),
            n => {
                let bytes = &der[2..2 + usize::from(n & 127)];
                (bytes.iter().fold(0, |len, b| len << 8 | usize::from(*b)), 2 + bytes.len())
            }
        };
        (&der[at..at + len], &der[at + len..])
    }
    let (sequence, _) = element(der);
    let (n, rest) = element(sequence);
    let (e, _) = element(rest);
    let unsigned = |bytes: &[u8]| bytes.strip_prefix(&[0]).unwrap_or(bytes).to_vec();
    (unsigned(n), unsigned(e))
}

/// Claims of a compact token whose signature nobody looked at.
pub fn read_claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Claims of a token by a published key: what a backend would do that trusts nothing else.
pub fn verify(token: &str, jwks: &Value) -> Option<Value> {
    let mut parts = token.split('.');
    let (header, payload, sign) = (parts.next()?, parts.next()?, parts.next()?);
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let jwk = jwks["keys"].as_array()?.iter().find(|key| key["kid"] == head["kid"] && key["alg"] == head["alg"])?;
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default()).unwrap_or_default();
    let (algorithm, key): (&dyn signature::VerificationAlgorithm, _) = match head["alg"].as_str()? {
        "EdDSA" => (&signature::ED25519, number("x")),
        "ES256" => (&signature::ECDSA_P256_SHA256_FIXED, [vec![4], number("x"), number("y")].concat()),
        _ => return None,
    };
    let message = format!("{header}.{payload}");
    let key = signature::UnparsedPublicKey::new(algorithm, key);
    key.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(sign).ok()?).ok()?;
    Some(read_claims(token))
}
