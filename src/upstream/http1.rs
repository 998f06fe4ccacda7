//! One HTTP/1.1 connection to a server as hyper speaks it, and those that are idle.
//!
//! Our own pool, because a gateway must know what a generic client hides: whether a
//! connection was used before, and whether a byte of the answer has come. Only then is a retry safe. And a
//! connection that is given up must end at once, with the request body that it still holds.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::{
    socket::{Heard, Socket},
    wire::Wire,
};
use crate::body::Body;

/// How long an idle connection is trusted. Shorter than the keep-alive of common servers (Node and uvicorn
/// close after 5 s), so that a request seldom meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// Most idle connections of a kind kept for one server.
const MOST_IDLE: usize = 256;

/// A connection: the way to send, and the task that does it. The task ends with this.
pub struct Connection {
    /// Sends a request.
    pub sender: SendRequest<Body>,
    task: AbortHandle,
    /// Whether the server says something.
    pub heard: Heard,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on a socket.
    ///
    /// # Errors
    ///
    /// No byte was sent.
    pub async fn begin(socket: Socket) -> hyper::Result<Self> {
        let heard = socket.heard().clone();
        let (sender, connection) = Builder::new().handshake(TokioIo::new(socket)).await?;
        let task = tokio::spawn(async move {
            // How it ended is told to whoever waits for a response.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self {
            sender,
            task: task.abort_handle(),
            heard,
        })
    }
}

/// The idle connections to a server.
#[derive(Debug, Default)]
pub struct Idle(Mutex<Shelves>);

/// By how they were last used.
#[derive(Debug, Default)]
struct Shelves {
    wires: Vec<Resting<Wire>>,
    hypers: Vec<Resting<Connection>>,
}

#[derive(Debug)]
struct Resting<C> {
    connection: C,
    since: Instant,
}

impl Idle {
    /// One that can be used at once for a request without a body.
    pub fn take_wire(&self) -> Option<Wire> {
        let mut idle = self.lock();
        // The latest first, so that the others can grow old.
        while let Some(mut latest) = idle.wires.pop() {
            if latest.is_old() {
                idle.wires.clear();
            } else if latest.connection.is_quiet() {
                return Some(latest.connection);
            }
        }
        None
    }

    /// One of hyper's that can be used at once.
    pub fn take_hyper(&self) -> Option<Connection> {
        let idle = &mut self.lock().hypers;
        // One whose last answer is still being finished by its task is passed over.
        let mut place = idle.len();
        while place > 0 {
            place -= 1;
            let candidate = &idle[place];
            if candidate.is_old() || candidate.connection.sender.is_closed() {
                idle.swap_remove(place);
            } else if candidate.connection.sender.is_ready() {
                return Some(idle.remove(place).connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read.
    pub fn put_wire(&self, wire: Wire) {
        Resting::put(wire, &mut self.lock().wires);
    }

    /// Keeps a connection whose last answer was read, and whose last request was sent as a whole.
    pub fn put_hyper(&self, connection: Connection) {
        if !connection.sender.is_closed() {
            Resting::put(connection, &mut self.lock().hypers);
        }
    }

    /// Closes those that will not be used any more.
    pub fn sweep(&self) {
        let mut idle = self.lock();
        idle.wires
            .retain_mut(|resting| !resting.is_old() && resting.connection.is_quiet());
        idle.hypers
            .retain(|resting| !resting.is_old() && !resting.connection.sender.is_closed());
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Resting<C> {
    fn put(connection: C, shelf: &mut Vec<Self>) {
        if shelf.len() < MOST_IDLE {
            let since = Instant::now();
            shelf.push(Self { connection, since });
        }
    }

    fn is_old(&self) -> bool {
        self.since.elapsed() > IDLE
    }
}
