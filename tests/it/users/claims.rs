//! The claim `user`: what it holds of each type, on each database alike, and when it is not there.

use serde_json::{Value, json};

use crate::{
    support::{Database, Engine, Gateway, PythonUpstream, Served as _, Upstream},
    users::{add, before, people, quoted, session_of, told},
};

on_each_engine!(
    each_type_is_told_as_json_has_it,
    hostile_texts_are_told_as_they_are,
    groups_are_sorted_and_complete,
    what_was_changed_counts_at_the_next_request,
    what_is_too_large_goes_after_the_session,
    who_is_not_asked_for_is_not_told,
    a_library_takes_the_claims,
);

/// A site where the user 1 has a column for each of these: its type, its value in SQL, and what is told.
fn site_with(
    engine: Engine,
    columns: &[(&str, &str, &str)],
) -> (Database, Upstream, Gateway, String) {
    let database = people(engine, "integer");
    add(&database, "1");
    for (name, kind, value) in columns {
        database.execute(&format!(
            "ALTER TABLE people ADD COLUMN {name} {kind} NULL; UPDATE people SET {name} = {value}"
        ));
    }
    let names: Vec<_> = columns
        .iter()
        .map(|(name, ..)| format!("'{name}'"))
        .collect();
    let app = Upstream::start();
    let route = format!(
        "path = '/told/'\nupstream = 'app'\nuser = [{}]",
        names.join(", ")
    );
    let gateway = before(&database, &app).route(&route).start();
    let key = session_of(&database, &json!("1"));
    (database, app, gateway, key)
}

