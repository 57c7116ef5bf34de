//! Which algorithm may verify what: the issuer and the key say it, never the token.

use super::*;

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_others() {
    for (pair, alg) in [
        (&*RSA, "RS256"),
        (&RSA, "RS384"),
        (&RSA, "RS512"),
        (&RSA, "PS256"),
        (&RSA, "PS384"),
        (&RSA, "PS512"),
        (&P256, "ES256"),
        (&P384, "ES384"),
        (&ED, "EdDSA"),
        (&ED, "Ed25519"),
    ] {
        let key = with(pair.jwk(), json!({"alg": alg}));
        let gate = fetched(issuer(&[alg]), &[key]);
        let header = json!({"alg": alg, "kid": pair.kid}).to_string();
        let token = pair.raw(alg, &header, &claims(json!({})).to_string());
        assert_eq!(&*gate.verify(&token, NOW).unwrap().subject, "alice", "{alg}");

        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[10] ^= 1;
        assert_eq!(reason(&gate, &format!("{message}.{}", b64(&bytes))), Reason::SignatureInvalid, "{alg}");
        assert_eq!(reason(&gate, &format!("{message}.")), Reason::SignatureInvalid, "{alg}: empty");
        let other = pair.raw(alg, &header, &claims(json!({"sub": "bob"})).to_string());
        let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
        assert_eq!(reason(&gate, &swapped), Reason::SignatureInvalid, "{alg}: another payload");
    }
    for alg in ["HS256", "HS384", "HS512"] {
        let (gate, _) = verifier(&[(secret_issuer(&[alg]), secret(SECRET))]);
        let token = hmac_token(alg, SECRET.as_bytes(), json!({}), &claims(json!({})));
        assert_eq!(&*gate.verify(&token, NOW).unwrap().subject, "alice", "{alg}");
        let forged = hmac_token(alg, b"0123456789abcdef", json!({}), &claims(json!({})));
        assert_eq!(reason(&gate, &forged), Reason::SignatureInvalid, "{alg}");
        let other = if alg == "HS256" { "HS512" } else { "HS256" };
        let token = hmac_token(other, SECRET.as_bytes(), json!({}), &claims(json!({})));
        assert_eq!(reason(&gate, &token), Reason::AlgorithmNotAllowed, "{alg}");
    }
}

#[test]
fn j01_unsigned_tokens_are_refused() {
    let gate = everything();
    for alg in ["none", "None", "NONE", "nOnE", "", "RS256 ", "rs256", "ES512", "HS256k"] {
        let header = json!({"alg": alg, "kid": "rsa-1"}).to_string();
        let unsigned = format!("{}.{}.", b64(&header), b64(claims(json!({})).to_string()));
        assert_eq!(reason(&gate, &unsigned), Reason::AlgorithmNotAllowed, "{alg}");
        let signed = RSA.raw("RS256", &header, &claims(json!({})).to_string());
        assert_eq!(reason(&gate, &signed), Reason::AlgorithmNotAllowed, "{alg}");
    }
}

#[test]
fn j02_a_public_key_never_verifies_an_hmac() {
    let secrets = [
        RSA.public_pem.clone().into_bytes(),
        RSA.public_pem.trim().as_bytes().to_vec(),
        RSA.jwk().to_string().into_bytes(),
        RSA.bare().to_string().into_bytes(),
        RSA.bare()["n"].as_str().unwrap().as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(RSA.bare()["n"].as_str().unwrap()).unwrap(),
        Vec::new(),
    ];
    let with_secret = verifier(&[
        (issuer(&["RS256"]), Material::Pem(RSA.public_pem.clone().into())),
        (secret_issuer(&["HS256"]), secret(SECRET)),
    ]);
    for key in secrets {
        for header in [json!({"kid": "rsa-1"}), json!({})] {
            let token = hmac_token("HS256", &key, header, &claims(json!({})));
            assert_eq!(reason(&everything(), &token), Reason::AlgorithmNotAllowed);
            assert_eq!(reason(&with_secret.0, &token), Reason::SignatureInvalid);
        }
    }
}

