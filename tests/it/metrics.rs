//! `/metrics`: what happened is what is told.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{
    Database, Gate, Gateway, Scene, Served as _, database::random_key, eventually, reply,
};

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
    // But for what describes the process, and the connection that has looked at the database.
    let is_counted = |name: &str| {
        ![
            "process_",
            "build_",
            "database_",
            "last_reload_",
            "upstream_up",
        ]
        .iter()
        .any(|kind| name.starts_with(kind))
    };
    let counted = before
        .iter()
        .filter(|(name, value)| is_counted(name) && **value != 0.0);
    assert_eq!(counted.count(), 0, "{before:?}");

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
        ("requests_total{route=\"/\",class=\"2xx\"}", 9.0),
        ("requests_total{route=\"/\",class=\"4xx\"}", 1.0),
        ("requests_total{route=\"/\",class=\"5xx\"}", 1.0),
        ("request_duration_seconds_count{route=\"/\"}", 11.0),
        ("requests_in_flight", 0.0),
        ("gateway_errors_total{code=\"session-changed\"}", 1.0),
        (
            "gateway_errors_total{code=\"session-store-unavailable\"}",
            1.0,
        ),
        ("tokens_withheld_total{reason=\"unreadable\"}", 1.0),
        ("session_lookup_duration_seconds_count", 10.0),
        ("session_change_duration_seconds_count", 4.0),
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
        // The session's row, the logged out one and the one that cannot be read. What was just stored is known.
        ("memo_lookups_total{result=\"miss\"}", 3.0),
        ("memo_lookups_total{result=\"hit\"}", 5.0),
    ] {
        assert_eq!(counted.get(name), Some(&expected), "{name}");
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

#[test]
fn requests_are_counted_by_route_and_class_and_fields_by_the_reason_they_were_removed() {
    let scene = Scene::start();
    let get = |path: &str| scene.gateway.get(path);
    get("/cart/").send().is_upstreams(200);
    scene.app.answers(reply(404));
    get("/cart/x").send().is_upstreams(404);
    get("/cart/a%2fb").send().is_error(400, "bad-request");
    scene.app.answers(reply(200));
    let names = [
        "X-Session",
        "X_Session",
        "X.Session-Set",
        "X-Forwarded-For",
        "X_Forwarded_Proto",
        "X-Real-IP",
        "X-Mine",
    ];
    let ask = names
        .iter()
        .fold(get("/off/"), |ask, name| ask.field(name, "1"));
    ask.field("Connection", "x-mine, x-absent")
        .send()
        .is_upstreams(200);
    let ask = get("/off/").field("Cookie", "sessionid=a; sessionid=b");
    ask.send().is_upstreams(200);
    get("/off/")
        .field("Connection", "x-session")
        .send()
        .is_error(400, "bad-request");

    let counted = metrics(&scene.gateway);
    for (name, expected) in [
        ("requests_total{route=\"/cart/\",class=\"2xx\"}", 1.0),
        ("requests_total{route=\"/cart/\",class=\"4xx\"}", 2.0),
        ("requests_total{route=\"/off/\",class=\"2xx\"}", 2.0),
        // Refused before a route was looked for.
        ("requests_total{route=\"none\",class=\"4xx\"}", 1.0),
        ("gateway_errors_total{code=\"bad-request\"}", 2.0),
        ("scrubbed_fields_total{reason=\"reserved\"}", 1.0),
        ("scrubbed_fields_total{reason=\"alias\"}", 3.0),
        ("scrubbed_fields_total{reason=\"forwarding\"}", 2.0),
        ("scrubbed_fields_total{reason=\"nominated\"}", 1.0),
        ("duplicate_session_cookies_total", 1.0),
        ("tokens_withheld_total{reason=\"off\"}", 2.0),
        ("database_away", 0.0),
    ] {
        assert_eq!(counted.get(name), Some(&expected), "{name}");
    }
    assert!(counted["process_resident_memory_bytes"] > 1e6);
}

#[test]
fn a_client_that_leaves_is_counted_and_a_request_is_in_flight_until_its_answer_has_ended() {
    let scene = Scene::start();
    let gate = Gate::default();
    let closed = gate.clone();
    scene.app.answers_with(move |_| {
        closed.pass();
        reply(200)
    });
    let leaving = scene.gateway.get("/off/").begin();
    gate.wait_for(1);
    assert_eq!(metrics(&scene.gateway)["requests_in_flight"], 1.0);
    drop(leaving);
    eventually("the client was seen to leave", || {
        let counted = metrics(&scene.gateway);
        let left = counted["requests_total{route=\"/off/\",class=\"left\"}"];
        (left == 1.0 && counted["requests_in_flight"] == 0.0).then_some(())
    });
    assert_eq!(
        metrics(&scene.gateway)["request_duration_seconds_count{route=\"/off/\"}"],
        0.0
    );
    gate.open();
}
