//! Signals, as what they ask of the server.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::systemd;
use crate::server::End;

/// What SIGTERM and SIGINT ask for from now on. Each second one means at once.
///
/// # Errors
///
/// The signals cannot be waited for.
pub fn ends() -> io::Result<(mpsc::Sender<End>, mpsc::Receiver<End>)> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let (sender, ends) = mpsc::channel(4);
    let signals = sender.clone();
    tokio::spawn(async move {
        let mut is_first = true;
        loop {
            let end = tokio::select! {
                _ = terminated.recv() => End::Leave,
                // From a keyboard: there is no load balancer that has to notice.
                _ = interrupted.recv() => End::Close,
            };
            let end = if is_first { end } else { End::Now };
            systemd::stopping();
            is_first = false;
            if signals.send(end).await.is_err() {
                return;
            }
        }
    });
    Ok((sender, ends))
}
