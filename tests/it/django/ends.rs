//! When sessions end: the same moment on both sides, in the row and in the cookie.

use chrono::{Duration, Utc};

use super::{Site, is_nobody};
use crate::support::{Answer, Served as _};

pub(super) fn an_expiry_is_the_same_on_both_sides(site: &Site) {
    let key = site.log_in("alice");
    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"expiry":3600}"#)
        .send();
    assert!(
        answer
            .is_upstreams(200)
            .set_cookie()
            .unwrap()
            .contains("; Max-Age=3600;")
    );
    let claims = site.claims(&key);
    let left = claims["session_exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((3540..=3601).contains(&left), "{claims}");
    let by_django = site.django.post("/set/?a=1").session(&key).send();
    assert!(
        by_django.set_cookie().unwrap().contains("; Max-Age=3600;"),
        "{:?}",
        by_django.set_cookie()
    );

    let answer = site.app(&key).field("X-Test-Set", r#"{"expiry":0}"#).send();
    let cookie = answer.is_upstreams(200).set_cookie().unwrap().to_owned();
    assert!(
        !cookie.contains("Max-Age") && !cookie.contains("expires"),
        "until the browser closes: {cookie}"
    );
    let by_django = site.django.post("/set/?a=2").session(&key).send();
    assert!(!by_django.set_cookie().unwrap().contains("Max-Age"));

    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"expiry":null}"#)
        .send();
    assert!(
        answer
            .is_upstreams(200)
            .set_cookie()
            .unwrap()
            .contains("; Max-Age=1209600;")
    );

    site.django
        .post("/expiry/?seconds=120")
        .session(&key)
        .send();
    let claims = site.claims(&key);
    let left = claims["session_exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((60..=121).contains(&left), "{claims}");
    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"set":{"a":3}}"#)
        .send();
    assert!(
        answer
            .is_upstreams(200)
            .set_cookie()
            .unwrap()
            .contains("; Max-Age=120;")
    );
}

pub(super) fn a_session_ends_with_the_browser_on_both_sides(site: &Site) {
    let key = site.log_in("alice");
    site.django.post("/expiry/?seconds=0").session(&key).send();
    assert_eq!(site.end(&key)["browser_close"], true);
    let answer = site.patch(&key, r#"{"set":{"a":1}}"#);
    assert_eq!(lasting(&answer), None, "{:?}", answer.set_cookie());
    assert_eq!(site.end(&key)["browser_close"], true);
    // The row stays as long as any.
    ends_in(site, &key, 1_209_600);

    let key = site.log_in("alice");
    let answer = site.patch(&key, r#"{"set":{"a":1},"expiry":0}"#);
    assert_eq!(lasting(&answer), None, "{:?}", answer.set_cookie());
    assert_eq!(site.end(&key)["browser_close"], true);
    let by_django = site.django.post("/set/?a=2").session(&key).send();
    assert_eq!(lasting(&by_django), None, "{:?}", by_django.set_cookie());
    ends_in(site, &key, 1_209_600);
}

pub(super) fn a_fixed_end_is_moved_by_nobody(site: &Site) {
    let end = Utc::now() + Duration::days(3);
    stays_at(
        site,
        &end.format("%Y-%m-%dT%H:%M:%S%.6f%%2B00:00").to_string(),
    );
    // In another zone, and without parts of a second.
    stays_at(site, &end.format("%Y-%m-%dT%H:%M:%S%%2B05:30").to_string());
}

/// A session of which Django says that it ends at this time does so whoever writes it.
pub(super) fn stays_at(site: &Site, at: &str) {
    let key = site.log_in("alice");
    let target = format!("/expiry/?at={at}");
    let set = site.django.post(&target).session(&key).send();
    assert_eq!(set.status, 200, "{at}: {set:?}");
    let end = site.end(&key)["row"].as_f64().unwrap();
    assert_eq!(site.claims(&key)["session_exp"], end.floor(), "{at}");

    for change in [r#"{"set":{"a":1}}"#, r#"{"set":{"a":2}}"#] {
        let answer = site.patch(&key, change);
        let left = lasting(&answer).expect("a number of seconds");
        let expected = end as i64 - Utc::now().timestamp();
        assert!(
            (-2..=60).contains(&(left - expected)),
            "{at}: {left} {expected}"
        );
        assert_eq!(site.end(&key)["row"], end, "{at}");
        assert_eq!(site.claims(&key)["session_exp"], end.floor(), "{at}");
    }
    let by_django = site.django.post("/set/?a=3").session(&key).send();
    assert!(lasting(&by_django).is_some(), "{at}");
    assert_eq!(site.end(&key)["row"], end, "{at}");
    assert_eq!(site.django.session(&key)["a"], 3);

    // The upstream takes it away.
    site.patch(&key, r#"{"expiry":null}"#);
    ends_in(site, &key, 1_209_600);
}

pub(super) fn an_expired_session_is_nobodys_on_both_sides(site: &Site) {
    // Less than any zone's distance from UTC, on both sides.
    for (seconds, lives) in [(-600, false), (600, true)] {
        let key = site.log_in("alice");
        let target = format!("/expiry/?seconds={seconds}");
        site.django.post(&target).session(&key).send();
        assert_eq!(site.django.user(&key).is_some(), lives, "{seconds}");
        if lives {
            assert_eq!(site.claims(&key)["sub"], "1");
            site.patch(&key, r#"{"set":{"a":1}}"#);
            ends_in(site, &key, seconds);
        } else {
            is_nobody(&site.claims(&key));
            let row = site.database.data(&key);
            let answer = site.patch(&key, r#"{"set":{"a":1}}"#);
            assert_ne!(answer.new_session().as_ref(), Some(&key));
            assert_eq!(site.database.data(&key), row);
        }
    }
}

/// Both sides find that a session ends so many seconds from now.
#[track_caller]
pub(super) fn ends_in(site: &Site, key: &str, seconds: i64) {
    let end = site.end(key)["row"].as_f64().unwrap();
    let apart = end as i64 - Utc::now().timestamp() - seconds;
    assert!((-60..=1).contains(&apart), "{apart} seconds too late");
    assert_eq!(site.claims(key)["session_exp"], end.floor());
}

/// The Max-Age of the cookie that was set.
#[track_caller]
pub(super) fn lasting(answer: &Answer) -> Option<i64> {
    let cookie = answer.set_cookie().expect("a cookie");
    let (_, rest) = cookie.split_once("Max-Age=")?;
    let number = rest.split(';').next().unwrap();
    Some(number.parse().unwrap())
}
