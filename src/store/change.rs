//! One change of one row: locked, decided, committed, or nothing.
//!
//! Changes of one key queue in this process before they take a connection, so one busy session cannot take
//! them all. The work runs in a task of its own: whoever asked may leave. Where a commit was not answered, the
//! row is read again, under a lock that the lost transaction must have let go, until the outcome is known.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    runtime,
    sync::{Mutex, Semaphore, watch},
    time::{Instant, timeout_at},
};

use super::{
    Options, RowData, SessionRow, State, UserRow,
    backend::{Backend, CONNECTION_LIFE, Fault, connect},
    bounded::{Bounded, Touched},
};
use crate::{
    django::UserKey,
    session::SessionKey,
    telemetry::metrics::{Held, Metrics, Pool},
};

/// A connection that was idle for longer is asked whether it is still there before it is trusted.
const TRUST_IDLE: Duration = Duration::from_secs(1);

/// Between two tries after a deadlock or a serialization failure.
const PAUSE: Duration = Duration::from_millis(5);

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
    permits: Semaphore,
    idle: StdMutex<Vec<Pooled<B>>>,
    waiting: StdMutex<HashMap<SessionKey, Turn>>,
    session_queue: usize,
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

struct Pooled<B: Backend> {
    connection: B::Connection,
    opened: Instant,
    /// Of the tables that it knows.
    epoch: u64,
    used: Instant,
    _open: Held,
}

/// How a transaction ended.
enum Ended<A> {
    Committed(A),
    /// The commit was sent, and no answer came.
    Lost {
        row: Option<SessionRow>,
        decision: Decision,
        answer: A,
    },
}

/// What reading back a lost commit has shown.
enum Shown {
    Stored,
    NotStored,
    SomethingElse,
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
        Self {
            backend,
            state: state.clone(),
            runtime: runtime.clone(),
            deadline: options.deadline,
            permits: Semaphore::new(options.write_connections),
            idle: StdMutex::default(),
            waiting: StdMutex::default(),
            session_queue: options.session_queue,
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
        let running = Running::new(&self.under_way);
        let touched = self.bounded.clone().zip(key);
        let touched = touched.map(|(bounded, key)| Touched::new(bounded, key));
        let runtime = self.runtime.clone();
        let task = runtime.spawn(async move {
            let _running = running;
            let ended = self.take_turn(key, plan, until).await;
            // Before anybody is told.
            drop(touched);
            ended
        });
        // A task that did not come to its end (the process is going down) has not said what it did.
        task.await.unwrap_or(Err(ChangeError::Unknown))
    }

    async fn take_turn<P: Plan>(
        &self,
        key: Option<SessionKey>,
        mut plan: P,
        until: Instant,
    ) -> Result<P::Answer, ChangeError> {
        let Some(key) = key else {
            return self.carry_out(None, &mut plan, until, false).await;
        };
        let place = self.join_line(key)?;
        let (_turn, waited) = match place.line.try_lock() {
            Ok(turn) => (turn, false),
            Err(_) => match timeout_at(until, place.line.lock()).await {
                Ok(turn) => (turn, true),
                Err(_) => return Err(ChangeError::Busy),
            },
        };
        self.carry_out(Some(key), &mut plan, until, waited).await
    }

