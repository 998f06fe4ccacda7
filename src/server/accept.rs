//! Takes connections from a listening socket.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::{
    connection::serve,
    listen::Listener,
    places::{Place, Places},
    socket::Socket,
    stage::{Stage, Stages},
};
use crate::{gateway::Current, telemetry::Throttle};

/// After an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one line about what every client can cause.
const LOG_EVERY: Duration = Duration::from_secs(10);

static FULL: Throttle = Throttle::new();
static FAILED: Throttle = Throttle::new();

/// What every connection of a server shares.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The gateway.
    pub current: Arc<Current>,
    /// How many there may be.
    pub places: Arc<Places>,
    /// Held by each connection.
    pub alive: mpsc::Sender<()>,
    /// How far the server is on its way to its end.
    pub stages: Stages,
}

/// Serves each connection in a task of its own, until told to stop. `place` is the listener's in the configuration.
/// With `limits.connections` of them it accepts no more: the kernel keeps those who wait.
pub async fn accept(listener: Arc<Listener>, place: usize, shared: Shared) {
    let mut stages = shared.stages.clone();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &shared) => accepted,
            () = stages.reached(Stage::Closing) => {
                // Those that have come meanwhile would be reset with the socket.
                match timeout(Duration::ZERO, next(&listener, &shared)).await {
                    // Without file descriptors nobody can be taken, and the end would wait for ever.
                    Ok(Err(error)) if !is_of_one_connection(&error) => return,
                    Ok(accepted) => accepted,
                    Err(_) => return,
                }
            }
        };
        match accepted {
            Ok((socket, open)) => {
                tokio::spawn(serve(socket, open, place, shared.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if let Some(held_back) = FAILED.pass(LOG_EVERY) {
                    tracing::error!(%error, held_back, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn next(listener: &Listener, shared: &Shared) -> io::Result<(Socket, Place)> {
    let most = || shared.current.load().config().limits.connections;
    let full = || {
        shared.current.load().metrics().accept_pauses.inc();
        if let Some(held_back) = FULL.pass(LOG_EVERY) {
            tracing::warn!(
                connections = most(),
                held_back,
                "there are as many connections as limits.connections allows; more wait"
            );
        }
    };
    shared.places.room(most, full).await;
    let socket = listener.accept().await?;
    Ok((socket, shared.places.take(shared.alive.clone())))
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
