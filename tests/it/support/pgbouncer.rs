//! A PgBouncer in transaction mode before the tests' PostgreSQL, or before a server of one test's own.

use std::process::Command;

use sqlx::{Connection as _, postgres::PgConnectOptions, raw_sql};
use tempfile::TempDir;

use super::{Database, Process, free_port, from_tests_run};

/// A running PgBouncer. It is killed when this is dropped.
pub struct PgBouncer {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl PgBouncer {
    /// Before the server of this database, with at most `size` connections to it.
    pub fn before(database: &Database, size: usize) -> Self {
        Self::with(database, size, &[])
    }

    /// The same with more lines of configuration.
    pub fn with(database: &Database, size: usize, lines: &[&str]) -> Self {
        from_tests_run("SG_TEST_PGBOUNCER");
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let server = database.server_port().to_string();
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pgbouncer"));
        command
            .arg(folder.path())
            .args([port.to_string(), server, size.to_string()])
            .args(lines);
        let process = Process::start(&mut command);
        process.wait_for("process up");
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }

    /// The database through the pooler.
    pub fn to(&self, database: &Database) -> Database {
        Database::of(&self.url(database.name()))
    }

    /// How many clients are connected for this database.
    pub fn clients(&self, database: &Database) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let options: PgConnectOptions = self.url("pgbouncer").parse().unwrap();
        runtime.block_on(async {
            let options = options.extra_float_digits(None);
            let mut console = sqlx::PgConnection::connect_with(&options).await.unwrap();
            let clients = raw_sql("SHOW CLIENTS").fetch_all(&mut console).await;
            let clients = clients.unwrap();
            let names = clients
                .iter()
                .map(|client| sqlx::Row::get::<&str, _>(client, "database"));
            names.filter(|name| *name == database.name()).count()
        })
    }

    fn url(&self, database: &str) -> String {
        let password = from_tests_run("SG_TEST_PG_PASSWORD");
        format!(
            "postgres://postgres:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }
}
