//! Bodies as they stream through: bounded in size and in silence, with reserved names kept out of trailers.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::SET_COOKIE};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, timeout},
};

use crate::reserved;

/// How long the end of a request is awaited whose whole body is there: it is on its way.
const END_OF_STREAM: Duration = Duration::from_secs(5);

/// Whether a Transfer-Encoding is exactly `chunked`, the only one that is understood here.
pub fn is_chunked(coding: &HeaderValue) -> bool {
    coding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked")
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side broke it off or sent something that is not HTTP.
    #[error("the body broke off: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Over `limits.request_body`.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// Silence for longer than allowed.
    #[error("the body made no progress in time")]
    Idle,
    /// Whoever gets it may not have it any more.
    #[error("the body was cut off: its reader may not have it any more")]
    Cut,
}

/// How a body is ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As if it were the end.
    Cleanly,
    /// So that nobody can take it for the whole.
    Off,
}

impl BodyError {
    /// What to look for: I/O errors and parser states, which never quote what was sent.
    pub fn cause(&self) -> String {
        let Self::Broken(error) = self else {
            return self.to_string();
        };
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(Box::new(error))
    }
}

/// A body that is streamed on, or one of the gateway's own.
#[derive(Debug, Default)]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// These bytes.
    Full(Bytes),
    /// Somebody else's bytes as they come.
    Stream(Box<Stream>),
}

/// What is done when the whole of a body was read.
type AtEnd = Box<dyn FnOnce() + Send>;

/// Where the bytes come from.
enum Source {
    /// hyper.
    Hyper(Incoming),
    /// Somebody who gives back by himself what he reads from.
    Own(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

/// A body under way. Boxed: it is far larger than the usual empty one.
pub struct Stream {
    /// There until this is dropped.
    inner: Option<Source>,
    remaining: Option<u64>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    watch: Option<Arc<Watch>>,
    at_end: Option<AtEnd>,
    /// What may end it before its end.
    cut: Option<Pin<Box<dyn Future<Output = Cut> + Send>>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// What is seen of a request body from beside it: when it last moved, and why it failed.
#[derive(Debug)]
pub struct Watch {
    start: Instant,
    moved: AtomicU64,
    received: AtomicU64,
    too_large: AtomicBool,
    failed: AtomicBool,
    finished: AtomicBool,
}

impl Watch {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            moved: AtomicU64::new(0),
            received: AtomicU64::new(0),
            too_large: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        }
    }

    /// When a byte last came.
    pub fn last_moved(&self) -> Instant {
        self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether the body was cut for its size.
    pub fn was_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Whether the client's side of the body failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether the whole body was read.
    pub fn has_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
    }
}

impl Body {
    /// A request's body on its way to the upstream: at most `most` bytes, never silent for longer than `idle`.
    pub fn request(
        inner: Incoming,
        most: Option<u64>,
        idle: Duration,
    ) -> (Self, Option<Arc<Watch>>) {
        if inner.is_end_stream() {
            return (Self::Empty, None);
        }
        let watch = Arc::new(Watch::new());
        let stream = Stream {
            inner: Some(Source::Hyper(inner)),
            remaining: most,
            idle,
            timer: None,
            watch: Some(watch.clone()),
            at_end: None,
            cut: None,
        };
        (Self::Stream(Box::new(stream)), Some(watch))
    }

    /// What is seen of a request's body from beside it, if it is one.
    pub fn watch(&self) -> Option<&Arc<Watch>> {
        match self {
            Self::Stream(stream) => stream.watch.as_ref(),
            Self::Empty | Self::Full(_) => None,
        }
    }

    /// A response's body on its way to the client. `at_end` runs when the whole of it was read, and only then.
    pub fn response(
        inner: Incoming,
        idle: Duration,
        at_end: impl FnOnce() + Send + 'static,
    ) -> Self {
        if inner.is_end_stream() {
            at_end();
            // Keeps the size that a HEAD or 304 answer speaks of: hyper takes it from the field.
            return Self::Empty;
        }
        Self::streamed(Source::Hyper(inner), idle, Some(Box::new(at_end)))
    }

