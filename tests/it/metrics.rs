//! `/metrics`: what happened is what is told.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{Database, Gateway, Scene, Served as _, database::random_key, reply};

/// The numbers that a gateway tells, by what stands before them on their lines, without `session_gateway_`.
pub fn metrics(gateway: &Gateway) -> BTreeMap<String, f64> {
    let answer = gateway.health().get("/metrics").send();
    assert_eq!(answer.status, 200);
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let number = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a number");
        let name = name.strip_prefix("session_gateway_").expect("our prefix");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(number).collect()
}

#[test]
fn what_happened_is_counted() {
    let scene = Scene::over(Database::sqlite(), "");
    let before = metrics(&scene.gateway);
    assert!(before.values().all(|value| *value == 0.0), "{before:?}");

    // Known, by the memo from the second time on, and changed once.
    scene.get().is_upstreams(200);
    scene.get().is_upstreams(200);
    let get = |key: &str| scene.gateway.get("/").session(key).send();
    scene.app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    get(&scene.key).is_upstreams(200);
    // There is nothing to set any more, and a condition that does not hold.
    get(&scene.key).is_upstreams(200);
    scene
        .app
        .answers(reply(200).set(r#"{"set":{"a":2},"if":"AAAAAAAAAAAAAAAA"}"#));
    get(&scene.key).is_error(409, "session-changed");
    // Nobody, who gets no session.
    scene.app.answers(reply(200));
    get(&random_key()).is_upstreams(200);
    // A login that fits no more, and a row that cannot be read.
    let mut login = crate::support::rows::login("1", json!({}));
    login["_auth_user_hash"] = json!("other");
    get(&scene.database.session(&login)).is_upstreams(200);
    let forged = scene
        .database
        .raw_session("not:signed:here", chrono::Duration::days(1));
    get(&forged).is_upstreams(200);
    // No cookie, nothing to look up.
    scene.gateway.get("/").send().is_upstreams(200);
    scene.app.answers(reply(200).set(r#"{"flush":true}"#));
    get(&scene.key).is_upstreams(200);
    // And no database.
    std::fs::remove_file(scene.database.file()).unwrap();
    get(&scene.key).is_error(503, "session-store-unavailable");

    let counted = metrics(&scene.gateway);
    for (name, expected) in [
        ("session_lookups_total{result=\"known\"}", 6.0),
        ("session_lookups_total{result=\"missing\"}", 1.0),
        ("session_lookups_total{result=\"logged_out\"}", 1.0),
        ("session_lookups_total{result=\"unverifiable\"}", 1.0),
        ("session_lookups_total{result=\"unavailable\"}", 1.0),
        ("session_lookups_total{result=\"overloaded\"}", 0.0),
        ("session_changes_total{outcome=\"saved\"}", 1.0),
        ("session_changes_total{outcome=\"nothing\"}", 1.0),
        ("session_changes_total{outcome=\"changed\"}", 1.0),
        ("session_changes_total{outcome=\"deleted\"}", 1.0),
        ("session_changes_total{outcome=\"not_saved\"}", 0.0),
        // Two rows of the session, the logged out one and the one that cannot be read.
        ("memo_lookups_total{result=\"miss\"}", 4.0),
        ("memo_lookups_total{result=\"hit\"}", 4.0),
    ] {
        assert_eq!(counted.get(name), Some(&expected), "{name}: {counted:?}");
    }
    assert!(counted["memo_entries"] >= 1.0 && counted["memo_bytes"] >= 500.0);
    let batches = counted["batch_questions_count"];
    assert!(batches >= 9.0 && counted["batch_questions_sum"] >= batches + 4.0);
    assert_eq!(counted["batch_questions_bucket{le=\"+Inf\"}"], batches);
}

#[test]
fn metrics_are_text_for_prometheus_and_never_stored() {
    let scene = Scene::start();
    let answer = scene.gateway.health().get("/metrics").send();
    assert_eq!(
        answer.field("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert!(answer.text().ends_with("# EOF\n"));
    assert!(!answer.text().contains(&scene.key));
    // On the health address only.
    scene.gateway.get("/metrics").send().is_upstreams(200);
    assert_eq!(scene.app.last().target, "/metrics");
}
