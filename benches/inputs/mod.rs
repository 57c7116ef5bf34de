//! What the hot functions are given, for both benches that look at them.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::SecretString;
use serde_json::{Value, json};
use siogate::auth::claims::HeaderMapping;
use siogate::auth::keys::KeyStore;
use siogate::auth::rules::{IssuerRules, Material};
use siogate::auth::verifier::Verifier;
use siogate::config::model::issuers::Issuer;
use siogate::protocol::engineio::Packet;
use siogate::protocol::frame::{self, Opcode, Writer};

pub const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://id.example.test/realms/main";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A Socket.IO event of so many bytes.
pub fn event(size: usize) -> String {
    format!("42[\"m\",\"{}\"]", "x".repeat(size - 10))
}

/// 64 KiB of traffic, or one frame where that is longer.
pub fn traffic(size: usize, writer: Writer) -> Vec<u8> {
    let mask = (writer == Writer::Client).then_some([0x37, 0xfa, 0x21, 0x3d]);
    let mut wire = Vec::new();
    for _ in 0..(65_536 / size).max(1) {
        frame::encode(&mut wire, Opcode::Text, event(size).as_bytes(), mask);
    }
    wire
}

/// What a busy poll carries: ten events.
pub fn packets() -> Vec<Packet> {
    (0..10).map(|_| Packet::text(event(64))).collect()
}

/// A token, and the verifier that accepts it.
pub struct Minted {
    pub token: String,
    pub verifier: Verifier,
}

impl Minted {
    pub fn rsa() -> Self {
        Self::asymmetric(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256)
    }

    pub fn asymmetric(kind: &'static rcgen::SignatureAlgorithm, algorithm: Algorithm) -> Self {
        // An error says that one is installed already, which is as good.
        let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let (private, public) = (pair.serialize_pem(), pair.public_key_pem());
        let (private, public) = (private.as_bytes(), public.as_bytes());
        let (private, public) = match algorithm {
            Algorithm::ES256 => (EncodingKey::from_ec_pem(private), DecodingKey::from_ec_pem(public)),
            Algorithm::EdDSA => (EncodingKey::from_ed_pem(private), DecodingKey::from_ed_pem(public)),
            _ => (EncodingKey::from_rsa_pem(private), DecodingKey::from_rsa_pem(public)),
        };
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&public.unwrap(), None).unwrap()).unwrap();
        jwk["kid"] = "one".into();
        let jwks = json!({"keys": [jwk]}).to_string().into_bytes();
        Self::new(algorithm, &private.unwrap(), &Material::Jwks(jwks))
    }

    pub fn secret() -> Self {
        let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let material = Material::Secrets(vec![SecretString::from(SECRET)]);
        Self::new(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &material)
    }

    fn new(algorithm: Algorithm, key: &EncodingKey, material: &Material) -> Self {
        let issuer = Issuer {
            issuer: Some(ISSUER.into()),
            audience: vec!["chat".into()],
            algorithms: vec![format!("{algorithm:?}")],
            ..Issuer::default()
        };
        let built = IssuerRules::build(&issuer, material).unwrap();
        let store = KeyStore::new(1);
        store.replace(0, built.keys.unwrap(), NOW);
        let mut header = Header::new(algorithm);
        header.kid = Some("one".into());
        let token = jsonwebtoken::encode(&header, &claims(), key).unwrap();
        Self { token, verifier: Verifier::new(vec![built.rules], store) }
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "user-000123", "aud": "chat", "iat": NOW - 60, "exp": NOW + 3600,
        "jti": "5b1946ac-92492d23-47c6235b-4d261118", "name": "Ada Example", "email": "user-000123@example.test",
        "roles": ["member", "editor"], "scope": "openid profile email", "org": {"id": 42, "name": "Example, Inc."},
    })
}

/// Seven headers for the backend.
pub fn mapping() -> HeaderMapping {
    let headers = [
        ("x-auth-subject", "sub"),
        ("x-auth-issuer", "iss"),
        ("x-auth-expires", "exp"),
        ("x-auth-session", "$session"),
        ("x-auth-roles", "roles"),
        ("x-auth-org", "org.name"),
        ("x-auth-claims", "$claims"),
    ];
    HeaderMapping::compile(headers, &["name", "email"]).unwrap()
}
