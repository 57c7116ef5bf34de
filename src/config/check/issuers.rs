//! Who may vouch, and by which keys.

use crate::config::address;
use crate::config::duration;
use crate::config::model::Config;
use crate::config::model::issuers::Issuer;
use crate::config::nearest::nearest;
use crate::config::problem::{Problems, one_of, shown};
use std::time::Duration;

/// What the JOSE library below can verify with a shared secret.
const HMAC: &[&str] = &["HS256", "HS384", "HS512"];
/// What it can verify with a public key.
const ASYMMETRIC: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// J13: a longer leeway would be a longer life.
const LONGEST_LEEWAY: Duration = Duration::from_secs(300);

pub(super) fn check(config: &Config, problems: &mut Problems) {
    if config.issuer.is_empty() && !super::vouchers::any(config) {
        problems.error("issuer", "at least one [[issuer]] is needed, or a [[session_store]], [[introspection]] or [[callout]]: without one nobody can be let in");
    }
    for (i, issuer) in config.issuer.iter().enumerate() {
        let one = One { at: format!("issuer[{i}]"), issuer };
        one.key_source(problems);
        one.algorithms(problems);
        one.claims(problems);
        // Without a name an issuer is told by its secret, and its users by nothing else.
        let nameless = |issuer: &Issuer| issuer.issuer.is_none() && has_secret(issuer);
        let same = |other: &Issuer| match &issuer.issuer {
            Some(name) => other.issuer.as_ref() == Some(name),
            None => nameless(issuer) && nameless(other),
        };
        if let Some(other) = config.issuer.iter().take(i).position(same) {
            let message = match &issuer.issuer {
                Some(name) => format!("{} is the issuer of issuer[{other}] too", shown(name)),
                None => format!("issuer[{other}] has no name either; allowed: one issuer without a name"),
            };
            problems.error(one.key("issuer"), message);
        }
    }
}

/// Checks the name of an environment variable. It is not repeated: it may be the secret itself.
pub(super) fn variable_name(path: &str, name: &str, problems: &mut Problems) {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        problems.error(
            path,
            "not the name of an environment variable (not shown, as it may be the secret itself); allowed: such as \"JWT_SECRET\"",
        );
    }
}

fn has_secret(issuer: &Issuer) -> bool {
    issuer.secret_env.is_some() || issuer.secret_file.is_some()
}

struct One<'a> {
    at: String,
    issuer: &'a Issuer,
}

