//! Signals, as what they ask of the server.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::systemd;
use crate::server::End;

/// Whether this process ends or is followed by another one, whichever came first.
#[derive(Clone, Debug, Default)]
pub struct Fate(Arc<AtomicU8>);

const OPEN: u8 = 0;
const ENDING: u8 = 1;
const FOLLOWED: u8 = 2;

impl Fate {
    /// It was asked to end.
    fn end(&self) {
        self.turn(OPEN, ENDING);
    }

    /// Whether it was asked to end before it was followed.
    pub fn is_ending(&self) -> bool {
        self.0.load(Ordering::Acquire) == ENDING
    }

    /// Whether it may be followed: then from now on it is.
    pub fn follow(&self) -> bool {
        self.turn(OPEN, FOLLOWED)
    }

    /// The one that was to follow is gone.
    pub fn go_on(&self) {
        self.turn(FOLLOWED, OPEN);
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        let turned = self
            .0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        turned.is_ok()
    }
}

/// What SIGTERM and SIGINT ask for from now on, which `fate` hears of. Each second one means at once.
///
/// # Errors
///
/// The signals cannot be waited for.
pub fn ends(fate: Fate) -> io::Result<(mpsc::Sender<End>, mpsc::Receiver<End>)> {
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
            fate.end();
            systemd::stopping();
            is_first = false;
            if signals.send(end).await.is_err() {
                return;
            }
        }
    });
    Ok((sender, ends))
}
