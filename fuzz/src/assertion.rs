//! The receiver's side of `X-Session`: what it takes for a token.
//!
//! Input: a byte that says what the rest is. `0`: a token. `1`: a payload, which is signed here. `2`: a
//! header on the first line and a payload, signed here together. `3`: a place (two bytes) and another byte
//! for it in a good token.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use session_gateway::assertion::{
    Signer, TYP, verify,
    verify::{BadToken, Key},
};
use sha2::Sha256;

use super::first_line;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: i64 = 1_764_000_005;
const GOOD: &str =
    r#"{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"sub":"42"}"#;

static PRIVATE_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));
static PUBLIC_KEY: LazyLock<VerifyingKey> = LazyLock::new(|| PRIVATE_KEY.verifying_key());
static TOKENS: LazyLock<[String; 2]> = LazyLock::new(|| {
    [
        Signer::hs256("shared", SECRET).sign(GOOD.as_bytes()),
        Signer::eddsa("public", &PRIVATE_KEY).sign(GOOD.as_bytes()),
    ]
});

fn read(token: &str) -> Result<Value, BadToken> {
    let keys = [
        ("shared", Key::Hs256(SECRET)),
        ("public", Key::EdDsa(&PUBLIC_KEY)),
    ];
    verify(token, &keys, Some("gw.shop.example"), "orders", NOW)
}

/// Runs the target.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match (kind.wrapping_sub(b'0') % 4, rest) {
        (1, payload) => check_payload(payload),
        (2, rest) => check_header(first_line(rest).0, first_line(rest).1),
        (3, [high, low, byte, ..]) => {
            check_changed(usize::from(*high) * 256 + usize::from(*low), *byte);
        }
        (_, token) => check_token(token),
    }
}

/// Nobody makes a token without a key; the two good ones are all there are.
fn check_token(token: &[u8]) {
    let Ok(token) = std::str::from_utf8(token) else {
        return;
    };
    if read(token).is_ok() {
        let (signed, signature) = token.rsplit_once('.').expect("it has three parts");
        assert!(signature == sign(signed) || TOKENS.iter().any(|good| good == token));
    }
}

/// A signed payload counts only where it is for this receiver, and now.
fn check_payload(payload: &[u8]) {
    let token = Signer::hs256("shared", SECRET).sign(payload);
    let claims: Option<Value> = serde_json::from_slice(payload).ok();
    let good = claims.filter(|claims| {
        let is = |name: &str, text: &str| claims[name].as_str() == Some(text);
        let time = |name: &str| claims[name].as_i64().map(i128::from);
        let (Some(from), Some(until)) = (time("iat"), time("exp")) else {
            return false;
        };
        let now = i128::from(NOW);
        is("iss", "gw.shop.example") && is("aud", "orders") && from - 30 <= now && now <= until + 30
    });
    assert_eq!(read(&token).ok(), good);
}

/// A header cannot choose how it is verified: the key alone knows.
fn check_header(header: &[u8], payload: &[u8]) {
    let payload = if payload.is_empty() {
        GOOD.as_bytes()
    } else {
        payload
    };
    let signed = [header, payload]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let token = format!("{signed}.{}", sign(&signed));
    if read(&token).is_ok() {
        let header: Value = serde_json::from_slice(header).expect("a header is JSON");
        let expected = serde_json::json!({"alg": "HS256", "kid": "shared", "typ": TYP});
        assert_eq!(header, expected);
    }
    // The public key is no secret: whoever takes it for one must not get in.
    let mut mac = Hmac::<Sha256>::new_from_slice(PUBLIC_KEY.as_bytes()).expect("any length");
    mac.update(signed.as_bytes());
    let forged = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    for signature in [&*forged, ""] {
        assert!(read(&format!("{signed}.{signature}")).is_err());
    }
}

fn check_changed(place: usize, byte: u8) {
    for token in &*TOKENS {
        assert!(read(token).is_ok());
        let mut changed = token.clone().into_bytes();
        let place = place % changed.len();
        if changed[place] == byte {
            continue;
        }
        changed[place] = byte;
        if let Ok(changed) = String::from_utf8(changed) {
            assert!(read(&changed).is_err(), "{changed}");
        }
    }
}

fn sign(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length");
    mac.update(text.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}
