//! `doctor` finds what is wrong, says what to do, and goes on. Each test makes one thing wrong.

use std::net::TcpListener;

use chrono::Duration;
use serde_json::{Value, json};

use super::{ENGINES, Printed, run, tells_no_secret};
use crate::support::{
    Database, Engine, Gateway, MariaDbServer, PgBouncer, PostgresServer, SECRET_KEY, Served as _,
    Upstream,
    database::{random_key, timestamp},
    eventually, free_address,
    gateway::Setup,
    rows,
};

/// Another site's key.
const OTHER_KEY: &str = "the-key-of-another-site-0123456789-0123456789";

struct Scene {
    database: Database,
    app: Upstream,
}

impl Scene {
    /// A site with three visitors, two of them logged in.
    fn over(engine: Engine) -> Self {
        let scene = Self::empty(engine);
        scene.database.login(json!({"cart": ["planted"]}));
        scene.database.login(json!({}));
        scene.database.session(&json!({"note": "planted"}));
        scene
    }

    /// A site without visitors.
    fn empty(engine: Engine) -> Self {
        Self {
            database: Database::with_tables(engine),
            app: Upstream::start(),
        }
    }

    fn setup(&self) -> Setup {
        Gateway::before(&self.database, &self.app)
    }

    #[track_caller]
    fn doctor(&self) -> Printed {
        self.doctor_of(&self.setup())
    }

    #[track_caller]
    fn doctor_of(&self, setup: &Setup) -> Printed {
        let printed = run(setup, &["doctor"], "");
        tells_no_secret(&printed, &self.database);
        for key in self.database.keys() {
            printed.has_no(&key);
        }
        for line in printed.out.lines() {
            let level = line.split_whitespace().next().unwrap();
            assert!(["ok", "warn", "FAIL"].contains(&level), "{line}");
        }
        printed
    }

    /// Stores so many sessions with this payload, signed by whoever `seal` is.
    fn rows(&self, number: usize, payload: &Value, seal: impl Fn(&[u8]) -> String) {
        for _ in 0..number {
            let row = seal(rows::ascii(payload).as_bytes());
            self.database.raw_session(&row, Duration::days(1));
        }
    }
}

/// Another key's rows.
fn foreign(payload: &[u8]) -> String {
    rows::seal(OTHER_KEY, payload)
}

#[test]
fn a_good_site_fails_nothing_and_is_left_as_it_was() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let before = scene.database.keys();
        let doctor = scene.doctor();
        doctor.ends(0).has_no("FAIL");
        doctor.has(&["ok", "configuration", "1 route, 1 upstream"]);
        doctor.has(&["ok", "keys", "app-1"]);
        let product = match engine {
            Engine::Sqlite => "SQLite 3.",
            Engine::Postgres => "PostgreSQL 1",
            Engine::MariaDb => "MariaDB",
        };
        doctor.has(&["ok", "database", product]);
        doctor.has(&["ok", "session-table"]);
        doctor.has(&["ok", "session-index"]);
        doctor.has(&["ok", "user-table", "auth_user", "active where is_active"]);
        doctor.has(&["ok", "lookup"]);
        doctor.has(&["ok", "rows", "3 of 3", "3 with secret_key"]);
        doctor.has(&["ok", "logins", "2 of 2 sampled logins hold"]);
        doctor.has(&["ok", "upstream", "app", "accepts connections"]);
        doctor.has(&["ok", "listener"]);
        if engine != Engine::Sqlite {
            doctor.has(&["ok", "clock"]);
        }
        assert!(doctor.talk.contains("0 failed"), "{doctor:?}");
        assert_eq!(scene.database.keys(), before);
    }
}

#[test]
fn the_key_that_signs_is_named() {
    let scene = Scene::over(Engine::Sqlite);
    let setup = scene.setup().signing("gateway-1", [7; 32]);
    let own = setup.eddsa_upstream("app", &scene.app);
    let doctor = scene.doctor_of(&own);
    doctor
        .ends(0)
        .has(&["ok", "keys", "app are signed with gateway-1"]);
}

#[test]
fn machines_get_one_json_object_a_line() {
    let scene = Scene::over(Engine::Sqlite);
    scene
        .database
        .execute("DROP INDEX django_session_expire_date_a5c62663");
    let printed = run(&scene.setup(), &["doctor", "--json"], "");
    let findings = printed.ends(0).out.lines().map(|line| {
        let object: Value = serde_json::from_str(line).unwrap();
        assert!(object["found"].is_string() && object["todo"].is_string());
        (object["level"].clone(), object["check"].clone())
    });
    let findings: Vec<_> = findings.collect();
    assert!(findings.contains(&(json!("ok"), json!("database"))));
    assert!(findings.contains(&(json!("warn"), json!("session-index"))));
}

