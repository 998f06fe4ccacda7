//! The reader and writer around a client's socket: notes what the deadlines of `pace` need.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
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
    /// What was read and not understood yet when the connection was set aside.
    unread: Bytes,
    /// The last look for bytes found none.
    is_drained: bool,
    /// What is read and thrown away at the end.
    linger: Option<Box<Linger>>,
    /// The connection counts for as long as somebody holds this, a tunnel too. It counts no more when its place is free:
    /// they are dropped in this order.
    _open: (Held, Place),
}

/// How long, and for how many bytes, a client that is still sending is listened to after the last answer.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGERED: usize = 16 * 1024 * 1024;

#[derive(Debug)]
struct Linger {
    timer: Pin<Box<Sleep>>,
    /// Most bytes.
    left: usize,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            timer: Box::pin(sleep(LINGER)),
            left: MOST_LINGERED,
        }
    }
}

impl Guard {
    /// Watches a connection on which HTTP/1.1 is spoken, or HTTP/2.
    pub fn new(transport: Transport, pace: Arc<Pace>, is_h2: bool, open: (Held, Place)) -> Self {
        Self {
            transport,
            pace,
            frames: is_h2.then(Box::default),
            unread: Bytes::new(),
            is_drained: false,
            linger: None,
            _open: open,
        }
    }

    /// Gives bytes back that belong to who reads next, between two requests. They are copied: the buffer that they lie
    /// in is large, and stays as long as the least of it, be it nothing. Empty lines begin no head (RFC 9112, section
    /// 2.2).
    pub fn unread(&mut self, bytes: &[u8]) {
        let is_text = |byte: &u8| !matches!(byte, b'\r' | b'\n');
        let head = bytes.iter().position(is_text).unwrap_or(bytes.len());
        self.unread = Bytes::copy_from_slice(&bytes[head..]);
    }

    /// Ready when there may be something to read, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // What TLS has decrypted already, no socket tells of.
        if !self.is_drained || !self.unread.is_empty() {
            return Poll::Ready(());
        }
        let socket = match &self.transport {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.get_ref().0,
        };
        socket.poll_readable(cx)
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

    /// Reads on after the last answer, and throws it away, until the client has closed or the time is over. A socket
    /// that is closed while bytes come is reset, and many clients then never see the answer that was sent before.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Linger { timer, left } = &mut **self.linger.get_or_insert_default();
        let mut scratch = [0; 4096];
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            let polled = match &mut self.transport {
                Transport::Plain(socket) => Pin::new(socket).poll_read(cx, &mut buffer),
                Transport::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            };
            match polled {
                Poll::Pending => return timer.as_mut().poll(cx),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(())
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
        if !self.unread.is_empty() {
            let fitting = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(fitting));
            self.note_read(&buffer.filled()[before..])?;
            return Poll::Ready(Ok(()));
        }
        let polled = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        self.is_drained = polled.is_pending();
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
        if self.pace.stays_open() {
            return Poll::Ready(Ok(()));
        }
        self.pace.ends();
        let polled = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        ready!(self.note_written(polled))?;
        if self.pace.lingers() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
