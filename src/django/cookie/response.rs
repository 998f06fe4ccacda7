//! Set-Cookie: the session cookie's, as Django writes and deletes it, and an upstream's, as a browser
//! reads it.

use std::fmt::Write;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use http::HeaderValue;

use super::{is_blank, looks_like, trim};
use crate::{
    config::{Cookie, SameSite},
    django::expiry::Lifetime,
    session::SessionKey,
};

/// The Set-Cookie value that gives a browser the session, as `SessionMiddleware.process_response` does.
/// It is marked sensitive. `now` and the lifetime make `expires`; a browser-session cookie has none.
pub fn set(
    cookie: &Cookie,
    key: &SessionKey,
    lifetime: Lifetime,
    now: DateTime<Utc>,
) -> HeaderValue {
    let mut text = format!("{}={}", cookie.name, key.as_str());
    push_domain(&mut text, cookie);
    if let Lifetime::Seconds(seconds) = lifetime {
        push_expires(&mut text, end(now, seconds));
    }
    if cookie.httponly {
        text.push_str("; HttpOnly");
    }
    if let Lifetime::Seconds(seconds) = lifetime {
        let _ = write!(text, "; Max-Age={seconds}");
    }
    push_path_and_samesite(&mut text, cookie);
    if cookie.secure {
        text.push_str("; Secure");
    }
    header_value(&text)
}

/// The Set-Cookie value that deletes the session cookie, as `HttpResponse.delete_cookie` does: an empty
/// quoted value, never HttpOnly, and Secure only where a browser would refuse it otherwise (the name's
/// prefix, or SameSite=None; the latter since Django 3.1).
pub fn delete(cookie: &Cookie) -> HeaderValue {
    let mut text = format!("{}=\"\"", cookie.name);
    push_domain(&mut text, cookie);
    push_expires(&mut text, DateTime::UNIX_EPOCH);
    text.push_str("; Max-Age=0");
    push_path_and_samesite(&mut text, cookie);
    let prefixed = cookie.name.starts_with("__Secure-") || cookie.name.starts_with("__Host-");
    if prefixed || cookie.samesite == SameSite::None {
        text.push_str("; Secure");
    }
    header_value(&text)
}

// Attributes come in the order of Python's http.cookies, which sorts them.

fn push_domain(text: &mut String, cookie: &Cookie) {
    if let Some(domain) = cookie.domain.as_deref().filter(|domain| !domain.is_empty()) {
        text.push_str("; Domain=");
        text.push_str(domain);
    }
}

fn push_expires(text: &mut String, end: DateTime<Utc>) {
    // IMF-fixdate (RFC 9110, section 5.6.7).
    let _ = write!(
        text,
        "; expires={}",
        end.format("%a, %d %b %Y %H:%M:%S GMT")
    );
}

fn push_path_and_samesite(text: &mut String, cookie: &Cookie) {
    if !cookie.path.is_empty() {
        text.push_str("; Path=");
        text.push_str(&cookie.path);
    }
    text.push_str(match cookie.samesite {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None => "; SameSite=None",
        SameSite::Omit => "",
    });
}

/// `now` and a number of seconds, or the nearest moment that an IMF-fixdate can tell.
fn end(now: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    TimeDelta::try_seconds(seconds)
        .and_then(|age| now.checked_add_signed(age))
        .filter(|end| (0..=9999).contains(&end.year()))
        .unwrap_or(if seconds < 0 {
            DateTime::UNIX_EPOCH
        } else {
            LAST
        })
}

/// The end of the year 9999.
const LAST: DateTime<Utc> = match DateTime::from_timestamp_secs(253_402_300_799) {
    Some(last) => last,
    None => DateTime::UNIX_EPOCH,
};

/// Cannot fail: the bytes that a field value must not hold (RFC 9110, section 5.5) are left out. Only a
/// name, domain or path could bring one, and the configuration refuses those.
fn header_value(text: &str) -> HeaderValue {
    let bytes: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_control())
        .collect();
    let mut value = HeaderValue::try_from(bytes).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// The name of the cookie that a Set-Cookie value sets, as a browser sees it (RFC 6265, section 5.2):
/// what stands before the first `=` of the part before the first `;`, without the blanks round it. Empty
/// where there is no `=`; browsers store such a cookie without a name and send back only its value, so
/// that it can pass for any cookie.
pub fn set_cookie_name(field: &[u8]) -> &[u8] {
    let pair = field.split(|byte| *byte == b';').next().unwrap_or_default();
    let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
        return &[];
    };
    trim(&pair[..equals], is_blank)
}