#[test]
fn a_wrong_secret_key() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let doctor = scene.doctor_of(&scene.setup().secret_key(OTHER_KEY));
        doctor.ends(1).has(&[
            "FAIL",
            "rows",
            "3 of 3 sampled rows are signed with none of the configured keys",
            "SECRET_KEY",
        ]);
        doctor.has_no("salt").has_no(OTHER_KEY);
    }
}

#[test]
fn some_rows_of_an_earlier_key_are_told_apart_from_a_wrong_key() {
    let scene = Scene::over(Engine::Sqlite);
    scene.rows(2, &json!({}), foreign);
    let doctor = scene.doctor();
    doctor
        .ends(0)
        .has(&["ok", "rows", "3 of 5", "3 with secret_key"]);
    doctor.has(&["warn", "rows", "2 of 5", "secret_key_fallbacks"]);

    let with_fallback = scene
        .setup()
        .env("OLD", OTHER_KEY)
        .line("django", "secret_key_fallbacks = [{ env = 'OLD' }]");
    let doctor = scene.doctor_of(&with_fallback);
    doctor.ends(0).has(&[
        "ok",
        "rows",
        "5 of 5",
        "3 with secret_key, 2 with secret_key_fallbacks[0]",
    ]);
    // Before 4.1 Django has no fallbacks.
    let doctor = scene.doctor_of(&with_fallback.line("django", "release = '4.0'"));
    doctor.has(&[
        "warn",
        "rows",
        "2 of 5",
        "fallback key, which Django 4.0 does not read",
    ]);
}

#[test]
fn another_salt_is_told_apart_from_another_key() {
    for engine in ENGINES {
        let scene = Scene::empty(engine);
        let of_my_store = |payload: &[u8]| rows::seal_by("MyStore", SECRET_KEY, payload);
        scene.rows(3, &rows::login("1", json!({})), of_my_store);
        let doctor = scene.doctor();
        doctor.ends(1).has(&[
            "FAIL",
            "rows",
            "3 of 3",
            "another salt: the logins in them fit secret_key",
            "set [django] salt",
        ]);
        let right = "salt = 'django.contrib.sessions.MyStore'";
        scene
            .doctor_of(&scene.setup().line("django", right))
            .ends(0)
            .has(&["ok", "rows", "3 of 3"]);
    }
    // The other way round: a salt is configured that the site does not have.
    let scene = Scene::over(Engine::Sqlite);
    let wrong = "salt = 'django.contrib.sessions.MyStore'";
    let doctor = scene.doctor_of(&scene.setup().line("django", wrong));
    doctor
        .ends(1)
        .has(&["FAIL", "rows", "Django's own", "Remove [django] salt"]);
}

/// Made by Django 2.2 with its key.
const LEGACY: &str = "Y2U1ZGRiNTI4ZmQwOGQ2ODQ4Y2JkZDg5ZmE1ZDQ0MGIwODM4N2RmNDp7ImEiOjF9";
/// Made by Django 3.2 with DEFAULT_HASHING_ALGORITHM = 'sha1' and the same key.
const SHA1: &str = "eyJhIjoxfQ:1r31eq:rNGCjk0on3lM-Fzg4Qgq_Qi1OLg";
const KEY_OF_LEGACY: &str = "django-insecure-2#q0y$3d!v6l8m1w@t5r7n9p^s4u_x&z*c(e)g-i=k+o";

#[test]
fn rows_of_earlier_releases() {
    for engine in ENGINES {
        for (row, words) in [
            (LEGACY, "before Django 3.1 (legacy), signed with secret_key"),
            (SHA1, "signed by SHA-1, which Django 4.2 does not read"),
        ] {
            let scene = Scene::empty(engine);
            scene.rows(2, &json!({}), |_| row.to_owned());
            let setup = scene.setup().secret_key(KEY_OF_LEGACY);
            let doctor = scene.doctor_of(&setup);
            doctor
                .ends(1)
                .has(&["FAIL", "rows", "2 of 2", words, "release"]);
            let right = setup.line("django", "release = '3.2'");
            scene
                .doctor_of(&right)
                .ends(0)
                .has(&["ok", "rows", "2 of 2"]);
        }
        let scene = Scene::empty(engine);
        scene.rows(2, &json!({}), |_| LEGACY.to_owned());
        scene
            .doctor()
            .ends(1)
            .has(&["FAIL", "rows", "legacy", "secret_key has not signed them"]);
    }
}

