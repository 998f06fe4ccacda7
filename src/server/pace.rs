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

/// After so long without a request an HTTP/1 connection is set aside. Who asks more often pays nothing for it. Who comes
/// in great numbers and stays idle finds the buffers that the ones before have just let go.
pub const REST: Duration = Duration::from_millis(250);

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
    /// The last request has a body, of whose end nothing is known here.
    has_body: AtomicBool,
    /// A request has asked for another protocol: hyper would give the connection up to it, even much later.
    asked_upgrade: AtomicBool,
    /// It is on its way to its end, or what follows is not HTTP.
    ends: AtomicBool,
    /// It is being set aside: the socket stays open.
    stays_open: AtomicBool,
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

/// What it is time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The end of the connection.
    End(Overdue),
    /// Nothing has happened for [`REST`]: what is held for requests can be let go.
    Rest,
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
            has_body: AtomicBool::new(false),
            asked_upgrade: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            stays_open: AtomicBool::new(false),
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

    /// A request came, with a body or without.
    pub fn begin(self: &Arc<Self>, has_body: bool) -> Exchange {
        self.has_body.store(has_body, Relaxed);
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

    /// From now on the connection is never set aside.
    pub fn asks_upgrade(&self) {
        self.asked_upgrade.store(true, Relaxed);
    }

    /// There will be no further request.
    pub fn ends(&self) {
        self.ends.store(true, Relaxed);
    }

    /// Whether the end of HTTP on the connection is not the socket's.
    pub fn stays_open(&self) -> bool {
        self.stays_open.load(Relaxed)
    }

    /// See [`Self::stays_open`].
    pub fn stay_open(&self, stays_open: bool) {
        self.stays_open.store(stays_open, Relaxed);
    }

    /// When the connection can be set aside, if nothing happens until then. Whether a body has ended is not known
    /// here, and what is left of it must never be read as a request.
    fn rest(&self) -> Option<Instant> {
        let is_quiet = self.head_since.load(Relaxed) == 0
            && self.blocked_since.load(Relaxed) == 0
            && !self.is_busy()
            && !self.has_body.load(Relaxed)
            && !self.asked_upgrade.load(Relaxed)
            && !self.ends.load(Relaxed)
            && !self.tunnel.load(Relaxed);
        is_quiet.then(|| self.since(self.quiet_since.load(Relaxed), REST))
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

/// Tells when a deadline has passed, and when a connection can be set aside.
#[derive(Debug)]
pub struct Timer {
    pace: Arc<Pace>,
    sleep: Pin<Box<Sleep>>,
    /// Whether there is something to let go.
    rests: bool,
}

impl Timer {
    /// Watches over a connection.
    pub fn new(pace: Arc<Pace>) -> Self {
        let sleep = Box::pin(sleep_until(pace.begun + pace.head));
        Self {
            pace,
            sleep,
            rests: false,
        }
    }

    /// Whether it tells when the connection can be set aside. At first it does not.
    pub fn tell_rest(&mut self, rests: bool) {
        self.rests = rests;
    }

    /// Ready with what it is time for. To be asked after everything else of the connection, because that is what sets
    /// deadlines.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            let deadline = self.pace.deadline();
            let rest = match self.rests {
                true => self.pace.rest(),
                false => None,
            };
            let next =
                deadline.map(|(deadline, _)| rest.map_or(deadline, |rest| deadline.min(rest)));
            if let Some(next) = next.filter(|next| *next < self.sleep.deadline()) {
                self.sleep.as_mut().reset(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            match deadline {
                Some((deadline, why)) if deadline <= now => return Poll::Ready(Due::End(why)),
                _ if rest.is_some_and(|rest| rest <= now) => return Poll::Ready(Due::Rest),
                _ => {
                    // An exchange may end elsewhere without a word, so at times it is looked whether there is a
                    // deadline.
                    let later = || self.sleep.deadline().max(now) + self.pace.idle;
                    let next = next.unwrap_or_else(later);
                    self.sleep.as_mut().reset(next);
                }
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
        let Due::End(why) = poll_fn(|cx| timer.poll(cx)).await else {
            panic!("nothing was to be set aside");
        };
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
        let exchange = pace.begin(false);
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
        drop(pace.begin(false));
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
        let exchange = pace.begin(false);
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

    #[tokio::test]
    async fn a_connection_is_set_aside_when_nothing_happens_on_it_and_nothing_is_left_to_come() {
        let pace = Pace::new(&Timeouts {
            idle: REST + IDLE,
            ..Timeouts::default()
        });
        let mut timer = Timer::new(pace.clone());
        timer.tell_rest(true);
        drop(pace.begin(false));
        pace.head_ends();
        assert!(is_pending(&mut timer));
        let begun = Instant::now();
        assert_eq!(poll_fn(|cx| timer.poll(cx)).await, Due::Rest);
        assert!(begun.elapsed() + Duration::from_millis(2) >= REST);
        // Set aside, only its deadline counts.
        timer.tell_rest(false);
        assert!(is_pending(&mut timer));
        assert_eq!(poll_fn(|cx| timer.poll(cx)).await, Due::End(Overdue::Idle));

        let rests = |pace: &Pace| pace.rest().is_some();
        assert!(rests(&pace));
        pace.head_begins();
        assert!(!rests(&pace), "a head has begun");
        pace.head_ends();
        pace.write_blocks();
        assert!(!rests(&pace), "an answer has not left");
        pace.write_moves();
        let exchange = pace.begin(false);
        assert!(!rests(&pace), "a request is under way");
        drop(exchange);
        assert!(rests(&pace));
        drop(pace.begin(true));
        assert!(!rests(&pace), "a body may still come");
        drop(pace.begin(false));
        pace.ends();
        assert!(!rests(&pace), "it ends");
    }
}
