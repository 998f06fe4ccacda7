//! Changes of one row: locked, decided, committed, or nothing.
//!
//! Changes of one key queue in this process before they take a connection, so one busy session cannot take
//! them all; those that wait are carried out together, in one transaction, each from what the one before it made of
//! the row. The work runs in a task of its own: whoever asked may leave. Where a commit was not answered, the row
//! is read again, under a lock that the lost transaction must have let go, until the outcome is known.

mod attempt;
mod connections;
mod line;
mod swap;

use std::{
    fmt,
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    runtime,
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout_at},
};

pub use self::swap::Swap;
pub(super) use self::swap::stored;
use self::{
    attempt::{Ended, Shown},
    connections::Pooled,
    line::{Job, Joined, Lines, Pending, Running},
    swap::{Swapped, Swaps},
};
use super::{
    Options, RowData, SessionRow, State, UserRow,
    backend::{Backend, Fault},
    bounded::{Bounded, Touched},
};
use crate::{
    django::UserKey,
    session::SessionKey,
    telemetry::metrics::{Metrics, Pool},
};

/// Between two tries after a deadlock or a serialization failure.
const PAUSE: Duration = Duration::from_millis(5);

/// Most changes of one key in one transaction: more would hold the row, and a thread, for longer than it saves.
const MOST_TOGETHER: usize = 64;

/// A row to be inserted.
#[derive(Clone)]
pub struct NewRow {
    /// A fresh key.
    pub key: SessionKey,
    /// `session_data`.
    pub data: String,
    /// `expire_date`.
    pub expire_date: DateTime<Utc>,
}

impl fmt::Debug for NewRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRow")
            .field("expire_date", &self.expire_date)
            .finish_non_exhaustive()
    }
}

/// What is to become of a row.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Nothing is written.
    Keep,
    /// New contents.
    Update {
        /// `session_data`; `None` leaves it byte for byte.
        data: Option<String>,
        /// `expire_date`.
        expire_date: DateTime<Utc>,
    },
    /// The old row, if there is one, goes; the new one comes.
    Replace(NewRow),
    /// The row goes.
    Delete,
}

/// What the change is, as a function of the locked row. Called again, from the same start, where the
/// transaction has to be tried again.
pub trait Plan: Send + 'static {
    /// What the asker wants to know when the decision has been committed.
    type Answer: Send + 'static;

    /// The row as the asker has seen it, if it is likely that it still is and that the change will give it new
    /// contents. Then it is decided from this, and stored if the row still is the same, byte for byte.
    fn seen(&self) -> Option<SessionRow> {
        None
    }

    /// The user to read inside the transaction, if the decision needs one.
    fn user(&self, row: Option<&SessionRow>) -> Option<UserKey>;

    /// Decides. `user` is what was found of the user asked for.
    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        user: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> (Decision, Self::Answer);

    /// Nothing was stored, and this is why.
    fn not_stored(&self, cause: &Fault) {
        tracing::warn!(%cause, "a session change was not stored");
    }
}

/// Why a change was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another writer held the row, or too many changes of this session were waiting. Nothing is stored.
    #[error("the session is busy")]
    Busy,
    /// Nothing is stored.
    #[error("the session was not saved")]
    NotSaved,
    /// The connection broke during the commit, and the row is neither what it was nor what it should be.
    #[error("nobody can say whether the session was saved")]
    Unknown,
}

/// The write side of a store.
pub struct Changer<B: Backend> {
    backend: Arc<B>,
    state: Arc<State>,
    runtime: runtime::Handle,
    deadline: Duration,
    permits: Arc<Semaphore>,
    /// Of those who store many rows at once: their own, so that rows which others hold do not stop them too.
    sender_permits: Arc<Semaphore>,
    write_connections: usize,
    swaps: Swaps,
    idle: StdMutex<Vec<Pooled<B>>>,
    lines: Lines,
    /// What has to hear of changes.
    bounded: Option<Arc<Bounded>>,
    under_way: UnderWay,
    metrics: Arc<Metrics>,
}

/// Counts the changes under way. A reload can open another store: they count in one place.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<watch::Sender<usize>>);

