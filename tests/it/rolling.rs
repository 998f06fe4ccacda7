//! SESSION_SAVE_EVERY_REQUEST: a session that is used lives on, beside a Django that does the same; it costs a
//! write only now and then, and it never costs anybody a response.

use chrono::{DateTime, Duration, NaiveDateTime, Utc};
use serde_json::{Value, json};

use crate::support::{
    Answer, Database, Django, Engine, Gate, Gateway, PATIENCE, Release, SECRET_KEY, Served as _,
    Upstream,
    database::{random_key, timestamp},
    eventually,
    gateway::Setup,
    reply, rows,
};

const AGE: i64 = 1_209_600;

#[test]
fn a_session_lives_on_as_with_a_django_that_saves_every_request() {
    for browser_close in [false, true] {
        let database = Database::empty(Engine::Sqlite);
        let settings = json!({
            "SESSION_SAVE_EVERY_REQUEST": true,
            "SESSION_EXPIRE_AT_BROWSER_CLOSE": browser_close,
        });
        let django = Django::start_with(Release::V52, &database, &settings);
        let app = Upstream::start();
        let gateway = rolling(&database, &app)
            .line("django", "release = '5.2'")
            .line(
                "django",
                &format!("expire_at_browser_close = {browser_close}"),
            )
            .start();
        let end = (Utc::now() + Duration::days(3)).format("%Y-%m-%dT%H:%M:%S+00:00");
        for (session, moves) in [
            (json!({"a": 1}), true),
            (json!({"a": 1, "_session_expiry": 3600}), true),
            (json!({"a": 1, "_session_expiry": 0}), true),
            (json!({"a": 1, "_session_expiry": null}), true),
            (json!({"a": 1, "_session_expiry": end.to_string()}), false),
        ] {
            let what = format!("{session}, browser_close {browser_close}");
            let key = database.session(&session);
            if !moves {
                // A fixed end is the row's end, and stays; so nothing is written, and nobody need be told.
                django.get("/session/").session(&key).send();
                let before = (database.data(&key), ends(&database, &key));
                let answer = gateway.get("/").session(&key).send();
                assert_eq!(answer.is_upstreams(200).set_cookie(), None, "{what}");
                assert_eq!((database.data(&key), ends(&database, &key)), before);
                continue;
            }
            let ends_soon = || ends_in(&database, &key, Duration::minutes(5));
            ends_soon();
            let by_django = django.get("/session/").session(&key).send();
            let django_end = ends(&database, &key);
            ends_soon();
            let by_gateway = gateway.get("/").session(&key).send();
            let gateway_end = ends(&database, &key);

            assert_eq!(lasting(&by_gateway), lasting(&by_django), "{what}");
            let apart = gateway_end - django_end;
            assert!(
                Duration::zero() <= apart && apart < Duration::seconds(60),
                "{what}: {gateway_end} {django_end}"
            );
            assert_eq!(by_gateway.field("cache-control"), Some("private, no-store"));
            assert_eq!(by_gateway.field("vary"), Some("Cookie"));
            assert_eq!(django.session(&key), session, "{what}");
        }

        // Django makes a session of an unknown cookie, for a view that never looks at the session.
        let rows = database.keys().len();
        let unused = "/user/active/?username=bob&active=true";
        let made = django.post(unused).session(&random_key()).send();
        assert!(made.new_session().is_some(), "Django's habit");
        assert_eq!(database.keys().len(), rows + 1);
        for cookie in [Some(random_key()), Some("short".to_owned()), None] {
            let answer = gateway.get("/").maybe_session(cookie.as_deref()).send();
            assert_eq!(answer.is_upstreams(200).set_cookie(), None, "{cookie:?}");
        }
        assert_eq!(database.keys().len(), rows + 1, "and not ours");
    }
}

/// The session cookie without the moment that its lifetime counts from.
fn lasting(answer: &Answer) -> String {
    let cookie = answer.is_upstreams(200).set_cookie().expect("a cookie");
    let kept = cookie
        .split("; ")
        .filter(|part| !part.starts_with("expires="));
    kept.collect::<Vec<_>>().join("; ")
}

