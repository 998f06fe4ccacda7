//! Sockets: bind, accept, serve, drain.

mod accept;
mod admin;
mod arrive;
mod connection;
mod drive;
mod exchange;
mod frames;
mod guard;
mod health;
mod inherited;
mod listen;
mod pace;
mod pages;
mod places;
pub mod proxy;
mod socket;
mod stage;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::{
    accept::{Shared, accept},
    listen::announce,
    stage::{Stage, Stages},
};
pub use self::{
    inherited::{Handles, Inherited},
    listen::{BindError, Listener, probe},
};
use crate::{
    config::{Address, Config},
    gateway::{Current, Ending, Gateway},
};

/// How long connections without a request may take to close, and tunnels to say why they end.
const LAST_CLOSE: Duration = Duration::from_secs(1);

/// How long those are still taken who have come before the end of accepting.
const LAST_ACCEPT: Duration = Duration::from_secs(1);

/// How long before the end of the grace tunnels are asked to close.
const TUNNELS_CLOSE: Duration = Duration::from_secs(5);

/// How a server is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Not ready any more; after `drain_delay` no new connections; after `shutdown_grace` the end.
    Leave,
    /// Another process has taken over the sockets: no new connections here; after `shutdown_grace` the end.
    HandedOver,
    /// No new connections and no idle ones; after `shutdown_grace` the end.
    Close,
    /// At once.
    Now,
}

/// Opened sockets, not served yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Arc<Listener>>,
    health: Option<Arc<Listener>>,
    admin: Option<Arc<Listener>>,
    handles: Handles,
}

impl Server {
    /// Opens every socket of the configuration, or none.
    ///
    /// # Errors
    ///
    /// The first address that cannot be had.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        Self::open(config, Inherited::default())
    }

    /// The same with sockets that are open already, and are taken as they are. Within a runtime.
    ///
    /// # Errors
    ///
    /// The first address that cannot be had, or a socket of systemd that the configuration does not name.
    pub fn open(config: &Config, mut inherited: Inherited) -> Result<Self, BindError> {
        let mut handles = Vec::new();
        let mut open = |address: &Address| {
            let listener = match inherited.take(address) {
                Some(listener) => listener,
                None => listen::bind(address)?,
            };
            let listener = Arc::new(listener);
            handles.push((address.to_string(), Arc::downgrade(&listener)));
            Ok(listener)
        };
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|listener| open(&listener.address));
        let listeners = listeners.collect::<Result<_, _>>()?;
        let health = config.health.as_ref().map(&mut open).transpose()?;
        let admin = config.admin.as_ref().map(open).transpose()?;
        if let Some(address) = inherited.forgotten() {
            return Err(BindError::forgotten(address));
        }
        Ok(Self {
            listeners,
            health,
            admin,
            handles: Handles(handles),
        })
    }

    /// Its sockets, for a server in another process that is to follow it.
    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }

    /// The addresses on which clients are served; port 0 has become a real one.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.address())
            .collect()
    }

    /// Serves until told to end, and then until everything has come to its end.
    pub async fn run(self, current: Arc<Current>, mut ends: mpsc::Receiver<End>) {
        let Self {
            listeners,
            health,
            admin,
            ..
        } = self;
        let stage = watch::Sender::new(Stage::Serving);
        // Each connection holds a sender; when all are gone, so are the connections.
        let (alive, all_gone) = mpsc::channel::<()>(1);
        let draining = Arc::new(AtomicBool::new(false));
        let admin = admin.map(|listener| {
            announce("status page", &listener);
            let (current, draining) = (current.clone(), draining.clone());
            tokio::spawn(admin::serve(
                listener,
                current,
                draining,
                Stages::of(&stage),
            ))
        });
        let health = health.map(|listener| {
            announce("health", &listener);
            let stages = Stages::of(&stage);
            tokio::spawn(health::serve(
                listener,
                current.clone(),
                draining.clone(),
                stages,
            ))
        });
        let shared = Shared {
            current: current.clone(),
            places: Arc::default(),
            alive,
            stages: Stages::of(&stage),
        };
        let mut accepting = Vec::new();
        for (place, listener) in listeners.into_iter().enumerate() {
            announce("listening", &listener);
            accepting.push(tokio::spawn(accept(listener, place, shared.clone())));
        }

        // Nobody can end it who is not there.
        let end = ends.recv().await.unwrap_or(End::Now);
        // These go from one gateway to the next: what is under way in an earlier one counts too.
        let last = current.load();
        let under_way = UnderWay { last, all_gone };
        drop(shared);
        if end == End::Leave {
            // First: whoever finds this one not ready any more finds that its answers end their connections.
            stage.send_replace(Stage::Leaving);
        }
        draining.store(end != End::HandedOver, Ordering::Relaxed);
        let ending = async {
            match end {
                End::Leave => leave(&stage, &current).await,
                End::HandedOver => {
                    for task in health.into_iter().chain(admin) {
                        task.abort();
                    }
                    stage.send_replace(Stage::Closing);
                    tracing::info!("another process serves new connections");
                }
                End::Close => {
                    stage.send_replace(Stage::Ending);
                    current.load().tunnels().close_all(Ending::Restart);
                }
                End::Now => return,
            }
            let accepted = async {
                for task in &mut accepting {
                    let _ = task.await;
                }
            };
            // Who keeps coming does not hold up the end.
            if timeout(LAST_ACCEPT, accepted).await.is_err() {
                accepting.iter().for_each(JoinHandle::abort);
            }
            let grace = current.load().config().shutdown_grace;
            under_way.come_to_an_end(&stage, grace).await;
        };
        tokio::select! {
            () = ending => {}
            () = at_once(&mut ends) => tracing::warn!("ended at once, on a second signal"),
        }
    }
}

