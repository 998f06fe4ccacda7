//! PostgreSQL servers of one test's own, which may be killed, reconfigured and promoted.

use std::process::Command;

use tempfile::TempDir;

use super::{Database, Process, eventually, free_port, from_tests_run, process};

/// A PostgreSQL server. It is killed when this is dropped.
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    /// The server that this one follows, as long as it is not promoted.
    primary: Option<u16>,
    process: Option<Process>,
}

impl PostgresServer {
    /// A primary.
    pub fn start() -> Self {
        Self::on_free_port(None)
    }

    /// A standby of this server, by `pg_basebackup -R`.
    pub fn standby(&self) -> Self {
        let standby = Self::on_free_port(Some(self.port));
        let database = standby.database("postgres");
        assert_eq!(
            database.query("SELECT pg_is_in_recovery()::text"),
            ["true"],
            "a standby"
        );
        standby
    }

    fn on_free_port(primary: Option<u16>) -> Self {
        let mut server = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            primary,
            process: None,
        };
        server.serve();
        let database = server.database("postgres");
        eventually("PostgreSQL serves", || database.answers().then_some(()));
        server
    }

    /// Its address, without a database.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same behind another port.
    pub fn url_at(&self, port: u16) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{port}",
            from_tests_run("SG_TEST_PG_PASSWORD"),
        )
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A database in it.
    pub fn database(&self, name: &str) -> Database {
        Database::of(&format!("{}/{name}", self.url()))
    }

    /// Starts it, again after [`kill`](Self::kill).
    pub fn serve(&mut self) {
        from_tests_run("SG_TEST_PG_BIN");
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres"));
        command.arg(self.folder.path()).arg(self.port.to_string());
        if let Some(port) = self.primary {
            command.arg(port.to_string());
        }
        // An unoptimised build spends 100 ms of CPU on each SCRAM login. Ten at once, on a busy machine, would be
        // the outage.
        command.env("SG_TEST_PG_AUTH", "password");
        self.process = Some(Process::start(&mut command));
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        let process = self.process.as_ref();
        process.map(Process::output).unwrap_or_default()
    }

    /// Kills it and all that it started, and returns when they are gone.
    pub fn kill(&mut self) {
        let Some(mut server) = self.process.take() else {
            return;
        };
        // The parent first: it would start others in their place.
        let mut workers = children(server.id());
        server.signal("KILL");
        server.wait();
        workers.extend(children(server.id()));
        for worker in &workers {
            process::signal(*worker, "KILL");
        }
        eventually("PostgreSQL is gone", || {
            workers.iter().all(|worker| is_gone(*worker)).then_some(())
        });
    }

    /// Changes a setting while it runs, and returns when all connections have it before their next statement.
    pub fn reload_with(&self, name: &str, value: &str) {
        let database = self.database("postgres");
        database.execute(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        database.execute("SELECT pg_reload_conf()");
        // The server tells its processes of the new file before it starts another one, and a process reads the
        // file before the statement that it has received next (PostgreSQL 15, SIGHUP_handler, PostgresMain).
        eventually("a new connection has the setting", || {
            (database.query(&format!("SELECT current_setting('{name}')")) == [value]).then_some(())
        });
    }

    /// Makes a standby the primary, and returns when it is.
    pub fn promote(&mut self) {
        self.primary = None;
        let done = self
            .database("postgres")
            .query("SELECT pg_promote(wait_seconds => 30)::text");
        assert_eq!(done, ["true"], "promoted");
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The processes that this one has started.
fn children(parent: u32) -> Vec<u32> {
    let ids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id| stat(*id).is_some_and(|(_, found)| found == parent))
        .collect()
}

/// A process's state and parent.
fn stat(id: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second column is the name in parentheses, which may hold anything.
    let mut columns = text.rsplit_once(") ")?.1.split(' ');
    Some((
        columns.next()?.chars().next()?,
        columns.next()?.parse().ok()?,
    ))
}

fn is_gone(id: u32) -> bool {
    stat(id).is_none_or(|(state, _)| state == 'Z')
}
