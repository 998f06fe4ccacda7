//! What routes want to know of a user beyond the row: columns and groups, as a lookup gathers them.

use std::{collections::HashMap, fmt};

use chrono::Timelike;
use chrono_tz::Tz;
use uuid::Uuid;

use super::shape::ColumnKind;
use crate::{
    django::{UserKey, parse_sqlite_text},
    json,
};

/// Deepest nesting of a column that holds JSON.
const MAX_NESTING: usize = 32;

/// What routes want to know of a user beyond the row.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UserDetails {
    /// Raw JSON, canonical, in the order of [`super::UserOptions::columns`]; `None` for NULL.
    pub columns: Vec<Option<Box<str>>>,
    /// The names of the user's groups, sorted.
    pub groups: Vec<String>,
}

impl fmt::Debug for UserDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserDetails(redacted)")
    }
}

/// Details of some users, while the rows come in.
pub(super) struct Gathered(HashMap<UserKey, UserDetails>);

impl Gathered {
    /// For these users, each with nothing yet.
    pub(super) fn of(keys: &[UserKey]) -> Self {
        let empty = |key: &UserKey| (key.clone(), UserDetails::default());
        Self(keys.iter().map(empty).collect())
    }

    /// A user's columns. A key that was not asked for (a collation's alias) is left out.
    pub(super) fn columns(&mut self, key: &UserKey, columns: Vec<Option<Box<str>>>) {
        if let Some(details) = self.0.get_mut(key) {
            details.columns = columns;
        }
    }

    /// One of a user's groups.
    pub(super) fn group(&mut self, key: &UserKey, name: String) {
        if let Some(details) = self.0.get_mut(key) {
            details.groups.push(name);
        }
    }

    /// A user's groups, as a database puts them into one JSON array. What is no such array names none.
    pub(super) fn groups_of_json(&mut self, key: &UserKey, names: Option<&str>) {
        let names = names.and_then(|names| serde_json::from_str(names).ok());
        let names: Vec<Option<String>> = names.unwrap_or_default();
        for name in names.into_iter().flatten() {
            self.group(key, name);
        }
    }

    /// All of them, complete.
    pub(super) fn finish(self) -> impl Iterator<Item = (UserKey, UserDetails)> {
        self.0.into_iter().map(|(key, mut details)| {
            details.groups.sort_unstable();
            details.groups.dedup();
            (key, details)
        })
    }
}

/// A column that the database spells as JSON, as a claim holds it: `None` for null, and for what a claim cannot
/// hold. The same value is spelt in the same way whatever the database. A moment without an offset is what a clock
/// in `zone` shows.
pub(super) fn json_claim(text: &str, kind: ColumnKind, zone: Tz) -> Option<Box<str>> {
    let claim = match kind {
        ColumnKind::Number => number(text)?,
        ColumnKind::Boolean | ColumnKind::Time | ColumnKind::Uuid | ColumnKind::Text => {
            json::canonical(text, MAX_NESTING).ok()?
        }
    };
    let claim = match (kind, claim.as_str()) {
        (_, "null") => return None,
        (ColumnKind::Boolean, "0") => "false".to_owned(),
        (ColumnKind::Boolean, "1") => "true".to_owned(),
        (ColumnKind::Time, text) => moment(&json::string(text)?, zone)?,
        (ColumnKind::Uuid, text) => with_hyphens(text).unwrap_or(claim),
        _ => claim,
    };
    Some(claim.into())
}

/// A number with all its digits, which a decimal column has more of than a double, but without zeros at the end
/// of its fraction: databases keep different numbers of them. Words that stand for no number are none.
fn number(text: &str) -> Option<String> {
    let is_portable = json::scan_value(text) == Ok(true);
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if !is_portable || !is_number {
        return None;
    }
    let digits = match text.contains(['e', 'E']) {
        true => json::canonical(text, MAX_NESTING).ok()?,
        false => text.to_owned(),
    };
    if digits.contains('.') && !digits.contains('e') {
        let short = digits.trim_end_matches('0').trim_end_matches('.');
        return Some(if short == "-0" { "0" } else { short }.to_owned());
    }
    Some(digits)
}

/// A moment as RFC 3339 has it, in UTC, with microseconds where there are some.
fn moment(text: &str, zone: Tz) -> Option<String> {
    let time = parse_sqlite_text(text, zone)?;
    let format = match time.nanosecond() {
        0 => "\"%Y-%m-%dT%H:%M:%SZ\"",
        _ => "\"%Y-%m-%dT%H:%M:%S%.6fZ\"",
    };
    Some(time.format(format).to_string())
}

