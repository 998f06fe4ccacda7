//! A Django site's database: a SQLite file, or a database in PostgreSQL or MariaDB.

use std::{
    future::Future,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use chrono::{Duration, Utc};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, Row as _, SqliteConnection,
};
use tempfile::TempDir;

use super::{SECRET_KEY, from_tests_run, rows};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
    MariaDb,
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

    /// A MariaDB database with the same.
    pub fn mariadb() -> Self {
        Self::with_tables(Engine::MariaDb)
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
            Engine::MariaDb => Self::in_server(&from_tests_run("SG_TEST_MARIADB_URL")),
        }
    }

    /// A database in a PostgreSQL or MariaDB server, whose address has no database name.
    pub fn in_server(server: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "site_{}_{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::SeqCst)
        );
        let any = match scheme(server) {
            Engine::MariaDb => server.to_owned(),
            _ => format!("{server}/postgres"),
        };
        Self::of(&any).execute(&format!("CREATE DATABASE {name}"));
        Self::of(&format!("{server}/{name}"))
    }

    /// A database in a server that is there, or will be.
    pub fn of(url: &str) -> Self {
        Self {
            engine: scheme(url),
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

    /// The last part of its address: its name in a server.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    /// The port of its server.
    pub fn server_port(&self) -> u16 {
        let (server, _) = self.url.rsplit_once('/').unwrap();
        server.rsplit(':').next().unwrap().parse().unwrap()
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
        self.runtime.block_on(async {
            let mut connection = self.connect().await.unwrap();
            connection.run(sql).await.unwrap();
            connection.close().await;
        });
    }

    /// The first column of a query, as text.
    pub fn query(&self, sql: &str) -> Vec<String> {
        self.runtime.block_on(async {
            let mut connection = self.connect().await.unwrap();
            let found = connection.fetch(sql).await;
            connection.close().await;
            found
        })
    }

    /// A connection that stays open.
    pub fn open(&self) -> Open {
        let runtime = runtime();
        let connection = runtime.block_on(self.connect()).unwrap();
        Open {
            runtime,
            connection,
        }
    }

    /// Whether the server can be asked something now.
    pub fn answers(&self) -> bool {
        self.runtime.block_on(async {
            let Ok(mut connection) = self.connect().await else {
                return false;
            };
            connection.run("SELECT 1").await.is_ok()
        })
    }

    /// Holds the lock of a session's row (SQLite: of the file) while `work` runs.
    pub fn while_locked<T>(&self, key: &str, work: impl FnOnce() -> T) -> T {
        let begin = match self.engine {
            Engine::Sqlite => "BEGIN IMMEDIATE".to_owned(),
            Engine::Postgres | Engine::MariaDb => format!(
                "BEGIN; UPDATE django_session SET session_key = session_key WHERE session_key = '{key}'"
            ),
        };
        let mut connection = self.block_on(self.connect()).unwrap();
        self.block_on(connection.run(&begin)).unwrap();
        let result = work();
        self.block_on(connection.run("ROLLBACK")).unwrap();
        self.block_on(connection.close());
        result
    }

    /// Begins a transaction of another writer, in PostgreSQL or MariaDB.
    pub fn begin(&self) -> Transaction<'_> {
        let connection = self.block_on(self.connect()).unwrap();
        let mut transaction = Transaction {
            database: self,
            connection,
        };
        transaction.run("BEGIN");
        transaction
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    async fn connect(&self) -> sqlx::Result<Connection> {
        Ok(match self.engine {
            Engine::Sqlite => {
                let options = sqlx::sqlite::SqliteConnectOptions::new()
                    .filename(self.file())
                    .create_if_missing(true)
                    .busy_timeout(super::PATIENCE);
                Connection::Sqlite(SqliteConnection::connect_with(&options).await?)
            }
            Engine::Postgres => Connection::Postgres(PgConnection::connect(&self.url).await?),
            Engine::MariaDb => Connection::MariaDb(MySqlConnection::connect(&self.url).await?),
        })
    }

    /// The tables as Django's migrations make them.
    pub fn create_tables(&self) {
        let (text, date, id) = match self.engine {
            Engine::Sqlite => (
                "text",
                "datetime",
                "integer NOT NULL PRIMARY KEY AUTOINCREMENT",
            ),
            Engine::Postgres => (
                "text",
                "timestamp with time zone",
                "integer NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY",
            ),
            Engine::MariaDb => (
                "longtext",
                "datetime(6)",
                "integer AUTO_INCREMENT NOT NULL PRIMARY KEY",
            ),
        };
        self.execute(&format!(
            "CREATE TABLE django_session (
                session_key varchar(40) NOT NULL PRIMARY KEY, session_data {text} NOT NULL,
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

/// Another writer's transaction, step by step. Without a `COMMIT` it is rolled back.
pub struct Transaction<'a> {
    database: &'a Database,
    connection: Connection,
}

impl Transaction<'_> {
    pub fn run(&mut self, sql: &str) {
        let run = self.connection.run(sql);
        self.database.block_on(run).unwrap();
    }
}

/// A connection that stays open until this is dropped.
pub struct Open {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
}

impl Open {
    /// Runs statements.
    #[track_caller]
    pub fn execute(&mut self, sql: &str) {
        self.try_execute(sql).unwrap();
    }

    /// Runs statements that may fail.
    pub fn try_execute(&mut self, sql: &str) -> sqlx::Result<()> {
        self.runtime.block_on(self.connection.run(sql))
    }
}

/// An open connection.
enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

impl Connection {
    async fn run(&mut self, sql: &str) -> sqlx::Result<()> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(connection) => query.execute(connection).await.map(drop),
            Self::Postgres(connection) => query.execute(connection).await.map(drop),
            Self::MariaDb(connection) => query.execute(connection).await.map(drop),
        }
    }

    async fn fetch(&mut self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => {
                let found = sqlx::query(sql).fetch_all(connection).await.unwrap();
                found.iter().map(|row| row.get(0)).collect()
            }
            Self::Postgres(connection) => {
                let found = sqlx::query(sql).fetch_all(connection).await.unwrap();
                found.iter().map(|row| row.get(0)).collect()
            }
            Self::MariaDb(connection) => {
                let found = sqlx::query(sql).fetch_all(connection).await.unwrap();
                found.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
            Self::MariaDb(connection) => connection.close().await.unwrap(),
        }
    }
}

/// Which database a server's address is for.
fn scheme(url: &str) -> Engine {
    if url.starts_with("mysql:") {
        Engine::MariaDb
    } else {
        Engine::Postgres
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
