//! `tests/vectors/django.json`: what Django did, from 1.11 to 6.1, against what this crate does.
//!
//! Each vector was made by running the release that it names, so it is read here with the settings of a
//! site of that release. Where this crate differs on purpose, the vector is listed with the reason; a
//! listed vector that no longer differs fails too.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::Value;
use session_gateway::{
    config::Secret,
    django::{
        Account, AuthHash, Codec, KeyKind, Lifetime, Release, Settings, Standing, Unreadable,
        UserKey, base62, cookie, expiry, login, parse_base62, parse_sqlite_text, sqlite_text,
    },
    session::Session,
};
use sha2::{Digest, Sha256};

const FILE: &str = include_str!("../vectors/django.json");

/// Parts of Django that this crate has no counterpart of: session engines other than the database, and
/// CSRF tokens.
const OTHER_KINDS: [&str; 5] = [
    "signed_cookie",
    "csrf_token",
    "csrf_request",
    "redis_cache",
    "redis_timeout",
];

const PICKLE: &str = "pickles are not read";
const NO_OBJECT: &str =
    "Django hands out an array, a text or null and fails later; only an object is a session";

/// Rows that their own release reads and this crate refuses.
const REFUSED: [(&str, Unreadable, &str); 18] = [
    ("1.11.29-021", Unreadable::Pickle, PICKLE),
    ("1.11.29-025", Unreadable::Pickle, PICKLE),
    ("2.2.28-045", Unreadable::Pickle, PICKLE),
    ("2.2.28-047", Unreadable::Pickle, PICKLE),
    ("3.2.25-069", Unreadable::NotJson, NO_OBJECT),
    ("3.2.25-070", Unreadable::NotJson, NO_OBJECT),
    ("3.2.25-071", Unreadable::NotJson, NO_OBJECT),
    ("3.2.25-103", Unreadable::Pickle, PICKLE),
    ("3.2.25-105", Unreadable::Pickle, PICKLE),
    ("4.0.10-031", Unreadable::Pickle, PICKLE),
    ("4.0.10-035", Unreadable::Pickle, PICKLE),
    ("4.2.30-069", Unreadable::NotJson, NO_OBJECT),
    ("4.2.30-070", Unreadable::NotJson, NO_OBJECT),
    ("4.2.30-071", Unreadable::NotJson, NO_OBJECT),
    ("4.2.30-094", Unreadable::Pickle, PICKLE),
    ("4.2.30-098", Unreadable::Pickle, PICKLE),
    ("5.2.19-070", Unreadable::NotJson, NO_OBJECT),
    ("6.1.3-070", Unreadable::NotJson, NO_OBJECT),
];

/// Rows with a byte outside ASCII in their base64, which release 1.11 alone drops before it reads.
const REFUSED_BY_1_11: [&str; 2] = ["2.2.28-041", "3.0.14-019"];

/// A row of a format that the release's own settings do not ask for: DEFAULT_HASHING_ALGORITHM = 'sha1'
/// in 3.1 and 3.2. Such a site is named release 3.0.
const WRITTEN_AS_3_0: [&str; 2] = ["3.1.14-031", "3.2.25-094"];

