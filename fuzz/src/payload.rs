//! A row's `session_data`: signature, base64, zlib, in the formats of all releases.
//!
//! Input: a byte that says what the rest is. `0`: a row. `1`: a session's JSON. `2`: a zlib stream, which is
//! signed here. `3`: base64, which is signed here. `4`: a place (two bytes), another byte, and a session's
//! JSON in whose row that byte is put.

use std::{io::Read, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::DateTime;
use flate2::read::ZlibDecoder;
use hmac::{Hmac, KeyInit, Mac};
use session_gateway::{
    django::{Codec, Format, Release, Settings, Unreadable, unverified},
    session::Session,
};
use sha1::Sha1;
use sha2::{Digest, Sha256};

const SECRET: &str = "django-insecure-2#q0y$3d!v6l8m1w@t5r7n9p^s4u_x&z*c(e)g-i=k+o";

/// Small, so that inputs reach it.
const MOST_JSON: usize = 2048;
const MOST_DATA: usize = 4096;

static MODERN: LazyLock<Codec> = LazyLock::new(|| codec(Release(5, 2)));
/// Reads every format.
static BETWEEN: LazyLock<Codec> = LazyLock::new(|| codec(Release(3, 2)));
static LEGACY: LazyLock<Codec> = LazyLock::new(|| codec(Release(2, 2)));

fn codec(release: Release) -> Codec {
    let mut settings = Settings::new(SECRET);
    settings.release = release;
    settings.secret_key_fallbacks = vec!["an earlier key".into()];
    settings.session_json = MOST_JSON;
    settings.session_data = MOST_DATA;
    Codec::new(&settings)
}

/// Runs the target.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match (kind.wrapping_sub(b'0') % 5, rest) {
        (1, stream) => check_contents(stream),
        (2, stream) => check_stream(stream),
        (3, text) => check_base64(text),
        (4, [high, low, byte, payload @ ..]) => {
            check_changed(payload, usize::from(*high) * 256 + usize::from(*low), *byte);
        }
        (_, row) => check_row(row),
    }
}

/// Whatever is in the table: only what one of the site's keys has signed is read.
fn check_row(row: &[u8]) {
    let Ok(row) = std::str::from_utf8(row) else {
        return;
    };
    for codec in [&*MODERN, &*BETWEEN, &*LEGACY] {
        let seal = codec.seal(row);
        let Ok(session) = codec.decode(row) else {
            continue;
        };
        let seal = seal.expect("what is read is signed");
        if (seal.format, seal.key) == (Format::Modern, 0) {
            let (signed, signature) = row.rsplit_once(':').expect("it has a signature");
            assert_eq!(signature, sign(signed));
        }
        check_written(codec, &session);
    }
    if let Some(session) = unverified(row, MOST_JSON) {
        assert!(session.json_len() <= 6 * MOST_JSON);
    }
}

/// What is written is read, in each format.
fn check_contents(payload: &[u8]) {
    let expected = contents(Ok(payload.to_vec()));
    let plain = signed(&URL_SAFE_NO_PAD.encode(payload));
    let legacy = legacy(payload);
    let tables = [
        (&*MODERN, &plain),
        (&*BETWEEN, &plain),
        (&*BETWEEN, &legacy),
        (&*LEGACY, &legacy),
    ];
    for (codec, row) in tables {
        let expected = match row.len() > MOST_DATA {
            true => Err(Unreadable::TooLarge),
            false => expected.clone(),
        };
        assert_eq!(codec.decode(row).map(|session| session.to_json()), expected);
    }
    assert_eq!(
        MODERN.decode(&legacy).err(),
        Some(match legacy.len() > MOST_DATA {
            true => Unreadable::TooLarge,
            false => Unreadable::Signature,
        })
    );
    let Ok(session) = Session::parse(payload.to_vec()) else {
        return;
    };
    for codec in [&*MODERN, &*BETWEEN, &*LEGACY] {
        check_written(codec, &session);
    }
}

