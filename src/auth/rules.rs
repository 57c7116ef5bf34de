//! What an issuer's tokens must say, compiled from one `[[issuer]]` section.
//!
//! Every check of a claim stands here and none is left to `jsonwebtoken`, whose `Validation` lets an
//! absent `iss` or `aud`, an `iss` array and a future `nbf` pass by default and reads the clock itself.

use crate::auth::claims;
use crate::auth::identity::{Claims, Identity};
use crate::auth::jose::{Algorithm, Fault, Header, media_type, shown};
use crate::auth::keys::{KeySet, KeysError, Skipped};
use crate::auth::logout;
use crate::auth::statement::Form;
use crate::config::model::issuers::Issuer;
use crate::reason::Reason;
use secrecy::SecretString;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Longest leeway that can be configured, in seconds.
pub const MAX_LEEWAY: u64 = 300;

/// No subject, `jti` or `sid` is longer than this.
pub(super) const MAX_NAME: usize = 1024;

/// Tokens that are statements to somebody else and never credentials.
const NEVER: [&str; 2] = ["application/logout+jwt", "application/secevent+jwt"];

/// What the issuer's keys are made of; the caller has read files and environment.
pub enum Material {
    /// Shared secrets, the newest first.
    Secrets(Vec<SecretString>),
    /// The content of `key_file`.
    Pem(Vec<u8>),
    /// The content of `jwks_file`.
    Jwks(Vec<u8>),
    /// Fetched by `upstream::jwks`.
    Remote,
}

/// What is wrong with an `[[issuer]]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key inside the section, such as `algorithms`.
    pub key: &'static str,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// The rules, and the keys where they are static.
#[derive(Debug)]
pub struct Built {
    /// The rules.
    pub rules: IssuerRules,
    /// Static keys, to be put into the store at the issuer's place.
    pub keys: Option<KeySet>,
    /// Keys of a JWKS file that are not used.
    pub skipped: Vec<Skipped>,
}

/// What one issuer's tokens must say.
#[derive(Clone, Debug)]
pub struct IssuerRules {
    name: Option<Arc<str>>,
    algorithms: Vec<Algorithm>,
    audience: Vec<String>,
    leeway: u64,
    subject: String,
    types: Vec<String>,
    max_age: Option<u64>,
    max_stale: u64,
    secret: bool,
    remote: bool,
    logout: Option<Form>,
}

