//! `[django]`: what the site's settings.py says.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Cookie, Database, Django, Engine, Protected, SameSite, Secret, User, Verify,
    item::Value,
    mysql,
    report::did_you_mean,
    secrets::{self, Found},
    tree::Table,
    value,
};

/// Stands in for what `--without-secrets` does not read.
const PLACEHOLDER: &str = "postgres://without-secrets";

/// `[django]`, and the keys that no upstream may have.
pub(super) fn read(table: &Table<'_>) -> (Option<Django>, Vec<Found>) {
    let database = table
        .required("database")
        .and_then(|value| read_database(&value));
    let secret_key = table
        .required("secret_key")
        .and_then(|value| secrets::read(&value));
    let fallbacks: Vec<Found> = table
        .value("secret_key_fallbacks")
        .and_then(|value| value.items("a list of secrets"))
        .into_iter()
        .flatten()
        .filter_map(|item| secrets::read(&item))
        .collect();

    let verify = [
        ("user", Verify::User),
        ("active-only", Verify::ActiveOnly),
        ("off", Verify::Off),
    ];
    let verify = table.choice("verify", &verify);
    let user_table = table.table("user");
    let user = read_user(&user_table);
    check_user(table, &user_table, verify.unwrap_or(Verify::User));
    check_where(&user_table, database.as_ref());
    let backends = table.read("backends", read_backends);
    let release = table.read("release", |value| {
        value.parse("a text such as \"4.2\"", value::release)
    });
    let engine = table.read("engine", |value| {
        value.parse("\"db\" or \"cached_db\"", value::engine)
    });
    let session_table = table.read("table", |value| value.parse("text", value::table));
    let salt = table.read("salt", |value| value.parse("text", value::plain_text));
    let time_zone = table
        .value("time_zone")
        .and_then(|value| value.parse("text such as \"Europe/Berlin\"", value::time_zone));
    let max_staleness = read_max_staleness(table);
    let deadline = table.duration("deadline");
    let connections = table.count("connections");
    let write_connections = table.count("write_connections");
    let pooled = table.choice("pooler", &[("none", false), ("transaction", true)]);
    let replica = [("refused", false), ("accepted", true)];
    let accept_replica = table.choice("replica", &replica);
    check_server(table, database.as_ref(), accept_replica == Some(true));
    let protected = table.list(
        "protected",
        "a list of names such as [\"acl_*\"]",
        value::plain_text,
    );
    let expire_at_browser_close = table.flag("expire_at_browser_close");
    let save_every_request = table.flag("save_every_request");
    check_save_every_request(table, save_every_request, engine);
    let cookie = read_cookie(&table.table("cookie"));

    let own_keys: Vec<Found> = secret_key.iter().chain(&fallbacks).cloned().collect();
    let placeholder = |found: &Found| {
        found
            .secret
            .clone()
            .unwrap_or_else(|| Secret::from(PLACEHOLDER))
    };
    let django = (|| {
        Some(Django {
            database: database?,
            secret_key: placeholder(&secret_key?),
            secret_key_fallbacks: fallbacks.iter().map(placeholder).collect(),
            release: release?,
            engine: engine?,
            table: session_table?,
            salt: salt?,
            time_zone,
            verify: verify?,
            backends: backends?,
            user: user?,
            max_staleness,
            deadline,
            connections,
            write_connections,
            pooled: pooled?,
            accept_replica: accept_replica?,
            protected: Protected::new(protected),
            expire_at_browser_close,
            save_every_request,
            cookie: cookie?,
        })
    })();
    (django, own_keys)
}

fn read_user(table: &Table<'_>) -> Option<User> {
    let name = |key, parse: fn(&str) -> value::Parsed<String>| {
        table.read(key, |value| value.parse("text", parse))
    };
    let user_table = name("table", value::table)?;
    // As Django names the table of a many-to-many field (`ManyToManyField._get_m2m_db_table`).
    let default_groups = (format!("{user_table}_groups"), "auth_group".to_owned());
    let groups = table.read("groups", |value| {
        let expected = "two tables: that of the memberships, and that of the groups";
        let mut tables = value.list(expected, value::table)?.into_iter();
        match (tables.next(), tables.next(), tables.next()) {
            (Some(members), Some(groups), None) => Some((members, groups)),
            _ => {
                let example = "such as [\"auth_user_groups\", \"auth_group\"]";
                value.wrong(expected, Some(example.to_owned()));
                None
            }
        }
    });
    Some(User {
        table: user_table,
        key: name("key", value::column)?,
        password: name("password", value::column)?,
        condition: table.value("where").and_then(|value| {
            value.parse("an SQL condition such as \"is_active\"", value::condition)
        }),
        groups: groups.unwrap_or(default_groups),
    })
}

