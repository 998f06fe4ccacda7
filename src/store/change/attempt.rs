//! One transaction of one or more changes of a row, and what became of one whose commit was not answered.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};

use super::{Changer, Decision, NewRow, PAUSE, Swap, line::Job};
use crate::{
    session::SessionKey,
    store::{Fault, RowData, SessionRow, backend::Backend},
};

/// How a transaction ended.
pub(super) enum Ended {
    Committed,
    /// The commit was sent, and no answer came.
    Lost {
        /// The row before it.
        row: Option<SessionRow>,
        effect: Effect,
    },
}

/// What reading back a lost commit has shown.
pub(super) enum Shown {
    Stored,
    NotStored,
    SomethingElse,
}

/// What several decisions, one after the other, come to.
#[derive(Default)]
pub(super) struct Effect {
    /// Rows under new keys.
    new: Vec<NewRow>,
    /// What becomes of the row itself.
    own: Own,
}

#[derive(Default)]
enum Own {
    #[default]
    Kept,
    Updated {
        data: Option<String>,
        expire_date: DateTime<Utc>,
    },
    Gone,
}

impl Effect {
    fn add(&mut self, decision: Decision) {
        match decision {
            Decision::Keep => {}
            Decision::Update { data, expire_date } => {
                let earlier = match std::mem::take(&mut self.own) {
                    Own::Updated { data, .. } => data,
                    Own::Kept | Own::Gone => None,
                };
                self.own = Own::Updated {
                    data: data.or(earlier),
                    expire_date,
                };
            }
            Decision::Replace(row) => {
                self.new.push(row);
                self.own = Own::Gone;
            }
            Decision::Delete => self.own = Own::Gone,
        }
    }

    fn is_nothing(&self) -> bool {
        self.new.is_empty() && matches!(self.own, Own::Kept)
    }

    /// The live row as whoever comes next finds it.
    pub(super) fn row<B: Backend>(
        &self,
        backend: &B,
        before: Option<&SessionRow>,
        now: DateTime<Utc>,
    ) -> Option<SessionRow> {
        let Own::Updated { data, expire_date } = &self.own else {
            return before.filter(|_| matches!(self.own, Own::Kept)).cloned();
        };
        let data = match data {
            Some(data) => RowData::Text(data.as_str().into()),
            None => before?.data.clone(),
        };
        let expire_date = backend.held(*expire_date);
        (expire_date > now).then_some(SessionRow { data, expire_date })
    }
}

impl<B: Backend> Changer<B> {
    /// One transaction. An error means that nothing is stored.
    pub(super) async fn attempt(
        &self,
        key: Option<&SessionKey>,
        jobs: &mut [Box<dyn Job>],
        until: Instant,
    ) -> Result<Ended, Fault> {
        // Dropped with its connection where anything below gives up: the server then rolls back.
        let mut pooled = self.connection(until).await?;
        let connection = &mut pooled.connection;
        let decided = timeout_at(until, async {
            let now = Utc::now();
            let row = match key {
                Some(key) => self.backend.lock(connection, key, now).await?,
                None => None,
            };
            let effect = self.decide(connection, jobs, row.as_ref(), now).await?;
            self.write(connection, key, &effect).await?;
            Ok((row, effect))
        })
        .await
        .unwrap_or(Err(Fault::Timeout));
        let (row, effect) = match decided {
            Ok(decided) => decided,
            Err(fault) => {
                self.roll_back(pooled, fault.breaks_connection(), until)
                    .await;
                return Err(fault);
            }
        };
        if effect.is_nothing() {
            self.roll_back(pooled, false, until).await;
            return Ok(Ended::Committed);
        }
        match timeout_at(until, self.backend.commit(connection))
            .await
            .unwrap_or(Err(Fault::Timeout))
        {
            Ok(()) => {
                self.state.succeeded();
                self.keep(pooled);
                Ok(Ended::Committed)
            }
            // Definite: rolled back. Every other error leaves open what the server has done.
            Err(fault @ (Fault::Retry | Fault::Busy | Fault::Taken)) => {
                self.roll_back(pooled, fault.breaks_connection(), until)
                    .await;
                Err(fault)
            }
            Err(fault) => {
                self.state.change_failed(&fault);
                Ok(Ended::Lost { row, effect })
            }
        }
    }

