//! SIGHUP: what the file says is in force at once, wholly or not at all.

mod snapshots;

use std::net::TcpListener;

use serde_json::json;

use crate::support::{
    Connection, Database, Gate, Gateway, SECRET_KEY, Served as _, Upstream, eventually,
    gateway::Setup, reply, rows,
};

/// A setup over this database whose SECRET_KEY is in a file, so that it can change.
fn with_key_file(database: &Database, app: &Upstream, key: &std::path::Path) -> Setup {
    let lines = format!(
        "database = {{ env = 'DATABASE_URL' }}\nsecret_key = {{ file = '{}' }}",
        key.display()
    );
    Gateway::before(database, app).replace("django", &lines)
}

#[test]
fn edge_31_a_reload_changes_new_requests_at_once_and_none_that_is_under_way() {
    let (before, after) = (Upstream::start(), Upstream::start());
    let gate = Gate::default();
    let held = gate.clone();
    before.answers_with(move |seen| {
        if seen.target == "/slow" {
            held.pass();
        }
        reply(200).body("before")
    });
    after.answers(reply(200).body("after"));
    let database = Database::sqlite();
    let gateway = Gateway::before(&database, &before).start();
    let mut slow = gateway.get("/slow").begin();
    let mut kept = Connection::open(gateway.address());
    kept.write(&gateway.get("/").bytes()).unwrap();
    assert_eq!(kept.answer("GET").text(), "before");
    gate.wait_for(1);

    let changed = Gateway::before(&database, &after)
        .line("limits", "request_body = '1KiB'")
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'\non_anonymous = '401'");
    assert!(gateway.reload(&changed));
    kept.write(&gateway.get("/").bytes()).unwrap();
    assert_eq!(kept.answer("GET").text(), "after", "on the same connection");
    let large = gateway.post("/").body(vec![b'a'; 2000]).send();
    large.is_error(413, "body-too-large");
    gateway
        .get("/members/")
        .send()
        .is_error(401, "login-required");
    gate.open();
    assert_eq!(slow.answer("GET").text(), "before");
}

#[test]
fn edge_31_a_bad_file_changes_nothing_and_is_logged_with_every_line_that_is_wrong() {
    let app = Upstream::start();
    let database = Database::sqlite();
    let setup = Gateway::before(&database, &app);
    let gateway = setup.start();
    let config = || gateway.health().get("/readyz").send().json()["config"].clone();
    let loaded = config();
    assert_eq!(loaded["refused"], json!(null));
    let bad = setup
        .clone()
        .line("limits", "request_bdy = '1KiB'")
        .route("path = '/x/'\nupstream = 'nowhere'");
    assert!(!gateway.reload(&bad));
    gateway.get("/x/").send().is_upstreams(200);

    let file = gateway.file().display().to_string();
    let problems_of = |log: &str| -> Vec<String> {
        log.lines()
            .filter(|line| line.contains("the configuration was not reloaded"))
            .filter_map(|line| line.split_once(&file))
            .map(|(_, rest)| rest.to_owned())
            .collect()
    };
    // What it has written may still be on its way.
    let log = eventually("two problems are in the log", || {
        Some(gateway.log()).filter(|log| problems_of(log).len() >= 2)
    });
    let problems = problems_of(&log);
    assert_eq!(problems.len(), 2, "{log}");
    let text = bad.text();
    for (problem, about) in problems.iter().zip(["request_bdy", "'nowhere'"]) {
        let line = text.lines().position(|line| line.contains(about)).unwrap() + 1;
        assert!(problem.starts_with(&format!(":{line}:")), "{line}: {log}");
    }
    let refused = config();
    assert_eq!(refused["digest"], loaded["digest"]);
    assert!(refused["refused"].is_string(), "{refused}");

    std::fs::write(gateway.file(), "[gateway").unwrap();
    assert!(!gateway.hang_up());
    std::fs::remove_file(gateway.file()).unwrap();
    assert!(!gateway.hang_up());
    gateway.get("/x/").send().is_upstreams(200);

    assert!(gateway.reload(&setup));
    assert_eq!(config()["refused"], json!(null));
    assert_eq!(gateway.reloads(), (1, 3));
}

#[test]
fn edge_31_what_cannot_be_reloaded_is_refused_as_a_whole_with_a_sentence() {
    let (app, other) = (Upstream::start(), Upstream::start());
    other.answers(reply(200).body("other"));
    let database = Database::sqlite();
    let gateway = Gateway::before(&database, &app).start();
    let moved = Gateway::before(&database, &other);
    assert!(!gateway.reload(&moved.clone().listen("127.0.0.1:1")));
    let health = moved.clone().replace("health", "address = '127.0.0.1:1'");
    assert!(!gateway.reload(&health));
    assert_eq!(gateway.get("/").send().text(), "ok");
    for sentence in [
        "an address of [[listener]] cannot be changed by a reload, so nothing of this file is in force; restart",
        "the address in [health] cannot be changed by a reload",
    ] {
        gateway.process.wait_for(sentence);
    }
    assert!(gateway.reload(&moved));
    assert_eq!(gateway.get("/").send().text(), "other");
}

