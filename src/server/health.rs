//! Serves the health address.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    listen::Listener,
    pages::{self, Terms},
    stage::Stages,
};
use crate::{admin::health, gateway::Current};

/// A probe that has not asked by then is not one. A scrape comes every 15 s or so and need not keep its connection for
/// long. Connections: probes and scrapes of everybody in a cluster; the address may be open, and its sockets are taken
/// from clients.
const TERMS: Terms = Terms {
    head: Duration::from_secs(10),
    connection: Duration::from_secs(120),
    connections: 256,
};

/// Answers until the process ends.
pub async fn serve(
    listener: Arc<Listener>,
    current: Arc<Current>,
    draining: Arc<AtomicBool>,
    stages: Stages,
) {
    pages::serve(listener, TERMS, stages, move |request| {
        health::answer(request, &current, draining.load(Ordering::Relaxed))
    })
    .await;
}
