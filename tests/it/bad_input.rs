//! Bad input at the start: one sentence that says what to do, the right exit code, and no socket is opened.
//! Bad rows: one line in the log that names the likely cause.

use std::{net::TcpListener, os::unix::fs::PermissionsExt as _, process::Output};

use chrono::Duration;

use crate::support::{
    Database, Engine, Gateway, SECRET_KEY, Served as _, Upstream, eventually, from_tests_run,
    gateway::{Setup, ended, program},
    rows,
};

#[test]
fn a_secret_that_is_missing_or_empty() {
    let scene = Scene::start();
    fails(
        &scene.setup().env("DJANGO_SECRET_KEY", ""),
        &["DJANGO_SECRET_KEY", "gateway.toml:"],
    );
    fails(
        &scene.without("DJANGO_SECRET_KEY"),
        &["DJANGO_SECRET_KEY", "gateway.toml:"],
    );
    fails(&scene.without("APP_KEY"), &["APP_KEY", "gateway.toml:"]);
    fails(
        &scene.without("DATABASE_URL"),
        &["DATABASE_URL", "gateway.toml:"],
    );
    let file = scene.with_secret_key("{ file = '/nowhere/secret_key' }");
    fails(&file, &["/nowhere/secret_key", "gateway.toml:"]);
    let text = scene.with_secret_key("'in-the-file-itself'");
    let sentence = fails(&text, &["env", "file", "gateway.toml:"]);
    assert!(!sentence.contains("in-the-file-itself"), "{sentence}");
}

#[test]
fn a_key_file_that_others_may_write() {
    let scene = Scene::start();
    let file = scene.database.folder().join("secret_key");
    std::fs::write(&file, SECRET_KEY).unwrap();
    let setup = scene.with_secret_key(&format!("{{ file = '{}' }}", file.display()));
    for mode in [0o622, 0o620, 0o602] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        fails(&setup, &["secret_key", "chmod"]);
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    setup.start();
}

#[test]
fn a_secret_that_is_shorter_than_32_bytes() {
    let sentence = fails(
        &Scene::start().setup().env("APP_KEY", "planted-but-short"),
        &["32 bytes", "gateway.toml:"],
    );
    assert!(!sentence.contains("planted"), "{sentence}");
}

#[test]
fn a_file_that_is_not_toml() {
    let scene = Scene::start();
    fails(&scene.setup().top("this is not TOML"), &["gateway.toml:1:"]);
    fails(
        &scene.setup().line("limits", "request_body = 'unfinished"),
        &["gateway.toml:"],
    );
}

#[test]
fn a_key_that_does_not_exist_names_its_neighbour() {
    let scene = Scene::start();
    fails(
        &scene.setup().line("django", "secret_keys = 'x'"),
        &["secret_keys", "secret_key", "gateway.toml:"],
    );
    let setup = scene
        .setup()
        .route("path = '/x/'\nupstream = 'app'\nforwrad = '*'");
    fails(&setup, &["forwrad", "forward", "gateway.toml:"]);
}

#[test]
fn a_route_to_an_unknown_upstream() {
    let setup = Scene::start()
        .setup()
        .route("path = '/x/'\nupstream = 'apq'");
    fails(&setup, &["apq", "app", "gateway.toml:"]);
}

#[test]
fn two_routes_that_clash() {
    let setup = Scene::start()
        .setup()
        .route("path = '/x/'\nupstream = 'app'")
        .route("path = '/x'\nupstream = 'app'");
    fails(&setup, &["/x", "gateway.toml:"]);
}

