//! What becomes of a request whose answer is another protocol: bytes both ways, until somebody ends it.

mod carry;
mod frames;
mod handshake;

use std::{
    any::Any,
    fmt,
    future::Future,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use self::carry::{Carried, Terms, carry};
pub use self::handshake::Handshake;
use super::{
    recheck::{Looks, Watch, either},
    record::Record,
};
use crate::{
    session::SessionKey,
    sessions::{Resolved, Sessions},
    store::LookupError,
    telemetry::metrics::{Ended, Metrics, Tunnelled},
    upstream::InFlight,
};

/// How long the answer that begins the tunnel may take to leave.
const BEGINNING: Duration = Duration::from_secs(30);

/// Why the gateway ends what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No byte came for `timeouts.tunnel_idle`.
    Idle,
    /// This process ends.
    Restart,
    /// The session has ended, its user is another one, or may no longer do this.
    Revoked,
    /// Nobody can say whether it has, for `recheck_grace`.
    Unanswered,
}

impl Ending {
    /// The code and reason of the close frame. Those below 4000 are registered (RFC 6455, section 7.4; IANA).
    pub fn close_code(self) -> (u16, &'static str) {
        match self {
            Self::Idle => (1001, "idle"),
            Self::Restart => (1012, "service restart"),
            Self::Revoked => (4401, "session ended"),
            Self::Unanswered => (1013, "try again later"),
        }
    }

    /// As it is counted.
    pub fn label(self) -> Ended {
        match self {
            Self::Idle => Ended::Idle,
            Self::Restart => Ended::Restart,
            Self::Revoked => Ended::Revoked,
            Self::Unanswered => Ended::Unanswered,
        }
    }
}

/// The tunnels and event streams of a process: how many there are, and the word that ends them all. A reload hands it
/// on.
#[derive(Clone, Debug)]
pub struct Tunnels(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    word: watch::Sender<Option<Ending>>,
    /// What those that are open are looked up in again: also after a reload that was later than they.
    sessions: ArcSwap<Sessions>,
    looks: Arc<Looks>,
    epoch: Instant,
}

impl Tunnels {
    /// None yet. Whose sessions are in `sessions`.
    pub fn new(sessions: Sessions) -> Self {
        Self(Arc::new(Shared {
            word: watch::Sender::new(None),
            sessions: ArcSwap::from_pointee(sessions),
            looks: Arc::default(),
            epoch: Instant::now(),
        }))
    }

    /// A reload may have opened another database.
    pub fn look_into(&self, sessions: Sessions) {
        self.0.sessions.store(Arc::new(sessions));
    }

    /// Looks a session up in what is current, together with others.
    ///
    /// # Errors
    ///
    /// The database did not answer.
    pub async fn look(&self, key: SessionKey, details: bool) -> Result<Resolved, LookupError> {
        let shared = self.0.clone();
        let sessions = move || shared.sessions.load_full();
        self.0.looks.look(key, details, sessions).await
    }

    /// From when moments are counted at which several are looked after together.
    pub fn epoch(&self) -> Instant {
        self.0.epoch
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.0.word.receiver_count()
    }

    /// Ends all, also those that would begin from now on: WebSockets with a close frame, event streams with their last
    /// chunk.
    pub fn close_all(&self, why: Ending) {
        self.0.word.send_replace(Some(why));
    }

    /// Ready when there are none.
    pub async fn gone(&self) {
        self.0.word.closed().await;
    }

    /// Counts one until this is dropped.
    pub fn enter(&self) -> Entered {
        Entered {
            word: self.0.word.subscribe(),
        }
    }
}

/// One that is counted.
#[derive(Debug)]
pub struct Entered {
    word: watch::Receiver<Option<Ending>>,
}

impl Entered {
    /// The word that ends all.
    pub async fn ended(mut self) -> Ending {
        let word = self.word.wait_for(Option::is_some).await;
        // An error means that the process has forgotten its tunnels, so it ends.
        word.ok().and_then(|word| *word).unwrap_or(Ending::Restart)
    }
}

/// Comes with the answer that begins a tunnel, among its extensions.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<OnceLock<Box<dyn Any + Send + Sync>>>);

impl Kept {
    /// Keeps something as long as the tunnel is open, such as a word that its connection is in use.
    pub fn keep(&self, what: impl Any + Send + Sync) {
        let _ = self.0.set(Box::new(what));
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
    /// Who must still be allowed to have it.
    pub watch: Option<Watch>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Carries it, in a task of its own: the one that serves the request ends with its answer. The record of the
    /// request ends with the tunnel.
    pub fn spawn(self, tunnels: Tunnels, metrics: Arc<Metrics>, record: Box<Record>) -> Kept {
        let kept = Kept::default();
        let _kept = kept.clone();
        let restart = tunnels.enter().ended();
        tokio::spawn(async move {
            let _kept = _kept;
            // As a whole: a closure takes the fields that it names, and this one logs when it is dropped.
            let mut record = record;
            record.is_tunnel();
            let carried = Carried::default();
            self.run(restart, tunnels, &metrics, &carried).await;
            let [to_client, to_upstream] = [&carried.to_client, &carried.to_upstream];
            record.carried(
                to_client.load(Ordering::Relaxed),
                to_upstream.load(Ordering::Relaxed),
            );
        });
        kept
    }

    async fn run(
        self,
        restart: impl Future<Output = Ending>,
        tunnels: Tunnels,
        metrics: &Arc<Metrics>,
        carried: &Carried,
    ) {
        let Self {
            client,
            upstream,
            in_flight,
            is_websocket,
            idle,
            watch,
        } = self;
        let both = async { tokio::try_join!(client, upstream) };
        let Ok(Ok((client, upstream))) = timeout(BEGINNING, both).await else {
            tracing::debug!("a tunnel ended before it began");
            return;
        };
        let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let terms = Terms { idle, is_websocket };
        let protocol = match is_websocket {
            true => Tunnelled::WebSocket,
            false => Tunnelled::Other,
        };
        let open = metrics.tunnels_open.hold(protocol);
        let ended = match watch {
            None => carry(client, upstream, terms, carried, restart).await,
            Some(watch) => {
                let revoked = watch.ended(tunnels, metrics.clone());
                let ending = either(restart, revoked);
                carry(client, upstream, terms, carried, ending).await
            }
        };
        drop(open);
        if let Some(why) = ended {
            metrics.streams_ended.count(why.label());
        }
        tracing::debug!(?ended, "a tunnel ended");
        drop(in_flight);
    }
}
