//! A primary dies, and its standby, which lags, takes over its address: it is not believed before it is promoted.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Ends, relay::Relay};
use crate::support::{
    Answer, Database, Gate, Gateway, PATIENCE, PostgresServer, Served as _, Upstream, eventually,
    reply,
};

/// The gateway's `[django] deadline`.
const DEADLINE: Duration = Duration::from_secs(2);

/// What a busy machine may add to anything.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn a_lagging_standby_at_the_primarys_address_is_never_believed() {
    let mut primary = PostgresServer::start();
    let site = Database::in_server(&primary.url());
    site.create_tables();
    let [left, waiting] = [(); 2].map(|()| site.login(json!({})));
    let visitors: Vec<Visitor> = (0..6).map(|_| Visitor::new(&site)).collect();
    let mut standby = primary.standby();
    let old = standby.database(site.name());

    // 418: the upstream was told that a visitor is nobody. The one who has left is nobody.
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        let status = match seen.user().as_deref() {
            Some("1") => 200,
            _ => 418,
        };
        match seen.target.strip_prefix("/write/") {
            Some("held") => {
                held.pass();
                reply(status).set(r#"{"set":{"held":true}}"#)
            }
            Some(number) => reply(status).set(&format!(r#"{{"set":{{"number":{number}}}}}"#)),
            None => reply(status),
        }
    });
    let relay = Relay::to(primary.port());
    let through_relay = format!("{}/{}", primary.url_at(relay.port()), site.name());
    let gateway = Gateway::before(&Database::of(&through_relay), &app).start();
    let ask = |key: &str| gateway.get("/read").session(key).send();
    ask(&left).is_upstreams(200);

    // The logout is committed and seen, and the standby has it but does not apply it.
    old.execute("SELECT pg_wal_replay_pause()");
    eventually("the standby applies nothing more", || {
        let state = old.query("SELECT pg_get_wal_replay_pause_state()");
        (state == ["paused"]).then_some(())
    });
    site.delete(&left);
    ask(&left).is_upstreams(418);
    let written = site.query("SELECT pg_current_wal_lsn()::text").remove(0);
    eventually("the standby has received the logout", || {
        let received = format!("SELECT (pg_last_wal_receive_lsn() >= '{written}')::text");
        (old.query(&received) == ["true"]).then_some(())
    });

    let [gone, promoting, promoted] = [(); 3].map(|()| Moment::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Ends(&done);
        for visitor in &visitors {
            scope.spawn(|| visitor.run(&gateway, &done));
        }
        // Who has left is nobody at any time, also while the standby becomes the primary.
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let answer = ask(&left);
                let refused = answer.code() == Some("session-store-unavailable");
                assert!(answer.status == 418 || refused, "{answer:?}");
            }
        });
        for visitor in &visitors {
            visitor.wait_for("served by the primary", 20, |asked| {
                asked.answer.status == 200
            });
        }
        // A change whose visitor was looked up on the primary and that meets the standby.
        let mut change = gateway.get("/write/held").session(&waiting).begin();
        gate.wait_for(1);

        primary.kill();
        relay.leads_to(standby.port());
        gone.is_now();
        for visitor in &visitors {
            visitor.wait_for("asked the standby", 20, |asked| asked.began > gone.get());
        }
        eventually("the gateway has met the standby", || {
            (relay.led(standby.port()) >= 3).then_some(())
        });
        eventually("the cause is told", || {
            let health = gateway.health().get("/readyz").send().json();
            let cause = health["database"]["cause"].as_str()?.to_owned();
            (cause.contains("read-only") && cause.contains(r#"replica = "accepted""#)).then_some(())
        });
        assert_eq!(
            old.query("SELECT pg_is_in_recovery()::text").remove(0),
            "true"
        );
        assert!(old.data(&left).is_some(), "the standby is stale");
        ask(&left).is_error(503, "session-store-unavailable");

        gate.open();
        let began = Instant::now();
        change.answer("GET").is_error(500, "session-not-saved");
        assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());

        promoting.is_now();
        standby.promote();
        promoted.is_now();
        for visitor in &visitors {
            visitor.wait_for("served by the new primary", 20, |asked| {
                asked.began > promoted.get() && asked.answer.status == 200
            });
        }
        drop(ends);
    });
    ask(&left).is_upstreams(418);

    let site = standby.database(site.name());
    assert_eq!(site.read(&waiting).unwrap().get("held"), None);
    let mut refused = 0;
    for visitor in &visitors {
        let asked = visitor.asked.lock().unwrap();
        for asked in asked.iter() {
            asked.is_right(gone.get(), promoting.get(), promoted.get());
            refused += usize::from(asked.answer.status == 503);
        }
        visitor.is_stored(&site, &asked, promoted.get());
    }
    assert!(refused >= visitors.len() * 10, "{refused} were refused");
}

