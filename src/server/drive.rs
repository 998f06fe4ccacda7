//! Runs HTTP on a client's connection to its end. An HTTP/1 connection that nobody uses is set aside meanwhile: hyper
//! holds 24 KiB of buffers for each that it serves, and a socket can be waited for without them.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::HttpService,
};
use hyper_util::rt::TokioIo;
use tokio::{task::coop::unconstrained, time::timeout};

use super::{
    exchange::{Answer, Streams},
    guard::Guard,
    pace::{Due, Overdue, Pace, Timer},
    stage::{Coming, Stage, Stages},
};

/// What ends a connection that its client does not end.
#[derive(Debug)]
pub struct Watch {
    pace: Arc<Pace>,
    timer: Timer,
    stages: Stages,
}

impl Watch {
    /// Its deadlines, and the end of the server.
    pub fn new(pace: Arc<Pace>, stages: Stages) -> Self {
        let timer = Timer::new(pace.clone());
        Self {
            pace,
            timer,
            stages,
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// By HTTP's rules, or with an error.
    Done(hyper::Result<()>),
    /// At a deadline.
    Overdue(Overdue),
}

/// Serves HTTP/2. An idle client is told of the end (GOAWAY), and has `goodbye` to react.
pub async fn http2<S>(
    connection: http2::Connection<TokioIo<Guard>, S, Streams>,
    mut watch: Watch,
    goodbye: Duration,
) -> Ended
where
    S: HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    let mut connection = Box::pin(connection);
    match drive(connection.as_mut(), &mut watch).await {
        Paused::Ended(ended) => {
            if matches!(ended, Ended::Overdue(Overdue::Idle)) {
                connection.as_mut().stop();
                // Its errors are as good an end as any.
                let _ = timeout(goodbye, connection).await;
            }
            ended
        }
        // Its timer never says so.
        Paused::Rests => Ended::Done(Ok(())),
    }
}

/// Serves HTTP/1.
pub async fn http1<S>(
    settings: &http1::Builder,
    mut guard: Guard,
    mut service: S,
    mut watch: Watch,
) -> Ended
where
    S: HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let connection = settings.serve_connection(TokioIo::new(guard), service);
        let mut connection = Box::pin(connection.with_upgrades());
        watch.timer.tell_rest(true);
        if let Paused::Ended(ended) = drive(connection.as_mut(), &mut watch).await {
            return ended;
        }
        watch.timer.tell_rest(false);
        let Some(parts) = Pin::into_inner(connection).into_parts() else {
            return Ended::Done(Ok(()));
        };
        (guard, service) = (parts.io.into_inner(), parts.service);
        // A part of the next head may have come with the last request.
        guard.unread(&parts.read_buf);
        drop(parts.read_buf);
        tracing::debug!("an idle connection was set aside");
        if let Some(overdue) = wait(&guard, &mut watch).await {
            return Ended::Overdue(overdue);
        }
    }
}

/// How far a connection was driven.
enum Paused {
    Ended(Ended),
    /// Nothing is under way, and the socket can be had back.
    Rests,
}

/// A connection that can be asked to end.
trait Stoppable: Future<Output = hyper::Result<()>> {
    /// No more requests are taken; those under way come to their end.
    fn stop(self: Pin<&mut Self>);

    /// When the end of the server is its end too.
    const STOPS_AT: Stage;
}

impl<S> Stoppable for http1::UpgradeableConnection<TokioIo<Guard>, S>
where
    S: HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Closed sooner, it could meet a request: its last answer says that it is the last.
    const STOPS_AT: Stage = Stage::Ending;

    fn stop(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Stoppable for http2::Connection<TokioIo<Guard>, S, Streams>
where
    S: HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    // GOAWAY tells the client which of its requests are still served.
    const STOPS_AT: Stage = Stage::Closing;

    fn stop(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs a connection to its end, which is a deadline's at the latest, or until it can be set aside.
async fn drive<C: Stoppable>(mut connection: Pin<&mut C>, watch: &mut Watch) -> Paused {
    let Watch {
        pace,
        timer,
        stages,
    } = watch;
    let latest = stages.clone();
    let reached = pin!(unconstrained(stages.reached(C::STOPS_AT)));
    let mut stop = Coming::new(reached, latest);
    poll_fn(|cx| {
        let mut polled = connection.as_mut().poll(cx);
        // After what has come already.
        if polled.is_pending() && stop.has_come(cx) {
            connection.as_mut().stop();
            polled = connection.as_mut().poll(cx);
        }
        if let Poll::Ready(ended) = polled {
            return Poll::Ready(Paused::Ended(Ended::Done(ended)));
        }
        match ready!(timer.poll(cx)) {
            Due::End(why) => Poll::Ready(Paused::Ended(Ended::Overdue(why))),
            Due::Rest => let_go(connection.as_mut(), pace, cx),
        }
    })
    .await
}

/// Ends HTTP on a connection, but not the connection. hyper ends at once where, by its own account, nothing is under
/// way; otherwise after what is.
fn let_go<C: Stoppable>(
    mut connection: Pin<&mut C>,
    pace: &Pace,
    cx: &mut Context<'_>,
) -> Poll<Paused> {
    pace.stay_open(true);
    connection.as_mut().stop();
    let polled = connection.poll(cx);
    pace.stay_open(false);
    match polled {
        Poll::Ready(Ok(())) => Poll::Ready(Paused::Rests),
        Poll::Ready(error) => Poll::Ready(Paused::Ended(Ended::Done(error))),
        Poll::Pending => {
            pace.ends();
            // For the timer, which has nothing more to say of this.
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

/// Waits until there is something to read on a connection that was set aside, or it is overdue. The end of the server
/// is left to what serves it.
async fn wait(guard: &Guard, watch: &mut Watch) -> Option<Overdue> {
    let Watch { timer, stages, .. } = watch;
    let both = poll_fn(|cx| {
        if guard.poll_readable(cx).is_ready() {
            return Poll::Ready(None);
        }
        match ready!(timer.poll(cx)) {
            Due::End(why) => Poll::Ready(Some(why)),
            Due::Rest => Poll::Ready(None),
        }
    });
    tokio::select! {
        overdue = both => overdue,
        () = stages.reached(Stage::Ending) => None,
    }
}