fn each_type_is_told_as_json_has_it(engine: Engine) {
    let either =
        |sqlite: &'static str, postgresql: &'static str, mariadb: &'static str| match engine {
            Engine::Sqlite => sqlite,
            Engine::Postgres => postgresql,
            Engine::MariaDb => mariadb,
        };
    // As Django's fields make them on this database.
    let moment = either("datetime", "timestamp with time zone", "datetime(6)");
    let uuid = either("char(32)", "uuid", "char(32)");
    let real = either("real", "double precision", "double precision");
    let decimal = either("decimal", "numeric(40, 20)", "numeric(40, 20)");
    let columns = [
        ("some_text", "varchar(150)", "'Ada'", json!("Ada")),
        ("no_text", "varchar(150)", "''", json!("")),
        ("none", "varchar(150)", "NULL", Value::Null),
        ("yes", "bool", "true", json!(true)),
        ("no", "bool", "false", json!(false)),
        ("neither", "bool", "NULL", Value::Null),
        ("small", "smallint", "-7", json!(-7)),
        ("big", "bigint", "9223372036854775807", json!(i64::MAX)),
        ("zero", "integer", "0", json!(0)),
        ("whole", real, "2.0", json!(2)),
        ("half", real, "0.5", json!(0.5)),
        ("tenths", real, "0.30000000000000004", json!(0.1 + 0.2)),
        ("large", real, "1e300", json!(1e300)),
        ("tiny", real, "1.5e-7", json!(1.5e-7)),
        ("price", decimal, "'12.50'", json!(12.5)),
        ("round", decimal, "'100.00'", json!(100)),
        ("born", "date", "'1815-12-10'", json!("1815-12-10")),
        (
            "at",
            moment,
            "'2026-02-28 23:59:59.25'",
            json!("2026-02-28T23:59:59.250000Z"),
        ),
        (
            "on_time",
            moment,
            "'2026-02-28 23:59:59'",
            json!("2026-02-28T23:59:59Z"),
        ),
        (
            "link",
            uuid,
            either(
                "'5f0c1ce07f3a4a8e9d551d5cf14a3a54'",
                "'5f0c1ce0-7f3a-4a8e-9d55-1d5cf14a3a54'",
                "'5f0c1ce07f3a4a8e9d551d5cf14a3a54'",
            ),
            json!("5f0c1ce0-7f3a-4a8e-9d55-1d5cf14a3a54"),
        ),
    ];
    let of_postgresql = [
        (
            "tags",
            "text[]",
            "ARRAY['b', 'a', NULL]",
            json!(["b", "a", null]),
        ),
        (
            "prefs",
            "jsonb",
            "'{\"b\": [1.5, null], \"a\": \"\\u00e9\"}'",
            json!({"a": "é", "b": [1.5, null]}),
        ),
        ("address", "inet", "'192.0.2.1'", json!("192.0.2.1")),
        ("not_a_number", "double precision", "'NaN'", Value::Null),
        ("endless", "numeric", "'Infinity'", Value::Null),
        (
            "exact",
            "numeric",
            "12345678901234567890.123456789",
            json!(12345678901234567890.123456789),
        ),
        (
            "never",
            "timestamp with time zone",
            "'infinity'",
            Value::Null,
        ),
        (
            "before_christ",
            "timestamp with time zone",
            "'0044-03-15 12:00:00 BC'",
            Value::Null,
        ),
        (
            "wall",
            "timestamp",
            "'2026-02-28 23:59:59'",
            json!("2026-02-28T23:59:59Z"),
        ),
        (
            "lasts",
            "interval",
            "'1 day 2 hours'",
            json!("1 day 02:00:00"),
        ),
        (
            "deep",
            "jsonb",
            "(repeat('[', 40) || repeat(']', 40))::jsonb",
            Value::Null,
        ),
    ];
    // What only SQLite takes into such a column.
    let of_sqlite = [
        ("prefs", "text", "'{\"a\": 1}'", json!("{\"a\": 1}")),
        ("blob_in_text", "varchar(9)", "x'6162'", Value::Null),
        ("not_utf8", "varchar(9)", "CAST(x'ff' AS text)", Value::Null),
        (
            "with_nul",
            "varchar(9)",
            "'a' || char(0) || 'b'",
            Value::Null,
        ),
        ("text_in_time", "datetime", "'soon'", Value::Null),
        ("number_in_time", "datetime", "17", Value::Null),
        ("text_in_bool", "bool", "'t'", json!("t")),
        ("text_in_number", "integer", "'many'", Value::Null),
        ("endless", "real", "9e999", Value::Null),
        ("no_uuid", "char(32)", "'x'", json!("x")),
    ];
    let of_mariadb = [
        ("prefs", "json", "'{\"a\": 1}'", json!("{\"a\": 1}")),
        (
            "own_uuid",
            "uuid",
            "'5f0c1ce07f3a4a8e9d551d5cf14a3a54'",
            json!("5f0c1ce0-7f3a-4a8e-9d55-1d5cf14a3a54"),
        ),
        ("small_bool", "tinyint(1)", "1", json!(true)),
        (
            "unsigned_big",
            "bigint unsigned",
            "18446744073709551615",
            json!(u64::MAX),
        ),
        ("never", "datetime(6)", "'0000-00-00 00:00:00'", Value::Null),
        (
            "exact",
            "numeric(40, 9)",
            "12345678901234567890.123456789",
            json!(12345678901234567890.123456789),
        ),
        ("year_only", "year", "2026", json!("2026")),
        ("lasts", "time", "'26:00:00'", json!("26:00:00")),
        ("choice", "enum('a', 'b')", "'b'", json!("b")),
    ];
    let mut all = columns.to_vec();
    match engine {
        Engine::Sqlite => all.extend(of_sqlite),
        Engine::Postgres => all.extend(of_postgresql),
        Engine::MariaDb => all.extend(of_mariadb),
    }
    let made: Vec<_> = all
        .iter()
        .map(|(name, kind, value, _)| (*name, *kind, *value))
        .collect();
    let (_database, app, gateway, key) = site_with(engine, &made);
    let user = told(&gateway, &app, "/told/", &key)["user"].take();
    for (name, kind, value, claim) in &all {
        let found = user.get(*name).cloned().unwrap_or_default();
        assert_eq!(found, *claim, "{name} {kind} {value}");
        assert!(
            user.get(*name).is_none_or(|found| !found.is_null()),
            "{name}: never null"
        );
    }
}

fn hostile_texts_are_told_as_they_are(engine: Engine) {
    let char = match engine {
        Engine::Postgres => "chr",
        _ => "char",
    };
    let next_line = match engine {
        Engine::MariaDb => "convert(char(194, 133) using utf8mb4)".to_owned(),
        _ => format!("{char}(133)"),
    };
    for (sql, text) in [
        (
            "'José 日本 \u{1F600} \u{202e}'".to_owned(),
            "José 日本 \u{1F600} \u{202e}",
        ),
        (
            "'\"},\"sub\":\"2\",\"a\":{\"'".to_owned(),
            "\"},\"sub\":\"2\",\"a\":{\"",
        ),
        ("'a\\u0022\\\\''b'".to_owned(), "a\\u0022\\\\'b"),
        (
            format!(
                "{char}(13) || {char}(10) || 'X-Session: a' || {char}(27) || {char}(127) || {next_line}"
            ),
            "\r\nX-Session: a\u{1b}\u{7f}\u{85}",
        ),
        ("'</script><!--'".to_owned(), "</script><!--"),
        ("' '".to_owned(), " "),
        ("'null'".to_owned(), "null"),
        ("'true'".to_owned(), "true"),
        (
            "'\u{feff}\u{fffe}\u{2028}'".to_owned(),
            "\u{feff}\u{fffe}\u{2028}",
        ),
    ] {
        // In MySQL's literals a backslash begins an escape.
        let sql = match engine {
            Engine::MariaDb => sql.replace('\\', "\\\\"),
            _ => sql,
        };
        let (_database, app, gateway, key) =
            site_with(engine, &[("full_name", "varchar(150)", &sql)]);
        let claims = told(&gateway, &app, "/told/", &key);
        assert_eq!(claims["user"], json!({"full_name": text}));
        assert_eq!(claims["sub"], "1");
        assert_eq!(app.last().all("x-session").len(), 1);
    }
}

