//! What becomes of `X-Session-Set`: when it is stored, when it is refused and with which code, and that the
//! client hears of it only afterwards.

use chrono::Duration;
use serde_json::{Value, json};

use crate::support::{
    Database, Gateway, PATIENCE, Reply, SECRET_KEY, Scene, Served as _, Upstream,
    database::timestamp, eventually, reply, rows,
};

#[test]
fn what_a_status_stores() {
    let scene = Scene::start();
    for (method, status, stores) in [
        ("GET", 200, true),
        ("POST", 201, true),
        ("GET", 204, true),
        ("GET", 302, true),
        ("GET", 304, true),
        ("POST", 400, true),
        ("GET", 404, true),
        ("HEAD", 200, true),
        ("GET", 500, false),
        ("GET", 502, false),
        ("GET", 503, false),
        ("HEAD", 503, false),
    ] {
        let value = format!("{method} {status}");
        scene.app.answers(
            reply(status)
                .set(&json!({"set": {"last": value}}).to_string())
                .body("body"),
        );
        let answer = scene.gateway.ask(method, "/").session(&scene.key).send();
        answer.is_upstreams(status);
        assert_eq!(scene.read()["last"] == value, stores, "{value}");
        assert_eq!(answer.set_cookie().is_some(), stores, "{value}");
        assert_eq!(
            answer.text(),
            if method == "HEAD" || [204, 304].contains(&status) {
                ""
            } else {
                "body"
            }
        );
    }
}

