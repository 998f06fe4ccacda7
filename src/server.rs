//! Sockets: bind, accept, serve, drain.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    admin::{health, jwks::Jwks},
    config::Config,
    gateway::Gateway,
};

/// Most time from the start of a connection to the end of its first request's head. Later heads have
/// `timeouts.idle`, which hyper counts from the end of the answer before.
const FIRST_HEAD: Duration = Duration::from_secs(10);

/// After an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    address: SocketAddr,
    cause: String,
    is_taken: bool,
}

impl BindError {
    /// Whether another process listens there.
    pub fn is_taken(&self) -> bool {
        self.is_taken
    }
}

/// Opened sockets, not served yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    health: Option<TcpListener>,
    jwks: Option<Jwks>,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    request_head: usize,
    request_fields: usize,
    idle: Duration,
    grace: Duration,
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
            listeners.push(bind(listener.address).await?);
        }
        let health = match config.health {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let settings = Settings {
            request_head: config.limits.request_head,
            request_fields: config.limits.request_fields,
            idle: config.timeouts.idle,
            grace: config.shutdown_grace,
        };
        Ok(Self {
            listeners,
            health,
            jwks: Jwks::new(config),
            settings,
        })
    }

    /// The addresses on which clients are served; port 0 has become a real one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Serves until `shutdown` is ready, then lets what is under way come to its end within the grace.
    pub async fn run(self, gateway: Arc<Gateway>, shutdown: impl Future<Output = ()>) {
        let Self {
            listeners,
            health,
            jwks,
            settings,
        } = self;
        let (stop, stopped) = watch::channel(false);
        // Each connection holds a sender; when all are gone, so are the connections.
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        let draining = Arc::new(AtomicBool::new(false));
        if let Some(listener) = health {
            announce("health", &listener);
            tokio::spawn(health::serve(
                listener,
                gateway.sessions().clone(),
                draining.clone(),
                jwks,
            ));
        }
        let mut accepting = Vec::new();
        for listener in listeners {
            announce("listening", &listener);
            let accept = accept(
                listener,
                settings,
                gateway.clone(),
                alive.clone(),
                stopped.clone(),
            );
            accepting.push(tokio::spawn(accept));
        }

        shutdown.await;
        draining.store(true, Ordering::Relaxed);
        tracing::info!("shutting down: no new connections");
        // The receivers live in the tasks that are awaited next.
        let _ = stop.send(true);
        for task in accepting {
            let _ = task.await;
        }
        drop(alive);
        let ended = timeout(settings.grace, async {
            all_gone.recv().await;
            gateway.sessions().store().drained().await;
        });
        match ended.await {
            Ok(()) => tracing::info!("shut down"),
            Err(_) => {
                tracing::warn!("shutdown_grace is over: what was still under way was cut off")
            }
        }
    }
}

/// Opens a socket and closes it again.
///
/// # Errors
///
/// Why it cannot be had.
pub async fn probe(address: SocketAddr) -> Result<(), BindError> {
    bind(address).await.map(drop)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there already".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        BindError {
            address,
            cause,
            is_taken: error.kind() == io::ErrorKind::AddrInUse,
        }
    })
}

fn announce(what: &str, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!("{what} on {address}");
    }
}

async fn accept(
    listener: TcpListener,
    settings: Settings,
    gateway: Arc<Gateway>,
    alive: mpsc::Sender<()>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serving = serve(stream, peer, settings, gateway.clone(), stopped.clone());
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

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is as good a reason.
    let _ = stopped.wait_for(|stopped| *stopped).await.map(drop);
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    settings: Settings,
    gateway: Arc<Gateway>,
    mut stopped: watch::Receiver<bool>,
) {
    // Small answers must not wait for the acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    let begun = AtomicBool::new(false);
    let service = service_fn(|request| {
        begun.store(true, Ordering::Relaxed);
        let gateway = gateway.clone();
        async move { Ok::<_, std::convert::Infallible>(gateway.handle(request, peer.ip()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.idle)
        .max_headers(settings.request_fields)
        .max_header_size(settings.request_head)
        .serve_connection(TokioIo::new(stream), service);
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