    /// Each from what the one before it made of the row.
    async fn decide(
        &self,
        connection: &mut B::Connection,
        jobs: &mut [Box<dyn Job>],
        before: Option<&SessionRow>,
        now: DateTime<Utc>,
    ) -> Result<Effect, Fault> {
        let mut effect = Effect::default();
        let mut changed;
        let mut row = before;
        for (place, job) in jobs.iter_mut().enumerate() {
            if place > 0 {
                changed = effect.row(self.backend.as_ref(), before, now);
                row = changed.as_ref();
            }
            let user = match job.user(row) {
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
            let decision = job.decide(row, user.as_ref(), now);
            if row.is_none() && matches!(decision, Decision::Update { .. }) {
                return Err(Fault::Refused(
                    "a row that is gone cannot be updated".into(),
                ));
            }
            effect.add(decision);
        }
        Ok(effect)
    }

    /// What the changes come to, if the row still is `before`. `None` where that is to be found out under the lock:
    /// they need to read a user, write nothing, or do more than give the row new contents.
    pub(super) fn foresee(
        &self,
        jobs: &mut [Box<dyn Job>],
        before: &SessionRow,
        now: DateTime<Utc>,
    ) -> Option<(Arc<str>, DateTime<Utc>)> {
        let mut effect = Effect::default();
        let mut row = Some(before.clone()).filter(|row| row.expire_date > now);
        for job in jobs {
            let live = row?;
            if job.user(Some(&live)).is_some() {
                return None;
            }
            effect.add(job.decide(Some(&live), None, now));
            row = effect.row(self.backend.as_ref(), Some(before), now);
        }
        match (effect.own, &before.data) {
            (
                Own::Updated {
                    data: Some(data),
                    expire_date,
                },
                _,
            ) => Some((data.into(), expire_date)),
            (
                Own::Updated {
                    data: None,
                    expire_date,
                },
                RowData::Text(data),
            ) => Some((data.clone(), expire_date)),
            _ => None,
        }
    }

    /// Brings a swap that was not answered to its end: under the row's lock it has either happened already, or is made
    /// here, after which it can never happen again: the row is another one then. Every other end is unknown.
    pub(super) async fn settle(&self, swap: &Swap, jobs: &mut [Box<dyn Job>]) -> bool {
        let until = Instant::now() + self.deadline;
        loop {
            // Not held while this waits: as many as a statement has rows may have to be settled.
            let Ok(Ok(permit)) = timeout_at(until, self.permits.acquire()).await else {
                return false;
            };
            match self.try_to_settle(swap, jobs, until).await {
                Ok(is_stored) => return is_stored,
                Err(fault) => self.state.change_failed(&fault),
            }
            drop(permit);
            if Instant::now() + PAUSE * 10 > until {
                return false;
            }
            tokio::time::sleep(PAUSE * 10).await;
        }
    }

    /// An error means that nothing was done.
    async fn try_to_settle(
        &self,
        swap: &Swap,
        jobs: &mut [Box<dyn Job>],
        until: Instant,
    ) -> Result<bool, Fault> {
        let mut pooled = self.fresh(until).await?;
        let connection = &mut pooled.connection;
        let ever = DateTime::<Utc>::UNIX_EPOCH;
        let locked = timeout_at(until, self.backend.lock(connection, &swap.key, ever)).await;
        let row = match locked.unwrap_or(Err(Fault::Timeout)) {
            Ok(row) => row,
            Err(fault) => {
                self.roll_back(pooled, fault.breaks_connection(), until)
                    .await;
                return Err(fault);
            }
        };
        let is_stored = row.as_ref().is_some_and(|row| {
            row.expire_date == self.backend.held(swap.expire_date)
                && matches!(&row.data, RowData::Text(text) if *text == swap.data)
        });
        if is_stored || row != Some(swap.before()) {
            self.roll_back(pooled, false, until).await;
            return Ok(is_stored);
        }
        // Decided anew: the end of a session is counted from now.
        let Some((data, expire_date)) = self.foresee(jobs, &swap.before(), Utc::now()) else {
            self.roll_back(pooled, false, until).await;
            return Ok(false);
        };
        let done = timeout_at(until, async {
            let data = Some(&*data);
            let update = self
                .backend
                .update(connection, &swap.key, data, expire_date);
            match update.await? {
                1 => self.backend.commit(connection).await,
                _ => Err(Fault::Refused("an UPDATE matched no row".into())),
            }
        });
        match done.await {
            Ok(Ok(())) => {
                self.keep(pooled);
                Ok(true)
            }
            // What was sent first, or this, may still be carried out.
            _ => Ok(false),
        }
    }

    async fn write(
        &self,
        connection: &mut B::Connection,
        key: Option<&SessionKey>,
        effect: &Effect,
    ) -> Result<(), Fault> {
        if let Some(why) = self.backend.shape(connection).no_insert.clone()
            && !effect.new.is_empty()
        {
            return Err(Fault::Refused(why));
        }
        for row in &effect.new {
            self.backend.insert(connection, row).await?;
        }
        let Some(key) = key else { return Ok(()) };
        match &effect.own {
            Own::Kept => Ok(()),
            Own::Updated { data, expire_date } => {
                let data = data.as_deref();
                match self
                    .backend
                    .update(connection, key, data, *expire_date)
                    .await?
                {
                    1 => Ok(()),
                    // The row is locked, so it cannot have gone; a rule or trigger is in the way.
                    rows => Err(Fault::Refused(format!(
                        "an UPDATE of one session row matched {rows} rows"
                    ))),
                }
            }
            Own::Gone => self.backend.delete(connection, key).await,
        }
    }

    /// Finds out what became of a commit that was not answered. `None`: the database did not tell in time.
    pub(super) async fn read_back(
        &self,
        key: Option<&SessionKey>,
        before: Option<&SessionRow>,
        effect: &Effect,
    ) -> Option<Shown> {
        let until = Instant::now() + self.deadline;
        loop {
            match self.look(key, before, effect, until).await {
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
        effect: &Effect,
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
            // 32 random characters: if one of the new keys is there, we put it there, and all the rest with it. Its
            // place is taken for the time of this transaction, so a lost transaction that still runs is waited for.
            if let Some(new) = effect.new.first() {
                return match self.backend.insert(connection, new).await {
                    Err(Fault::Taken) => Ok(Shown::Stored),
                    Ok(()) => Ok(Shown::NotStored),
                    Err(fault) => Err(fault),
                };
            }
            let is_stored = match (&effect.own, &row) {
                (Own::Kept, _) | (Own::Gone, None) => true,
                (Own::Gone, Some(_)) | (Own::Updated { .. }, None) => false,
                (Own::Updated { data, expire_date }, Some(row)) => {
                    row.expire_date == self.backend.held(*expire_date)
                        && match (data, &row.data, before) {
                            (Some(data), RowData::Text(text), _) => **data == **text,
                            (None, data, Some(before)) => *data == before.data,
                            _ => false,
                        }
                }
            };
            Ok(match (is_stored, &row) {
                (true, _) => Shown::Stored,
                (false, Some(row)) if Some(row) == before => Shown::NotStored,
                (false, _) => Shown::SomethingElse,
            })
        })
        .await
        .unwrap_or(Err(Fault::Timeout));
        let is_broken = looked.as_ref().err().is_some_and(Fault::breaks_connection);
        self.roll_back(pooled, is_broken, until).await;
        looked
    }
}
