//! One server: its connections, how busy it is, and what is thought of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Response;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{
    Answered, Outgoing,
    connect::{Connected, Target, Transport, Unsent},
    health::{Available, Health, Turn},
    http1, http2,
    wire::{self, Wire, WireError},
};
use crate::{
    config::{self, Protocol},
    telemetry::metrics::{Held, Metrics, ServerMetrics},
};

/// A connection that breaks within this time, without a byte of an answer, was being closed when the request was
/// sent: a round trip in a data centre takes a fraction of it, and work that ends in a crash mostly more.
const CROSSED: Duration = Duration::from_millis(100);

/// One of `servers` as the file has it: one server, or the addresses of a name.
#[derive(Debug)]
pub struct Entry {
    /// The upstream's name.
    pub upstream: String,
    /// As the file has it.
    pub name: String,
    /// What stands in `Host` for the server itself.
    pub host: String,
    /// Where it is.
    pub address: config::ServerAddress,
    /// How it is spoken to.
    pub transport: Transport,
    /// What is counted of it.
    pub metrics: ServerMetrics,
}

impl Entry {
    /// An entry that nothing is known of.
    pub fn new(upstream: &config::Upstream, server: &config::Server, metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.server(&upstream.name, &server.name),
            upstream: upstream.name.clone(),
            name: server.name.clone(),
            host: server.host().to_owned(),
            address: server.address.clone(),
            transport: Transport::new(upstream, server),
        }
    }

    /// Whether this is the same server, spoken to in the same way.
    pub fn is_same(&self, other: &Self) -> bool {
        let all = |entry: &Self| (entry.upstream.clone(), entry.name.clone());
        all(self) == all(other)
            && self.address == other.address
            && self.transport == other.transport
    }
}

/// One address that serves.
pub struct Server {
    /// What it belongs to.
    pub entry: Arc<Entry>,
    /// Where it is.
    pub target: Target,
    idle: http1::Idle,
    shared: http2::Shared,
    in_flight: AtomicUsize,
    created: Instant,
    state: Mutex<State>,
    /// Milliseconds after `created` from which on it may be asked; [`NEVER`] while it may not.
    available_from: AtomicU64,
    /// Whether a good answer would change nothing.
    is_spotless: AtomicBool,
    unreachable: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    health: Health,
    last_error: Option<String>,
    /// Counts it among those that are asked, or those that are not.
    counted_as: Held,
}