/// What has no effect for a `verify` that does not read it.
fn check_user(django: &Table<'_>, user: &Table<'_>, verify: Verify) {
    let unread: &[&'static str] = match verify {
        Verify::User => return,
        Verify::ActiveOnly => &["password"],
        Verify::Off => &["table", "key", "password", "where", "groups"],
    };
    for key in unread {
        if let Some(value) = user.value(key) {
            let sentence = format!("{key:?} in [django.user] has no effect with this verify");
            user.context.report.remark(value.at, sentence);
        }
    }
    if verify == Verify::Off
        && let Some(value) = django.value("verify")
    {
        let sentence = "with verify = \"off\" a user who was deactivated, deleted or given a new password stays \
                        logged in here until the session ends";
        django.context.report.remark(value.at, sentence);
    }
}

/// An extension is a write, and sets the session cookie.
fn check_save_every_request(table: &Table<'_>, save_every_request: bool, engine: Option<Engine>) {
    let Some(value) = table
        .value("save_every_request")
        .filter(|_| save_every_request)
    else {
        return;
    };
    if engine == Some(Engine::CachedDb) {
        let why =
            "with engine = \"cached_db\" the gateway writes nothing, so it cannot extend sessions";
        value.problem(why, None);
    }
    if table.value("cookie").is_none() {
        let sentence = "with save_every_request the gateway sets the session cookie, and there is no \
                        [django.cookie]: Django's defaults are taken, whatever settings.py says";
        table.context.report.remark(value.at, sentence);
    }
}

/// What other databases than PostgreSQL do not have, and what an accepted replica costs.
fn check_server(django: &Table<'_>, database: Option<&Database>, accept_replica: bool) {
    let remark = |key, sentence: &str| {
        if let Some(value) = django.value(key) {
            django.context.report.remark(value.at, sentence);
        }
    };
    match database {
        Some(Database::Sqlite(_)) => {
            remark("pooler", "\"pooler\" has no effect with SQLite");
            remark("replica", "\"replica\" has no effect with SQLite");
        }
        Some(Database::MySql(_)) => remark("pooler", "\"pooler\" has no effect with MySQL"),
        _ => {}
    }
    if accept_replica && !matches!(database, Some(Database::Sqlite(_))) {
        remark(
            "replica",
            "with replica = \"accepted\" a logout counts only when the server that answers has heard of it",
        );
    }
}

/// What of `where` means another thing than it seems to.
fn check_where(user: &Table<'_>, database: Option<&Database>) {
    let Some(value) = user.value("where") else {
        return;
    };
    let condition = value.as_text().unwrap_or_default();
    // To PostgreSQL it is a name, whatever the columns are.
    let is_a_name = matches!(database, None | Some(Database::Postgres(_)));
    if !is_a_name && condition.contains('"') {
        let why = "a name in double quotes that no column has is taken for a text by this database";
        value.problem(
            why,
            Some("write names that need quotes as `name`".to_owned()),
        );
    }
    if !condition.contains("is_active") {
        let sentence = "\"where\" in [django.user] takes the place of is_active, and does not mention it: users who \
                        are not active are logged in";
        user.context.report.remark(value.at, sentence);
    }
}

fn read_max_staleness(table: &Table<'_>) -> Duration {
    let bound = table.duration("max_staleness");
    if let Some(value) = table.value("max_staleness")
        && !bound.is_zero()
    {
        let bound = value::spell_duration(bound);
        let sentence = format!(
            "with this max_staleness a logout, a deactivation or a new password counts after up to {bound}"
        );
        table.context.report.remark(value.at, sentence);
    }
    bound
}

fn read_backends(value: &Value<'_>) -> Option<Vec<String>> {
    let backends = value.list("a list of AUTHENTICATION_BACKENDS", value::python_path)?;
    if value.is_empty_list() {
        value.problem("without a backend nobody is ever logged in", None);
    }
    Some(backends)
}

fn read_database(value: &Value<'_>) -> Option<Database> {
    let parsed = match value.as_text() {
        Some(url) if has_password(url) => {
            let suggestion = "write { env = \"DATABASE_URL\" } or { file = \"path\" }";
            value.problem(
                "a password is not written into this file",
                Some(suggestion.to_owned()),
            );
            return None;
        }
        Some(url) => database(value.context.folder, url),
        None => match secrets::read(value)?.secret {
            None => Ok(Database::Postgres(Secret::from(PLACEHOLDER))),
            Some(secret) => match str::from_utf8(secret.expose()) {
                Ok(url) => database(value.context.folder, url),
                Err(_) => Err("the database's address is not UTF-8"),
            },
        },
    };
    parsed.map_err(|why| value.problem(why, None)).ok()
}

impl Database {
    /// The address of a database. A SQLite file is looked for from `folder` on.
    ///
    /// # Errors
    ///
    /// A sentence that says what an address is. It never holds the one given.
    pub fn parse(url: &str, folder: &Path) -> Result<Self, &'static str> {
        database(folder, url)
    }
}