impl UnderWay {
    /// How many there are.
    pub fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there is none.
    pub async fn none(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Of `write_connections`, for changes that lock their row and for those who send many rows at once. Where there are few,
/// they share them.
fn permits(connections: usize) -> (Arc<Semaphore>, Arc<Semaphore>) {
    let all = |count| Arc::new(Semaphore::new(count));
    match connections.checked_sub(swap::MOST_STATEMENTS) {
        None | Some(0) => {
            let shared = all(connections);
            (shared.clone(), shared)
        }
        Some(rest) => (all(rest), all(swap::MOST_STATEMENTS)),
    }
}

impl<B: Backend> Changer<B> {
    /// Prepares; connects when the first change comes. `bounded` hears of changes before their askers do.
    pub fn new(
        backend: Arc<B>,
        options: &Options,
        state: &Arc<State>,
        bounded: Option<Arc<Bounded>>,
        runtime: &runtime::Handle,
    ) -> Self {
        let (permits, sender_permits) = permits(options.write_connections);
        Self {
            backend,
            state: state.clone(),
            runtime: runtime.clone(),
            deadline: options.deadline,
            permits,
            sender_permits,
            write_connections: options.write_connections,
            swaps: Swaps::default(),
            idle: StdMutex::default(),
            lines: Lines::new(options.session_queue),
            bounded,
            under_way: options.under_way.clone(),
            metrics: options.metrics.clone(),
        }
    }

    /// Runs the plan to its end, also when the returned future is dropped.
    pub async fn run<P: Plan>(
        self: Arc<Self>,
        key: Option<SessionKey>,
        plan: P,
    ) -> Result<P::Answer, ChangeError> {
        let until = Instant::now() + self.deadline;
        let touched = self.bounded.clone().zip(key);
        let touched = touched.map(|(bounded, key)| Touched::new(bounded, key));
        let running = Running::new(&self.under_way);
        let (job, mut told) = Pending::of(plan, until, touched, running);
        // A task that did not come to its end (the process is going down) has not said what it did.
        let unknown = |_| Err(ChangeError::Unknown);
        let Some(key) = key else {
            let changer = self.clone();
            let work = async move { changer.carry_out_all(None, vec![job]).await };
            self.runtime.spawn(work);
            return told.await.unwrap_or_else(unknown);
        };
        match self.lines.join(key, job) {
            Joined::Full => return Err(ChangeError::Busy),
            Joined::First(job) => {
                self.runtime.spawn(self.clone().serve(key, job));
            }
            Joined::Waiting(ticket) => tokio::select! {
                biased;
                told = &mut told => return told.unwrap_or_else(unknown),
                () = sleep_until(until) => {
                    // Whoever is no longer in the line is being served, and is told by those who do it.
                    if self.lines.leave(key, ticket) {
                        return Err(ChangeError::Busy);
                    }
                }
            },
        }
        told.await.unwrap_or_else(unknown)
    }

    /// Carries out the changes of one key until none waits.
    async fn serve(self: Arc<Self>, key: SessionKey, first: Box<dyn Job>) {
        let mut line = self.lines.serve(key);
        // Those who wait have seen the row before the changes that they wait for.
        let mut seen = first.seen();
        let mut jobs = vec![first];
        loop {
            let jobs_left = self.swap_all(key, jobs, &mut seen).await;
            self.carry_out_all(Some(&key), jobs_left).await;
            match line.next(MOST_TOGETHER) {
                Some(waiting) => jobs = waiting,
                None => return,
            }
        }
    }

    /// Stores the changes if the row still is what was last `seen` of it, and tells their askers. Gives back those of
    /// which nothing is stored.
    async fn swap_all(
        self: &Arc<Self>,
        key: SessionKey,
        mut jobs: Vec<Box<dyn Job>>,
        seen: &mut Option<SessionRow>,
    ) -> Vec<Box<dyn Job>> {
        let until = jobs.iter().map(|job| job.until()).min();
        let (Some(until), Some(row)) = (until, seen.take()) else {
            return jobs;
        };
        if !self.backend.swaps() || self.state.is_away() {
            return jobs;
        }
        let Some((data, expire_date)) = self.foresee(&mut jobs, &row, Utc::now()) else {
            return jobs;
        };
        let RowData::Text(old_data) = row.data else {
            return jobs;
        };
        let swap = Swap {
            key,
            old_data,
            old_expire_date: row.expire_date,
            data,
            expire_date,
        };
        let stored = match self.swap(swap.clone(), until).await {
            Swapped::Stored => {
                *seen = Some(SessionRow {
                    data: RowData::Text(swap.data),
                    expire_date: self.backend.held(expire_date),
                });
                Ok(())
            }
            Swapped::NotStored => return jobs,
            Swapped::Lost => match self.settle(&swap, &mut jobs).await {
                true => Ok(()),
                false => Err(ChangeError::Unknown),
            },
        };
        finish(jobs, stored);
        Vec::new()
    }

    /// Together if that works, else each by itself, so that none suffers for another.
    async fn carry_out_all(&self, key: Option<&SessionKey>, jobs: Vec<Box<dyn Job>>) {
        for job in self.carry_out(key, jobs).await {
            self.carry_out(key, vec![job]).await;
        }
    }

    /// Carries out changes in one transaction and tells their askers. Gives back those that failed together; one
    /// that is alone is never given back.
    async fn carry_out(
        &self,
        key: Option<&SessionKey>,
        mut jobs: Vec<Box<dyn Job>>,
    ) -> Vec<Box<dyn Job>> {
        // Whoever had to wait for others of this session, and then runs out of time, met a busy session.
        let mut contended = false;
        let mut second = false;
        let mut permit = None;
        let ended = loop {
            for late in jobs.extract_if(.., |job| job.until() <= Instant::now()) {
                late.fails(&Fault::Timeout, contended);
            }
            let Some(until) = jobs.iter().map(|job| job.until()).min() else {
                break Ok(());
            };
            if permit.is_none() {
                match timeout_at(until, self.permits.acquire()).await {
                    Ok(Ok(acquired)) => {
                        let busy = self.metrics.database_connections_busy.hold(Pool::Changes);
                        permit = Some((acquired, busy));
                    }
                    // Never closed; if it were, nothing could be stored.
                    Ok(Err(_)) => break Err(ChangeError::NotSaved),
                    Err(_) => continue,
                }
            }
            let fault = match self.attempt(key, &mut jobs, until).await {
                Ok(Ended::Committed) => break Ok(()),
                Ok(Ended::Lost { row, effect }) => {
                    match self.read_back(key, row.as_ref(), &effect).await {
                        Some(Shown::Stored) => break Ok(()),
                        Some(Shown::SomethingElse) | None => break Err(ChangeError::Unknown),
                        Some(Shown::NotStored) => {
                            let late = jobs.extract_if(.., |job| job.until() <= Instant::now());
                            finish(late, Err(ChangeError::NotSaved));
                            continue;
                        }
                    }
                }
                Err(fault) => fault,
            };
            self.state.change_failed(&fault);
            match fault {
                Fault::Busy => break Err(ChangeError::Busy),
                Fault::Retry => {
                    contended = true;
                    tokio::time::sleep(PAUSE).await;
                }
                // A new key that is taken is drawn again by the plan.
                Fault::Taken | Fault::Altered if Instant::now() + PAUSE < until => {
                    contended = true;
                    tokio::time::sleep(PAUSE).await;
                }
                // Idle connections may know the tables as they were before a migration.
                Fault::Refused(_) if !second => {
                    second = true;
                    self.forget_idle();
                }
                // Those who have time left get it.
                Fault::Timeout if jobs.len() > 1 && Instant::now() >= until => {}
                _ if jobs.len() > 1 => return jobs,
                fault => {
                    for job in jobs {
                        job.fails(&fault, contended);
                    }
                    return Vec::new();
                }
            }
        };
        finish(jobs, ended);
        Vec::new()
    }
}

/// Tells all askers the same.
fn finish(jobs: impl IntoIterator<Item = Box<dyn Job>>, ended: Result<(), ChangeError>) {
    for job in jobs {
        job.finish(ended);
    }
}

#[cfg(test)]
mod tests;
