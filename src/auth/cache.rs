//! Tokens that were verified a moment ago: polling, REST calls and reconnects bring the same one again.
//!
//! The key is the SHA-256 of the whole token, so that nothing secret is kept and no two tokens meet
//! (a signature that is malleated makes another key). An entry counts only under the very key set that
//! verified it, so a rotation empties the cache; not before the moment it was made, so a clock that is
//! set back asks again; and not from the second on at which the verifier would refuse the token.

use crate::auth::identity::Identity;
use crate::auth::keys::Loaded;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Entries of one shard: 16,384 in all, some megabytes.
const PER_SHARD: usize = 1024;

/// SHA-256 of a token.
pub type Fingerprint = [u8; 32];

#[derive(Debug)]
struct Entry {
    identity: Arc<Identity>,
    issuer: usize,
    keys: Arc<Loaded>,
    since: u64,
}

/// A bounded table of verified tokens.
#[derive(Debug, Default)]
pub struct Cache {
    shards: [Mutex<HashMap<Fingerprint, Entry>>; SHARDS],
}

impl Cache {
    /// The identity of a token that was verified under keys which `current` says are an issuer's still.
    pub fn find(
        &self,
        token: &Fingerprint,
        now: u64,
        current: impl FnOnce(usize) -> Option<Arc<Loaded>>,
    ) -> Option<Arc<Identity>> {
        let mut shard = self.shard(token);
        let entry = shard.get(token)?;
        let holds = entry.since <= now
            && now < entry.identity.ends_at
            && current(entry.issuer).is_some_and(|keys| Arc::ptr_eq(&keys, &entry.keys));
        if holds {
            return Some(entry.identity.clone());
        }
        shard.remove(token);
        None
    }

    /// Remembers a token that was verified at `now` under `keys`.
    pub fn insert(&self, token: Fingerprint, identity: Arc<Identity>, issuer: usize, keys: Arc<Loaded>, now: u64) {
        let mut shard = self.shard(&token);
        if shard.len() >= PER_SHARD {
            shard.retain(|_, entry| entry.identity.ends_at > now && Arc::ptr_eq(&entry.keys, &keys));
        }
        if shard.len() >= PER_SHARD {
            // Nobody is more worth keeping than another: a storm of distinct tokens costs a new start.
            shard.clear();
        }
        shard.insert(token, Entry { identity, issuer, keys, since: now });
    }

    fn shard(&self, token: &Fingerprint) -> MutexGuard<'_, HashMap<Fingerprint, Entry>> {
        let index = usize::from(token[0]) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::cache::Fingerprint;
    use crate::auth::keys::KeySet;
    use crate::auth::rules::Material;
    use crate::auth::testing::{NOW, P256, claims, issuer, jwks, verifier};
    use crate::reason::Reason;
    use serde_json::json;
    use std::sync::Arc;

    fn print(token: &str) -> Fingerprint {
        let mut out = Fingerprint::default();
        out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref());
        out
    }

    #[test]
    fn j35_the_same_token_is_answered_from_memory_and_another_one_is_not() {
        let (verifier, _) = verifier(&[(issuer(&["ES256"]), Material::Jwks(jwks(&[P256.jwk()])))]);
        let token = P256.token(&claims(json!({})));
        let first = verifier.verify_again(&token, &print(&token), NOW).unwrap();
        let again = verifier.verify_again(&token, &print(&token), NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let mut changed = token.clone();
        changed.replace_range(token.len() - 8.., "AAAAAAAA");
        let refused = verifier.verify_again(&changed, &print(&changed), NOW).unwrap_err();
        assert_eq!(refused.reason, Reason::SignatureInvalid);
    }

    #[test]
    fn j35_an_entry_dies_at_the_second_at_which_the_verifier_refuses() {
        let (verifier, _) = verifier(&[(issuer(&["ES256"]), Material::Jwks(jwks(&[P256.jwk()])))]);
        let token = P256.token(&claims(json!({})));
        let ends = verifier.verify_again(&token, &print(&token), NOW).unwrap().ends_at;
        assert!(verifier.verify_again(&token, &print(&token), ends - 1).is_ok());
        let refused = verifier.verify_again(&token, &print(&token), ends).unwrap_err();
        assert_eq!(refused.reason, Reason::TokenExpired);
    }

    #[test]
    fn j35_a_new_key_set_empties_the_cache() {
        let (verifier, store) = verifier(&[(issuer(&["ES256"]), Material::Jwks(jwks(&[P256.jwk()])))]);
        let token = P256.token(&claims(json!({})));
        assert!(verifier.verify_again(&token, &print(&token), NOW).is_ok());
        let other = crate::auth::testing::ED.jwk();
        let (set, _) = KeySet::from_jwks(&jwks(&[other]), &[crate::auth::jose::Algorithm::EdDsa]).unwrap();
        store.replace(0, set, NOW);
        let refused = verifier.verify_again(&token, &print(&token), NOW).unwrap_err();
        assert_eq!(refused.reason, Reason::KeyUnknown);
    }

    #[test]
    fn j35_a_clock_that_is_set_back_asks_again() {
        let (verifier, _) = verifier(&[(issuer(&["ES256"]), Material::Jwks(jwks(&[P256.jwk()])))]);
        let token = P256.token(&claims(json!({ "nbf": NOW, "iat": NOW })));
        assert!(verifier.verify_again(&token, &print(&token), NOW).is_ok());
        let refused = verifier.verify_again(&token, &print(&token), NOW - 3_600).unwrap_err();
        assert_eq!(refused.reason, Reason::TokenNotYetValid);
    }
}
