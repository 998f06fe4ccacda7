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
fn a_seal_names_the_format_and_the_key() {
    let seal = |format, key| Some(Seal { format, key });
    let older = codec(Release(3, 2));
    assert_eq!(older.seal(MODERN), seal(Format::Modern, 0));
    assert_eq!(older.seal(MODERN_SHA1), seal(Format::ModernSha1, 0));
    assert_eq!(older.seal(LEGACY), seal(Format::Legacy, 0));
    let current = codec(Release(5, 2));
    for row in [LEGACY, MODERN_SHA1, "", ":", "no row"] {
        assert_eq!(current.seal(row), None, "{row}");
    }
    let mut rotated = settings(Release(5, 2));
    rotated.secret_key = Secret::from("new");
    rotated.secret_key_fallbacks = vec![Secret::from("unrelated"), Secret::from(SECRET)];
    assert_eq!(Codec::new(&rotated).seal(MODERN), seal(Format::Modern, 2));
}

#[test]
fn a_row_tells_its_contents_without_its_key_but_within_a_limit() {
    for row in [MODERN, LEGACY, MODERN_SHA1] {
        let session = unverified(row, 100).map(|session| session.to_json());
        assert_eq!(session.as_deref(), Some(r#"{"a":1}"#));
        assert!(unverified(row, 6).is_none());
    }
    for row in ["", ":", "::", "no row", "e30:x:y:z"] {
        assert!(unverified(row, 100).is_none(), "{row}");
    }
    let bomb = session(&format!(r#"{{"a":"{}"}}"#, "a".repeat(1 << 20)));
    let row = codec(Release(4, 2)).encode(&bomb, now());
    assert!(unverified(&row, 1 << 16).is_none());
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
