//! The deadlines of a client connection: a head that has begun must end, an idle connection is closed, and a client
//! must read what it gets.
//!
//! What happens is noted by who sees it, without a timer: the reader and writer around the socket, and the exchanges
//! themselves. One timer for the connection looks at the notes when the earliest deadline of before has come. So a
//! request that comes in one piece never touches a timer.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Timeouts;

/// What is noted of a connection. Moments are milliseconds since its beginning and one, so that 0 is never.
#[derive(Debug)]
pub struct Pace {
    begun: Instant,
    head: Duration,
    idle: Duration,
    send: Duration,
    /// When what must soon be whole began: a head, or an HTTP/2 frame.
    head_since: AtomicU64,
    /// Since when nothing can be written.
    blocked_since: AtomicU64,
    /// When the last exchange ended.
    quiet_since: AtomicU64,
    /// Exchanges under way.
    open: AtomicU32,
    /// It is a tunnel now, with deadlines of its own.
    tunnel: AtomicBool,
    /// Its last answer comes before the end of the request.
    lingers: AtomicBool,
}

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// A head has not ended.
    Head,
    /// Nothing was asked.
    Idle,
    /// The client does not read.
    Send,
}

impl Pace {
    /// A connection begins, with a head that is expected at once.
    pub fn new(timeouts: &Timeouts) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            head: timeouts.head,
            idle: timeouts.idle,
            send: timeouts.send,
            head_since: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
            quiet_since: AtomicU64::new(1),
            open: AtomicU32::new(0),
            tunnel: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        let elapsed = self.begun.elapsed().as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1
    }

    fn since(&self, moment: u64, most: Duration) -> Instant {
        self.begun + Duration::from_millis(moment - 1) + most
    }

    /// Bytes came that need not be a whole head.
    pub fn head_begins(&self) {
        if self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// What had begun is whole.
    pub fn head_ends(&self) {
        if self.head_since.load(Relaxed) != 0 {
            self.head_since.store(0, Relaxed);
        }
    }

    /// The socket takes nothing.
    pub fn write_blocks(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.now(), Relaxed);
        }
    }

    /// The socket took something.
    pub fn write_moves(&self) {
        if self.blocked_since.load(Relaxed) != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    /// A request came.
    pub fn begin(self: &Arc<Self>) -> Exchange {
        self.open.fetch_add(1, Relaxed);
        Exchange(self.clone())
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    /// From now on these deadlines do not hold.
    pub fn become_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    /// Whether the client may still be sending when the connection ends.
    pub fn lingers(&self) -> bool {
        self.lingers.load(Relaxed)
    }

    /// The earliest deadline.
    fn deadline(&self) -> Option<(Instant, Overdue)> {
        if self.tunnel.load(Relaxed) {
            return None;
        }
        let noted = |moment: u64, most, why| (moment > 0).then(|| (self.since(moment, most), why));
        let head = noted(self.head_since.load(Relaxed), self.head, Overdue::Head);
        let send = noted(self.blocked_since.load(Relaxed), self.send, Overdue::Send);
        let idle = match head.is_none() && !self.is_busy() {
            true => noted(self.quiet_since.load(Relaxed), self.idle, Overdue::Idle),
            false => None,
        };
        let deadlines = [head, send, idle].into_iter().flatten();
        deadlines.min_by_key(|(deadline, _)| *deadline)
    }
}

/// A request and its answer, until the answer's last byte was handed over or given up.
#[derive(Debug)]
pub struct Exchange(Arc<Pace>);

impl Exchange {
    /// The answer ends the connection, and perhaps the request has not ended: see [`Pace::lingers`].
    pub fn lingers(&self) {
        self.0.lingers.store(true, Relaxed);
    }

    /// See [`Pace::become_tunnel`].
    pub fn becomes_tunnel(&self) {
        self.0.become_tunnel();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = self.0.now();
        self.0.quiet_since.store(now, Relaxed);
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Tells when a deadline has passed.
#[derive(Debug)]
pub struct Timer {
    pace: Arc<Pace>,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    /// Watches over a connection.
    pub fn new(pace: Arc<Pace>) -> Self {
        let sleep = Box::pin(sleep_until(pace.begun + pace.head));
        Self { pace, sleep }
    }

    /// Ready with the deadline that has passed. To be asked after everything else of the connection, because that
    /// is what sets deadlines.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        loop {
            let deadline = self.pace.deadline();
            // An exchange may end elsewhere without a word, so at times it is looked whether there is a deadline.
            let next = match deadline {
                Some((deadline, _)) => deadline,
                None => self.sleep.deadline().max(Instant::now()) + self.pace.idle,
            };
            if deadline.is_some() && next < self.sleep.deadline() {
                self.sleep.as_mut().reset(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match deadline {
                Some((deadline, why)) if deadline <= Instant::now() => return Poll::Ready(why),
                _ => self.sleep.as_mut().reset(next),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use super::*;

    const HEAD: Duration = Duration::from_millis(40);
    const IDLE: Duration = Duration::from_millis(120);
    const SEND: Duration = Duration::from_millis(80);

    fn pace() -> Arc<Pace> {
        Pace::new(&Timeouts {
            head: HEAD,
            idle: IDLE,
            send: SEND,
            ..Timeouts::default()
        })
    }

    async fn overdue(timer: &mut Timer) -> (Duration, Overdue) {
        let why = poll_fn(|cx| timer.poll(cx)).await;
        (timer.pace.begun.elapsed(), why)
    }

    fn is_pending(timer: &mut Timer) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        timer.poll(&mut cx).is_pending()
    }

    #[tokio::test]
    async fn the_first_head_must_end_in_time_counted_from_the_start() {
        let pace = pace();
        let mut timer = Timer::new(pace.clone());
        assert!(is_pending(&mut timer));
        // What dribbles does not begin anew.
        pace.head_begins();
        assert_eq!(pace.deadline(), Some((pace.begun + HEAD, Overdue::Head)));
        let (when, why) = overdue(&mut timer).await;
        assert!(why == Overdue::Head && when >= HEAD);
    }

    #[tokio::test]
    async fn a_later_head_is_counted_from_its_first_byte_and_idling_from_the_last_answer() {
        let pace = pace();
        let mut timer = Timer::new(pace.clone());
        let exchange = pace.begin();
        pace.head_ends();
        assert_eq!(pace.deadline(), None, "an answer may take its time");
        tokio::time::sleep(IDLE * 2).await;
        assert!(is_pending(&mut timer));
        drop(exchange);
        let (deadline, why) = pace.deadline().unwrap();
        assert!(why == Overdue::Idle && deadline > Instant::now());
        let (when, why) = overdue(&mut timer).await;
        assert!(why == Overdue::Idle && when >= IDLE * 3 - Duration::from_millis(2));
    }

    #[tokio::test]
    async fn a_timer_that_was_set_for_idling_is_set_back_for_a_head() {
        let pace = Pace::new(&Timeouts {
            head: HEAD,
            idle: Duration::from_secs(3600),
            ..Timeouts::default()
        });
        let mut timer = Timer::new(pace.clone());
        drop(pace.begin());
        pace.head_ends();
        tokio::time::sleep(HEAD * 2).await;
        assert!(is_pending(&mut timer));
        assert!(timer.sleep.deadline() > Instant::now() + Duration::from_secs(3000));
        pace.head_begins();
        assert_eq!(overdue(&mut timer).await.1, Overdue::Head);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_left_and_a_tunnel_never() {
        let pace = pace();
        let mut timer = Timer::new(pace.clone());
        let exchange = pace.begin();
        pace.head_ends();
        pace.write_blocks();
        pace.write_moves();
        assert_eq!(pace.deadline(), None);
        pace.write_blocks();
        let (when, why) = overdue(&mut timer).await;
        assert!(why == Overdue::Send && when >= SEND);
        exchange.becomes_tunnel();
        drop(exchange);
        assert!(is_pending(&mut timer));
        assert_eq!(pace.deadline(), None);
    }
}
