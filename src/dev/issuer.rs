//! A token issuer with one ES256 key that lives as long as the process, and mints bad tokens on request.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The audience of every good token.
pub const AUDIENCE: &str = "dev";

/// Bounds of a token's life, in seconds.
pub const LIFETIMES: std::ops::RangeInclusive<u64> = 1..=3600;

/// What is wrong with a token, if anything.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Nothing.
    #[default]
    Good,
    /// `exp` is a minute ago.
    Expired,
    /// Made for somebody else.
    WrongAudience,
    /// Its subject was changed after it was signed.
    Tampered,
    /// `alg: none`: not signed at all.
    None,
}

/// What `POST /token` is asked for, as JSON or as a form.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Order {
    /// The subject.
    pub sub: Option<String>,
    /// A name to show.
    pub name: Option<String>,
    /// Seconds until `exp`.
    pub lifetime: Option<u64>,
    /// What to get wrong.
    pub variant: Variant,
}

impl Order {
    /// Reads the body by its content type.
    ///
    /// # Errors
    /// A sentence for the person at the other end.
    pub fn read(content_type: &str, body: &[u8]) -> Result<Self, String> {
        let order: Self = match content_type.split(';').next().map(str::trim) {
            Some("application/json") => serde_json::from_slice(body),
            Some("application/x-www-form-urlencoded") => serde_json::from_value(form(body)?),
            _ => return Err("send application/json or application/x-www-form-urlencoded".into()),
        }
        .map_err(|error| error.to_string())?;
        for (field, value) in [("sub", &order.sub), ("name", &order.name)] {
            if value.as_ref().is_some_and(|v| v.is_empty() || v.len() > 128 || v.chars().any(char::is_control)) {
                return Err(format!("{field}: 1 to 128 bytes without control characters"));
            }
        }
        match order.lifetime {
            Some(seconds) if !LIFETIMES.contains(&seconds) => Err("lifetime: 1 to 3600 seconds".into()),
            _ => Ok(order),
        }
    }
}

/// A form as a JSON object; the last of two equal names wins, unknown ones (`grant_type`) are let be.
fn form(body: &[u8]) -> Result<Value, String> {
    let body = std::str::from_utf8(body).map_err(|_| "the form is not UTF-8".to_owned())?;
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().map(String::from).map_err(|_| "the form is not UTF-8".to_owned())
    };
    let mut fields = serde_json::Map::new();
    for pair in body.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        let value = match name.as_str() {
            "lifetime" => {
                value.parse::<u64>().map(Value::from).map_err(|_| "lifetime: 1 to 3600 seconds".to_owned())?
            }
            _ => Value::from(value),
        };
        fields.insert(name, value);
    }
    Ok(Value::Object(fields))
}

/// The key could not be made or used.
#[derive(Debug, thiserror::Error)]
#[error("the system could not make a signing key")]
pub struct KeyError;

/// The issuer.
pub struct Issuer {
    url: String,
    key: EcdsaKeyPair,
    kid: String,
    lifetime: u64,
}

