//! The part of a site's settings.py that decides how its sessions are read and written.

use std::time::Duration;

use chrono_tz::Tz;

use crate::config::{self, Config, SameSite, Secret};

/// SESSION_COOKIE_*.
pub use crate::config::Cookie as CookieSettings;
/// What of a login is checked against the user table.
pub use crate::config::Verify;

/// A Django site's settings, as far as its sessions depend on them.
///
/// [`Settings::new`] fills in Django's own defaults; change a field where settings.py does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The Django release that the site runs.
    pub release: Release,
    /// SECRET_KEY. Django takes a `str` by its UTF-8 bytes and `bytes` as they are.
    pub secret_key: Secret,
    /// SECRET_KEY_FALLBACKS. They only verify, never sign; releases before 4.1 do not have them.
    pub secret_key_fallbacks: Vec<Secret>,
    /// `SessionStore.key_salt` since Django 3.1: `django.contrib.sessions.` and the name of the class.
    pub salt: String,
    /// SESSION_COOKIE_*.
    pub cookie: CookieSettings,
    /// What of a login is checked against the user table.
    pub verify: Verify,
    /// Whether the site has a rule of its own for who may be logged in, in place of `is_active`.
    pub own_user_rule: bool,
    /// AUTHENTICATION_BACKENDS.
    pub backends: Vec<String>,
    /// SESSION_EXPIRE_AT_BROWSER_CLOSE.
    pub expire_at_browser_close: bool,
    /// SESSION_SAVE_EVERY_REQUEST.
    pub save_every_request: bool,
    /// TIME_ZONE of a site with USE_TZ = False, which reads texts without an offset in `_session_expiry`.
    /// `None`: nobody reads them.
    pub time_zone: Option<Tz>,
    /// The longest `session_data` that is decoded, in bytes. Django has no such limit.
    pub session_data: usize,
    /// The largest session JSON that is read, in bytes, after inflation. Django has no such limit: a
    /// mebibyte of one letter is a kibibyte of row.
    pub session_json: usize,
}

impl Settings {
    /// Django's defaults (django/conf/global_settings.py), release 4.2.
    pub fn new(secret_key: impl Into<Secret>) -> Self {
        Self {
            release: Release(4, 2),
            secret_key: secret_key.into(),
            secret_key_fallbacks: Vec::new(),
            salt: "django.contrib.sessions.SessionStore".into(),
            cookie: CookieSettings {
                name: "sessionid".into(),
                age: Duration::from_secs(14 * 24 * 60 * 60),
                domain: None,
                path: "/".into(),
                secure: false,
                httponly: true,
                samesite: SameSite::Lax,
                refuse_duplicate: false,
            },
            verify: Verify::User,
            own_user_rule: false,
            backends: vec!["django.contrib.auth.backends.ModelBackend".into()],
            expire_at_browser_close: false,
            save_every_request: false,
            time_zone: None,
            session_data: 256 * 1024,
            session_json: 1024 * 1024,
        }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let config::Django {
            release: (major, minor),
            ..
        } = config.django;
        Self {
            release: Release(major, minor),
            secret_key: config.django.secret_key.clone(),
            secret_key_fallbacks: config.django.secret_key_fallbacks.clone(),
            salt: config.django.salt.clone(),
            cookie: config.django.cookie.clone(),
            verify: config.django.verify,
            own_user_rule: config.django.user.condition.is_some(),
            backends: config.django.backends.clone(),
            expire_at_browser_close: config.django.expire_at_browser_close,
            save_every_request: config.django.save_every_request,
            time_zone: config.django.time_zone,
            session_data: config.limits.session_data,
            session_json: config.limits.session_json,
        }
    }
}

/// A Django release, as major and minor number. What changed between releases has a name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release(pub u8, pub u8);

impl Release {
    /// Whether it writes rows in the format of before 3.1: base64 of a SHA-1 MAC and the payload.
    ///
    /// 3.1 and 3.2 do so only with DEFAULT_HASHING_ALGORITHM = 'sha1', a setting for the time of an
    /// upgrade: name the release 3.0 for such a site, it reads and writes the same rows.
    pub fn writes_legacy(self) -> bool {
        self < Self(3, 1)
    }

    /// Whether it reads rows in the format of before 3.1.
    pub fn reads_legacy(self) -> bool {
        self <= Self(3, 2)
    }

    /// Whether it also accepts a SHA-1 MAC where it writes a SHA-256 one: on rows of the format since
    /// 3.1, and in `_auth_user_hash`.
    pub fn reads_sha1(self) -> bool {
        (Self(3, 1)..=Self(3, 2)).contains(&self)
    }

    /// Whether SECRET_KEY_FALLBACKS count.
    pub fn reads_fallbacks(self) -> bool {
        self >= Self(4, 1)
    }

    /// Whether a fixed end is kept in `_session_expiry` as ISO 8601 text. Earlier releases keep a
    /// datetime object there, which their JSON serializer cannot write, and fail on the text.
    pub fn stores_iso_expiry(self) -> bool {
        self >= Self(4, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_reads_and_writes_what_it_does() {
        let answers = |release: Release| {
            [
                release.writes_legacy(),
                release.reads_legacy(),
                release.reads_sha1(),
                release.reads_fallbacks(),
                release.stores_iso_expiry(),
            ]
        };
        assert_eq!(answers(Release(1, 11)), [true, true, false, false, false]);
        assert_eq!(answers(Release(3, 0)), [true, true, false, false, false]);
        assert_eq!(answers(Release(3, 1)), [false, true, true, false, false]);
        assert_eq!(answers(Release(3, 2)), [false, true, true, false, false]);
        assert_eq!(answers(Release(4, 0)), [false, false, false, false, false]);
        assert_eq!(answers(Release(4, 1)), [false, false, false, true, true]);
        assert_eq!(answers(Release(6, 1)), [false, false, false, true, true]);
    }

    #[test]
    fn a_printed_setting_shows_no_key() {
        let mut settings = Settings::new("planted-key");
        settings.secret_key_fallbacks = vec![Secret::from("planted-fallback")];
        assert!(!format!("{settings:?}").contains("planted"));
    }
}
