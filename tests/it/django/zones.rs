//! Sites that do not write UTC into their tables: USE_TZ = False, the default before Django 5.0, and databases
//! with a TIME_ZONE of their own.

use chrono::{Datelike as _, Utc};
use serde_json::json;

use super::{
    Site,
    ends::{self, ends_in, lasting, stays_at},
};
use crate::support::{Engine, Release, Served as _};

#[test]
fn a_site_without_use_tz_on_sqlite() {
    without_use_tz(Engine::Sqlite);
}

#[test]
fn a_site_without_use_tz_on_postgresql() {
    without_use_tz(Engine::Postgres);
}

#[test]
fn a_site_without_use_tz_on_mariadb() {
    without_use_tz(Engine::MariaDb);
}

#[test]
fn a_database_with_a_time_zone_on_sqlite() {
    a_database_with_a_time_zone(Engine::Sqlite);
}

#[test]
fn a_database_with_a_time_zone_on_mariadb() {
    a_database_with_a_time_zone(Engine::MariaDb);
}

fn without_use_tz(engine: Engine) {
    let settings = json!({
        "USE_TZ": false,
        "TIME_ZONE": "Europe/Berlin",
        "SESSION_EXPIRE_AT_BROWSER_CLOSE": true,
    });
    let lines = "time_zone = 'Europe/Berlin'\nexpire_at_browser_close = true";
    let site = &Site::start(Release::V42, engine, &settings, lines);
    a_session_lasts_as_long_on_both_sides(site);
    ends::an_expired_session_is_nobodys_on_both_sides(site);

    let year = Utc::now().year() + 1;
    stays_at(site, &format!("{year}-07-01T12:00:00"));
    stays_at(site, &format!("{year}-01-15T12:00:00.123456"));
    if engine != Engine::Postgres {
        // The hour that the clock shows twice, and the one that it leaps over. PostgreSQL reads the first of them
        // in another way than Python.
        let sunday = |month: u32| {
            let last = chrono::NaiveDate::from_ymd_opt(year, month, 31).unwrap();
            31 - last.weekday().num_days_from_sunday()
        };
        stays_at(site, &format!("{year}-10-{}T02:30:00", sunday(10)));
        stays_at(site, &format!("{year}-03-{}T02:30:00", sunday(3)));
    }
}

fn a_database_with_a_time_zone(engine: Engine) {
    let settings = json!({"DATABASE_TIME_ZONE": "America/New_York"});
    let lines = "time_zone = 'America/New_York'";
    let site = &Site::start(Release::V52, engine, &settings, lines);
    ends::an_expiry_is_the_same_on_both_sides(site);
    ends::a_session_ends_with_the_browser_on_both_sides(site);
    ends::a_fixed_end_is_moved_by_nobody(site);
    ends::an_expired_session_is_nobodys_on_both_sides(site);
}

fn a_session_lasts_as_long_on_both_sides(site: &Site) {
    let key = site.log_in("alice");
    ends_in(site, &key, 1_209_600);
    let answer = site.patch(&key, r#"{"set":{"cart":["a"]}}"#);
    assert_eq!(lasting(&answer), None, "until the browser closes");
    ends_in(site, &key, 1_209_600);
    assert_eq!(site.django.session(&key)["cart"], json!(["a"]));
    assert_eq!(site.django.user(&key).as_deref(), Some("1"));

    let answer = site.patch(&key, r#"{"expiry":3600}"#);
    assert_eq!(lasting(&answer), Some(3600));
    ends_in(site, &key, 3600);
    let by_django = site.django.post("/set/?a=1").session(&key).send();
    assert_eq!(lasting(&by_django), Some(3600));
    ends_in(site, &key, 3600);
}
