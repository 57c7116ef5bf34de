use super::*;
use crate::auth::jose::Algorithm;
use crate::auth::keys::KeySet;
use crate::auth::rules::Material;
use crate::auth::testing::{ED, ISSUER, NOW, P256, P384, RSA, b64, issuer, verifier};
use crate::auth::verifier::Verifier;
use crate::config::model::issuers::Issuer;
use crate::reason::Reason;

fn identity() -> Identity {
    Identity {
        issuer: ISSUER.into(),
        subject: "alice".into(),
        expires_at: NOW + 600,
        ends_at: NOW + 605,
        jti: Some("token-jti".into()),
        session: Some("idp-sid".into()),
        issued_at: None,
        claims: Default::default(),
        hold: None,
    }
}

/// A backend: it knows the gate's document and its own name.
fn backend(signer: &Signer, audience: &str) -> Verifier {
    let section = Issuer {
        issuer: Some("siogate".into()),
        audience: vec![audience.into()],
        leeway: std::time::Duration::ZERO,
        typ: vec![TYPE.into()],
        ..issuer(&["ES256", "EdDSA"])
    };
    verifier(&[(section, Material::Jwks(signer.jwks().into_bytes()))]).0
}

fn signers() -> [Signer; 3] {
    [
        Signer::generate().unwrap(),
        Signer::from_pem(ED.private_pem.as_bytes()).unwrap(),
        Signer::from_pem(P256.private_pem.as_bytes()).unwrap(),
    ]
}

#[test]
fn p25_a_backend_can_check_who_the_gate_says_it_is() {
    for signer in signers() {
        let mapped = [("email".to_owned(), json!("a@example.com")), ("roles".to_owned(), json!(["x"]))];
        let token = signer.sign(&identity(), "gate-sid", "chat-backend", &mapped, NOW).unwrap();
        let seen = backend(&signer, "chat-backend").verify(&token, NOW).unwrap();
        assert_eq!((&*seen.subject, seen.session.as_deref()), ("alice", Some("gate-sid")));
        assert_eq!((seen.expires_at, seen.issued_at), (NOW + LIFETIME, Some(NOW)));
        assert_eq!(
            (seen.claims.get("email"), seen.claims.get("roles")),
            (Some(&json!("a@example.com")), Some(&json!(["x"])))
        );
        assert_eq!(seen.claims.get("idp"), Some(&json!(ISSUER)));
        assert!(seen.jti.is_some_and(|jti| *jti != *"token-jti" && jti.len() == 22));
    }
}

#[test]
fn p25_a_backend_refuses_what_is_not_for_it_or_not_by_the_gate() {
    for signer in signers() {
        let sign = |signer: &Signer| signer.sign(&identity(), "s", "chat-backend", &[], NOW).unwrap();
        let gate = backend(&signer, "chat-backend");
        let reason = |token: &str| gate.verify(token, NOW).unwrap_err().reason;
        let other = Signer::generate().unwrap();
        assert_eq!(reason(&sign(&other)), Reason::KeyUnknown);
        let token = sign(&signer);
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(reason(&format!("{message}.")), Reason::SignatureInvalid);
        let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), message.split_once('.').unwrap().1);
        assert_eq!(reason(&unsigned), Reason::AlgorithmNotAllowed);
        assert_eq!(backend(&signer, "elsewhere").verify(&token, NOW).unwrap_err().reason, Reason::AudienceMismatch);
    }
}

#[test]
fn p26_an_assertion_ends_after_a_minute_and_is_never_the_same_twice() {
    let signer = Signer::generate().unwrap();
    let sign = || signer.sign(&identity(), "s", "b", &[], NOW).unwrap();
    let (one, two) = (sign(), sign());
    assert_ne!(one, two);
    let gate = backend(&signer, "b");
    assert!(gate.verify(&one, NOW + 59).is_ok());
    assert_eq!(gate.verify(&one, NOW + 60).unwrap_err().reason, Reason::TokenExpired);
    // Nor does it outlive the right it speaks of.
    let ending = Identity { ends_at: NOW + 7, ..identity() };
    let token = signer.sign(&ending, "s", "b", &[], NOW).unwrap();
    assert_eq!(gate.verify(&token, NOW).unwrap().expires_at, NOW + 7);
    assert!(signer.sign(&Identity { ends_at: u64::MAX, ..identity() }, "s", "b", &[], u64::MAX).is_ok());
}