#[test]
fn an_informational_response_changes_nothing() {
    let scene = Scene::start();
    scene.app.answers(Reply::raw(
        "HTTP/1.1 103 Early Hints\r\nX-Session-Set: {\"set\":{\"early\":1}}\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ));
    let answer = scene.get();
    answer.is_upstreams(200);
    assert_eq!(
        (scene.read().get("early"), answer.set_cookie()),
        (None, None)
    );
}

#[test]
fn unchanged_values_write_nothing() {
    let scene = Scene::start();
    let before = scene.database.data(&scene.key);
    for change in [
        "{}",
        r#"{"set":{"cart":["a"]}}"#,
        r#"{"set":{}}"#,
        r#"{"del":["missing"]}"#,
        r#"{"expiry":null}"#,
    ] {
        scene.app.answers(reply(200).set(change));
        let answer = scene.get();
        assert_eq!(answer.is_upstreams(200).set_cookie(), None, "{change}");
        assert_eq!(scene.database.data(&scene.key), before, "{change}");
    }

    // An old row is extended, and its data stays as it is, byte for byte.
    let query = format!(
        "SELECT expire_date FROM django_session WHERE session_key = '{}'",
        scene.key
    );
    let soon = timestamp(Duration::days(1));
    scene
        .database
        .execute(&format!("UPDATE django_session SET expire_date = '{soon}'"));
    scene.app.answers(reply(200).set("{}"));
    assert_eq!(
        scene.get().is_upstreams(200).new_session().as_ref(),
        Some(&scene.key)
    );
    let extended = scene.database.query(&query).pop().unwrap();
    assert!(extended > timestamp(Duration::days(13)), "{extended}");
    assert_eq!(scene.database.data(&scene.key), before);
}

#[test]
fn a_bad_change_is_a_502_and_stores_nothing() {
    let scene = Scene::start();
    let before = scene.database.data(&scene.key);
    let deep = format!(r#"{{"set":{{"a":{}1{}}}}}"#, "[".repeat(40), "]".repeat(40));
    let long = format!(r#"{{"set":{{"a":"{}"}}}}"#, "x".repeat(17 * 1024));
    let digits = format!(r#"{{"set":{{"a":{}}}}}"#, "1".repeat(4301));
    for change in [
        "",
        "null",
        "[]",
        "1",
        "{",
        "{}{}",
        "{},{}",
        r#"{"delete":["a"]}"#,
        r#"{"Set":{"a":1}}"#,
        r#"{"set":[1]}"#,
        r#"{"set":null}"#,
        r#"{"set":{"a":1,"a":2}}"#,
        r#"{"set":{"a":1},"set":{"b":1}}"#,
        r#"{"set":{"a":{"b":1,"b":2}}}"#,
        r#"{"set":{"a":NaN}}"#,
        r#"{"set":{"a":1e999}}"#,
        r#"{"set":{"a":"\ud800"}}"#,
        r#"{"set":{"a":"\u0000"}}"#,
        r#"{"set":{"a\u0000":1}}"#,
        r#"{"set":{"a":01}}"#,
        r#"{"set":{"a":1},}"#,
        r#"{"set":{"a":1},"del":["a"]}"#,
        r#"{"set":{"\u0061":1},"del":["a"]}"#,
        r#"{"del":"a"}"#,
        r#"{"del":[1]}"#,
        r#"{"del":null}"#,
        r#"{"cycle":false}"#,
        r#"{"cycle":1}"#,
        r#"{"flush":false}"#,
        r#"{"flush":true,"cycle":true}"#,
        r#"{"flush":true,"del":["a"]}"#,
        r#"{"expiry":-1}"#,
        r#"{"expiry":1.5}"#,
        r#"{"expiry":"60"}"#,
        r#"{"expiry":1209601}"#,
        r#"{"if":1}"#,
        r#"{"set":{"_auth_user_id":"2"}}"#,
        r#"{"set":{"\u005fauth_user_id":"2"}}"#,
        r#"{"set":{"_anything":1}}"#,
        r#"{"del":["_auth_user_hash"]}"#,
        r#"{"set":{"_session_expiry":1}}"#,
        r#"{"set":{"hijack_history":["1"]}}"#,
        r#"{"set":{"otp_device_id":"x"}}"#,
        // One byte of latin-1, as Node's setHeader writes it.
        "{\"set\":{\"a\":\"\u{e9}\"}}",
        &deep,
        &long,
        &digits,
    ] {
        scene.app.answers(reply(200).set(change).body("dropped"));
        let answer = scene.get();
        answer.is_error(502, "bad-session-set");
        assert_eq!(answer.json()["upstream_status"], 200, "{change}");
        assert_eq!(
            (answer.set_cookie(), answer.field("retry-after")),
            (None, None),
            "{change}"
        );
        assert!(!answer.text().contains("dropped"));
        assert_eq!(scene.database.data(&scene.key), before, "{change}");
    }
    scene.app.answers(reply(200).set("{}").set("{}"));
    scene.get().is_error(502, "bad-session-set");

    // What other servers write and is good: blanks around, UTF-8, escapes.
    let utf8: String = "  {\"set\":{\"a\":\"日本\"}} "
        .bytes()
        .map(char::from)
        .collect();
    scene.app.answers(reply(200).set(&utf8));
    scene.get().is_upstreams(200);
    assert_eq!(scene.read()["a"], "日本");
}

#[test]
fn what_is_not_granted_is_refused_and_says_what_to_add() {
    let scene = Scene::start();
    let before = scene.database.data(&scene.key);
    for (path, change, advice) in [
        ("/cart/", r#"{"set":{"prefs":1}}"#, "writable"),
        ("/cart/", r#"{"del":["prefs"]}"#, "writable"),
        ("/cart/", r#"{"cycle":true}"#, "cycle"),
        ("/cart/", r#"{"flush":true}"#, "flush"),
        ("/cart/", r#"{"expiry":60}"#, "expiry"),
        ("/none/", r#"{"set":{"cart":1}}"#, "writable"),
        ("/none/", "{}", "writable"),
        ("/off/", r#"{"set":{"cart":1}}"#, ""),
        ("/off/", "{}", ""),
    ] {
        scene.app.answers(reply(200).set(change));
        let answer = scene.gateway.get(path).session(&scene.key).send();
        answer.is_error(502, "bad-session-set");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(advice), "{path} {change}: {detail}");
        assert_eq!(scene.database.data(&scene.key), before, "{path} {change}");
    }
    scene
        .app
        .answers(reply(200).set(r#"{"set":{"cart":["b"]}}"#));
    scene
        .gateway
        .get("/cart/")
        .session(&scene.key)
        .send()
        .is_upstreams(200);
    assert_eq!(scene.read()["cart"], json!(["b"]));
}

#[test]
fn a_session_that_would_grow_too_large_is_refused() {
    let scene = Scene::start();
    for number in 0..4 {
        let change = json!({"set": {format!("part{number}"): "x".repeat(15_000)}}).to_string();
        scene.app.answers(reply(200).set(&change));
        scene.get().is_upstreams(200);
    }
    let before = scene.database.data(&scene.key);
    scene
        .app
        .answers(reply(200).set(&json!({"set": {"last": "x".repeat(15_000)}}).to_string()));
    scene.get().is_error(502, "session-too-large");
    assert_eq!(scene.database.data(&scene.key), before);

    let key = scene.database.login(json!({}));
    let many: serde_json::Map<String, Value> = (0..257)
        .map(|number| (format!("k{number}"), json!(1)))
        .collect();
    scene
        .app
        .answers(reply(200).set(&json!({"set": many}).to_string()));
    scene
        .gateway
        .get("/")
        .session(&key)
        .send()
        .is_error(502, "session-too-large");
}

#[test]
fn a_condition_that_fails_is_a_409() {
    let scene = Scene::start();
    for change in [
        r#"{"if":"nonsense","set":{"a":1}}"#,
        r#"{"if":"","flush":true}"#,
    ] {
        scene.app.answers(reply(200).set(change));
        scene.get().is_error(409, "session-changed");
        scene
            .gateway
            .get("/")
            .send()
            .is_error(409, "session-changed");
    }
    // A key that the upstream does not see, and a new timestamp in the row, are no change to it.
    scene.app.answers(reply(200));
    scene.get();
    let rev = scene.app.last().claims()["rev"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut session = scene.read();
    session["_messages"] = json!("[]");
    let data = rows::seal(SECRET_KEY, session.to_string().as_bytes());
    scene.database.execute(&format!(
        "UPDATE django_session SET session_data = '{data}'"
    ));
    scene
        .app
        .answers(reply(200).set(&json!({"if": rev, "set": {"a": 1}}).to_string()));
    scene.get().is_upstreams(200);
    scene.get().is_error(409, "session-changed");
}

#[test]
fn a_session_that_is_gone_stays_gone() {
    let scene = Scene::start();
    for (change, expected) in [
        (r#"{"set":{"a":1}}"#, 409),
        (r#"{"del":["cart"]}"#, 409),
        (r#"{"cycle":true}"#, 409),
        (r#"{"flush":true}"#, 200),
    ] {
        let key = scene.database.login(json!({"cart": 1}));
        let (database, change) = (Database::same(&scene.database), change.to_owned());
        let deleted = key.clone();
        scene.app.answers_with(move |_| {
            database.delete(&deleted);
            reply(200).set(&change)
        });
        let answer = scene.gateway.get("/").session(&key).send();
        match expected {
            409 => {
                answer.is_error(409, "session-gone");
                assert_eq!(answer.set_cookie(), None);
            }
            _ => assert!(
                answer
                    .is_upstreams(200)
                    .set_cookie()
                    .unwrap()
                    .contains("Max-Age=0")
            ),
        }
        assert_eq!(
            scene.database.keys(),
            [scene.key.as_str()],
            "no row has come back"
        );
    }
}

#[test]
fn a_lock_that_is_not_had_in_time_is_a_409_on_postgresql() {
    a_lock_that_is_not_had_in_time_is_a_409(Database::postgres(), "6s");
}

#[test]
fn a_lock_that_is_not_had_in_time_is_a_409_on_mariadb() {
    // Under two seconds it is the time of a statement that ends the wait.
    a_lock_that_is_not_had_in_time_is_a_409(Database::mariadb(), "1900ms");
}

fn a_lock_that_is_not_had_in_time_is_a_409(database: Database, deadline: &str) {
    let scene = Scene::over(database, &format!("deadline = '{deadline}'"));
    scene.app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    let other = scene.database.login(json!({}));
    scene.database.while_locked(&scene.key, || {
        scene.get().is_error(409, "session-busy");
        scene
            .gateway
            .get("/")
            .session(&other)
            .send()
            .is_upstreams(200);
    });
    assert_eq!(scene.read().get("a"), None);
    scene.get().is_upstreams(200);
    assert_eq!(scene.read()["a"], 1);
}

#[test]
fn a_lock_that_is_not_had_in_time_is_a_409_on_sqlite() {
    let scene = Scene::over(Database::sqlite(), "deadline = '4s'");
    scene.app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    scene.database.while_locked(&scene.key, || {
        scene.get().is_error(409, "session-busy");
    });
    assert_eq!(scene.read().get("a"), None);
    scene.get().is_upstreams(200);
    assert_eq!(scene.read()["a"], 1);
}

#[test]
fn the_switch_turns_every_change_into_not_saved() {
    let database = Database::sqlite();
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .top("writes = 'off'")
        .start();
    let key = database.login(json!({}));
    let before = database.data(&key);
    for change in [r#"{"set":{"a":1}}"#, r#"{"flush":true}"#] {
        app.answers(reply(200).set(change));
        for answer in [
            gateway.get("/").session(&key).send(),
            gateway.get("/").send(),
        ] {
            if answer.status != 200 || change.contains("set") {
                answer.is_error(500, "session-not-saved");
            }
            assert_eq!(
                (answer.set_cookie(), answer.field("retry-after")),
                (None, None)
            );
        }
    }
    assert_eq!(
        (database.keys(), database.data(&key)),
        (vec![key.clone()], before)
    );
}

#[test]
fn the_response_waits_for_the_write() {
    for database in [
        Database::postgres(),
        Database::sqlite(),
        Database::mariadb(),
    ] {
        let engine = database.engine();
        let scene = Scene::over(database, "deadline = '20s'");
        scene
            .app
            .answers(reply(200).set(r#"{"set":{"a":1}}"#).body("welcome"));
        let mut connection = scene.database.while_locked(&scene.key, || {
            let connection = scene.gateway.get("/").session(&scene.key).begin();
            eventually("the upstream has answered", || scene.app.seen().pop());
            // Not one byte leaves while the write waits for the lock.
            connection
                .socket()
                .set_read_timeout(Some(std::time::Duration::from_millis(500)))
                .unwrap();
            let early = connection.socket().peek(&mut [0]);
            assert!(early.is_err(), "{engine:?}: {early:?}");
            connection
        });
        connection
            .socket()
            .set_read_timeout(Some(PATIENCE))
            .unwrap();
        connection.socket().peek(&mut [0]).unwrap();
        assert_eq!(
            scene.read()["a"],
            1,
            "{engine:?}: stored when the first byte is there"
        );
        assert_eq!(connection.answer("GET").is_upstreams(200).text(), "welcome");
    }
}

#[test]
fn the_write_survives_a_departing_client() {
    let scene = Scene::over(Database::postgres(), "deadline = '20s'");
    scene.app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    let waiting = "SELECT pid::text FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let watcher = Database::same(&scene.database);
    scene.database.while_locked(&scene.key, || {
        let connection = scene.gateway.get("/").session(&scene.key).begin();
        eventually("the write waits for the lock", || {
            watcher.query(waiting).pop()
        });
        drop(connection);
        // The gateway has seen the client leave once it answers another one.
        scene.gateway.get("/off/").send();
    });
    eventually("the write is there", || {
        (scene.read().get("a") == Some(&json!(1))).then_some(())
    });
}