#[test]
fn the_end_moves_only_where_that_is_worth_a_write() {
    let scene = Rolling::start("");
    for (expiry, life, lag, writes) in [
        (Value::Null, AGE, 20, 0),
        (Value::Null, AGE, 61, 1),
        (json!(600), 600, 20, 0),
        (json!(600), 600, 61, 1),
        // A tenth of 100 seconds.
        (json!(100), 100, 1, 0),
        (json!(100), 100, 11, 1),
        (json!(0), AGE, 61, 1),
        // Ends later than it would from now on: the site has shortened its sessions.
        (json!(100), 100, -1000, 0),
    ] {
        let what = format!("{expiry} {lag}");
        let key = scene.session(json!({"_session_expiry": expiry}));
        ends_in(&scene.database, &key, Duration::seconds(life - lag));
        scene.writes();
        let answer = scene.gateway.get("/").session(&key).send();
        assert_eq!(
            answer.is_upstreams(200).new_session().is_some(),
            writes == 1,
            "{what}"
        );
        assert_eq!(scene.writes(), writes, "{what}");
        if writes == 1 {
            for _ in 0..5 {
                let answer = scene.gateway.get("/").session(&key).send();
                assert_eq!(answer.is_upstreams(200).set_cookie(), None, "{what}");
            }
            assert_eq!(scene.writes(), 0, "{what}");
        }
    }
}

/// A row that is only ever extended would outlive the rotation of its key.
#[test]
fn an_extension_signs_with_the_first_key() {
    let scene = Rolling::start("secret_key_fallbacks = [{ env = 'FALLBACK' }]");
    let payload = br#"{"a": 1.50}"#;
    for (lag, signed_anew) in [(Duration::seconds(10), false), (Duration::hours(1), true)] {
        let row = rows::seal("the-old-key", payload);
        let key = scene
            .database
            .raw_session(&row, Duration::seconds(AGE) - lag);
        scene
            .gateway
            .get("/")
            .session(&key)
            .send()
            .is_upstreams(200);
        let now = scene.database.data(&key).unwrap();
        assert_eq!(now != row, signed_anew, "{lag}");
        if signed_anew {
            assert_eq!(scene.database.read(&key), Some(json!({"a": 1.5})));
        }
    }
}

