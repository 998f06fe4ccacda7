//! `replica = "accepted"`: answers of read-only servers count where the configuration says so, and only there.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Way, defaults::Role, tells_user};
use crate::support::{
    Answer, Database, Gateway, MariaDbServer, PostgresServer, Served as _, eventually,
    gateway::Setup,
};

/// Whether a change is refused at once, and not after trying again until the deadline.
const AT_ONCE: Duration = Duration::from_secs(10);

#[test]
fn an_accepted_standby_answers_late_and_stores_nothing() {
    answers_late_and_stores_nothing(Way::Direct);
}

#[test]
fn an_accepted_standby_behind_a_pooler_answers_late_and_stores_nothing() {
    answers_late_and_stores_nothing(Way::Pooled);
}

fn answers_late_and_stores_nothing(way: Way) {
    let primary = PostgresServer::start();
    let site = Database::in_server(&primary.url());
    site.create_tables();
    let key = site.login(json!({"kept": 1}));
    let standby = primary.standby();
    let replica = standby.database(site.name());
    let app = tells_user();
    let (setup, _pooler) = way.to(&replica, &app);
    let setup = setup.line("django", "deadline = '20s'");
    names_the_key(&setup.start(), &key);

    let gateway = accepting(setup).start();
    assert_eq!(gateway.health().get("/readyz").send().status, 200);
    let user = || {
        gateway
            .get("/")
            .session(&key)
            .send()
            .is_upstreams(200)
            .text()
    };
    for _ in 0..4 {
        assert_eq!(user(), "1");
        for ask in [gateway.post("/").session(&key), gateway.post("/")] {
            let began = Instant::now();
            let answer = ask.body(r#"{"set":{"lost":1}}"#).send();
            answer.is_error(500, "session-not-saved");
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        }
    }
    assert!(gateway.log().contains("is read-only"), "{}", gateway.log());
    assert_eq!(
        (site.keys().len(), &site.read(&key).unwrap()["kept"]),
        (1, &json!(1))
    );

    // What was accepted: a logout counts when the standby has applied it.
    replica.execute("SELECT pg_wal_replay_pause()");
    site.delete(&key);
    assert_eq!(user(), "1");
    replica.execute("SELECT pg_wal_replay_resume()");
    eventually("the logout has arrived", || {
        (user() == "nobody").then_some(())
    });
}

#[test]
fn a_role_whose_transactions_are_read_only_is_believed_where_that_is_accepted() {
    let site = Database::postgres();
    let settings = [
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
    ];
    let role = Role::new(&site, "accepted", &settings);
    let key = site.login(json!({}));
    let app = tells_user();
    names_the_key(&Gateway::before(&role.site, &app).start(), &key);

    let gateway = accepting(Gateway::before(&role.site, &app)).start();
    // A transaction that such a role's own would wait for.
    let mut other = site.open();
    other.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE auth_user SET is_staff = is_staff");
    for number in 0..5 {
        let change = json!({"set": {"number": number}}).to_string();
        let answer = gateway.post("/").session(&key).body(change).send();
        assert_eq!(answer.is_upstreams(200).text(), "1");
        assert_eq!(site.read(&key).unwrap()["number"], number);
    }
    other.execute("ROLLBACK");
}

#[test]
fn an_accepted_read_only_mariadb_answers_and_stores_nothing() {
    let server = MariaDbServer::start(&[]);
    let site = Database::in_server(&server.url());
    site.create_tables();
    let key = site.login(json!({"kept": 1}));
    server.as_root("SET GLOBAL read_only = 1");
    let app = tells_user();
    names_the_key(&Gateway::before(&site, &app).start(), &key);

    let gateway = accepting(Gateway::before(&site, &app)).start();
    for _ in 0..4 {
        let answer = gateway.get("/").session(&key).send();
        assert_eq!(answer.is_upstreams(200).text(), "1");
        for ask in [gateway.post("/").session(&key), gateway.post("/")] {
            let answer = ask.body(r#"{"set":{"kept":2}}"#).send();
            answer.is_error(500, "session-not-saved");
        }
    }
    assert_eq!(
        (site.keys().len(), &site.read(&key).unwrap()["kept"]),
        (1, &json!(1))
    );
}

/// Without the key nobody is served, and it is said what would change that.
#[track_caller]
fn names_the_key(gateway: &Gateway, key: &str) {
    let refused = |answer: Answer| {
        answer.is_error(503, "session-store-unavailable");
    };
    refused(gateway.get("/").session(key).send());
    refused(
        gateway
            .post("/")
            .session(key)
            .body(r#"{"set":{"a":1}}"#)
            .send(),
    );
    let ready = gateway.health().get("/readyz").send();
    let cause = ready.json()["database"]["cause"].to_string();
    assert_eq!(
        ready.status, 503,
        "never spoken to a server that it believes"
    );
    assert!(
        cause.contains(r#"replica = \"accepted\" in [django]"#),
        "{cause}"
    );
}

fn accepting(setup: Setup) -> Setup {
    setup.line("django", "replica = 'accepted'")
}
