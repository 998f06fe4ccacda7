//! Connections to one server: opened, kept while idle, taken again.
//!
//! Our own pool over hyper's connections, because a gateway must know what a generic client hides: whether a
//! connection was used before, and whether a byte of the request may have left. Only then is a retry safe.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{Answered, Outgoing};
use crate::body::Body;

/// How long an idle connection is trusted. Shorter than the keep-alive of common servers (Node and uvicorn
/// close after 5 s), so that a request seldom meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// Most idle connections kept for one server.
const MOST_IDLE: usize = 256;

/// One server of an upstream.
pub struct Server {
    authority: String,
    idle: Mutex<Vec<Idle>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection in use.
pub struct Lease {
    sender: SendRequest<Body>,
    server: Arc<Server>,
    /// Whether it has served a request before.
    pub reused: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.server)
            .field("reused", &self.reused)
            .finish()
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
        /// Whether the connection had been idle: then the server has most likely closed it.
        reused: bool,
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
        }
    }

    /// `host:port`, as configured.
    pub fn authority(&self) -> &str {
        &self.authority
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
        match idle {
            Some(sender) => Ok(Lease {
                sender,
                server: self.clone(),
                reused: true,
            }),
            None => self.connect(within).await,
        }
    }

    async fn connect(self: &Arc<Self>, within: Duration) -> Result<Lease, Unsent> {
        let stream = timeout(within, TcpStream::connect(&self.authority))
            .await
            .map_err(|_| Unsent::Timeout)??;
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new().handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // How it ended is told to whoever waits for a response.
            let _ = connection.await;
        });
        Ok(Lease {
            sender,
            server: self.clone(),
            reused: false,
        })
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The latest first, so that the others can grow old. One whose last answer is still being finished
        // by its task is passed over.
        let mut place = idle.len();
        while place > 0 {
            place -= 1;
            let candidate = &idle[place];
            if candidate.sender.is_closed() || candidate.since.elapsed() > IDLE {
                idle.swap_remove(place);
            } else if candidate.sender.is_ready() {
                return Some(idle.remove(place).sender);
            }
        }
        None
    }
}

impl Lease {
    /// Sends a request and waits for the head of its answer, without a time limit of its own.
    pub async fn send(mut self, request: Outgoing) -> Sent {
        let reused = self.reused;
        match self.sender.try_send_request(request).await {
            Ok(response) => Sent::Answered(Answered {
                lease: self,
                response,
            }),
            Err(mut failed) => match failed.take_message() {
                Some(request) => Sent::NotSent(Box::new(request)),
                None => Sent::Broken {
                    error: failed.into_error(),
                    reused,
                },
            },
        }
    }

    /// Makes the connection idle. Only after the whole answer was read.
    pub fn give_back(self) {
        let Self { sender, server, .. } = self;
        if sender.is_closed() {
            return;
        }
        let mut idle = server.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}
