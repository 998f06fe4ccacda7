//! The library beside a real Django: each reads what the other has written, keeps what the other has changed, and
//! neither brings back what the other has ended.

use std::{future::Future, net::SocketAddr, process::Command};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use session_gateway::{Error, Release as DjangoRelease, Session, Sessions, Settings};
use tokio::runtime::Runtime;

use crate::support::{
    Database, Django, Engine, Process, Release, SECRET_KEY, Served, database::random_key,
};

#[test]
fn the_library_beside_django_on_sqlite() {
    walk(&Site::start(Engine::Sqlite));
}

#[test]
fn the_library_beside_django_on_postgresql() {
    walk(&Site::start(Engine::Postgres));
}

#[test]
fn the_library_beside_django_on_mariadb() {
    walk(&Site::start(Engine::MariaDb));
}

#[test]
fn the_example_program_shares_the_sessions_of_a_django_site() {
    let database = Database::empty(Engine::Sqlite);
    let django = Django::start(Release::V52, &database);
    let program = Example::start(&database);
    let visits = |key: Option<&str>| program.get("/").maybe_session(key).send();
    let first = visits(None);
    assert_eq!(first.text(), "Hello, whoever you are. Visits: 1\n");
    assert_eq!(first.field("vary"), Some("Cookie"));
    let key = first.new_session().expect("a first visit makes a session");

    let login = django.post("/login/?username=alice&password=alice");
    let key = login.session(&key).send().new_session().unwrap();
    let second = visits(Some(&key));
    assert_eq!(second.text(), "Hello, alice. Visits: 2\n");
    assert_eq!(second.new_session(), Some(key.clone()));
    assert_eq!(django.session(&key)["visits"], 2);

    let out = program.post("/logout").session(&key).send();
    assert!(out.set_cookie().unwrap().contains("Max-Age=0"));
    assert_eq!(django.user(&key), None);
    assert_eq!(database.keys(), Vec::<String>::new());
    database.execute("ALTER TABLE auth_user RENAME TO elsewhere");
    let key = database.session(&json!({"visits": 5, "_auth_user_id": "1",
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend"}));
    assert_eq!(visits(Some(&key)).status, 503, "never nobody");
}

/// `examples/visits.rs`, which cargo builds before the tests.
struct Example {
    address: SocketAddr,
    _process: Process,
}

impl Example {
    fn start(database: &Database) -> Self {
        let tests = std::env::current_exe().unwrap();
        let target = tests.ancestors().nth(2).unwrap();
        let mut command = Command::new(target.join("examples/visits"));
        command
            .env("DATABASE_URL", database.url())
            .env("SECRET_KEY", SECRET_KEY)
            .env("ADDRESS", "127.0.0.1:0");
        let process = Process::start(&mut command);
        Self {
            address: process.address_after("listening on "),
            _process: process,
        }
    }
}

impl Served for Example {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn walk(site: &Site) {
    what_django_writes_the_library_reads(site);
    what_the_library_writes_django_reads(site);
    a_session_of_the_library_logs_in_at_django(site);
    each_keeps_what_the_other_has_changed_before(site);
    a_new_key_ends_the_old_one_at_django(site);
    an_expiry_of_the_library_is_djangos(site);
    an_expiry_of_django_is_the_librarys(site);
    what_the_library_ends_django_does_not_know(site);
    what_django_ends_the_library_never_brings_back(site);
    passwords_and_deactivation_count_at_the_next_load(site);
    a_wrong_secret_key_is_an_error_and_costs_nothing(site);
}

/// A Django site, and a program that shares its sessions.
struct Site {
    database: Database,
    django: Django,
    runtime: Runtime,
    sessions: Sessions,
}

impl Site {
    fn start(engine: Engine) -> Self {
        let database = Database::empty(engine);
        let django = Django::start(Release::V52, &database);
        let runtime = Runtime::new().unwrap();
        let sessions = connect(&runtime, &database, SECRET_KEY).unwrap();
        Self {
            database,
            django,
            runtime,
            sessions,
        }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The session of a key, read.
    fn session(&self, key: &str) -> Session {
        let mut session = self.sessions.get(Some(key));
        self.run(session.load()).unwrap();
        session
    }

    fn save(&self, session: &mut Session) -> Result<bool, Error> {
        self.run(session.save())
    }

    /// Logs in at Django; the key.
    fn log_in(&self, name: &str) -> String {
        let login = format!("/login/?username={name}&password={name}");
        let answer = self.django.post(&login).send();
        answer.new_session().expect("Django's cookie")
    }

    /// A change by Django's views; the answer's cookie.
    #[track_caller]
    fn change(&self, target: &str, key: &str) -> String {
        let answer = self.django.post(target).session(key).send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.set_cookie().unwrap_or_default().to_owned()
    }

    /// Django's own account of when the session ends.
    fn end(&self, key: &str) -> Value {
        self.django.get("/end/").session(key).send().json()
    }
}

fn connect(runtime: &Runtime, database: &Database, secret_key: &str) -> Result<Sessions, Error> {
    let mut settings = Settings::new(secret_key);
    settings.release = DjangoRelease(5, 2);
    let connect = Sessions::connect(database.url(), settings).user_columns(["username"]);
    runtime.block_on(async { connect.await })
}

fn user(session: &Session) -> Option<String> {
    session.user().unwrap().map(|user| user.id.clone())
}

fn what_django_writes_the_library_reads(site: &Site) {
    let key = site.log_in("alice");
    let big = "1".repeat(40);
    let values = format!(
        r#"/set/?name="Jos\u00e9%20\ud83d\ude00"&cart=[{{"n":1.50}},null]&big={big}&nan=NaN&none=null"#
    );
    site.change(&values, &key);

    let session = site.session(&key);
    assert_eq!(session.key(), Some(key.as_str()));
    assert_eq!(user(&session).as_deref(), Some("1"));
    let alice = session.user().unwrap().unwrap();
    assert_eq!(alice.column("username"), Some("\"alice\""));
    assert_eq!(
        session.get("name"),
        Ok(Some("Jos\u{e9} \u{1f600}".to_owned()))
    );
    assert_eq!(session.get("cart"), Ok(Some(json!([{"n": 1.5}, null]))));
    assert_eq!(session.get_raw("cart"), Ok(Some(r#"[{"n":1.5},null]"#)));
    assert_eq!(session.get_raw("big"), Ok(Some(big.as_str())));
    assert_eq!(session.get_raw("nan"), Ok(Some("NaN")));
    assert!(session.get::<f64>("nan").is_err());
    assert_eq!(session.get("none"), Ok(Some(None::<u8>)));
    let end = site.end(&key)["row"].as_f64().unwrap();
    let read = session.expire_date().unwrap().timestamp_micros() as f64 / 1e6;
    assert!((end - read).abs() < 1e-5, "{end} {read}");
}

fn what_the_library_writes_django_reads(site: &Site) {
    let key = site.log_in("alice");
    site.change(r#"/set/?lang="fr"&big=10000000000000000000000"#, &key);
    let mut session = site.session(&key);
    session
        .insert("cart", json!([{"article": 7, "price": 9.5}]))
        .unwrap();
    session
        .insert("name", "Jos\u{e9} \u{1f600} \u{7f}\n\"")
        .unwrap();
    assert_eq!(session.remove("lang"), Ok(true));
    assert_eq!(site.save(&mut session), Ok(true));

    let read = site.django.session(&key);
    assert_eq!(read["cart"], json!([{"article": 7, "price": 9.5}]));
    assert_eq!(read["name"], "Jos\u{e9} \u{1f600} \u{7f}\n\"");
    assert!(read.get("lang").is_none(), "{read}");
    assert_eq!(site.django.user(&key).as_deref(), Some("1"));
    // Django loads it and writes it: the same bytes, so that nothing has changed for the library.
    site.change("/set/?x=1", &key);
    site.change("/del/?x", &key);
    let again = site.session(&key);
    for name in ["cart", "name", "big"] {
        assert_eq!(again.get_raw(name), session.get_raw(name), "{name}");
    }
}

fn a_session_of_the_library_logs_in_at_django(site: &Site) {
    let offered = random_key();
    let mut session = site.session(&offered);
    session.insert("cart", ["book"]).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    let key = session.key().unwrap();
    assert_ne!(key, offered);
    assert_eq!(site.database.read(&offered), None);

    let login = site
        .django
        .post("/login/?username=bob&password=bob")
        .session(key)
        .send();
    let new = login.new_session().expect("a login gives a new key");
    let session = site.session(&new);
    assert_eq!(user(&session).as_deref(), Some("2"));
    assert_eq!(session.get("cart"), Ok(Some(["book".to_owned()])));
    assert_eq!(site.session(key).key(), None);
}

fn each_keeps_what_the_other_has_changed_before(site: &Site) {
    let key = site.log_in("alice");
    site.change("/set/?a=1&b=1", &key);
    let mut session = site.session(&key);
    site.change("/set/?b=2&c=2", &key);
    session.insert("a", 3).unwrap();
    session.insert("d", 3).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    for (name, value) in [("a", 3), ("b", 2), ("c", 2), ("d", 3)] {
        assert_eq!(session.get(name), Ok(Some(value)), "{name}");
        assert_eq!(site.django.session(&key)[name], value, "{name}");
    }
    assert_eq!(site.save(&mut session), Ok(false));
}

fn a_new_key_ends_the_old_one_at_django(site: &Site) {
    let old = site.log_in("alice");
    let mut session = site.session(&old);
    session.insert("step", "paid").unwrap();
    site.run(session.cycle_key()).unwrap();
    let new = session.key().unwrap();
    assert_eq!(site.django.user(&old), None);
    assert_eq!(site.django.user(new).as_deref(), Some("1"));
    assert_eq!(site.django.session(new)["step"], "paid");
    let cookie = session.cookie().unwrap();
    let theirs = site.change("/set/?x=1", new);
    let without_dates = |cookie: &str| {
        let parts = cookie
            .split("; ")
            .filter(|part| !part.starts_with("expires="));
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        without_dates(cookie.to_str().unwrap()),
        without_dates(&theirs)
    );
}

fn an_expiry_of_the_library_is_djangos(site: &Site) {
    let key = site.log_in("alice");
    let mut session = site.session(&key);
    session.set_expiry(Some(300)).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    assert_eq!(site.end(&key)["age"], 300);
    let cookie = session.cookie().unwrap();
    assert!(cookie.to_str().unwrap().contains("; Max-Age=300;"));
    assert!(site.change("/set/?x=1", &key).contains("; Max-Age=300;"));

    session.set_expiry(Some(0)).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    assert_eq!(site.end(&key)["browser_close"], true);
    assert!(!site.change("/set/?x=2", &key).contains("Max-Age"));

    let end = Utc::now() + TimeDelta::days(2);
    session.set_expiry_at(end).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    // Django computes it from the text, and stores what it has computed.
    site.change("/set/?x=3", &key);
    let row = site.end(&key)["row"].as_f64().unwrap();
    assert!((row - end.timestamp_micros() as f64 / 1e6).abs() < 1e-5);

    session.set_expiry(None).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    assert_eq!(site.end(&key)["age"], 14 * 24 * 60 * 60);
}

fn an_expiry_of_django_is_the_librarys(site: &Site) {
    let key = site.log_in("alice");
    site.change("/expiry/?seconds=900", &key);
    let mut session = site.session(&key);
    assert_eq!(session.expiry_age(), Ok(900));
    session.insert("x", 1).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    let left = session.expire_date().unwrap() - Utc::now();
    assert!((890..=900).contains(&left.num_seconds()), "{left}");

    site.change("/expiry/?at=2040-01-02T03:04:05%2B00:00", &key);
    session = site.session(&key);
    session.insert("x", 2).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    let end = DateTime::parse_from_rfc3339("2040-01-02T03:04:05Z").unwrap();
    assert_eq!(session.expire_date(), Some(end.to_utc()));
    site.change("/expiry/?seconds=0", &key);
    assert_eq!(site.session(&key).expires_at_browser_close(), Ok(true));
}

fn what_the_library_ends_django_does_not_know(site: &Site) {
    let key = site.log_in("alice");
    let mut session = site.session(&key);
    site.run(session.flush()).unwrap();
    assert_eq!(site.django.user(&key), None);
    assert_eq!(site.database.read(&key), None);
    let deletion = session.cookie().unwrap();
    let theirs = site.change("/logout/", &site.log_in("alice"));
    assert_eq!(deletion.to_str().unwrap(), theirs);
}

fn what_django_ends_the_library_never_brings_back(site: &Site) {
    let key = site.log_in("alice");
    let mut session = site.session(&key);
    let mut stale = site.session(&key);
    session.insert("cart", ["book"]).unwrap();
    site.change("/logout/", &key);

    assert_eq!(site.save(&mut session), Err(Error::SessionGone));
    assert_eq!(site.run(stale.cycle_key()), Err(Error::SessionGone));
    assert_eq!(site.database.read(&key), None);
    assert_eq!(session.cookie(), None);
    // What was changed is still there for a program that wants it elsewhere; a new look finds nobody.
    assert!(session.modified());
    site.run(session.reload()).unwrap();
    assert!(session.is_empty() && user(&session).is_none());
}

fn passwords_and_deactivation_count_at_the_next_load(site: &Site) {
    let key = site.log_in("bob");
    site.change("/user/active/?username=bob&active=false", &key);
    let mut session = site.session(&key);
    assert_eq!(user(&session), None);
    assert_eq!(session.key(), Some(key.as_str()), "Django keeps it too");
    site.change("/user/active/?username=bob&active=true", &key);
    site.run(session.reload()).unwrap();
    assert_eq!(user(&session).as_deref(), Some("2"));

    site.change("/user/password/?username=bob&password=bob", &random_key());
    site.run(session.reload()).unwrap();
    assert_eq!((user(&session), session.key()), (None, None));
    // Nothing was written by looking.
    assert!(site.database.read(&key).is_some());
    session.insert("cart", ["book"]).unwrap();
    assert_eq!(site.save(&mut session), Ok(true));
    assert_eq!(site.database.read(&key), None);
    let new = session.key().unwrap();
    assert_eq!(site.database.read(new), Some(json!({"cart": ["book"]})));
}

fn a_wrong_secret_key_is_an_error_and_costs_nothing(site: &Site) {
    let key = site.log_in("alice");
    let before = site.database.data(&key);
    let sessions = connect(&site.runtime, &site.database, "another key").unwrap();
    let mut session = sessions.get(Some(&key));
    let error = site.run(session.load()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Unreadable(_)), "{error}");
    assert!(error.to_string().contains("SECRET_KEY"), "{error}");
    assert!(site.run(session.flush()).is_err());
    assert_eq!(site.database.data(&key), before);
    assert_eq!(site.django.user(&key).as_deref(), Some("1"));
}
