//! Serves an address for the gateway's own pages: few connections, each for a short time.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{listen::Listener, stage::Stages};

/// After an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a reader of such an address is given.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// For the head of a request, and how long a connection may idle.
    pub head: Duration,
    /// For a connection as a whole.
    pub connection: Duration,
    /// Connections at the same time; more wait.
    pub connections: usize,
}

/// Answers until the process ends.
pub async fn serve(
    listener: Arc<Listener>,
    terms: Terms,
    stages: Stages,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) {
    let places = Arc::new(Semaphore::new(terms.connections));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok(socket) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (answer, stages) = (answer.clone(), stages.clone());
        let service = service_fn(move |request| {
            let mut response = answer(&request);
            stages.say_goodbye(&mut response);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(terms.head)
                .serve_connection(TokioIo::new(socket), service);
            // A reader that leaves is none of our business.
            let _ = timeout(terms.connection, connection).await;
            drop(place);
        });
    }
}
