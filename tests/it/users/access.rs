//! `require` and `groups`: who may enter is asked of the user's row and memberships as they are now.

use serde_json::json;

use crate::{
    support::{Answer, Engine, Gateway, Served as _, Upstream, rows::PASSWORD},
    users::{before, people, session_of},
};

on_each_engine!(
    each_route_takes_those_whom_it_asks_for,
    a_right_that_was_taken_is_gone_at_the_next_request,
    a_user_may_be_in_any_number_of_groups,
);

/// Who there is: id, is_active, is_staff, is_superuser, groups.
const PEOPLE: [(&str, &str, &str, &str, &[&str]); 12] = [
    ("1", "true", "false", "false", &[]),
    ("2", "true", "true", "false", &[]),
    ("3", "true", "true", "true", &[]),
    ("4", "true", "false", "true", &[]),
    ("5", "false", "true", "true", &["editors"]),
    ("6", "NULL", "true", "true", &["editors"]),
    ("7", "true", "NULL", "NULL", &["editors"]),
    ("8", "true", "true", "false", &["editors", "authors"]),
    ("9", "true", "true", "NULL", &["Editors"]),
    ("10", "true", "false", "false", &["authors"]),
    ("11", "true", "NULL", "true", &["readers"]),
    ("12", "true", "false", "false", &["editors "]),
];

/// The routes, and whom they take.
const ROUTES: [(&str, &str, &[&str]); 7] = [
    (
        "/login/",
        "require = 'login'",
        &["1", "2", "3", "4", "7", "8", "9", "10", "11", "12"],
    ),
    ("/staff/", "require = 'staff'", &["2", "3", "8", "9"]),
    ("/superuser/", "require = 'superuser'", &["3", "4", "11"]),
    (
        "/editors/",
        "require = 'login'\ngroups = ['editors']",
        &["7", "8"],
    ),
    (
        "/writers/",
        "require = 'login'\ngroups = ['editors', 'authors']",
        &["7", "8", "10"],
    ),
    (
        "/staff-editors/",
        "require = 'staff'\ngroups = ['editors']",
        &["8"],
    ),
    (
        "/super-editors/",
        "require = 'superuser'\ngroups = ['editors', 'readers']",
        &["11"],
    ),
];

/// That a group has just this name, whatever the database's collation says.
fn exactly(engine: Engine, group: &str) -> String {
    match engine {
        Engine::MariaDb => format!("BINARY name = '{group}'"),
        _ => format!("name = '{group}'"),
    }
}

fn site(engine: Engine) -> (crate::support::Database, Upstream, Gateway) {
    let database = people(engine, "integer");
    database.execute(
        "CREATE TABLE auth_group (id integer NOT NULL PRIMARY KEY, name varchar(150) NOT NULL);
         CREATE TABLE people_groups (people_id integer NOT NULL, group_id integer NOT NULL);
         INSERT INTO auth_group VALUES
            (1, 'editors'), (2, 'authors'), (3, 'readers'), (4, 'Editors'), (5, 'editors ')",
    );
    for (id, active, staff, superuser, groups) in PEOPLE {
        database.execute(&format!(
            "INSERT INTO people (id, password, is_active, is_staff, is_superuser)
             VALUES ({id}, '{PASSWORD}', {active}, {staff}, {superuser})"
        ));
        for group in groups {
            database.execute(&format!(
                "INSERT INTO people_groups SELECT {id}, id FROM auth_group WHERE {}",
                exactly(engine, group)
            ));
        }
    }
    let app = Upstream::start();
    let setup = ROUTES
        .iter()
        .fold(before(&database, &app), |setup, (path, lines, _)| {
            setup.route(&format!("path = '{path}'\nupstream = 'app'\n{lines}"))
        });
    let gateway = setup.start();
    (database, app, gateway)
}

