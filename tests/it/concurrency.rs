//! Many writers of one session: nothing is lost, and nothing is there twice.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    Database, Engine, Gate, Gateway, Served as _, Upstream, gateway::Setup, reply,
};

#[test]
fn patches_of_two_gateways_on_postgresql_all_arrive() {
    all_patches_arrive(Engine::Postgres, 2);
}

#[test]
fn patches_of_two_gateways_on_mariadb_all_arrive() {
    all_patches_arrive(Engine::MariaDb, 2);
}

#[test]
fn patches_of_one_gateway_on_sqlite_all_arrive() {
    all_patches_arrive(Engine::Sqlite, 1);
}

/// 64 visitors' tabs at once: the upstream has all requests in hand before it answers the first.
fn all_patches_arrive(engine: Engine, gateways: usize) {
    const PATCHES: usize = 64;
    let database = Database::with_tables(engine);
    let key = database.login(json!({"kept": [1.50, "é"]}));
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        held.pass();
        let name = seen.target.trim_start_matches('/');
        reply(200).set(&json!({"set": {name: name}}).to_string())
    });
    let setup = patient(Gateway::before(&database, &app));
    let gateways: Vec<Gateway> = (0..gateways).map(|_| setup.start()).collect();

    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..PATCHES)
            .map(|number| {
                let (gateway, key) = (&gateways[number % gateways.len()], &key);
                scope.spawn(move || gateway.get(&format!("/key{number}")).session(key).send())
            })
            .collect();
        gate.wait_for(PATCHES);
        gate.open();
        for client in clients {
            let answer = client.join().unwrap();
            assert_eq!(answer.is_upstreams(200).new_session().as_ref(), Some(&key));
        }
    });

    assert_eq!(database.keys(), [key.as_str()], "one row, one key");
    let session = database.read(&key).unwrap();
    assert_eq!(session["kept"], json!([1.50, "é"]));
    assert_eq!(session["_auth_user_id"], "1");
    for number in 0..PATCHES {
        assert_eq!(session[format!("key{number}")], format!("key{number}"));
    }
}

/// Read, add one, write with `if`, and again on 409: a counter that ends at the number of those who counted.
#[test]
fn a_condition_makes_read_modify_write_safe() {
    const CLIENTS: usize = 8;
    let database = Database::sqlite();
    let key = database.login(json!({"count": 0}));
    let app = Upstream::with(|seen| {
        let claims = seen.claims();
        let count = claims["session"]["count"].as_u64().unwrap();
        reply(200).set(&json!({"set": {"count": count + 1}, "if": claims["rev"]}).to_string())
    });
    let gateway = patient(Gateway::before(&database, &app)).start();
    let conflicts = Mutex::new(0);

    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let answer = gateway.get("/").session(&key).send();
                    if answer.status == 200 {
                        return;
                    }
                    answer.is_error(409, "session-changed");
                    *conflicts.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(
        database.read(&key).unwrap()["count"],
        CLIENTS,
        "{} conflicts",
        conflicts.lock().unwrap()
    );
}

/// One patch of many with the same revision is taken, the others are told.
#[test]
fn of_equal_conditions_one_wins() {
    const CLIENTS: usize = 16;
    let database = Database::sqlite();
    let key = database.login(json!({"winner": null}));
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        let rev = seen.claims()["rev"].clone();
        held.pass();
        reply(200).set(&json!({"set": {"winner": seen.target}, "if": rev}).to_string())
    });
    let gateway = patient(Gateway::before(&database, &app)).start();

    let winners = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (gateway, key, winners) = (&gateway, &key, Arc::clone(&winners));
            scope.spawn(move || {
                let target = format!("/{number}");
                let answer = gateway.get(&target).session(key).send();
                match answer.status {
                    200 => winners.lock().unwrap().push(Value::from(target)),
                    _ => drop(answer.is_error(409, "session-changed")),
                }
            });
        }
        gate.wait_for(CLIENTS);
        gate.open();
    });
    let winners = winners.lock().unwrap();
    assert_eq!(
        (winners.len(), &database.read(&key).unwrap()["winner"]),
        (1, &winners[0])
    );
}

/// Anonymous first writes at once: each visitor gets a session of his own.
#[test]
fn first_writes_never_share_a_session() {
    const VISITORS: usize = 32;
    let database = Database::sqlite();
    let app =
        Upstream::with(|seen| reply(200).set(&json!({"set": {"page": seen.target}}).to_string()));
    let gateway = patient(Gateway::before(&database, &app)).start();
    let mut keys: Vec<(String, String)> = std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..VISITORS)
            .map(|number| {
                let gateway = &gateway;
                scope.spawn(move || {
                    let target = format!("/{number}");
                    let answer = gateway.get(&target).send();
                    (answer.is_upstreams(200).new_session().unwrap(), target)
                })
            })
            .collect();
        visitors
            .into_iter()
            .map(|visitor| visitor.join().unwrap())
            .collect()
    });
    for (key, target) in &keys {
        assert_eq!(database.read(key), Some(json!({"page": target})));
    }
    keys.sort();
    keys.dedup_by(|a, b| a.0 == b.0);
    assert_eq!((keys.len(), database.keys().len()), (VISITORS, VISITORS));
}

/// These tests are about what is stored, on machines that may be slow.
fn patient(setup: Setup) -> Setup {
    setup.line("django", "deadline = '20s'")
}
