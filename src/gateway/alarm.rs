//! A timer that one request after the other of a connection waits with. To begin a timer and to end it costs more than
//! all else about waiting, and nearly all that is waited for comes long before: so it stays set, and is only put off
//! when its time has come and somebody waits for a later one.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A connection's timer, while no request has it.
#[derive(Debug, Default)]
pub struct Alarm(Mutex<Option<Pin<Box<Sleep>>>>);

/// Waits for a moment.
#[derive(Debug)]
pub struct Wait<'a> {
    alarm: &'a Alarm,
    /// There until this is dropped. It may wake earlier.
    sleep: Option<Pin<Box<Sleep>>>,
    until: Instant,
}

impl Alarm {
    /// Waits until this moment. Whoever comes while another request has the timer gets one of his own.
    pub fn wait(&self, until: Instant) -> Wait<'_> {
        let sleep = self.lock().take().map(|mut sleep| {
            if sleep.deadline() > until || sleep.is_elapsed() {
                sleep.as_mut().reset(until);
            }
            sleep
        });
        Wait {
            alarm: self,
            sleep: Some(sleep.unwrap_or_else(|| Box::pin(sleep_until(until)))),
            until,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Pin<Box<Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait<'_> {
    /// Another moment, which is later.
    pub fn put_off(&mut self, until: Instant) {
        self.until = until;
    }

    /// Ready when the moment has come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            return Poll::Ready(());
        };
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= self.until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(self.until);
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        *self.alarm.lock() = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker, time::Duration};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn each_wait_ends_at_its_own_moment_whatever_came_before() {
        let alarm = Alarm::default();
        // Nothing before; one that was later, earlier, and over.
        for before in [None, Some(LONG), Some(SHORT / 4), Some(Duration::ZERO)] {
            if let Some(before) = before {
                let mut given_up = alarm.wait(Instant::now() + before);
                let _ = given_up.poll(&mut Context::from_waker(Waker::noop()));
            }
            let until = Instant::now() + SHORT;
            let mut wait = alarm.wait(until);
            poll_fn(|cx| wait.poll(cx)).await;
            assert!(Instant::now() >= until, "{before:?}");
            wait.put_off(until + SHORT);
            poll_fn(|cx| wait.poll(cx)).await;
            assert!(Instant::now() >= until + SHORT, "{before:?}");
        }
    }

    #[tokio::test]
    async fn the_timer_goes_to_the_next_and_never_to_two() {
        let alarm = Alarm::default();
        let until = Instant::now() + LONG;
        let (one, other) = (alarm.wait(until), alarm.wait(until));
        drop((one, other));
        assert!(alarm.lock().is_some());
        let next = alarm.wait(until);
        assert!(alarm.lock().is_none());
        drop(next);
        assert!(alarm.lock().is_some());
    }
}
