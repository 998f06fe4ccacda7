//! The vectors of `get_user`, through a running gateway: rows that thirteen releases of Django wrote, and what
//! those releases made of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    support::{Engine, Gateway, Served as _, Upstream},
    users::{before, people},
};

on_each_engine!(users_are_who_django_says);

const FILE: &str = include_str!("../../vectors/django.json");

const BACKENDS: &str = "backends = ['django.contrib.auth.backends.ModelBackend', \
                        'django.contrib.auth.backends.AllowAllUsersModelBackend']";

fn users_are_who_django_says(engine: Engine) {
    let mut releases: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let lines = FILE
        .lines()
        .filter(|line| line.contains("\"kind\": \"get_user\""));
    for line in lines {
        let vector: Value = serde_json::from_str(line.trim_end_matches(',')).unwrap();
        let version = vector["django_version"].as_str().unwrap();
        let release = version.rsplit_once('.').unwrap().0;
        releases.entry(release.to_owned()).or_default().push(vector);
    }
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for (release, vectors) in &releases {
        let database = people(engine, "bigint");
        let app = Upstream::start();
        let gateway = before(&database, &app)
            .line("django", &format!("release = '{release}'"))
            .line("django", BACKENDS)
            .line("django", "secret_key_fallbacks = [{ env = 'FALLBACK' }]")
            .secret_key(vectors[0]["secret_key"].as_str().unwrap())
            .env("FALLBACK", vectors[0]["fallbacks"][0].as_str().unwrap())
            .start();
        for vector in vectors {
            assert_eq!(vector["secret_key"], vectors[0]["secret_key"]);
            assert_eq!(vector["fallbacks"], vectors[0]["fallbacks"]);
            let claims = claims(&database, &gateway, &app, vector);
            let result = &vector["result"];
            let what = format!("{} {}: {claims}", vector["id"], vector["note"]);
            let outcome = if result["authenticated"] == true {
                assert_eq!(claims["sub"], vector["user"]["pk"].to_string(), "{what}");
                "logged in"
            } else if result["old_row_deleted"] == true {
                assert!(claims.get("sid").is_none(), "{what}");
                assert_eq!(claims["session"], json!({}), "{what}");
                "flushed"
            } else {
                assert!(claims["sid"].is_string(), "{what}");
                assert!(claims.get("sub").is_none(), "{what}");
                assert!(claims["session"].is_object(), "{what}");
                "anonymous"
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    assert_eq!(releases.len(), 13);
    let total: usize = outcomes.values().sum();
    assert!(
        total == 145 && outcomes.values().all(|count| *count > 30),
        "{outcomes:?}"
    );
}

/// What the upstream is told over this vector's user and row.
fn claims(
    database: &crate::support::Database,
    gateway: &Gateway,
    app: &Upstream,
    vector: &Value,
) -> Value {
    database.execute("DELETE FROM people");
    let user = &vector["user"];
    if let Some(key) = user["pk"].as_i64() {
        let password = user["password"].as_str().unwrap();
        let is_active = user["is_active"] != false;
        database.execute(&format!(
            "INSERT INTO people (id, password, is_active) VALUES ({key}, '{password}', {is_active})"
        ));
    }
    let row = vector["encoded"].as_str().unwrap();
    let key = database.raw_session(row, chrono::Duration::days(1));
    gateway.get("/").session(&key).send().is_upstreams(200);
    app.last().claims()
}