impl Issuer {
    /// Makes a key. `url` is where the issuer is served, `lifetime` what a token gets that asks for none.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(url: String, lifetime: Duration) -> Result<Self, KeyError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError)?;
        let mut issuer = Self { url, key, kid: String::new(), lifetime: lifetime.as_secs() };
        let (x, y) = issuer.point();
        // RFC 7638: the required members, in this order, without blanks.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        issuer.kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Ok(issuer)
    }

    /// `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `/.well-known/openid-configuration`.
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/jwks.json", self.url),
            "token_endpoint": format!("{}/token", self.url),
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/jwks.json`.
    pub fn jwks(&self) -> Value {
        let (x, y) = self.point();
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": x, "y": y,
        }] })
    }

    /// A token, with the seconds it has to live.
    ///
    /// # Errors
    /// No randomness.
    pub fn mint(&self, order: &Order, now: u64) -> Result<(String, u64), KeyError> {
        let lifetime = order.lifetime.unwrap_or(self.lifetime);
        let mut jti = [0_u8; 12];
        rand::fill(&mut jti).map_err(|_| KeyError)?;
        let sub = order.sub.as_deref().unwrap_or("alice");
        let mut claims = json!({
            "iss": self.url,
            "sub": sub,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now.saturating_add(lifetime),
            "jti": URL_SAFE_NO_PAD.encode(jti),
            "name": order.name.as_deref().unwrap_or(sub),
        });
        let mut header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.kid });
        let mut left = lifetime;
        match order.variant {
            Variant::Good | Variant::Tampered => {}
            Variant::Expired => {
                claims["iat"] = now.saturating_sub(lifetime.saturating_add(60)).into();
                claims["exp"] = now.saturating_sub(60).into();
                left = 0;
            }
            Variant::WrongAudience => claims["aud"] = "another-service".into(),
            Variant::None => header = json!({ "alg": "none", "typ": "JWT" }),
        }
        let header = encode(&header);
        let signed = format!("{header}.{}", encode(&claims));
        let signature = match order.variant {
            Variant::None => String::new(),
            _ => {
                let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| KeyError)?;
                URL_SAFE_NO_PAD.encode(signature)
            }
        };
        if order.variant == Variant::Tampered {
            claims["sub"] = "administrator".into();
            return Ok((format!("{header}.{}.{signature}", encode(&claims)), left));
        }
        Ok((format!("{signed}.{signature}"), left))
    }

    /// The public point's coordinates. SEC 1: 0x04, then x and y of 32 bytes each.
    fn point(&self) -> (String, String) {
        let point = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        (part(1..33), part(33..65))
    }
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::errors::ErrorKind;
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

    const NOW: u64 = 1_800_000_000;

    fn issuer() -> Issuer {
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Issuer::new("http://127.0.0.1:8081".into(), Duration::from_secs(20)).unwrap()
    }

    fn verify(issuer: &Issuer, variant: Variant) -> Result<Value, ErrorKind> {
        let order = Order { sub: Some("alice".into()), variant, ..Order::default() };
        let (token, _) = issuer.mint(&order, NOW).unwrap();
        let jwks: JwkSet = serde_json::from_value(issuer.jwks()).unwrap();
        let header = decode_header(&token).map_err(|e| e.into_kind())?;
        let key = DecodingKey::from_jwk(jwks.find(header.kid.as_ref().unwrap()).unwrap()).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.validate_exp = false; // NOW is not now
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[issuer.url()]);
        decode::<Value>(&token, &key, &rules).map(|data| data.claims).map_err(|e| e.into_kind())
    }

    #[test]
    fn a_good_token_verifies_under_the_published_key() {
        let issuer = issuer();
        let claims = verify(&issuer, Variant::Good).unwrap();
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["iat"], NOW);
        assert_eq!(claims["exp"], NOW + 20);
    }

    #[test]
    fn every_bad_token_is_bad_in_its_own_way() {
        let issuer = issuer();
        assert_eq!(verify(&issuer, Variant::Expired).unwrap()["exp"], NOW - 60);
        assert_eq!(verify(&issuer, Variant::WrongAudience).unwrap_err(), ErrorKind::InvalidAudience);
        assert_eq!(verify(&issuer, Variant::Tampered).unwrap_err(), ErrorKind::InvalidSignature);
        assert!(verify(&issuer, Variant::None).is_err());
    }

    #[test]
    fn two_tokens_in_one_second_differ() {
        let issuer = issuer();
        let order = Order::default();
        assert_ne!(issuer.mint(&order, NOW).unwrap(), issuer.mint(&order, NOW).unwrap());
    }

    #[test]
    fn an_order_is_read_from_json_and_from_a_form() {
        let json = br#"{"sub":"bob","name":"Bob B","lifetime":7,"variant":"wrong_audience"}"#;
        let form = b"grant_type=client_credentials&sub=bob&name=Bob+%42&lifetime=7&variant=wrong_audience";
        let expected = Order {
            sub: Some("bob".into()),
            name: Some("Bob B".into()),
            lifetime: Some(7),
            variant: Variant::WrongAudience,
        };
        assert_eq!(Order::read("application/json; charset=utf-8", json), Ok(expected.clone()));
        assert_eq!(Order::read("application/x-www-form-urlencoded", form), Ok(expected));
        assert_eq!(Order::read("application/json", b"{}"), Ok(Order::default()));
    }

    #[test]
    fn an_order_out_of_bounds_is_refused() {
        for bad in [
            r#"{"lifetime":0}"#,
            r#"{"lifetime":3601}"#,
            r#"{"lifetime":-1}"#,
            r#"{"lifetime":1.5}"#,
            r#"{"sub":""}"#,
            r#"{"sub":"a\nb"}"#,
            r#"{"sub":7}"#,
            r#"{"variant":"great"}"#,
            "[]x",
            "",
        ] {
            assert!(Order::read("application/json", bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Order::read("application/json", format!(r#"{{"sub":"{}"}}"#, "a".repeat(129)).as_bytes()).is_err());
        assert!(Order::read("application/x-www-form-urlencoded", b"lifetime=soon").is_err());
        assert!(Order::read("text/plain", b"{}").is_err());
    }

    #[test]
    fn discovery_names_the_issuer_itself() {
        let issuer = issuer();
        assert_eq!(issuer.discovery()["issuer"], issuer.url());
        assert_eq!(issuer.discovery()["jwks_uri"], "http://127.0.0.1:8081/jwks.json");
    }
}
