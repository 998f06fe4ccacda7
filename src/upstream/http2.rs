//! HTTP/2 connections to a server: shared by many requests.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use http::{HeaderValue, Request, Uri, header, uri::Scheme};
use hyper::{client::conn::http2::Builder, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use super::{
    connect::Unsent,
    socket::{Heard, Socket},
};
use crate::body::Body;

/// Most requests at the same time on one connection; the server may allow fewer. RFC 9113, section 6.5.2, recommends
/// that no server allows fewer than this.
const MOST_STREAMS: usize = 100;

/// What of one answer waits here for a slow client. A fast one gets 128 MiB a second over a millisecond.
const STREAM_WINDOW: u32 = 128 * 1024;

/// As much for all streams of a connection, so that slow clients never hold up the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;

/// The largest head of an answer.
const HEADER_LIST: u32 = 64 * 1024;

/// A connection without requests is closed after this time.
const IDLE: Duration = Duration::from_secs(60);

/// A connection on which only silent streams are open is asked for a sign of life after this time. gRPC's servers take
/// those for attackers who ask more often than every 5 minutes.
const PING_EVERY: Duration = Duration::from_secs(310);

/// And it has so long to answer.
const PING_WITHIN: Duration = Duration::from_secs(20);

/// A request that was given up after this time, while not a byte came on its connection: the connection is dead.
const DEAF: Duration = Duration::from_secs(1);

/// The way to send on a connection.
type Sender = hyper::client::conn::http2::SendRequest<Body>;

/// A connection. All its tasks end with it.
pub struct Connection {
    sender: Sender,
    /// Whether the server says something.
    pub heard: Heard,
    scheme: Scheme,
    streams: AtomicUsize,
    driver: Driver,
    /// Serves no new requests.
    retired: AtomicBool,
    idle_since: Mutex<Instant>,
    _alive: watch::Sender<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Runs the tasks of a connection until it is gone.
#[derive(Clone)]
struct Tasks {
    alive: watch::Receiver<()>,
    /// Who waits for what one of them reads.
    reads: Arc<AtomicWaker>,
}

impl Tasks {
    fn spawn(&self, future: impl Future<Output: Send> + Send + 'static) {
        let mut alive = self.alive.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = future => {}
                _ = alive.changed() => {}
            }
        });
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let reads = self.reads.clone();
        self.spawn(async move {
            let mut future = pin!(future);
            let future = poll_fn(|cx| {
                let polled = future.as_mut().poll(cx);
                reads.wake();
                polled
            });
            future.await
        });
    }
}

/// What hyper does on a connection, until it is over.
#[derive(Clone)]
struct Driver(Arc<Mutex<Option<Box<Hyper>>>>);

/// A connection as hyper has it.
type Hyper = hyper::client::conn::http2::Connection<TokioIo<Socket>, Body, Tasks>;

impl Driver {
    fn new(connection: Hyper) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(connection)))))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it ends or panics: it is gone then, and who waits for it is told so.
        let Some(mut connection) = place.take() else {
            return Poll::Ready(());
        };
        let polled = Pin::new(&mut connection).poll(cx);
        if polled.is_pending() {
            *place = Some(connection);
        }
        polled.map(drop)
    }

    /// How many streams the server allows; `None` when the connection is over. The server may lower it at any time (RFC
    /// 9113, section 6.5.2), and what is more than it allows would wait inside h2: this is what h2 itself goes by.
    fn allowed(&self) -> Option<usize> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = connection.as_ref()?;
        Some(connection.current_max_send_streams())
    }
}

impl Connection {
    /// Speaks HTTP/2 on a socket, and waits until the server does, too, and has said how many streams it allows.
    pub async fn begin(socket: Socket, heard: Heard, scheme: Scheme) -> Result<Arc<Self>, Unsent> {
        let (alive, tasks) = watch::channel(());
        let reads = Arc::new(AtomicWaker::new());
        let tasks = Tasks {
            alive: tasks,
            reads: reads.clone(),
        };
        let (sender, connection) = Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .max_header_list_size(HEADER_LIST)
            // None until the server's SETTINGS say how many: what is more than it allows would wait inside h2.
            .initial_max_send_streams(0)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .handshake(TokioIo::new(socket))
            .await?;
        let driver = Driver::new(connection);
        let begun = Arc::new(AtomicWaker::new());
        let (drives, tells) = (driver.clone(), begun.clone());
        // Not by `execute`, or it would wake itself.
        tasks.spawn(poll_fn(move |cx| {
            // SETTINGS and GOAWAY are read by another task, at any time, and hyper tells this one only of requests.
            reads.register(cx.waker());
            let polled = drives.poll(cx);
            tells.wake();
            polled
        }));
        let allows_some = poll_fn(|cx| {
            begun.register(cx.waker());
            match driver.allowed() {
                Some(0) => Poll::Pending,
                allowed => Poll::Ready(allowed.is_some()),
            }
        });
        // One that ends the connection after its first words speaks HTTP/2 all the same.
        if !allows_some.await && heard.times() == 0 {
            return Err(Unsent::NotHttp2);
        }
        Ok(Arc::new(Self {
            sender,
            heard,
            scheme,
            streams: AtomicUsize::new(0),
            driver,
            retired: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            _alive: alive,
        }))
    }

