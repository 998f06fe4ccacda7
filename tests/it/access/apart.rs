//! Sessions in parallel never get each other's data.

use std::sync::Barrier;

use serde_json::json;

use crate::support::{
    Answer, Connection, Database, Engine, Gateway, Served as _, Upstream, reply, rows,
};

const VISITORS: usize = 20;
const REQUESTS: usize = 50;

#[test]
fn visitors_in_parallel_never_get_each_others_data_on_sqlite() {
    never_get_each_others_data(Engine::Sqlite);
}

#[test]
fn visitors_in_parallel_never_get_each_others_data_on_postgresql() {
    never_get_each_others_data(Engine::Postgres);
}

#[test]
fn visitors_in_parallel_never_get_each_others_data_on_mariadb() {
    never_get_each_others_data(Engine::MariaDb);
}

/// One visitor, and what the upstream must be told of him each time.
struct Visitor {
    number: usize,
    key: String,
}

fn never_get_each_others_data(engine: Engine) {
    let database = Database::with_tables(engine);
    // What the upstream was told is the answer, so that token and answer are compared in one.
    let app = Upstream::with(|seen| {
        let claims = seen.claims();
        let told = json!([claims["sub"], claims["session"]["marker"], claims["sid"]]);
        let answer = reply(200).body(told.to_string());
        match seen.target.strip_prefix("/write/") {
            Some(number) => answer.set(&format!(r#"{{"set":{{"number":{number}}}}}"#)),
            None => answer,
        }
    });
    let gateway = Gateway::before(&database, &app)
        .line("django", "deadline = '20s'")
        .start();
    let visitors: Vec<_> = (1..=VISITORS)
        .map(|number| Visitor::new(&database, number))
        .collect();
    let together = Barrier::new(VISITORS);
    let mut sids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = visitors
            .iter()
            .map(|visitor| scope.spawn(|| visitor.visit(&gateway, &together)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    sids.sort();
    sids.dedup();
    assert_eq!(sids.len(), VISITORS, "each session has a sid of its own");
    for visitor in &visitors {
        let session = database.read(&visitor.key).unwrap();
        assert_eq!(session["marker"], visitor.marker());
        assert_eq!(session["number"], visitor.last_number());
    }
}

impl Visitor {
    fn new(database: &Database, number: usize) -> Self {
        if number > 1 {
            database.execute(&format!(
                "INSERT INTO auth_user (id, password, is_superuser, username, last_name, email, is_staff,
                    is_active, date_joined, first_name)
                 SELECT {number}, password, is_superuser, 'visitor-{number}', '', '', is_staff,
                    is_active, date_joined, '' FROM auth_user WHERE id = 1"
            ));
        }
        let mut visitor = Self {
            number,
            key: String::new(),
        };
        // Of different lengths, so that a mixed-up buffer would show.
        let session = json!({"marker": visitor.marker(), "pad": "x".repeat(number * 20)});
        visitor.key = database.session(&rows::login(&number.to_string(), session));
        visitor
    }

    fn marker(&self) -> String {
        format!("the marker of visitor {}", self.number)
    }

    /// The number that his last write stores: every fifth request writes.
    fn last_number(&self) -> usize {
        self.number * 1000 + REQUESTS - 5
    }

    /// Asks all his requests over one connection, and gives his sid.
    fn visit(&self, gateway: &Gateway, together: &Barrier) -> String {
        let mut connection = Connection::open(gateway.address());
        let mut sid = None;
        together.wait();
        for count in 0..REQUESTS {
            let writes = count % 5 == 0;
            let target = if writes {
                format!("/write/{}", self.number * 1000 + count)
            } else {
                format!("/read/{count}")
            };
            let ask = gateway.get(&target).session(&self.key);
            connection.write(&ask.bytes()).unwrap();
            let answer = connection.answer("GET");
            let told = self.is_his(&answer);
            assert_eq!(sid.get_or_insert(told.clone()), &told, "always the same");
            let cookie = answer.new_session();
            assert_eq!(cookie.as_ref(), writes.then_some(&self.key), "{answer:?}");
        }
        sid.unwrap()
    }

    fn is_his(&self, answer: &Answer) -> String {
        let told = answer.is_upstreams(200).json();
        assert_eq!(told[0], self.number.to_string());
        assert_eq!(told[1], self.marker());
        told[2].as_str().unwrap().to_owned()
    }
}