#[test]
fn a_change_by_the_upstream_is_the_only_write() {
    let scene = Rolling::start("");
    for (change, writes, cookie) in [
        (r#"{"set":{"a":1}}"#, 1, true),
        (r#"{"set":{"cart":1}}"#, 1, true),
        ("{}", 1, true),
        (r#"{"flush":true}"#, 0, true),
    ] {
        let key = scene.session(json!({"cart": 1}));
        ends_in(&scene.database, &key, Duration::hours(1));
        scene.writes();
        scene.app.answers(reply(200).set(change));
        let answer = scene.gateway.get("/all/").session(&key).send();
        assert_eq!(
            answer.is_upstreams(200).set_cookie().is_some(),
            cookie,
            "{change}"
        );
        assert_eq!(scene.writes(), writes, "{change}");
    }
    // What is refused extends nothing.
    let key = scene.session(json!({"cart": 1}));
    ends_in(&scene.database, &key, Duration::hours(1));
    scene.writes();
    scene.app.answers(reply(200).set("{}"));
    let answer = scene.gateway.get("/").session(&key).send();
    assert_eq!(answer.is_error(502, "bad-session-set").set_cookie(), None);
    assert_eq!(scene.writes(), 0);
}

#[test]
fn whose_session_is_extended_and_after_which_response() {
    let scene = Rolling::start("");
    let due = |session: Value| {
        let key = scene.session(session);
        ends_in(&scene.database, &key, Duration::hours(1));
        scene.writes();
        key
    };
    for (method, path, status, extends) in [
        ("GET", "/", 200, true),
        ("HEAD", "/", 200, true),
        ("POST", "/", 302, true),
        ("GET", "/", 304, true),
        ("GET", "/", 404, true),
        ("GET", "/all/", 200, true),
        ("GET", "/", 500, false),
        ("GET", "/", 503, false),
        ("GET", "/off/", 200, false),
        ("GET", "/pass/", 200, false),
    ] {
        let what = format!("{method} {path} {status}");
        let key = due(rows::login("1", json!({})));
        scene.app.answers(reply(status));
        let answer = scene.gateway.ask(method, path).session(&key).send();
        assert_eq!(
            answer.is_upstreams(status).new_session().is_some(),
            extends,
            "{what}"
        );
        assert_eq!(scene.writes() == 1, extends, "{what}");
    }

    scene.app.answers(reply(200));
    let mut wrong_hash = rows::login("1", json!({}));
    wrong_hash["_auth_user_hash"] = json!("0");
    let logged_out = due(wrong_hash);
    let unreadable = due(json!({}));
    let data = rows::seal("another-secret-key", b"{}");
    scene.database.execute(&format!(
        "UPDATE django_session SET session_data = '{data}' WHERE session_key = '{unreadable}'"
    ));
    let bad_expiry = due(json!({"_session_expiry": "soon"}));
    let negative = due(json!({"_session_expiry": -5}));
    let expired = due(json!({}));
    ends_in(&scene.database, &expired, Duration::seconds(-1));
    scene.writes();
    for key in [&logged_out, &unreadable, &bad_expiry, &negative, &expired] {
        let answer = scene.gateway.get("/").session(key).send();
        assert_eq!(answer.is_upstreams(200).set_cookie(), None);
    }
    let key = due(json!({}));
    let preflight = scene.gateway.ask("OPTIONS", "/").session(&key);
    let preflight = preflight.field("Origin", "https://shop.test");
    let preflight = preflight.field("Access-Control-Request-Method", "PUT");
    assert_eq!(preflight.send().is_upstreams(200).set_cookie(), None);
    assert_eq!(scene.writes(), 0);

    // A refusal of the gateway's own is no response of the site's.
    let answer = scene.gateway.get("/members/").session(&key).send();
    assert_eq!(answer.is_error(401, "login-required").set_cookie(), None);
    assert_eq!(scene.writes(), 0);
    let read_only = rolling(&scene.database, &scene.app)
        .top("writes = 'off'")
        .start();
    let answer = read_only.get("/").session(&key).send();
    assert_eq!(
        (answer.is_upstreams(200).set_cookie(), scene.writes()),
        (None, 0)
    );
    let plain = Gateway::before(&scene.database, &scene.app).start();
    let answer = plain.get("/").session(&key).send();
    assert_eq!(
        (answer.is_upstreams(200).set_cookie(), scene.writes()),
        (None, 0)
    );
}

#[test]
fn an_extension_never_costs_a_response_and_revives_nobody() {
    let database = Database::postgres();
    let app = Upstream::start();
    let gateway = rolling(&database, &app)
        .line("django", "deadline = '4s'")
        .start();
    let key = database.login(json!({}));
    let due = || ends_in(&database, &key, Duration::hours(1));
    let is_served = |what: &str| {
        let answer = gateway.get("/").session(&key).send();
        assert_eq!(answer.is_upstreams(200).text(), "welcome", "{what}");
        assert_eq!(answer.set_cookie(), None, "{what}");
    };
    app.answers(reply(200).body("welcome"));

    due();
    database.while_locked(&key, || is_served("locked"));
    // The cause stands in the log, but not once for each request.
    let lines = |text: &str| {
        gateway
            .log()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    };
    gateway.process.wait_for("a session was not extended");
    database.while_locked(&key, || is_served("locked again"));
    assert_eq!(lines("a session was not extended"), 1, "{}", gateway.log());
    assert_eq!(lines("a session change was not stored"), 0);

    database.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
         CREATE TRIGGER no BEFORE UPDATE ON django_session EXECUTE FUNCTION no();",
    );
    is_served("refused");
    database.execute("DROP TRIGGER no ON django_session");
    let answer = gateway.get("/").session(&key).send();
    assert_eq!(
        answer.is_upstreams(200).new_session().as_ref(),
        Some(&key),
        "and then it works"
    );

    due();
    let (elsewhere, gone) = (Database::same(&database), key.clone());
    app.answers_with(move |_| {
        elsewhere.delete(&gone);
        reply(200).body("welcome")
    });
    is_served("logged out meanwhile");
    assert!(database.keys().is_empty(), "and no row has come back");
}

#[test]
fn why_sessions_are_not_extended_is_said_once() {
    let database = Database::postgres();
    let app = Upstream::start();
    let gateway = rolling(&database, &app).start();
    database.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
         CREATE TRIGGER no BEFORE UPDATE OF expire_date ON django_session EXECUTE FUNCTION no();",
    );
    for _ in 0..5 {
        let expires = timestamp(Duration::hours(1));
        let key = random_key();
        let data = rows::seal(SECRET_KEY, b"{}");
        database.execute(&format!(
            "INSERT INTO django_session VALUES ('{key}', '{data}', '{expires}')"
        ));
        let answer = gateway.get("/").session(&key).send();
        assert_eq!(answer.is_upstreams(200).set_cookie(), None);
    }
    let line = gateway.process.wait_for("a session was not extended");
    assert!(line.contains("not today"), "{line}");
    let log = gateway.log();
    assert_eq!(log.matches("not extended").count(), 1, "{log}");
    assert_eq!(log.matches("not stored").count(), 0, "{log}");
}

/// The cookie tells a lifetime that must be true by then.
#[test]
fn the_response_waits_for_the_extension() {
    let database = Database::postgres();
    let app = Upstream::start();
    let gateway = rolling(&database, &app)
        .line("django", "deadline = '20s'")
        .start();
    let key = database.login(json!({}));
    ends_in(&database, &key, Duration::hours(1));
    let mut connection = database.while_locked(&key, || {
        let connection = gateway.get("/").session(&key).begin();
        eventually("the upstream has answered", || app.seen().pop());
        let socket = connection.socket();
        let wait = Some(std::time::Duration::from_millis(300));
        socket.set_read_timeout(wait).unwrap();
        assert!(
            socket.peek(&mut [0]).is_err(),
            "not one byte while the row is locked"
        );
        connection
    });
    connection
        .socket()
        .set_read_timeout(Some(PATIENCE))
        .unwrap();
    let answer = connection.answer("GET");
    assert_eq!(answer.is_upstreams(200).new_session(), Some(key));
}

#[test]
fn of_many_requests_at_once_one_extends() {
    const REQUESTS: usize = 32;
    let scene = Rolling::start("deadline = '20s'");
    let key = scene.session(json!({}));
    ends_in(&scene.database, &key, Duration::hours(1));
    scene.writes();
    let gate = Gate::default();
    let held = gate.clone();
    scene.app.answers_with(move |_| {
        held.pass();
        reply(200)
    });
    let cookies: usize = std::thread::scope(|scope| {
        let ask = || scene.gateway.get("/").session(&key).send();
        let clients: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(ask)).collect();
        gate.wait_for(REQUESTS);
        gate.open();
        let answers = clients.into_iter().map(|client| client.join().unwrap());
        answers
            .filter(|answer| answer.is_upstreams(200).set_cookie().is_some())
            .count()
    });
    assert_eq!((cookies, scene.writes()), (1, 1));
}

