//! The bounded mode, `[django] max_staleness`: rows that were read are handed out again while they are young.
//!
//! An entry is a value and the moment *before* its statement was sent, and is handed out for the bound after
//! that moment. So a change that was committed at c counts for every question asked after c + bound: the entry
//! that answers it was sent for after c, and the statement's snapshot is later still. Counting from the moment
//! of insertion instead would add to the bound what the statement took.
//!
//! Changes by this process count at once: when one has ended, its key's entry is removed, and no reading that
//! began before may be inserted after. Other gateways, and Django, are covered by the bound.
//!
//! What is not there is not remembered, what has expired is not handed out, and without an answer of the
//! database there is none from here that is older than the bound.

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;

use super::{
    RowData, SessionRow, User,
    batch::{Answer, Batcher, LookupError},
    clock::{Clock, Moment},
};
use crate::{
    django::UserKey,
    session::SessionKey,
    telemetry::metrics::{CacheMetrics, Cached, Metrics},
};

/// Most bytes of session rows: about a hundred thousand of usual size.
const SESSION_BYTES: u64 = 48 * 1024 * 1024;

/// Most bytes of users.
const USER_BYTES: u64 = 16 * 1024 * 1024;

/// What an entry of usual size takes, by which the tables are laid out.
const USUAL_BYTES: u64 = 512;

/// What an entry takes beside its value: the table's part of it, pointers and counts.
const ENTRY_BYTES: usize = 128;

/// How often entries are removed that are too old to be of use.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From a snapshot taken after the question.
    Exact,
    /// With `max_staleness`, from a snapshot that may be so much older; else as `Exact`.
    Bounded,
}

/// What was read lately.
pub struct Bounded {
    bound: Duration,
    clock: Arc<dyn Clock>,
    sessions: Shelf<SessionKey, SessionRow>,
    users: Shelf<UserKey, User>,
    metrics: Arc<Metrics>,
}

