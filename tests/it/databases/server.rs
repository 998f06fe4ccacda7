//! MariaDB servers that are set up in ways that could make an answer old, or a change go where it must not.

use serde_json::json;

use crate::support::{
    Database, Gateway, MariaDbServer, Scene, Served as _, Upstream, eventually, reply,
};

/// Without autocommit the first SELECT of a connection would begin a transaction, and under REPEATABLE READ all
/// later ones would see what was there then.
#[test]
fn a_logout_is_seen_where_the_server_switches_autocommit_off() {
    let server = MariaDbServer::start(&["--init-connect=SET autocommit=0"]);
    let name = "site_autocommit";
    // Its commands are not for the superuser, who would otherwise be locked out by a wrong one.
    let root = Database::of(&format!("{}/{name}", server.url_of("root")));
    server.as_root(&format!("CREATE DATABASE {name}"));
    root.create_tables();
    let shop = Database::of(&format!("{}/{name}", server.url()));
    assert_eq!(shop.query("SELECT CONCAT(@@autocommit)"), ["OFF"]);

    let app = Upstream::start();
    let gateway = Gateway::before(&shop, &app)
        .line("django", "connections = 1")
        .start();
    for _ in 0..3 {
        let key = root.login(json!({"cart": 1}));
        gateway.get("/").session(&key).send().is_upstreams(200);
        assert_eq!(app.last().user().as_deref(), Some("1"));
        app.answers(reply(200).set(r#"{"set":{"cart":2}}"#));
        gateway.get("/").session(&key).send().is_upstreams(200);
        assert_eq!(root.read(&key).unwrap()["cart"], 2, "committed");
        app.answers(reply(200));
        root.delete(&key);
        gateway.get("/").session(&key).send().is_upstreams(200);
        assert_eq!(app.last().user(), None);
    }
}

#[test]
fn a_server_is_reached_by_its_unix_socket() {
    let server = MariaDbServer::start(&[]);
    let database = Database::in_server(&server.url());
    database.create_tables();
    let key = database.login(json!({}));
    let app = Upstream::start();
    app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    let by_socket = database.url().replace(&server.address(), "localhost");
    for scheme in ["mysql", "mariadb"] {
        let url = format!("{by_socket}?socket={}", server.socket().display());
        let gateway = Gateway::before(&database, &app)
            .env(
                "DATABASE_URL",
                &url.replace("mysql:", &format!("{scheme}:")),
            )
            .start();
        gateway.get("/").session(&key).send().is_upstreams(200);
        assert_eq!(app.last().user().as_deref(), Some("1"));
        let by = "SELECT CONCAT_WS(' ', user, host) FROM information_schema.processlist \
                  WHERE user = 'shop'";
        let root = Database::of(&server.url_of("root"));
        // The test's own connections are gone in a moment.
        eventually("all come by the socket", || {
            let by = root.query(by);
            (!by.is_empty() && by.iter().all(|by| by == "shop localhost")).then_some(())
        });
    }
    assert_eq!(database.read(&key).unwrap()["a"], 1);
}

/// A standby is set read-only. It may lag, so it is not believed, also where the gateway's user could write to it.
#[test]
fn a_server_that_is_read_only_is_neither_believed_nor_written() {
    let server = MariaDbServer::start(&[]);
    for user in ["shop", "root"] {
        let database = Database::in_server(&server.url_of(user));
        database.create_tables();
        let scene = Scene::over(database, "deadline = '2s'");
        scene.app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
        scene.get().is_upstreams(200);
        let answer = scene.app.take();
        assert_eq!(answer[0].user().as_deref(), Some("1"));

        server.as_root("SET GLOBAL read_only = 1");
        // Connections are open, and each of them notices at its next statement.
        for _ in 0..5 {
            let answer = scene.get();
            answer.is_error(503, "session-store-unavailable");
        }
        assert!(scene.app.take().is_empty(), "the upstream is not called");

        server.as_root("SET GLOBAL read_only = 0");
        eventually("the gateway serves again", || {
            (scene.get().status == 200).then_some(())
        });

        // Between the lookup and the change.
        let rows = scene.database.data(&scene.key);
        let (admin, root) = (server.url_of("root"), "SET GLOBAL read_only = 1");
        scene.app.answers_with(move |_| {
            Database::of(&admin).execute(root);
            reply(200).set(r#"{"set":{"a":2}}"#)
        });
        scene.get().is_error(500, "session-not-saved");
        assert_eq!(scene.database.data(&scene.key), rows, "{user}");
        server.as_root("SET GLOBAL read_only = 0");
        eventually("the gateway serves again", || {
            scene.app.answers(reply(200));
            (scene.get().status == 200).then_some(())
        });
    }
}

/// The default of these servers is REPEATABLE READ, in which a lock on a key that is not there locks the gap in
/// which Django inserts.
#[test]
fn changes_run_at_read_committed() {
    let server = MariaDbServer::start(&[]);
    let database = Database::in_server(&server.url());
    database.create_tables();
    assert_eq!(
        database.query("SELECT @@global.tx_isolation"),
        ["REPEATABLE-READ"]
    );
    let scene = Scene::over(database, "deadline = '20s'");
    scene.app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    let root = Database::of(&server.url_of("root"));
    let waiting = "SELECT trx_isolation_level FROM information_schema.innodb_trx \
                   WHERE trx_state = 'LOCK WAIT'";
    let mut connection = scene.database.while_locked(&scene.key, || {
        let connection = scene.gateway.get("/").session(&scene.key).begin();
        let level = eventually("the write waits for the lock", || {
            // The table is made anew only after nobody has looked at it for 0.1 s (InnoDB, trx0i_s.cc).
            root.execute("DO SLEEP(0.15)");
            root.query(waiting).pop()
        });
        assert_eq!(level, "READ COMMITTED");
        connection
    });
    connection.answer("GET").is_upstreams(200);
}
