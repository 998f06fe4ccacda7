//! The body of an answer, which its record ends with.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::record::Record;
use crate::body::{Body, BodyError};

/// The body of an answer, and the record of its request, which ends with it.
#[derive(Debug)]
pub struct Recorded {
    body: Body,
    record: Option<Box<Record>>,
    /// A body that broke off has an end too.
    is_broken: bool,
}

impl Recorded {
    /// Keeps the record until the body has ended or is given up.
    pub fn new(body: Body, record: Box<Record>) -> Self {
        Self {
            body,
            record: Some(record),
            is_broken: false,
        }
    }

    /// A body whose record ends elsewhere.
    pub fn elsewhere(body: Body) -> Self {
        Self {
            body,
            record: None,
            is_broken: false,
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(record) = &mut self.record
            && self.body.is_end_stream()
            && !self.is_broken
        {
            record.ended();
        }
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self {
            body,
            record,
            is_broken,
        } = &mut *self;
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let Some(record) = record else {
            return Poll::Ready(frame);
        };
        match &frame {
            None => record.ended(),
            Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => {
                *is_broken = true;
                record.broke_off(error);
            }
        }
        if body.is_end_stream() {
            // Its line is written later: hyper keeps the body until its last byte has left.
            record.frees_places();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
