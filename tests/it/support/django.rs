//! A real Django site: `tests/django`.

use std::{
    net::SocketAddr,
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{Database, Process, SECRET_KEY, Served, from_tests_run};

/// The app with the engines that merge, which a site has where its settings name it.
const DJANGO_APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/django/src");

/// A release of Django that `tests/run` installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    V42,
    V52,
    V61,
}

impl Release {
    /// As `[django] release` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V42 => "4.2",
            Self::V52 => "5.2",
            Self::V61 => "6.1",
        }
    }

    /// Its Python.
    pub fn python(self) -> String {
        from_tests_run(self.variable())
    }

    /// Whether there is a Python that runs it; `tests/run` says so where there is none.
    pub fn is_installed(self) -> bool {
        self != Self::V61 || std::env::var_os(self.variable()).is_some()
    }

    fn variable(self) -> &'static str {
        match self {
            Self::V42 => "SG_TEST_DJANGO_42",
            Self::V52 => "SG_TEST_DJANGO_52",
            Self::V61 => "SG_TEST_DJANGO_61",
        }
    }
}

/// A running site, with the users alice (1) and bob (2), whose passwords are their names.
pub struct Django {
    address: SocketAddr,
    _process: Process,
}

impl Django {
    /// Makes the tables and users, and starts the site.
    pub fn start(release: Release, database: &Database) -> Self {
        Self::start_with(release, database, &json!({}))
    }

    /// The same with settings of one's own.
    pub fn start_with(release: Release, database: &Database, settings: &Value) -> Self {
        let made = command(release, database, SECRET_KEY, settings)
            .arg("prepare")
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        Self::serve(release, database, SECRET_KEY, settings)
    }

    /// Starts the site on a database that has its tables, with settings of one's own.
    pub fn serve(
        release: Release,
        database: &Database,
        secret_key: &str,
        settings: &Value,
    ) -> Self {
        let process = Process::start(command(release, database, secret_key, settings).arg("serve"));
        Self {
            address: process.address_after("listening on "),
            _process: process,
        }
    }

    /// Runs another command of `manage.py`.
    pub fn manage(
        release: Release,
        database: &Database,
        settings: &Value,
        arguments: &[&str],
    ) -> Output {
        command(release, database, SECRET_KEY, settings)
            .args(arguments)
            .output()
            .unwrap()
    }

    /// The session as Django reads it.
    pub fn session(&self, key: &str) -> Value {
        self.get("/session/").session(key).send().json()["session"].take()
    }

    /// Who Django says the visitor is.
    pub fn user(&self, key: &str) -> Option<String> {
        self.get("/session/").session(key).send().json()["user"]
            .as_str()
            .map(ToOwned::to_owned)
    }
}

impl Served for Django {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn command(release: Release, database: &Database, secret_key: &str, settings: &Value) -> Command {
    let mut command = Command::new(release.python());
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/django"))
        .arg("manage.py")
        .env("PYTHONPATH", DJANGO_APP)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SITE_DATABASE", database.url())
        .env("SITE_SECRET_KEY", secret_key)
        .env("SITE_SETTINGS", settings.to_string());
    command
}
