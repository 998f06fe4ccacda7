//! Rows that no Django has written, rows that somebody else holds, and a table that is altered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{
    Ask, Database, Engine, Gateway, Served as _, Upstream, database::random_key, gateway::Setup,
    reply,
};

#[test]
fn a_row_without_an_end_in_postgresql_is_unreadable_and_harms_no_other() {
    let database = Database::postgres();
    let rows: Vec<_> = [
        "infinity",
        "294276-12-31 00:00:00+00",
        "9999-12-31 23:59:59+00",
    ]
    .map(|date| {
        let key = database.login(json!({}));
        database.execute(&format!(
            "UPDATE django_session SET expire_date = '{date}' WHERE session_key = '{key}'"
        ));
        (date, key)
    })
    .into();
    Site::over(database).harmed_only_are(&rows);
}

#[test]
fn a_row_that_is_not_text_in_sqlite_is_unreadable_and_harms_no_other() {
    let database = Database::sqlite();
    let date = "2999-01-01 00:00:00";
    let rows: Vec<_> = [
        ("a BLOB", "x'fffe00'", format!("'{date}'")),
        (
            "invalid UTF-8",
            "CAST(x'fffe41' AS TEXT)",
            format!("'{date}'"),
        ),
        ("a NUL", "CAST(x'610062' AS TEXT)", format!("'{date}'")),
        ("a date in words", "'a:b:c'", "'infinity'".to_owned()),
        ("a date as a BLOB", "'a:b:c'", "x'fffe'".to_owned()),
        (
            "a date that is not UTF-8",
            "'a:b:c'",
            "CAST(x'32fffe' AS TEXT)".to_owned(),
        ),
    ]
    .map(|(what, data, date)| {
        let key = random_key();
        database.execute(&format!(
            "INSERT INTO django_session VALUES ('{key}', {data}, {date})"
        ));
        (what, key)
    })
    .into();
    Site::over(database).harmed_only_are(&rows);
}

#[test]
fn a_row_that_is_no_text_or_date_in_mariadb_is_unreadable_and_harms_no_other() {
    let database = Database::mariadb();
    // The site's clock is behind, so this is in the year 10000.
    let late = database.login(json!({}));
    database.execute(&format!(
        "UPDATE django_session SET expire_date = '9999-12-31 23:59:59' WHERE session_key = '{late}'"
    ));
    database.execute("ALTER TABLE django_session MODIFY session_data longblob NOT NULL");
    let blob = random_key();
    database.execute(&format!(
        "INSERT INTO django_session VALUES ('{blob}', x'fffe41', '2999-01-01 00:00:00')"
    ));
    // No end at all is one that has passed.
    let nobody = random_key();
    database.execute(&format!(
        "SET sql_mode = '';
         INSERT INTO django_session VALUES ('{nobody}', 'a:b:c', '0000-00-00 00:00:00')"
    ));
    let site = Site::with(database, |setup| {
        setup.line("django", "time_zone = 'America/New_York'")
    });
    let rows = [
        ("a date out of range", late),
        ("bytes that are no UTF-8", blob),
    ];
    site.harmed_only_are(&rows);
    assert_eq!(site.claims(&nobody)["session"], json!({}));
    assert_eq!(site.claims(&nobody).get("withheld"), None);
}

/// Old tables: of another character set, and without parts of a second.
#[test]
fn an_old_table_in_mariadb_is_read_and_written() {
    let database = Database::mariadb();
    database.execute(
        "ALTER TABLE django_session CONVERT TO CHARACTER SET latin1;
         ALTER TABLE django_session MODIFY expire_date datetime NOT NULL",
    );
    Site::over(database).others_are_served();
}

#[test]
fn every_change_of_a_row_that_somebody_else_holds_meets_a_busy_session_on_postgresql() {
    changes_of_a_held_row_meet_a_busy_session(Database::postgres());
}

#[test]
fn every_change_of_a_row_that_somebody_else_holds_meets_a_busy_session_on_mariadb() {
    changes_of_a_held_row_meet_a_busy_session(Database::mariadb());
}

fn changes_of_a_held_row_meet_a_busy_session(database: Database) {
    let key = database.login(json!({}));
    // A half of it is for the lock; within the other, connections are opened, however busy the machine is.
    let site = Site::with(database, |setup| setup.line("django", "deadline = '6s'"));
    site.database.while_locked(&key, || {
        let mut clients: Vec<_> = (0..5).map(|_| site.write(&key).1.begin()).collect();
        site.others_are_served();
        for client in &mut clients {
            client.answer("GET").is_error(409, "session-busy");
        }
    });
    site.is_served(&key);
}