#[test]
fn another_secret_key_is_in_force_at_once_and_nothing_is_remembered_under_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, SECRET_KEY).unwrap();
    let app = Upstream::start();
    let database = Database::sqlite();
    let setup = with_key_file(&database, &app, &file);
    let gateway = setup.start();
    let key = database.session(&json!({"cart": 1}));
    let later = database.raw_session(
        &rows::seal("the key after the rotation", br#"{"cart":2}"#),
        chrono::Duration::days(1),
    );
    let cart = |key: &str| {
        gateway.get("/").session(key).send().is_upstreams(200);
        app.last().claims()["session"]["cart"].clone()
    };
    // Twice: the second is remembered.
    assert_eq!(
        [cart(&key), cart(&key), cart(&later)],
        [json!(1), json!(1), json!(null)]
    );

    std::fs::write(&file, "the key after the rotation").unwrap();
    assert_eq!(cart(&key), json!(1), "a file is not read by itself");
    assert!(gateway.hang_up());
    assert_eq!([cart(&key), cart(&later)], [json!(null), json!(2)]);

    std::fs::write(&file, "").unwrap();
    assert!(!gateway.hang_up());
    assert_eq!(cart(&later), json!(2));
}

#[test]
fn another_database_is_tried_before_it_is_in_force() {
    let app = Upstream::start();
    let database = Database::sqlite();
    let key = database.session(&json!({"from": "first"}));
    let from = |gateway: &Gateway| {
        gateway.get("/").session(&key).send().is_upstreams(200);
        app.last().claims()["session"]["from"].clone()
    };
    let at = |database: &str| {
        let lines =
            format!("database = '{database}'\nsecret_key = {{ env = 'DJANGO_SECRET_KEY' }}");
        Setup::new("unused")
            .replace("django", &lines)
            .upstream("app", &app)
            .route("path = '/'\nupstream = 'app'")
    };
    let gateway = at(database.url()).start();
    assert_eq!(from(&gateway), json!("first"));

    let empty = Database::empty(crate::support::Engine::Sqlite);
    empty.execute("CREATE TABLE other (id integer)");
    assert!(!gateway.reload(&at(empty.url())), "there is no such table");
    gateway.process.wait_for("the session database said no");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("postgres://{}/site", silent.local_addr().unwrap());
    assert!(!gateway.reload(&at(&silent)), "it does not answer");
    assert_eq!(from(&gateway), json!("first"));

    let second = Database::sqlite();
    let sealed = rows::seal(SECRET_KEY, br#"{"from":"second"}"#);
    let until = crate::support::database::timestamp(chrono::Duration::days(1));
    second.execute(&format!(
        "INSERT INTO django_session VALUES ('{key}', '{sealed}', '{until}')"
    ));
    assert!(gateway.reload(&at(second.url())));
    assert_eq!(from(&gateway), json!("second"));
}

#[test]
fn edge_33_a_gateway_stays_ready_when_a_reload_names_a_database_that_does_not_answer() {
    let app = Upstream::start();
    let database = Database::sqlite();
    let key = database.session(&json!({}));
    let at = |database: &str| {
        let lines =
            format!("database = '{database}'\nsecret_key = {{ env = 'DJANGO_SECRET_KEY' }}");
        Setup::new("unused")
            .replace("django", &lines)
            .upstream("app", &app)
            .route("path = '/'\nupstream = 'app'")
    };
    let gateway = at(database.url()).start();
    gateway.get("/").session(&key).send().is_upstreams(200);
    // The one in use is away too, so there is nothing to lose.
    std::fs::rename(database.file(), database.folder().join("gone")).unwrap();
    database.execute("CREATE TABLE other (id integer)");
    eventually("the database is away", || {
        gateway.get("/").session(&key).send();
        let health = gateway.health().get("/readyz").send().json();
        (health["database"]["away"] == json!(true)).then_some(())
    });
    assert!(gateway.reload(&at("postgres://127.0.0.1:1/site")));
    assert_eq!(gateway.health().get("/readyz").send().status, 200);
    std::fs::rename(database.folder().join("gone"), database.file()).unwrap();
    assert!(gateway.reload(&at(database.url())));
    gateway.get("/").session(&key).send().is_upstreams(200);
}

#[test]
fn public_keys_change_with_a_reload() {
    let app = Upstream::start();
    let database = Database::sqlite();
    let setup = Gateway::over(&database)
        .eddsa_upstream("app", &app)
        .route("path = '/'\nupstream = 'app'")
        .signing("first", [7; 32]);
    let kids = |gateway: &Gateway| {
        let keys = gateway.health().get("/.well-known/jwks.json").send().json();
        keys["keys"][0]["kid"].clone()
    };
    let gateway = setup.start();
    assert_eq!(kids(&gateway), json!("first"));
    let text = setup.text().replace("kid = 'first'", "kid = 'second'");
    std::fs::write(gateway.file(), text).unwrap();
    assert!(gateway.hang_up());
    assert_eq!(kids(&gateway), json!("second"));
}

#[test]
fn a_hangup_while_the_database_is_waited_for_does_not_end_the_process() {
    let app = Upstream::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://{}/site", silent.local_addr().unwrap());
    let setup = Setup::new(&url)
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'\nsession = 'off'");
    let folder = tempfile::tempdir().unwrap();
    let file = setup.write(folder.path());
    let process = crate::support::Process::start(setup.command("run").arg("--config").arg(file));
    // It has come as far as the database.
    let _ = silent.accept().unwrap();
    process.signal("HUP");
    process.wait_for("listening on ");
    process.wait_for("the configuration was reloaded");
}
