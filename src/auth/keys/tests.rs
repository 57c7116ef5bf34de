use super::*;
use crate::auth::jose::Compact;
use crate::auth::testing::{ED, OTHER_RSA, P256, P384, RSA, SECRET, b64, jwks, with};
use serde_json::json;

const USUAL: &[Algorithm] = &[Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

fn one(key: Value, allowed: &[Algorithm]) -> Result<Key, Skipped> {
    match KeySet::from_jwks(&jwks(&[key]), allowed) {
        Ok((mut set, _)) => Ok(set.keys.remove(0)),
        Err(KeysError::NoUsableKey(mut skipped)) => Err(skipped.remove(0)),
        Err(other) => panic!("{other}"),
    }
}

fn why(key: Value) -> String {
    one(key, USUAL).unwrap_err().why
}

#[test]
fn j03_a_key_without_alg_is_pinned_by_its_type_and_the_configuration() {
    use Algorithm::{EdDsa, Es256, Es384, Ps256, Rs256, Rs512};
    for (key, allowed, expected) in [
        (RSA.bare(), vec![Rs256], Some(Rs256)),
        (RSA.bare(), vec![Es256, Rs512, Rs256], Some(Rs512)),
        (RSA.bare(), vec![Ps256, Rs256], Some(Ps256)),
        (RSA.bare(), vec![Es256, EdDsa], None),
        (P256.bare(), vec![Rs256, Es256, Es384], Some(Es256)),
        (P256.bare(), vec![Es384], None),
        (P384.bare(), vec![Rs256, Es256, Es384], Some(Es384)),
        (P384.bare(), vec![Es256], None),
        (ED.bare(), vec![Es256, EdDsa], Some(EdDsa)),
        (ED.bare(), vec![Es256], None),
    ] {
        let pinned = one(key, &allowed).ok().map(|key| key.alg);
        assert_eq!(pinned, expected, "{allowed:?}");
    }
}

#[test]
fn j03_a_key_with_alg_is_for_that_one_only() {
    use Algorithm::{Ps256, Rs256, Rs512};
    let key = |alg: &str| with(RSA.bare(), json!({"alg": alg}));
    assert_eq!(one(key("PS256"), &[Rs256, Ps256]).unwrap().alg, Ps256);
    assert_eq!(one(key("RS512"), &[Rs256, Rs512]).unwrap().alg, Rs512);
    assert_eq!(one(key("PS256"), &[Rs256]).unwrap_err().why, "its alg PS256 is not in algorithms");
    assert_eq!(why(key("ES256")), "its type does not fit its alg ES256");
    assert_eq!(why(key("HS256")), "its type does not fit its alg HS256");
    assert_eq!(why(with(P256.bare(), json!({"alg": "ES384"}))), "its type does not fit its alg ES384");
    assert_eq!(one(with(ED.bare(), json!({"alg": "Ed25519"})), USUAL).unwrap().alg, Algorithm::EdDsa);
}

#[test]
fn j04_keys_for_anything_but_verifying_are_skipped() {
    for (more, good) in [
        (json!({"use": "sig"}), true),
        (json!({"use": "sig", "key_ops": ["verify"]}), true),
        (json!({"key_ops": ["sign", "verify"]}), true),
        (json!({"use": "enc"}), false),
        (json!({"use": "SIG"}), false),
        (json!({"use": 1}), false),
        (json!({"key_ops": ["encrypt"]}), false),
        (json!({"key_ops": ["sign"]}), false),
        (json!({"key_ops": []}), false),
        (json!({"key_ops": "verify"}), false),
        (json!({"use": "sig", "key_ops": ["deriveKey"]}), false),
        (json!({"alg": "RSA-OAEP"}), false),
        (json!({"alg": "RSA-OAEP-256"}), false),
        (json!({"alg": "RSA1_5"}), false),
        (json!({"alg": "none"}), false),
        (json!({"alg": "rs256"}), false),
        (json!({"alg": 1}), false),
    ] {
        let key = one(with(RSA.bare(), more.clone()), USUAL);
        assert_eq!(key.is_ok(), good, "{more}: {key:?}");
        assert!(key.err().is_none_or(|skipped| !skipped.alarming), "{more}");
    }
}

#[test]
fn j22_weak_and_impossible_keys_are_skipped() {
    let modulus = |bytes: usize| b64(vec![0xC1_u8; bytes]);
    let rsa = |n: String, e: &[u8]| json!({"kty": "RSA", "n": n, "e": b64(e)});
    let e = [1, 0, 1];
    assert!(why(rsa(modulus(128), &e)).contains("1024 bits"));
    assert!(why(rsa(modulus(255), &e)).contains("2040 bits"));
    assert!(why(rsa(modulus(1025), &e)).contains("8200 bits"));
    assert!(why(rsa(String::new(), &e)).contains("0 bits"));
    // Leading zeros are no bits.
    assert!(why(rsa(b64([vec![0_u8; 200], vec![0xC1; 128]].concat()), &e)).contains("1024 bits"));
    for weak in [&[1][..], &[2], &[0], &[], &[0, 1], &[1, 0, 0]] {
        assert_eq!(why(rsa(modulus(256), weak)), "its exponent is not an odd number above 1", "{weak:?}");
    }
    assert_eq!(why(rsa("AQ==".into(), &e)), "it is not base64url");
    assert_eq!(why(with(P256.bare(), json!({"y": b64([7_u8; 32])}))), "it is not a point of its curve");
    assert_eq!(why(with(P256.bare(), json!({"y": b64([7_u8; 31])}))), "its coordinates have the wrong length");
    assert_eq!(
        why(with(P256.bare(), json!({"x": b64([]), "y": b64([7_u8; 32])}))),
        "its coordinates have the wrong length"
    );
    assert_eq!(why(with(ED.bare(), json!({"x": b64([7_u8; 31])}))), "its coordinates have the wrong length");
    // The bytes of a whole SubjectPublicKeyInfo are no coordinate.
    assert_eq!(why(with(ED.bare(), json!({"x": b64([48_u8; 44])}))), "its coordinates have the wrong length");
}

#[test]
fn j23_secrets_and_private_keys_of_a_document_are_refused_loudly() {
    for key in [
        json!({"kty": "oct", "k": b64(SECRET), "alg": "HS256", "kid": "s"}),
        json!({"kty": "oct"}),
        with(RSA.jwk(), json!({"d": "AA"})),
        with(RSA.jwk(), json!({"p": "AA"})),
        with(P256.jwk(), json!({"d": "AA"})),
        with(ED.jwk(), json!({"d": ""})),
        with(RSA.jwk(), json!({"k": "AA"})),
    ] {
        let allowed = [USUAL, &[Algorithm::Hs256]].concat();
        let skipped = one(key.clone(), &allowed).unwrap_err();
        assert!(skipped.alarming, "{key}: {skipped:?}");
    }
}

#[test]
fn j24_one_bad_key_spoils_no_other() {
    let bad = [
        json!(null),
        json!(7),
        json!("key"),
        json!([]),
        json!({}),
        json!({"kty": "RSA"}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
        json!({"kty": "EC", "crv": "secp256k1", "x": b64([1; 32]), "y": b64([1; 32])}),
        json!({"kty": "EC", "crv": "P-521", "x": b64([1; 66]), "y": b64([1; 66])}),
        json!({"kty": "EC", "crv": "Ed25519", "x": b64([1; 32]), "y": b64([1; 32])}),
        json!({"kty": "OKP", "crv": "P-256", "x": b64([1; 32])}),
        json!({"kty": "OKP", "crv": "X25519", "x": b64([1; 32])}),
        json!({"kty": "OKP", "crv": "Ed448", "x": b64([1; 57])}),
        with(RSA.jwk(), json!({"kid": 5})),
        with(RSA.jwk(), json!({"x5c": "text"})),
        with(RSA.jwk(), json!({"n": 5})),
        with(RSA.jwk(), json!({"kty": "rsa"})),
    ];
    let mut all = bad.to_vec();
    all.push(RSA.jwk());
    all.insert(0, P256.jwk());
    let (set, skipped) = KeySet::from_jwks(&jwks(&all), USUAL).unwrap();
    assert_eq!((set.len(), skipped.len()), (2, bad.len()));
    assert_eq!(skipped.iter().map(|skip| skip.index).collect::<Vec<_>>(), (1..=bad.len()).collect::<Vec<_>>());

    // A name repeated inside of one key, and an unknown member that is none of our business.
    let key = |more: &str| format!(r#"{{{more},{}"#, &RSA.jwk().to_string()[1..]);
    let body = format!(r#"{{"keys":[{},{}],"next":null}}"#, key(r#""kid":"evil""#), key(r#""x":[1,{"y":2}]"#));
    let (set, skipped) = KeySet::from_jwks(body.as_bytes(), USUAL).unwrap();
    assert_eq!((set.len(), skipped[0].why.as_str()), (1, "the key repeats a member name"));
}

#[test]
fn j24_a_document_without_a_usable_key_is_an_error() {
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "<html></html>",
        r#"{"keys":null}"#,
        r#"{"keys":{}}"#,
        r#"{"keys":"x"}"#,
        "\u{1f}\u{8b}",
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[]} x"#,
        r#"{"keys":[}"#,
        r#"{"Keys":[]}"#,
    ] {
        assert_eq!(KeySet::from_jwks(body.as_bytes(), USUAL).unwrap_err(), KeysError::NotAKeySet, "{body}");
    }
    assert_eq!(KeySet::from_jwks(br#"{"keys":[]}"#, USUAL).unwrap_err(), KeysError::NoUsableKey(Vec::new()));
    assert!(KeySet::from_jwks(&jwks(&[P384.jwk()]), USUAL).is_err());
    assert_eq!(KeySet::from_jwks(&vec![b' '; MAX_BODY + 1], USUAL).unwrap_err(), KeysError::TooLarge);
    let deep = format!(r#"{{"keys":[{}1{}]}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(KeySet::from_jwks(deep.as_bytes(), USUAL).is_err());
    let deep = format!(r#"{{"keys":[{{"x":{}1{}}}]}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(KeySet::from_jwks(deep.as_bytes(), USUAL).is_err());
}

#[test]
fn j24_no_more_than_64_keys_are_used() {
    let many: Vec<_> = (0..100).map(|n| with(P256.jwk(), json!({"kid": format!("k{n}")}))).collect();
    let (set, skipped) = KeySet::from_jwks(&jwks(&many), USUAL).unwrap();
    assert_eq!((set.len(), skipped.len()), (MAX_KEYS, 1));
}

#[test]
fn j25_at_most_four_keys_are_tried() {
    let same_kid: Vec<_> = (0..9).map(|_| RSA.jwk()).collect();
    let (set, _) = KeySet::from_jwks(&jwks(&same_kid), USUAL).unwrap();
    let count = |set: &KeySet, kid: Option<&str>, alg| match set.candidates(kid, alg) {
        Candidates::Keys { keys, exact } => Ok((keys.len(), exact)),
        Candidates::Pinned(alg) => Err(alg.name()),
        Candidates::TooMany(_) => Err("too many"),
        Candidates::Unknown => Err("unknown"),
    };
    assert_eq!(count(&set, Some("rsa-1"), Algorithm::Rs256), Ok((4, true)));
    assert_eq!(count(&set, None, Algorithm::Rs256), Err("too many"));
    assert_eq!(count(&set, Some("other"), Algorithm::Rs256), Err("unknown"));
    assert_eq!(count(&set, Some("rsa-1"), Algorithm::Es256), Err("RS256"));

    let nameless = with(RSA.jwk(), json!({"kid": null}));
    let mixed = [nameless.clone(), P256.jwk(), OTHER_RSA.jwk()];
    let (set, _) = KeySet::from_jwks(&jwks(&mixed), USUAL).unwrap();
    assert_eq!(count(&set, None, Algorithm::Rs256), Ok((2, false)));
    assert_eq!(count(&set, None, Algorithm::EdDsa), Err("unknown"));
    assert_eq!(count(&set, Some("rsa-2"), Algorithm::Rs256), Ok((1, true)));
    assert_eq!(count(&set, Some("new"), Algorithm::Rs256), Ok((1, false)), "only the key without a name");
    assert_eq!(count(&set, Some("p256"), Algorithm::Rs256), Err("ES256"), "a name decides");

    let (set, _) = KeySet::from_jwks(&jwks(&[nameless]), USUAL).unwrap();
    assert_eq!(count(&set, Some("any"), Algorithm::Es256), Err("RS256"));
}

#[test]
fn a_pem_file_holds_one_public_key() {
    for (pair, allowed, expected) in [
        (&RSA, USUAL, Algorithm::Rs256),
        (&RSA, &[Algorithm::Ps384, Algorithm::Rs256], Algorithm::Ps384),
        (&P256, USUAL, Algorithm::Es256),
        (&P384, &[Algorithm::Es384], Algorithm::Es384),
        (&ED, USUAL, Algorithm::EdDsa),
    ] {
        let set = KeySet::from_pem(pair.public_pem.as_bytes(), allowed).unwrap();
        let alg = expected.name();
        let signature = URL_SAFE_NO_PAD.decode(pair.signature(alg, "message")).unwrap();
        assert_eq!((set.keys[0].alg, set.len()), (expected, 1));
        assert!(set.keys[0].verify(b"message", &signature) && !set.keys[0].verify(b"massage", &signature), "{alg}");
    }
    let two = format!("{}{}", RSA.public_pem, P256.public_pem);
    let cut = &RSA.public_pem[..RSA.public_pem.len() / 2];
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, expected) in [
        (RSA.private_pem.as_str(), "private key"),
        (P256.private_pem.as_str(), "private key"),
        (ED.private_pem.as_str(), "private key"),
        (P384.public_pem.as_str(), "no algorithm"),
        (two.as_str(), "more than one"),
        (cut, "not a public key"),
        (certificate, "certificate"),
        ("", "no PEM"),
        ("ssh-ed25519 AAAA", "no PEM"),
    ] {
        let error = KeySet::from_pem(pem.as_bytes(), USUAL).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn j21_a_secret_is_at_least_as_long_as_its_hash() {
    for (alg, least) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
        for length in [0, 1, least - 1] {
            let error = KeySet::from_secrets(&["x".repeat(length).into()], &[alg]).unwrap_err().to_string();
            assert!(error.contains(&format!("at least {least}")) && !error.contains("xx"), "{error}");
        }
        assert!(KeySet::from_secrets(&["x".repeat(least).into()], &[alg]).is_ok());
    }
    let short_old = [SECRET.into(), "short".into()];
    assert!(KeySet::from_secrets(&short_old, &[Algorithm::Hs256]).is_err(), "the previous secret too");
    assert!(KeySet::from_secrets(&[], &[Algorithm::Hs256]).is_err());
    assert!(KeySet::from_secrets(&["x".repeat(40).into()], &[Algorithm::Hs256, Algorithm::Hs512]).is_err());
}

#[test]
fn j02_a_public_key_is_no_secret() {
    let pem = RSA.public_pem.as_str();
    for text in [pem.to_owned(), format!("  \n{pem}"), format!("\u{feff}{pem}")] {
        assert!(KeySet::from_secrets(&[text.into()], &[Algorithm::Hs256]).is_err());
    }
    assert!(KeySet::from_secrets(&[SECRET.into()], &[Algorithm::Rs256]).is_err());
}

#[test]
fn debug_shows_no_key() {
    let set = KeySet::from_secrets(&[SECRET.into()], &[Algorithm::Hs256]).unwrap();
    let shown = format!("{set:?}");
    assert!(shown.contains("Hs256") && !shown.contains("0123") && !shown.contains("48"), "{shown}");
}

#[test]
fn j28_age_counts_from_the_last_answer_and_staleness_from_the_first_failure() {
    let store = KeyStore::new(2);
    let set = || KeySet::from_jwks(&jwks(&[RSA.jwk()]), USUAL).unwrap().0;
    assert!(store.get(0).is_none() && store.get(7).is_none());
    store.fail(0, 5);
    store.replace(7, set(), 5);
    store.replace(0, set(), 100);
    assert_eq!((store.age(0, 130), store.age(1, 130)), (Some(30), None));
    let stale = |now| store.get(0).and_then(|loaded| loaded.stale_for(now));
    assert_eq!(stale(1000), None, "old, but nobody failed");
    store.fail(0, 200);
    store.fail(0, 250);
    assert_eq!(stale(260), Some(60));
    assert_eq!(stale(190), Some(0), "a clock set back");
    store.confirm(0, 300);
    assert_eq!((stale(400), store.age(0, 310)), (None, Some(10)));
    store.fail(0, 400);
    store.replace(0, set(), 500);
    assert_eq!((stale(600), store.age(0, 600)), (None, Some(100)));
}

#[test]
fn vectors_of_rfc_7515_and_rfc_8037_verify() {
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    // RFC 7515 A.2, A.3; RFC 8037 A.4.
    let rsa = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    for (key, message, signature) in [
        (
            rsa,
            format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}"),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            ec,
            format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            ed,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".into(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let key = one(key, USUAL).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(key.verify(message.as_bytes(), &signature), "{key:?}");
        assert!(!key.verify(format!("{message}A").as_bytes(), &signature), "{key:?}");
    }
    // RFC 7515 A.1: its secret is not text, so it cannot be configured, but the HMAC is the same.
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let secret = Box::new(hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(secret).unwrap()));
    let key = Key { kid: None, alg: Algorithm::Hs256, material: Material::Secret(secret) };
    let token =
        format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let token = Compact::parse(&token).ok().unwrap();
    assert!(key.verify(token.signing_input, &token.signature));
    assert_eq!(token.claims["exp"], 1_300_819_380);
}

#[test]
fn j18_ecdsa_signatures_of_impossible_numbers_are_refused() {
    // The order of P-256.
    let n = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let n: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&n[at..at + 2], 16).unwrap()).collect();
    let (zero, one_, max) = ([0_u8; 32], [[0_u8; 31].as_slice(), &[1]].concat(), [0xff_u8; 32]);
    let key = one(P256.jwk(), USUAL).unwrap();
    let numbers: [&[u8]; 4] = [&zero, &one_, &n, &max];
    for r in numbers {
        for s in numbers {
            assert!(!key.verify(b"message", &[r, s].concat()));
        }
    }
    let good = URL_SAFE_NO_PAD.decode(P256.signature("ES256", "message")).unwrap();
    assert!(key.verify(b"message", &good));
    let (r, s) = good.split_at(32);
    let der = [&[0x30, 70, 2, 33, 0][..], r, &[2, 33, 0], s].concat();
    let wide = [&[0][..], r, &[0], s].concat();
    for bad in [&good[..63], &[good.clone(), vec![0]].concat(), &der, &wide, &[], r, &[s, r].concat()] {
        assert!(!key.verify(b"message", bad), "{}", bad.len());
    }
}
