//! One connection of a client: its requests go on the trip until it ends.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use super::socket::Socket;
use crate::gateway::{Current, Peer};

/// Most time from the start of a connection to the end of its first request's head. Later heads have
/// `timeouts.idle`, which hyper counts from the end of the answer before.
const FIRST_HEAD: Duration = Duration::from_secs(10);

/// Serves a client until one of the two ends the connection. What is configured when it begins holds for the
/// connection; each request is served by what is configured when it comes.
pub async fn serve(
    socket: Socket,
    peer: Peer,
    current: Arc<Current>,
    mut stopped: watch::Receiver<bool>,
) {
    let begun = AtomicBool::new(false);
    let service = service_fn(|request| {
        begun.store(true, Ordering::Relaxed);
        let gateway = current.load();
        let peer = peer.clone();
        async move { Ok::<_, Infallible>(gateway.handle(request, peer).await) }
    });
    let gateway = current.load();
    let (limits, timeouts) = (&gateway.config().limits, &gateway.config().timeouts);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.idle)
        .max_headers(limits.request_fields)
        .max_header_size(limits.request_head)
        .serve_connection(TokioIo::new(socket), service);
    // Kept no longer: a connection may outlive many configurations.
    drop(gateway);
    let mut connection = pin!(connection);
    let mut first_head = pin!(tokio::time::sleep(FIRST_HEAD));
    let (mut waiting, mut stopping) = (true, false);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = told_to_stop(&mut stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = first_head.as_mut(), if waiting => {
                waiting = false;
                if !begun.load(Ordering::Relaxed) {
                    tracing::debug!("a client connection brought no request in time");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client connection ended early");
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is as good a reason.
    let _ = stopped.wait_for(|stopped| *stopped).await.map(drop);
}