/// The tables of groups, as Django makes them.
fn groups(database: &Database) {
    let name = quoted(database.engine(), "name");
    database.execute(&format!(
        "CREATE TABLE auth_group (id integer NOT NULL PRIMARY KEY, {name} varchar(150) NULL);
         CREATE TABLE people_groups (id integer NULL, people_id integer NULL, group_id integer NULL);
         INSERT INTO auth_group VALUES (1, 'Zebra'), (2, 'ape'), (3, 'été'), (4, 'a \"b\" c'), (5, NULL), (6, 'no')"
    ));
}

fn groups_are_sorted_and_complete(engine: Engine) {
    let database = people(engine, "integer");
    groups(&database);
    for id in ["1", "2", "3"] {
        add(&database, id);
    }
    database.execute(
        "INSERT INTO people_groups VALUES (1, 1, 3), (2, 1, 1), (3, 1, 2), (4, 1, 4), (5, 3, 6), (6, 1, 5),
            (7, 1, 1), (8, 1, 99), (9, NULL, 6), (10, 1, NULL)",
    );
    let app = Upstream::start();
    let gateway = before(&database, &app)
        .route("path = '/groups/'\nupstream = 'app'\nuser = ['groups']")
        .route("path = '/both/'\nupstream = 'app'\nuser = ['groups', 'name']")
        .start();
    for (id, names) in [
        ("1", json!(["Zebra", "a \"b\" c", "ape", "été"])),
        ("2", json!([])),
        ("3", json!(["no"])),
    ] {
        let key = session_of(&database, &json!(id));
        for path in ["/groups/", "/both/"] {
            let claims = told(&gateway, &app, path, &key);
            assert_eq!(claims["user"], json!({"groups": names}), "{id}");
        }
    }
}

fn what_was_changed_counts_at_the_next_request(engine: Engine) {
    let database = people(engine, "integer");
    groups(&database);
    add(&database, "1");
    let app = Upstream::start();
    let gateway = before(&database, &app)
        .route("path = '/told/'\nupstream = 'app'\nuser = ['name', 'is_staff', 'groups']")
        .start();
    let key = session_of(&database, &json!("1"));
    for round in 0..5 {
        database.execute(&format!(
            "UPDATE people SET name = 'name {round}', is_staff = true;
             INSERT INTO people_groups VALUES (1, 1, 1)"
        ));
        let name = format!("name {round}");
        assert_eq!(
            told(&gateway, &app, "/told/", &key)["user"],
            json!({"name": name, "is_staff": true, "groups": ["Zebra"]})
        );
        database
            .execute("UPDATE people SET name = NULL, is_staff = false; DELETE FROM people_groups");
        assert_eq!(
            told(&gateway, &app, "/told/", &key)["user"],
            json!({"is_staff": false, "groups": []})
        );
        database.execute("UPDATE people SET is_active = false");
        let claims = told(&gateway, &app, "/told/", &key);
        assert!(
            claims.get("user").is_none() && claims.get("sub").is_none(),
            "{claims}"
        );
        database.execute("UPDATE people SET is_active = true");
    }
}

