//! What only MySQL and MariaDB do: collations that find other keys, rows found and rows changed.

use serde_json::json;
use session_gateway::{
    config::Secret,
    session::SessionKey,
    store::{MySql, Options, UnderWay, backend::Backend as _},
};

use crate::support::{Database, Django, Engine, Release, SECRET_KEY, Scene, Served as _, reply};

#[test]
fn the_tables_that_the_tests_make_on_mariadb_are_djangos() {
    let columns =
        "SELECT CONCAT_WS(' ', table_name, column_name, column_type, is_nullable, column_key)
        FROM information_schema.columns
        WHERE table_schema = database() AND table_name IN ('django_session', 'auth_user')
        ORDER BY table_name, column_name";
    let database = Database::mariadb();
    let key = database.login(json!({"text": "日本"}));
    for release in [Release::V42, Release::V52] {
        let own = Database::empty(Engine::MariaDb);
        let _migrated = Django::start(release, &own);
        assert_eq!(own.query(columns), database.query(columns));

        let django = Django::serve(release, &database, SECRET_KEY, &json!({}));
        assert_eq!(django.user(&key).as_deref(), Some("1"));
        let target = format!(r#"/set/?by="{}""#, release.name());
        let answer = django.post(&target).session(&key).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        let session = database.read(&key).unwrap();
        assert_eq!(
            (&session["by"], &session["text"]),
            (&json!(release.name()), &json!("日本"))
        );
    }
}

/// The collations of these databases take other letters' cases, accents and blanks at the end for the same key.
#[test]
fn an_alias_of_a_key_is_never_served_and_never_changed() {
    let scene = Scene::over(Database::mariadb(), "");
    let key = scene.key.clone();
    for alias in [
        key.to_uppercase(),
        format!("{key}  "),
        key.replace('a', "\u{e4}"),
    ] {
        // Some random keys have no `a`.
        if alias == key {
            continue;
        }
        let rename = |from: &str, to: &str| {
            scene.database.execute(&format!(
                "UPDATE django_session SET session_key = '{to}' WHERE session_key = '{from}'"
            ));
        };
        rename(&key, &alias);
        let row = scene.database.data(&key);
        assert!(row.is_some(), "the database itself finds the alias");
        scene.app.answers(reply(200));
        scene.get().is_upstreams(200);
        assert_eq!(scene.app.last().user(), None, "{alias}");

        // Under the lock as well: the row gets its other name while the upstream works.
        for (change, error) in [
            (r#"{"set":{"cart":"stolen"}}"#, Some("session-gone")),
            (r#"{"cycle":true}"#, Some("session-gone")),
            (r#"{"expiry":60}"#, Some("session-gone")),
            (r#"{"flush":true}"#, None),
            (r#"{"flush":true,"set":{"a":1}}"#, None),
        ] {
            rename(&alias, &key);
            let url = scene.database.url().to_owned();
            let sql = format!(
                "UPDATE django_session SET session_key = '{alias}' WHERE session_key = '{key}'"
            );
            scene.app.answers_with(move |seen| {
                assert_eq!(seen.user().as_deref(), Some("1"));
                Database::of(&url).execute(&sql);
                reply(200).set(change)
            });
            let answer = scene.get();
            match error {
                Some(error) => drop(answer.is_error(409, error)),
                None => drop(answer.is_upstreams(200)),
            }
            assert_eq!(scene.database.data(&key), row, "{alias} {change}");
            assert!(scene.database.keys().contains(&alias), "{alias} {change}");
        }
        rename(&alias, &key);
    }
}

/// Django goes by this number to tell a session that is gone from one that is as it was.
#[test]
fn an_update_counts_the_row_that_it_finds_and_not_what_it_changes() {
    let database = Database::mariadb();
    let key = database.login(json!({}));
    let key = SessionKey::parse(key.as_bytes()).unwrap();
    let config = options();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mysql = MySql::new(&Secret::from(database.url()), &config).unwrap();
        let mut connection = mysql.connect().await.unwrap();
        let end = chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(30_000);
        for _ in 0..2 {
            mysql.begin(&mut connection).await.unwrap();
            let update = mysql.update(&mut connection, &key, Some("same"), end);
            assert_eq!(update.await.unwrap(), 1);
            let touch = mysql.update(&mut connection, &key, None, end);
            assert_eq!(touch.await.unwrap(), 1);
            mysql.commit(&mut connection).await.unwrap();
        }
        mysql.begin(&mut connection).await.unwrap();
        let nobody = SessionKey::parse(&[b'0'; 32]).unwrap();
        let update = mysql.update(&mut connection, &nobody, Some("same"), end);
        assert_eq!(update.await.unwrap(), 0);
    });
}

fn options() -> Options {
    Options {
        table: "django_session".into(),
        time_zone: chrono_tz::Tz::UTC,
        deadline: std::time::Duration::from_secs(20),
        connections: 1,
        write_connections: 1,
        pooled: false,
        accept_replica: false,
        max_staleness: std::time::Duration::ZERO,
        metrics: std::sync::Arc::default(),
        under_way: UnderWay::default(),
        session_data: 1024,
        lookup_queue: 1,
        session_queue: 1,
        users: None,
    }
}
