//! Wall clocks: databases without instants hold what a clock in some zone showed.

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeZone, Utc, offset::LocalResult};
use chrono_tz::{GapInfo, Tz};

/// What a clock in this zone shows at this moment.
pub(crate) fn wall_clock(time: DateTime<Utc>, zone: Tz) -> NaiveDateTime {
    time.with_timezone(&zone).naive_local()
}

/// The moment at which a clock in this zone shows this, as Python's zoneinfo finds it with `fold=0`: of two,
/// the first; what the clock leaps over is counted as if it did not leap. `None` outside of Python's years.
pub(crate) fn moment(wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    let offset = match zone.offset_from_local_datetime(&wall) {
        LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => offset,
        LocalResult::None => GapInfo::new(&wall, &zone)?.begin?.1,
    };
    let time = wall.checked_sub_offset(offset.fix())?.and_utc();
    Some(time).filter(|time| in_range(*time, Tz::UTC))
}

/// Whether Python's datetime can hold the moment, and what a clock in this zone shows then.
pub(crate) fn in_range(time: DateTime<Utc>, zone: Tz) -> bool {
    let years = 1..=9999;
    years.contains(&time.year()) && years.contains(&wall_clock(time, zone).year())
}

#[cfg(test)]
mod tests {
    use chrono_tz::TZ_VARIANTS;
    use proptest::prelude::*;

    use super::*;

    /// The years of Python's datetime, in microseconds, less a day at either end for any zone.
    const MICROS: std::ops::Range<i64> = -62_135_500_000_000_000..253_402_200_000_000_000;

    fn wall(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
    }

    /// Said by Python 3.11's zoneinfo: `datetime(..., tzinfo=ZoneInfo(zone)).astimezone(timezone.utc)`.
    #[test]
    fn folds_and_gaps_are_pythons() {
        for (zone, local, utc) in [
            (
                Tz::Europe__Berlin,
                "2026-07-01 12:00:00",
                "2026-07-01 10:00:00",
            ),
            (
                Tz::Europe__Berlin,
                "2026-10-25 01:59:59",
                "2026-10-24 23:59:59",
            ),
            (
                Tz::Europe__Berlin,
                "2026-10-25 02:30:00",
                "2026-10-25 00:30:00",
            ),
            (
                Tz::Europe__Berlin,
                "2026-10-25 03:00:00",
                "2026-10-25 02:00:00",
            ),
            (
                Tz::Europe__Berlin,
                "2026-03-29 01:59:59",
                "2026-03-29 00:59:59",
            ),
            (
                Tz::Europe__Berlin,
                "2026-03-29 02:30:00",
                "2026-03-29 01:30:00",
            ),
            (
                Tz::Europe__Berlin,
                "2026-03-29 03:00:00",
                "2026-03-29 01:00:00",
            ),
            (
                Tz::America__New_York,
                "2026-11-01 01:30:00",
                "2026-11-01 05:30:00",
            ),
            (
                Tz::America__New_York,
                "2026-03-08 02:30:00",
                "2026-03-08 07:30:00",
            ),
            (
                Tz::Australia__Lord_Howe,
                "2026-04-05 01:45:00",
                "2026-04-04 14:45:00",
            ),
            (
                Tz::Australia__Lord_Howe,
                "2026-10-04 02:15:00",
                "2026-10-03 15:45:00",
            ),
            (
                Tz::Europe__Dublin,
                "2026-10-25 01:30:00",
                "2026-10-25 00:30:00",
            ),
            (
                Tz::Pacific__Apia,
                "2011-12-30 12:00:00",
                "2011-12-30 22:00:00",
            ),
            (
                Tz::Asia__Kathmandu,
                "2026-01-01 00:00:00",
                "2025-12-31 18:15:00",
            ),
            (Tz::UTC, "2026-10-25 02:30:00", "2026-10-25 02:30:00"),
        ] {
            assert_eq!(
                moment(wall(local), zone),
                Some(wall(utc).and_utc()),
                "{zone} {local}"
            );
        }
    }

    #[test]
    fn moments_outside_of_pythons_years_are_none() {
        assert_eq!(
            moment(wall("0001-01-01 00:00:00"), Tz::Europe__Berlin),
            None
        );
        assert_eq!(
            moment(wall("9999-12-31 23:00:00"), Tz::America__New_York),
            None
        );
        let last = wall("9999-12-31 23:30:00").and_utc();
        assert!(in_range(last, Tz::UTC) && !in_range(last, Tz::Europe__Berlin));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Each zone at once: any time, and times near each of its changes in one year.
        #[test]
        fn what_was_written_reads_back_to_the_same_clock(micros in MICROS, year in 1900..2100, hours in -3..3_i64, seconds in 0..3600_i64) {
            for zone in TZ_VARIANTS {
                let any = DateTime::from_timestamp_micros(micros).unwrap();
                let near = changes(zone, year).map(|change| change + chrono::TimeDelta::seconds(hours * 3600 + seconds));
                for time in near.chain([any]) {
                    let shown = wall_clock(time, zone);
                    let read = moment(shown, zone);
                    prop_assert_eq!(read.map(|read| wall_clock(read, zone)), Some(shown), "{} {}", zone, time);
                    // Earlier by what the clock was put back, where it was; the same otherwise.
                    prop_assert!(read.is_some_and(|read| read <= time));
                }
            }
        }
    }

    /// The hours of a year after which the zone's offset is another one.
    fn changes(zone: Tz, year: i32) -> impl Iterator<Item = DateTime<Utc>> {
        let start = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
        let days = (0..366).map(move |day| start + chrono::TimeDelta::days(day));
        let offset =
            move |time: &DateTime<Utc>| zone.offset_from_utc_datetime(&time.naive_utc()).fix();
        days.filter(move |day| offset(day) != offset(&(*day + chrono::TimeDelta::days(1))))
            .flat_map(move |day| (0..24).map(move |hour| day + chrono::TimeDelta::hours(hour)))
            .filter(move |hour| offset(hour) != offset(&(*hour + chrono::TimeDelta::hours(1))))
    }
}
