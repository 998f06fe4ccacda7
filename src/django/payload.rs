//! The `session_data` column: a signed envelope round the session's JSON, in both of its formats.

use std::{borrow::Cow, fmt, iter};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, Utc};

use super::{
    encoding::{decode_base64, decode_base64_url, deflate, inflate},
    settings::Settings,
    signing::{Algorithm, SaltedHmac, base62, parse_base62},
};
use crate::session::Session;

/// Why a row cannot be read.
///
/// Django takes most of these for an empty session under the same key, which its next save overwrites.
/// Here they are errors: who cannot read a session must not say that nobody is logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// No configured key has signed the row.
    #[error(
        "no configured key has signed it: secret_key is not the site's SECRET_KEY (or secret_key_fallbacks, salt \
         or release differ), or the row was tampered with"
    )]
    Signature,
    /// The signature holds, or is not even reached, but the row is not built as Django builds one.
    #[error(
        "the row is not built as Django builds one: something else has written it, or cut it off"
    )]
    Malformed,
    /// It is larger than the configuration allows.
    #[error("the session is larger than limits.session_data or, inflated, limits.session_json")]
    TooLarge,
    /// The signed payload is a Python pickle. It is never executed.
    #[error(
        "it is a pickle, which is never read: the site uses the PickleSerializer; set SESSION_SERIALIZER to \
             the JSONSerializer"
    )]
    Pickle,
    /// The signed payload is not a JSON object that Django would read.
    #[error(
        "the session is signed, but it is not a JSON object: the site has a serializer of its own"
    )]
    NotJson,
}

/// Reads and writes `session_data` as one site does, with its keys derived once.
#[derive(Clone)]
pub struct Codec {
    modern: Modern,
    /// Set where the site reads rows of before 3.1.
    legacy: Option<Legacy>,
    writes_legacy: bool,
    session_data: usize,
    session_json: usize,
}

impl Codec {
    /// Derives the keys of a site.
    pub fn new(settings: &Settings) -> Self {
        let release = settings.release;
        Self {
            modern: Modern::new(settings),
            legacy: release.reads_legacy().then(|| Legacy::new(settings)),
            writes_legacy: release.writes_legacy(),
            session_data: settings.session_data,
            session_json: settings.session_json,
        }
    }

    /// Reads a row's `session_data`.
    ///
    /// Rows of the format since 3.1 are read whatever the release, so that a site can be upgraded
    /// before its gateway; the older format, and SHA-1 signatures, only where the release reads them.
    /// The row's own timestamp decides nothing, as in Django: `expire_date` does.
    ///
    /// # Errors
    ///
    /// Every row that Django fails on, or takes for an empty session because it cannot read it; and
    /// pickles, JSON that is no object, and rows over the limits.
    pub fn decode(&self, row: &str) -> Result<Session, Unreadable> {
        if row.len() > self.session_data {
            return Err(Unreadable::TooLarge);
        }
        let payload = match (self.modern.open(row, self.session_json), &self.legacy) {
            (Err(Unreadable::Signature), Some(legacy)) => legacy.open(row).map_err(|cause| {
                // The older format has no colon: this row is of the newer one.
                if row.contains(':') {
                    Unreadable::Signature
                } else {
                    cause
                }
            })?,
            (opened, _) => opened?,
        };
        if payload.len() > self.session_json {
            return Err(Unreadable::TooLarge);
        }
        // A pickle of protocol 2 or later, which is what Django wrote, starts with this opcode; JSON cannot.
        if payload.first() == Some(&0x80) {
            return Err(Unreadable::Pickle);
        }
        Session::parse(payload).map_err(|_| Unreadable::NotJson)
    }

    /// Whether a row that [`decode`](Self::decode) reads has the signature that [`encode`](Self::encode) makes: by
    /// SECRET_KEY, not by a fallback. Rows of the format before 3.1 know no fallbacks.
    pub fn is_current(&self, row: &str) -> bool {
        self.writes_legacy || self.modern.is_current(row)
    }

    /// Whose signature a row bears; `None` where no configured key has signed it, in no format that the
    /// release reads. For whoever looks into a row: [`Codec::decode`] asks the same.
    pub fn seal(&self, row: &str) -> Option<Seal> {
        match (self.modern.verified(row), &self.legacy) {
            (Some((_, seal)), _) => Some(seal),
            (None, Some(legacy)) => legacy.open(row).is_ok().then_some(Seal {
                format: Format::Legacy,
                key: 0,
            }),
            (None, None) => None,
        }
    }

    /// Writes a session, signed with SECRET_KEY, never with a fallback. `now` becomes its timestamp.
    pub fn encode(&self, session: &Session, now: DateTime<Utc>) -> String {
        let payload = session.to_json();
        match &self.legacy {
            Some(legacy) if self.writes_legacy => legacy.seal(payload.as_bytes()),
            _ => self.modern.seal(payload.as_bytes(), now),
        }
    }
}

/// The contents of a row whose signature nobody has checked: for finding out why none fits. Never to be believed.
///
/// `None` for what is not built as Django builds a row, or is larger than `limit` bytes.
pub fn unverified(row: &str, limit: usize) -> Option<Session> {
    let payload = match row.rsplit_once(':') {
        Some((signed, _)) => open_body(signed, limit).ok()?,
        None => {
            let mut decoded = decode_base64(row).ok()?;
            let colon = decoded.iter().position(|byte| *byte == b':')?;
            decoded.drain(..=colon);
            decoded
        }
    };
    if payload.len() > limit {
        return None;
    }
    Session::parse(payload).ok()
}

