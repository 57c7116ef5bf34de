//! The identity provider: an RSA key made for this run, and the tokens of its users.

use crate::Res;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// `iss`
pub const ISSUER: &str = "https://id.example.test/realms/main";
/// `aud`
pub const AUDIENCE: &str = "chat";
const KID: &str = "bench-rs256";

/// A user and the token that proves it.
#[derive(Clone)]
pub struct Credential {
    pub user: String,
    pub token: String,
}

/// Signs tokens with a key that nobody had before.
pub struct Issuer {
    key: RsaKeyPair,
}

impl Issuer {
    pub fn new() -> Res<Self> {
        Ok(Self { key: RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| "no RSA key could be made")? })
    }

    /// The public key for proxies that read PEM.
    pub fn pem(&self) -> Res<String> {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().map_err(|_| "no DER")?;
        let text = STANDARD.encode(der.as_ref());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (i, c) in text.chars().enumerate() {
            if i > 0 && i % 64 == 0 {
                pem.push('\n');
            }
            pem.push(c);
        }
        pem.push_str("\n-----END PUBLIC KEY-----\n");
        Ok(pem)
    }

    /// The public key as identity providers publish it.
    pub fn jwks(&self) -> Res<String> {
        // An error says that one is installed already, which is as good.
        let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let key = DecodingKey::from_rsa_pem(self.pem()?.as_bytes())?;
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&key, None)?)?;
        jwk["kid"] = KID.into();
        jwk["alg"] = "RS256".into();
        jwk["use"] = "sig".into();
        Ok(json!({"keys": [jwk]}).to_string())
    }

    /// A token whose claims are as many as usual, with changes.
    pub fn token(&self, user: &str, changes: &Value) -> Res<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut claims = json!({
            "iss": ISSUER, "sub": user, "aud": AUDIENCE, "iat": now, "exp": now + 3600,
            "jti": format!("{user}-b1946ac92492d2347c6235b4d2611184"),
            "name": "Ada Example", "email": format!("{user}@example.test"), "roles": ["member", "editor"],
            "scope": "openid profile email",
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": KID});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_| "the key does not sign")?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    pub fn credential(&self, user: String) -> Res<Credential> {
        Ok(Credential { token: self.token(&user, &json!({}))?, user })
    }
}

/// What the load logs in with.
pub struct Tokens {
    /// One user who comes again and again.
    pub one: Credential,
    users: Vec<Credential>,
}

impl Tokens {
    /// Signs them on all cores.
    pub fn make(issuer: &Issuer, count: usize) -> Res<Arc<Self>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let part = count.div_ceil(threads);
        let users: Vec<Res<Vec<Credential>>> = std::thread::scope(|scope| {
            let work = |from: usize| {
                move || (from..(from + part).min(count)).map(|n| issuer.credential(format!("user-{n:06}"))).collect()
            };
            let running: Vec<_> = (0..threads).map(|i| scope.spawn(work(i * part))).collect();
            running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a signing thread failed".into()))).collect()
        });
        let users = users.into_iter().collect::<Res<Vec<_>>>()?.concat();
        Ok(Arc::new(Self { one: issuer.credential("regular".into())?, users }))
    }

    /// The n-th user; each is to be asked for once, or the "new" token would be an old one.
    pub fn fresh(&self, n: usize) -> Res<&Credential> {
        Ok(self.users.get(n).ok_or("more sessions than tokens")?)
    }

    /// Users who come back, in turn.
    pub fn again(&self, n: usize) -> &Credential {
        self.users.get(n % self.users.len().clamp(1, 1000)).unwrap_or(&self.one)
    }
}
