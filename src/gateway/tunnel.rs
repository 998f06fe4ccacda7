//! What becomes of a request whose answer is another protocol: bytes both ways, until somebody ends it.

mod carry;
mod frames;
mod handshake;

use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{sync::watch, time::timeout};

use self::carry::{Carried, Terms, carry};
pub use self::handshake::Handshake;
use super::record::Record;
use crate::upstream::InFlight;

/// How long the answer that begins the tunnel may take to leave.
const BEGINNING: Duration = Duration::from_secs(30);

/// Why the gateway ends what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No byte came for `timeouts.tunnel_idle`.
    Idle,
    /// This process ends.
    Restart,
}

impl Ending {
    /// The code and reason of the close frame. 1001 and 1012 are registered (RFC 6455, section 7.4; IANA).
    pub fn close_code(self) -> (u16, &'static str) {
        match self {
            Self::Idle => (1001, "idle"),
            Self::Restart => (1012, "service restart"),
        }
    }
}

/// The tunnels of a process: how many there are, and the word that ends them all. A reload hands it on.
#[derive(Clone, Debug)]
pub struct Tunnels {
    word: Arc<watch::Sender<Option<Ending>>>,
}

impl Default for Tunnels {
    fn default() -> Self {
        let (word, _) = watch::channel(None);
        Self {
            word: Arc::new(word),
        }
    }
}

impl Tunnels {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.word.receiver_count()
    }

    /// Ends all, also those that would begin from now on: WebSockets with a close frame.
    pub fn close_all(&self, why: Ending) {
        self.word.send_replace(Some(why));
    }

    /// Ready when there are none.
    pub async fn gone(&self) {
        self.word.closed().await;
    }

    /// Counts one until this is dropped.
    fn enter(&self) -> Entered {
        Entered {
            word: self.word.subscribe(),
        }
    }
}

/// One that is counted.
struct Entered {
    word: watch::Receiver<Option<Ending>>,
}

impl Entered {
    /// The word that ends all.
    async fn ended(&mut self) -> Ending {
        let word = self.word.wait_for(Option::is_some).await;
        // An error means that the process has forgotten its tunnels, so it ends.
        word.ok().and_then(|word| *word).unwrap_or(Ending::Restart)
    }
}

/// A tunnel that begins when the answer has left.
pub struct Tunnel {
    /// What becomes the connection to the client.
    pub client: OnUpgrade,
    /// What becomes the connection to the upstream.
    pub upstream: OnUpgrade,
    /// The server is busy as long as the tunnel is open.
    pub in_flight: InFlight,
    /// Whether it is a WebSocket.
    pub is_websocket: bool,
    /// `timeouts.tunnel_idle`.
    pub idle: Duration,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Carries it, in a task of its own: the one that serves the request ends with its answer. The record of the
    /// request ends with the tunnel.
    pub fn spawn(self, tunnels: &Tunnels, record: Box<Record>) {
        let mut entered = tunnels.enter();
        tokio::spawn(async move {
            // As a whole: a closure takes the fields that it names, and this one logs when it is dropped.
            let mut record = record;
            record.is_tunnel();
            let carried = Carried::default();
            self.run(entered.ended(), &carried).await;
            let [to_client, to_upstream] = [&carried.to_client, &carried.to_upstream];
            record.carried(
                to_client.load(Ordering::Relaxed),
                to_upstream.load(Ordering::Relaxed),
            );
        });
    }

    async fn run(self, ending: impl Future<Output = Ending>, carried: &Carried) {
        let Self {
            client,
            upstream,
            in_flight,
            is_websocket,
            idle,
        } = self;
        let both = async { tokio::try_join!(client, upstream) };
        let Ok(Ok((client, upstream))) = timeout(BEGINNING, both).await else {
            tracing::debug!("a tunnel ended before it began");
            return;
        };
        let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let terms = Terms { idle, is_websocket };
        let ended = carry(client, upstream, terms, carried, ending).await;
        tracing::debug!(?ended, "a tunnel ended");
        drop(in_flight);
    }
}
