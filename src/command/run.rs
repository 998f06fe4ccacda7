//! `run`: the gateway itself.

mod reload;
mod signals;

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    runtime, signal,
    signal::unix::{Signal, SignalKind},
};

use self::reload::Reloader;
pub(super) use self::signals::ends;
use super::{failure, load};
use crate::{
    config::Config,
    gateway::{Current, Gateway},
    server::Server,
    sessions::Sessions,
    store::OpenError,
    telemetry::metrics::Metrics,
};

/// How long the database is waited for at the start. One that is away must not keep a gateway from starting.
const FIRST_CONTACT: Duration = Duration::from_secs(2);

/// Runs until SIGINT or SIGTERM.
pub fn run(path: &Path) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for remark in &loaded.remarks {
        tracing::warn!("{remark}");
    }
    match block_on(serve(loaded.config, path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => failure(&sentence, 1),
    }
}

/// Runs a future on the runtime that serves requests.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no threads could be started: {error}"))?;
    runtime.block_on(future)
}

async fn serve(config: Config, file: &Path) -> Result<(), String> {
    // From here on a SIGHUP does not end the process.
    let hangups = signal::unix::signal(SignalKind::hangup());
    let hangups = hangups.map_err(|error| format!("SIGHUP cannot be waited for: {error}"))?;
    let metrics = Arc::<Metrics>::default();
    let sessions = Sessions::open(&config, metrics.clone()).map_err(describe)?;
    // Before the first socket opens: a wrong database address should not look like a running gateway.
    sessions
        .store()
        .first_contact(FIRST_CONTACT)
        .await
        .map_err(describe)?;
    warn_of_refusals(&config, &sessions);
    let (_sender, ends) =
        ends().map_err(|error| format!("signals cannot be waited for: {error}"))?;
    let server = Server::bind(&config)
        .await
        .map_err(|error| error.to_string())?;
    let gateway = Gateway::new(config, sessions, metrics);
    gateway.start();
    let current = Arc::new(Current::new(gateway));
    let reloader = Reloader::new(file.to_owned(), current.clone());
    let reloading = tokio::spawn(reload_on(hangups, reloader));
    server.run(current, ends).await;
    reloading.abort();
    Ok(())
}

/// One after the other; those that come meanwhile are one.
async fn reload_on(mut hangups: Signal, reloader: Reloader) {
    while hangups.recv().await.is_some() {
        reloader.reload().await;
    }
}

/// A table of the site's own may ask for columns that only Django can fill. `check` cannot know, it asks no
/// database; the log should not begin with a visitor's loss.
fn warn_of_refusals(config: &Config, sessions: &Sessions) {
    let inserting = config.routes.iter().find(|route| route.grants.may_insert());
    let shape = sessions.store().state().shape();
    if let (Some(route), Some(why)) = (inserting, shape.and_then(|shape| shape.no_insert.clone())) {
        tracing::warn!(
            route = route.line,
            why,
            "routes grant changes that will be refused: a first \"set\" of a visitor without a session, \"cycle\", \
             and \"flush\" with \"set\""
        );
    }
}

fn describe(error: OpenError) -> String {
    match error {
        OpenError::Refused(cause) => format!(
            "the session database said no: {cause}. Check [django] database and table, and that \
             `manage.py migrate` has run"
        ),
        other => other.to_string(),
    }
}
