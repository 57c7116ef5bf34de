//! The session cookie of express-session: `s:<id>.<HMAC-SHA256 of the id, base64 without padding>`, URL-encoded.

use crate::auth::jose::Fault;
use crate::reason::Reason;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;

/// Browsers keep no longer cookies.
const MAX_COOKIE: usize = 4096;

/// No id is longer. uid-safe makes 32 bytes, a UUID has 36.
const MAX_ID: usize = 256;

/// The secrets, newest first.
pub struct CookieSecrets(Vec<hmac::Key>);

impl fmt::Debug for CookieSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CookieSecrets({})", self.0.len())
    }
}

/// A cookie whose signature is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The session's id: a secret.
    pub id: String,
    /// The place of the secret that verified it.
    pub secret: usize,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl CookieSecrets {
    /// In the order of the configuration.
    pub fn new(secrets: &[SecretString]) -> Self {
        let key = |secret: &SecretString| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        Self(secrets.iter().map(key).collect())
    }

    /// Verifies a cookie's value. The id is looked at only behind its signature (C02).
    ///
    /// # Errors
    /// [`Reason::CredentialMalformed`], [`Reason::SignatureInvalid`].
    pub fn open(&self, value: &str) -> Result<Opened, Fault> {
        let malformed = |why: &str| Fault::new(Reason::CredentialMalformed, format!("the session cookie {why}"));
        if value.len() > MAX_COOKIE {
            return Err(malformed("is too long"));
        }
        let decoded = percent_decode_str(value).decode_utf8().map_err(|_| malformed("is not UTF-8"))?;
        let signed = decoded.strip_prefix("s:").ok_or_else(|| malformed("is not signed"))?;
        // The application may choose ids with dots in them.
        let (id, signature) = signed.rsplit_once('.').ok_or_else(|| malformed("has no signature"))?;
        let bad = || Fault::new(Reason::SignatureInvalid, "the signature of the session cookie does not verify");
        // One spelling: no padding, not the URL's alphabet, no loose bits.
        let signature = STANDARD_NO_PAD.decode(signature).map_err(|_| bad())?;
        let verifies = |key: &hmac::Key| hmac::verify(key, id.as_bytes(), &signature).is_ok();
        let secret = self.0.iter().position(verifies).ok_or_else(bad)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~:+/=@".contains(&b);
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(plain) {
            return Err(malformed("holds an id that is no key"));
        }
        Ok(Opened { id: id.to_owned(), secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debug_does_not_show_the_id() {
        let shown = format!("{:?}", Opened { id: "secret-id".into(), secret: 1 });
        assert!(shown.contains("secret: 1") && !shown.contains("secret-id"), "{shown}");
    }

    const SECRET: &str = "keyboard cat of at least 32 bytes!!";
    /// Made by `cookie-signature` 1.2.
    const ID: &str = "q7Yx0m1k2b3c4d5e6f7g8h9i0jKLMNOP";
    const COOKIE: &str = "s%3Aq7Yx0m1k2b3c4d5e6f7g8h9i0jKLMNOP.5CK6%2BRc4xUBpY2KZlDAPA7Z%2FQq%2F8qnQF4e8%2F36lOEGE";

    fn secrets(list: &[&str]) -> CookieSecrets {
        CookieSecrets::new(&list.iter().map(|s| SecretString::from(*s)).collect::<Vec<_>>())
    }

    fn open(value: &str) -> Result<String, Reason> {
        secrets(&[SECRET]).open(value).map(|o| o.id).map_err(|f| f.reason)
    }

    #[test]
    fn c01_what_the_npm_module_signs_is_verified() {
        assert_eq!(open(COOKIE), Ok(ID.into()));
        let plain = "s:q7Yx0m1k2b3c4d5e6f7g8h9i0jKLMNOP.5CK6+Rc4xUBpY2KZlDAPA7Z/Qq/8qnQF4e8/36lOEGE";
        assert_eq!(open(plain), Ok(ID.into()));
        // An id with dots is cut at the last one.
        assert_eq!(open("s%3Aa.b.c.YdMO%2FL5WYMwgOPZ%2BPPsEkYNdwc2K2%2BaYUqCNHDL5Dv4"), Ok("a.b.c".into()));
        let uuid = "0b7c0a5e-6f0d-4a67-8f2b-0e8f3e2f7d11";
        assert_eq!(open(&format!("s%3A{uuid}.Etc5BigEziiHvlMCKr3P%2FytaivivbBR%2FopitGCe%2FGD8")), Ok(uuid.into()));
        let cyrillic = secrets(&["ключ"]).open("s:abc.D8RTxnFeiWRgK0jj6i0Nfgg4GC+hlSYxuO06j12YmZs").unwrap();
        assert_eq!(cyrillic.id, "abc");
    }

    #[test]
    fn c01_anything_else_is_refused() {
        let forged = [
            COOKIE.replace("q7Yx", "q7Yy"),
            COOKIE.replace("OEGE", "OEGF"),
            COOKIE.replace("5CK6", "6CK6"),
            COOKIE[..COOKIE.len() - 1].to_owned(),
            format!("{COOKIE}="),
            format!("{COOKIE}%3D"),
            COOKIE.replace("%2B", "-").replace("%2F", "_"),
            format!("s%3A{ID}."),
            format!("s%3A{ID}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            // Somebody else's signature.
            format!("s%3A{ID}.YdMO%2FL5WYMwgOPZ%2BPPsEkYNdwc2K2%2BaYUqCNHDL5Dv4"),
        ];
        for cookie in forged {
            assert_eq!(open(&cookie), Err(Reason::SignatureInvalid), "{cookie}");
        }
        for cookie in
            ["", "s", "s:", ID, &COOKIE[4..], &COOKIE.replace("s%3A", "j%3A"), &COOKIE.replace('.', ""), "s%3A%ff.x"]
        {
            assert_eq!(open(cookie), Err(Reason::CredentialMalformed), "{cookie}");
        }
        assert_eq!(open(&format!("s:{}.x", "a".repeat(1 << 20))), Err(Reason::CredentialMalformed));
    }

    #[test]
    fn c02_a_signed_id_that_is_no_key_is_refused_behind_its_signature() {
        for cookie in [
            "s%3Awith%20space.e3a8DPDhndL0SM%2BcDWqQ9sSFiE6fVIL35Ajnsmqv4H4",
            "s%3Asess*.dZrohqAagDmjvbLOIXrNfa3tafnp8%2F%2F4rceBHyRNoDs",
            "s%3A%C3%A9.%2FeU%2BB0zrD9BLZ9nbmNyt4im%2FF9t2bq%2B4gV680TvIV7k",
            &format!("s:{}.ualBlFRumOjPdRo3wiZKIrTQR3Oi7ZCt10Ljj1sU7OI", "x".repeat(257)),
        ] {
            assert_eq!(open(cookie), Err(Reason::CredentialMalformed), "{cookie}");
            let unsigned = cookie.replace(['D', 'j'], "A");
            assert_eq!(open(&unsigned), Err(Reason::SignatureInvalid), "{unsigned}");
        }
    }

    #[test]
    fn c07_any_secret_verifies_and_its_place_is_told() {
        let old = "s:abc.rWFQl5VL0ye7zXu/bAuGcPI1EkkF8vLDN0+Lj2b4dmI";
        assert_eq!(secrets(&[SECRET, "old secret"]).open(old), Ok(Opened { id: "abc".into(), secret: 1 }));
        assert_eq!(secrets(&["old secret", SECRET]).open(old).unwrap().secret, 0);
        assert!(secrets(&[SECRET]).open(old).is_err() && secrets(&[]).open(old).is_err());
        assert!(!format!("{:?}", secrets(&[SECRET])).contains("cat"));
    }

    proptest! {
        #[test]
        fn c01_no_value_makes_it_panic_and_no_stranger_signs(value in "(s:|s%3A)?\\PC{0,60}\\.?[A-Za-z0-9+/%]{0,60}") {
            prop_assert!(open(&value).is_err());
        }
    }
}
