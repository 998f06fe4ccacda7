//! `X-Session`: what an upstream is told about the visitor, as one compact JWS.
//!
//! The claims and their order are [`claims`]; which part of a session is told is [`projection`];
//! the ids that stand for a session key are [`opaque`]; how a receiver checks all that is
//! [`mod@verify`], and the public keys for that are [`mod@jwks`]. Here they are signed: HMAC-SHA256
//! (RFC 7518, 3.2) or Ed25519 (RFC 8037, 3.1) over `base64url(header) "." base64url(payload)` (RFC
//! 7515, 5.1), with everything that is the same for each request computed once.

mod base64url;
pub mod claims;
pub mod jwks;
pub mod opaque;
pub mod projection;
pub mod verify;

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub use self::{
    claims::{Claims, Contents, Known, LeftOut, Visitor, Withheld, jti, req},
    jwks::jwks,
    opaque::Opaque,
    projection::{NotPortable, project},
    verify::{BadToken, verify},
};
use crate::json;

/// The `typ` of an assertion: it carries the version, and keeps the token from being taken for
/// another kind (RFC 8725, 3.11).
pub const TYP: &str = "x-session.v1+jwt";

type HmacSha256 = Hmac<Sha256>;

/// Signs with one of an upstream's keys, or with the gateway's own.
#[derive(Clone)]
pub struct Signer {
    /// The encoded header and its dot.
    head: String,
    key: Key,
}

#[derive(Clone)]
enum Key {
    /// Keyed, and fed with `head`.
    Hs256(HmacSha256),
    EdDsa(SigningKey),
}

impl Key {
    /// The length of its signature in base64url: of 32 and of 64 bytes.
    const fn signature_len(&self) -> usize {
        match self {
            Self::Hs256(_) => 43,
            Self::EdDsa(_) => 86,
        }
    }
}

/// A signed assertion. It is a bearer's word for who is calling: never logged.
pub struct Token {
    /// The value of `X-Session`: ASCII, base64url and two dots.
    pub text: String,
    /// Whether the session's contents, or the user's columns, were left out because the token would have been
    /// too large.
    pub too_large: bool,
}

impl Signer {
    /// Prepares signing with HMAC-SHA256. The secret is used as it is, whatever its length (RFC 2104).
    pub fn hs256(kid: &str, secret: &[u8]) -> Self {
        let head = head("HS256", kid);
        let mut mac = keyed(secret);
        mac.update(head.as_bytes());
        Self {
            head,
            key: Key::Hs256(mac),
        }
    }

    /// Prepares signing with Ed25519. `EdDSA` is its name in RFC 8037; libraries do not all know the
    /// newer `Ed25519` (RFC 9864) yet.
    pub fn eddsa(kid: &str, private_key: &SigningKey) -> Self {
        Self {
            head: head("EdDSA", kid),
            key: Key::EdDsa(private_key.clone()),
        }
    }

    /// The signed claims, in at most `max_bytes` where leaving out the session's contents, and then the user's
    /// columns and groups, achieves that.
    pub fn token(&self, claims: &Claims<'_>, max_bytes: usize) -> Token {
        let mut payload = claims.payload(LeftOut::Nothing);
        let mut too_large = false;
        for part in [LeftOut::Session, LeftOut::User] {
            if self.length(payload.len()) > max_bytes && claims.has(part) {
                payload = claims.payload(part);
                too_large = true;
            }
        }
        Token {
            text: self.sign(payload.as_bytes()),
            too_large,
        }
    }

    /// The compact JWS of this payload.
    pub fn sign(&self, payload: &[u8]) -> String {
        let mut token = vec![b'.'; self.length(payload.len())];
        let signed = token.len() - 1 - self.key.signature_len();
        token[..self.head.len()].copy_from_slice(self.head.as_bytes());
        base64url::put(payload, &mut token[self.head.len()..signed]);
        let (message, signature) = token.split_at_mut(signed);
        match &self.key {
            Key::Hs256(mac) => {
                let mut mac = mac.clone();
                mac.update(&message[self.head.len()..]);
                base64url::put(&mac.finalize().into_bytes(), &mut signature[1..]);
            }
            Key::EdDsa(private_key) => {
                let bytes = private_key.sign(message).to_bytes();
                base64url::put(&bytes, &mut signature[1..]);
            }
        }
        // base64url and dots are ASCII.
        String::from_utf8(token).unwrap_or_default()
    }

    /// The length of a token over a payload of so many bytes.
    fn length(&self, payload: usize) -> usize {
        self.head.len() + base64url::length(payload) + 1 + self.key.signature_len()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// The encoded header and its dot.
fn head(alg: &str, kid: &str) -> String {
    let mut header = format!("{{\"alg\":\"{alg}\",\"kid\":");
    json::quote(&mut header, kid);
    header.push_str(",\"typ\":\"");
    header.push_str(TYP);
    header.push_str("\"}");
    let mut head = URL_SAFE_NO_PAD.encode(header);
    head.push('.');
    head
}

/// HMAC-SHA256 with this key. A key of any length is good (RFC 2104, 2), so unlike the crate's own
/// constructor from a slice this one has nothing to refuse.
fn keyed(secret: &[u8]) -> HmacSha256 {
    let mut block = [0; 64];
    if secret.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(secret));
    } else {
        block[..secret.len()].copy_from_slice(secret);
    }
    HmacSha256::new(&block.into())
}

#[cfg(test)]
mod tests;
