//! How rows and cookies are written beside others who write: real Django's cookies, deadlocks, rows that somebody
//! else holds, and values over which Django would lose a session.

mod together;

use chrono::{Duration, NaiveDateTime};
use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, Connection, Database, Django, Engine, Gateway, Release, SECRET_KEY, Scene,
    Served as _, Upstream,
    database::{random_key, timestamp},
    eventually, reply, rows,
};

/// SESSION_COOKIE_* as settings.py and as `[django.cookie]` have them.
const COOKIES: [(&str, &str, &str); 5] = [
    ("sessionid", "{}", ""),
    (
        "sessionid",
        r#"{"SESSION_COOKIE_DOMAIN": ".shop.test", "SESSION_COOKIE_PATH": "/app",
            "SESSION_COOKIE_SECURE": true, "SESSION_COOKIE_HTTPONLY": false,
            "SESSION_COOKIE_SAMESITE": "Strict", "SESSION_COOKIE_AGE": 3600}"#,
        "domain = '.shop.test'\npath = '/app'\nsecure = true\nhttponly = false\nsamesite = 'Strict'\nage = '1h'",
    ),
    (
        "sid",
        r#"{"SESSION_COOKIE_NAME": "sid", "SESSION_COOKIE_SAMESITE": false, "SESSION_COOKIE_SECURE": true}"#,
        "name = 'sid'\nsamesite = 'omit'\nsecure = true",
    ),
    (
        "__Secure-sid",
        r#"{"SESSION_COOKIE_NAME": "__Secure-sid", "SESSION_COOKIE_SAMESITE": "None",
            "SESSION_COOKIE_SECURE": true, "SESSION_COOKIE_DOMAIN": "shop.test"}"#,
        "name = '__Secure-sid'\nsamesite = 'None'\nsecure = true\ndomain = 'shop.test'",
    ),
    (
        "__Host-sid",
        r#"{"SESSION_COOKIE_NAME": "__Host-sid", "SESSION_COOKIE_SECURE": true,
            "SESSION_EXPIRE_AT_BROWSER_CLOSE": true}"#,
        "name = '__Host-sid'\nsecure = true",
    ),
];

