//! Carries bytes both ways between a client and an upstream, until one of them or the gateway ends it.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, split},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Ending,
    frames::{self, Frames},
};

/// Most bytes that are read at once. They are read onto the stack, so that a silent tunnel holds no buffer.
const PIECE: usize = 16 * 1024;

/// How long a frame that is under way may take to its end when the tunnel is to be closed, and then the close
/// frame to be taken. A client that reads nothing must not keep what it may not have any more.
const LAST_FRAME: Duration = Duration::from_secs(5);

/// How long the sides may take to close after a close frame. A connection that is closed with unread bytes is
/// reset, and the close frame with it.
const LINGER: Duration = Duration::from_secs(2);

/// Most silence when one side has ended: it will ask for nothing more.
const HALF_CLOSED: Duration = Duration::from_secs(60);

/// What to carry.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Most silence, in both directions together.
    pub idle: Duration,
    /// Whether the bytes are frames of RFC 6455, and the end is told in one.
    pub is_websocket: bool,
}

/// What was carried, to be read at any time.
#[derive(Debug, Default)]
pub struct Carried {
    /// Bytes to the client.
    pub to_client: AtomicU64,
    /// Bytes to the upstream.
    pub to_upstream: AtomicU64,
}

/// Carries until both sides have ended, one of them has failed, it was silent for too long, or `ending` is ready.
/// Gives why the gateway ended it, if it did.
pub async fn carry(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    terms: Terms,
    carried: &Carried,
    ending: impl Future<Output = Ending>,
) -> Option<Ending> {
    let (client, upstream) = (split(client), split(upstream));
    let clock = Clock::default();
    let mut down = Direction::new(upstream.0, client.1, terms, &clock, &carried.to_client);
    let mut up = Direction::new(client.0, upstream.1, terms, &clock, &carried.to_upstream);
    let why = both(&mut down, &mut up, terms.idle, &clock, ending).await;
    if let Some(why) = why {
        let until = Instant::now() + LAST_FRAME;
        let close = async {
            tokio::join!(down.close(why, None), up.close(why, mask()));
        };
        // What could not be told in time, the end of the connection tells.
        if terms.is_websocket && timeout_at(until, close).await.is_ok() {
            let lingering = async { tokio::join!(down.drain(), up.drain()) };
            let _ = timeout_at(Instant::now() + LINGER, lingering).await;
        }
    }
    why
}

/// Carries, and when the gateway is to end it, stops between two frames.
async fn both<R1, W1, R2, W2>(
    down: &mut Direction<'_, R1, W1>,
    up: &mut Direction<'_, R2, W2>,
    idle: Duration,
    clock: &Clock,
    ending: impl Future<Output = Ending>,
) -> Option<Ending>
where
    R1: AsyncRead + Unpin,
    W1: AsyncWrite + Unpin,
    R2: AsyncRead + Unpin,
    W2: AsyncWrite + Unpin,
{
    let stop = AtomicBool::new(false);
    let mut ending = pin!(ending);
    let mut why = None;
    let mut limit = idle;
    let mut until = clock.last_moved() + idle;
    let (mut down_ends, mut up_ends) = (false, false);
    let (mut down, mut up) = (pin!(down.run(&stop)), pin!(up.run(&stop)));
    while !down_ends || !up_ends {
        tokio::select! {
            biased;
            reason = ending.as_mut(), if why.is_none() => {
                why = Some(reason);
            }
            result = down.as_mut(), if !down_ends => {
                down_ends = true;
                if result.is_err() {
                    break;
                }
            }
            result = up.as_mut(), if !up_ends => {
                up_ends = true;
                if result.is_err() {
                    break;
                }
            }
            () = sleep_until(until) => {
                if why.is_some() {
                    break;
                }
                until = clock.last_moved() + limit;
                if until <= Instant::now() {
                    why = Some(Ending::Idle);
                }
            }
        }
        if why.is_some() && !stop.swap(true, Ordering::Relaxed) {
            // Both are looked at again in the next round: who is between two frames stops at once.
            until = Instant::now() + LAST_FRAME;
        } else if why.is_none() && (down_ends || up_ends) {
            limit = idle.min(HALF_CLOSED);
            until = clock.last_moved() + limit;
        }
    }
    why
}

/// A mask that nobody could foresee. Without random numbers, none is worse than this one: what it hides is ours.
fn mask() -> Option<[u8; 4]> {
    let mut mask = [0; 4];
    let _ = getrandom::fill(&mut mask);
    Some(mask)
}

/// When a byte last came, in either direction.
struct Clock {
    start: Instant,
    moved: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            moved: AtomicU64::new(0),
        }
    }
}

impl Clock {
    fn moves(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
    }

    fn last_moved(&self) -> Instant {
        self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }
}

/// One direction.
struct Direction<'a, R, W> {
    from: R,
    to: W,
    frames: Option<Frames>,
    clock: &'a Clock,
    bytes: &'a AtomicU64,
    /// The source has ended, and the target was told so; or it has failed.
    is_over: bool,
    /// Bytes are being written; given up there, nobody knows how many of them have left.
    is_writing: bool,
}

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Direction<'a, R, W> {
    fn new(from: R, to: W, terms: Terms, clock: &'a Clock, bytes: &'a AtomicU64) -> Self {
        Self {
            from,
            to,
            frames: terms.is_websocket.then(Frames::default),
            clock,
            bytes,
            is_over: false,
            is_writing: false,
        }
    }

    /// Until the source ends, or, told to stop, to the end of the frame that is under way.
    async fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let result = self.copy(stop).await;
        self.is_over |= result.is_err();
        result
    }

    async fn copy(&mut self, stop: &AtomicBool) -> io::Result<()> {
        while let Some(piece) = self.read(stop).await? {
            if piece.is_empty() {
                self.is_over = true;
                return self.to.shutdown().await;
            }
            self.clock.moves();
            let count = match &mut self.frames {
                None => piece.len(),
                Some(frames) => frames.pass(&piece, stop.load(Ordering::Relaxed)),
            };
            self.is_writing = true;
            self.to.write_all(&piece[..count]).await?;
            self.to.flush().await?;
            self.is_writing = false;
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What comes next: nothing at the source's end, `None` where it is time to stop.
    async fn read(&mut self, stop: &AtomicBool) -> io::Result<Option<Vec<u8>>> {
        poll_fn(|cx| {
            let is_between = self.frames.as_ref().is_none_or(Frames::is_between);
            if is_between && stop.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(None));
            }
            let mut bytes = [MaybeUninit::uninit(); PIECE];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.from).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(Some(buffer.filled().to_vec())))
        })
        .await
    }

    /// Ends with a close frame, where one may stand.
    async fn close(&mut self, why: Ending, mask: Option<[u8; 4]>) {
        if self.is_over || self.is_writing {
            return;
        }
        if self.frames.as_ref().is_some_and(Frames::can_close) {
            let (code, reason) = why.close_code();
            let _ = self.to.write_all(&frames::close(code, reason, mask)).await;
        }
        let _ = self.to.shutdown().await;
    }

    /// Reads what still comes, for nobody.
    async fn drain(&mut self) {
        let mut bytes = [0; 1024];
        while !self.is_over
            && self
                .from
                .read(&mut bytes)
                .await
                .is_ok_and(|count| count > 0)
        {}
    }
}