/// Whose signature a row bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seal {
    /// How the row is built.
    pub format: Format,
    /// 0 is SECRET_KEY; from 1 on, the place in SECRET_KEY_FALLBACKS.
    pub key: usize,
}

/// How a row is built and signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// As Django writes rows since 3.1.
    Modern,
    /// The same with a SHA-1 MAC, as 3.1 wrote with DEFAULT_HASHING_ALGORITHM = 'sha1'.
    ModernSha1,
    /// As Django wrote them before 3.1.
    Legacy,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec(redacted)")
    }
}

/// The format since 3.1: `body:timestamp:signature` (`signing.dumps` with `compress=True`).
#[derive(Clone)]
struct Modern {
    signing: SaltedHmac,
    /// The keys that only verify.
    verifying: Vec<(SaltedHmac, Seal)>,
}

impl Modern {
    fn new(settings: &Settings) -> Self {
        let salt = format!("{}signer", settings.salt);
        let release = settings.release;
        let fallbacks = settings
            .secret_key_fallbacks
            .iter()
            .filter(|_| release.reads_fallbacks());
        let mut verifying: Vec<_> = fallbacks
            .zip(1..)
            .map(|(secret, key)| {
                let format = Format::Modern;
                let keyed = SaltedHmac::new(Algorithm::Sha256, &salt, secret);
                (keyed, Seal { format, key })
            })
            .collect();
        if release.reads_sha1() {
            let format = Format::ModernSha1;
            let keyed = SaltedHmac::new(Algorithm::Sha1, &salt, &settings.secret_key);
            verifying.push((keyed, Seal { format, key: 0 }));
        }
        Self {
            signing: SaltedHmac::new(Algorithm::Sha256, &salt, &settings.secret_key),
            verifying,
        }
    }

    fn open(&self, row: &str, limit: usize) -> Result<Vec<u8>, Unreadable> {
        let (signed, _) = self.verified(row).ok_or(Unreadable::Signature)?;
        open_body(signed, limit)
    }

    /// What was signed, and with which key.
    fn verified<'a>(&self, row: &'a str) -> Option<(&'a str, Seal)> {
        const CURRENT: Seal = Seal {
            format: Format::Modern,
            key: 0,
        };
        let (signed, signature) = row.rsplit_once(':')?;
        let others = self.verifying.iter().map(|(keyed, seal)| (keyed, *seal));
        iter::once((&self.signing, CURRENT))
            .chain(others)
            .find(|(keyed, _)| keyed.mac(signed.as_bytes()).is_base64(signature.as_bytes()))
            .map(|(_, seal)| (signed, seal))
    }

    fn is_current(&self, row: &str) -> bool {
        row.rsplit_once(':').is_none_or(|(signed, signature)| {
            let mac = self.signing.mac(signed.as_bytes());
            mac.is_base64(signature.as_bytes())
        })
    }

    fn seal(&self, payload: &[u8], now: DateTime<Utc>) -> String {
        let mut row = String::new();
        match deflate(payload).filter(|compressed| compressed.len() + 1 < payload.len()) {
            Some(compressed) => {
                row.push('.');
                URL_SAFE_NO_PAD.encode_string(compressed, &mut row);
            }
            None => URL_SAFE_NO_PAD.encode_string(payload, &mut row),
        }
        row.push(':');
        row.push_str(&base62(now.timestamp()));
        let signature = self.signing.mac(row.as_bytes()).to_base64();
        row.push(':');
        row.push_str(&signature);
        row
    }
}

/// The payload in `body:timestamp`.
fn open_body(signed: &str, limit: usize) -> Result<Vec<u8>, Unreadable> {
    let (body, timestamp) = signed.rsplit_once(':').ok_or(Unreadable::Malformed)?;
    parse_base62(timestamp).ok_or(Unreadable::Malformed)?;
    match body.strip_prefix('.') {
        Some(compressed) => inflate(&decode_base64_url(compressed)?, limit),
        None => decode_base64_url(body),
    }
}

/// The format before 3.1: base64 of `mac:payload`, the MAC in hexadecimal. Fallback keys never count.
#[derive(Clone)]
struct Legacy(SaltedHmac);

impl Legacy {
    fn new(settings: &Settings) -> Self {
        const PREFIX: &str = "django.contrib.sessions";
        // The older salt is the same prefix and class name without the dot between them.
        let class = settings
            .salt
            .strip_prefix(PREFIX)
            .and_then(|class| class.strip_prefix('.'));
        let salt = class.map_or(Cow::Borrowed(&*settings.salt), |class| {
            format!("{PREFIX}{class}").into()
        });
        Self(SaltedHmac::new(
            Algorithm::Sha1,
            &salt,
            &settings.secret_key,
        ))
    }

    fn open(&self, row: &str) -> Result<Vec<u8>, Unreadable> {
        let mut decoded = decode_base64(row)?;
        let colon = decoded
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(Unreadable::Malformed)?;
        if !self.0.mac(&decoded[colon + 1..]).is_hex(&decoded[..colon]) {
            return Err(Unreadable::Signature);
        }
        decoded.drain(..=colon);
        Ok(decoded)
    }

    fn seal(&self, payload: &[u8]) -> String {
        let mut plain = self.0.mac(payload).to_hex().into_bytes();
        plain.push(b':');
        plain.extend_from_slice(payload);
        STANDARD.encode(plain)
    }
}

#[cfg(test)]
mod tests;