    /// Takes a stream, if one is free.
    fn open(self: &Arc<Self>) -> Option<Stream> {
        if self.streams.load(Ordering::Relaxed) >= MOST_STREAMS {
            return None;
        }
        let most = MOST_STREAMS.min(self.driver.allowed()?);
        let one_more = |streams: usize| (streams < most).then_some(streams + 1);
        let before = self
            .streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        before.ok().map(|before| Stream {
            connection: self.clone(),
            was_idle: before == 0,
            body: None,
            waits: None,
        })
    }

    /// Whether it takes no new requests.
    fn is_over(&self) -> bool {
        let idle = || {
            let since = self.idle_since.lock();
            since.unwrap_or_else(PoisonError::into_inner).elapsed() > IDLE
        };
        self.sender.is_closed()
            || self.retired.load(Ordering::Relaxed)
            || self.streams.load(Ordering::Relaxed) == 0 && idle()
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

/// The connections to a server.
#[derive(Debug, Default)]
pub struct Shared {
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Held by whoever opens one: the others wait for it, and do not open one each.
    opening: tokio::sync::Mutex<()>,
}

impl Shared {
    /// A stream on a connection that is there.
    pub fn take(&self) -> Option<Stream> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_over());
        connections.iter().find_map(Connection::open)
    }

    /// A stream on a connection that is there or that `open` makes, and whether it was there.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub async fn take_or<F>(&self, open: impl FnOnce() -> F) -> Result<(Stream, bool), Unsent>
    where
        F: Future<Output = Result<Arc<Connection>, Unsent>>,
    {
        if let Some(stream) = self.take() {
            return Ok((stream, true));
        }
        let _opening = self.opening.lock().await;
        if let Some(stream) = self.take() {
            return Ok((stream, true));
        }
        let connection = open().await?;
        let closed = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        let stream = connection.open().ok_or_else(closed)?;
        self.put(connection);
        Ok((stream, false))
    }

    /// Keeps a connection.
    pub fn put(&self, connection: Arc<Connection>) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.push(connection);
    }

    /// Closes those that will not be used any more.
    pub fn sweep(&self) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_over());
    }
}

/// One request's part of a connection.
#[derive(Debug)]
pub struct Stream {
    connection: Arc<Connection>,
    /// Whether there was no other request when it began.
    pub was_idle: bool,
    /// The request's body seen from beside it.
    body: Option<Arc<crate::body::Watch>>,
    /// Since when there is no answer, and what had been heard by then.
    waits: Option<(Instant, u64)>,
}

impl Stream {
    /// The connection's ears.
    pub fn heard(&self) -> &Heard {
        &self.connection.heard
    }

    /// A way to send; the request must be in the form that [`to_http2`](Self::to_http2) makes.
    pub fn sender(&mut self, request: &Request<Body>) -> Sender {
        self.body = request.body().watch().cloned();
        self.waits = Some((Instant::now(), self.heard().times()));
        self.connection.sender.clone()
    }

    /// An answer has come.
    pub fn has_answer(&mut self) {
        self.waits = None;
    }

    /// The connection takes no more requests.
    pub fn retire(&self) {
        self.connection.retire();
    }

    /// Whether the server says that it has not processed the request (RFC 9113, sections 6.8 and 8.7): it may be sent
    /// again whatever it is.
    pub fn has_refused(&self, error: &hyper::Error) -> bool {
        let source = std::error::Error::source(error);
        let Some(error) = source.and_then(|source| source.downcast_ref::<h2::Error>()) else {
            return false;
        };
        if !error.is_remote() {
            return false;
        }
        // h2 gives this error to the streams beyond the last one that GOAWAY names, and to no others.
        if error.is_go_away() {
            self.retire();
        }
        let is_reset = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        is_reset || error.is_go_away()
    }

    /// Host becomes `:authority`; what only HTTP/1.1 has goes.
    pub fn to_http2(&self, request: &mut Request<Body>) {
        let headers = request.headers_mut();
        headers.remove(header::TRANSFER_ENCODING);
        let Some(host) = headers.remove(header::HOST) else {
            return;
        };
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.connection.scheme.clone());
        parts.authority = host.as_bytes().try_into().ok();
        // An origin-form target and an authority that was admitted make a URL.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Undoes [`Stream::to_http2`].
pub fn from_http2(request: &mut Request<Body>) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = None;
    let authority = parts.authority.take();
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The rest of a request's body that nobody wants would wait for room on the connection, and its client with it.
        let body_is_stuck = self.body.as_ref().is_some_and(|body| !body.has_finished());
        let is_deaf = self.waits.is_some_and(|(since, heard)| {
            since.elapsed() > DEAF && self.connection.heard.times() == heard
        });
        if body_is_stuck || is_deaf {
            self.connection.retire();
        }
        let mut idle_since = self
            .connection
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *idle_since = Instant::now();
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
