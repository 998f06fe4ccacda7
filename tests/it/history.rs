//! Two gateways and a Django site write to one session at random; what everybody was told is written down and
//! checked afterwards ([`record`] says against what).

mod record;

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::RngExt as _;
use serde_json::{Value, json};

use self::record::{Event, History, Told};
use crate::support::{
    Database, Django, Engine, Gateway, Release, SECRET_KEY, Served, Upstream, reply,
};

/// How long they write at least.
fn duration() -> Duration {
    let seconds = std::env::var("SG_TEST_HISTORY_SECONDS");
    Duration::from_secs(seconds.map_or(60, |seconds| seconds.parse().unwrap()))
}

#[test]
fn on_postgresql_nothing_is_lost_resurrected_or_stale() {
    random_history(Engine::Postgres);
}

#[test]
fn on_mariadb_nothing_is_lost_resurrected_or_stale() {
    random_history(Engine::MariaDb);
}

#[test]
fn on_sqlite_nothing_is_lost_resurrected_or_stale() {
    random_history(Engine::Sqlite);
}

/// The session that everybody works on, and what stands in its place when it has ended.
struct Stage<'a> {
    database: &'a Database,
    current: Mutex<Current>,
    lines: AtomicU64,
    events: Mutex<Vec<Event>>,
    over: AtomicBool,
}

#[derive(Clone)]
struct Current {
    /// Which session it is, under whatever key.
    line: u64,
    key: String,
}

fn random_history(engine: Engine) {
    let database = Database::empty(engine);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("saves");
    std::fs::write(&log, "").unwrap();
    drop(Django::start(Release::V52, &database));
    let settings = json!({"SESSION_ENGINE": "shop.history", "HISTORY_FILE": log});
    let django = Django::serve(Release::V52, &database, SECRET_KEY, &settings);
    let app = Upstream::with(|seen| {
        let claims = seen.claims();
        let answer = reply(200).body(claims.to_string());
        match seen.field("x-test-set") {
            Some(change) => answer.set(change),
            None => answer,
        }
    });
    let setup = Gateway::before(&database, &app).line("django", "deadline = '20s'");
    let gateways = [setup.start(), setup.start()];
    let stage = Stage {
        database: &database,
        current: Mutex::new(Current {
            line: 0,
            key: database.session(&json!({"line": 0})),
        }),
        lines: AtomicU64::new(1),
        events: Mutex::default(),
        over: AtomicBool::new(false),
    };

    let begun = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (stage, gateway) = (&stage, &gateways[worker % 2]);
            scope.spawn(move || stage.visit_gateway(gateway, &format!("gateway{worker}")));
        }
        for worker in 0..2 {
            let (stage, django) = (&stage, &django);
            scope.spawn(move || stage.visit_django(django, &format!("django{worker}")));
        }
        while !stage.over.load(Ordering::SeqCst) {
            // On a busy machine longer, until there is enough to check.
            let so_far = begun.elapsed();
            if so_far >= duration() && (stage.is_enough(&log) || so_far >= duration() * 5) {
                break;
            }
            // What the upstream has seen is of no use here, and grows.
            app.take();
            std::thread::park_timeout(Duration::from_millis(100));
        }
        stage.over.store(true, Ordering::SeqCst);
    });

    let history = History {
        events: stage.events.into_inner().unwrap(),
        saves: record::saves(Path::new(&log)),
        rows: database.keys(),
    };
    let counts = history.check();
    println!("{engine:?}: {counts:?}");
    assert!(
        are_enough(counts.patches, counts.reads, counts.ended, counts.saves),
        "{counts:?}"
    );
    assert!(counts.explained > 0, "{counts:?}");
}

/// Whether a history of so many events is worth its check.
fn are_enough(patches: usize, reads: usize, ended: usize, saves: usize) -> bool {
    patches > 200 && reads > 200 && ended > 5 && saves > 50
}

