//! A constant load of requests on kept connections, none of which may fail.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::support::{Ask, Connection, eventually};

/// Clients that each keep a connection.
const CLIENTS: u32 = 16;

/// Requests a second, unless SG_TEST_LOAD says otherwise: what a debug build does beside other tests.
const RATE: u32 = 400;

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
    begun: Instant,
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    connections: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What became of it.
pub struct Outcome {
    what: String,
    answered: u64,
    connections: u64,
    failures: Vec<String>,
    took: Duration,
}

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let rate = std::env::var("SG_TEST_LOAD").ok();
        let rate = rate.map_or(RATE, |rate| rate.parse().unwrap());
        let every = Duration::from_secs(1) * CLIENTS / rate;
        let (stop, tally) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let clients = (0..CLIENTS).map(|place| {
            let (stop, tally) = (stop.clone(), tally.clone());
            thread::spawn(move || {
                let mut next = Instant::now() + every * place / CLIENTS;
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    // A client that was held up does not send the missed ones all at once.
                    next = (next + every).max(Instant::now());
                    match ask(address, &mut kept, &tally) {
                        Ok(()) => tally.answered.fetch_add(1, Ordering::Relaxed),
                        Err(failure) => {
                            kept = None;
                            tally.failures.lock().unwrap().push(failure);
                            continue;
                        }
                    };
                }
            })
        });
        let load = Self {
            clients: clients.collect(),
            stop,
            tally,
            begun: Instant::now(),
        };
        load.goes_on(Duration::from_millis(100));
        load
    }

    /// Waits for so long, and until each client has asked again.
    pub fn goes_on(&self, time: Duration) {
        let before = self.tally.answered.load(Ordering::Relaxed);
        thread::sleep(time);
        eventually("the load goes on", || {
            let failed = !self.tally.failures.lock().unwrap().is_empty();
            let now = self.tally.answered.load(Ordering::Relaxed);
            (failed || now >= before + u64::from(CLIENTS)).then_some(())
        });
    }

    /// Ends it.
    pub fn end(self, what: &str) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        Outcome {
            what: what.to_owned(),
            answered: self.tally.answered.load(Ordering::Relaxed),
            connections: self.tally.connections.load(Ordering::Relaxed),
            failures: std::mem::take(&mut self.tally.failures.lock().unwrap()),
            took: self.begun.elapsed(),
        }
    }
}

impl Outcome {
    #[track_caller]
    pub fn lost_nothing(&self) {
        println!(
            "{}: {} requests in {:?}, {:.0} a second, {} connections, {} failed",
            self.what,
            self.answered,
            self.took,
            self.answered as f64 / self.took.as_secs_f64(),
            self.connections,
            self.failures.len()
        );
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
        assert!(self.answered > 100, "{}", self.answered);
    }
}

/// One request. Only a connection whose last answer has said so may be closed; anything else is a lost request.
fn ask(address: SocketAddr, kept: &mut Option<Connection>, tally: &Tally) -> Result<(), String> {
    let reused = kept.is_some();
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        format!("{what} ({}): {error}", if reused { "kept" } else { "new" })
    };
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            tally.connections.fetch_add(1, Ordering::Relaxed);
            Connection::try_open(address).map_err(|error| failed("connecting", &error))?
        }
    };
    let request = Ask::new(address, "GET", "/").bytes();
    connection
        .write(&request)
        .map_err(|error| failed("sending", &error))?;
    let answer = connection
        .try_answer("GET")
        .map_err(|error| failed("reading", &error))?;
    if answer.status != 200 {
        return Err(failed("answered", &answer.status));
    }
    if answer.field("connection") != Some("close") {
        *kept = Some(connection);
    }
    Ok(())
}
