//! The body of an answer that came over a [`Wire`](super::wire::Wire), read by whoever wants it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{
    decode::{Framing, Part},
    server::Lease,
    wire::WireError,
};
use crate::body::{Body, BodyError};

/// Room for the next read: it grows while all of it is used.
const LEAST_ROOM: usize = 8 * 1024;
const MOST_ROOM: usize = 128 * 1024;

/// What has not come yet. Dropped before its end, the connection is closed.
pub struct Rest {
    /// There until the end.
    lease: Option<Lease>,
    framing: Framing,
    /// Whether the connection goes back at the end.
    is_kept: bool,
    come: BytesMut,
    room: usize,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl Rest {
    /// The body of an answer of which `begun` has come, never silent for longer than `idle`. Where that is all of it, the
    /// connection goes back at once.
    pub fn body(
        lease: Lease,
        framing: Framing,
        begun: Bytes,
        is_kept: bool,
        idle: Duration,
    ) -> Body {
        if let Framing::Length(length) = framing
            && let Ok(length) = usize::try_from(length)
            && begun.len() >= length
        {
            // More than was announced is an answer to nobody.
            if is_kept && begun.len() == length {
                lease.give_back();
            }
            return match length {
                // Keeps the size that an answer to HEAD or a 304 speaks of: hyper takes it from the field.
                0 => Body::Empty,
                length => Body::Full(begun.slice(..length)),
            };
        }
        let rest = Self {
            lease: Some(lease),
            framing,
            is_kept,
            come: begun.into(),
            room: LEAST_ROOM,
        };
        Body::read(rest, idle)
    }

    fn end(&mut self) {
        let lease = self.lease.take();
        if let Some(lease) = lease.filter(|_| self.is_kept && self.come.is_empty()) {
            lease.give_back();
        }
    }

    /// The next part of what has come.
    fn part(&mut self) -> Result<Option<Part>, WireError> {
        match &mut self.framing {
            Framing::Chunked(chunked) => Ok(chunked.next(&mut self.come)?),
            Framing::Length(0) => Ok(Some(Part::End(HeaderMap::new()))),
            _ if self.come.is_empty() => Ok(None),
            Framing::Length(left) => {
                let here = usize::try_from(*left)
                    .map_or(self.come.len(), |left| left.min(self.come.len()));
                *left -= here as u64;
                Ok(Some(Part::Data(self.come.split_to(here).freeze())))
            }
            Framing::Close => Ok(Some(Part::Data(self.come.split().freeze()))),
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, WireError>> {
        loop {
            if let Some(part) = self.part()? {
                return Poll::Ready(Ok(Some(part)));
            }
            let Some(wire) = self.lease.as_mut().and_then(Lease::wire) else {
                return Poll::Ready(Err(WireError::Closed));
            };
            let before = self.come.len();
            if !ready!(wire.poll_read(cx, &mut self.come, self.room))? {
                return Poll::Ready(match self.framing {
                    Framing::Close => Ok(None),
                    Framing::Length(_) | Framing::Chunked(_) => Err(WireError::Closed),
                });
            }
            if self.come.len() - before >= self.room {
                self.room = (self.room * 2).min(MOST_ROOM);
            }
        }
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        let part = match ready!(self.poll_part(cx)) {
            Ok(part) => part,
            Err(error) => {
                self.lease = None;
                return Poll::Ready(Some(Err(BodyError::Broken(Box::new(error)))));
            }
        };
        match part {
            Some(Part::Data(data)) => {
                if self.framing == Framing::Length(0) {
                    self.end();
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Part::End(trailers)) => {
                self.end();
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::Close => SizeHint::default(),
        }
    }
}
