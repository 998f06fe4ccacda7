//! The receiver's side: what an upstream does with `X-Session`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::Mac;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::{TYP, keyed};

/// How far the receiver's clock may be off, in seconds.
const SKEW: i64 = 30;

/// Why a token is refused. Answer 401 or 500: the request did not come through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadToken {
    /// Not three parts of base64url.
    #[error("not a compact JWS")]
    Format,
    /// Another `typ`, an `alg` that is not the key's, or header members that this version does not
    /// know.
    #[error("not a token of this version, or not of the key's algorithm")]
    Header,
    /// A `kid` that is not among the keys.
    #[error("signed with an unknown key")]
    Kid,
    /// The signature does not fit.
    #[error("the signature does not fit")]
    Signature,
    /// The payload lacks a claim that is always there, or is no JSON object.
    #[error("a claim is missing or of another type")]
    Claims,
    /// For another upstream, or from another gateway.
    #[error("for another audience or from another issuer")]
    Party,
    /// Before `iat` or after `exp`.
    #[error("not good at this time")]
    Time,
}

/// A key that a token may be signed with. It knows its algorithm, so that the token cannot choose
/// one (RFC 8725, 3.1).
#[derive(Clone, Copy)]
pub enum Key<'a> {
    /// The secret that is shared with the gateway.
    Hs256(&'a [u8]),
    /// The gateway's public key.
    EdDsa(&'a VerifyingKey),
}

impl Key<'_> {
    const fn algorithm(self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn fits(self, signed: &str, signature: &[u8]) -> bool {
        match self {
            Self::Hs256(secret) => keyed(secret)
                .chain_update(signed)
                .verify_slice(signature)
                .is_ok(),
            Self::EdDsa(public_key) => Signature::from_slice(signature)
                .and_then(|signature| public_key.verify_strict(signed.as_bytes(), &signature))
                .is_ok(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// The claims of a token that one of `keys`, each with its `kid`, signed for `aud`, and that is good
/// at `now` (Unix seconds) within 30 s.
///
/// # Errors
///
/// [`BadToken`]. Nothing of the payload is looked at before the signature fits.
pub fn verify(
    token: &str,
    keys: &[(&str, Key<'_>)],
    iss: Option<&str>,
    aud: &str,
    now: i64,
) -> Result<Value, BadToken> {
    let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::Format)?;
    let (head, body) = signed.split_once('.').ok_or(BadToken::Format)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| BadToken::Format);
    let (signature, header, payload) = (decode(signature)?, decode(head)?, decode(body)?);

    let header: Header = serde_json::from_slice(&header).map_err(|_| BadToken::Header)?;
    if header.typ != TYP {
        return Err(BadToken::Header);
    }
    let (_, key) = keys
        .iter()
        .find(|(kid, _)| *kid == header.kid)
        .ok_or(BadToken::Kid)?;
    if header.alg != key.algorithm() {
        return Err(BadToken::Header);
    }
    if !key.fits(signed, &signature) {
        return Err(BadToken::Signature);
    }

    let claims: Value = serde_json::from_slice(&payload).map_err(|_| BadToken::Claims)?;
    let text = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .ok_or(BadToken::Claims)
    };
    let time = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_i64)
            .ok_or(BadToken::Claims)
    };
    if text("aud")? != aud || iss.is_some_and(|iss| text("iss") != Ok(iss)) {
        return Err(BadToken::Party);
    }
    if !(time("iat")?.saturating_sub(SKEW)..=time("exp")?.saturating_add(SKEW)).contains(&now) {
        return Err(BadToken::Time);
    }
    Ok(claims)
}
