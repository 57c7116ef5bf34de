//! Keys generated for the test run, and tokens of any shape signed with them.

use crate::auth::keys::{KeySet, KeyStore};
use crate::auth::rules::{IssuerRules, Material};
use crate::auth::verifier::Verifier;
use crate::config::model::issuers::Issuer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};
use std::str::FromStr;
use std::sync::LazyLock;

/// The time of every test, in unix seconds.
pub const NOW: u64 = 1_700_000_000;

/// The issuer of most tests.
pub const ISSUER: &str = "https://login.example.com/";

/// A shared secret long enough for every HMAC.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Two RSA keys, and one of each other kind.
pub static RSA: LazyLock<Pair> = LazyLock::new(|| Pair::generate("rsa-1", "RS256"));
pub static OTHER_RSA: LazyLock<Pair> = LazyLock::new(|| Pair::generate("rsa-2", "RS256"));
pub static P256: LazyLock<Pair> = LazyLock::new(|| Pair::generate("p256", "ES256"));
pub static P384: LazyLock<Pair> = LazyLock::new(|| Pair::generate("p384", "ES384"));
pub static ED: LazyLock<Pair> = LazyLock::new(|| Pair::generate("ed", "EdDSA"));

/// base64url without padding.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key with what others know of it.
pub struct Pair {
    pub kid: &'static str,
    pub alg: &'static str,
    pub private_pem: String,
    pub public_pem: String,
    private: EncodingKey,
    jwk: Jwk,
}

impl Pair {
    fn generate(kid: &'static str, alg: &'static str) -> Self {
        let (kind, family): (_, &str) = match alg {
            "ES256" => (&rcgen::PKCS_ECDSA_P256_SHA256, "ec"),
            "ES384" => (&rcgen::PKCS_ECDSA_P384_SHA384, "ec"),
            "EdDSA" => (&rcgen::PKCS_ED25519, "ed"),
            _ => (&rcgen::PKCS_RSA_SHA256, "rsa"),
        };
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let (private_pem, public_pem) = (pair.serialize_pem(), pair.public_key_pem());
        let (secret, public) = (private_pem.as_bytes(), public_pem.as_bytes());
        let (private, public) = match family {
            "ec" => (EncodingKey::from_ec_pem(secret), DecodingKey::from_ec_pem(public)),
            "ed" => (EncodingKey::from_ed_pem(secret), DecodingKey::from_ed_pem(public)),
            _ => (EncodingKey::from_rsa_pem(secret), DecodingKey::from_rsa_pem(public)),
        };
        let jwk = Jwk::from_decoding_key(&public.unwrap(), None).unwrap();
        Self { kid, alg, private_pem, public_pem, private: private.unwrap(), jwk }
    }

    /// The bare public key: `kty` and its numbers.
    pub fn bare(&self) -> Value {
        serde_json::to_value(&self.jwk).unwrap()
    }

    /// The public key as an identity provider publishes it.
    pub fn jwk(&self) -> Value {
        with(self.bare(), json!({"kid": self.kid, "alg": self.alg, "use": "sig"}))
    }

    /// The signature of `alg` over a message.
    pub fn signature(&self, alg: &str, message: &str) -> String {
        let alg = Algorithm::from_str(if alg == "Ed25519" { "EdDSA" } else { alg }).unwrap();
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, alg).unwrap()
    }

    /// A token of exactly this header and payload, signed with `alg`.
    pub fn raw(&self, alg: &str, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", b64(header), b64(payload));
        format!("{message}.{}", self.signature(alg, &message))
    }

    /// A token with an ordinary header and these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.with_header(json!({}), claims)
    }

    /// A token with further or other members in its header.
    pub fn with_header(&self, header: Value, claims: &Value) -> String {
        let header = with(json!({"alg": self.alg, "kid": self.kid, "typ": "JWT"}), header);
        self.raw(self.alg, &header.to_string(), &claims.to_string())
    }
}

/// One object's members over another's; null takes a member away.
pub fn with(mut base: Value, more: Value) -> Value {
    let (Value::Object(base_members), Value::Object(more)) = (&mut base, more) else { panic!("two objects") };
    for (name, value) in more {
        if value.is_null() {
            base_members.remove(&name);
        } else {
            base_members.insert(name, value);
        }
    }
    base
}

/// Good claims, with changes.
pub fn claims(changes: Value) -> Value {
    with(json!({"iss": ISSUER, "sub": "alice", "aud": "chat", "iat": NOW - 60, "exp": NOW + 600}), changes)
}

/// A token by shared secret; `header` changes the ordinary one.
pub fn hmac_token(alg: &str, secret: &[u8], header: Value, claims: &Value) -> String {
    let header = with(json!({"alg": alg, "typ": "JWT"}), header);
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let key = EncodingKey::from_secret(secret);
    let alg = Algorithm::from_str(alg).unwrap();
    format!("{message}.{}", jsonwebtoken::crypto::sign(message.as_bytes(), &key, alg).unwrap())
}

/// A document of keys.
pub fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({"keys": keys}).to_string().into_bytes()
}

/// The section of [`ISSUER`] for fetched keys.
pub fn issuer(algorithms: &[&str]) -> Issuer {
    Issuer {
        issuer: Some(ISSUER.into()),
        audience: vec!["chat".into()],
        algorithms: algorithms.iter().map(ToString::to_string).collect(),
        ..Issuer::default()
    }
}

/// A section for a shared secret without `iss`.
pub fn secret_issuer(algorithms: &[&str]) -> Issuer {
    Issuer { issuer: None, audience: Vec::new(), ..issuer(algorithms) }
}

/// The material of [`secret_issuer`].
pub fn secret(secret: &str) -> Material {
    Material::Secrets(vec![secret.into()])
}

/// A verifier and the store behind it; fetched keys are still to come.
pub fn verifier(sections: &[(Issuer, Material)]) -> (Verifier, KeyStore) {
    let store = KeyStore::new(sections.len());
    let mut rules = Vec::new();
    for (index, (section, material)) in sections.iter().enumerate() {
        let built = IssuerRules::build(section, material).unwrap();
        if let Some(set) = built.keys {
            store.replace(index, set, NOW);
        }
        rules.push(built.rules);
    }
    (Verifier::new(rules, store.clone()), store)
}

/// A verifier of [`ISSUER`] with fetched keys.
pub fn fetched(section: Issuer, keys: &[Value]) -> Verifier {
    let (verifier, store) = verifier(&[(section, Material::Remote)]);
    let allowed = verifier.issuers()[0].algorithms();
    store.replace(0, KeySet::from_jwks(&jwks(keys), allowed).unwrap().0, NOW);
    verifier
}

/// All kinds of keys and algorithms of one issuer.
pub fn everything() -> Verifier {
    let names = ["RS256", "ES256", "ES384", "EdDSA"];
    fetched(issuer(&names), &[RSA.jwk(), OTHER_RSA.jwk(), P256.jwk(), P384.jwk(), ED.jwk()])
}
