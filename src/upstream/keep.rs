//! What goes on beside the requests: names are looked up, servers are checked, those that could not be reached are
//! tried again. All of it ends with the upstream.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Limited};
use rand::RngExt as _;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::{
    pool::Pool,
    resolve,
    server::{Server, Unanswered},
};
use crate::{
    body::Body,
    config::{Health, ServerAddress},
};

/// A server that cannot be reached is tried again after this time, and after twice as long each further time.
const FIRST_TRY: Duration = Duration::from_millis(100);

/// But at least so often: whoever starts it waits no longer.
const LAST_TRY: Duration = Duration::from_secs(2);

/// Connections that will not be used any more are closed this often.
const SWEEP: Duration = Duration::from_secs(5);

/// Most of a check's answer that is read, so that its connection can serve again.
const MOST_BODY: usize = 64 * 1024;

/// A task that ends with this.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts everything that a pool needs.
pub fn start(pool: Arc<Pool>) -> Task {
    Task(tokio::spawn(keep(pool)).abort_handle())
}

async fn keep(pool: Arc<Pool>) {
    // Aborted when this future is dropped.
    let mut names = JoinSet::new();
    for (place, entry) in pool.entries.iter().enumerate() {
        if matches!(entry.address, ServerAddress::Name { .. }) {
            names.spawn(resolve::keep(pool.clone(), place));
        }
    }
    let mut changes = pool.changes();
    let mut kept: Vec<(Arc<Server>, Task)> = Vec::new();
    loop {
        changes.borrow_and_update();
        let servers = pool.servers();
        kept.retain(|(server, _)| servers.iter().any(|other| Arc::ptr_eq(server, other)));
        for server in servers {
            if kept.iter().all(|(other, _)| !Arc::ptr_eq(&server, other)) {
                let keeping = keep_server(pool.clone(), server.clone());
                kept.push((server, Task(tokio::spawn(keeping).abort_handle())));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_server(pool: Arc<Pool>, server: Arc<Server>) {
    let mut unreachable = server.unreachable();
    let mut next_check = Instant::now();
    let mut next_sweep = Instant::now() + SWEEP;
    let mut wait = FIRST_TRY;
    loop {
        let is_unreachable = *unreachable.borrow_and_update();
        if !is_unreachable {
            wait = FIRST_TRY;
        }
        let next_try = Instant::now() + jittered(wait);
        tokio::select! {
            changed = unreachable.changed() => if changed.is_err() {
                return;
            },
            () = sleep_until(next_try), if is_unreachable => {
                wait = (wait * 2).min(LAST_TRY);
                // What comes of it is noted there.
                let _ = server.probe(pool.connect).await;
            }
            () = sleep_until(next_sweep) => {
                next_sweep = Instant::now() + SWEEP;
                server.sweep();
            }
            () = sleep_until(next_check), if pool.health.is_some() => {
                if let Some(health) = &pool.health {
                    match check(&server, health, pool.connect).await {
                        Ok(()) => server.check_passed(health.rise),
                        Err(cause) => server.check_failed(&cause, health.fall),
                    }
                    next_check = Instant::now() + jittered(health.every);
                }
            }
        }
    }
}

/// A tenth more or less, so that the checks of several gateways do not come together.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.9..1.1))
}

/// Asks a server once, over a connection of its own, as a new client would.
async fn check(server: &Arc<Server>, health: &Health, connect: Duration) -> Result<(), String> {
    let mut request = Request::new(Body::Empty);
    *request.uri_mut() = health.path.clone().into();
    let host = match &health.host {
        Some(host) => Some(host.clone()),
        None => HeaderValue::from_str(&server.entry.host).ok(),
    };
    let headers = request.headers_mut();
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    let agent = HeaderValue::from_static("session-gateway");
    headers.insert(header::USER_AGENT, agent);
    let asking = async {
        loop {
            let lease = server
                .connection(true, connect.min(health.timeout), true)
                .await
                .map_err(|error| error.to_string())?;
            return match lease.send(request).await {
                Ok(answered) => Ok(answered.into_response(health.timeout, None)),
                Err(Unanswered::Ended(unsent)) => {
                    request = *unsent;
                    continue;
                }
                Err(Unanswered::NotSent(_)) => Err("the check was turned away".to_owned()),
                Err(Unanswered::Broken { error, .. }) => {
                    Err(format!("the check broke off: {error}"))
                }
            };
        }
    };
    let asked = timeout(health.timeout, asking).await;
    let response = asked.map_err(|_| "the check had no answer in time".to_owned())??;
    let status = response.status().as_u16();
    if !health.status.contains(&status) {
        return Err(format!("the check was answered {status}"));
    }
    let body = Limited::new(response.into_body(), MOST_BODY).collect();
    // A connection whose answer was read to its end is of use later. Whether it could be is no part of the check.
    let _ = timeout(health.timeout, body).await;
    Ok(())
}
