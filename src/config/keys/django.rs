//! `[django]` and its tables.

use std::time::Duration;

use super::{Key, Kind, List, MINUTE, NONE, Otherwise, SECOND, Section, forms};

pub(in crate::config) static DJANGO: Section = Section {
    name: "[django]",
    about: "What the site's settings.py says.",
    keys: &[
        Key {
            name: "database",
            kind: Kind::Or(&[Kind::Secret(""), Kind::Text(&forms::DATABASE)]),
            otherwise: Otherwise::Required("{ env = \"DATABASE_URL\" }"),
            about: "`postgres://user:password@host:5432/name`, `mysql://user:password@host:3306/name` (also \
                    `mariadb://`) or `sqlite:PATH`",
        },
        Key {
            name: "secret_key",
            kind: Kind::Secret(""),
            otherwise: Otherwise::Required("{ file = \"/run/secrets/django_secret_key\" }"),
            about: "`SECRET_KEY`: signs the sessions",
        },
        Key {
            name: "secret_key_fallbacks",
            kind: Kind::List(&List {
                of: Kind::Secret(""),
                called: "secrets",
                least: 0,
                most: None,
                unique: false,
            }),
            otherwise: Otherwise::Is("[]"),
            about: "`SECRET_KEY_FALLBACKS`: read, never signed with",
        },
        Key {
            name: "release",
            kind: Kind::Text(&forms::RELEASE),
            otherwise: Otherwise::Is("\"4.2\""),
            about: "the site's Django, because formats and rules differ",
        },
        Key {
            name: "engine",
            kind: Kind::Choice(&["db", "cached_db"]),
            otherwise: Otherwise::Is("\"db\""),
            about: "the last part of `SESSION_ENGINE`. With `\"cached_db\"` no route may write: \
                    [why](django.md#cached_db)",
        },
        Key {
            name: "table",
            kind: Kind::Text(&forms::TABLE),
            otherwise: Otherwise::Is("\"django_session\""),
            about: "the session table as the database has it: letters, digits and `_`; capitals count. One with \
                    columns of its own may be read and changed, not added to: [sites with their own \
                    tables](django.md#sites-with-their-own-tables)",
        },
        Key {
            name: "salt",
            kind: Kind::Text(&forms::PLAIN),
            otherwise: Otherwise::Is("\"django.contrib.sessions.SessionStore\""),
            about: "the store's `key_salt`: `django.contrib.sessions.` and the class's name. Another one only with a \
                    store class of your own",
        },
        Key {
            name: "time_zone",
            kind: Kind::Text(&forms::TIME_ZONE),
            otherwise: Otherwise::Words("none: UTC"),
            about: "the zone in which Django writes `expire_date` on SQLite, MySQL and MariaDB: `TIME_ZONE` of a site \
                    with `USE_TZ = False`, or the `TIME_ZONE` of the entry in `DATABASES`. With `USE_TZ = True` and \
                    neither of these leave it out, whatever the site's `TIME_ZONE` is: sessions would end hours early \
                    or late. PostgreSQL stores moments that need no zone. On every database ends without an offset in \
                    `_session_expiry`, which only a site with `USE_TZ = False` writes, are read in it; without this \
                    line they make a session unwritable",
        },
        Key {
            name: "verify",
            kind: Kind::Choice(&["user", "active-only", "off"]),
            otherwise: Otherwise::Is("\"user\""),
            about: "what of a login is checked in the user table, at each request: `user`: the user exists, satisfies \
                    `where`, and the session's hash fits the password, as Django does it; `active-only`: without the \
                    hash, for projects with a `get_session_auth_hash` of their own; `off`: nothing is checked and the \
                    user table is not read, so a deactivated user stays logged in here",
        },
        Key {
            name: "backends",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::PYTHON_PATH),
                called: "Python paths",
                least: 1,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Is("[\"django.contrib.auth.backends.ModelBackend\"]"),
            about: "`AUTHENTICATION_BACKENDS`: a login by any other counts as none",
        },
        Key {
            name: "max_staleness",
            kind: Kind::Duration(NONE..=MINUTE),
            otherwise: Otherwise::Is("\"0s\""),
            about: "how old the session and the user may be that a request is judged by. `\"0s\"` is exact: read for \
                    each request, after it arrived. More spares the database, and lets a logout, a deactivation or a \
                    new password count that much later: [operations.md](operations.md#older-answers-for-less-work)",
        },
        Key {
            name: "deadline",
            kind: Kind::Duration(Duration::from_millis(10)..=MINUTE),
            otherwise: Otherwise::Is("\"2s\""),
            about: "how long a lookup or a change may take before it is an outage",
        },
        Key {
            name: "connections",
            kind: Kind::Count(1..=1000),
            otherwise: Otherwise::Is("2"),
            about: "database connections for lookups: they are batched, so few are enough",
        },
        Key {
            name: "write_connections",
            kind: Kind::Count(1..=1000),
            otherwise: Otherwise::Is("8"),
            about: "database connections for changes; with three or more, two of them store many rows at once, and the \
                    others lock theirs",
        },
        Key {
            name: "pooler",
            kind: Kind::Choice(&["none", "transaction"]),
            otherwise: Otherwise::Is("\"none\""),
            about: "PostgreSQL: `\"transaction\"` where PgBouncer or another pooler in transaction mode stands before \
                    the server. See [operations.md](operations.md#poolers); without it such a pooler is refused, \
                    because statements of different clients would be mixed up",
        },
        Key {
            name: "replica",
            kind: Kind::Choice(&["refused", "accepted"]),
            otherwise: Otherwise::Is("\"refused\""),
            about: "whether a standby is believed, or a server (or role) that is read-only by default. `\"accepted\"`: \
                    a logout counts only when the server that answers has heard of it, however late that is",
        },
        Key {
            name: "protected",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::PLAIN),
                called: "names, `*` for any characters",
                least: 0,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Is("[]"),
            about: "more names of the session that no upstream reads by `forward = \"*\"` or writes. Always protected: \
                    names that start with `_`, and `hijack_history`, `otp_device_id`, `account_*`, `socialaccount_*`, \
                    `mfa.*`, `*oauth*`, `*oidc*`, `wizard_*`, where Django's packages keep authority or secrets",
        },
        Key {
            name: "expire_at_browser_close",
            kind: Kind::Flag,
            otherwise: Otherwise::Is("false"),
            about: "`SESSION_EXPIRE_AT_BROWSER_CLOSE`",
        },
        Key {
            name: "save_every_request",
            kind: Kind::Flag,
            otherwise: Otherwise::Is("false"),
            about: "`SESSION_SAVE_EVERY_REQUEST`: a known session is extended by each response below 500 of a route \
                    that reads sessions, whatever the route grants, and the cookie with it. Only where that moves its \
                    end by more than 60 s, or by more than a tenth of its life; never where it would create a session",
        },
        Key {
            name: "cookie",
            kind: Kind::Table(&COOKIE),
            otherwise: Otherwise::None,
            about: "`[django.cookie]`, below",
        },
        Key {
            name: "user",
            kind: Kind::Table(&USER),
            otherwise: Otherwise::None,
            about: "`[django.user]`, below",
        },
    ],
    either: &[],
};

