//! Sockets: bind, accept, serve, drain.

mod accept;
mod arrive;
mod connection;
mod exchange;
mod frames;
mod guard;
mod health;
mod listen;
mod pace;
mod places;
pub mod proxy;
mod socket;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

pub use self::listen::{BindError, Listener, probe};
use self::{
    accept::{Shared, accept},
    listen::announce,
};
use crate::{
    config::{Address, Config},
    gateway::Current,
};

/// Opened sockets, not served yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    health: Option<Listener>,
}

impl Server {
    /// Opens every socket of the configuration, or none.
    ///
    /// # Errors
    ///
    /// The first address that cannot be had.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            listeners.push(listen::bind(&listener.address)?);
        }
        let health = config.health.as_ref().map(listen::bind).transpose()?;
        Ok(Self { listeners, health })
    }

    /// The addresses on which clients are served; port 0 has become a real one.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .filter_map(Listener::address)
            .collect()
    }

    /// Serves until `shutdown` is ready, then lets what is under way come to its end within the grace.
    pub async fn run(self, current: Arc<Current>, shutdown: impl Future<Output = ()>) {
        let Self { listeners, health } = self;
        let (stop, stopped) = watch::channel(false);
        // Each connection holds a sender; when all are gone, so are the connections.
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        let draining = Arc::new(AtomicBool::new(false));
        if let Some(listener) = health {
            announce("health", &listener);
            tokio::spawn(health::serve(listener, current.clone(), draining.clone()));
        }
        let shared = Shared {
            current: current.clone(),
            places: Arc::default(),
            alive,
            stopped,
        };
        let mut accepting = Vec::new();
        for (place, listener) in listeners.into_iter().enumerate() {
            announce("listening", &listener);
            accepting.push(tokio::spawn(accept(listener, place, shared.clone())));
        }

        shutdown.await;
        draining.store(true, Ordering::Relaxed);
        tracing::info!("shutting down: no new connections");
        // The receivers live in the tasks that are awaited next.
        let _ = stop.send(true);
        for task in accepting {
            let _ = task.await;
        }
        drop(shared);
        let gateway = current.load();
        let ended = timeout(gateway.config().shutdown_grace, async {
            all_gone.recv().await;
            gateway.sessions().store().under_way().none().await;
        });
        match ended.await {
            Ok(()) => tracing::info!("shut down"),
            Err(_) => {
                tracing::warn!("shutdown_grace is over: what was still under way was cut off")
            }
        }
    }
}