/// A UUID that is kept without hyphens.
fn with_hyphens(json: &str) -> Option<String> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    let uuid = Uuid::try_parse(text).ok()?;
    Some(format!("\"{}\"", uuid.hyphenated()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_told_as_its_type_says() {
        let told = |text, kind| json_claim(text, kind, Tz::UTC).map(String::from);
        assert_eq!(told("1", ColumnKind::Boolean).as_deref(), Some("true"));
        assert_eq!(told("0", ColumnKind::Boolean).as_deref(), Some("false"));
        assert_eq!(told("true", ColumnKind::Boolean).as_deref(), Some("true"));
        assert_eq!(told("1", ColumnKind::Number).as_deref(), Some("1"));
        assert_eq!(
            told("\"Jos\u{e9}\"", ColumnKind::Text).as_deref(),
            Some("\"Jos\\u00e9\"")
        );
        assert_eq!(told("null", ColumnKind::Text), None);
    }

    #[test]
    fn a_number_keeps_its_digits_but_no_zeros_behind() {
        let told = |text: &str| json_claim(text, ColumnKind::Number, Tz::UTC).map(String::from);
        for (text, number) in [
            ("1", "1"),
            ("-7", "-7"),
            ("10", "10"),
            ("12.50", "12.5"),
            ("12.00", "12"),
            ("0.0", "0"),
            ("-0.0", "0"),
            ("100.0", "100"),
            (
                "12345678901234567890.123456789012345678",
                "12345678901234567890.123456789012345678",
            ),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            ("1e+20", "1e+20"),
            ("1.0e+20", "1e+20"),
            ("1e15", "1000000000000000"),
            ("1.5E-7", "1.5e-07"),
        ] {
            assert_eq!(told(text).as_deref(), Some(number), "{text}");
        }
        for none in [
            "null",
            "NaN",
            "\"NaN\"",
            "\"Infinity\"",
            "1e999",
            "",
            "[1]",
            "true",
        ] {
            assert_eq!(told(none), None, "{none}");
        }
        assert_eq!(told(&"9".repeat(5000)), None);
    }

    #[test]
    fn a_moment_is_told_in_utc() {
        let told = |text: &str| json_claim(text, ColumnKind::Time, Tz::UTC).map(String::from);
        for (text, moment) in [
            (
                "2026-11-22T23:42:17.123456+00:00",
                "2026-11-22T23:42:17.123456Z",
            ),
            ("2026-11-22T23:42:17.5+00:00", "2026-11-22T23:42:17.500000Z"),
            ("2026-11-23T05:27:17+05:45", "2026-11-22T23:42:17Z"),
            ("2026-11-22 23:42:17.123456", "2026-11-22T23:42:17.123456Z"),
            ("2026-11-22 23:42:17", "2026-11-22T23:42:17Z"),
            ("2026-11-22T23:42:17", "2026-11-22T23:42:17Z"),
        ] {
            let moment = format!("\"{moment}\"");
            assert_eq!(told(&format!("\"{text}\"")), Some(moment), "{text}");
        }
        for none in [
            "infinity",
            "-infinity",
            "0044-03-15T00:00:00+00:00 BC",
            "12026-11-22T23:42:17+00:00",
            "soon",
            "",
        ] {
            assert_eq!(told(&format!("\"{none}\"")), None, "{none}");
        }
        assert_eq!(told("1795390937"), None);
    }

    #[test]
    fn a_uuid_is_told_with_hyphens() {
        let told = |text: &str| json_claim(text, ColumnKind::Uuid, Tz::UTC).map(String::from);
        let uuid = "\"5f0c1ce0-7f3a-4a8e-9d55-1d5cf14a3a54\"";
        assert_eq!(told(uuid).as_deref(), Some(uuid));
        assert_eq!(told(&uuid.replace('-', "")).as_deref(), Some(uuid));
        assert_eq!(told("\"no uuid\"").as_deref(), Some("\"no uuid\""));
    }

    #[test]
    fn groups_are_sorted_and_go_to_those_who_were_asked_for() {
        let keys = [UserKey::Integer(1), UserKey::Integer(2)];
        let mut gathered = Gathered::of(&keys);
        gathered.group(&keys[0], "b".into());
        gathered.group(&keys[0], "a".into());
        gathered.group(&UserKey::Integer(3), "c".into());
        gathered.columns(&keys[1], vec![None]);
        let found: HashMap<_, _> = gathered.finish().collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[&keys[0]].groups, ["a", "b"]);
        assert_eq!(found[&keys[1]].columns, [None]);
    }
}
