//! When a session ends, in the database and in the browser, and how SQLite stores that moment.

use chrono::{DateTime, NaiveDateTime, SubsecRound, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

use super::{
    settings::Settings,
    zone::{in_range, moment, wall_clock},
};
use crate::{json, session::Session};

/// The member of a session that overrides the settings: what `set_expiry` was called with.
pub const SESSION_EXPIRY: &str = "_session_expiry";

/// How long the browser keeps the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is closed.
    Browser,
    /// This many seconds from now. Negative for a fixed end that has passed.
    Seconds(i64),
}

/// When a session that is saved now will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The row's `expire_date`, to the microsecond.
    pub date: DateTime<Utc>,
    /// The cookie's lifetime.
    pub lifetime: Lifetime,
}

/// Why a session has no end: Django would fail with an exception when it saves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadExpiry {
    /// An array, an object, or what is no finite number.
    #[error("_session_expiry is neither a number of seconds nor a point in time")]
    NotSeconds,
    /// Text that is no ISO 8601 point in time; one without an offset where [`Settings::time_zone`] is not
    /// known; before Django 4.1 any text.
    #[error("_session_expiry is a text that this Django site does not read as a point in time")]
    NotTime,
    /// The end is before the year 1 or after the year 9999.
    #[error("_session_expiry is too large a number")]
    Range,
}

