//! The MariaDB of the tests: with Django on it, and with tables like Django's.

use serde_json::json;

use crate::support::{Database, Django, Engine, Release, SECRET_KEY, Served as _};

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