#[test]
fn pickled_rows() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let pickle = |_: &[u8]| rows::seal(SECRET_KEY, b"\x80\x04planted");
        scene.rows(1, &json!({}), pickle);
        let some = scene.doctor();
        some.ends(0)
            .has(&["warn", "rows", "1 of 4", "pickles", "JSONSerializer"]);
        scene.rows(2, &json!({}), pickle);
        scene.doctor().ends(1).has(&["FAIL", "rows", "3 of 6"]);
    }
}

#[test]
fn rows_that_are_too_large_or_no_sessions() {
    let scene = Scene::empty(Engine::Postgres);
    scene.rows(1, &json!({"a": "x".repeat(4000)}), |payload| {
        rows::seal(SECRET_KEY, payload)
    });
    scene.rows(1, &json!([1]), |payload| rows::seal(SECRET_KEY, payload));
    let setup = scene
        .setup()
        .line("limits", "session_data = '2KiB'\nsession_write = '1KiB'");
    let doctor = scene.doctor_of(&setup);
    doctor.ends(1).has(&["FAIL", "rows", "larger than limits"]);
    doctor.has(&["FAIL", "rows", "1 of 2", "not sessions as Django writes"]);
}

#[test]
fn keys_that_django_does_not_make() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let key = random_key().to_uppercase();
        let (row, end) = (rows::seal(SECRET_KEY, b"{}"), timestamp(Duration::days(1)));
        scene.database.execute(&format!(
            "INSERT INTO django_session VALUES ('{key}', '{row}', '{end}')"
        ));
        let doctor = scene.doctor();
        doctor
            .ends(0)
            .has(&["warn", "rows", "1 of 4", "never looked up"]);
    }
}

#[test]
fn a_large_table_is_sampled_from_both_ends() {
    for engine in ENGINES {
        let scene = Scene::empty(engine);
        let insert = |row: &str, hours: i64, number: usize| {
            let end = timestamp(Duration::hours(hours));
            let values: Vec<String> = (0..number)
                .map(|_| format!("('{}', '{row}', '{end}')", random_key()))
                .collect();
            let values = values.join(", ");
            scene
                .database
                .execute(&format!("INSERT INTO django_session VALUES {values}"));
        };
        insert(&rows::seal(SECRET_KEY, b"{}"), 300, 250);
        insert(&foreign(b"{}"), 1, 150);
        insert(&foreign(b"{}"), -1, 150);
        let doctor = scene.doctor();
        doctor.has(&["ok", "rows", "100 of 200 sampled rows"]);
        doctor.ends(1).has(&[
            "FAIL",
            "rows",
            "100 of 200 sampled rows are signed with none",
        ]);
        let index = "DROP INDEX django_session_expire_date_a5c62663";
        scene.database.execute(&match engine {
            Engine::MariaDb => format!("{index} ON django_session"),
            _ => index.to_owned(),
        });
        scene.doctor().has(&["of 200 sampled rows"]);
    }
}

#[test]
fn a_missing_table_or_column() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let nowhere = scene.setup().line("django", "table = 'nowhere'");
        scene.doctor_of(&nowhere).ends(1).has(&[
            "FAIL",
            "session-table",
            "there is no table nowhere",
            "migrate",
        ]);
        let user = scene.setup().line("django.user", "table = 'nobody'");
        let doctor = scene.doctor_of(&user);
        doctor.ends(1).has(&[
            "FAIL",
            "user-table",
            "there is no table nobody",
            "[django.user]",
        ]);
        doctor.has(&["ok", "session-table"]);
        doctor.has(&["ok", "rows", "3 of 3"]);
        let column = scene.setup().line("django.user", "password = 'secret'");
        scene.doctor_of(&column).ends(1).has(&[
            "FAIL",
            "user-table",
            "auth_user has no column secret",
        ]);
        scene
            .database
            .execute("ALTER TABLE django_session RENAME COLUMN expire_date TO expires");
        scene.doctor().ends(1).has(&[
            "FAIL",
            "session-table",
            "django_session has no column expire_date",
            "migrate",
        ]);
    }
}

