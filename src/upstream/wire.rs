//! An HTTP/1.1 connection to a server as requests without a body use it, which are nearly all: the task that asks
//! writes and reads by itself.
//!
//! hyper's connection is a task of its own, which each request and each answer wakes, and it consumes the request.
//! Here nobody is woken but who waits, the request is still whole when the connection turns out to be closed, and an
//! idle connection holds no buffers. Requests with a body, and those for another protocol, go over hyper: they read
//! and write at the same time.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    task::coop::unconstrained,
};

use super::{
    decode::{self, Framing, Malformed},
    socket::Socket,
};
use crate::body::Body;

/// Read at first; most answers are smaller.
const FIRST_READ: usize = 4 * 1024;

/// The head of a usual request.
const USUAL_REQUEST: usize = 2 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Of the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server closed it.
    #[error("the connection was closed before the whole answer had come")]
    Closed,
    /// What came is not HTTP/1.1.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A connection without a request under way.
pub struct Wire {
    socket: Socket,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

/// An answer whose body may still be under way.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub response: Response<()>,
    /// How its body ends.
    pub framing: Framing,
    /// What has come after the head.
    pub begun: Bytes,
    /// Whether the server keeps the connection.
    pub is_kept: bool,
}

/// No answer.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong.
    pub error: WireError,
    /// Whether no byte came.
    pub silent: bool,
}

impl Wire {
    /// A connection that was just opened.
    pub fn new(socket: Socket) -> Self {
        Self { socket }
    }

    /// Gives the socket up to somebody else.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Whether nothing has come while nothing was asked: neither the end nor an answer to nobody.
    pub fn is_quiet(&mut self) -> bool {
        let mut scratch = [0; 1];
        let mut buffer = ReadBuf::new(&mut scratch);
        let socket = &mut self.socket;
        // Whoever has looked at many sockets must not take the runtime's "enough for now" for silence.
        let look = unconstrained(poll_fn(|cx| {
            Pin::new(&mut *socket).poll_read(cx, &mut buffer)
        }));
        let mut cx = Context::from_waker(Waker::noop());
        pin!(look).poll(&mut cx).is_pending()
    }

    /// Whether a request can be sent this way: it has no body, and does not say that it has one.
    pub fn can_send(request: &Request<Body>) -> bool {
        let headers = request.headers();
        matches!(request.body(), Body::Empty)
            && !headers.contains_key(header::UPGRADE)
            && headers
                .get(header::CONTENT_LENGTH)
                .is_none_or(|length| length == "0")
    }

    /// Sends an [`encode`]d request of this method and reads the head of the answer. Interim answers (RFC 9110,
    /// section 15.2) are passed over.
    ///
    /// # Errors
    ///
    /// The connection is of no more use.
    pub async fn ask(&mut self, request: Vec<u8>, method: &Method) -> Result<Answer, Failure> {
        let mut silent = true;
        let asked = self.try_ask(request, method, &mut silent).await;
        asked.map_err(|error| Failure { error, silent })
    }

    async fn try_ask(
        &mut self,
        request: Vec<u8>,
        method: &Method,
        silent: &mut bool,
    ) -> Result<Answer, WireError> {
        self.socket.write_all(&request).await?;
        self.socket.flush().await?;
        drop(request);
        let mut buffer = BytesMut::new();
        let mut looked_at = 0;
        loop {
            if !poll_fn(|cx| self.poll_read(cx, &mut buffer, FIRST_READ)).await? {
                return Err(WireError::Closed);
            }
            *silent = false;
            // A head that comes byte by byte is not parsed anew with each.
            let new = &buffer[looked_at..];
            if looked_at > 0 && new.len() < FIRST_READ && !new.contains(&b'\n') {
                continue;
            }
            let mut come = std::mem::take(&mut buffer).freeze();
            while let Some(head) = decode::head(&come, method)? {
                come.advance(head.length);
                if is_interim(head.response.status()) {
                    continue;
                }
                return Ok(Answer {
                    response: head.response,
                    framing: head.framing,
                    begun: come,
                    is_kept: head.is_kept,
                });
            }
            buffer = come.into();
            looked_at = buffer.len();
        }
    }

    /// Adds what has come to a buffer; `false` at the end of everything.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<bool>> {
        buffer.reserve(room);
        let read = ready!(pin!(self.socket.read_buf(buffer)).poll(cx))?;
        Poll::Ready(Ok(read > 0))
    }
}

/// 101 is the end of HTTP on a connection, and was not asked for here.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The head of a request (RFC 9112, section 3). The body has no bytes.
pub fn encode(request: &Request<Body>) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_REQUEST);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = request.uri().path_and_query();
    out.extend_from_slice(target.map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        if name == header::TRANSFER_ENCODING {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::{net::TcpStream, task::coop::consume_budget};

    use super::*;
    use crate::upstream::socket::Heard;

    /// A connection, and the server's end of it.
    async fn connect() -> (Wire, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let socket = Socket::new(Box::new(stream), Heard::default(), false);
        (Wire::new(socket), listener.accept().unwrap().0)
    }

    /// Uses up what the runtime lets a task do at once.
    async fn be_busy() {
        poll_fn(|cx| {
            while pin!(consume_budget()).poll(cx).is_ready() {}
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_busy_task_takes_no_closed_connection_for_an_idle_one() {
        for says in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let (mut wire, mut server) = connect().await;
            assert!(wire.is_quiet());
            server.write_all(says).unwrap();
            drop(server);
            while wire.is_quiet() {
                tokio::task::yield_now().await;
            }
            be_busy().await;
            assert!(!wire.is_quiet(), "{says:?}");
        }
    }
}
