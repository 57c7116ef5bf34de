//! Which key is asked, when another one is fetched for it, and how long old ones serve.

use super::*;

#[test]
fn j04_an_encryption_key_verifies_nothing() {
    for more in [json!({"use": "enc"}), json!({"use": null, "key_ops": ["encrypt"]}), json!({"alg": "RSA-OAEP"})] {
        let gate = fetched(issuer(&[]), &[with(RSA.jwk(), more.clone()), P256.jwk()]);
        assert_eq!(reason(&gate, &RSA.token(&claims(json!({})))), Reason::KeyUnknown, "{more}");
    }
}

#[test]
fn j25_keys_of_one_kid_are_all_tried() {
    let twins = [with(OTHER_RSA.jwk(), json!({"kid": "rsa-1"})), RSA.jwk(), with(P256.jwk(), json!({"kid": "rsa-1"}))];
    let gate = fetched(issuer(&[]), &twins);
    assert!(gate.verify(&RSA.token(&claims(json!({}))), NOW).is_ok());
    assert!(gate.verify(&OTHER_RSA.with_header(json!({"kid": "rsa-1"}), &claims(json!({}))), NOW).is_ok());
    assert!(gate.verify(&P256.with_header(json!({"kid": "rsa-1"}), &claims(json!({}))), NOW).is_ok());
    let no_kid = |pair: &Pair| pair.with_header(json!({"kid": null}), &claims(json!({})));
    assert!(gate.verify(&no_kid(&RSA), NOW).is_ok(), "few enough keys to try");

    let many: Vec<_> = (0..5).map(|at| with(OTHER_RSA.jwk(), json!({"kid": format!("k{at}")}))).collect();
    let crowd = fetched(issuer(&[]), &[many, vec![P256.jwk()]].concat());
    let refused = refusal(&crowd, &no_kid(&OTHER_RSA));
    assert_eq!((refused.reason, refused.need_key), (Reason::KeyUnknown, None), "another fetch would not help");
    assert!(crowd.verify(&no_kid(&P256), NOW).is_ok());
}

#[test]
fn j26_only_fetched_issuers_ask_for_keys() {
    let token = OTHER_RSA.token(&claims(json!({})));
    let need = |kid: Option<&str>| Some(NeedKey { issuer: 0, kid: kid.map(String::from) });
    let remote = fetched(issuer(&[]), &[RSA.jwk()]);
    assert_eq!(refusal(&remote, &token).need_key, need(Some("rsa-2")));
    // A bad signature under a known kid is no reason to fetch; where no kid decides, a key may have been replaced.
    let forged = OTHER_RSA.with_header(json!({"kid": "rsa-1"}), &claims(json!({})));
    let refused = refusal(&remote, &forged);
    assert_eq!((refused.reason, refused.need_key), (Reason::SignatureInvalid, None));
    let nameless = OTHER_RSA.with_header(json!({"kid": null}), &claims(json!({})));
    let refused = refusal(&remote, &nameless);
    assert_eq!((refused.reason, refused.need_key), (Reason::SignatureInvalid, need(None)));

    for material in [Material::Jwks(jwks(&[RSA.jwk()])), Material::Pem(RSA.public_pem.clone().into())] {
        let (gate, _) = verifier(&[(issuer(&[]), material)]);
        assert!(gate.verify(&RSA.token(&claims(json!({}))), NOW).is_ok());
        for bad in [&token, &forged, &nameless] {
            assert_eq!(refusal(&gate, bad).need_key, None);
        }
    }
}

#[test]
fn j27_a_new_set_counts_at_once() {
    let (gate, store) = verifier(&[(issuer(&[]), Material::Remote)]);
    let set = |pair: &Pair| KeySet::from_jwks(&jwks(&[pair.jwk()]), &[Algorithm::Rs256]).unwrap().0;
    let (old, new) = (RSA.token(&claims(json!({}))), OTHER_RSA.token(&claims(json!({}))));
    let unloaded = refusal(&gate, &old);
    assert_eq!(unloaded.reason, Reason::KeysUnavailable);
    assert_eq!(unloaded.need_key, Some(NeedKey { issuer: 0, kid: None }));
    store.replace(0, set(&RSA), NOW);
    assert!(gate.verify(&old, NOW).is_ok());
    assert_eq!(reason(&gate, &new), Reason::KeyUnknown);
    store.replace(0, set(&OTHER_RSA), NOW);
    assert!(gate.verify(&new, NOW).is_ok());
    assert_eq!(reason(&gate, &old), Reason::KeyUnknown);
}

#[test]
fn j28_stale_keys_serve_until_max_stale() {
    for max_stale in [0, 60] {
        let section = Issuer { max_stale: Duration::from_secs(max_stale), ..issuer(&[]) };
        let (gate, store) = verifier(&[(section, Material::Remote)]);
        let set = KeySet::from_jwks(&jwks(&[RSA.jwk()]), &[Algorithm::Rs256]).unwrap().0;
        store.replace(0, set, NOW - 1_000_000);
        let token = RSA.token(&claims(json!({})));
        assert!(gate.verify(&token, NOW).is_ok(), "old, but no fetch failed");
        store.fail(0, NOW);
        if max_stale > 0 {
            assert!(gate.verify(&token, NOW + max_stale - 1).is_ok());
        }
        let refused = gate.verify(&token, NOW + max_stale).unwrap_err();
        assert_eq!(refused.reason, Reason::KeysUnavailable, "503, not 401");
        assert_eq!(refused.need_key, Some(NeedKey { issuer: 0, kid: None }));
        store.confirm(0, NOW);
        assert!(gate.verify(&token, NOW + max_stale).is_ok());
    }
}

#[test]
fn the_previous_secret_is_good_during_rotation() {
    let previous = "previous-previous-previous-previous";
    let both = Material::Secrets(vec![SECRET.into(), previous.into()]);
    let (gate, _) = verifier(&[(secret_issuer(&[]), both)]);
    for (key, good) in [(SECRET, true), (previous, true), ("another-another-another-another-another", false)] {
        for header in [json!({}), json!({"kid": "whatever"})] {
            let token = hmac_token("HS256", key.as_bytes(), header, &claims(json!({})));
            assert_eq!(gate.verify(&token, NOW).is_ok(), good);
        }
    }
}
