//! The tests' vocabulary: start a gateway, a database, a Django site, an upstream; send requests; look at
//! rows and tokens.
//!
//! Everything started here ends when its value is dropped. Waiting is for a line of output or for an
//! answer, always with a deadline, never for a time.

pub mod database;
pub mod django;
pub mod docs;
pub mod frames;
pub mod gateway;
pub mod http;
pub mod mariadb_server;
pub mod pgbouncer;
pub mod postgres_server;
pub mod process;
pub mod python_upstream;
pub mod rows;
pub mod scene;
pub mod schema;
pub mod tls;
pub mod token;
pub mod upstream;
pub mod websocket;

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

pub use self::{
    database::{Database, Engine},
    django::{Django, Release},
    gateway::Gateway,
    http::{Answer, Ask, Connection},
    mariadb_server::MariaDbServer,
    pgbouncer::PgBouncer,
    postgres_server::PostgresServer,
    process::Process,
    python_upstream::PythonUpstream,
    scene::Scene,
    tls::{Certificate, H2},
    upstream::{Gate, Reply, Seen, Upstream, reply},
};

/// How long anything that should happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The site's SECRET_KEY, unless a test says otherwise.
pub const SECRET_KEY: &str = "django-insecure-of-the-tests-x8$k2!p0@q7v^m4&r1*z6(t3)";

/// The gateway's `issuer`.
pub const ISSUER: &str = "https://gateway.test";

/// Something that answers HTTP.
pub trait Served {
    /// Where.
    fn address(&self) -> SocketAddr;

    /// A GET request.
    fn get(&self, target: &str) -> Ask {
        Ask::new(self.address(), "GET", target)
    }

    /// A POST request.
    fn post(&self, target: &str) -> Ask {
        Ask::new(self.address(), "POST", target)
    }

    /// A request with another method.
    fn ask(&self, method: &str, target: &str) -> Ask {
        Ask::new(self.address(), method, target)
    }
}

/// A variable that `tests/run` sets.
pub fn from_tests_run(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: this test needs Django, PostgreSQL, MariaDB or Node, run it with `tests/run`"
        )
    })
}

/// An address for a server that cannot choose a port by itself, see [`free_port`].
pub fn free_address() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// A port that is free now and stays so until its server starts, also for a second time.
///
/// Nobody else is given it: the system gives higher ones, `tests/run` and examples/shop choose from 20,000 on, the tests
/// of the packages below 14,000.
pub fn free_port() -> u16 {
    static LOOKED_AT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 6_000).unwrap();
    loop {
        // None twice: the server that it was given to may be about to take it.
        let next = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        assert!(next < 6_000, "no port is free");
        let port = 14_000 + (start + next) % 6_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Repeats `attempt` until it gives a value. Panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
