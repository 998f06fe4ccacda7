//! The walk: what each package promises, in each framework.

use serde_json::{Value, json};

use super::{Framework, Scene};
use crate::support::Served as _;

#[test]
fn starlette_shares_the_session_with_django() {
    walk(Framework::Starlette, "starlette");
}

#[test]
fn fastapi_shares_the_session_with_django() {
    walk(Framework::FastApi, "fastapi");
}

#[test]
fn aiohttp_shares_the_session_with_django() {
    walk(Framework::Aiohttp, "aiohttp");
}

#[test]
fn flask_shares_the_session_with_django() {
    walk(Framework::Flask, "flask");
}

#[test]
fn node_shares_the_session_with_django() {
    walk(Framework::Node, "http");
}

#[test]
fn express_shares_the_session_with_django() {
    walk(Framework::Express, "express");
}

#[test]
fn fastify_shares_the_session_with_django() {
    walk(Framework::Fastify, "fastify");
}

#[test]
fn go_shares_the_session_with_django() {
    walk(Framework::Go, "net/http");
}

#[test]
fn axum_shares_the_session_with_django() {
    walk(Framework::Axum, "axum");
}

fn walk(framework: Framework, name: &str) {
    let scene = &Scene::start(framework);
    nobody_is_nobody(scene, name);
    who_logs_in_at_django_is_known(scene);
    what_is_assigned_django_reads(scene);
    what_changes_inside_a_value_is_stored(scene);
    only_what_changed_is_written(scene);
    changes_go_out_with_redirects_and_streams(scene);
    what_fails_stores_nothing(scene);
    a_condition_tells_of_somebody_elses_change(scene);
    a_new_key_keeps_the_data(scene);
    an_expiry_is_djangos(scene);
    a_flush_is_a_logout(scene);
}

fn nobody_is_nobody(scene: &Scene, name: &str) {
    let seen = scene.seen(None);
    let expected = json!({"framework": name, "user_id": null, "sid": null, "rev": null, "withheld": null, "session": {}});
    assert_eq!(seen, expected);
    // A first value makes a session.
    let answer = scene.gateway.post("/set/cart").body("[\"tea\"]").send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let key = answer.new_session().unwrap();
    assert_eq!(scene.django(&key)["cart"], json!(["tea"]));
    let answer = scene.gateway.post("/nothing").send();
    assert_eq!(answer.set_cookie(), None, "and reading makes none");
}

fn who_logs_in_at_django_is_known(scene: &Scene) {
    let key = scene.login();
    let seen = scene.seen(Some(&key));
    assert_eq!(seen["user_id"], "1");
    assert!(seen["sid"].is_string() && seen["rev"].is_string(), "{seen}");
    scene.gateway.post("/site/logout/").session(&key).send();
    assert_eq!(scene.seen(Some(&key))["user_id"], Value::Null);
}

fn what_is_assigned_django_reads(scene: &Scene) {
    let key = scene.login();
    let values = [
        json!([1, {"a": null}]),
        json!(null),
        json!("José 日本 \u{1F600} \"\\\u{7f}"),
        json!({"": [], "x": {"y": [1.5, true]}}),
        json!(""),
        json!(9_007_199_254_740_991_i64),
    ];
    for value in values {
        let answer = scene.done(&key, "/set/thing", &value);
        assert_eq!(answer.json()["session"]["thing"], value);
        assert_eq!(scene.django(&key)["thing"], value);
        assert_eq!(scene.seen(Some(&key))["session"]["thing"], value);
    }
    scene.done(&key, "/del/thing", &json!(null));
    assert!(scene.django(&key).get("thing").is_none());
    // One that is not there is fine.
    scene.post(&key, "/del/never", &json!(null)).send();
    assert_eq!(scene.seen(Some(&key))["session"], json!({}));
}

fn what_changes_inside_a_value_is_stored(scene: &Scene) {
    let key = scene.login();
    for (item, expected) in [("tea", json!(["tea"])), ("cup", json!(["tea", "cup"]))] {
        let answer = scene.done(&key, "/append/list", &json!(item));
        assert_eq!(answer.json()["session"]["list"], expected);
        assert_eq!(scene.django(&key)["list"], expected);
    }
}

