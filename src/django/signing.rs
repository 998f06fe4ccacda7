//! `django.core.signing` and `django.utils.crypto.salted_hmac`: keyed MACs, and base62 timestamps.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;

/// Digits before upper-case letters before lower-case ones (django/core/signing.py, `BASE62_ALPHABET`).
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Which hash a release derives its keys and MACs with.
#[derive(Clone, Copy)]
pub(super) enum Algorithm {
    Sha1,
    Sha256,
}

/// `salted_hmac(salt, message, secret)` for one salt and one secret, with the key already absorbed.
#[derive(Clone)]
pub(super) enum SaltedHmac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

impl SaltedHmac {
    /// Derives the key: a plain digest of salt and secret, with nothing between them.
    pub(super) fn new(algorithm: Algorithm, salt: &str, secret: &Secret) -> Self {
        match algorithm {
            Algorithm::Sha1 => {
                let derived = Sha1::new()
                    .chain_update(salt)
                    .chain_update(secret.expose())
                    .finalize();
                Self::Sha1(Hmac::new(&padded(&derived).into()))
            }
            Algorithm::Sha256 => {
                let derived = Sha256::new()
                    .chain_update(salt)
                    .chain_update(secret.expose())
                    .finalize();
                Self::Sha256(Hmac::new(&padded(&derived).into()))
            }
        }
    }

    /// The MAC of a message.
    pub(super) fn mac(&self, message: &[u8]) -> Tag {
        match self {
            Self::Sha1(keyed) => {
                Tag::new(&keyed.clone().chain_update(message).finalize().into_bytes())
            }
            Self::Sha256(keyed) => {
                Tag::new(&keyed.clone().chain_update(message).finalize().into_bytes())
            }
        }
    }
}

/// A key of one hash block. HMAC fills a shorter key with zeros (RFC 2104, section 2); doing it here
/// makes the constructor one that cannot fail.
fn padded(derived: &[u8]) -> [u8; 64] {
    let mut key = [0; 64];
    for (to, from) in key.iter_mut().zip(derived) {
        *to = *from;
    }
    key
}

/// A MAC. It is only ever compared as text, like Django does: a presented MAC that decodes to the same
/// bytes but is spelt otherwise (padding, case, unused trailing bits) is no MAC.
pub(super) struct Tag {
    bytes: [u8; 32],
    len: usize,
}

impl Tag {
    fn new(mac: &[u8]) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(mac) {
            *to = *from;
        }
        Self {
            bytes,
            len: mac.len(),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Lower-case hexadecimal.
    pub(super) fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(2 * self.len);
        for byte in self.as_bytes() {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        hex
    }

    /// URL-safe base64 without padding.
    pub(super) fn to_base64(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.as_bytes())
    }

    /// Whether `presented` is this MAC in hexadecimal, in constant time.
    pub(super) fn is_hex(&self, presented: &[u8]) -> bool {
        self.to_hex().as_bytes().ct_eq(presented).into()
    }

    /// Whether `presented` is this MAC in base64, in constant time.
    pub(super) fn is_base64(&self, presented: &[u8]) -> bool {
        self.to_base64().as_bytes().ct_eq(presented).into()
    }
}

/// Writes a number as Django's timestamps are (`b62_encode`).
pub fn base62(number: i64) -> String {
    if number == 0 {
        return "0".into();
    }
    let mut rest = number.unsigned_abs();
    let mut reversed = Vec::with_capacity(12);
    while rest > 0 {
        reversed.push(BASE62[(rest % 62) as usize]);
        rest /= 62;
    }
    if number < 0 {
        reversed.push(b'-');
    }
    reversed.iter().rev().copied().map(char::from).collect()
}

/// Reads what [`base62`] writes (`b62_decode`).
///
/// As in Django a sign alone is zero, and an empty text is none at all. Python's integers have no end;
/// what is beyond an `i64` becomes its nearest, since only whether it is a number matters to a session.
pub fn parse_base62(text: &str) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut number = 0_i64;
    for byte in digits.bytes() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        let digit = i64::from(digit);
        let signed = if negative { -digit } else { digit };
        number = number.saturating_mul(62).saturating_add(signed);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "django-insecure-2#q0y$3d!v6l8m1w@t5r7n9p^s4u_x&z*c(e)g-i=k+o";

    #[test]
    fn the_key_is_derived_as_django_derives_it() {
        // Python: salted_hmac(salt, "message", SECRET, algorithm=...).hexdigest()
        let secret = Secret::from(SECRET);
        let sha1 = SaltedHmac::new(
            Algorithm::Sha1,
            "django.contrib.sessionsSessionStore",
            &secret,
        );
        assert_eq!(
            sha1.mac(br#"{"a":1}"#).to_hex(),
            "ce5ddb528fd08d6848cbdd89fa5d440b08387df4"
        );
        let salt = "django.contrib.sessions.SessionStoresigner";
        let sha256 = SaltedHmac::new(Algorithm::Sha256, salt, &secret);
        let tag = sha256.mac(b"eyJhIjoxfQ:1r31eq");
        assert_eq!(
            tag.to_base64(),
            "esFYhW1H8q95Pxy_MvQUJU0xQ-jSRdXnVcm8lGGrwv4"
        );
    }

    #[test]
    fn a_mac_is_compared_as_text() {
        let keyed = SaltedHmac::new(Algorithm::Sha1, "salt", &Secret::from("key"));
        let tag = keyed.mac(b"message");
        let (hex, base64) = (tag.to_hex(), tag.to_base64());
        assert!(tag.is_hex(hex.as_bytes()) && tag.is_base64(base64.as_bytes()));
        assert!(!tag.is_hex(hex.to_uppercase().as_bytes()));
        assert!(!tag.is_base64(format!("{base64}=").as_bytes()));
        assert!(!tag.is_hex(b"") && !tag.is_base64(b""));
        assert!(!tag.is_hex(&hex.as_bytes()[..39]) && !tag.is_base64(&base64.as_bytes()[..26]));
    }

    #[test]
    fn base62_reads_what_python_reads() {
        assert_eq!(parse_base62(""), None);
        assert_eq!(parse_base62("-"), Some(0));
        assert_eq!(parse_base62("-0"), Some(0));
        assert_eq!(parse_base62("--1"), None);
        assert_eq!(parse_base62("1r31eq"), Some(1_700_000_000));
        assert_eq!(parse_base62("!!"), None);
        assert_eq!(parse_base62("1 "), None);
        assert_eq!(parse_base62("é"), None);
        assert_eq!(parse_base62(&"z".repeat(400)), Some(i64::MAX));
        assert_eq!(base62(i64::MIN), "-AzL8n0Y58m8");
        assert_eq!(base62(i64::MAX), "AzL8n0Y58m7");
    }

    proptest! {
        #[test]
        fn base62_comes_back(number: i64) {
            prop_assert_eq!(parse_base62(&base62(number)), Some(number));
        }

        #[test]
        fn base62_never_panics(text: String) {
            let _ = parse_base62(&text);
        }
    }
}