#[test]
fn a_mapped_claim_never_stands_for_the_gates_own() {
    let signer = Signer::generate().unwrap().with_issuer("siogate");
    let names = ["iss", "sub", "aud", "exp", "iat", "jti", "sid", "idp"];
    let mapped = names.map(|name| (name.to_owned(), json!("forged")));
    let nameless = Identity { issuer: "".into(), ..identity() };
    let token = signer.sign(&nameless, "", "b", &mapped, NOW).unwrap();
    let seen = backend(&signer, "b").verify(&token, NOW).unwrap();
    for (name, value) in seen.claims.iter() {
        assert!(value != "forged" && name != "sid" && name != "idp", "{name}: {value}");
    }
}

#[test]
fn the_published_document_holds_public_keys_only() {
    for signer in signers() {
        let document: Value = serde_json::from_str(&signer.jwks()).unwrap();
        let key = document["keys"][0].as_object().unwrap();
        assert!(["d", "p", "q", "k"].iter().all(|secret| !key.contains_key(*secret)), "{key:?}");
        assert_eq!(key["use"], "sig");
        let allowed = [Algorithm::EdDsa, Algorithm::Es256];
        let (set, skipped) = KeySet::from_jwks(signer.jwks().as_bytes(), &allowed).unwrap();
        assert_eq!((set.len(), skipped.len()), (1, 0));
        let shown = format!("{signer:?}");
        assert!(shown.contains(key["kid"].as_str().unwrap()) && shown.len() < 100, "{shown}");
    }
}

#[test]
fn the_kid_is_the_thumbprint_of_rfc_7638() {
    // RFC 8037 A.1 and A.3.
    let der = [
        &b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..],
        &URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap(),
    ]
    .concat();
    let pem = format!("-----BEGIN PRIVATE KEY-----\r\n{}\r\n-----END PRIVATE KEY-----\r\n", STANDARD.encode(der));
    let document: Value = serde_json::from_str(&Signer::from_pem(pem.as_bytes()).unwrap().jwks()).unwrap();
    assert_eq!(document["keys"][0]["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_eq!(document["keys"][0]["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn only_one_private_key_of_a_known_kind_is_taken() {
    let two = format!("{}{}", ED.private_pem, P256.private_pem);
    let garbage = "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n";
    let empty = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n";
    for (pem, expected) in [
        (RSA.private_pem.as_str(), AssertionError::UnsupportedKey),
        (P384.private_pem.as_str(), AssertionError::UnsupportedKey),
        (empty, AssertionError::UnsupportedKey),
        (ED.public_pem.as_str(), AssertionError::NotPem),
        (two.as_str(), AssertionError::NotPem),
        (garbage, AssertionError::NotPem),
        ("", AssertionError::NotPem),
    ] {
        assert_eq!(Signer::from_pem(pem.as_bytes()).unwrap_err(), expected, "{pem}");
    }
}

#[test]
fn an_openssl_sec1_key_with_its_parameters_is_taken() {
    // What `openssl ecparam -name prime256v1 -genkey` writes: RFC 5915, which is what PKCS#8 wraps.
    let pkcs8 = private_der(P256.private_pem.as_bytes()).unwrap();
    let version_and_key = pkcs8.windows(5).position(|bytes| bytes == [2, 1, 1, 4, 32]).unwrap();
    let sec1 = STANDARD.encode(&pkcs8[version_and_key - 2..]);
    let pem = format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n\
         -----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n"
    );
    let of_pkcs8 = Signer::from_pem(P256.private_pem.as_bytes()).unwrap();
    assert_eq!(Signer::from_pem(pem.as_bytes()).unwrap().jwks(), of_pkcs8.jwks());
}
