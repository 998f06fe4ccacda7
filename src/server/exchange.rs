//! A request's answer on its way to the client, and the tasks of HTTP/2 that carry it.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pace::Exchange;
use crate::{body::BodyError, gateway::Recorded};

thread_local! {
    /// Since when the stream that is being polled waits for its client: between a part of the body that was handed
    /// over and the wish for the next one. hyper spawns a future of its own for each stream, which polls our body;
    /// they have nothing else in common.
    static HANDED_OVER: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The body of an answer. The exchange ends with it.
#[derive(Debug)]
pub struct Answer {
    body: Recorded,
    is_h2: bool,
    _exchange: Exchange,
}

impl Answer {
    /// The exchange lasts as long as this.
    pub fn new(body: Recorded, is_h2: bool, exchange: Exchange) -> Self {
        Self {
            body,
            is_h2,
            _exchange: exchange,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_h2 {
            HANDED_OVER.set(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.is_h2 {
            HANDED_OVER.set(Some(Instant::now()));
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

/// Runs the streams of an HTTP/2 connection, and gives those up whose client leaves no room for their answer: one that
/// is never read holds a connection to an upstream, while the client's connection is alive.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// `timeouts.send`.
    pub send: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        tokio::spawn(unless_blocked(stream, self.send));
    }
}

/// Runs a stream until its client has not taken a part of the answer for so long. Then the stream is reset.
async fn unless_blocked<F: Future>(stream: F, most: Duration) -> Option<F::Output> {
    let mut stream = pin!(stream);
    let mut since = None;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        HANDED_OVER.set(since);
        let polled = stream.as_mut().poll(cx);
        since = HANDED_OVER.take();
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        let Some(since) = since else {
            return Poll::Pending;
        };
        let deadline = since + most;
        // Only an answer that waits pays for a timer, which is not set anew for each part of it.
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(None);
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_ends_when_its_client_takes_nothing_and_only_then() {
        let most = Duration::from_millis(50);
        // An upstream that is slow is not the client's fault.
        let slow = async {
            HANDED_OVER.set(None);
            tokio::time::sleep(most * 4).await;
            1
        };
        assert_eq!(unless_blocked(slow, most).await, Some(1));
        let begun = Instant::now();
        let mut polls = 0;
        let stalled = poll_fn(|cx| {
            polls += 1;
            if polls == 1 {
                HANDED_OVER.set(Some(Instant::now()));
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert_eq!(unless_blocked(stalled, most).await, None);
        assert!(begun.elapsed() >= most);
        assert!(polls > 1, "the moment outlives a poll");
        assert_eq!(HANDED_OVER.take(), None);
    }
}
