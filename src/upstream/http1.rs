//! One HTTP/1.1 connection to a server, and those that are idle.
//!
//! Our own pool over hyper's connections, because a gateway must know what a generic client hides: whether a
//! connection was used before, and whether a byte of the answer has come. Only then is a retry safe. And a
//! connection that is given up must end at once, with the request body that it still holds.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::socket::{Heard, Socket};
use crate::body::Body;

/// How long an idle connection is trusted. Shorter than the keep-alive of common servers (Node and uvicorn
/// close after 5 s), so that a request seldom meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// Most idle connections kept for one server.
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
    pub async fn begin(socket: Socket, heard: Heard) -> hyper::Result<Self> {
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
pub struct Idle(Mutex<Vec<Resting>>);

#[derive(Debug)]
struct Resting {
    connection: Connection,
    since: Instant,
}

impl Idle {
    /// One that can be used at once.
    pub fn take(&self) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The latest first, so that the others can grow old. One whose last answer is still being finished
        // by its task is passed over.
        let mut place = idle.len();
        while place > 0 {
            place -= 1;
            let candidate = &idle[place];
            if candidate.is_over() {
                idle.swap_remove(place);
            } else if candidate.connection.sender.is_ready() {
                return Some(idle.remove(place).connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read, and whose last request was sent as a whole.
    pub fn put(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            let since = Instant::now();
            idle.push(Resting { connection, since });
        }
    }

    /// Closes those that will not be used any more.
    pub fn sweep(&self) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|resting| !resting.is_over());
    }
}

impl Resting {
    fn is_over(&self) -> bool {
        self.connection.sender.is_closed() || self.since.elapsed() > IDLE
    }
}