#[test]
fn altering_the_session_table_in_postgresql_fails_no_read_and_no_write() {
    let alter = |kind| format!("ALTER TABLE django_session ALTER COLUMN session_data TYPE {kind}");
    altering_the_session_table_fails_nothing(
        Database::postgres(),
        ["varchar(200000)", "text", "varchar(200000)"].map(alter),
    );
}

#[test]
fn altering_the_session_table_in_mariadb_fails_no_read_and_no_write() {
    let alter = |kind| format!("ALTER TABLE django_session MODIFY session_data {kind} NOT NULL");
    altering_the_session_table_fails_nothing(
        Database::mariadb(),
        ["mediumtext", "longtext", "mediumtext"].map(alter),
    );
}

fn altering_the_session_table_fails_nothing(database: Database, statements: [String; 3]) {
    // Few connections: after each ALTER all of them log in again, which costs an unoptimised build much time.
    let site = Site::with(database, |setup| {
        setup
            .line("django", "deadline = '10s'")
            .line("django", "write_connections = 2")
    });
    let key = site.database.login(json!({}));
    let altered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // With the one below more visitors than connections, so that each has its statements prepared.
        for key in &site.others {
            let (site, altered) = (&site, &altered);
            scope.spawn(move || {
                let mut after = 0;
                // Never for ever, so that a failed test ends.
                for _ in 0..1000 {
                    after += usize::from(altered.load(Ordering::SeqCst));
                    site.is_served(key);
                    if after == 20 {
                        return;
                    }
                }
            });
        }
        for statement in statements {
            (0..10).for_each(|_| site.is_served(&key));
            site.database.execute(&statement);
        }
        altered.store(true, Ordering::SeqCst);
        (0..10).for_each(|_| site.is_served(&key));
    });
}

/// A gateway whose upstream answers with the claims, and visitors who must never notice anything.
struct Site {
    database: Database,
    gateway: Gateway,
    others: Vec<String>,
    numbers: AtomicUsize,
    _app: Upstream,
}

impl Site {
    fn over(database: Database) -> Self {
        Self::with(database, |setup| setup)
    }

    fn with(database: Database, change: impl FnOnce(Setup) -> Setup) -> Self {
        let app = Upstream::with(|seen| {
            let answer = reply(200).body(seen.claims().to_string());
            match seen.target.strip_prefix("/write/") {
                Some(number) => answer.set(&format!(r#"{{"set":{{"number":{number}}}}}"#)),
                None => answer,
            }
        });
        let gateway = change(Gateway::before(&database, &app)).start();
        let others = (0..3).map(|_| database.login(json!({}))).collect();
        Self {
            database,
            gateway,
            others,
            numbers: AtomicUsize::new(0),
            _app: app,
        }
    }

    #[track_caller]
    fn claims(&self, key: &str) -> Value {
        let answer = self.gateway.get("/").session(key).send();
        answer.is_upstreams(200).json()
    }

    /// A request that writes what has not been written before.
    fn write(&self, key: &str) -> (usize, Ask) {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let ask = self.gateway.get(&format!("/write/{number}")).session(key);
        (number, ask)
    }

    /// Reads and writes as the user that he is.
    #[track_caller]
    fn is_served(&self, key: &str) {
        let (number, ask) = self.write(key);
        let answer = ask.send();
        assert_eq!(answer.is_upstreams(200).json()["sub"], "1");
        assert_eq!(answer.new_session().as_deref(), Some(key));
        let claims = self.claims(key);
        assert_eq!(
            (&claims["sub"], &claims["session"]["number"]),
            (&json!("1"), &json!(number))
        );
    }

    #[track_caller]
    fn others_are_served(&self) {
        for key in &self.others {
            self.is_served(key);
        }
    }

    /// Asks for these rows beside the other visitors, so that one batch has both.
    fn harmed_only_are(&self, rows: &[(&str, String)]) {
        self.others_are_served();
        for (what, key) in rows {
            std::thread::scope(|scope| {
                for other in &self.others {
                    scope.spawn(|| (0..10).for_each(|_| self.is_served(other)));
                }
                for _ in 0..5 {
                    self.is_unreadable(what, key);
                }
            });
            self.others_are_served();
        }
        if self.database.engine() == Engine::Sqlite {
            let kept = "SELECT count(*) || '' FROM django_session";
            let expected = (rows.len() + self.others.len()).to_string();
            assert_eq!(self.database.query(kept), [expected]);
        }
    }

    #[track_caller]
    fn is_unreadable(&self, what: &str, key: &str) {
        let claims = self.claims(key);
        assert_eq!(claims["withheld"], "unreadable", "{what}");
        for claim in ["sub", "sid", "session"] {
            assert_eq!(claims.get(claim), None, "{what}");
        }
        let answer = self.write(key).1.send();
        answer.is_error(500, "session-unreadable");
        assert_eq!(answer.set_cookie(), None, "{what}");
    }
}
