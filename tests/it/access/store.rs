//! While the database is away: what stops and what goes on. A SQLite file that is removed, put back, or
//! replaced by another one.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    access::varies,
    support::{Answer, Database, Gateway, Served as _, Upstream, eventually, reply},
};

/// `[django] deadline`.
const DEADLINE: Duration = Duration::from_secs(4);

/// What a busy machine may add: less than another deadline.
const SLACK: Duration = Duration::from_secs(3);

/// One route of each kind.
const ROUTES: [&str; 5] = [
    "path = '/soft/'\nupstream = 'app'\non_store_error = 'forward'",
    "path = '/off/'\nupstream = 'app'\nsession = 'off'",
    "path = '/pass/'\nupstream = 'site'\nsession = 'pass'",
    "path = '/members/'\nupstream = 'app'\nrequire = 'login'",
    "path = '/carts/'\nupstream = 'app'\nrequire = 'session'",
];

#[test]
fn without_the_database_each_route_does_what_it_says() {
    let scene = Scene::start();
    scene.tells("/", json!("one"));
    scene.tells("/soft/", json!("one"));
    let aside = scene.database.folder().join("aside");
    std::fs::rename(scene.database.file(), &aside).unwrap();
    // Before and after the breaker has opened.
    for _ in 0..5 {
        scene.goes_on_without_a_database();
    }
    std::fs::rename(aside, scene.database.file()).unwrap();
    scene.is_back(Instant::now());
    scene.tells("/soft/", json!("one"));
}

#[test]
fn a_database_that_never_answers_costs_the_deadline_and_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database = Database::of(&format!(
        "postgres://app:password@{}/site",
        silent.local_addr().unwrap()
    ));
    let app = Upstream::start();
    let gateway = routes(&database, &app).start();
    let scene = Scene {
        database,
        app,
        gateway,
        key: crate::support::database::random_key(),
    };
    for _ in 0..3 {
        scene.goes_on_without_a_database();
    }
}

#[test]
fn a_removed_file_is_never_nobody_and_serves_again_when_it_is_back() {
    let scene = Scene::start();
    let copy = scene.database.folder().join("copy");
    scene.tells("/", json!("one"));
    scene.write("before");
    std::fs::copy(scene.database.file(), &copy).unwrap();
    std::fs::remove_file(scene.database.file()).unwrap();
    for _ in 0..5 {
        scene.is_away("/");
    }
    assert!(!scene.database.file().exists(), "no empty file is made");
    // The same content, and another inode.
    std::fs::rename(copy, scene.database.file()).unwrap();
    scene.is_back(Instant::now());
    scene.write("after");
    assert_eq!(scene.stored()["marker"], "after");
}

