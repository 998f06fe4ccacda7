//! The keys that tokens may be signed with.

use std::{collections::BTreeMap, sync::Arc};

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD,
    },
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{
    Reason, Refused,
    error::{SettingsError, shown},
};

/// The shortest secret, in bytes: as long as what HMAC-SHA256 makes.
const MIN_SECRET: usize = 32;

/// Gives what belongs to a `kid`.
type ByKid = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// A key knows its algorithm, so that a token cannot choose one (RFC 8725, 3.1).
enum Key {
    Hs256(Vec<u8>),
    #[cfg(feature = "eddsa")]
    EdDsa(ed25519_dalek::VerifyingKey),
}

/// What belongs to a `kid` and how it is read.
enum Kind {
    Secret,
    #[cfg(feature = "eddsa")]
    PublicKey,
}

impl Kind {
    fn read(&self, bytes: &[u8]) -> Result<Key, String> {
        match self {
            Self::Secret => secret(bytes).map(Key::Hs256),
            #[cfg(feature = "eddsa")]
            Self::PublicKey => public_key(bytes).map(Key::EdDsa),
        }
    }
}

/// Keys that were given, and functions that give others.
#[derive(Default)]
pub(crate) struct Keys {
    fixed: BTreeMap<String, Key>,
    functions: Vec<(Kind, ByKid)>,
}

impl Keys {
    pub(crate) fn add_secret(&mut self, kid: &str, bytes: &[u8]) -> Result<(), SettingsError> {
        self.add(kid, Kind::Secret, bytes)
    }

    #[cfg(feature = "eddsa")]
    pub(crate) fn add_public_key(&mut self, kid: &str, x: &str) -> Result<(), SettingsError> {
        self.add(kid, Kind::PublicKey, x.as_bytes())
    }

    fn add(&mut self, kid: &str, kind: Kind, bytes: &[u8]) -> Result<(), SettingsError> {
        let wrong = |rule: String| SettingsError(format!("the key {}: {rule}", shown(kid)));
        if !is_kid(kid) {
            return Err(wrong(format!("its kid is not {KID}")));
        }
        let key = kind.read(bytes).map_err(wrong)?;
        match self.fixed.insert(kid.to_owned(), key) {
            None => Ok(()),
            Some(_) => Err(wrong("it is given twice".to_owned())),
        }
    }

    pub(crate) fn add_secrets_by(&mut self, function: ByKid) {
        self.functions.push((Kind::Secret, function));
    }

    #[cfg(feature = "eddsa")]
    pub(crate) fn add_public_keys_by(&mut self, function: ByKid) {
        self.functions.push((Kind::PublicKey, function));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.functions.is_empty()
    }

    /// Refuses a signature that is not one of the key `kid`, or an algorithm that is not the key's.
    pub(crate) fn check(
        &self,
        kid: &str,
        algorithm: &str,
        signed: &str,
        signature: &[u8],
    ) -> Result<(), Refused> {
        let unknown = |detail: String| Refused::new(Reason::UnknownKid, detail);
        if !is_kid(kid) {
            return Err(unknown(format!("its kid is not {KID}")));
        }
        if let Some(key) = self.fixed.get(kid) {
            return key.check(kid, algorithm, signed, signature);
        }
        for (kind, function) in &self.functions {
            if let Some(bytes) = function(kid) {
                let key = kind.read(&bytes).map_err(|rule| {
                    unknown(format!("what was given for the kid {}: {rule}", shown(kid)))
                })?;
                return key.check(kid, algorithm, signed, signature);
            }
        }
        Err(unknown(format!("no key has the kid {}", shown(kid))))
    }
}

impl Key {
    fn check(
        &self,
        kid: &str,
        algorithm: &str,
        signed: &str,
        signature: &[u8],
    ) -> Result<(), Refused> {
        let (own, fits) = match self {
            Self::Hs256(secret) => (
                "HS256",
                algorithm == "HS256"
                    && Hmac::<Sha256>::new_from_slice(secret)
                        .is_ok_and(|mac| mac.chain_update(signed).verify_slice(signature).is_ok()),
            ),
            #[cfg(feature = "eddsa")]
            Self::EdDsa(public_key) => (
                "EdDSA",
                algorithm == "EdDSA"
                    && ed25519_dalek::Signature::from_slice(signature).is_ok_and(|signature| {
                        public_key
                            .verify_strict(signed.as_bytes(), &signature)
                            .is_ok()
                    }),
            ),
        };
        if algorithm != own {
            let detail = format!("the key {} is for {own} only", shown(kid));
            return Err(Refused::new(Reason::Algorithm, detail));
        }
        if !fits {
            let detail = format!("the signature is not one of the key {}", shown(kid));
            return Err(Refused::new(Reason::Signature, detail));
        }
        Ok(())
    }
}

/// What a kid is, as a clause.
const KID: &str = "1 to 64 of A-Z a-z 0-9 . _ -";

/// Whether a key can have this kid. What a stranger may have written goes to no function, and into no line of a log,
/// before this.
fn is_kid(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// A secret as the gateway reads it.
fn secret(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let text = match bytes.strip_suffix(b"\n") {
        Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
        None => bytes,
    };
    let secret = match text.strip_prefix(b"base64:") {
        Some(encoded) => decode(encoded).ok_or("what follows base64: is not base64")?,
        None => text.to_vec(),
    };
    if secret.len() < MIN_SECRET {
        let length = secret.len();
        return Err(format!(
            "the secret has {length} bytes; at least {MIN_SECRET} are needed"
        ));
    }
    Ok(secret)
}

/// Base64 of either alphabet, with or without padding.
fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(encoded);
    decode(&STANDARD).or_else(|_| decode(&URL_SAFE)).ok()
}

/// The `x` of an Ed25519 JWK.
#[cfg(feature = "eddsa")]
fn public_key(x: &[u8]) -> Result<ed25519_dalek::VerifyingKey, String> {
    base64url(x)
        .and_then(|raw| <[u8; 32]>::try_from(raw).ok())
        .and_then(|raw| ed25519_dalek::VerifyingKey::from_bytes(&raw).ok())
        .ok_or_else(|| "the x of an Ed25519 JWK is 32 bytes in base64url".to_owned())
}

/// Base64url as tokens have it: without padding, and no bits left over.
pub(crate) fn base64url(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_as_the_gateway_reads_them() {
        let raw = b"0123456789abcdef0123456789abcde\xff";
        let encoded = [
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZf8=",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZf8",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZf8=\n",
        ];
        for text in encoded {
            assert_eq!(secret(format!("base64:{text}").as_bytes()).unwrap(), raw);
        }
        for end in ["", "\n", "\r\n"] {
            let text = [&raw[..], end.as_bytes()].concat();
            assert_eq!(secret(&text).unwrap(), raw, "{end:?}");
        }
        assert_eq!(secret(&[&raw[..], b"\n\n"].concat()).unwrap().len(), 33);
        assert!(secret(b"0123456789012345678901234567890\n").is_err());
        assert!(secret(b"base64:!").is_err());
    }
}
