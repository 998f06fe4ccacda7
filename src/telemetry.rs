//! Logging: how it is set up, and how a warning that could repeat with every request is held back. Metrics.

pub mod access;
pub mod metrics;
pub mod spans;

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tracing_subscriber::{EnvFilter, fmt};

/// The tracing target of the access log.
pub const ACCESS: &str = "access";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends everything that is logged to standard error.
///
/// `level` is a filter as tracing-subscriber's `EnvFilter` reads it: `info`, `debug`,
/// `info,access=off`.
///
/// # Errors
///
/// A sentence, where the filter cannot be read or logging was set up before.
pub fn init(format: Format, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        format!("--log-level {level:?} cannot be read ({error}); it is a level like info, or info,access=off")
    })?;
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let done = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| format!("logging could not be set up: {error}"))?;
    access::start(format);
    Ok(())
}

/// Lets a message through at most once in a while, and counts what it held back.
#[derive(Debug, Default)]
pub struct Throttle {
    next: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    /// A throttle that lets the first message through.
    pub const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// If a message may be written now: how many were held back since the last one.
    pub fn pass(&self, every: Duration) -> Option<u64> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let next = self.next.load(Ordering::Relaxed);
        let taken = now >= next
            && self
                .next
                .compare_exchange(
                    next,
                    now + every.as_secs(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if taken {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeating_message_passes_once_and_is_counted() {
        let throttle = Throttle::new();
        assert_eq!(throttle.pass(Duration::from_secs(3600)), Some(0));
        assert_eq!(throttle.pass(Duration::from_secs(3600)), None);
        assert_eq!(throttle.pass(Duration::from_secs(3600)), None);
        assert_eq!(throttle.held_back.load(Ordering::Relaxed), 2);
    }
}
