//! Keys of every kind, as sessions spell them and as columns hold them.

use serde_json::{Value, json};

use crate::{
    support::{Engine, Gateway, Served as _, Upstream},
    users::{add, before, people, session_of, sub},
};

on_each_engine!(
    an_integer_is_found_by_every_spelling_that_python_reads,
    a_uuid_is_found_by_every_spelling_that_python_reads,
    a_text_is_found_as_it_is,
    ids_that_no_column_holds_fail_nobody,
);

const UUID: &str = "5f0c1ce0-7f3a-4a8e-9d55-1d5cf14a3a54";

/// What no column holds, or what no text is.
fn hopeless() -> Vec<Value> {
    vec![
        json!(""),
        json!(" "),
        json!("abc"),
        json!("1.0"),
        json!("1e0"),
        json!("0x1"),
        json!("1; DROP TABLE people"),
        json!("1' OR '1'='1"),
        json!("a\0b"),
        json!("1\0"),
        json!("9223372036854775808"),
        json!("-9223372036854775809"),
        json!("9".repeat(5000)),
        json!("a".repeat(100_000)),
        json!("\u{feff}1"),
        json!(true),
        json!(1.0),
        json!(null),
        json!(["1"]),
        json!({"pk": 1}),
    ]
}

fn an_integer_is_found_by_every_spelling_that_python_reads(engine: Engine) {
    for (column, largest) in [
        ("smallint", i64::from(i16::MAX)),
        ("integer", i64::from(i32::MAX)),
        ("bigint", i64::MAX),
    ] {
        let database = people(engine, column);
        for id in ["1", "0", "-7", &largest.to_string()] {
            add(&database, id);
        }
        let app = Upstream::start();
        let gateway = before(&database, &app).start();
        let largest = largest.to_string();
        for (id, user) in [
            (json!("1"), "1"),
            (json!("+1"), "1"),
            (json!(" 1 "), "1"),
            (json!("\u{2003}1\n"), "1"),
            (json!("0001"), "1"),
            (json!("0_1"), "1"),
            (json!(1), "1"),
            (json!("-0"), "0"),
            (json!("-7"), "-7"),
            (json!(-7), "-7"),
            (json!(largest), &largest),
        ] {
            let key = session_of(&database, &id);
            assert_eq!(
                sub(&gateway, &app, &key).as_deref(),
                Some(user),
                "{column} {id}"
            );
        }
        let too_large = [json!("2"), json!("32768"), json!("2147483648")];
        let too_large = too_large.into_iter().filter(|id| *id != largest);
        for id in hopeless().into_iter().chain(too_large) {
            let key = session_of(&database, &id);
            assert_eq!(sub(&gateway, &app, &key), None, "{column} {id:.50}");
        }
    }
}

fn a_uuid_is_found_by_every_spelling_that_python_reads(engine: Engine) {
    let (column, stored) = uuid_column(engine);
    let database = people(engine, column);
    add(&database, &stored);
    let app = Upstream::start();
    let gateway = before(&database, &app).start();
    let digits = UUID.replace('-', "");
    for id in [
        UUID.to_owned(),
        UUID.to_uppercase(),
        digits.clone(),
        format!("{{{UUID}}}"),
        format!("{{{digits}}}"),
        format!("urn:uuid:{UUID}"),
    ] {
        let key = session_of(&database, &json!(id));
        assert_eq!(sub(&gateway, &app, &key).as_deref(), Some(UUID), "{id}");
    }
    let others = [
        json!(UUID.replace('5', "6")),
        json!(format!(" {UUID}")),
        json!(1),
    ];
    for id in hopeless().into_iter().chain(others) {
        let key = session_of(&database, &id);
        assert_eq!(sub(&gateway, &app, &key), None, "{id:.50}");
    }
}

fn a_text_is_found_as_it_is(engine: Engine) {
    let mut columns = vec!["varchar(150)", "text"];
    if engine == Engine::Postgres {
        columns.push("citext");
    }
    for column in columns {
        let database = people(engine, "varchar(150)");
        if column == "citext" {
            database.execute(
                "CREATE SCHEMA elsewhere; CREATE EXTENSION citext SCHEMA elsewhere;
                 ALTER TABLE people ALTER COLUMN id TYPE elsewhere.citext",
            );
        } else if engine == Engine::Postgres {
            database.execute(&format!("ALTER TABLE people ALTER COLUMN id TYPE {column}"));
        }
        let own = ["alice", "Jos\u{e9}", " b ", "1", "x' OR '1'='1", "42", ""];
        for id in own {
            add(&database, &format!("'{}'", id.replace('\'', "''")));
        }
        let app = Upstream::start();
        let gateway = before(&database, &app).start();
        for id in own {
            let key = session_of(&database, &json!(id));
            assert_eq!(sub(&gateway, &app, &key).as_deref(), Some(id), "{column}");
        }
        let number = session_of(&database, &json!(42));
        assert_eq!(sub(&gateway, &app, &number).as_deref(), Some("42"));
        // Also where the database finds somebody: whoever is meant is spelt like this.
        for id in [
            json!("ALICE"),
            json!("alice "),
            json!("Jose\u{301}"),
            json!("b"),
            json!("alice\0"),
            json!("01"),
            json!("a".repeat(256)),
            json!(true),
        ] {
            let key = session_of(&database, &id);
            assert_eq!(sub(&gateway, &app, &key), None, "{column} {id:.50}");
        }
    }
}

/// A hundred visitors at once over one connection, so that they share statements.
fn ids_that_no_column_holds_fail_nobody(engine: Engine) {
    let (uuid, stored) = uuid_column(engine);
    for (column, row, good, user) in [
        ("integer", "1", json!("1"), "1"),
        (uuid, stored.as_str(), json!(UUID), UUID),
        ("varchar(20)", "'1'", json!("1"), "1"),
    ] {
        let database = people(engine, column);
        add(&database, row);
        let mut visitors: Vec<(String, Value)> = hopeless()
            .into_iter()
            .chain([json!("2147483648"), json!("32768"), json!("\u{d7ff}")])
            .map(|id| (session_of(&database, &id), Value::Null))
            .collect();
        while visitors.len() < 100 {
            visitors.push((session_of(&database, &good), json!(user)));
        }
        let app = Upstream::start();
        let gateway = before(&database, &app)
            .line("django", "connections = 1")
            .start();
        for _ in 0..5 {
            all_at_once(&gateway, &visitors);
            let seen = app.take();
            assert_eq!(seen.len(), visitors.len());
            for seen in seen {
                let number: usize = seen.target[1..].parse().unwrap();
                let claims = seen.claims();
                let told = claims.get("sub").cloned().unwrap_or_default();
                assert_eq!(told, visitors[number].1, "{column}");
                assert!(claims["sid"].is_string(), "{claims}");
            }
        }
    }
}

/// Each visitor asks for the path with his number.
fn all_at_once(gateway: &Gateway, visitors: &[(String, Value)]) {
    let start = std::sync::Barrier::new(visitors.len());
    std::thread::scope(|scope| {
        for (number, (key, _)) in visitors.iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                let ask = gateway.get(&format!("/{number}")).session(key);
                start.wait();
                ask.send().is_upstreams(200);
            });
        }
    });
}

/// What Django makes of a UUIDField, and how this database holds [`UUID`] in it.
fn uuid_column(engine: Engine) -> (&'static str, String) {
    match engine {
        Engine::Postgres => ("uuid", format!("'{UUID}'")),
        _ => ("char(32)", format!("'{}'", UUID.replace('-', ""))),
    }
}