#[test]
fn j02_a_shared_secret_does_not_speak_for_an_issuer_with_keys() {
    let (gate, _) = verifier(&[
        (issuer(&["RS256"]), Material::Pem(RSA.public_pem.clone().into())),
        (secret_issuer(&["HS256"]), secret(SECRET)),
    ]);
    let by_secret = hmac_token("HS256", SECRET.as_bytes(), json!({}), &claims(json!({})));
    let by_key = RSA.token(&claims(json!({})));
    let (by_secret, by_key) = (gate.verify(&by_secret, NOW).unwrap(), gate.verify(&by_key, NOW).unwrap());
    assert_eq!((&*by_secret.issuer, &*by_key.issuer), ("", ISSUER));
    assert!(!by_secret.same_user(&by_key), "whatever iss the secret's owner wrote into the token");
}

#[test]
fn j03_the_token_does_not_choose_the_algorithm_of_a_key() {
    let ps256 = |header: Value| RSA.raw("PS256", &header.to_string(), &claims(json!({})).to_string());
    let token = ps256(json!({"alg": "PS256", "kid": "rsa-1"}));
    let no_alg = with(RSA.bare(), json!({"kid": "rsa-1"}));
    for (key, names, expected) in [
        (no_alg.clone(), &["RS256"][..], Reason::AlgorithmNotAllowed),
        (no_alg.clone(), &["RS256", "PS256"], Reason::AlgorithmNotAllowed),
        (RSA.jwk(), &["RS256", "PS256"], Reason::AlgorithmNotAllowed),
    ] {
        assert_eq!(reason(&fetched(issuer(names), &[key]), &token), expected, "{names:?}");
    }
    assert!(fetched(issuer(&["PS256", "RS256"]), &[no_alg]).verify(&token, NOW).is_ok());
    // The header lies about what was done: a PS256 signature called RS256.
    let gate = fetched(issuer(&["RS256"]), &[RSA.jwk()]);
    assert_eq!(reason(&gate, &ps256(json!({"alg": "RS256", "kid": "rsa-1"}))), Reason::SignatureInvalid);
}

#[test]
fn j19_a_malleable_signature_makes_another_text_and_the_same_identity() {
    let n = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let n: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&n[at..at + 2], 16).unwrap()).collect();
    let gate = everything();
    let token = P256.token(&claims(json!({"jti": "j", "sid": "s"})));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i32::from(n[at]) - i32::from(bytes[32 + at]) - borrow;
        borrow = i32::from(digit < 0);
        bytes[32 + at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    let twin = format!("{message}.{}", b64(&bytes));
    assert_ne!(twin, token);
    assert_eq!(gate.verify(&twin, NOW).unwrap(), gate.verify(&token, NOW).unwrap());
}

#[test]
fn j31_both_names_of_ed25519_verify_under_either_configuration() {
    for configured in ["EdDSA", "Ed25519"] {
        for published in [json!("EdDSA"), json!("Ed25519"), json!(null)] {
            let gate = fetched(issuer(&[configured]), &[with(ED.jwk(), json!({"alg": published}))]);
            for said in ["EdDSA", "Ed25519"] {
                let token = ED.with_header(json!({"alg": said}), &claims(json!({})));
                assert!(gate.verify(&token, NOW).is_ok(), "{configured} {published} {said}");
            }
        }
    }
}

#[test]
fn every_changed_character_of_a_token_is_noticed() {
    let (by_secret, _) = verifier(&[(secret_issuer(&[]), secret(SECRET))]);
    let secret_token = hmac_token("HS256", SECRET.as_bytes(), json!({}), &claims(json!({})));
    for (gate, token) in [(everything(), ED.token(&claims(json!({})))), (by_secret, secret_token)] {
        assert!(gate.verify(&token, NOW).is_ok());
        for at in 0..token.len() {
            for with in ["A", "B", "_", "."] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, with);
                assert!(changed == token || gate.verify(&changed, NOW).is_err(), "{with} at {at}");
            }
            assert!(gate.verify(&token[..at], NOW).is_err(), "cut at {at}");
        }
    }
}
