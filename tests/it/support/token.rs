//! `X-Session` checked as an upstream would, by code that is not the gateway's.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::ISSUER;

/// The `kid` of an upstream.
pub fn kid(upstream: &str) -> String {
    format!("{upstream}-1")
}

/// The secret of an upstream.
pub fn secret(upstream: &str) -> String {
    format!("secret-of-{upstream}-0123456789-0123456789")
}

/// The claims of a token for this upstream. Panics where anything but its time is wrong.
#[track_caller]
pub fn claims(token: &str, upstream: &str) -> Value {
    let parts: Vec<_> = token.split('.').collect();
    let [head, payload, signature] = parts[..] else {
        panic!("not a token: {token}")
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret(upstream).as_bytes()).unwrap();
    mac.update(format!("{head}.{payload}").as_bytes());
    mac.verify_slice(&BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap())
        .expect("the token's signature");
    let decode = |part: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let head = decode(head);
    assert_eq!(
        (&head["alg"], &head["typ"]),
        (&"HS256".into(), &"x-session.v1+jwt".into())
    );
    assert_eq!(head["kid"], kid(upstream));
    let claims = decode(payload);
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&ISSUER.into(), &upstream.into())
    );
    claims
}

/// The `req` claim of a request.
pub fn req(method: &str, host: &str, target: &str) -> String {
    let bytes: Vec<u8> = format!("{method} {host} {target}")
        .chars()
        .map(|c| c as u8)
        .collect();
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}