/// See [`Server::available_from`].
const NEVER: u64 = u64::MAX;

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.entry.name)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that nothing is known of.
    pub fn new(entry: Arc<Entry>, target: Target) -> Self {
        let state = State {
            health: Health::default(),
            last_error: None,
            counted_as: Held::new(&entry.metrics.up),
        };
        Self {
            entry,
            target,
            idle: http1::Idle::default(),
            shared: http2::Shared::default(),
            in_flight: AtomicUsize::new(0),
            created: Instant::now(),
            state: Mutex::new(state),
            available_from: AtomicU64::new(0),
            is_spotless: AtomicBool::new(true),
            unreachable: watch::Sender::new(false),
        }
    }

    /// Requests and tunnels that it is busy with.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it may be asked.
    pub fn is_available(&self) -> bool {
        match self.available_from.load(Ordering::Relaxed) {
            0 => true,
            NEVER => false,
            from => from <= self.milliseconds(Instant::now()),
        }
    }

    /// Why it was left out the last time.
    pub fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    /// Tells whether connections can be made.
    pub fn unreachable(&self) -> watch::Receiver<bool> {
        self.unreachable.subscribe()
    }

    /// Closes connections that will not be used any more.
    pub fn sweep(&self) {
        self.idle.sweep();
        self.shared.sweep();
    }

    /// A connection that is there, or a new one; only a new one where `fresh`. With `is_plain` it is for a request
    /// that [`is_plain`](super::is_plain).
    ///
    /// # Errors
    ///
    /// No byte was sent.
    pub async fn connection(
        self: &Arc<Self>,
        is_plain: bool,
        within: Duration,
        fresh: bool,
    ) -> Result<Lease, Unsent> {
        let busy = Busy::new(self.clone());
        if !fresh && self.entry.transport.protocol() == Protocol::Http1 {
            let wire = || self.idle.take_wire().map(Way::Wire);
            let hyper = || {
                let connection = self.idle.take_hyper();
                connection.map(|connection| Way::Hyper(Hyper::Http1(connection)))
            };
            let way = match is_plain {
                true => wire().or_else(hyper),
                false => hyper(),
            };
            if let Some(way) = way {
                let reused = true;
                return Ok(Lease { way, busy, reused });
            }
        }
        // Boxed: most requests need none of this.
        let (way, reused) = Box::pin(self.connect(is_plain, within, fresh)).await?;
        Ok(Lease { way, busy, reused })
    }

    /// A way that is not just there, and whether its connection was.
    async fn connect(
        &self,
        is_plain: bool,
        within: Duration,
        fresh: bool,
    ) -> Result<(Way, bool), Unsent> {
        if self.entry.transport.protocol() == Protocol::Http2 {
            let open = || async {
                match self.open(within).await? {
                    Connected::Http2(connection) => Ok(connection),
                    Connected::Http1(_) => Err(Unsent::NotHttp2),
                }
            };
            let (stream, reused) = self.shared.take_or(open).await?;
            return Ok((Way::Hyper(Hyper::Http2(stream)), reused));
        }
        // A plain request would have had it by now.
        let idle = match fresh || is_plain {
            true => None,
            false => self.idle.take_wire(),
        };
        let reused = idle.is_some();
        let wire = match idle {
            Some(wire) => wire,
            None => match self.open(within).await? {
                Connected::Http1(wire) => wire,
                Connected::Http2(_) => return Err(Unsent::NotHttp2),
            },
        };
        let way = match is_plain {
            true => Way::Wire(wire),
            false => {
                let connection = http1::Connection::begin(wire.into_socket()).await?;
                Way::Hyper(Hyper::Http1(connection))
            }
        };
        Ok((way, reused))
    }

    /// Opens a connection and keeps it for later. What comes of it is noted.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn probe(&self, within: Duration) -> Result<(), Unsent> {
        match self.open(within).await? {
            Connected::Http1(wire) => self.idle.put_wire(wire),
            Connected::Http2(connection) => self.shared.put(connection),
        }
        Ok(())
    }

    async fn open(&self, within: Duration) -> Result<Connected, Unsent> {
        match self.entry.transport.connect(&self.target, within).await {
            Ok(connected) => {
                self.entry.metrics.connections.inc();
                if *self.unreachable.borrow() {
                    self.note(None, Health::connected);
                }
                Ok(connected)
            }
            Err(error) => {
                if !error.is_own_fault() {
                    self.note(Some(&error.to_string()), Health::cannot_connect);
                }
                Err(error)
            }
        }
    }

    /// A request was answered.
    fn answered(&self) {
        if !self.is_spotless.load(Ordering::Relaxed) {
            self.note(None, |health| health.answered(Instant::now()));
        }
    }

    /// A request got no answer that counts. `is_last`: no other server may be asked.
    pub fn no_answer(&self, cause: &str, is_last: bool) {
        self.note(Some(cause), |health| {
            health.no_answer(Instant::now(), is_last)
        });
    }

    /// A check had the right answer.
    pub fn check_passed(&self, rise: u32) {
        self.note(None, |health| health.check_passed(rise));
    }

    /// A check had the wrong answer or none.
    pub fn check_failed(&self, cause: &str, fall: u32) {
        self.note(Some(cause), |health| health.check_failed(fall));
    }

    /// There are no checks any more: those of the configuration before, which may still be under way, count no more.
    pub fn unchecked(&self) {
        self.note(None, |health| {
            health.unchecked();
            None
        });
    }

    /// There are checks.
    pub fn checked(&self) {
        self.note(None, |health| {
            health.checked();
            None
        });
    }

    /// Takes in what was seen, and logs a turn.
    fn note(&self, error: Option<&str>, event: impl FnOnce(&mut Health) -> Option<Turn>) {
        let mut state = self.lock();
        let turn = event(&mut state.health);
        if let Some(error) = error {
            state.last_error = Some(error.to_owned());
        }
        let from = match state.health.available() {
            Available::Yes => 0,
            // A moment that has come would be 0 otherwise.
            Available::From(from) => self.milliseconds(from).max(1),
            Available::No => NEVER,
        };
        self.available_from.store(from, Ordering::Relaxed);
        state.counted_as = Held::new(match from {
            0 => &self.entry.metrics.up,
            _ => &self.entry.metrics.left_out,
        });
        self.is_spotless
            .store(state.health.is_spotless(), Ordering::Relaxed);
        self.unreachable.send_if_modified(|unreachable| {
            let now = state.health.is_unreachable();
            std::mem::replace(unreachable, now) != now
        });
        drop(state);
        if let Some(turn) = turn {
            self.log(turn, error.unwrap_or_default());
        }
    }

    fn log(&self, turn: Turn, cause: &str) {
        let (upstream, server) = (self.entry.upstream.as_str(), self.entry.name.as_str());
        let address = self.target.to_string();
        if matches!(turn, Turn::Unreachable | Turn::Banned(_) | Turn::Down) {
            self.entry.metrics.turns_for_the_worse.inc();
        }
        match turn {
            Turn::Unreachable => {
                tracing::warn!(
                    upstream,
                    server,
                    address,
                    cause,
                    "a server cannot be reached and is left out until it can"
                );
            }
            Turn::Banned(time) => {
                let seconds = time.as_secs();
                tracing::warn!(
                    upstream,
                    server,
                    address,
                    cause,
                    seconds,
                    "a server gives no answers and is left out for a while"
                );
            }
            Turn::Down => {
                tracing::warn!(
                    upstream,
                    server,
                    address,
                    cause,
                    "a server's checks fail and it is left out until they succeed"
                );
            }
            Turn::Reached => {
                tracing::info!(upstream, server, address, "a server can be reached again");
            }
            Turn::Trusted => {
                tracing::info!(upstream, server, address, "a server gives answers again");
            }
            Turn::Up => {
                tracing::info!(upstream, server, address, "a server's checks succeed again");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn milliseconds(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.created);
        u64::try_from(since.as_millis()).unwrap_or(NEVER - 1)
    }
}

/// Counts as a request in flight.
#[derive(Debug)]
struct Busy {
    server: Arc<Server>,
    _held: Held,
}

impl Busy {
    fn new(server: Arc<Server>) -> Self {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        let held = Held::new(&server.entry.metrics.requests_in_flight);
        Self {
            server,
            _held: held,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in use, or a part of a shared one. Dropped, it is closed, and what was under way ends.
#[derive(Debug)]
pub struct Lease {
    way: Way,
    busy: Busy,
    /// Whether the connection was there before.
    pub reused: bool,
}

#[derive(Debug)]
enum Way {
    Wire(Wire),
    Hyper(Hyper),
}

/// A connection that hyper drives.
#[derive(Debug)]
enum Hyper {
    Http1(http1::Connection),
    Http2(http2::Stream),
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The connection, which was there before, had ended; nothing was sent. Another one may be taken, and as each of
    /// these goes with its end, there is one at last that was not there before.
    Ended(Box<Outgoing>),
    /// The server has not looked at it; here is the request again, if it is still there.
    NotSent(Option<Box<Outgoing>>),
    /// The connection broke before an answer came. The server may have acted.
    Broken {
        /// What broke.
        error: SendError,
        /// The request, where it is still there.
        request: Option<Box<Outgoing>>,
        /// Whether the connection had been idle and broke at once and in silence: then the server has closed it
        /// while the request was on its way.
        crossed: bool,
    },
}

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// On one of hyper's.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// On one of our own.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Lease {
    /// Whose connection it is.
    pub fn server(&self) -> &Arc<Server> {
        &self.busy.server
    }

    /// Whether the server can turn a request away without having looked at it and without giving it back.
    pub fn may_refuse(&self) -> bool {
        matches!(self.way, Way::Hyper(Hyper::Http2(_)))
    }

    /// Whether a request is still there when its connection has broken.
    pub fn keeps_request(&self) -> bool {
        matches!(self.way, Way::Wire(_))
    }

    /// What the rest of an answer is read from.
    pub fn wire(&mut self) -> Option<&mut Wire> {
        match &mut self.way {
            Way::Wire(wire) => Some(wire),
            Way::Hyper(_) => None,
        }
    }

    /// Sends a request and waits for the head of its answer, without a time limit of its own.
    ///
    /// # Errors
    ///
    /// The request may have been carried out, unless it was [`NotSent`](Unanswered::NotSent) or its connection had
    /// [`Ended`](Unanswered::Ended).
    pub async fn send(mut self, request: Outgoing) -> Result<Answered, Unanswered> {
        let wire = match &mut self.way {
            Way::Wire(wire) => wire,
            Way::Hyper(hyper) => {
                // Boxed: most requests need none of this.
                let response = Box::pin(hyper.send(request, self.reused)).await?;
                self.server().answered();
                return Ok(Answered::of_hyper(self, response));
            }
        };
        let started = Instant::now();
        match wire.ask(wire::encode(&request), request.method()).await {
            Ok(answer) => {
                self.server().answered();
                Ok(Answered::of_wire(self, answer))
            }
            Err(failure) => Err(Unanswered::Broken {
                crossed: self.reused && failure.silent && started.elapsed() < CROSSED,
                error: failure.error.into(),
                request: Some(Box::new(request)),
            }),
        }
    }

    /// Makes the connection idle. Only after the whole answer was read, and the whole request sent.
    pub fn give_back(self) {
        let idle = &self.busy.server.idle;
        match self.way {
            Way::Wire(wire) => idle.put_wire(wire),
            Way::Hyper(Hyper::Http1(connection)) => idle.put_hyper(connection),
            Way::Hyper(Hyper::Http2(_)) => {}
        }
    }
}

impl Hyper {
    async fn send(
        &mut self,
        mut request: Outgoing,
        reused: bool,
    ) -> Result<Response<Incoming>, Unanswered> {
        let started = Instant::now();
        let (sent, was_idle, silent) = match self {
            Self::Http1(connection) => {
                let heard = connection.heard.times();
                let sent = connection.sender.try_send_request(request).await;
                (sent, true, connection.heard.times() == heard)
            }
            Self::Http2(stream) => {
                stream.to_http2(&mut request);
                let heard = stream.heard().times();
                let sent = stream.sender(&request).try_send_request(request).await;
                stream.has_answer();
                (sent, stream.was_idle, stream.heard().times() == heard)
            }
        };
        let mut failed = match sent {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        };
        if let Some(mut request) = failed.take_message() {
            if let Self::Http2(stream) = self {
                stream.retire();
                http2::from_http2(&mut request);
            }
            let request = Box::new(request);
            return Err(match reused {
                true => Unanswered::Ended(request),
                false => Unanswered::NotSent(Some(request)),
            });
        }
        let error = failed.into_error();
        if let Self::Http2(stream) = self
            && stream.has_refused(&error)
        {
            return Err(Unanswered::NotSent(None));
        }
        Err(Unanswered::Broken {
            crossed: reused && was_idle && silent && started.elapsed() < CROSSED,
            error: error.into(),
            request: None,
        })
    }
}