#[test]
fn the_session_cookie_is_set_and_deleted_byte_for_byte_as_django_does() {
    let database = Database::empty(Engine::Sqlite);
    drop(Django::start(Release::V52, &database));
    let app = Upstream::start();
    for (name, settings, cookie) in COOKIES {
        let settings: Value = serde_json::from_str(settings).unwrap();
        let closes = settings["SESSION_EXPIRE_AT_BROWSER_CLOSE"] == true;
        let django = Django::serve(Release::V52, &database, SECRET_KEY, &settings);
        let gateway = Gateway::before(&database, &app)
            .line("django", "release = '5.2'")
            .line("django", &format!("expire_at_browser_close = {closes}"))
            .line("django.cookie", cookie)
            .start();
        let of = |ask: Ask, key: &str| {
            let answer = ask.field("Cookie", &format!("{name}={key}")).send();
            session_cookie(answer.is_upstreams(200), name)
        };

        let key = database.session(&json!({"a": 1}));
        for expiry in [
            "",
            r#","expiry":600"#,
            r#","expiry":0"#,
            r#","expiry":null"#,
        ] {
            app.answers(reply(200).set(&format!(r#"{{"set":{{"b":1}}{expiry}}}"#)));
            let (ours, our_date) = of(gateway.get("/"), &key);
            let (djangos, django_date) = of(django.post("/set/?a=2"), &key);
            assert_eq!(ours, djangos, "{name} {expiry}");
            assert_eq!(our_date.is_some(), django_date.is_some(), "{name} {expiry}");
            if let (Some(ours), Some(djangos)) = (our_date, django_date) {
                let apart = djangos - ours;
                assert!(
                    apart >= Duration::zero() && apart < Duration::seconds(60),
                    "{apart}"
                );
            }
            // Otherwise the next change would change nothing, and nothing would be told.
            django
                .post("/set/?b=2")
                .field("Cookie", &format!("{name}={key}"))
                .send();
        }

        app.answers(reply(200).set(r#"{"flush":true}"#));
        let ours = of(gateway.get("/"), &database.session(&json!({"a": 1})));
        let djangos = of(django.post("/flush/"), &database.session(&json!({"a": 1})));
        assert_eq!(ours, djangos, "{name}");
        assert!(ours.0.contains("Max-Age=0"), "{}", ours.0);
    }
}

/// The field without its date, but with the date's place; and the date.
fn session_cookie(answer: &Answer, name: &str) -> (String, Option<NaiveDateTime>) {
    let prefix = format!("{name}=");
    let fields = answer.all("set-cookie");
    let field = fields.iter().find(|field| field.starts_with(&prefix));
    let field = field.expect("a session cookie");
    let Some((before, rest)) = field.split_once("; expires=") else {
        return ((*field).to_owned(), None);
    };
    let (date, after) = rest.split_once(';').unwrap_or((rest, ""));
    let time = NaiveDateTime::parse_from_str(date, "%a, %d %b %Y %H:%M:%S GMT").unwrap();
    (format!("{before}; expires=DATE;{after}"), Some(time))
}

#[test]
fn a_deadlock_with_another_writer_on_postgresql_is_won_at_the_next_try() {
    // Whoever updates a row also wants what the other one holds. Ours waits for longer than the other, so it is
    // the one that PostgreSQL ends: each looks for a deadlock once, so long after it began to wait, and the other has
    // to wait by then.
    let database = Database::postgres();
    database.execute(&format!(
        "ALTER DATABASE {} SET deadlock_timeout = '3s'",
        database.name()
    ));
    let table = "CREATE SEQUENCE tries;
         CREATE FUNCTION wants_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM nextval('tries'), pg_advisory_xact_lock(7);
            RETURN NEW;
         END $$;
         CREATE TRIGGER wants_more BEFORE UPDATE ON django_session
            FOR EACH ROW EXECUTE FUNCTION wants_more()";
    deadlock(
        database,
        table,
        "SELECT pg_advisory_xact_lock(7)",
        "SELECT 'x' FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
    );
}

#[test]
fn a_deadlock_with_another_writer_on_mariadb_is_won_at_the_next_try() {
    // InnoDB ends the one that has written less.
    let table = "CREATE SEQUENCE tries;
         CREATE TABLE other (id integer NOT NULL PRIMARY KEY, n integer) ENGINE = InnoDB;
         INSERT INTO other SELECT seq, 0 FROM seq_1_to_100;
         CREATE TRIGGER wants_more BEFORE UPDATE ON django_session FOR EACH ROW
            SET @tried = NEXTVAL(tries), @wanted = (SELECT n FROM other WHERE id = 1 FOR UPDATE)";
    deadlock(
        Database::mariadb(),
        table,
        "UPDATE other SET n = 1",
        // The statement that made the trigger may still be in the list.
        "SELECT 'x' FROM information_schema.processlist, tries
         WHERE info LIKE '%@wanted%' AND id <> CONNECTION_ID() AND next_not_cached_value > 1",
    );
}

/// Ours holds the row and waits for `hold`; the other one holds that, and wants the row.
fn deadlock(database: Database, table: &str, hold: &str, is_waiting: &str) {
    let scene = Scene::over(database, "deadline = '20s'");
    scene.database.execute(table);
    scene.app.answers(reply(200).set(r#"{"set":{"ours":1}}"#));
    let mut session = scene.read();
    session["theirs"] = json!(1);
    let data = rows::seal(SECRET_KEY, session.to_string().as_bytes());
    let theirs = format!(
        "UPDATE django_session SET session_data = '{data}' WHERE session_key = '{}'",
        scene.key
    );

    let mut other = scene.database.begin();
    other.run(hold);
    let mut ours = scene.gateway.get("/").session(&scene.key).begin();
    eventually("our update waits for the other's lock", || {
        scene.database.query(is_waiting).pop()
    });
    other.run(&theirs);
    other.run("COMMIT");

    assert_eq!(
        ours.answer("GET").is_upstreams(200).new_session(),
        Some(scene.key.clone())
    );
    let session = scene.read();
    assert_eq!(
        (&session["ours"], &session["theirs"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(tries(&scene.database), "3", "ours, theirs, ours again");
}

#[test]
fn a_serialization_failure_on_postgresql_starts_again_from_the_row_as_it_is_then() {
    // The failure comes with the COMMIT, and is a definite no.
    let scene = Scene::over(Database::postgres(), "deadline = '20s'");
    scene.database.execute(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION fails_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') <= 2 THEN
                RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
            END IF;
            RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER fails_twice AFTER INSERT OR UPDATE ON django_session
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fails_twice()",
    );
    changes_at_the_third_try(&scene, "ALTER SEQUENCE tries RESTART");
}

#[test]
fn a_serialization_failure_on_mariadb_starts_again_from_the_row_as_it_is_then() {
    let scene = Scene::over(Database::mariadb(), "deadline = '20s'");
    let fails =
        "IF NEXTVAL(tries) <= 2 THEN SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213; END IF";
    scene.database.execute("CREATE SEQUENCE tries NOCACHE");
    for event in ["INSERT", "UPDATE"] {
        scene.database.execute(&format!(
            "CREATE TRIGGER fails_{event} BEFORE {event} ON django_session FOR EACH ROW {fails}"
        ));
    }
    changes_at_the_third_try(&scene, "ALTER SEQUENCE tries RESTART");
}

fn changes_at_the_third_try(scene: &Scene, again: &str) {
    for change in [
        r#"{"set":{"a":1}}"#,
        r#"{"cycle":true,"set":{"a":2}}"#,
        r#"{"flush":true,"set":{"a":3}}"#,
    ] {
        scene.database.execute(again);
        let key = scene.database.keys().remove(0);
        scene.app.answers(reply(200).set(change));
        let answer = scene.gateway.get("/").session(&key).send();
        let key = answer.is_upstreams(200).new_session().unwrap();
        let wanted: Value = serde_json::from_str(change).unwrap();
        assert_eq!(scene.database.read(&key).unwrap()["a"], wanted["set"]["a"]);
        assert_eq!(scene.database.keys().len(), 1, "{change}");
        assert_eq!(tries(&scene.database), "3", "{change}");
    }
}

fn tries(database: &Database) -> String {
    let sql = match database.engine() {
        Engine::MariaDb => "SELECT CAST(NEXTVAL(tries) - 1 AS char)",
        _ => "SELECT last_value::text FROM tries",
    };
    database.query(sql).remove(0)
}

/// One works, `session_queue` wait, and whoever comes then is told at once.
#[test]
fn of_too_many_changes_of_one_session_the_last_are_told_that_it_is_busy() {
    const QUEUE: usize = 128;
    const CLIENTS: usize = QUEUE + 12;
    let scene = Scene::over(Database::postgres(), "deadline = '1m'");
    let other = scene.database.login(json!({}));
    scene.app.answers_with(|seen| {
        let change = json!({"set": {seen.target.trim_start_matches('/'): 1}});
        reply(200).set(&change.to_string())
    });
    let mut clients: Vec<Connection> = Vec::new();
    scene.database.while_locked(&scene.key, || {
        for number in 0..CLIENTS {
            let ask = scene
                .gateway
                .get(&format!("/k{number}"))
                .session(&scene.key);
            clients.push(ask.begin());
        }
        // None of the others can have an answer while the row is locked.
        let (mut waiting, mut busy) = (std::mem::take(&mut clients), 0);
        eventually("those who found the queue full have their answers", || {
            for mut client in std::mem::take(&mut waiting) {
                if !has_answer(&client) {
                    waiting.push(client);
                    continue;
                }
                let answer = client.answer("GET");
                answer.is_error(409, "session-busy");
                assert_eq!(
                    (answer.set_cookie(), answer.field("retry-after")),
                    (None, None)
                );
                busy += 1;
            }
            (busy == CLIENTS - QUEUE - 1).then_some(())
        });
        clients = waiting;
        // Meanwhile another session is changed.
        let answer = scene.gateway.get("/free").session(&other).send();
        assert_eq!(
            answer.is_upstreams(200).new_session().as_ref(),
            Some(&other)
        );
    });
    for mut client in clients {
        client.answer("GET").is_upstreams(200);
    }
    let stored = scene.read();
    let stored = stored.as_object().unwrap().keys();
    let stored = stored.filter(|name| name.starts_with('k')).count();
    assert_eq!(
        stored,
        QUEUE + 1,
        "whoever was told 200 is stored, and nobody else"
    );
}

#[test]
fn who_holds_a_row_on_postgresql_holds_up_nobody_else() {
    one_holds_a_row(Engine::Postgres);
}

#[test]
fn who_holds_a_row_on_mariadb_holds_up_nobody_else() {
    one_holds_a_row(Engine::MariaDb);
}

/// A Django view under ATOMIC_REQUESTS that logs out holds the row until it ends.
fn one_holds_a_row(engine: Engine) {
    const OTHERS: usize = 200;
    const TABS: usize = 50;
    let database = Database::empty(engine);
    let settings = json!({"ATOMIC_REQUESTS": true});
    let django = Django::start_with(Release::V52, &database, &settings);
    let app = Upstream::with(|_| reply(200).set(r#"{"set":{"a":1}}"#));
    let gateway = Gateway::before(&database, &app)
        .line("django", "deadline = '30s'")
        .start();
    let login = django.post("/login/?username=alice&password=alice").send();
    let held = login.new_session().expect("a session");
    let others: Vec<String> = (0..OTHERS).map(|_| random_key()).collect();
    let row = rows::seal(SECRET_KEY, b"{}");
    let insert = |key: &String| {
        let end = timestamp(Duration::days(1));
        format!("INSERT INTO django_session VALUES ('{key}', '{row}', '{end}');")
    };
    database.execute(&others.iter().map(insert).collect::<String>());

    let mut logout = django.post("/logout/stay/").session(&held).begin();
    let free = format!(
        "SELECT session_key FROM django_session WHERE session_key = '{held}' FOR UPDATE SKIP LOCKED"
    );
    eventually("Django holds the row", || {
        database.query(&free).is_empty().then_some(())
    });
    // The same visitor's tabs; each of them waits for the row.
    let ask = || gateway.get("/").session(&held).begin();
    let tabs: Vec<Connection> = (0..TABS).map(|_| ask()).collect();
    eventually("the upstream has answered all of them", || {
        (app.seen().len() == TABS).then_some(())
    });

    std::thread::scope(|scope| {
        for part in others.chunks(OTHERS / 10) {
            let gateway = &gateway;
            scope.spawn(move || {
                for key in part {
                    let answer = gateway.get("/").session(key).send();
                    assert_eq!(answer.is_upstreams(200).new_session().as_ref(), Some(key));
                }
            });
        }
    });
    let changed = format!("SELECT session_key FROM django_session WHERE session_data <> '{row}'");
    let mut changed = database.query(&changed);
    changed.retain(|key| *key != held);
    assert_eq!(changed.len(), OTHERS);
    assert!(!has_answer(&logout), "Django still holds the row");
    assert!(
        !tabs.iter().any(has_answer),
        "and so its visitor's tabs wait"
    );
    django.post("/logout/let-go/").send();
    logout.answer("POST").is_upstreams(200);
    for mut tab in tabs {
        tab.answer("GET").is_error(409, "session-gone");
    }
    assert_eq!(database.data(&held), None, "the logout counts");
}

#[test]
fn values_over_which_django_would_lose_the_session_are_refused() {
    let database = Database::empty(Engine::Sqlite);
    let django = Django::start(Release::V52, &database);
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .line("django", "release = '5.2'")
        .start();
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let digits = |count: usize| "9".repeat(count);

    // What it is about: Django reads such a row as an empty session, without a word.
    for lost in [digits(4301), nested(100_000)] {
        let payload = format!(r#"{{"kept":1,"lost":{lost}}}"#);
        let row = rows::seal(SECRET_KEY, payload.as_bytes());
        let key = database.raw_session(&row, Duration::days(1));
        assert_eq!(django.session(&key), json!({}), "{:.20}", lost);
    }

    let key = database.session(&json!({"kept": 1}));
    let stored = [
        digits(308),
        format!("-{}", digits(308)),
        "1.7976931348623157e308".to_owned(),
        "5e-324".to_owned(),
        // The field's own object and that of "set" count.
        nested(30),
        r#""\ud83d\ude00 \u007f \u00e9""#.to_owned(),
    ];
    for value in &stored {
        app.answers(reply(200).set(&format!(r#"{{"set":{{"edge":{value}}}}}"#)));
        gateway.get("/").session(&key).send().is_upstreams(200);
        let read = django.get("/session/").session(&key).send().text();
        assert!(read.contains(r#""kept": 1"#), "{value:.20}: {read:.200}");
        let seen = [
            value.clone(),
            value.replace("e308", "e+308"),
            value.replace(r"\u007f", "\u{7f}"),
        ];
        assert!(
            seen.iter().any(|value| read.contains(value)),
            "{value:.20}: {read}"
        );
    }
    let before = database.data(&key);
    for value in [
        digits(4301),
        format!("0.{}", digits(4300)),
        digits(310),
        "1e309".to_owned(),
        "-1e309".to_owned(),
        "NaN".to_owned(),
        "Infinity".to_owned(),
        "-Infinity".to_owned(),
        nested(31),
        format!(r#"{{"a":{}}}"#, nested(30)),
        r#""\ud83d""#.to_owned(),
        r#"{"\udc00":1}"#.to_owned(),
        r#""\u0000""#.to_owned(),
    ] {
        for change in [
            format!(r#"{{"set":{{"edge":{value}}}}}"#),
            format!(r#"{{"flush":true,"set":{{"edge":[{value}]}}}}"#),
            format!(r#"{{"cycle":true,"set":{{"a":1,"edge":{value}}}}}"#),
        ] {
            app.answers(reply(200).set(&change));
            let answer = gateway.get("/").session(&key).send();
            answer.is_error(502, "bad-session-set");
            let answer = gateway.get("/").send();
            answer.is_error(502, "bad-session-set");
        }
        assert_eq!(database.data(&key), before, "{value:.20}");
    }
    assert_eq!(django.session(&key)["kept"], 1);
}

/// Whether something has arrived.
fn has_answer(connection: &Connection) -> bool {
    let socket = connection.socket();
    socket.set_nonblocking(true).unwrap();
    let arrived = socket.peek(&mut [0]).is_ok();
    socket.set_nonblocking(false).unwrap();
    arrived
}