/// Django's `get_expiry_date`, `get_expiry_age` and `get_expire_at_browser_close`
/// (django/contrib/sessions/backends/base.py) from the same moment, `now`.
///
/// A site with USE_TZ = False reckons on its wall clock, so that a session that lives across a change of the
/// clocks ends in its table an hour before or after its cookie. Here the time until the end is real time.
///
/// # Errors
///
/// Where Django would raise an exception.
pub fn expiry(
    session: &Session,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<Expiry, BadExpiry> {
    expiry_of(session.raw(SESSION_EXPIRY), settings, now)
}

/// The same from the raw JSON of [`SESSION_EXPIRY`], where there is such a member.
///
/// # Errors
///
/// Where Django would raise an exception.
pub fn expiry_of(
    member: Option<&str>,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<Expiry, BadExpiry> {
    // Python's clock and the databases' columns have microseconds.
    let now = now.trunc_subsecs(6);
    let clock = settings.time_zone.unwrap_or(Tz::UTC);
    let age = settings.cookie.age;
    let default = Span {
        exact: TimeDelta::from_std(age).map_err(|_| BadExpiry::Range)?,
        whole: i64::try_from(age.as_secs()).map_err(|_| BadExpiry::Range)?,
    };
    let Some(raw) = member.filter(|raw| *raw != "null") else {
        let expiry = default.after(now, clock)?;
        return Ok(if settings.expire_at_browser_close {
            expiry.until_closed()
        } else {
            expiry
        });
    };
    match raw.as_bytes() {
        [b'"', b'"'] if !settings.release.stores_iso_expiry() => default.after(now, clock),
        [b'"', ..] if settings.release.stores_iso_expiry() => {
            let text = json::string(raw).ok_or(BadExpiry::NotTime)?;
            fixed(&text, now, settings.time_zone)
        }
        [b'"', ..] => Err(BadExpiry::NotTime),
        // Empty is false, but not equal to 0.
        [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] if inner.trim_ascii().is_empty() => {
            default.after(now, clock)
        }
        // Python's True is 1, and its False equals 0.
        b"true" => Span {
            exact: TimeDelta::seconds(1),
            whole: 1,
        }
        .after(now, clock),
        b"false" => Ok(default.after(now, clock)?.until_closed()),
        _ => match Span::parse(raw)? {
            Some(span) => span.after(now, clock),
            None => Ok(default.after(now, clock)?.until_closed()),
        },
    }
}

/// A length of time.
struct Span {
    /// For the database, to the microsecond.
    exact: TimeDelta,
    /// For the cookie, whose Max-Age is cut to whole seconds.
    whole: i64,
}

impl Span {
    /// Reads a JSON number as Python's `timedelta(seconds=...)` and `int()` take it; `None` is zero.
    fn parse(raw: &str) -> Result<Option<Self>, BadExpiry> {
        if let Ok(whole) = raw.parse::<i64>() {
            let exact = TimeDelta::try_seconds(whole).ok_or(BadExpiry::Range)?;
            return Ok((whole != 0).then_some(Self { exact, whole }));
        }
        let seconds = raw.parse::<f64>().map_err(|_| BadExpiry::NotSeconds)?;
        if !seconds.is_finite() {
            return Err(BadExpiry::NotSeconds);
        }
        if seconds == 0.0 {
            return Ok(None);
        }
        // A float beyond i64 becomes its nearest, which is out of range below.
        let whole = seconds.trunc() as i64;
        let micros = TimeDelta::microseconds((seconds.fract() * 1e6).round_ties_even() as i64);
        let exact = TimeDelta::try_seconds(whole).and_then(|exact| exact.checked_add(&micros));
        Ok(Some(Self {
            exact: exact.ok_or(BadExpiry::Range)?,
            whole,
        }))
    }

    fn after(&self, now: DateTime<Utc>, clock: Tz) -> Result<Expiry, BadExpiry> {
        let date = now
            .checked_add_signed(self.exact)
            .filter(|date| in_range(*date, clock))
            .ok_or(BadExpiry::Range)?;
        Ok(Expiry {
            date,
            lifetime: Lifetime::Seconds(self.whole),
        })
    }
}

impl Expiry {
    fn until_closed(self) -> Self {
        Self {
            lifetime: Lifetime::Browser,
            ..self
        }
    }
}

/// A fixed end. The age is rounded down, as a Python timedelta's days and seconds are.
fn fixed(text: &str, now: DateTime<Utc>, zone: Option<Tz>) -> Result<Expiry, BadExpiry> {
    let naive = || moment(naive(text)?, zone?);
    let date = aware(text).or_else(naive).ok_or(BadExpiry::NotTime)?;
    if !in_range(date, zone.unwrap_or(Tz::UTC)) {
        return Err(BadExpiry::NotTime);
    }
    let age = (date - now).num_microseconds().ok_or(BadExpiry::Range)?;
    Ok(Expiry {
        date,
        lifetime: Lifetime::Seconds(age.div_euclid(1_000_000)),
    })
}

/// What `set_expiry` stores of a point in time since Django 4.1: `isoformat()` of a datetime as the site has it,
/// in UTC or, with USE_TZ = False, on the wall clock of `zone`.
pub fn iso_text(time: DateTime<Utc>, zone: Option<Tz>) -> String {
    let time = time.trunc_subsecs(6);
    let format = match time.nanosecond() {
        0 => "%Y-%m-%dT%H:%M:%S",
        _ => "%Y-%m-%dT%H:%M:%S%.6f",
    };
    match zone {
        None => format!("{}+00:00", time.format(format)),
        Some(zone) => wall_clock(time, zone).format(format).to_string(),
    }
}

/// A point in time in the way Python's `isoformat()` writes it, with an offset or `Z`.
fn aware(text: &str) -> Option<DateTime<Utc>> {
    // chrono also takes U+2212 for a minus, small letters and a 60th second; Python does not.
    if text
        .bytes()
        .any(|byte| !(byte.is_ascii_digit() || b"-:.+ TZ".contains(&byte)))
    {
        return None;
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let time = (time.nanosecond() < 1_000_000_000).then(|| time.to_utc().trunc_subsecs(6))?;
    Some(time).filter(|time| in_range(*time, Tz::UTC))
}

/// The same without an offset.
fn naive(text: &str) -> Option<NaiveDateTime> {
    aware(&format!("{text}Z")).map(|time| time.naive_utc())
}

/// A moment as Django stores it in SQLite: what a clock in `zone` shows, a blank between day and time, no
/// offset, six digits of a second only where they are not all zero. SQLite compares it as text, so another
/// spelling would compare wrongly.
///
/// The zone is UTC, the TIME_ZONE of the entry in DATABASES, or with USE_TZ = False the site's TIME_ZONE.
pub fn sqlite_text(time: DateTime<Utc>, zone: Tz) -> String {
    let time = wall_clock(time.trunc_subsecs(6), zone);
    let format = if time.nanosecond() == 0 {
        "%Y-%m-%d %H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S%.6f"
    };
    time.format(format).to_string()
}

/// Reads a moment from SQLite: what [`sqlite_text`] writes, and what other writers leave there, with any
/// number of digits of a second, with `T`, or with an offset.
///
/// Without an offset it is what a clock in `zone` shows; where the clocks are put back and show it twice, the
/// first time is meant, as in Django.
pub fn parse_sqlite_text(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    if let Some(time) = aware(text) {
        return Some(time);
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let time = formats
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    let time = (time.nanosecond() < 1_000_000_000).then(|| time.trunc_subsecs(6))?;
    moment(time, zone)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::django::settings::Release;

    const AGE: i64 = 1_209_600;

    fn time(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn now() -> DateTime<Utc> {
        time("2024-01-01T00:00:00.000001999Z")
    }

    fn settings(release: Release) -> Settings {
        Settings {
            release,
            ..Settings::new("")
        }
    }

    fn of(value: &str, settings: &Settings) -> Result<Expiry, BadExpiry> {
        let json = format!("{{\"_session_expiry\":{value}}}");
        expiry(&Session::parse(json.into_bytes()).unwrap(), settings, now())
    }

    fn micros(expiry: Expiry) -> i64 {
        (expiry.date - now().trunc_subsecs(6))
            .num_microseconds()
            .unwrap()
    }

    /// Said by Python 3.11: `datetime.fromisoformat(...).isoformat()`, with `astimezone` and `replace(tzinfo=None)`.
    #[test]
    fn a_fixed_end_is_spelt_as_pythons_isoformat_and_read_back() {
        for (instant, zone, text) in [
            ("2026-07-01T10:00:00Z", None, "2026-07-01T10:00:00+00:00"),
            (
                "2026-07-01T10:00:00.000120999Z",
                None,
                "2026-07-01T10:00:00.000120+00:00",
            ),
            (
                "2026-07-01T10:00:00Z",
                Some(Tz::Europe__Berlin),
                "2026-07-01T12:00:00",
            ),
            (
                "2026-12-31T23:30:00.5Z",
                Some(Tz::Europe__Berlin),
                "2027-01-01T00:30:00.500000",
            ),
        ] {
            assert_eq!(iso_text(time(instant), zone), text);
            let settings = Settings {
                time_zone: zone,
                ..settings(Release(5, 2))
            };
            let read = expiry_of(Some(&format!("\"{text}\"")), &settings, now()).unwrap();
            assert_eq!(read.date, time(instant).trunc_subsecs(6), "{text}");
        }
    }

    #[test]
    fn a_number_slides_and_zero_ends_with_the_browser() {
        let settings = settings(Release(4, 2));
        for (value, end, lifetime) in [
            ("300", 300_000_000, Lifetime::Seconds(300)),
            ("-5", -5_000_000, Lifetime::Seconds(-5)),
            ("1.9", 1_900_000, Lifetime::Seconds(1)),
            ("-1.9", -1_900_000, Lifetime::Seconds(-1)),
            ("0.5", 500_000, Lifetime::Seconds(0)),
            ("3e2", 300_000_000, Lifetime::Seconds(300)),
            ("0.0000025", 2, Lifetime::Seconds(0)),
            ("1e-10", 0, Lifetime::Seconds(0)),
            ("true", 1_000_000, Lifetime::Seconds(1)),
            ("0", AGE * 1_000_000, Lifetime::Browser),
            ("-0", AGE * 1_000_000, Lifetime::Browser),
            ("0.0", AGE * 1_000_000, Lifetime::Browser),
            ("-0.0", AGE * 1_000_000, Lifetime::Browser),
            ("false", AGE * 1_000_000, Lifetime::Browser),
            ("null", AGE * 1_000_000, Lifetime::Seconds(AGE)),
            ("[]", AGE * 1_000_000, Lifetime::Seconds(AGE)),
            ("{ }", AGE * 1_000_000, Lifetime::Seconds(AGE)),
        ] {
            let expiry = of(value, &settings).unwrap();
            assert_eq!(
                (micros(expiry), expiry.lifetime),
                (end, lifetime),
                "{value}"
            );
        }
    }

    #[test]
    fn the_settings_decide_where_the_session_says_nothing() {
        let mut settings = settings(Release(4, 2));
        settings.expire_at_browser_close = true;
        settings.cookie.age = Duration::from_secs(60);
        let unset = expiry(&Session::empty(), &settings, now()).unwrap();
        assert_eq!(
            (micros(unset), unset.lifetime),
            (60_000_000, Lifetime::Browser)
        );
        assert_eq!(of("null", &settings).unwrap(), unset);
        assert_eq!(
            of("300", &settings).unwrap().lifetime,
            Lifetime::Seconds(300)
        );
        // Not None, so that the setting does not count (get_expire_at_browser_close).
        assert_eq!(of("[]", &settings).unwrap().lifetime, Lifetime::Seconds(60));
    }

    #[test]
    fn a_fixed_end_stays_where_it_is_since_4_1() {
        for (value, end, seconds) in [
            ("2024-01-01T00:05:00+00:00", "2024-01-01T00:05:00Z", 299),
            (
                "2024-01-01T00:05:00.000001+00:00",
                "2024-01-01T00:05:00.000001Z",
                300,
            ),
            (
                "2024-01-01T02:05:00.000002+02:00",
                "2024-01-01T00:05:00.000002Z",
                300,
            ),
            (
                "2023-12-31T23:59:59.500000+00:00",
                "2023-12-31T23:59:59.5Z",
                -1,
            ),
            (
                "2024-01-01T00:05:00.1234567Z",
                "2024-01-01T00:05:00.123456Z",
                300,
            ),
        ] {
            let json = format!("\"{value}\"");
            let expected = Expiry {
                date: time(end),
                lifetime: Lifetime::Seconds(seconds),
            };
            assert_eq!(of(&json, &settings(Release(4, 1))), Ok(expected), "{value}");
            assert_eq!(
                of(&json, &settings(Release(4, 0))),
                Err(BadExpiry::NotTime),
                "{value}"
            );
        }
    }

    #[test]
    fn what_django_fails_on_is_an_error() {
        for text in [
            "",
            "300",
            "soon",
            "2024-01-01",
            "2024-01-01T00:05:00",
            "2024-01-01t00:05:00Z",
            "2024-01-01T00:05:00z",
            "2024-01-01T00:05:60Z",
            "2024-01-01T00:05:00\u{2212}01:00",
            "2024-13-01T00:05:00Z",
            "0000-01-01T00:05:00Z",
            "0001-01-01T00:00:00+01:00",
            " 2024-01-01T00:05:00Z",
            "\\ud800",
        ] {
            let json = format!("\"{text}\"");
            assert_eq!(
                of(&json, &settings(Release(4, 2))),
                Err(BadExpiry::NotTime),
                "{text}"
            );
        }
        for value in ["[1]", "{\"a\":1}", "NaN", "Infinity", "-Infinity", "1e400"] {
            assert_eq!(
                of(value, &settings(Release(4, 2))),
                Err(BadExpiry::NotSeconds),
                "{value}"
            );
        }
        for value in [
            "1e30",
            "-1e30",
            "300000000000",
            "-70000000000",
            "9223372036854775807",
            "1e18",
        ] {
            assert_eq!(
                of(value, &settings(Release(4, 2))),
                Err(BadExpiry::Range),
                "{value}"
            );
        }
        let huge = "9".repeat(400);
        assert_eq!(
            of(&huge, &settings(Release(4, 2))),
            Err(BadExpiry::NotSeconds)
        );
        // Empty text is false before 4.1, and text that is none since.
        let expiry = of("\"\"", &settings(Release(4, 0))).unwrap();
        assert_eq!(expiry.lifetime, Lifetime::Seconds(AGE));
    }

    #[test]
    fn a_fixed_end_without_an_offset_is_read_where_the_zone_is_known() {
        let mut settings = settings(Release(4, 2));
        let berlin = Some(Tz::Europe__Berlin);
        for (zone, value, end) in [
            (None, "2024-07-01T12:00:00", None),
            (
                Some(Tz::UTC),
                "2024-07-01T12:00:00",
                Some("2024-07-01T12:00:00Z"),
            ),
            (berlin, "2024-07-01T12:00:00", Some("2024-07-01T10:00:00Z")),
            (
                berlin,
                "2024-07-01T12:00:00.000001",
                Some("2024-07-01T10:00:00.000001Z"),
            ),
            // Twice on the clock: the first. Never on the clock: as if it had not been changed.
            (berlin, "2024-10-27T02:30:00", Some("2024-10-27T00:30:00Z")),
            (berlin, "2024-03-31T02:30:00", Some("2024-03-31T01:30:00Z")),
            (
                berlin,
                "2024-07-01T12:00:00+00:00",
                Some("2024-07-01T12:00:00Z"),
            ),
            (berlin, "2024-07-01T12:00", None),
            (berlin, "2024-07-01", None),
            (berlin, "0001-01-01T00:00:00", None),
            (berlin, "9999-12-31T23:30:00+00:00", None),
        ] {
            settings.time_zone = zone;
            let found = of(&format!("\"{value}\""), &settings);
            assert_eq!(
                found.map(|found| found.date),
                end.map(time).ok_or(BadExpiry::NotTime),
                "{value}"
            );
            settings.release = Release(4, 0);
            assert_eq!(
                of(&format!("\"{value}\""), &settings),
                Err(BadExpiry::NotTime)
            );
            settings.release = Release(4, 2);
        }
    }

    #[test]
    fn an_end_that_the_sites_clock_cannot_show_is_out_of_range() {
        let mut settings = settings(Release(4, 2));
        // Half an hour before the year 10000.
        let seconds = (time("9999-12-31T23:30:00Z") - time("2024-01-01T00:00:00Z")).num_seconds();
        assert!(of(&seconds.to_string(), &settings).is_ok());
        settings.time_zone = Some(Tz::Europe__Berlin);
        assert_eq!(of(&seconds.to_string(), &settings), Err(BadExpiry::Range));
    }

    #[test]
    fn sqlite_text_is_what_the_sites_clock_shows() {
        for (zone, moment, text) in [
            (
                Tz::Europe__Berlin,
                "2030-01-02T03:04:05Z",
                "2030-01-02 04:04:05",
            ),
            (
                Tz::Europe__Berlin,
                "2030-07-02T23:04:05.5Z",
                "2030-07-03 01:04:05.500000",
            ),
            (
                Tz::America__New_York,
                "2030-01-02T03:04:05Z",
                "2030-01-01 22:04:05",
            ),
        ] {
            assert_eq!(sqlite_text(time(moment), zone), text);
            assert_eq!(parse_sqlite_text(text, zone), Some(time(moment)));
        }
        let with_offset = "2030-01-02T03:04:05+00:00";
        assert_eq!(
            parse_sqlite_text(with_offset, Tz::Europe__Berlin),
            Some(time(with_offset))
        );
    }

    #[test]
    fn sqlite_text_is_spelt_as_django_spells_it() {
        for (moment, text) in [
            ("2030-01-02T03:04:05Z", "2030-01-02 03:04:05"),
            ("2030-01-02T03:04:05.000001Z", "2030-01-02 03:04:05.000001"),
            ("2030-01-02T03:04:05.12Z", "2030-01-02 03:04:05.120000"),
            ("2030-01-02T03:04:05.0000009Z", "2030-01-02 03:04:05"),
            ("0099-01-02T03:04:05Z", "0099-01-02 03:04:05"),
        ] {
            assert_eq!(sqlite_text(time(moment), Tz::UTC), text);
        }
    }

    #[test]
    fn other_writers_moments_are_read_from_sqlite() {
        let expected = Some(time("2030-01-02T03:04:05.12Z"));
        for text in [
            "2030-01-02 03:04:05.120000",
            "2030-01-02 03:04:05.12",
            "2030-01-02 03:04:05.120000999",
            "2030-01-02T03:04:05.120",
            "2030-01-02T03:04:05.12Z",
            "2030-01-02T03:04:05.12+00:00",
            "2030-01-02 05:04:05.12+02:00",
        ] {
            assert_eq!(parse_sqlite_text(text, Tz::UTC), expected, "{text}");
        }
        let bad = [
            "",
            "1893553445",
            "2030-01-02",
            "soon",
            "2030-01-02 03:04:60",
            "2030-02-30 03:04:05",
            "x\0",
        ];
        for text in bad {
            assert_eq!(parse_sqlite_text(text, Tz::UTC), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_in_sqlite_comes_back_and_sorts_like_time(
            a in -62_135_596_800_000_000_i64..253_402_300_800_000_000,
            b in -62_135_596_800_000_000_i64..253_402_300_800_000_000,
        ) {
            let moment = |micros| DateTime::from_timestamp_micros(micros).unwrap();
            let (a, b) = (moment(a), moment(b));
            let text = |time| sqlite_text(time, Tz::UTC);
            prop_assert_eq!(parse_sqlite_text(&text(a), Tz::UTC), Some(a));
            prop_assert_eq!(text(a).cmp(&text(b)), a.cmp(&b));
        }

        #[test]
        fn no_number_panics(value in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,9})?(e[+-]?[0-9]{1,3})?") {
            let _ = of(&value, &settings(Release(4, 2)));
        }

        #[test]
        fn no_text_panics(text in "[0-9TZ:. +-]{0,30}") {
            let _ = of(&format!("\"{text}\""), &settings(Release(4, 2)));
            let _ = parse_sqlite_text(&text, Tz::Europe__Berlin);
        }
    }
}
