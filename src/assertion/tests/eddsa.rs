//! Ed25519: tokens and the published keys, against the vector that jose has verified.

use ed25519_dalek::VerifyingKey;

use super::*;
use crate::assertion::verify::Key;

/// A signing key that stands for "the gateway's".
fn private_key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn vectors_key(vectors: &Value) -> VerifyingKey {
    let bytes = URL_SAFE_NO_PAD
        .decode(text(vectors, "/eddsa/jwks/keys/0/x"))
        .unwrap();
    VerifyingKey::from_bytes(&bytes.try_into().unwrap()).unwrap()
}

#[test]
fn the_vectors_token_is_believed_under_its_published_key_only() {
    let vectors = vectors();
    let (token, public_key) = (text(&vectors, "/eddsa/token"), vectors_key(&vectors));
    let believed = |kid, key| verify(token, &[(kid, key)], Some("gw.shop.example"), "orders", AT);
    let claims = believed("gw-2025-11", Key::EdDsa(&public_key)).unwrap();
    assert_eq!(claims["sub"], "42");
    assert_eq!(
        believed("gw-2025-12", Key::EdDsa(&public_key)),
        Err(BadToken::Kid)
    );
    let other = private_key(1).verifying_key();
    assert_eq!(
        believed("gw-2025-11", Key::EdDsa(&other)),
        Err(BadToken::Signature)
    );
}

#[test]
fn a_token_differs_from_the_vectors_in_its_signature_only() {
    let vectors = vectors();
    let theirs = text(&vectors, "/eddsa/token");
    let payload = theirs.split('.').nth(1).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let ours = Signer::eddsa("gw-2025-11", &private_key(1)).sign(&payload);
    let signed = |token: &str| token.rsplit_once('.').unwrap().0.to_owned();
    assert_eq!(signed(&ours), signed(theirs));
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn the_published_keys_are_the_vectors() {
    let vectors = vectors();
    let public_key = vectors_key(&vectors);
    let published = jwks([("gw-2025-11", &public_key)]);
    assert_eq!(
        serde_json::from_str::<Value>(&published).unwrap(),
        vectors["eddsa"]["jwks"]
    );
    let both = jwks([("gw-2025-11", &public_key), ("a \"b\"", &public_key)]);
    let both: Value = serde_json::from_str(&both).unwrap();
    assert_eq!(both["keys"][1]["kid"], "a \"b\"");
    assert_eq!(jwks([]), r#"{"keys":[]}"#);
}

#[test]
fn the_key_says_the_algorithm_never_the_token() {
    let private_key = private_key(7);
    let public_key = private_key.verifying_key();
    let payload = br#"{"aud":"orders","iat":1764000000,"exp":1764000060}"#;
    let at = |token: &str, key| verify(token, &[("k", key)], None, "orders", AT).err();
    let eddsa = Signer::eddsa("k", &private_key).sign(payload);
    assert_eq!(at(&eddsa, Key::EdDsa(&public_key)), None);
    assert_eq!(
        at(&eddsa, Key::Hs256(public_key.as_bytes())),
        Some(BadToken::Header)
    );
    // The classic confusion: the public key, which everybody has, taken for a shared secret.
    let forged = Signer::hs256("k", public_key.as_bytes()).sign(payload);
    assert_eq!(at(&forged, Key::EdDsa(&public_key)), Some(BadToken::Header));
    let renamed = forged.replacen(&head("HS256", "k"), &head("EdDSA", "k"), 1);
    assert_eq!(
        at(&renamed, Key::EdDsa(&public_key)),
        Some(BadToken::Signature)
    );
}

#[test]
fn a_token_is_as_long_as_it_is_said_to_be() {
    let signer = Signer::eddsa("kid", &private_key(3));
    for length in 0..10 {
        let payload = vec![b'x'; length];
        assert_eq!(signer.length(length), signer.sign(&payload).len());
    }
}

#[test]
fn debug_shows_no_key() {
    let signer = Signer::eddsa("kid", &private_key(3));
    assert_eq!(format!("{signer:?}"), "Signer(redacted)");
}
