//! A Django site's database: a SQLite file, or a database in PostgreSQL.

use std::{
    future::Future,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use chrono::{Duration, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};
use tempfile::TempDir;

use super::{SECRET_KEY, from_tests_run, rows};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A database of one test's own.
pub struct Database {
    engine: Engine,
    url: String,
    runtime: tokio::runtime::Runtime,
    folder: Option<TempDir>,
}

impl Database {
    /// A SQLite file with Django's tables of sessions and users, and the user 1.
    pub fn sqlite() -> Self {
        Self::with_tables(Engine::Sqlite)
    }

    /// A PostgreSQL database with the same.
    pub fn postgres() -> Self {
        Self::with_tables(Engine::Postgres)
    }

    pub fn with_tables(engine: Engine) -> Self {
        let database = Self::empty(engine);
        database.create_tables();
        database
    }

    /// A database without tables: Django makes its own.
    pub fn empty(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", folder.path().join("site.sqlite3").display());
                Self {
                    engine,
                    url,
                    runtime: runtime(),
                    folder: Some(folder),
                }
            }
            Engine::Postgres => Self::in_server(&from_tests_run("SG_TEST_PG_URL")),
        }
    }

    /// A database in a PostgreSQL server, whose address has no database name.
    pub fn in_server(server: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "site_{}_{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::SeqCst)
        );
        Self::of(&format!("{server}/postgres")).execute(&format!("CREATE DATABASE {name}"));
        Self::of(&format!("{server}/{name}"))
    }

    /// A PostgreSQL database that is there, or will be.
    pub fn of(url: &str) -> Self {
        Self {
            engine: Engine::Postgres,
            url: url.to_owned(),
            runtime: runtime(),
            folder: None,
        }
    }

    /// The same database, for another thread.
    pub fn same(other: &Self) -> Self {
        Self {
            engine: other.engine,
            url: other.url.clone(),
            runtime: runtime(),
            folder: None,
        }
    }

    /// Its address, as `[django] database` and the Django site take it.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The SQLite file.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(self.url.strip_prefix("sqlite:").expect("a SQLite database"))
    }

    /// A folder that lives as long as a SQLite database.
    pub fn folder(&self) -> PathBuf {
        self.folder
            .as_ref()
            .expect("a SQLite database")
            .path()
            .to_owned()
    }

    /// Stores a session and gives its key.
    pub fn session(&self, session: &Value) -> String {
        self.raw_session(
            &rows::seal(SECRET_KEY, rows::ascii(session).as_bytes()),
            Duration::days(14),
        )
    }

    /// Stores the session of the user 1.
    pub fn login(&self, session: Value) -> String {
        self.session(&rows::login("1", session))
    }

    /// Stores any `session_data`.
    pub fn raw_session(&self, data: &str, lifetime: Duration) -> String {
        let key = random_key();
        let expires = timestamp(lifetime);
        self.execute(&format!(
            "INSERT INTO django_session VALUES ('{key}', '{data}', '{expires}')"
        ));
        key
    }

    /// What a session holds now; `None` where there is no row.
    pub fn read(&self, key: &str) -> Option<Value> {
        self.data(key).map(|row| rows::open(SECRET_KEY, &row))
    }

    /// Its `session_data`.
    pub fn data(&self, key: &str) -> Option<String> {
        let query = format!("SELECT session_data FROM django_session WHERE session_key = '{key}'");
        self.query(&query).pop()
    }

    /// All session keys.
    pub fn keys(&self) -> Vec<String> {
        self.query("SELECT session_key FROM django_session ORDER BY session_key")
    }

    pub fn delete(&self, key: &str) {
        self.execute(&format!(
            "DELETE FROM django_session WHERE session_key = '{key}'"
        ));
    }

    /// Runs statements.
    pub fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        self.runtime.block_on(async {
            match self.engine {
                Engine::Sqlite => {
                    let mut connection = self.open_sqlite().await;
                    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                }
                Engine::Postgres => {
                    let mut connection = PgConnection::connect(&self.url).await.unwrap();
                    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                }
            }
        });
    }

    /// The first column of a query, as text.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        self.runtime.block_on(async {
            match self.engine {
                Engine::Sqlite => {
                    let mut connection = self.open_sqlite().await;
                    let found = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                    found.iter().map(|row| row.get(0)).collect()
                }
                Engine::Postgres => {
                    let mut connection = PgConnection::connect(&self.url).await.unwrap();
                    let found = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                    found.iter().map(|row| row.get(0)).collect()
                }
            }
        })
    }

    /// Whether a connection to PostgreSQL succeeds now.
    pub fn answers(&self) -> bool {
        self.runtime.block_on(async {
            let Ok(mut connection) = PgConnection::connect(&self.url).await else {
                return false;
            };
            sqlx::query("SELECT 1")
                .fetch_all(&mut connection)
                .await
                .is_ok()
        })
    }

    /// Holds the lock of a session's row (SQLite: of the file) while `work` runs.
    pub fn while_locked<T>(&self, key: &str, work: impl FnOnce() -> T) -> T {
        let query = format!(
            "UPDATE django_session SET session_key = session_key WHERE session_key = '{key}'"
        );
        match self.engine {
            Engine::Sqlite => {
                let mut connection = self.block_on(self.open_sqlite());
                self.block_on(sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection))
                    .unwrap();
                let result = work();
                self.block_on(sqlx::raw_sql("ROLLBACK").execute(&mut connection))
                    .unwrap();
                self.block_on(connection.close()).unwrap();
                result
            }
            Engine::Postgres => {
                let mut connection = self.block_on(PgConnection::connect(&self.url)).unwrap();
                let begin = format!("BEGIN; {query}");
                self.block_on(sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection))
                    .unwrap();
                let result = work();
                self.block_on(sqlx::raw_sql("ROLLBACK").execute(&mut connection))
                    .unwrap();
                self.block_on(connection.close()).unwrap();
                result
            }
        }
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    async fn open_sqlite(&self) -> SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.file())
            .create_if_missing(true)
            .busy_timeout(super::PATIENCE);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// The tables as Django's migrations make them.
    pub fn create_tables(&self) {
        let (date, id) = match self.engine {
            Engine::Sqlite => ("datetime", "integer NOT NULL PRIMARY KEY AUTOINCREMENT"),
            Engine::Postgres => (
                "timestamp with time zone",
                "integer NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY",
            ),
        };
        self.execute(&format!(
            "CREATE TABLE django_session (
                session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL,
                expire_date {date} NOT NULL);
             CREATE INDEX django_session_expire_date_a5c62663 ON django_session (expire_date);
             CREATE TABLE auth_user (
                id {id}, password varchar(128) NOT NULL, last_login {date} NULL, is_superuser bool NOT NULL,
                username varchar(150) NOT NULL UNIQUE, last_name varchar(150) NOT NULL,
                email varchar(254) NOT NULL,
                is_staff bool NOT NULL, is_active bool NOT NULL, date_joined {date} NOT NULL,
                first_name varchar(150) NOT NULL);
             INSERT INTO auth_user (id, password, is_superuser, username, last_name, email, is_staff,
                is_active, date_joined, first_name)
                VALUES (1, '{}', false, 'alice', '', '', false, true, '{}', '')",
            rows::PASSWORD,
            timestamp(Duration::zero()),
        ));
    }
}

/// A key as Django makes them.
pub fn random_key() -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = [0; 32];
    getrandom::fill(&mut random).unwrap();
    random
        .iter()
        .map(|byte| char::from(letters[usize::from(*byte) % letters.len()]))
        .collect()
}

/// A time from now, as Django writes it to SQLite. PostgreSQL reads it as UTC: sqlx sets that zone.
pub fn timestamp(from_now: Duration) -> String {
    (Utc::now() + from_now)
        .format("%Y-%m-%d %H:%M:%S%.6f")
        .to_string()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