/// Whether a Set-Cookie value of an upstream would set the session cookie, a look-alike of it (see
/// [`find`](super::find)), or a cookie without a name.
pub fn sets_session(name: &str, field: &[u8]) -> bool {
    let set = set_cookie_name(field);
    set.is_empty() || looks_like(name.as_bytes(), set)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::django::settings::Settings;

    const KEY: &str = "abcdefghijklmnopqrstuvwxyz012345";

    fn cookie() -> Cookie {
        Settings::new("").cookie
    }

    fn shown(value: HeaderValue) -> String {
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_cookie_is_set_and_deleted_byte_for_byte_as_django_does() {
        let key = SessionKey::parse(KEY.as_bytes()).unwrap();
        let now = DateTime::parse_from_rfc3339("2026-11-22T18:07:32.9Z")
            .unwrap()
            .to_utc();
        let set = |cookie: &Cookie, lifetime| shown(set(cookie, &key, lifetime, now));
        let fortnight = Lifetime::Seconds(1_209_600);

        let plain = cookie();
        let expected = format!(
            "sessionid={KEY}; expires=Sun, 06 Dec 2026 18:07:32 GMT; HttpOnly; Max-Age=1209600; Path=/; \
             SameSite=Lax"
        );
        assert_eq!(set(&plain, fortnight), expected);
        let expected = format!("sessionid={KEY}; HttpOnly; Path=/; SameSite=Lax");
        assert_eq!(set(&plain, Lifetime::Browser), expected);
        let expected = format!(
            "sessionid={KEY}; expires=Sun, 22 Nov 2026 18:07:27 GMT; HttpOnly; Max-Age=-5; Path=/; \
             SameSite=Lax"
        );
        assert_eq!(set(&plain, Lifetime::Seconds(-5)), expected);
        assert_eq!(
            shown(delete(&plain)),
            "sessionid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax"
        );

        let all = Cookie {
            name: "__Host-sid".into(),
            domain: Some(".example.com".into()),
            path: "/app".into(),
            secure: true,
            httponly: false,
            samesite: SameSite::None,
            ..cookie()
        };
        let expected = format!(
            "__Host-sid={KEY}; Domain=.example.com; expires=Sun, 06 Dec 2026 18:07:32 GMT; \
             Max-Age=1209600; Path=/app; SameSite=None; Secure"
        );
        assert_eq!(set(&all, fortnight), expected);
        assert_eq!(
            shown(delete(&all)),
            "__Host-sid=\"\"; Domain=.example.com; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; \
             Path=/app; SameSite=None; Secure"
        );
    }

    #[test]
    fn a_deletion_is_secure_only_where_it_must_be() {
        let deletion = |name: &str, samesite| {
            let cookie = Cookie {
                name: name.into(),
                secure: true,
                samesite,
                ..cookie()
            };
            shown(delete(&cookie))
        };
        for (name, samesite, secure) in [
            ("sessionid", SameSite::Lax, false),
            ("sessionid", SameSite::Omit, false),
            ("sessionid", SameSite::None, true),
            ("__Secure-s", SameSite::Strict, true),
            ("__Host-s", SameSite::Lax, true),
        ] {
            assert_eq!(
                deletion(name, samesite).ends_with("; Secure"),
                secure,
                "{name}"
            );
        }
        assert!(!deletion("sessionid", SameSite::Omit).contains("SameSite"));
    }

    #[test]
    fn a_set_cookie_has_the_name_that_a_browser_sees() {
        for (field, name, session) in [
            ("sessionid=abc; Path=/", "sessionid", true),
            ("  sessionid\t = abc", "sessionid", true),
            ("sessionid", "", true),
            ("sessionid; a=b", "", true),
            ("=sessionid=abc", "", true),
            ("", "", true),
            ("SESSIONID=abc", "SESSIONID", false),
            ("other=sessionid=abc", "other", false),
        ] {
            assert_eq!(
                set_cookie_name(field.as_bytes()),
                name.as_bytes(),
                "{field:?}"
            );
            assert_eq!(
                sets_session("sessionid", field.as_bytes()),
                session,
                "{field:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_setting_can_break_the_field(
            name in "[\\x00-\\x7Fé]{0,9}",
            domain in "[\\x00-\\x7Fé]{0,9}",
            path in "[\\x00-\\x7Fé]{0,9}",
            age: i64,
            now in -62_135_596_800_i64..253_402_300_799,
        ) {
            let cookie = Cookie { name, domain: Some(domain), path, age: Duration::ZERO, ..cookie() };
            let key = SessionKey::parse(KEY.as_bytes()).unwrap();
            let now = DateTime::from_timestamp_secs(now).unwrap();
            let value = set(&cookie, &key, Lifetime::Seconds(age), now);
            for value in [value, delete(&cookie)] {
                prop_assert!(value.is_sensitive());
                prop_assert!(value.as_bytes().windows(9).any(|attribute| attribute == b"; Max-Age"));
            }
        }
    }
}
