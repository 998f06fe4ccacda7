//! Ids that stand for a session without giving its key away.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Mac;
use sha2::{Digest, Sha256};

use super::{HmacSha256, keyed};
use crate::{config::Secret, session::SessionKey};

/// Makes `sid` and `rev`, keyed by SECRET_KEY or `sid_key`: they can be neither turned back nor made up, and
/// differ for each upstream.
#[derive(Clone)]
pub struct Opaque {
    sid: HmacSha256,
    rev: HmacSha256,
}

impl Opaque {
    /// Derives the key from a secret, as Django derives its own from SECRET_KEY: SHA-256 of a salt
    /// and the secret.
    pub fn new(secret: &Secret) -> Self {
        let mac = keyed(
            &Sha256::new()
                .chain_update("session-gateway.sid")
                .chain_update(secret.expose())
                .finalize(),
        );
        Self {
            sid: mac.clone().chain_update(b"sid\0"),
            rev: mac.chain_update(b"rev\0"),
        }
    }

    /// The `sid` claim: the same as long as the session's key is. 128 bits, base64url.
    pub fn sid(&self, aud: &str, key: &SessionKey) -> String {
        let mac = self
            .sid
            .clone()
            .chain_update(aud)
            .chain_update(b"\0")
            .chain_update(key.as_str());
        URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..16])
    }

    /// The `rev` claim: the version of the `session` member that an upstream is sent. 96 bits,
    /// base64url.
    ///
    /// What the upstream is not sent has no part in it, so that a change it cannot see never fails
    /// its `"if"`.
    pub fn rev(&self, aud: &str, sid: &str, session: &str) -> String {
        let mac = self.rev.clone().chain_update(aud).chain_update(b"\0");
        let mac = mac
            .chain_update(sid)
            .chain_update(b"\0")
            .chain_update(session);
        URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..12])
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opaque(redacted)")
    }
}