/// A gateway of a site with SESSION_SAVE_EVERY_REQUEST, whose one route grants nothing.
fn rolling(database: &Database, app: &Upstream) -> Setup {
    Gateway::over(database)
        .line("django", "save_every_request = true")
        .env("FALLBACK", "the-old-key")
        .upstream("app", app)
        .django("site", app)
        .route("path = '/'\nupstream = 'app'")
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
        .route("path = '/pass/'\nupstream = 'site'\nsession = 'pass'")
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'")
        .route(
            "path = '/all/'\nupstream = 'app'\nwritable = '*'\nmay = ['cycle', 'flush', 'expiry']",
        )
}

/// Such a gateway over a SQLite file that counts the updates of rows.
struct Rolling {
    database: Database,
    app: Upstream,
    gateway: Gateway,
}

impl Rolling {
    fn start(django: &str) -> Self {
        let database = Database::sqlite();
        database.execute(
            "CREATE TABLE writes (one integer);
             CREATE TRIGGER counts AFTER UPDATE ON django_session
                BEGIN INSERT INTO writes VALUES (1); END",
        );
        let app = Upstream::start();
        let gateway = rolling(&database, &app).line("django", django).start();
        Self {
            database,
            app,
            gateway,
        }
    }

    fn session(&self, session: Value) -> String {
        self.database.session(&session)
    }

    /// How often rows were updated since this was last asked.
    fn writes(&self) -> usize {
        let writes = self.database.query("SELECT 'x' FROM writes").len();
        self.database.execute("DELETE FROM writes");
        writes
    }
}

fn ends_in(database: &Database, key: &str, from_now: Duration) {
    let end = timestamp(from_now);
    database.execute(&format!(
        "UPDATE django_session SET expire_date = '{end}' WHERE session_key = '{key}'"
    ));
}

/// A row's end in SQLite.
fn ends(database: &Database, key: &str) -> DateTime<Utc> {
    let query = format!("SELECT expire_date FROM django_session WHERE session_key = '{key}'");
    let text = database.query(&query).pop().expect("a row");
    let time = NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f");
    time.unwrap().and_utc()
}