impl Bounded {
    /// Holds nothing yet.
    pub fn new(bound: Duration, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            bound,
            clock,
            sessions: Shelf::new(SESSION_BYTES),
            users: Shelf::new(USER_BYTES),
            metrics,
        }
    }

    /// The clock that the batcher has to stamp its answers with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The live row of a key.
    pub async fn session(
        &self,
        batcher: &Batcher,
        key: SessionKey,
        freshness: Freshness,
        until: Instant,
    ) -> Result<Option<SessionRow>, LookupError> {
        if freshness == Freshness::Bounded
            && let Some(row) = self.young_session(&key, self.clock.now())
        {
            return Ok(Some(row));
        }
        let reading = self.sessions.begin(&key);
        let answer = batcher.session(key, until).await?;
        self.sessions.end(key, reading, &answer);
        Ok(answer.value)
    }

    /// A user; with `details`, also what routes want to know. There is one entry for both, so that what was
    /// learned for one route counts on all.
    pub async fn user(
        &self,
        batcher: &Batcher,
        key: UserKey,
        details: bool,
        freshness: Freshness,
        until: Instant,
    ) -> Result<Option<User>, LookupError> {
        if freshness == Freshness::Bounded
            && let Some(user) = self.young_user(&key, details, self.clock.now())
        {
            return Ok(Some(user));
        }
        let reading = self.users.begin(&key);
        let answer = batcher.user(key.clone(), details, until).await?;
        self.users.end(key, reading, &answer);
        Ok(answer.value)
    }

    /// The live row of a key and a user: what of it is not here is asked for at once.
    pub async fn both(
        &self,
        batcher: &Batcher,
        key: SessionKey,
        user: UserKey,
        details: bool,
        freshness: Freshness,
        until: Instant,
    ) -> Result<(Option<SessionRow>, Option<User>), LookupError> {
        let (row, known) = match freshness {
            Freshness::Exact => (None, None),
            Freshness::Bounded => {
                let now = self.clock.now();
                (
                    self.young_session(&key, now),
                    self.young_user(&user, details, now),
                )
            }
        };
        match (row, known) {
            (Some(row), Some(known)) => Ok((Some(row), Some(known))),
            (Some(row), None) => {
                let known = self.user(batcher, user, details, Freshness::Exact, until);
                Ok((Some(row), Box::pin(known).await?))
            }
            (None, Some(known)) => {
                let row = self.session(batcher, key, Freshness::Exact, until);
                Ok((Box::pin(row).await?, Some(known)))
            }
            (None, None) => Box::pin(self.read_both(batcher, key, user, details, until)).await,
        }
    }

    async fn read_both(
        &self,
        batcher: &Batcher,
        key: SessionKey,
        user: UserKey,
        details: bool,
        until: Instant,
    ) -> Result<(Option<SessionRow>, Option<User>), LookupError> {
        let readings = (self.sessions.begin(&key), self.users.begin(&user));
        let (row, known) = batcher.both(key, user.clone(), details, until).await?;
        self.sessions.end(key, readings.0, &row);
        self.users.end(user, readings.1, &known);
        Ok((row.value, known.value))
    }

    /// Tells how large the caches are.
    pub fn measure(&self) {
        let Metrics {
            session_cache,
            user_cache,
            ..
        } = &*self.metrics;
        session_cache.measure(self.sessions.cache.len(), self.sessions.cache.weight());
        user_cache.measure(self.users.cache.len(), self.users.cache.weight());
    }

    /// Removes what is too old, every now and then, for as long as there is somebody else who holds this.
    pub async fn sweep(this: Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let Some(this) = this.upgrade() else {
                return;
            };
            let now = this.clock.now();
            this.sessions.sweep(now, this.bound);
            this.users.sweep(now, this.bound);
        }
    }

    /// A row that is here, young and live.
    fn young_session(&self, key: &SessionKey, now: Moment) -> Option<SessionRow> {
        let live = |entry: &Arc<Entry<SessionRow>>| entry.value.expire_date > self.clock.wall();
        let entry = self.young(&self.sessions, key, now).filter(live);
        count(&self.metrics.session_cache, entry.is_some());
        entry.map(|entry| entry.value.clone())
    }

    /// A user who is here and young, with `details` where they are asked for.
    fn young_user(&self, key: &UserKey, details: bool, now: Moment) -> Option<User> {
        let enough = |entry: &Arc<Entry<User>>| !details || entry.value.details.is_some();
        let entry = self.young(&self.users, key, now).filter(enough);
        count(&self.metrics.user_cache, entry.is_some());
        entry.map(|entry| User {
            row: entry.value.row.clone(),
            details: entry.value.details.clone().filter(|_| details),
        })
    }

    fn young<K: Hash + Eq + HeapBytes, V: HeapBytes>(
        &self,
        shelf: &Shelf<K, V>,
        key: &K,
        now: Moment,
    ) -> Option<Arc<Entry<V>>> {
        let entry = shelf.cache.get(key)?;
        entry.is_young(now, self.bound).then_some(entry)
    }
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded")
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

fn count(metrics: &CacheMetrics, is_hit: bool) {
    let cached = if is_hit { Cached::Hit } else { Cached::Miss };
    metrics.lookups.count(cached);
}

/// Held while a change of a session is under way: when it has ended, whatever its outcome, what was read of the
/// row before is of no more use. An outcome that is not known may have been a commit, and a row that was found
/// to be gone is gone here too.
pub struct Touched {
    bounded: Arc<Bounded>,
    key: SessionKey,
}

impl Touched {
    /// A change of this key begins.
    pub fn new(bounded: Arc<Bounded>, key: SessionKey) -> Self {
        Self { bounded, key }
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        self.bounded.sessions.forget(&self.key);
    }
}