impl Stage<'_> {
    /// Whether so much has happened so far.
    fn is_enough(&self, saves: &Path) -> bool {
        let events = self.events.lock().unwrap();
        let count = |is: fn(&Told) -> bool| events.iter().filter(|event| is(&event.told)).count();
        let patches = count(|told| matches!(told, Told::Stored(..)));
        let reads = count(|told| matches!(told, Told::Read { .. }));
        let ended = count(|told| matches!(told, Told::Ended));
        let saves = std::fs::read_to_string(saves).unwrap().lines().count();
        are_enough(patches, reads, ended, saves)
    }

    /// Patches, reads, cycles and flushes through a gateway.
    fn visit_gateway(&self, gateway: &Gateway, counter: &str) {
        let mut number = 0;
        while !self.over.load(Ordering::SeqCst) {
            let Current { line, key } = self.current.lock().unwrap().clone();
            let change = match rand::rng().random_range(0..1000) {
                0..700 => {
                    number += 1;
                    json!({"set": {counter: number}})
                }
                700..990 => Value::Null,
                990..997 => json!({"cycle": true}),
                _ => json!({"flush": true}),
            };
            let mut ask = gateway.post("/").session(&key);
            if !change.is_null() {
                ask = ask.field("X-Test-Set", &change.to_string());
            }
            let start = now();
            let answer = ask.send();
            let end = now();
            let event = |told| Event {
                line,
                key: key.clone(),
                start,
                end,
                told,
            };
            let mut events = Vec::new();
            let saved = answer.status == 200;
            if saved {
                let claims = answer.json();
                let known = claims["sid"].is_string();
                // Who is nobody makes a session of his own with a patch; it is not this one.
                let own = answer.new_session();
                let elsewhere = !known && change["set"].is_object();
                if let (true, Some(own)) = (elsewhere, &own) {
                    self.database.delete(own);
                }
                events.push(event(Told::Read {
                    known,
                    numbers: record::numbers(&claims["session"]),
                }));
                if change["flush"] == true && known {
                    events.push(event(Told::Ended));
                    self.begin_another(line);
                } else if change["cycle"] == true && known {
                    events.push(event(Told::Ended));
                    self.go_on_as(line, &key, own.unwrap());
                } else if change["set"].is_object() && known {
                    events.push(event(Told::Stored(counter.to_owned(), number)));
                }
            } else if change["set"].is_object() {
                // Each of these says that nothing is stored; that nobody can say is not one of them.
                let refused = matches!(
                    answer.code(),
                    Some("session-gone" | "session-busy" | "session-not-saved" | "session-changed")
                );
                assert!(
                    refused || answer.code() == Some("session-outcome-unknown"),
                    "{} {}",
                    answer.status,
                    answer.text()
                );
                if refused {
                    events.push(event(Told::Refused(counter.to_owned(), number)));
                }
            } else if change["cycle"] == true || change["flush"] == true {
                events.push(event(Told::MayHaveEnded));
            }
            self.events.lock().unwrap().extend(events);
        }
    }

    /// Saves, reads, cycles and flushes through Django, whose saves write all that they have loaded.
    fn visit_django(&self, django: &Django, counter: &str) {
        let mut number = 0;
        while !self.over.load(Ordering::SeqCst) {
            let Current { line, key } = self.current.lock().unwrap().clone();
            let what = rand::rng().random_range(0..1000);
            let target = match what {
                0..500 => {
                    number += 1;
                    format!("/set/?{counter}={number}")
                }
                500..990 => "/session/".to_owned(),
                990..997 => "/cycle/".to_owned(),
                _ => "/flush/".to_owned(),
            };
            let start = now();
            let answer = django.post(&target).session(&key).send();
            let end = now();
            let event = |told| Event {
                line,
                key: key.clone(),
                start,
                end,
                told,
            };
            let mut events = Vec::new();
            if answer.status == 200 {
                let state = answer.json();
                let own = answer
                    .new_session()
                    .filter(|own| own.len() == 32 && *own != key);
                // Django gives nobody a new session for what he sets.
                let known = state["session"]["line"].is_number();
                match what {
                    0..500 if known => events.push(event(Told::Stored(counter.to_owned(), number))),
                    500..990 => events.push(event(Told::Read {
                        known,
                        numbers: record::numbers(&state["session"]),
                    })),
                    990..997 if known => {
                        events.push(event(Told::Ended));
                        self.go_on_as(line, &key, own.clone().unwrap());
                    }
                    997.. => {
                        events.push(event(Told::Ended));
                        self.begin_another(line);
                    }
                    _ => {}
                }
                if let (false, Some(own)) = (known, own) {
                    self.database.delete(&own);
                }
            } else if what >= 990 {
                events.push(event(Told::MayHaveEnded));
            }
            self.events.lock().unwrap().extend(events);
        }
    }

    /// The session goes on under another key.
    fn go_on_as(&self, line: u64, old: &str, key: String) {
        let mut current = self.current.lock().unwrap();
        // Two can succeed in giving one session a new key, as Django does not lock it, and then there are two
        // sessions. This one goes on as the first that is heard of; what is written to it is not in the other.
        if current.line == line && current.key == old {
            *current = Current { line, key };
        }
    }

    /// The session has ended: everybody works on another one.
    fn begin_another(&self, line: u64) {
        let mut current = self.current.lock().unwrap();
        if current.line == line {
            let line = self.lines.fetch_add(1, Ordering::SeqCst);
            *current = Current {
                line,
                key: self.database.session(&json!({"line": line})),
            };
        }
    }
}

/// Seconds since the epoch, as Python's `time.time` has them.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}