pub(in crate::config) static USER: Section = Section {
    name: "[django.user]",
    about: "The table of `AUTH_USER_MODEL`.",
    keys: &[
        Key {
            name: "table",
            kind: Kind::Text(&forms::TABLE),
            otherwise: Otherwise::Is("\"auth_user\""),
            about: "with a schema and a dot before it if need be",
        },
        Key {
            name: "key",
            kind: Kind::Text(&forms::COLUMN),
            otherwise: Otherwise::Is("\"id\""),
            about: "the primary key: what `_auth_user_id` names",
        },
        Key {
            name: "password",
            kind: Kind::Text(&forms::COLUMN),
            otherwise: Otherwise::Is("\"password\""),
            about: "what `_auth_user_hash` is made of; read with `verify = \"user\"` only",
        },
        Key {
            name: "where",
            kind: Kind::Text(&forms::CONDITION),
            otherwise: Otherwise::Words("`is_active`, if there is such a column"),
            about: "who may be logged in, such as `\"is_active AND NOT is_locked\"`; NULL is no. It takes the place of \
                    `is_active`, so name that too. With the default, `AllowAllUsersModelBackend` logs in inactive \
                    users too, as in Django",
        },
        Key {
            name: "groups",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::TABLE),
                called: "two table names",
                least: 2,
                most: Some(2),
                unique: true,
            }),
            otherwise: Otherwise::Words("`table` with `_groups` behind it, and `auth_group`"),
            about: "the memberships (`group_id` and one other column that ends in `_id`), and the groups (`id`, \
                    `name`), under the names that Django's migrations give them",
        },
    ],
    either: &[],
};

pub(in crate::config) static COOKIE: Section = Section {
    name: "[django.cookie]",
    about: "`SESSION_COOKIE_*`: must be what settings.py says.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text(&forms::COOKIE_NAME),
            otherwise: Otherwise::Is("\"sessionid\""),
            about: "`SESSION_COOKIE_NAME`",
        },
        Key {
            name: "age",
            kind: Kind::Seconds(SECOND..=TEN_YEARS),
            otherwise: Otherwise::Is("\"14d\""),
            about: "`SESSION_COOKIE_AGE`",
        },
        Key {
            name: "domain",
            kind: Kind::Text(&forms::COOKIE_DOMAIN),
            otherwise: Otherwise::None,
            about: "`SESSION_COOKIE_DOMAIN`",
        },
        Key {
            name: "path",
            kind: Kind::Text(&forms::COOKIE_PATH),
            otherwise: Otherwise::Is("\"/\""),
            about: "`SESSION_COOKIE_PATH`",
        },
        Key {
            name: "secure",
            kind: Kind::Flag,
            otherwise: Otherwise::Is("false"),
            about: "`SESSION_COOKIE_SECURE`",
        },
        Key {
            name: "httponly",
            kind: Kind::Flag,
            otherwise: Otherwise::Is("true"),
            about: "`SESSION_COOKIE_HTTPONLY`",
        },
        Key {
            name: "samesite",
            kind: Kind::Choice(&["Lax", "Strict", "None", "omit"]),
            otherwise: Otherwise::Is("\"Lax\""),
            about: "`SESSION_COOKIE_SAMESITE`; `\"omit\"` is Django's `False`: the attribute is not sent",
        },
        Key {
            name: "duplicate",
            kind: Kind::Choice(&["last", "refuse"]),
            otherwise: Otherwise::Is("\"last\""),
            about: "of two session cookies in one request Django takes the last; `\"refuse\"` answers 400 instead",
        },
    ],
    either: &[],
};

/// More is a slip of the unit.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);