fn check_written(codec: &Codec, session: &Session) {
    let now = DateTime::from_timestamp_secs(1_764_000_000).expect("a moment");
    let row = codec.encode(session, now);
    assert!(row.is_ascii());
    assert!(codec.is_current(&row) && codec.seal(&row).is_some_and(|seal| seal.key == 0));
    if row.len() <= MOST_DATA && session.json_len() <= MOST_JSON {
        let json = session.to_json();
        assert_eq!(
            codec.decode(&row).map(|session| session.to_json()),
            Ok(json.clone())
        );
        let seen = unverified(&row, MOST_JSON).map(|session| session.to_json());
        assert_eq!(seen, Some(json));
    }
}

/// A stream is inflated to its end, its checksum included, and never over the limit.
fn check_stream(stream: &[u8]) {
    let row = signed(&format!(".{}", URL_SAFE_NO_PAD.encode(stream)));
    let mut inflated = Vec::new();
    let most = MOST_JSON as u64 + 1;
    let ended = ZlibDecoder::new(stream)
        .take(most)
        .read_to_end(&mut inflated);
    let payload = match ended {
        _ if inflated.len() > MOST_JSON || row.len() > MOST_DATA => Err(Unreadable::TooLarge),
        Ok(_) => Ok(inflated),
        Err(_) => Err(Unreadable::Malformed),
    };
    let decoded = MODERN.decode(&row).map(|session| session.to_json());
    assert_eq!(decoded, contents(payload));
}

/// Signed text that need not be base64.
fn check_base64(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let row = signed(text);
    if let Ok(session) = MODERN.decode(&row) {
        assert!(row.len() <= MOST_DATA);
        check_written(&MODERN, &session);
    }
}

/// A changed byte is never a signed row: one at this place, and one in the signature.
fn check_changed(payload: &[u8], place: usize, byte: u8) {
    let Ok(session) = Session::parse(payload.to_vec()) else {
        return;
    };
    let now = DateTime::from_timestamp_secs(1_764_000_000).expect("a moment");
    for codec in [&*MODERN, &*BETWEEN, &*LEGACY] {
        let row = codec.encode(&session, now);
        if row.len() > MOST_DATA || session.json_len() > MOST_JSON {
            continue;
        }
        let format = codec.seal(&row).expect("it is signed").format;
        for place in [place % row.len(), row.len() - 1 - place % 43] {
            let Some(changed) = with_byte(&row, place, byte) else {
                continue;
            };
            let decoded = codec.decode(&changed).map(|session| session.to_json());
            match format {
                // Base64 has bits that nobody reads; the MAC of before 3.1 is of what it means.
                Format::Legacy => {
                    assert!(decoded.is_err() || decoded == Ok(session.to_json()));
                }
                _ => {
                    assert_eq!(decoded, Err(Unreadable::Signature));
                    assert_eq!(codec.seal(&changed), None);
                }
            }
        }
    }
}

/// The row with another byte at this place, if that makes another text.
fn with_byte(row: &str, place: usize, byte: u8) -> Option<String> {
    let mut changed = row.to_owned().into_bytes();
    changed[place] = byte;
    String::from_utf8(changed)
        .ok()
        .filter(|changed| changed != row)
}

/// What becomes of an inflated payload.
fn contents(payload: Result<Vec<u8>, Unreadable>) -> Result<String, Unreadable> {
    let payload = payload?;
    if payload.len() > MOST_JSON {
        return Err(Unreadable::TooLarge);
    }
    if payload.first() == Some(&0x80) {
        return Err(Unreadable::Pickle);
    }
    let session = Session::parse(payload).map_err(|_| Unreadable::NotJson)?;
    Ok(session.to_json())
}

/// `signing.dumps` from its body on.
fn signed(body: &str) -> String {
    let signed = format!("{body}:1vNY2q");
    format!("{signed}:{}", sign(&signed))
}

/// `salted_hmac` of Django 4.2 with SHA-256, in base64.
fn sign(text: &str) -> String {
    let salted = ["django.contrib.sessions.SessionStoresigner", SECRET].concat();
    let mut mac = Hmac::<Sha256>::new_from_slice(&Sha256::digest(salted)).expect("any length");
    mac.update(text.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// `SessionBase.encode` of Django 2.2.
fn legacy(payload: &[u8]) -> String {
    let salted = ["django.contrib.sessionsSessionStore", SECRET].concat();
    let mut mac = Hmac::<Sha1>::new_from_slice(&Sha1::digest(salted)).expect("any length");
    mac.update(payload);
    let mac: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    STANDARD.encode([mac.as_bytes(), b":", payload].concat())
}
