//! `run`: the gateway itself.

mod reload;
mod signals;
mod systemd;
mod takeover;

use std::{io, path::Path, process::ExitCode, sync::Arc, time::Duration};

use listenfd::ListenFd;
use tokio::{
    runtime, signal,
    signal::unix::{Signal, SignalKind},
    sync::mpsc,
    task,
};

pub(super) use self::signals::{Fate, ends};
use self::{reload::Reloader, takeover::Predecessor};
use super::{failure, load};
use crate::{
    config::{Config, Loaded},
    gateway::{Current, Gateway},
    server::{End, Handles, Inherited, Server},
    sessions::Sessions,
    store::OpenError,
    telemetry::{metrics::Metrics, spans},
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
    // It takes variables out of the environment, so before there are other threads.
    let passed = ListenFd::from_env();
    if let Err(sentence) = spans::start(&|name| std::env::var(name).ok()) {
        return failure(&sentence, 2);
    }
    match block_on(serve(loaded, path, passed)) {
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
    let done = runtime.block_on(future);
    // What still blocks a thread waits for a successor, or for a disk.
    runtime.shutdown_background();
    done
}

async fn serve(loaded: Loaded, file: &Path, passed: ListenFd) -> Result<(), String> {
    // From here on these do not end the process.
    let asked = Asked {
        reload: on(SignalKind::hangup())?,
        successor: on(SignalKind::user_defined2())?,
    };
    let Loaded {
        config,
        fingerprint,
        ..
    } = loaded;
    let predecessor = Predecessor::of_this_process().map_err(unusable_sockets)?;
    let inherited = match &predecessor {
        Some(predecessor) => predecessor.sockets(),
        None => Inherited::from_systemd(passed),
    };
    let inherited = inherited.map_err(unusable_sockets)?;
    // Also as the first process of a container, where they would do nothing otherwise.
    let fate = Fate::default();
    let (sender, mut ends) =
        ends(fate.clone()).map_err(|error| format!("signals cannot be waited for: {error}"))?;
    let metrics = Arc::<Metrics>::default();
    let sessions = Sessions::open(&config, metrics.clone()).map_err(describe)?;
    // Before the first socket opens: a wrong database address should not look like a running gateway.
    tokio::select! {
        contact = sessions.store().first_contact(FIRST_CONTACT) => contact.map_err(describe)?,
        _ = ends.recv() => {
            tracing::info!("ending before it has begun");
            return Ok(());
        }
    }
    warn_of_refusals(&config, &sessions);
    let server = Server::open(&config, inherited).map_err(|error| error.to_string())?;
    let gateway = Gateway::new(config, sessions, metrics);
    gateway.start();
    let current = Arc::new(Current::new(gateway));
    let reloader = Reloader::new(file.to_owned(), fingerprint, current.clone());
    let changing = tokio::spawn(change(asked, reloader, (server.handles(), fate), sender));
    if let Some(predecessor) = predecessor {
        predecessor.ready().map_err(|error| {
            format!(
                "the gateway that this one was to follow has ended ({error}), so this one ends too"
            )
        })?;
    }
    systemd::ready();
    server.run(current, ends).await;
    changing.abort();
    Ok(())
}

fn unusable_sockets(error: io::Error) -> String {
    format!("the sockets that were handed to this process cannot be used: {error}")
}

fn on(kind: SignalKind) -> Result<Signal, String> {
    signal::unix::signal(kind).map_err(|error| format!("signals cannot be waited for: {error}"))
}

/// Signals that ask for a change.
struct Asked {
    /// SIGHUP.
    reload: Signal,
    /// SIGUSR2.
    successor: Signal,
}

/// Carries out changes, one after the other; the same that is asked for meanwhile is one.
async fn change(
    mut asked: Asked,
    mut reloader: Reloader,
    (handles, fate): (Handles, Fate),
    ends: mpsc::Sender<End>,
) {
    loop {
        tokio::select! {
            _ = asked.reload.recv() => {
                systemd::reloading();
                reloader.reload().await;
                systemd::ready();
            }
            _ = asked.successor.recv() => {
                if hand_over(handles.clone(), fate.clone()).await {
                    let _ = ends.send(End::HandedOver).await;
                    return;
                }
            }
            () = reloader.time_to_look() => reloader.look().await,
        }
    }
}

async fn hand_over(handles: Handles, fate: Fate) -> bool {
    tracing::info!("starting another process to take over");
    let started = task::spawn_blocking(move || takeover::start_successor(&handles, &fate)).await;
    match started {
        Ok(Ok(process)) => {
            systemd::is_followed_by(process);
            tracing::info!(process, "another process has taken over");
            true
        }
        Ok(Err(why)) => {
            tracing::error!(why, "no other process has taken over, so this one goes on");
            false
        }
        Err(error) => {
            tracing::error!(%error, "starting another process broke off, so this one goes on");
            false
        }
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