    fn join_line(&self, key: SessionKey) -> Result<Place<'_>, ChangeError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = waiting.entry(key).or_default();
        // One works, the others wait.
        if turn.count > self.session_queue {
            return Err(ChangeError::Busy);
        }
        turn.count += 1;
        Ok(Place {
            waiting: &self.waiting,
            key,
            line: turn.line.clone(),
        })
    }

    async fn carry_out<P: Plan>(
        &self,
        key: Option<SessionKey>,
        plan: &mut P,
        until: Instant,
        waited: bool,
    ) -> Result<P::Answer, ChangeError> {
        // Whoever had to wait for others of this session, and then runs out of time, met a busy session.
        let mut contended = waited;
        let mut second = false;
        let Ok(Ok(_permit)) = timeout_at(until, self.permits.acquire()).await else {
            return Err(if contended {
                ChangeError::Busy
            } else {
                ChangeError::NotSaved
            });
        };
        let _busy = self.metrics.database_connections_busy.hold(Pool::Changes);
        loop {
            let fault = match self.attempt(key.as_ref(), plan, until).await {
                Ok(Ended::Committed(answer)) => return Ok(answer),
                Ok(Ended::Lost {
                    row,
                    decision,
                    answer,
                }) => match self.read_back(key.as_ref(), row.as_ref(), &decision).await {
                    Some(Shown::Stored) => return Ok(answer),
                    Some(Shown::SomethingElse) | None => return Err(ChangeError::Unknown),
                    Some(Shown::NotStored) if Instant::now() >= until => {
                        return Err(ChangeError::NotSaved);
                    }
                    Some(Shown::NotStored) => continue,
                },
                Err(fault) => fault,
            };
            self.state.change_failed(&fault);
            match fault {
                Fault::Busy => return Err(ChangeError::Busy),
                // A new key that is taken is drawn again by the plan.
                Fault::Retry | Fault::Taken | Fault::Altered if Instant::now() + PAUSE < until => {
                    contended = true;
                    tokio::time::sleep(PAUSE).await;
                }
                // Idle connections may know the tables as they were before a migration.
                Fault::Refused(_) if !second => {
                    second = true;
                    self.forget_idle();
                }
                Fault::Retry => return Err(ChangeError::Busy),
                Fault::Timeout if contended => return Err(ChangeError::Busy),
                fault => {
                    plan.not_stored(&fault);
                    return Err(ChangeError::NotSaved);
                }
            }
        }
    }

    /// One transaction. An error means that nothing is stored.
    async fn attempt<P: Plan>(
        &self,
        key: Option<&SessionKey>,
        plan: &mut P,
        until: Instant,
    ) -> Result<Ended<P::Answer>, Fault> {
        // Dropped with its connection where anything below gives up: the server then rolls back.
        let mut pooled = self.connection(until).await?;
        let connection = &mut pooled.connection;
        let decided = timeout_at(until, async {
            let now = Utc::now();
            let row = match key {
                Some(key) => self.backend.lock(connection, key, now).await?,
                None => None,
            };
            let user = match plan.user(row.as_ref()) {
                Some(key)
                    if !self
                        .backend
                        .shape(connection)
                        .fits(std::slice::from_ref(&key)) =>
                {
                    return Err(Fault::Altered);
                }
                Some(key) => self.backend.user(connection, &key).await?,
                None => None,
            };
            let (decision, answer) = plan.decide(row.as_ref(), user.as_ref(), now);
            self.write(connection, key, &decision).await?;
            Ok((row, decision, answer))
        })
        .await
        .unwrap_or(Err(Fault::Timeout));
        let (row, decision, answer) = match decided {
            Ok(decided) => decided,
            Err(fault) => {
                self.roll_back(pooled, fault.breaks_connection(), until)
                    .await;
                return Err(fault);
            }
        };
        if matches!(decision, Decision::Keep) {
            self.roll_back(pooled, false, until).await;
            return Ok(Ended::Committed(answer));
        }
        match timeout_at(until, self.backend.commit(connection))
            .await
            .unwrap_or(Err(Fault::Timeout))
        {
            Ok(()) => {
                self.state.succeeded();
                self.keep(pooled);
                Ok(Ended::Committed(answer))
            }
            // Definite: rolled back. Every other error leaves open what the server has done.
            Err(fault @ (Fault::Retry | Fault::Busy | Fault::Taken)) => {
                self.roll_back(pooled, fault.breaks_connection(), until)
                    .await;
                Err(fault)
            }
            Err(fault) => {
                self.state.change_failed(&fault);
                Ok(Ended::Lost {
                    row,
                    decision,
                    answer,
                })
            }
        }
    }

    async fn write(
        &self,
        connection: &mut B::Connection,
        key: Option<&SessionKey>,
        decision: &Decision,
    ) -> Result<(), Fault> {
        match (decision, key) {
            (Decision::Keep, _) | (Decision::Update { .. } | Decision::Delete, None) => Ok(()),
            (Decision::Update { data, expire_date }, Some(key)) => {
                match self
                    .backend
                    .update(connection, key, data.as_deref(), *expire_date)
                    .await?
                {
                    1 => Ok(()),
                    // The row is locked, so it cannot have gone; a rule or trigger is in the way.
                    rows => Err(Fault::Refused(format!(
                        "an UPDATE of one session row matched {rows} rows"
                    ))),
                }
            }
            (Decision::Replace(row), key) => {
                if let Some(why) = self.backend.shape(connection).no_insert.clone() {
                    return Err(Fault::Refused(why));
                }
                self.backend.insert(connection, row).await?;
                match key {
                    Some(key) => self.backend.delete(connection, key).await,
                    None => Ok(()),
                }
            }
            (Decision::Delete, Some(key)) => self.backend.delete(connection, key).await,
        }
    }

    /// Finds out what became of a commit that was not answered. `None`: the database did not tell in time.
    async fn read_back(
        &self,
        key: Option<&SessionKey>,
        before: Option<&SessionRow>,
        decision: &Decision,
    ) -> Option<Shown> {
        let until = Instant::now() + self.deadline;
        loop {
            match self.look(key, before, decision, until).await {
                Ok(shown) => return Some(shown),
                Err(fault) => self.state.change_failed(&fault),
            }
            if Instant::now() + PAUSE * 10 > until {
                return None;
            }
            tokio::time::sleep(PAUSE * 10).await;
        }
    }

    /// Locks the old row first: the lost transaction held that lock, so whoever gets it comes after its end.
    async fn look(
        &self,
        key: Option<&SessionKey>,
        before: Option<&SessionRow>,
        decision: &Decision,
        until: Instant,
    ) -> Result<Shown, Fault> {
        let mut pooled = self.fresh(until).await?;
        let connection = &mut pooled.connection;
        let looked = timeout_at(until, async {
            let ever = DateTime::<Utc>::UNIX_EPOCH;
            let row = match key {
                Some(key) => self.backend.lock(connection, key, ever).await?,
                None => None,
            };
            match decision {
                Decision::Keep => Ok(Shown::Stored),
                // 32 random characters: if the new key is there, we put it there. Its place is taken for the
                // time of this transaction, so a lost transaction that still runs is waited for.
                Decision::Replace(new) => match self.backend.insert(connection, new).await {
                    Err(Fault::Taken) => Ok(Shown::Stored),
                    Ok(()) => Ok(Shown::NotStored),
                    Err(fault) => Err(fault),
                },
                Decision::Delete if row.is_none() => Ok(Shown::Stored),
                Decision::Delete if row.as_ref() == before => Ok(Shown::NotStored),
                Decision::Delete => Ok(Shown::SomethingElse),
                Decision::Update { data, expire_date } => {
                    let Some(row) = row else {
                        return Ok(Shown::SomethingElse);
                    };
                    let ours = row.expire_date == self.backend.held(*expire_date)
                        && match (data, &row.data, before) {
                            (Some(data), RowData::Text(text), _) => **data == **text,
                            (None, data, Some(before)) => *data == before.data,
                            _ => false,
                        };
                    Ok(match (ours, Some(&row) == before) {
                        (true, _) => Shown::Stored,
                        (false, true) => Shown::NotStored,
                        (false, false) => Shown::SomethingElse,
                    })
                }
            }
        })
        .await
        .unwrap_or(Err(Fault::Timeout));
        let is_broken = looked.as_ref().err().is_some_and(Fault::breaks_connection);
        self.roll_back(pooled, is_broken, until).await;
        looked
    }

    /// A connection in a fresh transaction. An idle one that turns out to be broken is replaced: nothing was
    /// sent on it that could have happened.
    async fn connection(&self, until: Instant) -> Result<Pooled<B>, Fault> {
        if self.state.is_away() {
            return Err(Fault::Away("the session database is away".into()));
        }
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let is_good = |pooled: &Pooled<B>| {
            pooled.opened.elapsed() < CONNECTION_LIFE && pooled.epoch == self.state.epoch()
        };
        if let Some(mut pooled) = idle.filter(is_good) {
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

    async fn fresh(&self, until: Instant) -> Result<Pooled<B>, Fault> {
        let (opened, epoch) = (Instant::now(), self.state.epoch());
        let begun = timeout_at(until, async {
            let mut connection = connect(self.backend.as_ref(), &self.state).await?;
            self.backend.begin(&mut connection).await?;
            Ok(connection)
        });
        let connection = begun.await.unwrap_or(Err(Fault::Timeout))?;
        Ok(Pooled {
            connection,
            opened,
            epoch,
            used: Instant::now(),
            _open: self.metrics.database_connections.hold(Pool::Changes),
        })
    }

    /// Puts the connection back, unless it cannot be trusted any more.
    async fn roll_back(&self, mut pooled: Pooled<B>, is_broken: bool, until: Instant) {
        if is_broken {
            return;
        }
        // Past the deadline a rollback still gets a moment: the row lock should not outlive this task.
        let until = until.max(Instant::now() + Duration::from_millis(200));
        if let Ok(Ok(())) = timeout_at(until, self.backend.rollback(&mut pooled.connection)).await {
            self.keep(pooled);
        }
    }

    fn keep(&self, mut pooled: Pooled<B>) {
        pooled.used = Instant::now();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pooled);
    }

    fn forget_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
    }
}

#[derive(Default)]
struct Turn {
    line: Arc<Mutex<()>>,
    count: usize,
}

/// A place in the line of one key. The last to leave takes the line away.
struct Place<'a> {
    waiting: &'a StdMutex<HashMap<SessionKey, Turn>>,
    key: SessionKey,
    line: Arc<Mutex<()>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = waiting.get_mut(&self.key) {
            turn.count -= 1;
            if turn.count == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

/// Counts a change for as long as it is under way.
struct Running(UnderWay);

impl Running {
    fn new(under_way: &UnderWay) -> Self {
        under_way.0.send_modify(|count| *count += 1);
        Self(under_way.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests;
