//! Rows whose contents are known from a lookup, stored many at a time: each is replaced if it still is, byte for
//! byte, what its change was decided from. One statement, one round trip and one commit for all rows that wait, and
//! none of them waits for a row that somebody else holds.
//!
//! The comparison is what a lock would be for: a change whose row has become another one is not stored here, and is
//! decided again under the lock.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Changer, connections::Pooled};
use crate::{
    session::SessionKey,
    store::{
        RowData, SessionRow,
        backend::{Backend, Fault},
    },
    telemetry::metrics::Pool,
};

/// Most rows in one statement.
const MOST_ROWS: usize = 128;

/// Most bytes in one statement, but for its first row.
const MOST_BYTES: usize = 1024 * 1024;

/// Statements under way at once: while one is committed, the next one is gathered.
pub(super) const MOST_STATEMENTS: usize = 2;

/// One row: what it is, and what it is to become.
#[derive(Clone)]
pub struct Swap {
    /// The row's key.
    pub key: SessionKey,
    /// `session_data` as it must be.
    pub old_data: Arc<str>,
    /// `expire_date` as it must be.
    pub old_expire_date: DateTime<Utc>,
    /// `session_data` to be stored.
    pub data: Arc<str>,
    /// `expire_date` to be stored.
    pub expire_date: DateTime<Utc>,
}

impl fmt::Debug for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap")
            .field("expire_date", &self.expire_date)
            .finish_non_exhaustive()
    }
}

impl Swap {
    fn bytes(&self) -> usize {
        self.old_data.len() + self.data.len()
    }

    /// The row as it must be.
    pub(super) fn before(&self) -> SessionRow {
        SessionRow {
            data: RowData::Text(self.old_data.clone()),
            expire_date: self.old_expire_date,
        }
    }
}

/// Which rows are among the keys that a statement gave back.
pub(in crate::store) fn stored<'a>(
    swaps: &[Swap],
    keys: impl Iterator<Item = sqlx::Result<&'a str>>,
) -> Result<Vec<bool>, Fault> {
    // It has been carried out, whatever it says.
    let keys: HashSet<&str> = keys
        .collect::<sqlx::Result<_>>()
        .map_err(|_| Fault::Away("a statement's answer cannot be read".into()))?;
    let is_stored = |swap: &Swap| keys.contains(swap.key.as_str());
    Ok(swaps.iter().map(is_stored).collect())
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    /// Committed.
    Stored,
    /// Nothing is stored: it is another row by now, somebody holds it, or the statement was refused or never sent.
    NotStored,
    /// The statement was sent and not answered. It may even be carried out later.
    Lost,
}

struct Waiting {
    swap: Swap,
    until: Instant,
    asker: oneshot::Sender<Swapped>,
}

/// Those who wait for a statement, and how many tasks send them.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    senders: usize,
}

/// The queue of all rows.
#[derive(Default)]
pub(super) struct Swaps(Mutex<Queue>);

impl Swaps {
    /// Whether the one who comes has to send.
    fn join(&self, waiting: Waiting, most_senders: usize) -> bool {
        let mut queue = self.lock();
        queue.waiting.push_back(waiting);
        if queue.senders >= most_senders {
            return false;
        }
        queue.senders += 1;
        true
    }

    /// Takes a row out of the queue, if it still waits there. No key is there twice: its line has one server.
    fn leave(&self, key: &SessionKey) -> bool {
        let mut queue = self.lock();
        let waiting = &mut queue.waiting;
        let place = waiting.iter().position(|other| other.swap.key == *key);
        place.is_some_and(|place| waiting.remove(place).is_some())
    }

    /// Sends back who wants to know before this moment.
    fn turn_away(&self, before: Instant) {
        let mut queue = self.lock();
        let all = std::mem::take(&mut queue.waiting);
        let (late, in_time): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|waiting| waiting.until < before);
        queue.waiting = in_time.into();
        drop(queue);
        for waiting in late {
            // The asker waits for as long as this is there.
            let _ = waiting.asker.send(Swapped::NotStored);
        }
    }

    /// The next ones, in their order.
    fn take(&self) -> Vec<Waiting> {
        let mut queue = self.lock();
        let mut bytes = 0;
        let fits = |(place, waiting): &(usize, &Waiting)| {
            bytes += waiting.swap.bytes();
            *place == 0 || (*place < MOST_ROWS && bytes <= MOST_BYTES)
        };
        let count = queue.waiting.iter().enumerate().take_while(fits).count();
        queue.waiting.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who sends. When the last one goes, however that comes, nobody waits.
struct Sender<'a> {
    swaps: &'a Swaps,
    is_done: bool,
}

