//! Takes connections from a listening socket.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::{connection::serve, listen::Listener};
use crate::gateway::{Current, Peer};

/// After an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves each connection in a task of its own, until told to stop. Each holds a copy of `alive`.
pub async fn accept(
    listener: Listener,
    current: Arc<Current>,
    alive: mpsc::Sender<()>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok(socket) => {
                let peer = Peer {
                    address: socket.peer(),
                    encrypted: false,
                };
                let serving = serve(socket, peer, current.clone(), stopped.clone());
                let alive = alive.clone();
                tokio::spawn(async move {
                    serving.await;
                    drop(alive);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
