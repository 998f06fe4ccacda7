//! The connections on which changes are made: kept while they can be trusted.

use std::{sync::PoisonError, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::Changer;
use crate::{
    store::backend::{Backend, CONNECTION_LIFE, Fault, connect},
    telemetry::metrics::{Held, Pool},
};

/// A connection that was idle for longer is asked whether it is still there before it is trusted.
const TRUST_IDLE: Duration = Duration::from_secs(1);

/// A connection for changes.
pub(super) struct Pooled<B: Backend> {
    pub(super) connection: B::Connection,
    opened: Instant,
    /// Of the tables that it knows.
    epoch: u64,
    used: Instant,
    _open: Held,
}

impl<B: Backend> Changer<B> {
    /// A connection in a fresh transaction. An idle one that turns out to be broken is replaced: nothing was
    /// sent on it that could have happened.
    pub(super) async fn connection(&self, until: Instant) -> Result<Pooled<B>, Fault> {
        if self.state.is_away() {
            return Err(Fault::Away("the session database is away".into()));
        }
        if let Some(mut pooled) = self.idle() {
            let begun = timeout_at(until, async {
                if pooled.used.elapsed() > TRUST_IDLE {
                    self.backend.ping(&mut pooled.connection).await?;
                }
                self.backend.begin(&mut pooled.connection).await
            });
            match begun.await.unwrap_or(Err(Fault::Timeout)) {
                Ok(()) => return Ok(pooled),
                // SQLite's BEGIN IMMEDIATE waits for the file.
                Err(fault @ (Fault::Busy | Fault::Retry)) => {
                    self.keep(pooled);
                    return Err(fault);
                }
                Err(_) => {}
            }
        }
        self.fresh(until).await
    }

    /// A connection outside of any transaction.
    pub(super) async fn idle_connection(&self, until: Instant) -> Result<Pooled<B>, Fault> {
        if let Some(mut pooled) = self.idle() {
            if pooled.used.elapsed() <= TRUST_IDLE {
                return Ok(pooled);
            }
            let ping = self.backend.ping(&mut pooled.connection);
            if let Ok(Ok(())) = timeout_at(until, ping).await {
                return Ok(pooled);
            }
        }
        self.open(until).await
    }

    /// The connection that was used last.
    fn idle(&self) -> Option<Pooled<B>> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.filter(|pooled| {
            pooled.opened.elapsed() < CONNECTION_LIFE && pooled.epoch == self.state.epoch()
        })
    }

    /// A new connection in a fresh transaction.
    pub(super) async fn fresh(&self, until: Instant) -> Result<Pooled<B>, Fault> {
        let mut pooled = self.open(until).await?;
        let begun = timeout_at(until, self.backend.begin(&mut pooled.connection));
        begun.await.unwrap_or(Err(Fault::Timeout))?;
        Ok(pooled)
    }

    async fn open(&self, until: Instant) -> Result<Pooled<B>, Fault> {
        let (opened, epoch) = (Instant::now(), self.state.epoch());
        let connected = timeout_at(until, connect(self.backend.as_ref(), &self.state));
        let connection = connected.await.unwrap_or(Err(Fault::Timeout))?;
        Ok(Pooled {
            connection,
            opened,
            epoch,
            used: Instant::now(),
            _open: self.metrics.database_connections.hold(Pool::Changes),
        })
    }

    /// Puts the connection back, unless it cannot be trusted any more.
    pub(super) async fn roll_back(&self, mut pooled: Pooled<B>, is_broken: bool, until: Instant) {
        if is_broken {
            return;
        }
        // Past the deadline a rollback still gets a moment: the row lock should not outlive this task.
        let until = until.max(Instant::now() + Duration::from_millis(200));
        if let Ok(Ok(())) = timeout_at(until, self.backend.rollback(&mut pooled.connection)).await {
            self.keep(pooled);
        }
    }

    pub(super) fn keep(&self, mut pooled: Pooled<B>) {
        pooled.used = Instant::now();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pooled);
    }

    pub(super) fn forget_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
    }
}