    /// The same from a reader that knows by itself when it has ended.
    pub fn read(
        reader: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static,
        idle: Duration,
    ) -> Self {
        Self::streamed(Source::Own(Box::pin(reader)), idle, None)
    }

    fn streamed(inner: Source, idle: Duration, at_end: Option<AtEnd>) -> Self {
        Self::Stream(Box::new(Stream {
            inner: Some(inner),
            remaining: None,
            idle,
            timer: None,
            watch: None,
            at_end,
            cut: None,
        }))
    }

    /// Ends the body when `cut` is ready. One that is here already has ended.
    pub fn end_with(&mut self, cut: impl Future<Output = Cut> + Send + 'static) {
        if let Self::Stream(stream) = self {
            stream.cut = Some(Box::pin(cut));
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Full(text.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => {
                let cut = stream.cut.as_mut().map(|cut| cut.as_mut().poll(cx));
                match cut {
                    None | Some(Poll::Pending) => stream.poll(cx),
                    Some(Poll::Ready(cut)) => {
                        // With it goes the connection that it came on.
                        *self = Self::Empty;
                        Poll::Ready((cut == Cut::Off).then_some(Err(BodyError::Cut)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream
                .inner
                .as_ref()
                .map(Source::size_hint)
                .unwrap_or_default(),
        }
    }
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Own(reader) => reader.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Own(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Own(reader) => reader.size_hint(),
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let polled = inner.poll_frame(cx);
        if polled.is_pending() {
            // Only a body that keeps somebody waiting pays for a timer.
            let idle = self.idle;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(self.fail(BodyError::Idle))));
        }
        self.timer = None;
        if let Some(watch) = &self.watch {
            watch.moved();
        }
        let Some(frame) = ready!(polled) else {
            self.end();
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
        };
        if let (Some(watch), Some(data)) = (&self.watch, frame.data_ref()) {
            watch
                .received
                .fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if let (Some(remaining), Some(data)) = (&mut self.remaining, frame.data_ref()) {
            match remaining.checked_sub(data.len() as u64) {
                Some(left) => *remaining = left,
                None => return Poll::Ready(Some(Err(self.fail(BodyError::TooLarge)))),
            }
        }
        if self.is_end_stream() {
            self.end();
        }
        // What comes after a request's body is believed by some servers like its head, which was checked.
        if self.watch.is_some() && frame.is_trailers() {
            self.end();
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(without_reserved_trailers(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Source::is_end_stream)
    }

    fn end(&mut self) {
        if let Some(watch) = &self.watch {
            watch.finished.store(true, Ordering::Relaxed);
        }
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        if let Some(watch) = &self.watch {
            watch
                .too_large
                .store(matches!(error, BodyError::TooLarge), Ordering::Relaxed);
            watch.failed.store(true, Ordering::Relaxed);
        }
        error
    }
}

/// A client of HTTP/2 that has sent as much as it has announced may still send the end itself, as an empty frame. Nobody
/// waits for that. But a stream that is given up before its end is reset (RFC 9113, section 8.1), and there are clients
/// that lose the answer by it, such as Python's httpx.
impl Drop for Stream {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take().filter(|_| self.watch.is_some()) else {
            return;
        };
        if inner.is_end_stream() || inner.size_hint().exact() != Some(0) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let end = poll_fn(|cx| inner.poll_frame(cx));
                // Whatever comes, the stream is over then.
                let _ = timeout(END_OF_STREAM, end).await;
            });
        }
    }
}

fn without_reserved_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    if frame.is_data() {
        return frame;
    }
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(scrubbed(trailers)),
        Err(frame) => frame,
    }
}

fn scrubbed(mut trailers: HeaderMap) -> HeaderMap {
    let reserved: Vec<_> = trailers
        .keys()
        .filter(|name| reserved::in_response(name.as_str()) || **name == SET_COOKIE)
        .cloned()
        .collect();
    for name in reserved {
        trailers.remove(name);
    }
    trailers
}
