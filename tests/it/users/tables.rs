//! User tables with names, columns and rules of their own, and the sentences about those that cannot be used.

use serde_json::json;

use crate::{
    support::{Database, Engine, Gateway, Upstream, rows, rows::PASSWORD},
    users::{add, before, end, people, quoted, session_of, sub, told},
};

on_each_engine!(
    names_are_taken_as_they_are_written,
    a_table_may_stand_in_a_schema,
    without_is_active_everybody_is,
    a_condition_of_ones_own_takes_the_place_of_is_active,
    backends_decide_as_in_django,
    active_only_asks_for_no_hash,
    off_asks_for_no_table,
    what_cannot_be_used_is_said_at_the_start,
);

const MODEL_BACKEND: &str = "django.contrib.auth.backends.ModelBackend";

fn names_are_taken_as_they_are_written(engine: Engine) {
    let database = Database::with_tables(engine);
    let name = |name| quoted(engine, name);
    let (order, group, select) = (name("Order"), name("group"), name("Select"));
    let (members, groups, member) = (name("Order_From"), name("Group"), name("Order_id"));
    database.execute(&format!(
        "CREATE TABLE {order} ({group} integer NOT NULL PRIMARY KEY, {select} varchar(128) NOT NULL,
            is_active bool NOT NULL, {upper} varchar(9) NOT NULL, {lower} varchar(9) NOT NULL);
         CREATE TABLE {members} (id integer NOT NULL, {member} integer NOT NULL, group_id integer NOT NULL);
         CREATE TABLE {groups} (id integer NOT NULL PRIMARY KEY, name varchar(150) NOT NULL);
         INSERT INTO {order} VALUES (7, '{PASSWORD}', true, 'Ada', 'ada');
         INSERT INTO {groups} VALUES (1, 'editors'), (2, 'others');
         INSERT INTO {members} VALUES (1, 7, 1)",
        upper = name("Where"),
        lower = name("limit"),
    ));
    let app = Upstream::start();
    let gateway = Gateway::over(&database)
        .line(
            "django.user",
            "table = 'Order'
             key = 'group'
             password = 'Select'
             groups = ['Order_From', 'Group']",
        )
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'\nuser = ['Where', 'limit', 'groups']")
        .start();
    let claims = told(&gateway, &app, "/", &session_of(&database, &json!("7")));
    assert_eq!(
        (&claims["sub"], &claims["user"]),
        (
            &json!("7"),
            &json!({"Where": "Ada", "limit": "ada", "groups": ["editors"]})
        )
    );
}

fn a_table_may_stand_in_a_schema(engine: Engine) {
    let database = Database::with_tables(engine);
    let schema = match engine {
        Engine::Postgres => {
            database.execute(
                "CREATE SCHEMA staff;
                 ALTER TABLE auth_user SET SCHEMA staff;
                 CREATE TABLE auth_user (id integer PRIMARY KEY, password text, is_active bool)",
            );
            "staff".to_owned()
        }
        Engine::MariaDb => database.query("SELECT DATABASE()").remove(0),
        Engine::Sqlite => "main".to_owned(),
    };
    let key = database.login(json!({}));
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .line("django.user", &format!("table = '{schema}.auth_user'"))
        .start();
    assert_eq!(sub(&gateway, &app, &key).as_deref(), Some("1"));
}

fn without_is_active_everybody_is(engine: Engine) {
    let database = people(engine, "integer");
    add(&database, "1");
    database
        .execute("UPDATE people SET is_active = false; ALTER TABLE people DROP COLUMN is_active");
    let app = Upstream::start();
    let gateway = before(&database, &app).start();
    let user = session_of(&database, &json!("1"));
    assert_eq!(sub(&gateway, &app, &user).as_deref(), Some("1"));
    let nobody = session_of(&database, &json!("2"));
    assert_eq!(sub(&gateway, &app, &nobody), None);
}

fn a_condition_of_ones_own_takes_the_place_of_is_active(engine: Engine) {
    let database = people(engine, "integer");
    database.execute("ALTER TABLE people ADD COLUMN level integer NULL");
    for (id, active, level) in [
        (1, "true", "7"),
        (2, "true", "1"),
        (3, "false", "7"),
        (4, "true", "NULL"),
        (5, "NULL", "7"),
        (6, "NULL", "NULL"),
    ] {
        database.execute(&format!(
            "INSERT INTO people (id, password, is_active, level) VALUES ({id}, '{PASSWORD}', {active}, {level})"
        ));
    }
    let own = quoted(engine, "level");
    for (condition, users) in [
        ("is_active AND level > 5".to_owned(), vec!["1"]),
        (
            "is_active OR level > 5".to_owned(),
            vec!["1", "2", "3", "4", "5"],
        ),
        (format!("(is_active) AND NOT ({own} = 1)"), vec!["1"]),
        ("people.level IS NULL".to_owned(), vec!["4", "6"]),
        ("level IN (SELECT 7)".to_owned(), vec!["1", "3", "5"]),
        ("NULL".to_owned(), vec![]),
        ("TRUE".to_owned(), vec!["1", "2", "3", "4", "5", "6"]),
    ] {
        let app = Upstream::start();
        let gateway = before(&database, &app)
            .line("django.user", &format!("where = '''{condition}'''"))
            .line(
                "django",
                "backends = ['django.contrib.auth.backends.AllowAllUsersModelBackend']",
            )
            .start();
        let mut found = Vec::new();
        for id in 1..=6 {
            let mut session = rows::login(&id.to_string(), json!({}));
            session["_auth_user_backend"] =
                json!("django.contrib.auth.backends.AllowAllUsersModelBackend");
            found.extend(sub(&gateway, &app, &database.session(&session)));
        }
        assert_eq!(found, users, "{condition}");
    }
}

