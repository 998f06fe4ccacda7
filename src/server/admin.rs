//! Serves the admin address: the status page, for a few people of this machine.

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
use tokio::{
    sync::Semaphore,
    time::{interval, timeout},
};

use super::{listen::Listener, stage::Stages};
use crate::{
    admin::status::{self, History},
    gateway::Current,
};

/// The page asks every two seconds, on one connection.
const IDLE: Duration = Duration::from_secs(30);

/// A page may be open for days; its connection is renewed now and then.
const CONNECTION: Duration = Duration::from_secs(600);

/// Browser windows with the page.
const CONNECTIONS: usize = 32;

/// Answers, and keeps what the page tells of the last minutes, until the process ends.
pub async fn serve(
    listener: Arc<Listener>,
    current: Arc<Current>,
    draining: Arc<AtomicBool>,
    stages: Stages,
) {
    let history = Arc::new(History::default());
    tokio::select! {
        () = watch(&history, &current) => {}
        () = accept(listener, &history, &current, &draining, &stages) => {}
    }
}

async fn watch(history: &History, current: &Current) {
    let mut every = interval(status::EVERY);
    loop {
        every.tick().await;
        history.sample(&current.load());
    }
}

async fn accept(
    listener: Arc<Listener>,
    history: &Arc<History>,
    current: &Arc<Current>,
    draining: &Arc<AtomicBool>,
    stages: &Stages,
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
        let (history, current) = (history.clone(), current.clone());
        let (draining, stages) = (draining.clone(), stages.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let is_draining = draining.load(Ordering::Relaxed);
            let mut response = status::answer(&request, &current, &history, is_draining);
            stages.say_goodbye(&mut response);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(socket), service);
            // A browser that leaves is none of our business.
            let _ = timeout(CONNECTION, connection).await;
            drop(place);
        });
    }
}
