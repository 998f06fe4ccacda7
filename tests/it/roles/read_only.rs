//! A server that is set to read-only while connections are open, as before a planned change of the primary.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Way;
use crate::support::{Database, Gate, PostgresServer, Served as _, Upstream, eventually, reply};

/// How soon a server that was refused is asked again, and what a busy machine adds to it.
const SOON: Duration = Duration::from_secs(3);

const SETTING: &str = "default_transaction_read_only";

#[test]
fn a_server_that_is_set_to_read_only_by_reload_is_refused_until_it_is_not() {
    is_refused_while_read_only(Way::Direct);
}

#[test]
fn a_server_behind_a_pooler_that_is_set_to_read_only_by_reload_is_refused_until_it_is_not() {
    is_refused_while_read_only(Way::Pooled);
}

fn is_refused_while_read_only(way: Way) {
    let server = PostgresServer::start();
    let site = Database::in_server(&server.url());
    site.create_tables();
    let key = site.login(json!({"number": 0}));
    let app = Upstream::with(|seen| match seen.target.strip_prefix("/write/") {
        Some(number) => reply(200).set(&format!(r#"{{"set":{{"number":{number}}}}}"#)),
        None => reply(200),
    });
    // One connection of each kind, so that the open ones are those that are asked.
    let (setup, _pooler) = way.to(&site, &app);
    let gateway = setup
        .line("django", "connections = 1\nwrite_connections = 1")
        .start();
    let ask = |target: &str| gateway.get(target).session(&key).send();

    for number in 1..=3 {
        ask("/read").is_upstreams(200);
        ask(&format!("/write/{number}")).is_upstreams(200);
        let open = connections(&site);

        server.reload_with(SETTING, "on");
        app.take();
        // The first of these meets a connection that was good a moment ago.
        for _ in 0..20 {
            ask("/read").is_error(503, "session-store-unavailable");
            ask("/write/100").is_error(503, "session-store-unavailable");
        }
        assert!(app.take().is_empty(), "the upstream is not called");
        let health = gateway.health().get("/readyz").send().json();
        let cause = health["database"]["cause"].as_str().unwrap();
        assert!(cause.contains("read-only"), "{cause}");
        // The server's process may not have seen yet that it is.
        eventually("the connection that answered is closed", || {
            let now = connections(&site);
            let is_closed = !open.iter().all(|process| now.contains(process));
            (way == Way::Pooled || is_closed).then_some(())
        });

        server.reload_with(SETTING, "off");
        let began = Instant::now();
        eventually("served again", || {
            let answer = ask("/read");
            match answer.status {
                200 => Some(()),
                _ => {
                    answer.is_error(503, "session-store-unavailable");
                    None
                }
            }
        });
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(site.read(&key).unwrap()["number"], number);
    }
}

/// Whoever sets a primary to read-only wants its rows to stay as they are: another server may have them soon.
#[test]
fn a_change_under_way_is_not_stored_in_a_server_that_became_read_only() {
    for way in [Way::Direct, Way::Pooled] {
        is_not_stored(way);
    }
}

fn is_not_stored(way: Way) {
    let server = PostgresServer::start();
    let site = Database::in_server(&server.url());
    site.create_tables();
    let keys = [(); 2].map(|()| site.login(json!({"number": 0})));
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        if seen.target == "/held" {
            held.pass();
        }
        reply(200).set(r#"{"set":{"number":1}}"#)
    });
    let (setup, _pooler) = way.to(&site, &app);
    let gateway = setup.line("django", "write_connections = 1").start();
    // A connection for changes is open.
    let other = site.login(json!({}));
    gateway.get("/").session(&other).send().is_upstreams(200);

    let mut changes = keys
        .each_ref()
        .map(|key| gateway.get("/held").session(key).begin());
    let mut create = gateway.get("/held").begin();
    gate.wait_for(3);
    server.reload_with(SETTING, "on");
    let rows = site.keys();
    gate.open();
    for change in &mut changes {
        change.answer("GET").is_error(500, "session-not-saved");
    }
    create.answer("GET").is_error(500, "session-not-saved");
    server.reload_with(SETTING, "off");
    for key in &keys {
        assert_eq!(site.read(key).unwrap()["number"], 0);
    }
    assert_eq!(site.keys(), rows);
}

/// The server's processes behind the gateway's connections.
fn connections(site: &Database) -> Vec<String> {
    site.query(
        "SELECT pid::text FROM pg_stat_activity
         WHERE application_name = 'session-gateway' AND datname = current_database()",
    )
}