#[test]
fn a_configuration_file_that_is_not_there() {
    let output = ended(program().args(["run", "--config", "/nowhere/gateway.toml"]));
    one_sentence(&output, 1, &["/nowhere/gateway.toml"]);
    let output = ended(program().args(["check", "--config", "/nowhere/gateway.toml"]));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn bad_usage() {
    for arguments in [
        &["run", "--confg", "x"][..],
        &["runn"],
        &["run", "--log", "xml"],
        &["run", "extra"],
        &["check", "--port"],
        &[],
    ] {
        let output = ended(program().args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains("Usage") || text.contains("--help"),
            "{arguments:?}: {text}"
        );
    }
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let scene = Scene::start();
    let listener = scene.setup().listen(&address);
    fails(&listener, &[&address]);
    let health = scene
        .setup()
        .replace("health", &format!("address = '{address}'"));
    fails(&health, &[&address]);
}

#[test]
fn a_sqlite_database_that_says_no() {
    let scene = Scene::start();
    let nowhere = scene.database.folder().join("nowhere.sqlite3");
    fails(
        &scene
            .setup()
            .env("DATABASE_URL", &format!("sqlite:{}", nowhere.display())),
        &["nowhere.sqlite3"],
    );
    assert!(!nowhere.exists(), "no file is made");

    let empty = Database::empty(Engine::Sqlite);
    empty.execute("CREATE TABLE other (id integer)");
    fails(
        &scene.setup().env("DATABASE_URL", empty.url()),
        &["django_session", "migrate"],
    );
    fails(
        &scene.setup().line("django", "table = 'other_session'"),
        &["other_session"],
    );

    let text = scene.database.folder().join("text.sqlite3");
    std::fs::write(
        &text,
        "this is a text, and not a database at all, though it is long enough to be one",
    )
    .unwrap();
    fails(
        &scene
            .setup()
            .env("DATABASE_URL", &format!("sqlite:{}", text.display())),
        &["database"],
    );
}

#[test]
fn a_postgresql_database_that_says_no() {
    let scene = Scene::start();
    let server = from_tests_run("SG_TEST_PG_URL");
    let password = from_tests_run("SG_TEST_PG_PASSWORD");
    let with = |url: &str| scene.setup().env("DATABASE_URL", url);

    let sentence = fails(&with(&format!("{server}/nowhere")), &["nowhere"]);
    assert!(!sentence.contains(&password), "{sentence}");
    let sentence = fails(
        &with(&format!("{server}/postgres").replace(&password, "planted")),
        &["password"],
    );
    assert!(!sentence.contains("planted"), "{sentence}");
    let empty = Database::empty(Engine::Postgres);
    fails(&with(empty.url()), &["django_session", "migrate"]);
    fails(&with("oracle://localhost/site"), &["mysql", "postgres"]);
    let sentence = fails(&with("nonsense:planted"), &["postgres", "sqlite"]);
    assert!(!sentence.contains("planted"), "{sentence}");
}

#[test]
fn edge_33_a_database_that_cannot_be_reached_is_no_error_at_the_start() {
    let app = Upstream::start();
    let setup = Setup::new("postgres://postgres:secret@127.0.0.1:1/site")
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'")
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'");
    let gateway = setup.start();
    let key = crate::support::database::random_key();
    gateway
        .get("/")
        .session(&key)
        .send()
        .is_error(503, "session-store-unavailable");
    gateway.get("/").send().is_upstreams(200);
    gateway.get("/off/").session(&key).send().is_upstreams(200);
    assert_eq!(gateway.health().get("/readyz").send().status, 503);
}

#[test]
fn unreadable_rows_are_withheld_and_named_once() {
    for (data, cause) in [
        (rows::seal("another key", b"{}"), "SECRET_KEY"),
        (
            rows::seal(SECRET_KEY, b"\x80\x04}\x94."),
            "PickleSerializer",
        ),
        (
            rows::seal(
                SECRET_KEY,
                format!(r#"{{"a":"{}"}}"#, "x".repeat(300_000)).as_bytes(),
            ),
            "limits.session_data",
        ),
        ("no row at all".to_owned(), "SECRET_KEY"),
    ] {
        let scene = Scene::start();
        let gateway = scene.setup().start();
        let key = scene.database.raw_session(&data, Duration::days(1));
        for _ in 0..3 {
            gateway.get("/").session(&key).send().is_upstreams(200);
            assert_eq!(
                scene.app.last().claims()["withheld"],
                "unreadable",
                "{cause}"
            );
        }
        let named = || {
            gateway
                .log()
                .lines()
                .filter(|line| line.contains("ERROR") && line.contains(cause))
                .count()
        };
        eventually(cause, || (named() > 0).then_some(()));
        assert_eq!(named(), 1, "at most once a minute:\n{}", gateway.log());
        assert!(!gateway.log().contains(&key));
    }
}

/// What a good configuration needs.
struct Scene {
    database: Database,
    app: Upstream,
}

impl Scene {
    fn start() -> Self {
        Self {
            database: Database::sqlite(),
            app: Upstream::start(),
        }
    }

    fn setup(&self) -> Setup {
        Gateway::before(&self.database, &self.app)
    }

    fn without(&self, variable: &str) -> Setup {
        self.setup().no_env(variable)
    }

    fn with_secret_key(&self, value: &str) -> Setup {
        let lines = format!("database = {{ env = 'DATABASE_URL' }}\nsecret_key = {value}");
        self.setup().replace("django", &lines)
    }
}

/// Asserts that the gateway does not start, and gives the sentence.
#[track_caller]
fn fails(setup: &Setup, words: &[&str]) -> String {
    one_sentence(&setup.fails(), 1, words)
}

#[track_caller]
fn one_sentence(output: &Output, code: i32, words: &[&str]) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    // What the log says on the way, such as remarks about the configuration, is no part of the sentence.
    let sentence: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(" WARN "))
        .collect();
    assert_eq!(sentence.len(), 1, "one sentence:\n{text}");
    for word in words {
        assert!(sentence[0].contains(word), "no {word:?} in: {text}");
    }
    for word in ["listening on", "health on", "panicked", "RUST_BACKTRACE"] {
        assert!(!text.contains(word), "{text}");
    }
    sentence[0].to_owned()
}
