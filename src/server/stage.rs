//! How far a server is on its way to its end, as its connections see it.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use http::{HeaderValue, Response, StatusCode, header};
use tokio::sync::watch;

/// From serving to the end, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing is to end.
    #[default]
    Serving,
    /// Connections still come, until load balancers have noticed. Each HTTP/1 answer says that its connection ends
    /// with it: closed without a word, it could meet a request that is on its way.
    Leaving,
    /// No more connections. HTTP/2 clients are told to go; idle HTTP/1 connections wait for a request to say so.
    Closing,
    /// Connections without a request under way are closed.
    Ending,
}

/// Where a connection sees it.
#[derive(Clone, Debug)]
pub struct Stages(watch::Receiver<Stage>);

impl Stages {
    /// What a server announces here.
    pub fn of(server: &watch::Sender<Stage>) -> Self {
        Self(server.subscribe())
    }

    /// Waits until this stage has come.
    pub async fn reached(&mut self, stage: Stage) {
        // An error means that the server is gone, which is the end too.
        let _ = self.0.wait_for(|now| *now >= stage).await.map(drop);
    }

    /// Says in an HTTP/1 answer that it is the connection's last, if the server is on its way to its end.
    pub fn say_goodbye<B>(&self, response: &mut Response<B>) {
        // What follows a 101 is no HTTP any more.
        if *self.0.borrow() > Stage::Serving && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }
}

/// Waits for a stage in a task that is woken far more often for other reasons.
#[derive(Debug)]
pub struct Coming<'a, F> {
    /// `None` when it has come.
    reached: Option<Pin<&'a mut F>>,
    latest: Stages,
    /// Whom `reached` wakes.
    asker: Option<Waker>,
}

impl<'a, F: Future<Output = ()>> Coming<'a, F> {
    /// Waits for `reached`, which is not polled before `latest`, from the same server, has changed. It must never ask
    /// to be polled again without that (tokio's cooperative budget would).
    pub fn new(reached: Pin<&'a mut F>, latest: Stages) -> Self {
        Self {
            reached: Some(reached),
            latest,
            asker: None,
        }
    }

    /// Whether it has come; said once.
    pub fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(reached) = &mut self.reached else {
            return false;
        };
        let is_known = |asker: &Waker| asker.will_wake(cx.waker());
        // An error means that the server is gone.
        if self.asker.as_ref().is_some_and(is_known)
            && matches!(self.latest.0.has_changed(), Ok(false))
        {
            return false;
        }
        if reached.as_mut().poll(cx).is_pending() {
            self.asker = Some(cx.waker().clone());
            return false;
        }
        self.reached = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::task::coop::unconstrained;

    use super::*;

    #[test]
    fn a_stage_that_comes_is_told_once_to_whoever_asks() {
        let server = watch::Sender::new(Stage::Serving);
        let mut stages = Stages::of(&server);
        let latest = stages.clone();
        let reached = pin!(unconstrained(stages.reached(Stage::Closing)));
        let mut coming = Coming::new(reached, latest);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(!coming.has_come(&mut cx));
        assert!(!coming.has_come(&mut cx));
        server.send_replace(Stage::Leaving);
        assert!(!coming.has_come(&mut cx));
        server.send_replace(Stage::Closing);
        assert!(coming.has_come(&mut cx));
        assert!(!coming.has_come(&mut cx));
    }

    #[test]
    fn a_server_that_is_gone_is_the_end() {
        let server = watch::Sender::new(Stage::Serving);
        let mut stages = Stages::of(&server);
        let latest = stages.clone();
        let reached = pin!(unconstrained(stages.reached(Stage::Ending)));
        let mut coming = Coming::new(reached, latest);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(!coming.has_come(&mut cx));
        drop(server);
        assert!(coming.has_come(&mut cx));
    }

    #[test]
    fn an_answer_says_goodbye_from_the_first_stage_of_the_end_on() {
        let server = watch::Sender::new(Stage::Serving);
        let stages = Stages::of(&server);
        let closes = |status| {
            let mut response = Response::new(());
            *response.status_mut() = status;
            stages.say_goodbye(&mut response);
            response.headers().get(header::CONNECTION).cloned()
        };
        assert_eq!(closes(StatusCode::OK), None);
        for stage in [Stage::Leaving, Stage::Closing, Stage::Ending] {
            server.send_replace(stage);
            assert_eq!(closes(StatusCode::OK).unwrap(), "close");
            assert_eq!(closes(StatusCode::SWITCHING_PROTOCOLS), None);
        }
    }
}
