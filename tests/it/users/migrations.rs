//! The user table is altered while the gateway runs. It may then say that it does not know, for a moment or for
//! as long as the table is not there; it never says "nobody", and never goes by a rule that is over.

use serde_json::json;

use crate::{
    support::{Database, Engine, Gateway, Served as _, Upstream, eventually},
    users::{add, before, people, quoted, session_of, sub, told},
};

on_each_engine!(
    is_active_may_go_and_come_at_any_time,
    a_table_that_is_renamed_is_not_nobody,
    a_column_that_is_renamed_is_not_nobody,
    keys_of_another_kind_are_understood_again,
    a_new_table_in_its_place_is_read,
);

struct Site {
    database: Database,
    app: Upstream,
    gateway: Gateway,
    user: String,
    cart: String,
}

impl Site {
    /// With a user, over connections that know the table.
    fn start(engine: Engine) -> Self {
        let database = people(engine, "integer");
        add(&database, "1");
        let app = Upstream::start();
        let gateway = before(&database, &app)
            .route("path = '/named/'\nupstream = 'app'\nuser = ['name']")
            .start();
        let user = session_of(&database, &json!("1"));
        let cart = database.session(&json!({"cart": 1}));
        let site = Self {
            database,
            app,
            gateway,
            user,
            cart,
        };
        for _ in 0..4 {
            assert_eq!(site.sub().as_deref(), Some("1"));
        }
        site
    }

    fn sub(&self) -> Option<String> {
        sub(&self.gateway, &self.app, &self.user)
    }

    /// Nobody is known, and health says why: what one connection has noticed counts for all.
    fn is_away(&self, cause: &str) {
        for _ in 0..5 {
            for key in [&self.user, &self.cart] {
                let answer = self.gateway.get("/").session(key).send();
                answer.is_error(503, "session-store-unavailable");
                assert_eq!(answer.set_cookie(), None);
            }
        }
        let health = self.gateway.health().get("/readyz").send();
        let known = health.json()["database"]["cause"].to_string();
        assert!(known.contains(cause), "{known}");
        assert!(self.database.data(&self.user).is_some());
    }

    /// The user is known again, after answers that it is not known.
    fn is_back(&self) {
        eventually("the user is known again", || {
            let answer = self.gateway.get("/").session(&self.user).send();
            match answer.status {
                503 => None,
                _ => answer.is_upstreams(200).field("content-length").map(drop),
            }
        });
        assert_eq!(self.sub().as_deref(), Some("1"));
        assert_eq!(self.app.last().user().as_deref(), Some("1"));
    }
}

fn is_active_may_go_and_come_at_any_time(engine: Engine) {
    let site = Site::start(engine);
    let database = &site.database;
    for _ in 0..3 {
        database.execute("UPDATE people SET is_active = false");
        assert_eq!(site.sub(), None);
        // Nobody is inactive any more, and no request has to wait for that to be noticed.
        database.execute("ALTER TABLE people DROP COLUMN is_active");
        assert_eq!(site.sub().as_deref(), Some("1"));
        assert_eq!(site.sub().as_deref(), Some("1"));
        // All are, at once.
        database.execute("ALTER TABLE people ADD COLUMN is_active bool NOT NULL DEFAULT false");
        assert_eq!(site.sub(), None);
        database.execute("UPDATE people SET is_active = true");
        assert_eq!(site.sub().as_deref(), Some("1"));
    }
}

fn a_table_that_is_renamed_is_not_nobody(engine: Engine) {
    let site = Site::start(engine);
    site.database
        .execute("ALTER TABLE people RENAME TO persons");
    site.is_away("there is no table people");
    site.database
        .execute("ALTER TABLE persons RENAME TO people");
    site.is_back();
}

fn a_column_that_is_renamed_is_not_nobody(engine: Engine) {
    let site = Site::start(engine);
    let rename = |from: &str, to: &str| {
        site.database
            .execute(&format!("ALTER TABLE people RENAME COLUMN {from} TO {to}"));
    };
    for column in ["password", "id", "name"] {
        rename(column, "another");
        // The first to need it notices.
        let asked = site.gateway.get("/named/").session(&site.user).send();
        asked.is_error(503, "session-store-unavailable");
        site.is_away(&format!("the table people has no column {column}"));
        rename("another", column);
        site.is_back();
    }
}

fn keys_of_another_kind_are_understood_again(engine: Engine) {
    let site = Site::start(engine);
    if engine == Engine::Sqlite {
        site.database.execute(&rebuilt("varchar(40)"));
        return site.is_back();
    }
    if engine == Engine::MariaDb {
        site.database
            .execute("ALTER TABLE people MODIFY id varchar(40) NOT NULL");
        return site.is_back();
    }
    site.database
        .execute("ALTER TABLE people ALTER COLUMN id TYPE varchar(40)");
    site.is_back();
    let uuid = "5f0c1ce0-7f3a-4a8e-9d55-1d5cf14a3a54";
    let key = session_of(&site.database, &json!(uuid.to_uppercase()));
    site.database.execute(&format!(
        "ALTER TABLE people ALTER COLUMN id TYPE uuid USING '{uuid}'"
    ));
    eventually("the uuid is understood", || {
        site.app.take();
        let answer = site.gateway.get("/").session(&key).send();
        let seen = site.app.take().pop();
        assert!(answer.status == 503 || seen.is_some(), "{answer:?}");
        seen.map(|seen| assert_eq!(seen.user().as_deref(), Some(uuid)))
    });
}

/// SQLite alters no column, so Django makes the table anew too.
fn rebuilt(key: &str) -> String {
    format!(
        "CREATE TABLE new_people (id {key} NOT NULL PRIMARY KEY, {});
         INSERT INTO new_people SELECT id, password, is_active, is_staff, is_superuser, name FROM people;
         DROP TABLE people;
         ALTER TABLE new_people RENAME TO people",
        super::PEOPLE
    )
}

fn a_new_table_in_its_place_is_read(engine: Engine) {
    let site = Site::start(engine);
    let name = quoted(engine, "new_people");
    site.database.execute(&format!(
        "CREATE TABLE {name} (id integer NOT NULL PRIMARY KEY, {});
         INSERT INTO {name} SELECT id, password, is_active, is_staff, is_superuser, 'new' FROM people;
         ALTER TABLE people RENAME TO old_people;
         ALTER TABLE {name} RENAME TO people;
         UPDATE old_people SET is_active = false",
        super::PEOPLE
    ));
    assert_eq!(site.sub().as_deref(), Some("1"));
    let claims = told(&site.gateway, &site.app, "/named/", &site.user);
    assert_eq!(claims["user"], json!({"name": "new"}));
    site.database.execute("UPDATE people SET is_active = false");
    assert_eq!(site.sub(), None);
}