#[test]
fn missing_indexes() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        // A copy of a table has its columns and rows, and nothing else.
        scene
            .database
            .execute("CREATE TABLE copied AS SELECT * FROM django_session");
        let copied = scene.setup().line("django", "table = 'copied'");
        let doctor = scene.doctor_of(&copied);
        doctor.ends(1).has(&[
            "FAIL",
            "session-index",
            "no primary key or unique index on session_key",
            "PRIMARY KEY",
        ]);
        doctor.has(&["warn", "session-index", "no index on expire_date"]);
        doctor.has(&["ok", "rows", "3 of 3"]);
        // An index that a lookup by the key alone cannot use as one.
        scene
            .database
            .execute("CREATE UNIQUE INDEX pair ON copied (session_key, expire_date)");
        scene
            .doctor_of(&copied)
            .ends(1)
            .has(&["FAIL", "session-index", "session_key"]);
        scene
            .database
            .execute("CREATE UNIQUE INDEX single ON copied (session_key)");
        let doctor = scene.doctor_of(&copied);
        doctor
            .ends(0)
            .has(&["warn", "session-index", "no index on expire_date"]);
    }
}

#[test]
fn columns_that_prevent_inserts() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let copy = "CREATE TABLE own (session_key varchar(40) NOT NULL PRIMARY KEY, \
                    session_data text NOT NULL, expire_date DATE NOT NULL, ip varchar(39) NOT NULL)";
        let date = match engine {
            Engine::Sqlite => "datetime",
            Engine::Postgres => "timestamp with time zone",
            Engine::MariaDb => "datetime(6)",
        };
        scene.database.execute(&copy.replace("DATE", date));
        let own = scene.setup().line("django", "table = 'own'");
        scene.doctor_of(&own).ends(0).has(&[
            "warn",
            "session-table",
            "own asks for more than Django's three columns (ip)",
        ]);
    }
}

#[test]
fn a_role_that_may_not_write() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let scene = Scene::over(engine);
        let (role, password) = (
            format!("reader_{}", &random_key()[..12]),
            "planted-password",
        );
        let own = scene.database.name();
        let owner = Database::of(&scene.database.url().replace("//shop:", "//root:"));
        owner.execute(&match engine {
            Engine::MariaDb => format!(
                "CREATE USER {role} IDENTIFIED BY '{password}'; GRANT SELECT ON {own}.* TO {role}"
            ),
            _ => format!(
                "CREATE ROLE {role} LOGIN PASSWORD '{password}';
                 GRANT SELECT ON django_session, auth_user TO {role};
                 GRANT UPDATE ON django_session TO {role}"
            ),
        });
        let (scheme, rest) = scene.database.url().split_once("://").unwrap();
        let place = rest.rsplit_once('@').unwrap().1;
        let url = format!("{scheme}://{role}:{password}@{place}");
        let setup = scene.setup().env("DATABASE_URL", &url);
        let doctor = scene.doctor_of(&setup);
        let refused = doctor
            .ends(1)
            .has(&["FAIL", "session-table", "changes cannot be stored"]);
        if engine == Engine::Postgres {
            assert!(
                refused.contains("INSERT, DELETE on django_session"),
                "{refused}"
            );
        }
        doctor.has(&["ok", "rows", "3 of 3"]);
        // Who grants nothing needs no such right.
        let reading = setup.top("writes = 'off'");
        scene.doctor_of(&reading).ends(0);
        owner.execute(&match engine {
            Engine::MariaDb => format!("DROP USER {role}"),
            _ => format!("DROP OWNED BY {role}; DROP ROLE {role}"),
        });
    }
}

/// Lets a PostgreSQL database say something else of itself: names are looked up here first.
fn says(database: &Database, function: &str, returns: &str, body: &str) {
    let name = database.name();
    database.execute(&format!(
        "CREATE SCHEMA IF NOT EXISTS fake;
         CREATE FUNCTION fake.{function}() RETURNS {returns} LANGUAGE sql AS '{body}';
         ALTER DATABASE {name} SET search_path = fake, pg_catalog, public"
    ));
}

#[test]
fn a_clock_that_differs_by_more_than_two_seconds() {
    for (interval, level, words) in [
        ("+ interval ''5 s''", "warn", "ahead of"),
        ("- interval ''3 s''", "warn", "behind"),
        ("- interval ''2 h''", "FAIL", "behind"),
    ] {
        let scene = Scene::over(Engine::Postgres);
        let body = format!("SELECT pg_catalog.clock_timestamp() {interval}");
        says(&scene.database, "clock_timestamp", "timestamptz", &body);
        let doctor = scene.doctor();
        doctor.ends(i32::from(level == "FAIL"));
        doctor.has(&[level, "clock", words, "NTP"]);
    }
}

