//! MariaDB servers of one test's own, which may be killed and reconfigured.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use super::{Database, Process, eventually, free_port, from_tests_run};

/// A MariaDB server. It is killed when this is dropped.
pub struct MariaDbServer {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Process>,
}

impl MariaDbServer {
    /// With options of its own.
    pub fn start(options: &[&str]) -> Self {
        let mut server = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            options: options.iter().map(ToString::to_string).collect(),
            process: None,
        };
        server.serve();
        let database = Database::of(&server.url());
        eventually("MariaDB serves", || database.answers().then_some(()));
        server
    }

    /// Its address for the user `shop`, without a database.
    pub fn url(&self) -> String {
        self.url_of("shop")
    }

    pub fn url_of(&self, user: &str) -> String {
        let password = from_tests_run("SG_TEST_MARIADB_PASSWORD");
        format!("mysql://{user}:{password}@{}", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it listens as well.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Runs statements as the user who may do everything.
    pub fn as_root(&self, sql: &str) {
        Database::of(&self.url_of("root")).execute(sql);
    }

    /// Starts it, again after [`kill`](Self::kill).
    pub fn serve(&mut self) {
        from_tests_run("SG_TEST_MARIADB_PASSWORD");
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mariadb"));
        command.arg(self.folder.path()).arg(self.port.to_string());
        self.process = Some(Process::start(command.args(&self.options)));
    }

    /// Kills it, and returns when it is gone.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.process.take() {
            server.signal("KILL");
            server.wait();
        }
    }
}

impl Drop for MariaDbServer {
    fn drop(&mut self) {
        self.kill();
    }
}