impl One<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }

    fn has_secret(&self) -> bool {
        has_secret(self.issuer)
    }

    /// Exactly one place for keys; none and a name: discovery.
    fn key_source(&self, problems: &mut Problems) {
        let issuer = self.issuer;
        let sources = [
            ("jwks_url", issuer.jwks_url.is_some()),
            ("jwks_file", issuer.jwks_file.is_some()),
            ("key_file", issuer.key_file.is_some()),
            ("secret_env", issuer.secret_env.is_some()),
            ("secret_file", issuer.secret_file.is_some()),
        ];
        let named: Vec<&str> = sources.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
        if named.len() > 1 {
            problems.error(&self.at, format!("has {}; allowed: one source of keys", named.join(" and ")));
        }
        match (&issuer.issuer, named.is_empty()) {
            (None, true) => {
                let keys: Vec<_> = sources.iter().map(|(key, _)| *key).collect();
                problems
                    .error(&self.at, format!("has no source of keys; allowed: issuer, or one of {}", keys.join(", ")));
            }
            (None, false) if !self.has_secret() => {
                problems.error(self.key("issuer"), "required with public keys; allowed: the exact `iss` of the tokens");
            }
            (Some(name), _) if name.trim().is_empty() => {
                problems.error(self.key("issuer"), "empty; allowed: the exact `iss` of the tokens");
            }
            // Discovery: the name is where the keys are looked up.
            (Some(name), true) => {
                if let Err(why) = address::key_server(name, issuer.allow_http) {
                    problems.error(self.key("issuer"), format!("{why}; or name the keys with jwks_url"));
                } else if name.contains('?') {
                    problems
                        .error(self.key("issuer"), format!("{} has a query; name the keys with jwks_url", shown(name)));
                }
            }
            _ => {}
        }
        if let Some(url) = &issuer.jwks_url
            && let Err(why) = address::key_server(url, issuer.allow_http)
        {
            problems.error(self.key("jwks_url"), why);
        }
        self.secrets(problems);
        self.fetching(named.is_empty(), problems);
    }

    fn secrets(&self, problems: &mut Problems) {
        let issuer = self.issuer;
        for (key, name) in [("secret_env", &issuer.secret_env), ("previous_secret_env", &issuer.previous_secret_env)] {
            if let Some(name) = name {
                variable_name(&self.key(key), name, problems);
            }
        }
        if issuer.previous_secret_env.is_some() && issuer.previous_secret_file.is_some() {
            problems.error(&self.at, "has previous_secret_env and previous_secret_file; allowed: one of them");
        }
        let previous = [
            ("previous_secret_env", issuer.previous_secret_env.is_some()),
            ("previous_secret_file", issuer.previous_secret_file.is_some()),
        ];
        for (key, _) in previous.iter().filter(|(_, set)| *set && !self.has_secret()) {
            problems.error(self.key(key), "there is no current secret; allowed: beside secret_env or secret_file");
        }
    }

    /// Keys that matter only where keys are fetched.
    fn fetching(&self, discovery: bool, problems: &mut Problems) {
        let issuer = self.issuer;
        if discovery || issuer.jwks_url.is_some() {
            for (i, host) in issuer.jwks_hosts.iter().enumerate() {
                if !address::is_host_name(host) {
                    problems.error(
                        self.key(&format!("jwks_hosts[{i}]")),
                        format!("{} is not a host name; allowed: such as \"keys.example.com\"", shown(host)),
                    );
                }
            }
            return;
        }
        let useless = [
            ("ca_file", issuer.ca_file.is_some()),
            ("jwks_hosts", !issuer.jwks_hosts.is_empty()),
            ("allow_http", issuer.allow_http),
        ];
        for (key, _) in useless.iter().filter(|(_, set)| *set) {
            problems.warn(self.key(key), "has no effect: the keys of this issuer are not fetched");
        }
    }

    /// J02: a public key is never a shared secret.
    fn algorithms(&self, problems: &mut Problems) {
        let fits = if self.has_secret() { HMAC } else { ASYMMETRIC };
        for (i, algorithm) in self.issuer.algorithms.iter().enumerate() {
            let name = algorithm.as_str();
            if fits.contains(&name) {
                continue;
            }
            let path = self.key(&format!("algorithms[{i}]"));
            let allowed = one_of(fits);
            let message = if HMAC.contains(&name) {
                format!("{} needs a shared secret, and this issuer has public keys; allowed: {allowed}", shown(name))
            } else if ASYMMETRIC.contains(&name) {
                format!("{} needs a public key, and this issuer has a shared secret; allowed: {allowed}", shown(name))
            } else {
                let hint = nearest(name, fits.iter().copied()).map(|word| format!("; did you mean {word:?}?"));
                format!("{} is not known here; allowed: {allowed}{}", shown(name), hint.unwrap_or_default())
            };
            problems.error(path, message);
        }
    }

    fn claims(&self, problems: &mut Problems) {
        let issuer = self.issuer;
        if issuer.leeway > LONGEST_LEEWAY {
            let value = duration::format(issuer.leeway);
            problems.error(self.key("leeway"), format!("{value:?} is too long; allowed: at most 300s"));
        }
        if !super::identity::is_claim_path(&issuer.subject) {
            problems.error(
                self.key("subject"),
                format!(
                    "{} is not the name of a claim; allowed: such as \"sub\" or \"user.id\"",
                    shown(&issuer.subject)
                ),
            );
        }
        for (key, list) in [("audience", &issuer.audience), ("typ", &issuer.typ)] {
            for (i, _) in list.iter().enumerate().filter(|(_, text)| text.trim().is_empty()) {
                problems.error(self.key(&format!("{key}[{i}]")), "empty; allowed: the exact value in the tokens");
            }
        }
        // These are statements to somebody else, signed by the same key.
        for (i, typ) in issuer.typ.iter().enumerate() {
            let name = typ.to_ascii_lowercase();
            if ["logout+jwt", "secevent+jwt"].contains(&name.strip_prefix("application/").unwrap_or(&name)) {
                problems.error(self.key(&format!("typ[{i}]")), format!("{} is never a credential", shown(typ)));
            }
        }
        // J16: tokens for every other service of the issuer are good here too.
        if issuer.audience.is_empty() && !self.has_secret() {
            problems.warn(
                self.key("audience"),
                "`aud` is not checked: a token that this issuer made for any other service is accepted here",
            );
        }
    }
}
