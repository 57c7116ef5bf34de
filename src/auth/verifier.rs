//! The one question: whose token is this, and until when does it hold?

use crate::auth::cache::{Cache, Fingerprint};
use crate::auth::claims::HeaderMapping;
use crate::auth::events::Transmitter;
use crate::auth::identity::{Claims, Identity};
use crate::auth::jose::{Compact, Fault, shown};
use crate::auth::keys::{Candidates, KeyStore, Loaded};
use crate::auth::revocation::Revocations;
use crate::auth::rules::IssuerRules;
use crate::reason::Reason;
use serde_json::Value;
use std::sync::{Arc, Once};

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The word for all.
    pub reason: Reason,
    /// What exactly, for operators only; never token text.
    pub detail: String,
    /// Set where fetching the issuer's keys may change the answer.
    pub need_key: Option<NeedKey>,
}

/// Keys to fetch before asking again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedKey {
    /// The place of the issuer in the configuration.
    pub issuer: usize,
    /// The `kid` that is not known; `None` where no keys are there at all or the token names none.
    pub kid: Option<String>,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self { reason: fault.reason, detail: fault.detail, need_key: None }
    }
}

impl Refusal {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Fault::new(reason, detail).into()
    }

    /// How far the token came: of several issuers that refuse, the one that came farthest tells why.
    fn progress(&self) -> u8 {
        match self.reason {
            Reason::AlgorithmNotAllowed | Reason::IssuerUnknown | Reason::CredentialMalformed => 0,
            Reason::KeysUnavailable => 1,
            Reason::KeyUnknown => 2,
            Reason::SignatureInvalid => 3,
            _ => 4,
        }
    }

    fn farther(earlier: Option<Self>, later: Self) -> Self {
        const SIGNED: u8 = 4;
        let Some(earlier) = earlier else { return later };
        let (mut kept, other) = if later.progress() > earlier.progress() { (later, earlier) } else { (earlier, later) };
        // A missing key of one issuer still matters while no other has vouched for the signature.
        if kept.progress() < SIGNED && kept.need_key.is_none() {
            kept.need_key = other.need_key;
        }
        kept
    }
}

/// Verifies tokens. Cheap to share, never waits, reads no clock.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<IssuerRules>,
    keys: KeyStore,
    cache: Cache,
    /// Claims that identities keep; `None`: all.
    kept: Option<HeaderMapping>,
    revocations: Option<Revocations>,
    transmitters: Vec<Transmitter>,
}

impl Verifier {
    /// Rules in the order of the configuration, and the store that holds each issuer's keys at the same place.
    pub fn new(issuers: Vec<IssuerRules>, keys: KeyStore) -> Self {
        static PROVIDER: Once = Once::new();
        // An error says that one is installed already, which is as good.
        PROVIDER.call_once(|| {
            let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        });
        Self { issuers, keys, cache: Cache::default(), kept: None, revocations: None, transmitters: Vec::new() }
    }

    /// Identities keep no other claims than this mapping reads.
    #[must_use]
    pub fn keeping(self, mapping: &HeaderMapping) -> Self {
        Self { kept: Some(mapping.clone()), ..self }
    }

    /// Tokens that stand in this table are refused.
    #[must_use]
    pub fn refusing(self, revocations: Revocations) -> Self {
        Self { revocations: Some(revocations), ..self }
    }

    /// These may tell of withdrawn rights; their keys stand behind those of the issuers.
    #[must_use]
    pub fn hearing(self, transmitters: Vec<Transmitter>) -> Self {
        Self { transmitters, ..self }
    }

    /// Who may tell of withdrawn rights.
    pub fn transmitters(&self) -> &[Transmitter] {
        &self.transmitters
    }

    /// The rules, in the order of the configuration.
    pub fn issuers(&self) -> &[IssuerRules] {
        &self.issuers
    }

    /// Whether any issuer would be asked about this token.
    pub fn knows(&self, token: &str) -> bool {
        Compact::parse(token).is_ok_and(|token| self.issuers.iter().any(|rules| self.may_be_from(rules, &token)))
    }