impl Sender<'_> {
    /// When the first of those who wait wants to know. Without any, the work is done.
    fn earliest(&mut self) -> Option<Instant> {
        let mut queue = self.swaps.lock();
        let earliest = queue.waiting.iter().map(|waiting| waiting.until).min();
        if earliest.is_none() {
            queue.senders -= 1;
            self.is_done = true;
        }
        earliest
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut queue = self.swaps.lock();
        queue.senders -= 1;
        if queue.senders == 0 {
            let abandoned = std::mem::take(&mut queue.waiting);
            // Dropped outside of the lock: their askers are woken.
            drop(queue);
            drop(abandoned);
        }
    }
}

impl<B: Backend> Changer<B> {
    /// Stores one row together with all others that wait.
    pub(super) async fn swap(self: &Arc<Self>, swap: Swap, until: Instant) -> Swapped {
        let (asker, mut told) = oneshot::channel();
        let key = swap.key;
        let waiting = Waiting { swap, until, asker };
        let most_senders = self.write_connections.min(MOST_STATEMENTS);
        if self.swaps.join(waiting, most_senders) {
            self.runtime.spawn(self.clone().send_swaps());
        }
        let swapped = match timeout_at(until, &mut told).await {
            Ok(swapped) => swapped,
            Err(_) if self.swaps.leave(&key) => return Swapped::NotStored,
            // Under way: its sender has the same deadline.
            Err(_) => told.await,
        };
        // A sender that has gone without a word may have sent it.
        swapped.unwrap_or(Swapped::Lost)
    }

    /// Sends what waits until nothing does.
    async fn send_swaps(self: Arc<Self>) {
        let mut sender = Sender {
            swaps: &self.swaps,
            is_done: false,
        };
        while let Some(earliest) = sender.earliest() {
            let permit = timeout_at(earliest, self.sender_permits.acquire()).await;
            // Who has little time left would hurry all others: the server itself gives up waiting for a lock after
            // half of the deadline at the latest, and what it refuses is known not to be stored.
            self.swaps.turn_away(Instant::now() + self.deadline * 5 / 8);
            if matches!(permit, Ok(Ok(_))) {
                self.send(self.swaps.take()).await;
            }
        }
    }

    /// One statement.
    async fn send(&self, batch: Vec<Waiting>) {
        let Some(until) = batch.iter().map(|waiting| waiting.until).min() else {
            return;
        };
        let _busy = self.metrics.database_connections_busy.hold(Pool::Changes);
        let (swaps, askers): (Vec<Swap>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.swap, waiting.asker))
            .unzip();
        let answer = match self.idle_connection(until).await {
            Ok(pooled) => self.exchange(pooled, &swaps, until).await,
            // Nothing was sent. Those who lock the row tell why.
            Err(_) => Some(Vec::new()),
        };
        for (place, asker) in askers.into_iter().enumerate() {
            let swapped = match &answer {
                None => Swapped::Lost,
                Some(stored) if stored.get(place) == Some(&true) => Swapped::Stored,
                Some(_) => Swapped::NotStored,
            };
            let _ = asker.send(swapped);
        }
    }

    /// Which rows were stored; `None` where nobody can say.
    async fn exchange(
        &self,
        mut pooled: Pooled<B>,
        swaps: &[Swap],
        until: Instant,
    ) -> Option<Vec<bool>> {
        let swapped = self.backend.swap(&mut pooled.connection, swaps);
        match timeout_at(until, swapped)
            .await
            .unwrap_or(Err(Fault::Timeout))
        {
            Ok(stored) => {
                self.state.succeeded();
                self.keep(pooled);
                Some(stored)
            }
            Err(fault) => {
                self.state.change_failed(&fault);
                if !fault.breaks_connection() {
                    self.keep(pooled);
                }
                // What the server itself refuses, it has not carried out.
                (!matches!(fault, Fault::Away(_) | Fault::Timeout)).then(Vec::new)
            }
        }
    }
}
