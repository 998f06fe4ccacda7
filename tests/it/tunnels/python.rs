//! The Python library `websockets` on both sides, and real Django, which logs its user out.

use std::{net::SocketAddr, process::Command};

use serde_json::json;

use crate::support::{Database, Django, Engine, Gateway, Process, Release, Served, from_tests_run};

struct Chat {
    address: SocketAddr,
    process: Process,
}

impl Served for Chat {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn chat(arguments: &[&str]) -> Process {
    Process::start(
        Command::new(from_tests_run("SG_TEST_CLIENTS"))
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/websockets/chat.py"
            ))
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    )
}

#[test]
fn logging_out_in_django_closes_the_users_websockets_on_sqlite() {
    logging_out_closes_websockets(Engine::Sqlite);
}

#[test]
fn logging_out_in_django_closes_the_users_websockets_on_postgresql() {
    logging_out_closes_websockets(Engine::Postgres);
}

fn logging_out_closes_websockets(engine: Engine) {
    let database = Database::empty(engine);
    let django = Django::start(Release::V52, &database);
    let process = chat(&["server"]);
    let server = Chat {
        address: process.address_after("listening on "),
        process,
    };
    let gateway = Gateway::over(&database)
        .line("django", "release = '5.2'")
        .upstream("app", &server)
        .django("site", &django)
        .route("path = '/'\nupstream = 'site'\nsession = 'pass'")
        .route("path = '/chat/'\nupstream = 'app'\nrequire = 'login'\nrecheck = '1s'")
        .start();
    let log_in = |name: &str| {
        let target = format!("/login/?username={name}&password={name}");
        gateway.post(&target).send().new_session().expect("a login")
    };
    let (alice, bob) = (log_in("alice"), log_in("bob"));
    let url = format!("ws://{}/chat/", gateway.address());
    let open = |key: &str| {
        let client = chat(&["client", &url, key, "hello"]);
        assert_eq!(client.wait_for("echo "), "hello");
        client
    };
    let (here, there, other) = (open(&alice), open(&alice), open(&bob));
    let answer = gateway.post("/logout/").session(&alice).send();
    assert_eq!(answer.json()["user"], json!(null));
    for client in [here, there] {
        assert_eq!(client.wait_for("closed "), "4401 session ended");
    }
    assert_eq!(
        server.process.wait_for("client closed "),
        "4401 session ended"
    );
    // The other one's is looked at just as often, and stays.
    let kept = "session_gateway_rechecks_total{result=\"kept\"} ";
    crate::support::eventually("bob is looked at three times", || {
        let text = gateway.health().get("/metrics").send().text();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix(kept)?.parse().ok());
        count.filter(|count: &u64| *count >= 3)
    });
    assert!(!other.output().contains("closed"), "{}", other.output());
}
