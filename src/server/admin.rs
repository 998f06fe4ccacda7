//! Serves the admin address: the status page, for a few people of this machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::interval;

use super::{
    listen::Listener,
    pages::{self, Terms},
    stage::Stages,
};
use crate::{
    admin::status::{self, History},
    gateway::Current,
};

/// The page asks every two seconds, on one connection. It may be open for days; its connection is renewed now and then.
/// Connections: browser windows with the page.
const TERMS: Terms = Terms {
    head: Duration::from_secs(30),
    connection: Duration::from_secs(600),
    connections: 32,
};

/// Answers, and keeps what the page tells of the last minutes, until the process ends.
pub async fn serve(
    listener: Arc<Listener>,
    current: Arc<Current>,
    draining: Arc<AtomicBool>,
    stages: Stages,
) {
    let history = Arc::new(History::default());
    let (kept, watched) = (history.clone(), current.clone());
    let answering = pages::serve(listener, TERMS, stages, move |request| {
        status::answer(
            request,
            &current,
            &history,
            draining.load(Ordering::Relaxed),
        )
    });
    tokio::select! {
        () = watch(&kept, &watched) => {}
        () = answering => {}
    }
}

async fn watch(history: &History, current: &Current) {
    let mut every = interval(status::EVERY);
    loop {
        every.tick().await;
        history.sample(&current.load());
    }
}