#[test]
fn a_file_in_another_files_place_is_the_one_that_counts() {
    let scene = Scene::start();
    scene.tells("/", json!("one"));
    scene.write("before");
    for marker in ["two", "three"] {
        let other = Database::sqlite();
        let key = other.login(json!({"marker": marker}));
        other.execute(&format!(
            "UPDATE django_session SET session_key = '{}' WHERE session_key = '{key}'",
            scene.key
        ));
        std::fs::rename(other.file(), scene.database.file()).unwrap();
        // At once: the first answer after the change is the new file's.
        scene.tells("/", json!(marker));
        assert_eq!(scene.stored()["marker"], marker);
    }

    // A change as the first thing that meets the new file.
    let other = Database::sqlite();
    std::fs::rename(other.file(), scene.database.file()).unwrap();
    scene
        .app
        .answers(reply(200).set(r#"{"set":{"marker":"lost"}}"#));
    let answer = scene.gateway.get("/").session(&scene.key).send();
    answer.is_upstreams(200);
    assert_eq!(
        scene.app.last().claims()["session"],
        json!({}),
        "no such row"
    );
    let new = answer.new_session().unwrap();
    assert_ne!(new, scene.key, "an offered key is never adopted");
    assert_eq!(scene.database.read(&new), Some(json!({"marker": "lost"})));
}

#[test]
fn a_change_that_meets_a_replaced_file_is_stored_there_or_refused() {
    let scene = Scene::start();
    scene.write("before");
    let copy = scene.database.folder().join("copy");
    std::fs::copy(scene.database.file(), &copy).unwrap();
    let moved = (copy, scene.database.file());
    // The file is replaced after the session was read, and before the change of it begins.
    scene.app.answers_with(move |_| {
        std::fs::rename(&moved.0, &moved.1).unwrap();
        reply(200).set(r#"{"set":{"marker":"two"}}"#)
    });
    let answer = scene.gateway.get("/").session(&scene.key).send();
    scene.is_stored_or_refused(&answer, "two");
}

#[test]
fn a_change_that_waits_for_a_file_that_is_replaced_is_stored_there_or_refused() {
    for journal in ["DELETE", "WAL"] {
        let scene = Scene::start();
        let file = scene.database.file();
        scene
            .database
            .execute(&format!("PRAGMA journal_mode = {journal}"));
        scene.write("before");
        scene.app.take();
        let copy = scene.database.folder().join("copy");
        scene.database.execute("PRAGMA wal_checkpoint(TRUNCATE)");
        std::fs::copy(&file, &copy).unwrap();
        scene
            .app
            .answers(reply(200).set(r#"{"set":{"marker":"two"}}"#));
        let mut waiting = scene.database.while_locked(&scene.key, || {
            let waiting = scene.gateway.get("/").session(&scene.key).begin();
            eventually("the upstream has answered", || {
                (!scene.app.seen().is_empty()).then_some(())
            });
            // The change asks for the old file's lock now. Nothing shows it; too short a pause would only
            // make this the test above.
            std::thread::sleep(Duration::from_millis(100));
            for end in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{end}", file.display()));
            }
            std::fs::rename(&copy, &file).unwrap();
            waiting
        });
        scene.is_stored_or_refused(&waiting.answer("GET"), "two");
    }
}

#[test]
fn a_file_that_is_no_database_is_never_nobody() {
    for (what, content) in [
        ("empty", &b""[..]),
        ("text", b"this is no database, however long it is read"),
    ] {
        let scene = Scene::start();
        scene.tells("/", json!("one"));
        let aside = scene.database.folder().join("aside");
        std::fs::rename(scene.database.file(), &aside).unwrap();
        std::fs::write(scene.database.file(), content).unwrap();
        for _ in 0..5 {
            scene.is_away("/");
        }
        let now = std::fs::read(scene.database.file()).unwrap();
        assert_eq!(now, content, "{what}: it is left alone");
        std::fs::rename(aside, scene.database.file()).unwrap();
        scene.is_back(Instant::now());
    }
}

/// A logged-in visitor whose session says `"marker": "one"`.
struct Scene {
    database: Database,
    app: Upstream,
    gateway: Gateway,
    key: String,
}

impl Scene {
    fn start() -> Self {
        let database = Database::sqlite();
        let key = database.login(json!({"marker": "one"}));
        let app = Upstream::start();
        let gateway = routes(&database, &app).start();
        Self {
            database,
            app,
            gateway,
            key,
        }
    }

    /// The upstream is told what the visitor's session holds.
    #[track_caller]
    fn tells(&self, path: &str, marker: Value) {
        self.app.take();
        let answer = self.gateway.get(path).session(&self.key).send();
        answer.is_upstreams(200);
        let claims = self.app.last().claims();
        assert_eq!(
            (&claims["sub"], &claims["session"]["marker"]),
            (&json!("1"), &marker)
        );
    }

    /// The visitor's session now.
    fn stored(&self) -> Value {
        self.database.read(&self.key).unwrap()
    }

    /// A change that is stored.
    #[track_caller]
    fn write(&self, marker: &str) {
        let change = format!(r#"{{"set":{{"marker":"{marker}"}}}}"#);
        self.app.answers(reply(200).set(&change));
        let answer = self.gateway.get("/").session(&self.key).send();
        self.app.answers(reply(200));
        assert_eq!(
            answer.is_upstreams(200).new_session().as_ref(),
            Some(&self.key)
        );
        assert_eq!(self.stored()["marker"], marker);
    }

    /// What the client was told is true.
    #[track_caller]
    fn is_stored_or_refused(&self, answer: &Answer, marker: &str) {
        let is_stored = self.stored()["marker"] == marker;
        match (answer.status, answer.code()) {
            (200, None) => assert!(
                is_stored,
                "the client was told that it is stored: {answer:?}"
            ),
            (500, Some("session-not-saved")) | (409, Some("session-busy")) => {
                assert!(!is_stored, "it is stored: {answer:?}");
            }
            (500, Some("session-outcome-unknown")) => {}
            _ => panic!("{answer:?}"),
        }
    }

    /// The route is 503 in time, and the upstream is not called.
    #[track_caller]
    fn is_away(&self, path: &str) {
        self.app.take();
        let began = Instant::now();
        let answer = self.gateway.get(path).session(&self.key).send();
        let took = began.elapsed();
        answer.is_error(503, "session-store-unavailable");
        assert!(took < DEADLINE + SLACK, "{path}: {took:?}");
        assert!(answer.field("retry-after").is_some(), "{path}: {answer:?}");
        assert_eq!(answer.set_cookie(), None, "{path}");
        varies(&answer, path);
        assert!(
            self.app.take().is_empty(),
            "{path}: the upstream was called"
        );
    }

    fn goes_on_without_a_database(&self) {
        for path in ["/", "/members/", "/carts/"] {
            self.is_away(path);
            let page = self.gateway.get(path).session(&self.key);
            let page = page.field("Sec-Fetch-Mode", "navigate").send();
            assert_eq!(page.status, 503, "never the login page: {page:?}");
        }

        let began = Instant::now();
        let answer = self.gateway.get("/soft/").session(&self.key).send();
        assert!(began.elapsed() < DEADLINE + SLACK);
        answer.is_upstreams(200);
        assert_eq!(answer.set_cookie(), None);
        varies(&answer, "/soft/");
        let claims = self.app.take().remove(0).claims();
        assert_eq!(claims["withheld"], "unavailable");
        for claim in ["sub", "sid", "rev", "session", "session_exp", "user"] {
            assert_eq!(claims.get(claim), None, "{claims}");
        }

        // Who has no cookie is known to be nobody.
        for path in ["/", "/soft/"] {
            self.gateway.get(path).send().is_upstreams(200);
            let claims = self.app.take().remove(0).claims();
            assert_eq!(
                (claims.get("withheld"), &claims["session"]),
                (None, &json!({}))
            );
        }
        let nobody = self.gateway.get("/members/").send();
        nobody.is_error(401, "login-required");

        let began = Instant::now();
        let off = self.gateway.get("/off/").session(&self.key).send();
        off.is_upstreams(200);
        assert_eq!(self.app.take().remove(0).claims()["withheld"], "off");
        let pass = self.gateway.get("/pass/").session(&self.key).send();
        pass.is_upstreams(200);
        let passed = self.app.take().remove(0);
        assert_eq!(
            passed.field("cookie"),
            Some(&*format!("sessionid={}", self.key))
        );
        assert_eq!(passed.field("x-session"), None);
        let preflight = self.gateway.ask("OPTIONS", "/members/");
        let preflight = preflight
            .field("Origin", "https://shop.test")
            .field("Access-Control-Request-Method", "PUT")
            .send();
        preflight.is_upstreams(200);
        self.app.take();
        assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    }

    /// Served again, as somebody, within a second of the moment when the database was back.
    #[track_caller]
    fn is_back(&self, since: Instant) {
        self.app.take();
        eventually("served again", || {
            let answer = self.gateway.get("/").session(&self.key).send();
            match (answer.status, answer.code()) {
                (200, None) => Some(()),
                (503, Some("session-store-unavailable")) => None,
                _ => panic!("{answer:?}"),
            }
        });
        let took = since.elapsed();
        assert!(took < Duration::from_secs(1) + SLACK, "{took:?}");
        for seen in self.app.take() {
            assert_eq!(seen.user().as_deref(), Some("1"), "never nobody");
        }
    }
}

fn routes(database: &Database, app: &Upstream) -> crate::support::gateway::Setup {
    let deadline = format!("deadline = '{}s'", DEADLINE.as_secs());
    let setup = Gateway::before(database, app)
        .django("site", app)
        .line("django", &deadline);
    ROUTES.iter().fold(setup, |setup, route| setup.route(route))
}
