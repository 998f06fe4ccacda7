//! How often somebody has come lately, for everybody at once, in memory that never grows.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use pingora_limits::estimator::Estimator;

use crate::config::Rate;

/// A count-min sketch: each key adds to one counter of each row, and its count is the least of them. So a count is
/// never too small, and too large only for a key that shares a counter in *every* row. With a million keys in one
/// interval every count is about eleven keys' worth too large; with 10,000 keys one of 2,500 is, by about one key's. A
/// sketch takes 2 MiB.
const ROWS: usize = 4;
const COLUMNS: usize = 65_536;

/// Counts of three intervals: this one, the one before, and the one to come, which is cleared before it begins so
/// that nothing is counted while it is cleared. The count of a sliding interval is that of this one and as much of
/// the one before as it reaches into.
pub struct Window {
    requests: f64,
    every: Duration,
    began: Instant,
    /// Which interval since `began` it is.
    interval: AtomicU64,
    counts: [Estimator; 3],
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("requests", &self.requests)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

impl Window {
    /// Nobody has come yet.
    pub fn new(rate: &Rate, now: Instant) -> Self {
        let counts = [(); 3].map(|()| Estimator::new(ROWS, COLUMNS));
        Self {
            requests: f64::from(rate.requests),
            every: rate.every,
            began: now,
            interval: AtomicU64::new(0),
            counts,
        }
    }

    /// Counts a request of this key.
    ///
    /// # Errors
    ///
    /// There were too many; this one is not counted. After this time there is room again.
    pub fn enter(&self, key: u64, now: Instant) -> Result<(), Duration> {
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        let every = self.every.as_nanos().max(1);
        let interval = u64::try_from(elapsed / every).unwrap_or(u64::MAX);
        let gone = (elapsed % every) as f64 / every as f64;
        self.turn(interval);

        let current = self.counts_of(interval).incr(key, 1) as f64;
        let previous = match interval.checked_sub(1) {
            Some(previous) => self.counts_of(previous).get(key) as f64,
            None => 0.0,
        };
        if previous * (1.0 - gone) + current <= self.requests {
            return Ok(());
        }
        self.counts_of(interval).decr(key, 1);
        // With what others may have counted at the same moment, a little too long.
        let until = if current <= self.requests {
            1.0 - (self.requests - current) / previous.max(1.0)
        } else {
            2.0 - (self.requests - 1.0) / (current - 1.0).max(1.0)
        };
        Err(self.every.mul_f64((until - gone).max(0.0)))
    }

    fn counts_of(&self, interval: u64) -> &Estimator {
        // The remainder is 0, 1 or 2.
        &self.counts[(interval % 3) as usize]
    }

    /// Clears what the intervals since the last request have made old.
    fn turn(&self, interval: u64) {
        let last = self.interval.load(Ordering::Acquire);
        if interval <= last {
            return;
        }
        let turned =
            self.interval
                .compare_exchange(last, interval, Ordering::AcqRel, Ordering::Acquire);
        // Somebody else does it.
        if turned.is_err() {
            return;
        }
        // The next one was cleared when the last one began; after a pause more is old.
        let passed = interval - last;
        let first = match passed {
            1 => interval + 1,
            2 => interval,
            _ => interval.saturating_sub(1),
        };
        for old in first..=interval + 1 {
            self.counts_of(old).reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::RateBy;

    fn window(requests: u32, every: u64, now: Instant) -> Window {
        let rate = Rate {
            by: RateBy::Address,
            requests,
            every: Duration::from_secs(every),
        };
        Window::new(&rate, now)
    }

    #[test]
    fn one_too_many_is_told_when_to_come_again_and_may_then() {
        let began = Instant::now();
        let window = window(3, 10, began);
        for _ in 0..3 {
            window.enter(1, began).unwrap();
        }
        let wait = window.enter(1, began + Duration::from_secs(2)).unwrap_err();
        // The three count until a third of the next interval is over.
        assert!(
            (wait.as_secs_f64() - (8.0 + 10.0 / 3.0)).abs() < 0.01,
            "{wait:?}"
        );
        window.enter(2, began).unwrap();
        let again = began + Duration::from_secs(2) + wait;
        window
            .enter(1, again - Duration::from_millis(100))
            .unwrap_err();
        window.enter(1, again + Duration::from_millis(1)).unwrap();
    }

    #[test]
    fn after_a_pause_of_any_length_nothing_is_left() {
        for pause in [2, 3, 4, 5, 100] {
            let began = Instant::now();
            let window = window(1, 1, began);
            for key in 0..50 {
                window.enter(key, began).unwrap();
            }
            let later = began + Duration::from_secs(pause);
            for key in 0..50 {
                assert_eq!(window.enter(key, later), Ok(()), "{pause} {key}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However the requests come: never more than twice the number in any sliding interval, never more than
        /// the number in one that begins with an interval of ours, and who waits as told is let in.
        #[test]
        fn nobody_comes_more_often_than_allowed(
            requests in 1..20_u32,
            gaps in prop::collection::vec(0..3000_u64, 1..200),
        ) {
            let began = Instant::now();
            let window = window(requests, 5, began);
            let mut at = 0;
            let mut admitted = Vec::new();
            for gap in gaps {
                at += gap;
                match window.enter(7, began + Duration::from_millis(at)) {
                    Ok(()) => admitted.push(at),
                    Err(wait) => {
                        prop_assert!(wait <= Duration::from_secs(10), "{:?}", wait);
                        at += u64::try_from(wait.as_millis()).unwrap() + 1;
                        prop_assert!(window.enter(7, began + Duration::from_millis(at)).is_ok());
                        admitted.push(at);
                    }
                }
            }
            for from in &admitted {
                let within = |start: u64| admitted.iter().filter(|at| (start..start + 5000).contains(*at)).count();
                prop_assert!(within(*from) <= 2 * requests as usize);
                prop_assert!(within(from / 5000 * 5000) <= requests as usize);
            }
        }
    }
}
