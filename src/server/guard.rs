//! The reader and writer around a client's socket: notes what the deadlines of `pace` need.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{frames::Frames, pace::Pace, places::Place, socket::Socket};
use crate::telemetry::metrics::Held;

/// What HTTP is spoken over.
#[derive(Debug)]
pub enum Transport {
    /// As it comes.
    Plain(Socket),
    /// Inside TLS.
    Tls(Box<TlsStream<Socket>>),
}

/// A client's connection as HTTP sees it.
#[derive(Debug)]
pub struct Guard {
    transport: Transport,
    pace: Arc<Pace>,
    /// Where HTTP/2 is spoken.
    frames: Option<Box<Frames>>,
    /// The connection counts for as long as somebody holds this, a tunnel too.
    _open: (Place, Held),
}

impl Guard {
    /// Watches a connection on which HTTP/1.1 is spoken, or HTTP/2.
    pub fn new(transport: Transport, pace: Arc<Pace>, is_h2: bool, open: (Place, Held)) -> Self {
        Self {
            transport,
            pace,
            frames: is_h2.then(Box::default),
            _open: open,
        }
    }

    fn note_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(frames) = &mut self.frames else {
            // While a request is under way these are its body, or the next one's beginning: that is seen when the
            // rest of it comes.
            if !bytes.is_empty() && !self.pace.is_busy() {
                self.pace.head_begins();
            }
            return Ok(());
        };
        frames.read(bytes);
        if frames.resets_too_much() {
            return Err(io::Error::other("the client resets most of its requests"));
        }
        match frames.is_within() {
            true => self.pace.head_begins(),
            // Until the first head the beginning of the connection counts.
            false if frames.heads() > 0 => self.pace.head_ends(),
            false => {}
        }
        Ok(())
    }

    fn note_written<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &polled {
            Poll::Pending => self.pace.write_blocks(),
            Poll::Ready(_) => self.pace.write_moves(),
        }
        polled
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if let Poll::Ready(Ok(())) = polled {
            self.note_read(&buffer.filled()[before..])?;
        }
        polled
    }
}

impl AsyncWrite for Guard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.note_written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        self.note_written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(socket) => socket.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.note_written(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        self.note_written(polled)
    }
}
