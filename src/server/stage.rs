//! How far a server is on its way to its end, as its connections see it.

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

#[cfg(test)]
mod tests {
    use super::*;

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