impl IssuerRules {
    /// Compiles a section.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn build(issuer: &Issuer, material: &Material) -> Result<Built, Vec<Problem>> {
        let secret = matches!(material, Material::Secrets(_));
        let mut problems = Vec::new();
        let mut problem = |key, message: String| problems.push(Problem { key, message });
        match issuer.issuer.as_deref() {
            None if !secret => problem("issuer", "is required unless a shared secret is used".into()),
            Some("") => problem("issuer", "must not be empty".into()),
            _ => {}
        }
        let algorithms = algorithms(issuer, secret).unwrap_or_else(|message| {
            problem("algorithms", message);
            Vec::new()
        });
        if issuer.leeway.as_secs() > MAX_LEEWAY {
            problem("leeway", format!("must be at most {MAX_LEEWAY}s"));
        }
        if issuer.subject.is_empty() {
            problem("subject", "must name a claim, such as \"sub\" or \"user.id\"".into());
        }
        if issuer.audience.iter().any(String::is_empty) {
            problem("audience", "must not hold an empty name".into());
        }
        let types: Vec<_> = issuer.typ.iter().map(|typ| media_type(typ)).collect();
        if types.iter().any(|typ| NEVER.contains(&typ.as_str())) {
            problem("typ", "logout and security-event tokens are never credentials".into());
        }
        let mut skipped = Vec::new();
        // Without algorithms the keys would only add problems that are none.
        let keys = if algorithms.is_empty() { Ok(None) } else { keys(material, &algorithms, &mut skipped) };
        let keys = keys.unwrap_or_else(|error| {
            problem(material_key(material, issuer), error.to_string());
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let rules = Self {
            name: issuer.issuer.as_deref().map(Arc::from),
            algorithms,
            audience: issuer.audience.clone(),
            leeway: issuer.leeway.as_secs(),
            subject: issuer.subject.clone(),
            types,
            max_age: issuer.max_age.map(|age| age.as_secs()),
            max_stale: issuer.max_stale.as_secs(),
            secret,
            remote: matches!(material, Material::Remote),
            logout: issuer.logout.as_ref().map(logout::form),
        };
        Ok(Built { rules, keys, skipped })
    }

    /// The configured `iss`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The allowed algorithms; what [`KeySet::from_jwks`] wants to know.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// What its logout tokens must look like, where they are listened to.
    pub fn logout(&self) -> Option<&Form> {
        self.logout.as_ref()
    }

    /// Clock skew allowed, in seconds.
    pub fn leeway(&self) -> u64 {
        self.leeway
    }

    /// When the last token that was issued at `issued_at` has ended, if none lives longer than `remember`.
    pub fn longest_life(&self, issued_at: u64, remember: u64) -> u64 {
        let life = self.max_age.map_or(remember, |age| age.min(remember));
        issued_at.saturating_add(life).saturating_add(MAX_LEEWAY)
    }

    /// The claim that says who.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether a shared secret signs.
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Whether keys are fetched.
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    /// Whether `aud` is checked. Where it is not, that is to be said aloud at start.
    pub fn checks_audience(&self) -> bool {
        !self.audience.is_empty()
    }

    /// For how many seconds old keys are used while the key server fails.
    pub fn max_stale(&self) -> u64 {
        self.max_stale
    }

    /// Judges the claims of a token whose signature is good. The identity's `claims` are left to the caller.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn judge(&self, header: &Header, claims: &Map<String, Value>, now: u64) -> Result<Identity, Fault> {
        self.check_type(header, claims)?;
        self.check_issuer(claims)?;
        if self.checks_audience() {
            check_audience(&self.audience, claims)?;
        }
        let expires_at = seconds(claims, "exp")?.ok_or_else(|| rejected("exp is missing"))?.floor;
        let issued_at = seconds(claims, "iat")?;
        let ends_at = self.end(expires_at, issued_at.map(|at| at.floor))?;
        if now >= ends_at {
            let detail = format!("the token ended at {ends_at}, leeway included; now is {now}");
            return Err(Fault::new(Reason::TokenExpired, detail));
        }
        for (name, at) in [("nbf", seconds(claims, "nbf")?), ("iat", issued_at)] {
            if at.is_some_and(|at| at.ceil > now.saturating_add(self.leeway)) {
                let detail = format!("{name} is in the future by more than {} s", self.leeway);
                return Err(Fault::new(Reason::TokenNotYetValid, detail));
            }
        }
        Ok(Identity {
            issuer: self.name.clone().unwrap_or_default(),
            subject: self.subject_of(claims)?,
            expires_at,
            ends_at,
            jti: label(claims, "jti")?,
            session: label(claims, "sid")?,
            issued_at: issued_at.map(|at| at.floor),
            claims: Claims::default(),
            hold: None,
        })
    }

    /// The first second at which the token is refused. [`Self::judge`] compares with nothing else, so that a
    /// session that ends then and a verification at that moment cannot disagree.
    fn end(&self, expires_at: u64, issued_at: Option<u64>) -> Result<u64, Fault> {
        let by_exp = expires_at.saturating_add(self.leeway);
        let Some(max_age) = self.max_age else { return Ok(by_exp) };
        let issued_at = issued_at.ok_or_else(|| rejected("iat is missing, and max_age needs it"))?;
        Ok(by_exp.min(issued_at.saturating_add(max_age).saturating_add(self.leeway)))
    }

