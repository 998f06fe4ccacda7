//! `[django]` as the gateway works with it.

use std::{path::PathBuf, time::Duration};

use chrono_tz::Tz;

use super::{Protected, Secret};
/// `[django]`: what the site's settings.py says.
#[derive(Clone, Debug)]
pub struct Django {
    /// `database`.
    pub database: Database,
    /// `secret_key`: Django's SECRET_KEY.
    pub secret_key: Secret,
    /// `secret_key_fallbacks`: SECRET_KEY_FALLBACKS.
    pub secret_key_fallbacks: Vec<Secret>,
    /// `release`: the site's Django release, as (major, minor).
    pub release: (u8, u8),
    /// `engine`: SESSION_ENGINE.
    pub engine: Engine,
    /// `table`: the session table.
    pub table: String,
    /// `salt`: the signing salt of the session store's class.
    pub salt: String,
    /// `time_zone`: the zone of moments that are stored without an offset. `None`: UTC, and texts without an
    /// offset in `_session_expiry` are not read.
    pub time_zone: Option<Tz>,
    /// `verify`: what of a login is checked against the user table.
    pub verify: Verify,
    /// `backends`: AUTHENTICATION_BACKENDS.
    pub backends: Vec<String>,
    /// `[django.user]`.
    pub user: User,
    /// `max_staleness`: how old an answer may be; zero for none from before its question.
    pub max_staleness: Duration,
    /// `deadline`: how long a lookup or a change may take.
    pub deadline: Duration,
    /// `connections`: for lookups.
    pub connections: usize,
    /// `write_connections`: for changes.
    pub write_connections: usize,
    /// `pooler = "transaction"`: connections lead to another PostgreSQL server with each transaction.
    pub pooled: bool,
    /// `replica = "accepted"`: answers of standbys and read-only servers count, however old they are.
    pub accept_replica: bool,
    /// The built-in protected names and `protected`.
    pub protected: Protected,
    /// `expire_at_browser_close`: SESSION_EXPIRE_AT_BROWSER_CLOSE.
    pub expire_at_browser_close: bool,
    /// `save_every_request`: SESSION_SAVE_EVERY_REQUEST.
    pub save_every_request: bool,
    /// `[django.cookie]`.
    pub cookie: Cookie,
}

/// SESSION_ENGINE, of those that keep sessions in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `"db"`: in the table only.
    Db,
    /// `"cached_db"`: in a cache, which Django reads first, and in the table. Nothing may be written: Django would
    /// not see it, and would still serve a session that is gone from the table.
    CachedDb,
}

/// Which database `[django] database` names. The address is a secret: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// `postgres://...` or `postgresql://...`
    Postgres(Secret),
    /// `mysql://...` or `mariadb://...`
    MySql(Secret),
    /// `sqlite:PATH`; relative to the configuration file's folder.
    Sqlite(PathBuf),
}

/// `verify`: what of a login is checked against the user table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The user exists, satisfies `where`, and `_auth_user_hash` fits the password.
    User,
    /// The user exists and satisfies `where`: for projects with a `get_session_auth_hash` of their own.
    ActiveOnly,
    /// Nothing: the session's word is taken. The user table is not read.
    Off,
}

/// `[django.user]`: AUTH_USER_MODEL's table. All names are plain identifiers.
#[derive(Clone, Debug)]
pub struct User {
    /// `table`.
    pub table: String,
    /// `key`: the primary key's column.
    pub key: String,
    /// `password`: the password column.
    pub password: String,
    /// `where`: an SQL condition on the row; `None` is `is_active`, where there is such a column.
    pub condition: Option<String>,
    /// `groups`: the membership table and the group table.
    pub groups: (String, String),
}

/// `[django.cookie]`: SESSION_COOKIE_*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// SESSION_COOKIE_NAME.
    pub name: String,
    /// SESSION_COOKIE_AGE.
    pub age: Duration,
    /// SESSION_COOKIE_DOMAIN.
    pub domain: Option<String>,
    /// SESSION_COOKIE_PATH.
    pub path: String,
    /// SESSION_COOKIE_SECURE.
    pub secure: bool,
    /// SESSION_COOKIE_HTTPONLY.
    pub httponly: bool,
    /// SESSION_COOKIE_SAMESITE.
    pub samesite: SameSite,
    /// `duplicate = "refuse"`: two session cookies are a 400.
    pub refuse_duplicate: bool,
}

/// SESSION_COOKIE_SAMESITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `"Lax"`.
    Lax,
    /// `"Strict"`.
    Strict,
    /// `"None"`: the attribute is sent with the value None.
    None,
    /// `"omit"`: SESSION_COOKIE_SAMESITE = False; the attribute is not sent.
    Omit,
}