    /// Verifies a token at `now`, in unix seconds.
    ///
    /// # Errors
    /// The reason, and whether fetching keys may help.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, Refusal> {
        let (identity, _, _) = self.verify_with(token, now)?;
        self.check_revoked(&identity, now)?;
        Ok(identity)
    }

    /// The same, faster for a token that was verified a moment ago (J35). `fingerprint` is its SHA-256.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_again(&self, token: &str, fingerprint: &Fingerprint, now: u64) -> Result<Arc<Identity>, Refusal> {
        let current = |issuer| self.issuers.get(issuer).and_then(|rules| self.loaded(issuer, rules, now).ok());
        if let Some(identity) = self.cache.find(fingerprint, now, current) {
            self.check_revoked(&identity, now)?;
            return Ok(identity);
        }
        let (identity, issuer, keys) = self.verify_with(token, now)?;
        self.check_revoked(&identity, now)?;
        let identity = Arc::new(identity);
        self.cache.insert(*fingerprint, identity.clone(), issuer, keys, now);
        Ok(identity)
    }

    fn check_revoked(&self, identity: &Identity, now: u64) -> Result<(), Refusal> {
        match self.revocations.as_ref().and_then(|revocations| revocations.find(identity, now)) {
            Some(reason) => Err(Refusal::new(reason, "the token's right was withdrawn before its end")),
            None => Ok(()),
        }
    }

    fn verify_with(&self, token: &str, now: u64) -> Result<(Identity, usize, Arc<Loaded>), Refusal> {
        let mut token = Compact::parse(token)?;
        let mut refusal: Option<Refusal> = None;
        for (index, rules) in self.issuers.iter().enumerate() {
            if !self.may_be_from(rules, &token) {
                continue;
            }
            match self.ask(index, rules, &token, now) {
                Ok((identity, keys)) => {
                    let claims = std::mem::take(&mut token.claims);
                    // A provider's logout names the user by `sub`.
                    let sub = |name: &str| name == "sub" && rules.subject() != name;
                    let wanted = |name: &str| sub(name) || self.kept.as_ref().is_none_or(|mapping| mapping.reads(name));
                    let identity = Identity { claims: Claims::keep(claims, wanted), ..identity };
                    return Ok((identity, index, keys));
                }
                Err(refused) => refusal = Some(Refusal::farther(refusal.take(), refused)),
            }
        }
        Err(refusal.unwrap_or_else(|| self.nobody(&token)))
    }

    /// Whether an issuer is asked at all. The token's own `iss` chooses among those configured and nothing more.
    fn may_be_from(&self, rules: &IssuerRules, token: &Compact<'_>) -> bool {
        let named = match rules.name() {
            Some(name) => token.claims.get("iss").and_then(Value::as_str) == Some(name),
            None => true,
        };
        named && rules.is_secret() == token.header.alg.is_hmac()
    }

    /// Why no issuer was asked.
    fn nobody(&self, token: &Compact<'_>) -> Refusal {
        let alg = token.header.alg;
        let not_allowed = || Refusal::new(Reason::AlgorithmNotAllowed, format!("no issuer allows {}", alg.name()));
        if !self.issuers.iter().any(|rules| rules.is_secret() == alg.is_hmac()) {
            return not_allowed();
        }
        match token.claims.get("iss") {
            Some(Value::String(iss)) if self.issuers.iter().any(|rules| rules.name() == Some(iss)) => {
                Refusal::new(Reason::AlgorithmNotAllowed, format!("iss {} does not allow {}", shown(iss), alg.name()))
            }
            Some(Value::String(iss)) => {
                Refusal::new(Reason::IssuerUnknown, format!("iss {} is not configured", shown(iss)))
            }
            Some(_) => Refusal::new(Reason::ClaimRejected, "iss is not a string"),
            None => Refusal::new(Reason::ClaimRejected, "iss is missing"),
        }
    }

    fn ask(
        &self,
        index: usize,
        rules: &IssuerRules,
        token: &Compact<'_>,
        now: u64,
    ) -> Result<(Identity, Arc<Loaded>), Refusal> {
        let loaded = self.signed(index, rules, token, now)?;
        Ok((rules.judge(&token.header, &token.claims, now)?, loaded))
    }

    /// Whether an issuer has signed this, and by which keys. What it says is the caller's to judge.
    pub(super) fn signed(
        &self,
        index: usize,
        rules: &IssuerRules,
        token: &Compact<'_>,
        now: u64,
    ) -> Result<Arc<Loaded>, Refusal> {
        let alg = token.header.alg;
        if !rules.algorithms().contains(&alg) {
            let detail = format!("{} is not in algorithms", alg.name());
            return Err(Refusal::new(Reason::AlgorithmNotAllowed, detail));
        }
        let loaded = self.loaded(index, rules, now)?;
        self.check_signature(index, rules, &loaded, token)?;
        Ok(loaded)
    }

    fn loaded(&self, index: usize, rules: &IssuerRules, now: u64) -> Result<Arc<Loaded>, Refusal> {
        let unavailable = |detail: &str| Refusal {
            need_key: rules.is_remote().then_some(NeedKey { issuer: index, kid: None }),
            ..Refusal::new(Reason::KeysUnavailable, detail)
        };
        let loaded = self.keys.get(index).ok_or_else(|| unavailable("no keys were fetched yet"))?;
        if loaded.stale_for(now).is_some_and(|stale| stale >= rules.max_stale()) {
            return Err(unavailable("the key server has failed for longer than max_stale"));
        }
        Ok(loaded)
    }

    fn check_signature(
        &self,
        index: usize,
        rules: &IssuerRules,
        loaded: &Loaded,
        token: &Compact<'_>,
    ) -> Result<(), Refusal> {
        let (kid, alg) = (token.header.kid.as_deref(), token.header.alg);
        let fetch = || rules.is_remote().then(|| NeedKey { issuer: index, kid: kid.map(String::from) });
        match loaded.set.candidates(kid, alg) {
            Candidates::Keys { keys, exact } => {
                if keys.iter().any(|key| key.verify(token.signing_input, &token.signature)) {
                    return Ok(());
                }
                // Where no `kid` tells keys apart, a rotated key looks like a bad signature.
                let need_key = if exact { None } else { fetch() };
                Err(Refusal { need_key, ..Refusal::new(Reason::SignatureInvalid, "the signature does not verify") })
            }
            Candidates::Pinned(other) => Err(Refusal::new(
                Reason::AlgorithmNotAllowed,
                format!("the key is for {}, the token says {}", other.name(), alg.name()),
            )),
            Candidates::TooMany(count) => {
                let detail = format!("the token has no kid and {count} keys come into question");
                Err(Refusal::new(Reason::KeyUnknown, detail))
            }
            Candidates::Unknown => {
                let named = kid.map_or_else(|| "the token has no kid and".into(), |kid| format!("kid {}:", shown(kid)));
                let detail = format!("{named} the issuer has no such key for {}", alg.name());
                Err(Refusal { need_key: fetch(), ..Refusal::new(Reason::KeyUnknown, detail) })
            }
        }
    }
}

#[cfg(test)]
mod tests;
