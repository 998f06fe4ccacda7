//! `max_staleness`: how long what somebody else did may go unseen, what counts at once all the same, and what
//! happens when the database goes away meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    metrics::metrics,
    support::{
        Answer, Database, Engine, Gateway, SECRET_KEY, Served as _, Upstream, database::random_key,
        from_tests_run, reply, rows,
    },
};

/// A bound that no test outlives.
const LONG: &str = "60s";

/// A bound that tests wait for.
const SHORT: Duration = Duration::from_secs(1);

/// A gateway that may be late, before an upstream that answers 200 to logged-in visitors and 418 to others.
struct Scene {
    database: Database,
    gateway: Gateway,
    app: Upstream,
}

impl Scene {
    fn start(engine: Engine, max_staleness: &str) -> Self {
        let database = Database::with_tables(engine);
        let app = Upstream::with(|seen| reply(if seen.user().is_some() { 200 } else { 418 }));
        let gateway = Gateway::before(&database, &app)
            .line("django", &format!("max_staleness = '{max_staleness}'"))
            .route("path = '/members/'\nupstream = 'app'\nuser = ['username']")
            .start();
        Self {
            database,
            gateway,
            app,
        }
    }

    fn ask(&self, key: &str) -> Answer {
        self.gateway.get("/").session(key).send()
    }

    fn is_logged_in(&self, key: &str) -> bool {
        match self.ask(key).status {
            200 => true,
            418 => false,
            other => panic!("answered {other}"),
        }
    }

    /// Carries out what the upstream answers to this one request.
    fn answered(&self, key: &str, set: &str) -> Answer {
        let set = set.to_owned();
        self.app.answers(reply(200).set(&set));
        let answer = self.ask(key);
        self.app.answers_with(|seen| {
            let status = if seen.user().is_some() { 200 } else { 418 };
            reply(status)
        });
        answer
    }

    /// How many lookups the database has answered.
    fn lookups(&self) -> f64 {
        metrics(&self.gateway)["batch_questions_count"]
    }
}

const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::MariaDb];

#[test]
fn what_somebody_else_did_counts_after_the_bound_at_the_latest() {
    for engine in ENGINES {
        let scene = Scene::start(engine, "1s");
        let key = scene.database.login(json!({}));
        for (what, undo) in [
            (
                "UPDATE auth_user SET is_active = false",
                "UPDATE auth_user SET is_active = true",
            ),
            ("UPDATE auth_user SET password = 'new'", ""),
        ] {
            assert!(scene.is_logged_in(&key), "{what}");
            scene.database.execute(what);
            scene.is_nobody_in_time(&key, what);
            if !undo.is_empty() {
                scene.database.execute(undo);
            }
        }
        let password = format!("UPDATE auth_user SET password = '{}'", rows::PASSWORD);
        scene.database.execute(&password);
        assert!(scene.is_logged_in(&key));
        scene.database.delete(&key);
        scene.is_nobody_in_time(&key, "a logout");
    }
}

impl Scene {
    /// What was committed before this call must count for every request that begins a bound after it.
    fn is_nobody_in_time(&self, key: &str, what: &str) {
        let done = Instant::now();
        loop {
            let began = Instant::now();
            if !self.is_logged_in(key) {
                return;
            }
            assert!(
                began < done + SHORT,
                "{what} does not count {:?} after",
                began - done
            );
        }
    }
}

#[test]
fn within_the_bound_nothing_is_read_again() {
    for engine in ENGINES {
        let scene = Scene::start(engine, LONG);
        let key = scene.database.login(json!({}));
        assert!(scene.is_logged_in(&key));
        let first = scene.lookups();
        scene.database.delete(&key);
        for _ in 0..20 {
            assert!(scene.is_logged_in(&key), "as it was read");
        }
        assert_eq!(scene.lookups(), first);
        let counted = metrics(&scene.gateway);
        for (name, expected) in [
            ("session_cache_lookups_total{result=\"hit\"}", 20.0),
            ("session_cache_lookups_total{result=\"miss\"}", 1.0),
            ("session_cache_entries", 1.0),
            ("user_cache_lookups_total{result=\"hit\"}", 20.0),
            ("user_cache_entries", 1.0),
        ] {
            assert_eq!(counted[name], expected, "{name}");
        }
        assert!(counted["session_cache_bytes"] > 300.0);
        // What is not there is asked for each time, and a user of whom more is asked.
        let nobody = random_key();
        assert!(!scene.is_logged_in(&nobody));
        let before = scene.lookups();
        assert!(!scene.is_logged_in(&nobody));
        assert_eq!(scene.lookups(), before + 1.0);
        scene.gateway.get("/members/").session(&key).send();
        assert_eq!(scene.app.last().claims()["user"]["username"], "alice");
        assert_eq!(scene.lookups(), before + 2.0);
        scene.gateway.get("/members/").session(&key).send();
        assert_eq!(scene.app.last().claims()["user"]["username"], "alice");
        assert_eq!(scene.lookups(), before + 2.0);
    }
}

