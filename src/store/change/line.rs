//! Who waits for which row: one line for each key that is being changed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use tokio::{sync::oneshot, time::Instant};

use super::{ChangeError, Decision, Plan, Touched, UnderWay};
use crate::{
    django::UserKey,
    session::SessionKey,
    store::{Fault, SessionRow, UserRow},
};

/// A change that waits or is carried out, whatever its plan answers.
pub(super) trait Job: Send {
    /// When its asker wants to know.
    fn until(&self) -> Instant;

    /// As [`Plan::seen`].
    fn seen(&self) -> Option<SessionRow>;

    /// As [`Plan::user`].
    fn user(&self, row: Option<&SessionRow>) -> Option<UserKey>;

    /// As [`Plan::decide`]; the answer is kept for the asker.
    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        user: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> Decision;

    /// It has waited behind others of its key.
    fn waits(&mut self);

    /// Tells the asker: its answer, or why it was not carried out.
    fn finish(self: Box<Self>, ended: Result<(), ChangeError>);

    /// Nothing is stored, and this is why. `contended`: other writers of the row have cost it time.
    fn fails(self: Box<Self>, cause: &Fault, contended: bool);
}

/// A plan and who asked for it.
pub(super) struct Pending<P: Plan> {
    plan: P,
    answer: Option<P::Answer>,
    until: Instant,
    waited: bool,
    touched: Option<Touched>,
    asker: oneshot::Sender<Result<P::Answer, ChangeError>>,
    _running: Running,
}

/// Where an asker is told.
type Told<P> = oneshot::Receiver<Result<<P as Plan>::Answer, ChangeError>>;

impl<P: Plan> Pending<P> {
    pub(super) fn of(
        plan: P,
        until: Instant,
        touched: Option<Touched>,
        running: Running,
    ) -> (Box<dyn Job>, Told<P>) {
        let (asker, told) = oneshot::channel();
        let pending = Self {
            plan,
            answer: None,
            until,
            waited: false,
            touched,
            asker,
            _running: running,
        };
        (Box::new(pending), told)
    }
}

impl<P: Plan> Job for Pending<P> {
    fn until(&self) -> Instant {
        self.until
    }

    fn seen(&self) -> Option<SessionRow> {
        self.plan.seen()
    }

    fn user(&self, row: Option<&SessionRow>) -> Option<UserKey> {
        self.plan.user(row)
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        user: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> Decision {
        let (decision, answer) = self.plan.decide(row, user, now);
        self.answer = Some(answer);
        decision
    }

    fn waits(&mut self) {
        self.waited = true;
    }

    fn finish(self: Box<Self>, ended: Result<(), ChangeError>) {
        let Self {
            answer,
            touched,
            asker,
            ..
        } = *self;
        // Before anybody is told.
        drop(touched);
        let told = ended.and_then(|()| answer.ok_or(ChangeError::Unknown));
        // The asker may have left.
        let _ = asker.send(told);
    }

    fn fails(self: Box<Self>, cause: &Fault, contended: bool) {
        if matches!(cause, Fault::Timeout) && (contended || self.waited) {
            return self.finish(Err(ChangeError::Busy));
        }
        self.plan.not_stored(cause);
        self.finish(Err(ChangeError::NotSaved));
    }
}

/// Those who wait, each with a ticket.
type Line = VecDeque<(u64, Box<dyn Job>)>;

/// The lines of all keys. A key has one while somebody serves it.
pub(super) struct Lines {
    open: Mutex<HashMap<SessionKey, Line>>,
    /// Most that wait in one line.
    most: usize,
    tickets: AtomicU64,
}

/// What became of a job that came to its line.
pub(super) enum Joined {
    /// Nobody served the key: the one who came does.
    First(Box<dyn Job>),
    /// It waits; this is its ticket.
    Waiting(u64),
    /// Too many wait.
    Full,
}

impl Lines {
    pub(super) fn new(most: usize) -> Self {
        Self {
            open: Mutex::default(),
            most,
            tickets: AtomicU64::new(0),
        }
    }

    pub(super) fn join(&self, key: SessionKey, mut job: Box<dyn Job>) -> Joined {
        let mut open = self.lock();
        let Some(line) = open.get_mut(&key) else {
            open.insert(key, Line::new());
            return Joined::First(job);
        };
        if line.len() >= self.most {
            return Joined::Full;
        }
        job.waits();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        line.push_back((ticket, job));
        Joined::Waiting(ticket)
    }

    /// Takes a job out of its line, if it still waits there.
    pub(super) fn leave(&self, key: SessionKey, ticket: u64) -> bool {
        let mut open = self.lock();
        let left = open.get_mut(&key).and_then(|line| {
            let place = line.iter().position(|(other, _)| *other == ticket)?;
            line.remove(place)
        });
        drop(open);
        left.is_some()
    }

    /// For the one who came first.
    pub(super) fn serve(&self, key: SessionKey) -> Serving<'_> {
        Serving {
            lines: self,
            key,
            is_open: true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Line>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who serves a line. Closes it when dropped: nobody may wait for who is gone.
pub(super) struct Serving<'a> {
    lines: &'a Lines,
    key: SessionKey,
    is_open: bool,
}

impl Serving<'_> {
    /// Those who wait, in their order, but no more than `most`. Closes the line where there are none.
    pub(super) fn next(&mut self, most: usize) -> Option<Vec<Box<dyn Job>>> {
        let mut open = self.lines.lock();
        let line = open.get_mut(&self.key).filter(|line| !line.is_empty());
        let Some(line) = line else {
            open.remove(&self.key);
            self.is_open = false;
            return None;
        };
        let count = line.len().min(most);
        Some(line.drain(..count).map(|(_, job)| job).collect())
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // Dropped outside of the lock: their askers are woken.
            let abandoned = self.lines.lock().remove(&self.key);
            drop(abandoned);
        }
    }
}

/// Counts a change for as long as it is under way.
pub(super) struct Running(UnderWay);

impl Running {
    pub(super) fn new(under_way: &UnderWay) -> Self {
        under_way.0.send_modify(|count| *count += 1);
        Self(under_way.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