/// One of the caches.
struct Shelf<K, V> {
    cache: Cache<K, Arc<Entry<V>>, ByBytes>,
    /// For each shard of the cache, how often something was taken out because it had changed. Held while
    /// something is put in, so that nothing is taken out between the look and the deed.
    generations: Box<[Mutex<u64>]>,
}

struct Entry<V> {
    value: V,
    /// Before the statement was sent.
    sent: Moment,
    bytes: u64,
}

/// A value that is being read from the database.
struct Reading {
    shard: usize,
    generation: u64,
}

impl<K: Hash + Eq + HeapBytes, V: HeapBytes + Clone> Shelf<K, V> {
    fn new(most_bytes: u64) -> Self {
        let usual = usize::try_from(most_bytes / USUAL_BYTES).unwrap_or(usize::MAX);
        let cache = Cache::with_weighter(usual, most_bytes, ByBytes);
        Self {
            generations: (0..cache.num_shards()).map(|_| Mutex::default()).collect(),
            cache,
        }
    }

    /// Must come before the question is put to the batcher.
    fn begin(&self, key: &K) -> Reading {
        let shard = self.cache.shard_index(key);
        Reading {
            shard,
            generation: *self.generation(shard),
        }
    }

    fn end(&self, key: K, reading: Reading, answer: &Answer<V>) {
        let Some(sent) = answer.sent else {
            return;
        };
        let mut generation = self.generation(reading.shard);
        if *generation != reading.generation {
            return;
        }
        let there = self.cache.peek(&key).map(|entry| entry.sent);
        // Another answer of the same statement, or one that was overtaken.
        if there.is_some_and(|there| there >= sent) {
            return;
        }
        match &answer.value {
            Some(value) => {
                let bytes = ENTRY_BYTES + size_of::<(K, Entry<V>)>() + key.heap() + value.heap();
                let entry = Entry {
                    value: value.clone(),
                    sent,
                    bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
                };
                self.cache.insert(key, Arc::new(entry));
            }
            None if there.is_some() => {
                *generation += 1;
                self.cache.remove(&key);
            }
            None => {}
        }
    }

    /// The value has changed.
    fn forget(&self, key: &K) {
        let mut generation = self.generation(self.cache.shard_index(key));
        *generation += 1;
        self.cache.remove(key);
    }

    fn sweep(&self, now: Moment, bound: Duration) {
        self.cache.retain(|_, entry| entry.is_young(now, bound));
    }

    fn generation(&self, shard: usize) -> MutexGuard<'_, u64> {
        self.generations[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Entry<V> {
    fn is_young(&self, now: Moment, bound: Duration) -> bool {
        now.since(self.sent).is_some_and(|age| age <= bound)
    }
}

/// An entry weighs what it takes of the memory.
#[derive(Clone)]
struct ByBytes;

impl<K, V> Weighter<K, Arc<Entry<V>>> for ByBytes {
    fn weight(&self, _: &K, entry: &Arc<Entry<V>>) -> u64 {
        entry.bytes
    }
}

/// What a value takes beside its own size.
trait HeapBytes {
    fn heap(&self) -> usize;
}

impl HeapBytes for SessionKey {
    fn heap(&self) -> usize {
        0
    }
}

impl HeapBytes for SessionRow {
    fn heap(&self) -> usize {
        match &self.data {
            RowData::Text(text) => text.len(),
            RowData::TooLarge | RowData::Malformed => 0,
        }
    }
}

impl HeapBytes for UserKey {
    fn heap(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Integer(_) | Self::Uuid(_) => 0,
        }
    }
}

impl HeapBytes for User {
    fn heap(&self) -> usize {
        let details = self.details.as_ref().map_or(0, |details| {
            let columns = details.columns.iter().flatten().map(|text| text.len());
            let groups = details.groups.iter().map(String::len);
            columns.sum::<usize>()
                + size_of_val(details.columns.as_slice())
                + groups.sum::<usize>()
                + size_of_val(details.groups.as_slice())
        });
        self.row.password.len() + details
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
