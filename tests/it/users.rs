//! Who the user is, what is told of him, and where he may go: over tables of all kinds, while they change, and
//! with real Django.

/// Each of these tests on each database.
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod sqlite { $(#[test] fn $test() { super::$test(crate::support::Engine::Sqlite) })+ }
        mod postgresql { $(#[test] fn $test() { super::$test(crate::support::Engine::Postgres) })+ }
        mod mariadb { $(#[test] fn $test() { super::$test(crate::support::Engine::MariaDb) })+ }
    };
}

mod access;
mod answers;
mod claims;
mod keys;
mod migrations;
mod models;
mod rounds;
mod tables;
mod vectors;

use serde_json::{Value, json};

use crate::support::{
    Database, Engine, Gateway, Served as _, Upstream,
    gateway::Setup,
    rows::{self, PASSWORD},
};

/// The user table of most tests here: everything but key and password may be NULL.
const PEOPLE: &str = "password varchar(128) NOT NULL, is_active bool NULL, is_staff bool NULL, \
                      is_superuser bool NULL, name varchar(150) NULL";

/// A site with the table `people`, where `id` is of this type.
fn people(engine: Engine, key: &str) -> Database {
    let database = Database::with_tables(engine);
    database.execute(&format!(
        "CREATE TABLE people (id {key} NOT NULL PRIMARY KEY, {PEOPLE})"
    ));
    database
}

/// Adds somebody who is active. The id is SQL.
fn add(database: &Database, id: &str) {
    database.execute(&format!(
        "INSERT INTO people (id, password, is_active) VALUES ({id}, '{PASSWORD}', true)"
    ));
}

/// A gateway for users in `people`, with one upstream for all paths.
fn before(database: &Database, app: &Upstream) -> Setup {
    Gateway::before(database, app).line("django.user", "table = 'people'")
}

/// A session of Django's for somebody whose id is spelt like this.
fn session_of(database: &Database, id: &Value) -> String {
    let mut session = rows::login("", json!({}));
    session["_auth_user_id"] = id.clone();
    database.session(&session)
}

/// What the upstream is told about the owner of a session key.
#[track_caller]
fn told(gateway: &Gateway, app: &Upstream, path: &str, key: &str) -> Value {
    app.take();
    gateway.get(path).session(key).send().is_upstreams(200);
    app.last().claims()
}

/// Who the upstream is told it is. Where it is nobody, the session is known all the same.
#[track_caller]
fn sub(gateway: &Gateway, app: &Upstream, key: &str) -> Option<String> {
    let claims = told(gateway, app, "/", key);
    assert!(claims["sid"].is_string(), "{claims}");
    assert!(claims.get("withheld").is_none(), "{claims}");
    claims["sub"].as_str().map(ToOwned::to_owned)
}

/// A name in quotes, as this database has them.
fn quoted(engine: Engine, name: &str) -> String {
    match engine {
        Engine::Postgres => format!("\"{name}\""),
        _ => format!("`{name}`"),
    }
}

/// The sentence with which the gateway ends, instead of starting.
#[track_caller]
fn end(setup: &Setup) -> String {
    let output = setup.fails();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}