fn what_is_too_large_goes_after_the_session(engine: Engine) {
    let database = people(engine, "integer");
    // MySQL's text ends at 64 KiB.
    let text = match engine {
        Engine::MariaDb => "longtext",
        _ => "text",
    };
    database.execute(&format!("ALTER TABLE people ADD COLUMN bio {text} NULL"));
    add(&database, "1");
    let app = Upstream::start();
    let gateway = before(&database, &app)
        .route("path = '/told/'\nupstream = 'app'\nuser = ['bio']\nrequire = 'login'")
        .start();
    for (session, bio, session_is_told, user_is_told) in [
        (10, 10, true, true),
        (2000, 10, true, true),
        (3000, 10, false, true),
        (10, 2000, true, true),
        (2000, 2000, false, true),
        (10, 3000, false, false),
        (3000, 3000, false, false),
        (10, 1_000_000, false, false),
    ] {
        database.execute(&format!(
            "UPDATE people SET bio = '{}'",
            "é".repeat(bio / 6)
        ));
        let mut row = crate::support::rows::login("1", json!({"a": "x".repeat(session)}));
        row["note"] = json!("");
        let key = database.session(&row);
        let claims = told(&gateway, &app, "/told/", &key);
        let what = format!("{session} {bio}: {claims:.200}");
        assert_eq!(claims["sub"], "1", "{what}");
        assert_eq!(claims.get("session").is_some(), session_is_told, "{what}");
        assert_eq!(claims.get("user").is_some(), user_is_told, "{what}");
        let withheld = (!session_is_told).then(|| json!("too_large"));
        assert_eq!(claims.get("withheld"), withheld.as_ref(), "{what}");
        assert!(
            app.last().field("x-session").unwrap().len() <= 4096,
            "{what}"
        );
    }
    // Where strict JSON cannot hold the session, that stays the reason.
    database.execute(&format!(
        "UPDATE people SET bio = '{}'",
        "x".repeat(1_000_000)
    ));
    let mut session = crate::support::rows::login("1", json!({}));
    session["ratio"] = json!("NaN");
    let payload = crate::support::rows::ascii(&session).replace("\"NaN\"", "NaN");
    let row = crate::support::rows::seal(crate::support::SECRET_KEY, payload.as_bytes());
    let key = database.raw_session(&row, chrono::Duration::days(1));
    let claims = told(&gateway, &app, "/told/", &key);
    assert_eq!(
        (&claims["sub"], &claims["withheld"]),
        (&json!("1"), &json!("not_json"))
    );
    assert!(claims.get("user").is_none());
}

fn who_is_not_asked_for_is_not_told(engine: Engine) {
    let database = people(engine, "integer");
    add(&database, "1");
    add(&database, "2");
    database.execute(
        "UPDATE people SET name = 'ada'; UPDATE people SET is_active = false WHERE id = 2",
    );
    let app = Upstream::start();
    let gateway = before(&database, &app)
        .route("path = '/told/'\nupstream = 'app'\nuser = ['name']")
        .route("path = '/none/'\nupstream = 'app'\nuser = []")
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
        .start();
    let user = session_of(&database, &json!("1"));
    let inactive = session_of(&database, &json!("2"));
    let cart = database.session(&json!({"cart": 1}));
    let mut changed = crate::support::rows::login("1", json!({}));
    changed["_auth_user_hash"] = json!("0".repeat(64));
    let changed = database.session(&changed);
    assert_eq!(
        told(&gateway, &app, "/told/", &user)["user"],
        json!({"name": "ada"})
    );
    for (path, key) in [
        ("/", &user),
        ("/none/", &user),
        ("/off/", &user),
        ("/told/", &inactive),
        ("/told/", &cart),
        ("/told/", &changed),
        ("/told/", &crate::support::database::random_key()),
    ] {
        let claims = told(&gateway, &app, path, key);
        assert!(claims.get("user").is_none(), "{path} {claims}");
    }
    gateway.get("/told/").send().is_upstreams(200);
    assert!(app.last().claims().get("user").is_none());
}

fn a_library_takes_the_claims(engine: Engine) {
    let database = people(engine, "integer");
    groups(&database);
    add(&database, "1");
    database.execute(
        "UPDATE people SET name = 'José \"日本\"', is_staff = true, is_superuser = NULL;
         INSERT INTO people_groups VALUES (1, 1, 3)",
    );
    let app = PythonUpstream::start();
    let gateway = Gateway::before(&database, &app)
        .line("django.user", "table = 'people'")
        .route("path = '/told/'\nupstream = 'app'\nuser = ['name', 'is_staff', 'is_superuser', 'groups']")
        .start();
    let key = session_of(&database, &json!("1"));
    let claims = gateway
        .get("/told/")
        .session(&key)
        .send()
        .is_upstreams(200)
        .json()["claims"]
        .take();
    assert_eq!(
        (&claims["sub"], &claims["user"]),
        (
            &json!("1"),
            &json!({"name": "José \"日本\"", "is_staff": true, "groups": ["été"]})
        )
    );
}
