//! Who answered, and from which moment: standbys, read-only servers, roles with defaults of their own, journals
//! and poolers never make an answer older than its question.

mod defaults;
mod pooler;
mod read_only;
mod relay;
mod replica;
mod sqlite;
mod standby;

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::Duration;

use crate::support::{
    Connection, Database, Gateway, PgBouncer, Served as _, Upstream,
    database::{Open, timestamp},
    gateway::Setup,
    http::Ask,
    reply,
};

/// An upstream that answers with the visitor's user id, or `nobody`, and stores what a POST asks it to.
fn tells_user() -> Upstream {
    Upstream::with(|seen| {
        let user = seen.user().unwrap_or_else(|| "nobody".to_owned());
        match seen.method.as_str() {
            "POST" => reply(200)
                .set(str::from_utf8(&seen.body).unwrap())
                .body(user),
            _ => reply(200).body(user),
        }
    })
}

/// How a gateway reaches its PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    /// Through a pooler that gives each transaction one of two connections.
    Pooled,
}

impl Way {
    /// A gateway to this database before an upstream, and the pooler between, which must live as long.
    fn to(self, site: &Database, app: &Upstream) -> (Setup, Option<PgBouncer>) {
        match self {
            Self::Direct => (Gateway::before(site, app), None),
            Self::Pooled => {
                let pooler = PgBouncer::before(site, 2);
                let setup = Gateway::before(&pooler.to(site), app);
                (setup.line("django", "pooler = 'transaction'"), Some(pooler))
            }
        }
    }
}

/// Somebody who logs out and in again by turns, by a connection to the database that stays open: as Django
/// does it, and nothing of the gateway's takes part.
struct Restless {
    key: String,
    out: String,
    back: String,
    admin: Open,
    http: Connection,
    ask: Ask,
}

impl Restless {
    fn new(site: &Database, gateway: &Gateway) -> Self {
        let key = site.login(serde_json::json!({}));
        let row = site.data(&key).unwrap();
        let expires = timestamp(Duration::days(1));
        Self {
            out: format!("DELETE FROM django_session WHERE session_key = '{key}'"),
            back: format!("INSERT INTO django_session VALUES ('{key}', '{row}', '{expires}')"),
            admin: site.open(),
            http: Connection::open(gateway.address()),
            ask: gateway.get("/").session(&key),
            key,
        }
    }

    /// One logout and one login; each counts at the very next request.
    #[track_caller]
    fn turn(&mut self, what: &str) {
        self.admin.execute(&self.out);
        assert_eq!(self.user(), "nobody", "{what}: a committed logout");
        self.admin.execute(&self.back);
        assert_eq!(self.user(), "1", "{what}: a committed login");
    }

    #[track_caller]
    fn user(&mut self) -> String {
        self.http.write(&self.ask.bytes()).unwrap();
        let answer = self.http.answer("GET");
        answer.is_upstreams(200).text()
    }
}

/// Tells the threads of a test to end, also where the test panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