fn backends_decide_as_in_django(engine: Engine) {
    let database = people(engine, "integer");
    add(&database, "1");
    add(&database, "2");
    database.execute("UPDATE people SET is_active = false WHERE id = 2");
    let app = Upstream::start();
    let all_users = "django.contrib.auth.backends.AllowAllUsersModelBackend";
    let remote = "django.contrib.auth.backends.AllowAllUsersRemoteUserBackend";
    let own = "shop.auth.Backend";
    let gateway = before(&database, &app)
        .line(
            "django",
            &format!("backends = ['{own}', '{all_users}', '{remote}']"),
        )
        .start();
    for (backend, active, inactive) in [
        (all_users, true, true),
        (remote, true, true),
        (own, true, false),
        // Not in the list, however common.
        (MODEL_BACKEND, false, false),
        ("shop.auth.AllowAllUsersModelBackend", false, false),
        ("", false, false),
    ] {
        for (id, logged_in) in [("1", active), ("2", inactive)] {
            let mut session = rows::login(id, json!({}));
            session["_auth_user_backend"] = json!(backend);
            let user = sub(&gateway, &app, &database.session(&session));
            assert_eq!(user.is_some(), logged_in, "{backend} {id}");
        }
    }
}

fn active_only_asks_for_no_hash(engine: Engine) {
    let database = people(engine, "integer");
    add(&database, "1");
    add(&database, "2");
    database.execute("UPDATE people SET is_active = false WHERE id = 2");
    // A model without a password column of its own.
    database.execute("ALTER TABLE people DROP COLUMN password");
    let app = Upstream::start();
    let gateway = before(&database, &app)
        .line("django", "verify = 'active-only'")
        .start();
    for (id, user) in [("1", Some("1")), ("2", None), ("3", None), ("x", None)] {
        for hash in [json!("of a rule of the site's own"), json!(""), json!(null)] {
            let mut session = rows::login(id, json!({}));
            session["_auth_user_hash"] = hash;
            let key = database.session(&session);
            assert_eq!(sub(&gateway, &app, &key).as_deref(), user);
        }
    }
}

fn off_asks_for_no_table(engine: Engine) {
    let database = Database::with_tables(engine);
    database.execute("DROP TABLE auth_user");
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .line("django", "verify = 'off'")
        .start();
    for (id, user) in [
        ("1", Some("1")),
        ("no integer", Some("no integer")),
        (&"9".repeat(256), None),
        ("a\0b", None),
    ] {
        let key = session_of(&database, &json!(id));
        assert_eq!(sub(&gateway, &app, &key).as_deref(), user, "{id}");
    }
    let mut session = rows::login("1", json!({}));
    session["_auth_user_backend"] = json!("shop.auth.Backend");
    assert_eq!(sub(&gateway, &app, &database.session(&session)), None);
}

fn what_cannot_be_used_is_said_at_the_start(engine: Engine) {
    let database = people(engine, "integer");
    let bytes = match engine {
        Engine::Postgres => "bytea",
        Engine::MariaDb => "blob",
        Engine::Sqlite => "BLOB",
    };
    database.execute(&format!(
        "CREATE TABLE things (id {bytes} NOT NULL, password text, is_active bool, picture {bytes});
         CREATE TABLE people_groups (id integer, people_id integer, tenant_id integer, group_id integer);
         CREATE TABLE members (id integer, people_id integer, group_id integer)"
    ));
    let app = Upstream::start();
    let about_key = format!(
        "the column id of things is of type {bytes}; a user's key is an integer, a uuid or a text"
    );
    // MySQL's messages quote what stands in statements, so they are not passed on.
    let says = match engine {
        Engine::MariaDb => "MySQL refused a statement",
        _ => "says: ",
    };
    for (user, route, sentence) in [
        (
            "table = 'nobody'",
            "",
            "there is no table nobody; name the user model's table",
        ),
        ("key = 'uid'", "", "the table people has no column uid"),
        (
            "password = 'Password'",
            "",
            "the table people has no column Password",
        ),
        ("table = 'things'", "", about_key.as_str()),
        (
            "",
            "user = ['email']",
            "the table people has no column email",
        ),
        (
            "",
            "require = 'staff'\nuser = ['rank']",
            "the table people has no column rank",
        ),
        (
            "table = 'things'\nkey = 'password'",
            "user = ['picture']",
            "bytes are not told",
        ),
        (
            "",
            "user = ['groups']",
            "the table people_groups is not one that joins users and groups",
        ),
        (
            "groups = ['nowhere', 'auth_group']",
            "user = ['groups']",
            "there is no table nowhere",
        ),
        (
            "groups = ['members', 'no_groups']",
            "user = ['groups']",
            "no_groups",
        ),
        ("where = 'is_activ'", "", "is_activ"),
        ("where = 'is_active AND'", "", says),
        ("where = 'is_active = (1, 2)'", "", says),
    ] {
        let setup = before(&database, &app);
        let setup = match user.contains("table") {
            true => setup.replace("django.user", user),
            false => setup.line("django.user", user),
        };
        let route = format!("path = '/told/'\nupstream = 'app'\nrequire = 'login'\n{route}");
        let route = route.replacen("require = 'login'\nrequire", "require", 1);
        let text = end(&setup.route(&route));
        assert!(text.contains("the session database said no: "), "{text}");
        assert!(text.contains(sentence), "{sentence}: {text}");
    }
    if engine == Engine::Postgres {
        // The condition must be one: a number is none, and only a row would show it.
        let text = end(&before(&database, &app).line("django.user", "where = 'id'"));
        assert!(text.contains("must be type boolean"), "{text}");
    }
}
