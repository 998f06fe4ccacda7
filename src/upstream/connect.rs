//! Connections to one server: opened, kept while idle, taken again.
//!
//! Our own pool over hyper's connections, because a gateway must know what a generic client hides: whether a
//! connection was used before, and whether a byte of the answer has come. Only then is a retry safe. And a
//! connection that is given up must end at once, with the request body that it still holds.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

use super::{
    Answered, Outgoing,
    socket::{Heard, Socket},
};
use crate::body::Body;

/// How long an idle connection is trusted. Shorter than the keep-alive of common servers (Node and uvicorn
/// close after 5 s), so that a request seldom meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// Most idle connections kept for one server.
const MOST_IDLE: usize = 256;

/// A server that could not be reached is passed over for this time, where there is another one.
const PASSED_OVER: Duration = Duration::from_secs(2);

/// A connection that breaks within this time, without a byte of an answer, was being closed when the request was
/// sent: a round trip in a data centre takes a fraction of it, and work that ends in a crash mostly more.
const CROSSED: Duration = Duration::from_millis(100);

/// One server of an upstream.
pub struct Server {
    authority: String,
    idle: Mutex<Vec<Idle>>,
    created: Instant,
    /// Milliseconds after `created` until which it is passed over.
    passed_over_until: AtomicU64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// A connection: the way to send, and the task that does it. The task ends with this.
struct Connection {
    sender: SendRequest<Body>,
    task: AbortHandle,
    heard: Heard,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection in use. Dropped, it is closed.
pub struct Lease {
    connection: Connection,
    server: Arc<Server>,
    /// Whether it has served a request before.
    pub reused: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.server)
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}

/// What came of sending a request.
#[derive(Debug)]
pub enum Sent {
    /// An answer.
    Answered(Answered),
    /// No byte has left; here is the request again.
    NotSent(Box<Outgoing>),
    /// The connection broke before an answer came. The server may have acted.
    Broken {
        /// What broke.
        error: hyper::Error,
        /// Whether the connection had been idle and broke at once and in silence: then the server has closed it
        /// while the request was on its way.
        crossed: bool,
    },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// The server refused or cannot be found.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not within `timeouts.connect`.
    #[error("no connection in time")]
    Timeout,
    /// The connection was closed at once.
    #[error("{0}")]
    Handshake(#[from] hyper::Error),
}

impl Server {
    /// A server at `host:port`.
    pub fn new(authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            idle: Mutex::default(),
            created: Instant::now(),
            passed_over_until: AtomicU64::new(0),
        }
    }

    /// `host:port`, as configured.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether it could not be reached a moment ago.
    pub fn is_passed_over(&self) -> bool {
        self.passed_over_until.load(Ordering::Relaxed) > self.milliseconds()
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// An idle connection, or a new one; only a new one where `fresh`.
    ///
    /// # Errors
    ///
    /// No byte was sent.
    pub async fn connection(
        self: &Arc<Self>,
        within: Duration,
        fresh: bool,
    ) -> Result<Lease, Unsent> {
        let idle = if fresh { None } else { self.take_idle() };
        if let Some(connection) = idle {
            return Ok(Lease {
                connection,
                server: self.clone(),
                reused: true,
            });
        }
        let connected = self.connect(within).await;
        if connected.is_err() {
            let passed_over = u64::try_from(PASSED_OVER.as_millis()).unwrap_or_default();
            self.passed_over_until
                .store(self.milliseconds() + passed_over, Ordering::Relaxed);
        }
        Ok(Lease {
            connection: connected?,
            server: self.clone(),
            reused: false,
        })
    }

    async fn connect(&self, within: Duration) -> Result<Connection, Unsent> {
        let stream = timeout(within, TcpStream::connect(&self.authority))
            .await
            .map_err(|_| Unsent::Timeout)??;
        stream.set_nodelay(true)?;
        let heard = Heard::default();
        let socket = TokioIo::new(Socket::new(stream, heard.clone()));
        let (sender, connection) = Builder::new().handshake(socket).await?;
        let task = tokio::spawn(async move {
            // How it ended is told to whoever waits for a response.
            let _ = connection.with_upgrades().await;
        });
        Ok(Connection {
            sender,
            task: task.abort_handle(),
            heard,
        })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The latest first, so that the others can grow old. One whose last answer is still being finished
        // by its task is passed over.
        let mut place = idle.len();
        while place > 0 {
            place -= 1;
            let candidate = &idle[place];
            if candidate.connection.sender.is_closed() || candidate.since.elapsed() > IDLE {
                idle.swap_remove(place);
            } else if candidate.connection.sender.is_ready() {
                return Some(idle.remove(place).connection);
            }
        }
        None
    }
}

impl Lease {
    /// Sends a request and waits for the head of its answer, without a time limit of its own.
    pub async fn send(mut self, request: Outgoing) -> Sent {
        self.connection.heard.clear();
        let started = Instant::now();
        match self.connection.sender.try_send_request(request).await {
            Ok(response) => Sent::Answered(Answered {
                lease: self,
                response,
            }),
            Err(mut failed) => match failed.take_message() {
                Some(request) => Sent::NotSent(Box::new(request)),
                None => {
                    let silent = !self.connection.heard.anything();
                    let crossed = self.reused && silent && started.elapsed() < CROSSED;
                    Sent::Broken {
                        error: failed.into_error(),
                        crossed,
                    }
                }
            },
        }
    }

    /// Makes the connection idle. Only after the whole answer was read, and the whole request sent.
    pub fn give_back(self) {
        let Self {
            connection, server, ..
        } = self;
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = server.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}
