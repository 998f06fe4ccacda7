//! The database is killed under load and started again: nobody is taken for anonymous, no cookie is deleted,
//! no stored change is lost, and a second later all is as before.

use std::{
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    Answer, Database, Gateway, MariaDbServer, PATIENCE, PostgresServer, Served as _, Upstream,
    eventually, reply,
};

/// The gateway's `[django] deadline`.
const DEADLINE: Duration = Duration::from_secs(2);

/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(2);

/// How soon after an outage all is as before.
const AGAIN: Duration = Duration::from_secs(1);

/// A database server of this test's own, because it is killed.
trait Server {
    fn url(&self) -> String;
    fn kill(&mut self);
    fn serve(&mut self);
}

impl Server for PostgresServer {
    fn url(&self) -> String {
        self.url()
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn serve(&mut self) {
        self.serve();
    }
}

impl Server for MariaDbServer {
    fn url(&self) -> String {
        self.url()
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn serve(&mut self) {
        self.serve();
    }
}

#[test]
fn store_down_is_never_anonymous_on_postgresql() {
    store_down_is_never_anonymous(PostgresServer::start());
}

#[test]
fn store_down_is_never_anonymous_on_mariadb() {
    store_down_is_never_anonymous(MariaDbServer::start(&[]));
}

fn store_down_is_never_anonymous(mut server: impl Server) {
    let database = Database::in_server(&server.url());
    database.create_tables();
    let app = Upstream::with(|seen| match seen.target.strip_prefix("/write/") {
        _ if seen.target.starts_with("/off/") => reply(200),
        _ if seen.user().as_deref() != Some("1") => reply(418),
        Some(number) => reply(200).set(&format!(r#"{{"set":{{"number":{number}}}}}"#)),
        None => reply(200),
    });
    let gateway = Gateway::before(&database, &app)
        .line("django", "deadline = '2s'")
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
        .start();
    assert_eq!(gateway.health().get("/readyz").send().status, 200);

    let clients: Vec<Client> = (0..8)
        .map(|number| Client::new(&database, number))
        .collect();
    let [gone, back] = [OnceLock::new(), OnceLock::new()];
    let mut started_again = None;
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| client.run(&gateway, &back));
        }
        for client in &clients {
            client.wait_for("requests before", |asked| asked.answer.status == 200, 20);
        }
        server.kill();
        gone.set(Instant::now()).unwrap();
        for client in &clients {
            client.wait_for(
                "requests without a database",
                |asked| asked.began > *gone.get().unwrap(),
                20,
            );
        }
        gateway
            .get("/off/")
            .session(&clients[0].key)
            .send()
            .is_upstreams(200);
        assert_eq!(
            gateway.health().get("/readyz").send().status,
            200,
            "ready, whatever the database does"
        );
        assert_eq!(gateway.health().get("/healthz").send().status, 200);

        started_again = Some(Instant::now());
        server.serve();
        eventually("the database is back", || database.answers().then_some(()));
        back.set(Instant::now()).unwrap();
    });

    let outage = Outage {
        gone: *gone.get().unwrap(),
        started_again: started_again.unwrap(),
        back: *back.get().unwrap(),
    };
    let mut unserved = 0;
    for client in &clients {
        let asked = client.asked.lock().unwrap();
        for asked in asked.iter() {
            asked.is_right(&outage);
            unserved += usize::from(asked.answer.code() == Some("session-store-unavailable"));
        }
        client.nothing_is_lost(&database, &asked);
    }
    assert!(unserved >= 8 * 10, "{unserved} requests met no database");
}

#[test]
fn edge_33_a_gateway_that_starts_without_postgresql_recovers_by_itself() {
    a_gateway_that_starts_without_its_database_recovers_by_itself(PostgresServer::start());
}

#[test]
fn edge_33_a_gateway_that_starts_without_mariadb_recovers_by_itself() {
    a_gateway_that_starts_without_its_database_recovers_by_itself(MariaDbServer::start(&[]));
}