fn each_route_takes_those_whom_it_asks_for(engine: Engine) {
    let (database, app, gateway) = site(engine);
    for (path, _, taken) in ROUTES {
        for (id, active, ..) in PEOPLE {
            let what = format!("{id} at {path}");
            let key = session_of(&database, &json!(id));
            let load = gateway
                .get(path)
                .session(&key)
                .field("Sec-Fetch-Mode", "navigate")
                .field("Accept", "text/html")
                .send();
            let post = gateway.post(path).session(&key).body("").send();
            let seen = app.take();
            if taken.contains(&id) {
                load.is_upstreams(200);
                post.is_upstreams(200);
                assert_eq!(seen.len(), 2, "{what}");
                assert_eq!(seen[0].user().as_deref(), Some(id), "{what}");
                continue;
            }
            assert!(seen.is_empty(), "{what}");
            if active == "true" {
                is_not_allowed(&load, "text/html; charset=utf-8", &what);
                is_not_allowed(&post, "application/problem+json", &what);
            } else {
                // Nobody is logged in, so that logging in may help.
                assert_eq!(load.status, 302, "{what}");
                post.is_error(401, "login-required");
            }
        }
        let cart = database.session(&json!({"cart": 1}));
        gateway
            .get(path)
            .session(&cart)
            .send()
            .is_error(401, "login-required");
        gateway.get(path).send().is_error(401, "login-required");
    }
}

fn a_right_that_was_taken_is_gone_at_the_next_request(engine: Engine) {
    let (database, _app, gateway) = site(engine);
    let key = session_of(&database, &json!("8"));
    let enter = |path: &str| gateway.get(path).session(&key).send();
    for _ in 0..3 {
        for (path, take, give) in [
            (
                "/staff/",
                "UPDATE people SET is_staff = false WHERE id = 8",
                "UPDATE people SET is_staff = true WHERE id = 8",
            ),
            (
                "/staff/",
                "UPDATE people SET is_staff = NULL WHERE id = 8",
                "UPDATE people SET is_staff = true WHERE id = 8",
            ),
            (
                "/editors/",
                "DELETE FROM people_groups WHERE people_id = 8 AND group_id = 1",
                "INSERT INTO people_groups VALUES (8, 1)",
            ),
            (
                "/editors/",
                "UPDATE auth_group SET name = 'others' WHERE id = 1",
                "UPDATE auth_group SET name = 'editors' WHERE id = 1",
            ),
            (
                "/staff-editors/",
                "DELETE FROM people_groups WHERE people_id = 8 AND group_id = 1",
                "INSERT INTO people_groups VALUES (8, 1)",
            ),
        ] {
            enter(path).is_upstreams(200);
            database.execute(take);
            is_not_allowed(&enter(path), "application/problem+json", take);
            enter("/login/").is_upstreams(200);
            database.execute(give);
            enter(path).is_upstreams(200);
        }
    }
}

fn a_user_may_be_in_any_number_of_groups(engine: Engine) {
    let (database, app, gateway) = site(engine);
    // 10,000 names of 150 characters, most of them before the one that counts.
    let name = match engine {
        Engine::MariaDb => "CONCAT(REPEAT('a', 142), 10000000 + id)",
        Engine::Postgres => "repeat('a', 142) || (10000000 + id)",
        Engine::Sqlite => "replace(hex(zeroblob(71)), '0', 'a') || (10000000 + id)",
    };
    let digits =
        "(SELECT 0 AS n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5
                   UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    database.execute(&format!(
        "CREATE TABLE numbers (id integer NOT NULL);
         INSERT INTO numbers SELECT 100 + a.n + 10 * b.n + 100 * c.n + 1000 * d.n
            FROM {digits} a, {digits} b, {digits} c, {digits} d;
         INSERT INTO auth_group SELECT id, {name} FROM numbers;
         INSERT INTO people_groups SELECT 1, id FROM numbers"
    ));
    let key = session_of(&database, &json!("1"));
    let enter = |path: &str| gateway.get(path).session(&key).send();
    is_not_allowed(&enter("/editors/"), "application/problem+json", "no editor");
    database.execute("INSERT INTO people_groups SELECT 1, id FROM auth_group WHERE id < 100");
    enter("/editors/").is_upstreams(200);
    // And those who ask beside such a user.
    enter("/login/").is_upstreams(200);
    assert_eq!(app.take().len(), 2);
}

#[track_caller]
fn is_not_allowed(answer: &Answer, kind: &str, what: &str) {
    let code = (answer.status, answer.code());
    assert_eq!(code, (403, Some("not-allowed")), "{what}: {answer:?}");
    assert_eq!(answer.field("content-type"), Some(kind), "{what}");
    for name in ["location", "www-authenticate"] {
        assert_eq!(answer.field(name), None, "{what}");
    }
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
    assert_eq!(answer.field("vary"), Some("Cookie"), "{what}");
    assert_eq!(answer.set_cookie(), None, "{what}");
}
