//! Serves the health address: few connections, each for a short time.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};

use super::{listen::Listener, stage::Stages};
use crate::{admin::health, gateway::Current};

/// A probe that has not asked by then is not one. Also how long a connection may idle.
const HEAD: Duration = Duration::from_secs(10);

/// A scrape comes every 15 s or so and need not keep its connection for long.
const CONNECTION: Duration = Duration::from_secs(120);

/// Probes and scrapes of everybody in a cluster; the address may be open, and its sockets are taken from clients.
const CONNECTIONS: usize = 256;

/// Answers until the process ends.
pub async fn serve(
    listener: Arc<Listener>,
    current: Arc<Current>,
    draining: Arc<AtomicBool>,
    stages: Stages,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok(socket) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (current, draining, stages) = (current.clone(), draining.clone(), stages.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let mut response = health::answer(&request, &current, draining.load(Ordering::Relaxed));
            stages.say_goodbye(&mut response);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(socket), service);
            // A probe that leaves is none of our business.
            let _ = timeout(CONNECTION, connection).await;
            drop(place);
        });
    }
}
