//! The connection to a server below HTTP: any kind of socket, with TLS or without, and whether the server has said
//! anything.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// SETTINGS (RFC 9113, section 6.5): the type of the first frame of every HTTP/2 server.
const SETTINGS: u8 = 4;

/// Anything that bytes go in and out of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How often something has come from the server.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// How often something has come: when it has not changed, nothing has.
    pub fn times(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn hear(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream that notes when it hears something.
pub struct Socket {
    stream: Box<dyn Stream>,
    heard: Heard,
    /// Whether the server is to begin as HTTP/2 does.
    expects_settings: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl Socket {
    /// Listens to a stream.
    pub fn new(stream: Box<dyn Stream>, heard: Heard, expects_settings: bool) -> Self {
        Self {
            stream,
            heard,
            expects_settings,
        }
    }
}

impl Socket {
    /// Whether the server says something.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            return polled;
        }
        if std::mem::take(&mut self.expects_settings)
            && new.get(3).is_some_and(|kind| *kind != SETTINGS)
        {
            return Poll::Ready(Err(io::Error::other("it does not speak HTTP/2")));
        }
        self.heard.hear();
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
