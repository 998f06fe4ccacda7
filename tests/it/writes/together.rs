//! Changes that wait: of one row, and of many.

use serde_json::json;

use crate::support::{Connection, Database, Scene, Served as _, eventually, reply};

/// Each from what the one before it made of the row, and the row is written once for many.
#[test]
fn changes_that_wait_for_one_row_are_written_together() {
    const CLIENTS: usize = 60;
    let scene = Scene::over(Database::postgres(), "deadline = '30s'");
    scene.database.execute(
        "CREATE SEQUENCE updates;
         CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM nextval('updates');
            RETURN NEW;
         END $$;
         CREATE TRIGGER counts BEFORE UPDATE ON django_session FOR EACH ROW EXECUTE FUNCTION counts()",
    );
    scene.app.answers_with(|seen| {
        let name = seen.target.trim_start_matches('/');
        let change = match name {
            "k7" => json!({"if": "nonsense", "set": {name: 1}}),
            "k8" => json!({"set": {"_auth_user_id": 2}}),
            _ => json!({"set": {name: 1}, "del": ["cart"]}),
        };
        reply(200).set(&change.to_string())
    });
    let ask = |number: usize| {
        scene
            .gateway
            .get(&format!("/k{number}"))
            .session(&scene.key)
    };
    let clients: Vec<Connection> = scene.database.while_locked(&scene.key, || {
        let clients = (0..CLIENTS).map(|number| ask(number).begin()).collect();
        eventually("the upstream has answered all of them", || {
            (scene.app.seen().len() == CLIENTS).then_some(())
        });
        clients
    });
    for (number, mut client) in clients.into_iter().enumerate() {
        let answer = client.answer("GET");
        match number {
            7 => drop(answer.is_error(409, "session-changed")),
            8 => drop(answer.is_error(502, "bad-session-set")),
            _ => assert_eq!(
                answer.is_upstreams(200).new_session().as_ref(),
                Some(&scene.key)
            ),
        }
    }
    let stored = scene.read();
    for number in 0..CLIENTS {
        let is_stored = stored.get(format!("k{number}")).is_some();
        assert_eq!(is_stored, ![7, 8].contains(&number), "{number}");
    }
    assert_eq!(
        (stored.get("cart"), &stored["_auth_user_id"]),
        (None, &json!("1"))
    );
    let updates: usize = scene.database.query("SELECT last_value::text FROM updates")[0]
        .parse()
        .unwrap();
    assert!(updates < CLIENTS / 2, "{updates} updates");
}

/// One statement and one commit for many rows.
#[test]
fn changes_of_many_rows_that_wait_are_committed_together() {
    const OTHERS: usize = 40;
    let scene = Scene::over(
        Database::postgres(),
        "deadline = '30s'\nwrite_connections = 1",
    );
    scene.database.execute(
        "CREATE TABLE updates (key text, transaction bigint);
         CREATE FUNCTION notes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO updates VALUES (NEW.session_key, txid_current());
            RETURN NEW;
         END $$;
         CREATE TRIGGER notes BEFORE UPDATE ON django_session FOR EACH ROW EXECUTE FUNCTION notes()",
    );
    scene
        .app
        .answers_with(|seen| reply(200).set(&json!({"set": {"at": seen.target}}).to_string()));
    let keys: Vec<String> = (0..OTHERS)
        .map(|number| scene.database.login(json!({"number": number})))
        .collect();
    let ask = |key: &String| scene.gateway.get("/").session(key).begin();
    let (mut first, others) = scene.database.while_locked(&scene.key, || {
        let first = ask(&scene.key);
        let waits = "SELECT 1::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database() AND query LIKE '%FOR UPDATE'";
        eventually("the only connection waits for the row", || {
            (!scene.database.query(waits).is_empty()).then_some(())
        });
        let others: Vec<Connection> = keys.iter().map(ask).collect();
        eventually("the upstream has answered all of them", || {
            (scene.app.seen().len() == OTHERS + 1).then_some(())
        });
        (first, others)
    });
    first.answer("GET").is_upstreams(200);
    for (key, mut other) in keys.iter().zip(others) {
        let answer = other.answer("GET");
        assert_eq!(answer.is_upstreams(200).new_session().as_ref(), Some(key));
        assert_eq!(scene.database.read(key).unwrap()["at"], "/");
    }
    let count = |what: &str| -> usize {
        let sql = format!("SELECT count({what})::text FROM updates");
        scene.database.query(&sql)[0].parse().unwrap()
    };
    assert_eq!(count("DISTINCT key"), OTHERS + 1);
    assert_eq!(count("*"), OTHERS + 1);
    let transactions = count("DISTINCT transaction");
    assert!(transactions < OTHERS / 2, "{transactions} transactions");
}