/// The sentences never hold the address: it may have a password.
fn database(folder: &Path, url: &str) -> Result<Database, &'static str> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "postgres" | "postgresql" if rest.starts_with("//") && rest.len() > 2 => {
            postgres(rest)?;
            Ok(Database::Postgres(Secret::from(url)))
        }
        "postgres" | "postgresql" => Err("a PostgreSQL address is postgres://user@host:5432/name"),
        "sqlite" | "sqlite3" if rest.contains(":memory:") => {
            Err("a SQLite database in memory cannot be shared with Django")
        }
        "sqlite" => sqlite(rest).map(|path| Database::Sqlite(folder.join(path))),
        "mysql" | "mariadb" => {
            mysql::check(rest)?;
            Ok(Database::MySql(Secret::from(url)))
        }
        _ => Err(
            "this is not a database address: postgres://, postgresql://, mysql://, mariadb:// or sqlite:",
        ),
    }
}

/// The parameters of a PostgreSQL address that the driver reads; it logs others with their values.
const POSTGRES_PARAMETERS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Finds what would be taken for something else: parts of a password as the host, for one.
fn postgres(rest: &str) -> Result<(), &'static str> {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = address
        .trim_start_matches('/')
        .split_once('/')
        .map_or("", |(_, path)| path);
    if rest.contains('#') || address.matches('@').count() > 1 || path.contains('@') {
        return Err(
            "a PostgreSQL address has one @, before the first /, and no #; in the password @, / and # \
             are %40, %2F and %23",
        );
    }
    let known = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        name.is_empty() || POSTGRES_PARAMETERS.contains(&name)
    };
    if query.split('&').all(known) {
        return Ok(());
    }
    Err(
        "a PostgreSQL address takes only these parameters: application_name, dbname, host, hostaddr, \
         options, password, port, sslcert, sslkey, sslmode, sslrootcert and user",
    )
}

/// `sqlite:path`, `sqlite://path` and `sqlite:///path`.
fn sqlite(rest: &str) -> Result<PathBuf, &'static str> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.contains(['?', '\0']) {
        return Err("a SQLite address is sqlite:PATH, without a query");
    }
    Ok(PathBuf::from(path))
}

/// Whether a database address holds a password: in its user part, or in its query (libpq, 34.1.1.2).
fn has_password(url: &str) -> bool {
    let (rest, query) = url.split_once('?').unwrap_or((url, ""));
    let in_query = query.split('&').any(|pair| {
        pair.split('=')
            .next()
            .is_some_and(|name| name.ends_with("password"))
    });
    let user = rest
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .map(|(user, _)| user);
    in_query || user.is_some_and(|user| user.contains(':'))
}

fn read_cookie(table: &Table<'_>) -> Option<Cookie> {
    let text = |key, parse: fn(&str) -> value::Parsed<String>| {
        table.read(key, |value| value.parse("text", parse))
    };
    let samesite = [
        ("Lax", SameSite::Lax),
        ("Strict", SameSite::Strict),
        ("None", SameSite::None),
        ("omit", SameSite::Omit),
    ];
    let cookie = Cookie {
        name: text("name", value::cookie_name)?,
        age: table.duration("age"),
        domain: text("domain", value::cookie_domain),
        path: text("path", value::cookie_path)?,
        secure: table.flag("secure"),
        httponly: table.flag("httponly"),
        samesite: table.choice("samesite", &samesite)?,
        refuse_duplicate: table.choice("duplicate", &[("last", false), ("refuse", true)])?,
    };
    check_cookie(table, &cookie);
    Some(cookie)
}

/// What browsers refuse to store, so that no session would ever last (RFC 6265bis, 4.1.3 and 5.7).
fn check_cookie(table: &Table<'_>, cookie: &Cookie) {
    let secure = || Some("write secure = true".to_owned());
    let lower = cookie.name.to_ascii_lowercase();
    if (lower.starts_with("__secure-") || lower.starts_with("__host-")) && !cookie.secure {
        report(
            table,
            "name",
            "browsers drop a cookie of this name without secure = true",
            secure(),
        );
    }
    if lower.starts_with("__host-") && cookie.domain.is_some() {
        report(
            table,
            "domain",
            "browsers drop a __Host- cookie with a domain",
            None,
        );
    }
    if lower.starts_with("__host-") && cookie.path != "/" {
        report(
            table,
            "path",
            "browsers drop a __Host- cookie whose path is not /",
            Some(did_you_mean("/")),
        );
    }
    if cookie.samesite == SameSite::None && !cookie.secure {
        report(
            table,
            "samesite",
            "browsers drop a SameSite=None cookie without secure = true",
            secure(),
        );
    }
}

fn report(table: &Table<'_>, key: &'static str, why: &str, suggestion: Option<String>) {
    if let Some(value) = table.value(key) {
        value.problem(why, suggestion);
    }
}