/// Load balancers get the time to notice.
async fn leave(stage: &watch::Sender<Stage>, current: &Current) {
    let delay = current.load().config().drain_delay;
    if !delay.is_zero() {
        tracing::info!(?delay, "shutting down: not ready any more");
        sleep(delay).await;
    }
    stage.send_replace(Stage::Closing);
    tracing::info!("shutting down: no new connections");
}

async fn at_once(ends: &mut mpsc::Receiver<End>) {
    while let Some(end) = ends.recv().await {
        if end == End::Now {
            return;
        }
    }
    // Nobody is left who could ask for it.
    std::future::pending().await
}

/// What a server waits for at its end.
struct UnderWay {
    last: Arc<Gateway>,
    all_gone: mpsc::Receiver<()>,
}

impl UnderWay {
    /// Waits for the end of everything, at most for the grace, and says what was cut off.
    async fn come_to_an_end(mut self, stage: &watch::Sender<Stage>, grace: Duration) {
        let goodbyes = TUNNELS_CLOSE.min(grace / 2);
        if timeout(grace - goodbyes, self.nothing()).await.is_ok() {
            return tracing::info!("shut down");
        }
        // A WebSocket may stay open for days; its close frame is in time within the grace.
        self.last.tunnels().close_all(Ending::Restart);
        if timeout(goodbyes, self.nothing()).await.is_ok() {
            return tracing::info!("shut down; tunnels were closed");
        }
        // What now still waits for a request has waited long enough.
        stage.send_replace(Stage::Ending);
        if timeout(LAST_CLOSE, self.nothing()).await.is_ok() {
            return tracing::info!("shut down; idle connections were closed");
        }
        tracing::warn!(
            requests = self.last.in_flight(),
            tunnels = self.last.tunnels().count(),
            changes = self.last.sessions().store().under_way().count(),
            "shutdown_grace is over: what was still under way was cut off"
        );
    }

    async fn nothing(&mut self) {
        self.all_gone.recv().await;
        self.last.tunnels().gone().await;
        self.last.sessions().store().under_way().none().await;
    }
}