fn a_gateway_that_starts_without_its_database_recovers_by_itself(mut server: impl Server) {
    let database = Database::in_server(&server.url());
    database.create_tables();
    let key = database.login(json!({}));
    server.kill();

    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
        .start();
    let began = Instant::now();
    let answer = gateway.get("/").session(&key).send();
    answer.is_error(503, "session-store-unavailable");
    assert!(answer.field("retry-after").is_some() && answer.set_cookie().is_none());
    assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());
    assert!(app.take().is_empty(), "the upstream is not called");
    gateway.get("/off/").session(&key).send().is_upstreams(200);
    assert_eq!(gateway.health().get("/healthz").send().status, 200);
    assert_eq!(
        gateway.health().get("/readyz").send().status,
        503,
        "not ready before the first contact"
    );

    server.serve();
    eventually("the database is back", || database.answers().then_some(()));
    let back = Instant::now();
    eventually("the gateway serves again", || {
        (gateway.get("/").session(&key).send().status == 200).then_some(())
    });
    assert!(back.elapsed() < AGAIN + SLACK, "{:?}", back.elapsed());
    assert_eq!(app.last().user().as_deref(), Some("1"));
    eventually("ready", || {
        (gateway.health().get("/readyz").send().status == 200).then_some(())
    });
}

/// The moments that say what a request may meet.
struct Outage {
    /// The last process of the server had ended.
    gone: Instant,
    started_again: Instant,
    /// The test itself had a connection.
    back: Instant,
}

/// One visitor, who reads and writes in turn.
struct Client {
    key: String,
    asked: Mutex<Vec<Asked>>,
}

/// One request of his.
struct Asked {
    /// The number that it writes, if it writes.
    number: Option<usize>,
    began: Instant,
    took: Duration,
    answer: Answer,
}

impl Client {
    fn new(database: &Database, number: usize) -> Self {
        Self {
            key: database.login(json!({"client": number})),
            asked: Mutex::default(),
        }
    }

    /// Asks until everything has been well for a while; never for ever, so that a failed test ends.
    fn run(&self, gateway: &Gateway, back: &OnceLock<Instant>) {
        let (started, mut served_again) = (Instant::now(), 0);
        for number in 1.. {
            let (write, target) = (number % 2 == 0, format!("/write/{number}"));
            let began = Instant::now();
            let target = if write { &target } else { "/read" };
            let answer = gateway.get(target).session(&self.key).send();
            let asked = Asked {
                number: write.then_some(number),
                began,
                took: began.elapsed(),
                answer,
            };
            if back.get().is_some_and(|back| began > *back + AGAIN + SLACK) {
                served_again += 1;
            }
            self.asked.lock().unwrap().push(asked);
            if served_again == 20 || started.elapsed() > PATIENCE * 2 {
                return;
            }
        }
    }

    fn wait_for(&self, what: &str, counts: impl Fn(&Asked) -> bool, count: usize) {
        eventually(what, || {
            (self
                .asked
                .lock()
                .unwrap()
                .iter()
                .filter(|asked| counts(asked))
                .count()
                >= count)
                .then_some(())
        });
    }

    /// What the row holds is the last number that was acknowledged, or a later one whose outcome nobody
    /// could say.
    fn nothing_is_lost(&self, database: &Database, asked: &[Asked]) {
        let session = database
            .read(&self.key)
            .expect("the session is still there");
        let stored = session["number"].as_u64().unwrap() as usize;
        let mut possible = vec![0];
        for asked in asked {
            match (asked.number, asked.answer.status, asked.answer.code()) {
                (Some(number), 200, _) => possible = vec![number],
                (Some(number), 500, Some("session-outcome-unknown")) => possible.push(number),
                _ => {}
            }
        }
        assert!(
            possible.contains(&stored),
            "stored {stored}, possible are {possible:?}"
        );
        assert_eq!(session["_auth_user_id"], "1");
    }
}

impl Asked {
    fn is_right(&self, outage: &Outage) {
        let answer = &self.answer;
        assert_ne!(
            answer.status, 418,
            "the upstream was told that the visitor is nobody"
        );
        assert!(
            self.took < DEADLINE * 2 + SLACK,
            "{answer:?} took {:?}",
            self.took
        );
        assert!(
            !answer
                .set_cookie()
                .is_some_and(|cookie| cookie.contains("Max-Age=0")),
            "a cookie was deleted"
        );

        let again = self.began > outage.back + AGAIN + SLACK;
        let away = self.began > outage.gone && self.began + self.took < outage.started_again;
        match (answer.status, answer.code()) {
            (200, None) => assert!(!away, "served without a database"),
            _ if again => panic!(
                "not served again: {answer:?}, {:?} after",
                self.began - outage.back
            ),
            (503, Some("session-store-unavailable")) => {
                assert!(answer.field("retry-after").is_some(), "{answer:?}");
                assert!(self.took < DEADLINE + SLACK, "{:?}", self.took);
            }
            (500, Some("session-not-saved" | "session-outcome-unknown")) => {
                assert!(!away && self.number.is_some(), "{answer:?}");
                assert_eq!(answer.field("retry-after"), None);
            }
            _ => panic!("{answer:?}"),
        }
    }
}