/// How other writers spelt a session, and how Python does after it has read it.
const RESPELT: [(&str, &str); 3] = [
    (r#"{"a":1e400}"#, r#"{"a":Infinity}"#),
    (
        r#"{"a":1E5,"b":-0,"c":1.50,"d":1e+16,"e":1e16}"#,
        r#"{"a":100000.0,"b":0,"c":1.5,"d":1e+16,"e":1e+16}"#,
    ),
    (r#"{"\u0061":"\/"}"#, r#"{"a":"/"}"#),
];

#[derive(Deserialize)]
struct Vector {
    id: String,
    kind: String,
    django_version: String,
    expect: String,
    note: String,
    secret_key_hex: String,
    fallbacks: Vec<String>,
    encoded: String,
    signed_at: Option<i64>,
    payload_text: Option<String>,
    decoded_sha256_compact_json: Option<String>,
    #[serde(default)]
    readers: BTreeMap<String, String>,
    #[serde(skip)]
    line: &'static str,
}

/// The vectors of one kind. They stand one to a line; serde_json would refuse the file as a whole because
/// some sessions in it are nested deeper than it reads.
fn vectors(kind: &str) -> Vec<Vector> {
    let found: Vec<Vector> = lines().filter(|vector| vector.kind == kind).collect();
    assert!(!found.is_empty(), "no vectors of kind {kind}");
    found
}

fn lines() -> impl Iterator<Item = Vector> {
    FILE.lines()
        .filter(|line| line.starts_with("{\"id\""))
        .map(|line| {
            let line = line.trim_end_matches(',');
            Vector {
                line,
                ..serde_json::from_str(line).unwrap()
            }
        })
}

impl Vector {
    fn release(&self) -> Release {
        release(&self.django_version)
    }

    fn valid(&self) -> bool {
        self.expect == "valid"
    }

    fn settings(&self, release: Release) -> Settings {
        let mut settings = Settings::new(Secret::new(unhex(&self.secret_key_hex)));
        settings.release = release;
        settings.secret_key_fallbacks = self
            .fallbacks
            .iter()
            .map(|key| Secret::from(key.as_str()))
            .collect();
        // Some vectors are over the default: a mebibyte of one letter.
        settings.session_json = 4 << 20;
        settings
    }

    fn decode(&self, release: Release) -> Result<Session, Unreadable> {
        Codec::new(&self.settings(release)).decode(&self.encoded)
    }

    /// A field that only some kinds have.
    fn field(&self, name: &str) -> Value {
        let mut line: Value = serde_json::from_str(self.line).unwrap();
        line[name].take()
    }
}

fn release(version: &str) -> Release {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    Release(numbers.next().unwrap(), numbers.next().unwrap())
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn session(value: &Value) -> Session {
    Session::parse(value.to_string().into_bytes()).unwrap()
}

#[test]
fn every_kind_of_vector_is_known() {
    let kinds: BTreeSet<String> = lines().map(|vector| vector.kind).collect();
    let tested = [
        "auth_hash",
        "base62",
        "cookie_header",
        "db_session",
        "expiry",
        "get_user",
        "set_expiry",
        "sqlite_expire_date",
    ];
    let known: BTreeSet<String> = tested
        .iter()
        .chain(&OTHER_KINDS)
        .map(|kind| (*kind).into())
        .collect();
    assert_eq!(kinds, known);
    assert_eq!(lines().count(), 1090);
}

#[test]
fn rows_are_read_as_their_release_reads_them() {
    let mut refused = BTreeSet::new();
    for vector in vectors("db_session") {
        let (id, note) = (&vector.id, &vector.note);
        let decoded = vector.decode(vector.release());
        if let Some((listed, cause, _)) = REFUSED.iter().find(|(listed, ..)| listed == id) {
            assert_eq!(decoded.err(), Some(*cause), "{id} {note}");
            assert!(vector.valid(), "{id} does not differ");
            refused.insert(*listed);
            continue;
        }
        // An empty session that Django made of a row it could not read is an error here.
        assert_eq!(
            decoded.is_ok(),
            vector.valid(),
            "{id} {note}: {:?}",
            decoded.err()
        );
        let Ok(session) = decoded else { continue };
        let json = session.to_json();
        if let Some(text) = &vector.payload_text {
            assert_eq!(json, *text, "{id} {note}");
            continue;
        }
        // Python's own spelling of what it has read.
        let respelt = RESPELT
            .iter()
            .find(|(other, _)| *other == json)
            .map_or(&*json, |(_, own)| own);
        let digest = hex(&Sha256::digest(respelt));
        assert_eq!(
            vector.decoded_sha256_compact_json,
            Some(digest),
            "{id} {note}: {json:.100}"
        );
    }
    assert_eq!(refused.len(), REFUSED.len());
}

/// `readers` tells what each of thirteen releases made of the same row.
#[test]
fn each_release_setting_reads_what_that_release_reads() {
    for vector in vectors("db_session") {
        let (id, note) = (&vector.id, &vector.note);
        if REFUSED.iter().any(|(listed, ..)| listed == id) {
            continue;
        }
        let empty = vector.valid() && vector.decode(vector.release()).unwrap().is_empty();
        for (version, outcome) in &vector.readers {
            let reader = release(version);
            // Rows of the newer format are read whatever the release, as 4.0 reads them, so that a site
            // can be upgraded first. Releases before 3.1 fail on them or take them for empty.
            let newer = reader.writes_legacy() && vector.encoded.contains(':');
            let outcome = if newer {
                &vector.readers["4.0.10"]
            } else {
                outcome
            };
            let reads = match outcome.as_str() {
                "ok" | "data" => version != "1.11.29" || !REFUSED_BY_1_11.contains(&id.as_str()),
                "{}" => empty,
                other => {
                    assert!(
                        other == "{}+log" || other.starts_with("raises "),
                        "{id} {other}"
                    );
                    false
                }
            };
            let decoded = vector.decode(reader);
            assert_eq!(
                decoded.is_ok(),
                reads,
                "{id} read by {version}, {outcome}: {note}"
            );
        }
    }
}

#[test]
fn rows_are_written_as_their_release_writes_them() {
    let mut compared = 0;
    for vector in vectors("db_session") {
        let (id, note) = (&vector.id, &vector.note);
        let (Some(signed_at), Ok(session)) = (vector.signed_at, vector.decode(vector.release()))
        else {
            continue;
        };
        let release = if WRITTEN_AS_3_0.contains(&id.as_str()) {
            Release(3, 0)
        } else {
            vector.release()
        };
        let codec = Codec::new(&vector.settings(release));
        let row = codec.encode(&session, DateTime::from_timestamp_secs(signed_at).unwrap());
        if row.starts_with('.') || vector.encoded.starts_with('.') {
            // Whether a row is compressed, and to what, differs between zlib libraries.
            assert_eq!(
                codec.decode(&row).unwrap().to_json(),
                session.to_json(),
                "{id} {note}"
            );
        } else {
            assert_eq!(row, vector.encoded, "{id} {note}");
        }
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn base62_is_djangos() {
    for vector in vectors("base62") {
        let number = vector.field("number").as_i64().unwrap();
        assert_eq!(base62(number), vector.encoded, "{}", vector.id);
        assert_eq!(parse_base62(&vector.encoded), Some(number), "{}", vector.id);
    }
}

#[test]
fn cookies_are_parsed_as_django_parses_them() {
    for vector in vectors("cookie_header") {
        let value = |name: &str| {
            let found = cookie::find(name, [vector.encoded.as_bytes()]);
            found
                .value
                .map(|value| String::from_utf8(value.into_owned()).unwrap())
        };
        assert_eq!(
            value("sessionid").as_deref(),
            vector.field("parsed").as_str(),
            "{} {}",
            vector.id,
            vector.note
        );
        let Value::Object(all) = vector.field("all") else {
            panic!("{}", vector.id)
        };
        // A session cookie has a name.
        for (name, expected) in all.iter().filter(|(name, _)| !name.is_empty()) {
            assert_eq!(
                value(name).as_deref(),
                expected.as_str(),
                "{} {name}",
                vector.id
            );
        }
    }
}

#[test]
fn sqlite_holds_moments_as_django_writes_them() {
    for vector in vectors("sqlite_expire_date") {
        let instant = vector.field("instant");
        let instant = instant.as_str().unwrap();
        // With USE_TZ = False the site's own clock, whatever its zone; Berlin is an hour ahead of UTC then.
        let (instant, zone) = match instant.strip_suffix(" local time of TIME_ZONE") {
            Some(local) => (format!("{local}+01:00"), Tz::Europe__Berlin),
            None => (instant.to_owned(), Tz::UTC),
        };
        assert_eq!(
            sqlite_text(time(&instant), zone),
            vector.encoded,
            "{}",
            vector.id
        );
        assert_eq!(
            parse_sqlite_text(&vector.encoded, zone),
            Some(time(&instant)),
            "{}",
            vector.id
        );
    }
}

#[test]
fn sessions_end_when_django_ends_them() {
    for vector in vectors("expiry") {
        let (id, note) = (&vector.id, &vector.note);
        let now = time(vector.field("modification").as_str().unwrap());
        let found = expiry(
            &session(&vector.field("session")),
            &vector.settings(vector.release()),
            now,
        );
        assert_eq!(found.is_ok(), vector.valid(), "{id} {note}: {found:?}");
        let Ok(found) = found else { continue };
        assert_eq!(
            found.date,
            time(vector.field("date").as_str().unwrap()),
            "{id} {note}"
        );
        let age = match vector.field("age") {
            Value::Bool(age) => i64::from(age),
            // Max-Age is int(age).
            age => age.as_f64().unwrap() as i64,
        };
        let closes = vector.field("expire_at_browser_close") == true;
        let lifetime = if closes {
            Lifetime::Browser
        } else {
            Lifetime::Seconds(age)
        };
        assert_eq!(found.lifetime, lifetime, "{id} {note}");
    }
}

#[test]
fn what_set_expiry_stores_is_read_back() {
    let now = time("2024-01-01T00:00:00Z");
    for vector in vectors("set_expiry") {
        let (id, note) = (&vector.id, &vector.note);
        let stored = vector.field("stored");
        let session = session(&serde_json::json!({ "_session_expiry": stored }));
        let mut settings = vector.settings(vector.release());
        let naive = note.contains("naive");
        if naive {
            // Only a site with USE_TZ = False can read it back.
            assert!(expiry(&session, &settings, now).is_err(), "{id} {note}");
            settings.time_zone = Some(Tz::Europe__Berlin);
        }
        let found = expiry(&session, &settings, now);
        assert_eq!(found.is_ok(), vector.valid(), "{id} {note}");
        let Ok(found) = found else { continue };
        match stored {
            Value::String(end) if naive => {
                assert_eq!(found.date, time(&format!("{end}+01:00")), "{id} {note}");
            }
            Value::String(end) => assert_eq!(found.date, time(&end), "{id} {note}"),
            stored if stored == 0 => assert_eq!(found.lifetime, Lifetime::Browser, "{id} {note}"),
            stored => assert_eq!(
                found.lifetime,
                Lifetime::Seconds(stored.as_i64().unwrap()),
                "{id} {note}"
            ),
        }
    }
}

#[test]
fn auth_hashes_are_djangos() {
    for vector in vectors("auth_hash") {
        let (id, note) = (&vector.id, &vector.note);
        let password = vector.field("password");
        let password = password.as_str().unwrap();
        let auth = AuthHash::new(&vector.settings(vector.release()));
        assert!(auth.verify(password, &vector.encoded), "{id} {note}");
        // 3.1 and 3.2 write SHA-1 only with DEFAULT_HASHING_ALGORITHM = 'sha1'.
        let writes = if vector.release() < Release(3, 1) {
            "sha1"
        } else {
            "sha256"
        };
        assert_eq!(
            auth.sign(password) == vector.encoded,
            vector.field("hashing") == writes,
            "{id} {note}"
        );
        for hash in vector
            .field("fallback_hashes")
            .as_array()
            .into_iter()
            .flatten()
        {
            let hash = hash.as_str().unwrap();
            assert!(auth.verify(password, hash), "{id} {note}");
            let before = AuthHash::new(&vector.settings(Release(4, 0)));
            assert!(!before.verify(password, hash), "{id} {note}");
        }
    }
}

#[test]
fn users_are_logged_in_as_django_logs_them_in() {
    const MODEL: &str = "django.contrib.auth.backends.ModelBackend";
    const ALL_USERS: &str = "django.contrib.auth.backends.AllowAllUsersModelBackend";
    for vector in vectors("get_user") {
        let (id, note) = (&vector.id, &vector.note);
        let settings = vector.settings(vector.release());
        let session = vector.decode(vector.release()).unwrap();
        let user = vector.field("user");
        let outcome = || {
            let Some(login) = login(&session) else {
                return Standing::Anonymous;
            };
            if ![MODEL, ALL_USERS].contains(&&*login.backend) {
                return Standing::Anonymous;
            }
            let key = UserKey::parse(KeyKind::Integer, &login.user_id);
            let account = (key == user["pk"].as_i64().map(UserKey::Integer)).then(|| Account {
                password: user["password"].as_str().unwrap(),
                is_active: user["is_active"] != false,
            });
            login.standing(&settings, &AuthHash::new(&settings), account)
        };
        let result = vector.field("result");
        let expected = if result["authenticated"] == true {
            Standing::LoggedIn
        } else if result["old_row_deleted"] == true {
            Standing::Flushed
        } else {
            // Or a ValidationError for an id that is no number: nobody is logged in.
            Standing::Anonymous
        };
        assert_eq!(outcome(), expected, "{id} {note}");
        assert_eq!(
            expected == Standing::LoggedIn,
            vector.valid(),
            "{id} {note}"
        );
    }
}
