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

    /// Writes a session, signed with SECRET_KEY, never with a fallback. `now` becomes its timestamp.
    pub fn encode(&self, session: &Session, now: DateTime<Utc>) -> String {
        let payload = session.to_json();
        match &self.legacy {
            Some(legacy) if self.writes_legacy => legacy.seal(payload.as_bytes()),
            _ => self.modern.seal(payload.as_bytes(), now),
        }
    }
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
    verifying: Vec<SaltedHmac>,
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
            .map(|secret| SaltedHmac::new(Algorithm::Sha256, &salt, secret))
            .collect();
        if release.reads_sha1() {
            verifying.push(SaltedHmac::new(
                Algorithm::Sha1,
                &salt,
                &settings.secret_key,
            ));
        }
        Self {
            signing: SaltedHmac::new(Algorithm::Sha256, &salt, &settings.secret_key),
            verifying,
        }
    }

    fn open(&self, row: &str, limit: usize) -> Result<Vec<u8>, Unreadable> {
        let (signed, signature) = row.rsplit_once(':').ok_or(Unreadable::Signature)?;
        let verified = iter::once(&self.signing)
            .chain(&self.verifying)
            .any(|keyed| keyed.mac(signed.as_bytes()).is_base64(signature.as_bytes()));
        if !verified {
            return Err(Unreadable::Signature);
        }
        let (body, timestamp) = signed.rsplit_once(':').ok_or(Unreadable::Malformed)?;
        parse_base62(timestamp).ok_or(Unreadable::Malformed)?;
        match body.strip_prefix('.') {
            Some(compressed) => inflate(&decode_base64_url(compressed)?, limit),
            None => decode_base64_url(body),
        }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{config::Secret, django::settings::Release};

    const SECRET: &str = "django-insecure-2#q0y$3d!v6l8m1w@t5r7n9p^s4u_x&z*c(e)g-i=k+o";
    const MODERN: &str = "eyJhIjoxfQ:1r31eq:esFYhW1H8q95Pxy_MvQUJU0xQ-jSRdXnVcm8lGGrwv4";
    const MODERN_SHA1: &str = "eyJhIjoxfQ:1r31eq:rNGCjk0on3lM-Fzg4Qgq_Qi1OLg";
    const LEGACY: &str = "Y2U1ZGRiNTI4ZmQwOGQ2ODQ4Y2JkZDg5ZmE1ZDQ0MGIwODM4N2RmNDp7ImEiOjF9";

    fn settings(release: Release) -> Settings {
        Settings {
            release,
            ..Settings::new(SECRET)
        }
    }

    fn codec(release: Release) -> Codec {
        Codec::new(&settings(release))
    }

    fn session(json: &str) -> Session {
        Session::parse(json.as_bytes().to_vec()).unwrap()
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_secs(1_700_000_000).unwrap()
    }

    /// A row with a good signature over anything.
    fn signed(codec: &Codec, body: &str) -> String {
        let signed = format!("{body}:1r31eq");
        let signature = codec.modern.signing.mac(signed.as_bytes()).to_base64();
        format!("{signed}:{signature}")
    }

    fn decoded(codec: &Codec, row: &str) -> Result<String, Unreadable> {
        codec.decode(row).map(|session| session.to_json())
    }

    #[test]
    fn each_format_is_read_by_the_releases_that_read_it() {
        for (release, sha1, legacy) in [
            (Release(2, 2), false, true),
            (Release(3, 1), true, true),
            (Release(3, 2), true, true),
            (Release(4, 0), false, false),
            (Release(6, 1), false, false),
        ] {
            let codec = codec(release);
            let expected = |reads: bool| {
                if reads {
                    Ok(r#"{"a":1}"#.into())
                } else {
                    Err(Unreadable::Signature)
                }
            };
            assert_eq!(decoded(&codec, MODERN), expected(true), "{release:?}");
            assert_eq!(decoded(&codec, LEGACY), expected(legacy), "{release:?}");
            assert_eq!(decoded(&codec, MODERN_SHA1), expected(sha1), "{release:?}");
        }
    }

    #[test]
    fn each_release_writes_its_own_format() {
        let a = session(r#"{"a":1}"#);
        assert_eq!(codec(Release(3, 0)).encode(&a, now()), LEGACY);
        for release in [Release(3, 1), Release(3, 2), Release(4, 0), Release(6, 1)] {
            assert_eq!(codec(release).encode(&a, now()), MODERN);
        }
    }

    #[test]
    fn a_fallback_key_reads_since_4_1_and_never_signs() {
        for (release, reads) in [
            (Release(3, 2), false),
            (Release(4, 0), false),
            (Release(4, 1), true),
        ] {
            let mut settings = settings(release);
            settings.secret_key = Secret::from("new");
            settings.secret_key_fallbacks = vec![Secret::from("unrelated"), Secret::from(SECRET)];
            let rotated = Codec::new(&settings);
            assert_eq!(decoded(&rotated, MODERN).is_ok(), reads, "{release:?}");
            assert!(rotated.decode(LEGACY).is_err(), "{release:?}");
            let row = rotated.encode(&session(r#"{"a":1}"#), now());
            settings.secret_key_fallbacks.clear();
            assert!(Codec::new(&settings).decode(&row).is_ok(), "{release:?}");
            assert!(codec(release).decode(&row).is_err(), "{release:?}");
        }
    }

    #[test]
    fn the_salt_follows_the_class_in_both_formats() {
        let mut other = settings(Release(3, 0));
        other.salt = "django.contrib.sessions.MyStore".into();
        let other = Codec::new(&other);
        assert_eq!(decoded(&other, MODERN), Err(Unreadable::Signature));
        assert_eq!(decoded(&other, LEGACY), Err(Unreadable::Signature));
        // Python: salted_hmac("django.contrib.sessionsMyStore", b'{"a":1}', SECRET).hexdigest()
        let row = "MTRlNjI2YmFlNTVjN2U0NTE3YTU5ZjMyNDA2MTkzZTQ3MDM0Yzc4NDp7ImEiOjF9";
        assert_eq!(other.encode(&session(r#"{"a":1}"#), now()), row);
    }

    #[test]
    fn a_payload_is_compressed_only_where_it_saves_two_bytes() {
        let codec = codec(Release(4, 2));
        for length in 0..200 {
            let session = session(&format!(
                r#"{{"a":"{}"}}"#,
                "0123456789".repeat(20)[..length].to_owned()
            ));
            let row = codec.encode(&session, now());
            let json = session.to_json();
            let compressed = deflate(json.as_bytes()).map_or(usize::MAX, |stream| stream.len());
            assert_eq!(
                row.starts_with('.'),
                compressed < json.len() - 1,
                "{length}"
            );
            assert_eq!(decoded(&codec, &row), Ok(json));
        }
    }

    #[test]
    fn a_session_over_a_limit_is_refused_however_small_its_row_is() {
        let bomb = session(&format!(r#"{{"a":"{}"}}"#, "a".repeat(1 << 20)));
        let length = bomb.to_json().len();
        for release in [Release(3, 0), Release(4, 2)] {
            for (limit, fits) in [
                (length, true),
                (length - 1, false),
                (1 << 16, false),
                (0, false),
            ] {
                let mut settings = settings(release);
                (settings.session_data, settings.session_json) = (usize::MAX, limit);
                let codec = Codec::new(&settings);
                let row = codec.encode(&bomb, now());
                let expected = if fits {
                    Ok(length)
                } else {
                    Err(Unreadable::TooLarge)
                };
                assert_eq!(
                    codec.decode(&row).map(|session| session.to_json().len()),
                    expected
                );
                settings.session_data = row.len() - 1;
                assert_eq!(
                    Codec::new(&settings).decode(&row).err(),
                    Some(Unreadable::TooLarge)
                );
                (settings.session_data, settings.session_json) = (row.len(), usize::MAX);
                assert!(Codec::new(&settings).decode(&row).is_ok());
            }
        }
    }

    #[test]
    fn what_is_signed_but_no_session_is_named() {
        let codec = codec(Release(4, 2));
        let of = |payload: &[u8]| {
            codec
                .decode(&signed(&codec, &URL_SAFE_NO_PAD.encode(payload)))
                .err()
        };
        assert_eq!(of(b"\x80\x04}\x94."), Some(Unreadable::Pickle));
        for payload in [
            &b""[..],
            b"[]",
            b"null",
            b"\"a\"",
            b"{",
            b"\xef\xbb\xbf{}",
            b"{} x",
        ] {
            assert_eq!(of(payload), Some(Unreadable::NotJson), "{payload:?}");
        }
        for body in ["e", ".e30", ".", "e30:"] {
            assert_eq!(
                codec.decode(&signed(&codec, body)).err(),
                Some(Unreadable::Malformed),
                "{body}"
            );
        }
        for signed in ["e30", "e30:", "e30:!!", "e30:1r31eq "] {
            let row = format!(
                "{signed}:{}",
                codec.modern.signing.mac(signed.as_bytes()).to_base64()
            );
            assert_eq!(
                codec.decode(&row).err(),
                Some(Unreadable::Malformed),
                "{row}"
            );
        }
        for row in ["", ":", "::", "garbage", "e30", "e30:", "e30:1r31eq:"] {
            assert_eq!(
                codec.decode(row).err(),
                Some(Unreadable::Signature),
                "{row}"
            );
        }
    }

    #[test]
    fn no_key_is_printed() {
        assert_eq!(format!("{:?}", codec(Release(3, 2))), "Codec(redacted)");
    }

    proptest! {
        #[test]
        fn a_session_comes_back(
            value in "[ -~&&[^\"\\\\]]{0,200}",
            legacy: bool,
            at in -(1_i64 << 36)..1 << 36,
        ) {
            let codec = codec(if legacy { Release(3, 0) } else { Release(4, 2) });
            let session = session(&format!(r#"{{"a":"{value}","b":[1.0,NaN]}}"#));
            let row = codec.encode(&session, DateTime::from_timestamp_secs(at).unwrap());
            prop_assert_eq!(decoded(&codec, &row), Ok(session.to_json()));
        }

        #[test]
        fn a_row_with_a_byte_changed_is_never_read(at in 0..MODERN.len(), byte in 1..128_u8) {
            let mut row = MODERN.as_bytes().to_vec();
            prop_assume!(row[at] != byte);
            row[at] = byte;
            let row = String::from_utf8(row).unwrap();
            prop_assert_eq!(codec(Release(4, 2)).decode(&row).err(), Some(Unreadable::Signature));
            prop_assert!(codec(Release(3, 2)).decode(&row).is_err());
        }

        #[test]
        fn nothing_unsigned_is_ever_read(row in "[A-Za-z0-9_:.=+/ é-]{0,100}", release in 1..7_u8) {
            prop_assert!(codec(Release(release, 2)).decode(&row).is_err());
        }

        #[test]
        fn nothing_signed_panics(body in "\\.?[A-Za-z0-9_:.=+/ é-]{0,60}") {
            let codec = codec(Release(4, 2));
            let _ = codec.decode(&signed(&codec, &body));
        }

    }
}
