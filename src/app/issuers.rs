//! Whose word is taken: rules and keys of those who sign, from their sections.

use crate::app::BuildError;
use crate::auth::events;
use crate::auth::keys::{KeySet, KeyStore, Skipped};
use crate::auth::rules::{IssuerRules, Material};
use crate::config::model::{Config, issuers::Issuer};
use crate::session::clock::Clock;
use crate::upstream::jwks::KeySource;
use secrecy::SecretString;
use std::sync::Arc;

/// Their rules in the order of their sections, the keys that are here, and where the others are fetched.
pub type Issuers = (Vec<IssuerRules>, KeyStore, Vec<KeySource>);

/// Of every `[[issuer]]`, then of every `[[transmitter]]`.
///
/// # Errors
/// [`BuildError::Config`], naming the key.
pub fn build(config: &Config, secrets: &[Vec<SecretString>], clock: &Clock) -> Result<Issuers, BuildError> {
    let sections: Vec<_> =
        config.issuer.iter().cloned().chain(config.transmitter.iter().map(events::keys_of)).collect();
    let store = KeyStore::new(sections.len());
    let (mut rules, mut sources) = (Vec::new(), Vec::new());
    let secrets = secrets.iter().cloned().chain(std::iter::repeat_with(Vec::new));
    for (index, (issuer, secrets)) in sections.iter().zip(secrets).enumerate() {
        let at = match index.checked_sub(config.issuer.len()) {
            None => format!("issuer[{index}]"),
            Some(index) => format!("transmitter[{index}]"),
        };
        let wrong = |key: &str, what: String| BuildError::Config(format!("{at}.{key}: {what}"));
        let material = material(issuer, secrets).map_err(|(key, what)| wrong(key, what))?;
        let built = IssuerRules::build(issuer, &material).map_err(|problems| {
            let all = problems.iter().map(|p| format!("{at}.{}: {}", p.key, p.message));
            BuildError::Config(all.collect::<Vec<_>>().join("\n"))
        })?;
        for skipped in &built.skipped {
            warn_skipped(index, skipped);
        }
        if let Some(keys) = built.keys {
            store.replace(index, keys, clock.unix());
        }
        let (algorithms, target, clock) = (built.rules.algorithms().to_vec(), store.clone(), clock.clone());
        let publish = Arc::new(move |body: &[u8]| {
            let (set, skipped) = KeySet::from_jwks(body, &algorithms).map_err(|e| e.to_string())?;
            for skipped in &skipped {
                warn_skipped(index, skipped);
            }
            let usable = set.len();
            target.replace(index, set, clock.unix());
            Ok(usable)
        });
        if built.rules.is_remote() {
            sources.extend(KeySource::from_config(index, issuer, publish).map_err(|e| wrong("jwks_url", e))?);
        }
        rules.push(built.rules);
    }
    Ok((rules, store, sources))
}

fn warn_skipped(issuer: usize, skipped: &Skipped) {
    if skipped.alarming {
        tracing::error!(issuer, key = skipped.index, why = %skipped.why, "the issuer publishes a SECRET key; it is not used");
    } else {
        tracing::warn!(issuer, key = skipped.index, why = %skipped.why, "key not used");
    }
}

fn material(issuer: &Issuer, secrets: Vec<SecretString>) -> Result<Material, (&'static str, String)> {
    let read = |key, path: &std::path::Path| std::fs::read(path).map_err(|e| (key, format!("{}: {e}", path.display())));
    Ok(match (issuer.jwks_file.as_deref(), issuer.key_file.as_deref()) {
        _ if !secrets.is_empty() => Material::Secrets(secrets),
        (Some(path), _) => Material::Jwks(read("jwks_file", path)?),
        (None, Some(path)) => Material::Pem(read("key_file", path)?),
        (None, None) => Material::Remote,
    })
}
