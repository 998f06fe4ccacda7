//! The clocks by which the bounded mode tells how old an answer is.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// A moment on a clock of this machine that only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// So long after the clock's beginning.
    pub const fn new(since_beginning: Duration) -> Self {
        Self(since_beginning)
    }

    /// How long before this one `earlier` was; `None` if it was not earlier.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0)
    }
}

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// On a clock that only goes forward.
    fn now(&self) -> Moment;

    /// On the wall: what rows expire by.
    fn wall(&self) -> DateTime<Utc>;
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// CLOCK_BOOTTIME: the clock behind [`std::time::Instant`] stands still while a virtual machine sleeps, and
    /// what was read before would seem fresh after.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn now(&self) -> Moment {
        use rustix::time::{ClockId, clock_gettime};

        let time = clock_gettime(ClockId::Boottime);
        // It counts from zero upwards.
        Moment(
            Duration::from_secs(time.tv_sec.unsigned_abs())
                + Duration::from_nanos(time.tv_nsec.unsigned_abs()),
        )
    }

    /// Whether it goes on while the machine sleeps is up to the system.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn now(&self) -> Moment {
        use std::{sync::LazyLock, time::Instant};

        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        Moment(BEGINNING.elapsed())
    }

    fn wall(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order() {
        let [earlier, later] = [3, 5].map(|seconds| Moment::new(Duration::from_secs(seconds)));
        assert_eq!(later.since(earlier), Some(Duration::from_secs(2)));
        assert_eq!(later.since(later), Some(Duration::ZERO));
        assert_eq!(earlier.since(later), None);
        let (before, after) = (SystemClock.now(), SystemClock.now());
        assert!(after.since(before).is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_clock_counts_from_the_boot() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let told = SystemClock.now().0.as_secs_f64();
        assert!((told - uptime).abs() < 5.0, "{told} and {uptime}");
    }
}