/// A point in time that is set once.
#[derive(Default)]
struct Moment(Mutex<Option<Instant>>);

impl Moment {
    fn is_now(&self) {
        *self.0.lock().unwrap() = Some(Instant::now());
    }

    /// The far future until it is set.
    fn get(&self) -> Instant {
        let moment = *self.0.lock().unwrap();
        moment.unwrap_or_else(|| Instant::now() + PATIENCE)
    }
}

/// Somebody who reads and writes in turn.
struct Visitor {
    key: String,
    asked: Mutex<Vec<Asked>>,
}

/// One request of his.
struct Asked {
    /// The number that it writes, if it writes.
    number: Option<usize>,
    began: Instant,
    ended: Instant,
    answer: Answer,
}

impl Visitor {
    fn new(database: &Database) -> Self {
        Self {
            key: database.login(json!({"number": 0})),
            asked: Mutex::default(),
        }
    }

    fn run(&self, gateway: &Gateway, done: &AtomicBool) {
        for number in 1.. {
            let (write, target) = (number % 2 == 0, format!("/write/{number}"));
            let began = Instant::now();
            let target = if write { &target } else { "/read" };
            let answer = gateway.get(target).session(&self.key).send();
            self.asked.lock().unwrap().push(Asked {
                number: write.then_some(number),
                began,
                ended: Instant::now(),
                answer,
            });
            if done.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    #[track_caller]
    fn wait_for(&self, what: &str, count: usize, counts: impl Fn(&Asked) -> bool) {
        eventually(what, || {
            let asked = self.asked.lock().unwrap();
            (asked.iter().filter(|asked| counts(asked)).count() >= count).then_some(())
        });
    }

    /// The new primary has the last number that it acknowledged itself, or a later one whose outcome nobody
    /// could say. (What only the dead one had is lost: replication here does not wait for the standby.)
    fn is_stored(&self, site: &Database, asked: &[Asked], promoted: Instant) {
        let stored = site.read(&self.key).unwrap()["number"].as_u64().unwrap() as usize;
        let mut possible = Vec::new();
        for asked in asked.iter().filter(|asked| asked.began > promoted) {
            match (asked.number, asked.answer.status) {
                (Some(number), 200) => possible = vec![number],
                (Some(number), 500) => possible.push(number),
                _ => {}
            }
        }
        assert!(possible.contains(&stored), "{stored} of {possible:?}");
    }
}

impl Asked {
    /// The standby is a primary some time before `promoted`, when it has said so.
    fn is_right(&self, gone: Instant, promoting: Instant, promoted: Instant) {
        let (answer, took) = (&self.answer, self.ended - self.began);
        assert!(took < DEADLINE * 2 + SLACK, "{answer:?} took {took:?}");
        let by_standby = self.began > gone && self.ended < promoting;
        let again = self.began > promoted + Duration::from_millis(250) + SLACK;
        match (answer.status, answer.code()) {
            (200, None) => assert!(!by_standby, "the standby was believed"),
            (503, Some("session-store-unavailable")) => assert!(!again, "not served again"),
            (500, Some("session-not-saved" | "session-outcome-unknown")) => {
                assert!(self.number.is_some() && !again, "{answer:?}");
            }
            _ => panic!("{answer:?}"),
        }
    }
}