    fn check_type(&self, header: &Header, claims: &Map<String, Value>) -> Result<(), Fault> {
        let typ = header.typ.as_deref().map(media_type);
        let refuse = |why: &str| Err(rejected(why));
        match typ.as_deref() {
            Some(typ) if NEVER.contains(&typ) => {
                return refuse("typ says that this is a logout or security-event token");
            }
            None if !self.types.is_empty() => return refuse("typ is missing"),
            Some(typ) if !self.types.is_empty() && !self.types.iter().any(|allowed| allowed == typ) => {
                return Err(rejected(format!("typ {} is not in typ", shown(typ))));
            }
            _ => {}
        }
        if claims.contains_key("events") {
            return refuse("the token has events: it is a logout or security-event token");
        }
        // RFC 9700 section 2.2: a token bound to a key we cannot ask for is suspicious when it comes as plain bearer.
        if claims.contains_key("cnf") {
            return refuse("the token is bound to a key (cnf), which cannot be checked here");
        }
        Ok(())
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Fault> {
        let Some(name) = self.name.as_deref() else { return Ok(()) };
        match claims.get("iss") {
            Some(Value::String(iss)) if iss == name => Ok(()),
            Some(Value::String(iss)) => {
                Err(Fault::new(Reason::IssuerUnknown, format!("iss {} is not this issuer", shown(iss))))
            }
            Some(_) => Err(rejected("iss is not a string")),
            None => Err(rejected("iss is missing")),
        }
    }

    fn subject_of(&self, claims: &Map<String, Value>) -> Result<Arc<str>, Fault> {
        let wrong = |why: &str| rejected(format!("the subject claim {} {why}", self.subject));
        let value = claims::lookup(claims, &self.subject).ok_or_else(|| wrong("is missing"))?;
        let text = text(value).ok_or_else(|| wrong("is neither a string nor a whole number"))?;
        match text.len() {
            0 => Err(wrong("is empty")),
            1..=MAX_NAME => Ok(text.into()),
            _ => Err(wrong("is longer than 1 KiB")),
        }
    }
}

/// Whether `aud` names one of those allowed.
pub(super) fn check_audience(audience: &[String], claims: &Map<String, Value>) -> Result<(), Fault> {
    let wrong_type = || rejected("aud is neither a string nor an array of strings");
    let named: Vec<&str> = match claims.get("aud") {
        Some(Value::String(aud)) => vec![aud],
        Some(Value::Array(list)) => {
            list.iter().map(|aud| aud.as_str().ok_or_else(wrong_type)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong_type()),
        None => return Err(rejected("aud is missing")),
    };
    if named.iter().any(|aud| audience.iter().any(|allowed| allowed == aud)) {
        return Ok(());
    }
    let named: Vec<_> = named.iter().take(4).map(|aud| shown(aud)).collect();
    Err(Fault::new(Reason::AudienceMismatch, format!("aud is {}", named.join(", "))))
}

/// The algorithms of a section, or its defaults. The first RSA algorithm is the one of RSA keys without `alg`.
///
/// # Errors
/// Unknown names, and algorithms that do not fit the kind of key.
pub fn algorithms(issuer: &Issuer, secret: bool) -> Result<Vec<Algorithm>, String> {
    if issuer.algorithms.is_empty() {
        let keys = vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
        return Ok(if secret { vec![Algorithm::Hs256] } else { keys });
    }
    let mut list = Vec::new();
    for name in &issuer.algorithms {
        let fitting = Algorithm::NAMES.iter().filter(|(_, alg)| alg.is_hmac() == secret);
        let allowed = || fitting.clone().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let alg = Algorithm::parse(name)
            .ok_or_else(|| format!("{} is not a supported algorithm; allowed: {}", shown(name), allowed()))?;
        if alg.is_hmac() != secret {
            let kind = if secret { "a shared secret" } else { "public keys" };
            return Err(format!("{name} does not go with {kind}; allowed: {}", allowed()));
        }
        if !list.contains(&alg) {
            list.push(alg);
        }
    }
    Ok(list)
}

fn keys(
    material: &Material,
    algorithms: &[Algorithm],
    skipped: &mut Vec<Skipped>,
) -> Result<Option<KeySet>, KeysError> {
    Ok(Some(match material {
        Material::Secrets(secrets) => KeySet::from_secrets(secrets, algorithms)?,
        Material::Pem(pem) => KeySet::from_pem(pem, algorithms)?,
        Material::Jwks(body) => {
            let (set, rest) = KeySet::from_jwks(body, algorithms)?;
            *skipped = rest;
            set
        }
        Material::Remote => return Ok(None),
    }))
}

/// The key of the section that is to blame for bad material.
fn material_key(material: &Material, issuer: &Issuer) -> &'static str {
    match material {
        Material::Secrets(_) if issuer.secret_env.is_some() => "secret_env",
        Material::Secrets(_) => "secret_file",
        Material::Pem(_) => "key_file",
        Material::Jwks(_) => "jwks_file",
        Material::Remote => "jwks_url",
    }
}

pub(super) fn rejected(detail: impl Into<String>) -> Fault {
    Fault::new(Reason::ClaimRejected, detail)
}

/// A moment of a token in whole seconds, rounded both ways: each check takes the stricter.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) floor: u64,
    pub(super) ceil: u64,
}

/// RFC 7519 section 2, NumericDate: a number, fractions allowed.
pub(super) fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<Moment>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(whole) = value.as_u64() {
        return Ok(Some(Moment { floor: whole, ceil: whole }));
    }
    match value.as_f64() {
        // Casts saturate: what lies beyond u64 never comes.
        Some(number) if number >= 0.0 => Ok(Some(Moment { floor: number as u64, ceil: number.ceil() as u64 })),
        _ => Err(rejected(format!("{name} is not a number of seconds"))),
    }
}

/// A string or a whole number as text. Fractions are refused: numbers beyond 64 bits become fractions when
/// read, and two users would become one.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        _ => None,
    }
}

/// `jti` and `sid`: handles for revocation, so one that cannot be read is refused and not forgotten.
pub(super) fn label(claims: &Map<String, Value>, name: &str) -> Result<Option<Arc<str>>, Fault> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match text(value) {
            Some(text) if text.len() <= MAX_NAME => Ok(Some(text.into())),
            Some(_) => Err(rejected(format!("{name} is longer than 1 KiB"))),
            None => Err(rejected(format!("{name} is neither a string nor a whole number"))),
        },
    }
}