fn only_what_changed_is_written(scene: &Scene) {
    let key = scene.login();
    scene.done(&key, "/set/mine", &json!(1));
    let before = scene.database.data(&key);
    let answer = scene.done(&key, "/nothing", &json!(null));
    assert_eq!(answer.set_cookie(), None);
    assert_eq!(scene.database.data(&key), before, "not a byte of the row");
    // A number that JavaScript cannot hold, and a key that somebody else writes at the same time, stay as they are.
    let big = "9007199254740993";
    scene.service_free_change(&key, big);
    scene.done(&key, "/set/mine", &json!(2));
    let text = scene.database.read(&key).unwrap().to_string();
    assert!(text.contains(big), "{text}");
}

fn changes_go_out_with_redirects_and_streams(scene: &Scene) {
    let key = scene.login();
    let answer = scene.post(&key, "/redirect/where", &json!("home")).send();
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(answer.field("location"), Some("/session"));
    assert_eq!(scene.django(&key)["where"], "home");

    let answer = scene.done(&key, "/stream/flow", &json!("on"));
    assert_eq!(answer.text(), "onetwothree");
    assert_eq!(scene.django(&key)["flow"], "on");
}

fn what_fails_stores_nothing(scene: &Scene) {
    let key = scene.login();
    scene.done(&key, "/set/k", &json!("old"));
    for path in ["/fail/k", "/large/k", "/mixed/k"] {
        let answer = scene.post(&key, path, &json!("new")).send();
        assert_eq!(answer.status, 500, "{path}");
        assert_eq!(
            answer.code(),
            None,
            "{path}: it is the service's own answer"
        );
        assert_eq!(scene.django(&key)["k"], "old", "{path}");
    }
    let answer = scene.done(&key, "/late/k", &json!("late"));
    assert_eq!(
        answer.text(),
        "start;refused",
        "a change that comes too late says so"
    );
    assert_eq!(scene.django(&key)["k"], "old");
}

fn a_condition_tells_of_somebody_elses_change(scene: &Scene) {
    let key = scene.login();
    for count in 1..=2 {
        scene.done(&key, "/guarded/count", &json!(null));
        assert_eq!(scene.django(&key)["count"], count);
    }
    let other = format!("http://{}/set/count", scene.gateway.address());
    let answer = scene
        .post(&key, "/guarded/count", &json!(null))
        .field("X-Test-Change-First", &other)
        .field("X-Test-Cookie", &format!("sessionid={key}"))
        .field("X-Test-Origin", &other[..other.len() - "/set/count".len()])
        .send();
    answer.is_error(409, "session-changed");
    assert_eq!(scene.django(&key)["count"], "other");
}

fn a_new_key_keeps_the_data(scene: &Scene) {
    let key = scene.login();
    scene.done(&key, "/set/cart", &json!(["tea"]));
    let new = scene
        .done(&key, "/cycle", &json!(null))
        .new_session()
        .unwrap();
    assert_ne!(new, key);
    assert_eq!(scene.django(&new)["cart"], json!(["tea"]));
    assert_eq!(scene.seen(Some(&new))["user_id"], "1");
    assert_eq!(scene.seen(Some(&key))["sid"], Value::Null);
}

fn an_expiry_is_djangos(scene: &Scene) {
    let key = scene.login();
    let cookie = |answer: crate::support::Answer| answer.set_cookie().unwrap().to_owned();
    assert!(cookie(scene.done(&key, "/expiry", &json!(600))).contains("Max-Age=600"));
    assert!(!cookie(scene.done(&key, "/expiry", &json!(0))).contains("Max-Age"));
    assert!(cookie(scene.done(&key, "/expiry", &json!(null))).contains("Max-Age=1209600"));
    // A touch of what was saved just now moves nothing.
    scene.done(&key, "/touch", &json!(null));
}

fn a_flush_is_a_logout(scene: &Scene) {
    let key = scene.login();
    scene.done(&key, "/flush", &json!(null));
    assert_eq!(scene.database.data(&key), None);
    assert_eq!(scene.seen(Some(&key))["user_id"], Value::Null);
}

impl Scene {
    /// Puts a number into the row that no double holds, as somebody else does.
    fn service_free_change(&self, key: &str, number: &str) {
        let mut session = self.database.read(key).unwrap();
        session["big"] = serde_json::from_str(number).unwrap();
        let payload = session
            .to_string()
            .replace(&session["big"].to_string(), number);
        let data = crate::support::rows::seal(crate::support::SECRET_KEY, payload.as_bytes());
        self.database.execute(&format!(
            "UPDATE django_session SET session_data = '{data}' WHERE session_key = '{key}'"
        ));
    }
}