#[test]
fn by_default_nothing_is_kept() {
    let scene = Scene::start(Engine::Sqlite, "0s");
    let key = scene.database.login(json!({}));
    assert!(scene.is_logged_in(&key));
    scene.database.delete(&key);
    assert!(!scene.is_logged_in(&key));
    let counted = metrics(&scene.gateway);
    let cached = counted.iter().filter(|(name, _)| name.contains("_cache_"));
    assert!(
        cached.map(|(_, value)| *value).sum::<f64>() == 0.0,
        "{counted:?}"
    );
}

#[test]
fn changes_by_the_gateway_count_at_once() {
    for engine in ENGINES {
        let scene = Scene::start(engine, LONG);
        let key = scene.database.login(json!({}));
        for number in 0..20 {
            assert!(scene.is_logged_in(&key));
            let set = json!({"set": {"number": number}}).to_string();
            scene.answered(&key, &set).is_upstreams(200);
            assert!(scene.is_logged_in(&key));
            assert_eq!(scene.app.last().claims()["session"]["number"], number);
        }
        let cycled = scene.answered(&key, r#"{"cycle":true}"#);
        let new = cycled.new_session().unwrap();
        assert!(!scene.is_logged_in(&key));
        assert!(scene.is_logged_in(&new));
        scene.answered(&new, r#"{"flush":true}"#).is_upstreams(200);
        assert!(!scene.is_logged_in(&new));
    }
}

#[test]
fn a_change_that_finds_the_session_gone_makes_an_end_of_it() {
    for engine in ENGINES {
        let scene = Scene::start(engine, LONG);
        let key = scene.database.login(json!({}));
        assert!(scene.is_logged_in(&key));
        scene.database.delete(&key);
        assert!(scene.is_logged_in(&key), "as it was read");
        let answer = scene.answered(&key, r#"{"set":{"a":1}}"#);
        answer.is_error(409, "session-gone");
        assert!(!scene.is_logged_in(&key));
        assert_eq!(scene.database.keys(), Vec::<String>::new());

        // As it was read, "if" fits; as it is, it does not. The next try is told how it is.
        let key = scene.database.login(json!({"a": 1}));
        assert!(scene.is_logged_in(&key));
        let rev = scene.app.last().claims()["rev"].clone();
        let other = scene.database.login(json!({"a": 2}));
        scene.database.execute(&format!(
            "UPDATE django_session SET session_data = (SELECT session_data FROM django_session \
             WHERE session_key = '{other}') WHERE session_key = '{key}'"
        ));
        let set = json!({"set": {"b": 1}, "if": rev}).to_string();
        scene.answered(&key, &set).is_error(409, "session-changed");
        assert!(scene.is_logged_in(&key));
        assert_eq!(scene.app.last().claims()["session"]["a"], 2);
    }
}

/// Django writes the user's new password, and the session under a new key, with a hash that fits the new one.
#[test]
fn a_new_password_ends_the_other_sessions_and_not_the_one_it_was_given_in() {
    for engine in ENGINES {
        let scene = Scene::start(engine, LONG);
        let key = scene.database.login(json!({}));
        let elsewhere = scene.database.login(json!({}));
        let kept = scene.database.login(json!({}));
        for key in [&key, &elsewhere, &kept] {
            assert!(scene.is_logged_in(key));
        }
        let update = "UPDATE auth_user SET password = 'pbkdf2_sha256$1$salt$another'";
        scene.database.execute(update);
        scene.database.delete(&key);
        let login = rows::login_with("pbkdf2_sha256$1$salt$another", "1", json!({}));
        let new = scene.database.session(&login);
        assert!(scene.is_logged_in(&elsewhere), "as it was read");
        for _ in 0..3 {
            assert!(
                scene.is_logged_in(&new),
                "the user as he was read fits no more"
            );
        }
        // A view that keeps the key: the session as it was read does not fit the user as he was read since.
        let sealed = scene.database.data(&new).unwrap();
        scene.database.execute(&format!(
            "UPDATE django_session SET session_data = '{sealed}' WHERE session_key = '{kept}'"
        ));
        assert!(scene.is_logged_in(&kept));
        // Both rows are remembered now, and do not fit: that is read again, and holds.
        for _ in 0..3 {
            assert!(!scene.is_logged_in(&elsewhere));
        }
        // What a service stores for him who is nobody begins a session of its own.
        let answer = scene.answered(&elsewhere, r#"{"set":{"a":1}}"#);
        let fresh = answer.new_session().unwrap();
        assert_ne!(fresh, elsewhere);
        assert_eq!(scene.database.read(&fresh), Some(json!({"a": 1})));
        assert_eq!(scene.database.read(&elsewhere), None);
        assert!(!scene.is_logged_in(&elsewhere) && scene.is_logged_in(&new));
    }
}

/// A session that fits its user again is logged in at once: a no is never given from memory.
#[test]
fn a_no_is_not_remembered() {
    for engine in ENGINES {
        let scene = Scene::start(engine, LONG);
        scene
            .database
            .execute("UPDATE auth_user SET is_active = false");
        let key = scene.database.login(json!({}));
        assert!(!scene.is_logged_in(&key) && !scene.is_logged_in(&key));
        scene
            .database
            .execute("UPDATE auth_user SET is_active = true");
        assert!(scene.is_logged_in(&key));
    }
}

#[test]
fn a_session_is_not_served_past_its_end() {
    for engine in ENGINES {
        let scene = Scene::start(engine, LONG);
        let login = rows::ascii(&rows::login("1", json!({})));
        let sealed = rows::seal(SECRET_KEY, login.as_bytes());
        let life = Duration::from_millis(700);
        let key = scene
            .database
            .raw_session(&sealed, chrono::Duration::from_std(life).unwrap());
        // Its end was counted from before this. The clocks on the wall and in here need not agree to the last.
        let end = Instant::now() + life + Duration::from_millis(100);
        loop {
            let began = Instant::now();
            if !scene.is_logged_in(&key) {
                break;
            }
            assert!(began < end, "served {:?} after its end", began - end);
        }
    }
}

/// Makes the database unreachable, but for this.
fn take_away(database: &Database) {
    match database.engine() {
        Engine::Sqlite => std::fs::remove_file(database.file()).unwrap(),
        Engine::Postgres => {
            let name = database.name();
            let server = Database::of(&format!("{}/postgres", from_tests_run("SG_TEST_PG_URL")));
            server.execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
            server.execute(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ));
        }
        Engine::MariaDb => {
            let drop = format!("DROP DATABASE {}", database.name());
            Database::of(&from_tests_run("SG_TEST_MARIADB_URL")).execute(&drop);
        }
    }
}

#[test]
fn without_the_database_what_is_young_is_served_and_nobody_is_nobody() {
    for engine in ENGINES {
        let scene = Scene::start(engine, LONG);
        let (known, other) = (
            scene.database.login(json!({})),
            scene.database.login(json!({})),
        );
        assert!(scene.is_logged_in(&known));
        take_away(&scene.database);
        for _ in 0..10 {
            assert!(scene.is_logged_in(&known));
            scene.ask(&other).is_error(503, "session-store-unavailable");
            scene
                .ask(&random_key())
                .is_error(503, "session-store-unavailable");
        }
        // A change needs the database, and after it what was read before is no more to be relied on.
        let answer = scene.answered(&known, r#"{"set":{"a":1}}"#);
        answer.is_error(500, "session-not-saved");
        scene.ask(&known).is_error(503, "session-store-unavailable");
    }
}

#[test]
fn without_the_database_nothing_is_served_after_the_bound() {
    for engine in ENGINES {
        let scene = Scene::start(engine, "1s");
        let key = scene.database.login(json!({}));
        assert!(scene.is_logged_in(&key));
        take_away(&scene.database);
        let gone = Instant::now();
        let mut refused = 0;
        while refused < 3 {
            let began = Instant::now();
            let answer = scene.ask(&key);
            match answer.status {
                200 => assert!(began < gone + SHORT, "served {:?} after", began - gone),
                503 => {
                    answer.is_error(503, "session-store-unavailable");
                    refused += 1;
                }
                other => panic!("answered {other}"),
            }
        }
    }
}