#[test]
fn a_standby_instead_of_the_primary() {
    let primary = PostgresServer::start();
    let site = Database::in_server(&primary.url());
    site.create_tables();
    site.login(json!({}));
    let standby = primary.standby();
    let replica = standby.database(site.name());
    eventually("the standby has the session", || {
        (replica.answers() && replica.keys().len() == 1).then_some(())
    });
    let scene = Scene {
        database: replica,
        app: Upstream::start(),
    };
    let doctor = scene.doctor();
    doctor
        .ends(1)
        .has(&["FAIL", "role", "a standby", "Name the primary"]);
    doctor.has(&["ok", "rows", "1 of 1"]);
    let accepted = scene.setup().line("django", "replica = 'accepted'");
    let doctor = scene.doctor_of(&accepted);
    doctor
        .ends(0)
        .has(&["ok", "role", "a standby", "replica = \"accepted\""]);
    doctor.has(&["ok", "logins", "1 of 1"]);
}

#[test]
fn a_server_that_is_set_to_read_only() {
    let scene = Scene::over(Engine::Postgres);
    let name = scene.database.name();
    scene.database.execute(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    let doctor = scene.doctor();
    doctor.ends(1).has(&[
        "FAIL",
        "role",
        "read-only (default_transaction_read_only is on)",
    ]);
    doctor.has(&["ok", "rows", "3 of 3"]);

    let server = MariaDbServer::start(&[]);
    let database = Database::in_server(&server.url());
    database.create_tables();
    let scene = Scene {
        database,
        app: Upstream::start(),
    };
    server.as_root("SET GLOBAL read_only = 1");
    let doctor = scene.doctor();
    doctor
        .ends(1)
        .has(&["FAIL", "role", "read-only (read_only is on)"]);
}

#[test]
fn a_pooler_that_the_gateway_was_not_told_of() {
    let scene = Scene::over(Engine::Postgres);
    let disguised = |size: usize| {
        let lines = ["ignore_startup_parameters = extra_float_digits,options"];
        PgBouncer::with(&scene.database, size, &lines)
    };
    let refuses = PgBouncer::before(&scene.database, 2);
    for (pooler, words) in [
        (&refuses, "unsupported startup parameter"),
        (&disguised(2), "has lost the lock_timeout"),
    ] {
        let through = pooler.to(&scene.database);
        let setup = scene.setup().env("DATABASE_URL", through.url());
        let doctor = scene.doctor_of(&setup);
        doctor.ends(1).has(&[
            "FAIL",
            "pooler",
            words,
            "write pooler = \"transaction\" in [django]",
        ]);
        // What else there is to know is known all the same.
        doctor.has(&["ok", "database", "PostgreSQL"]);
        doctor.has(&["ok", "rows", "3 of 3"]);
        assert_eq!(doctor.out.matches("FAIL").count(), 1, "{doctor:?}");

        let told = setup.line("django", "pooler = 'transaction'");
        let doctor = scene.doctor_of(&told);
        doctor.ends(0).has(&["ok", "pooler", "transaction mode"]);
        doctor.has(&["ok", "logins", "2 of 2"]);
    }
    // The server itself gives the connection what it should have brought with it: half the deadline.
    let name = scene.database.name();
    scene
        .database
        .execute(&format!("ALTER DATABASE {name} SET lock_timeout = '1s'"));
    for size in [1, 2, 5] {
        let pooler = disguised(size);
        let through = pooler.to(&scene.database);
        let setup = scene.setup().env("DATABASE_URL", through.url());
        let doctor = scene.doctor_of(&setup);
        doctor
            .ends(1)
            .has(&["FAIL", "pooler", "transaction mode", "other clients"]);
        doctor.has(&["ok", "rows", "3 of 3"]);
    }
}

#[test]
fn a_session_engine_that_keeps_nothing_in_the_table() {
    for engine in ENGINES {
        let scene = Scene::empty(engine);
        let doctor = scene.doctor();
        doctor.ends(0).has(&[
            "warn",
            "session-engine",
            "django_session is empty",
            "SESSION_ENGINE is not \"django.contrib.sessions.backends.db\"",
        ]);
        doctor.has_no("logged in at");
        let row = rows::seal(SECRET_KEY, b"{}");
        scene.database.raw_session(&row, Duration::days(-9));
        let doctor = scene.doctor();
        doctor.ends(0).has(&[
            "warn",
            "session-engine",
            "no session in django_session is live",
        ]);
        doctor.has_no("logged in at");
        scene.database.execute(&format!(
            "UPDATE auth_user SET last_login = '{}'",
            timestamp(Duration::hours(-1))
        ));
        let doctor = scene.doctor();
        doctor.ends(0).has(&[
            "warn",
            "session-engine",
            "though somebody has logged in at",
            "SESSION_ENGINE",
        ]);
    }
}

#[test]
fn logins_that_do_not_hold() {
    let scene = Scene::empty(Engine::Sqlite);
    scene.database.login(json!({}));
    let backends = "backends = ['elsewhere.Backend']";
    let doctor = scene.doctor_of(&scene.setup().line("django", backends));
    doctor
        .ends(1)
        .has(&["FAIL", "logins", "AUTHENTICATION_BACKENDS"]);
    // Another column in the password's place: no hash fits.
    let column = scene.setup().line("django.user", "password = 'username'");
    let doctor = scene.doctor_of(&column);
    doctor
        .ends(1)
        .has(&["FAIL", "logins", "do not fit", "get_session_auth_hash"]);
    scene.database.execute("UPDATE auth_user SET id = 7");
    let doctor = scene.doctor();
    doctor
        .ends(1)
        .has(&["FAIL", "logins", "name no user", "AUTH_USER_MODEL"]);
}

#[test]
fn services_and_sockets() {
    let scene = Scene::over(Engine::Sqlite);
    let closed = free_address();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let setup = scene
        .setup()
        .upstream_at("gone", closed)
        .route("path = '/gone/'\nupstream = 'gone'")
        .listen(&taken.1.to_string());
    let doctor = scene.doctor_of(&setup);
    doctor
        .ends(1)
        .has(&["FAIL", "upstream", "gone", &closed.to_string()]);
    doctor.has(&["ok", "upstream", "app"]);
    doctor.has(&["warn", "listener", &taken.1.to_string(), "already"]);

    // With another server of the same upstream that is there.
    let both = format!("servers = ['{closed}', '{}']", scene.app.address());
    let key = "keys = [{ kid = 'app-1', secret = { env = 'APP_KEY' } }]";
    let setup = scene
        .setup()
        .replace("upstream.app", &format!("{both}\n{key}"));
    let doctor = scene.doctor_of(&setup);
    doctor
        .ends(0)
        .has(&["warn", "upstream", &closed.to_string(), "another server"]);

    let nowhere = scene.setup().listen("192.0.2.1:8080");
    scene
        .doctor_of(&nowhere)
        .ends(1)
        .has(&["FAIL", "listener", "no such address"]);
}

#[test]
fn a_database_that_is_away_is_one_line_and_not_the_end() {
    let scene = Scene::over(Engine::Sqlite);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (url, words) in [
        (
            "postgres://app:planted@127.0.0.1:1/site".to_owned(),
            "127.0.0.1:1",
        ),
        (
            "mysql://app:planted@127.0.0.1:1/site".to_owned(),
            "127.0.0.1:1",
        ),
        (
            format!(
                "postgres://app:planted@{}/site",
                silent.local_addr().unwrap()
            ),
            "within",
        ),
        ("sqlite:/nowhere/site.sqlite3".to_owned(), "/nowhere"),
    ] {
        let setup = scene
            .setup()
            .env("DATABASE_URL", &url)
            .line("django", "deadline = '300ms'");
        let doctor = run(&setup, &["doctor"], "");
        doctor.has_no("planted").ends(1);
        doctor.has(&["FAIL", "database", words]);
        assert_eq!(doctor.out.matches("FAIL").count(), 1, "{doctor:?}");
        doctor.has(&["ok", "configuration"]);
        doctor.has(&["ok", "upstream", "app"]);
        doctor.has(&["ok", "listener"]);
    }
}

#[test]
fn a_configuration_with_problems_and_remarks() {
    let scene = Scene::over(Engine::Sqlite);
    let misspelt = scene.setup().line("django", "secret_keys = 'x'");
    let doctor = scene.doctor_of(&misspelt);
    doctor
        .ends(1)
        .has(&["FAIL", "configuration", "gateway.toml:", "secret_key"]);
    let remarked = scene.setup().line("django", "verify = 'off'");
    let doctor = scene.doctor_of(&remarked);
    doctor
        .ends(0)
        .has(&["warn", "configuration", "remark", "verify"]);
    doctor.has(&["ok", "user-table", "not read"]);
}
