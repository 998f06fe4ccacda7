//! Whether the database is there: the breaker, and what `/readyz` tells.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::{
    backend::{Backend, Fault, contact},
    shape::Shape,
};
use crate::django::KeyKind;

/// Failures in a row after which requests are answered at once instead of waiting for the database.
const OPEN_AFTER: u32 = 3;

/// How often a database that is away is tried: well under the second within which service must be back.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// What a key column can hold.
const KINDS: [KeyKind; 3] = [KeyKind::Integer, KeyKind::Uuid, KeyKind::Text];

/// Shared by all connections of a store.
#[derive(Debug, Default)]
pub struct State {
    failures: AtomicU32,
    contacted: AtomicBool,
    cause: Mutex<Option<String>>,
    lost: Notify,
    shape: RwLock<Option<Arc<Shape>>>,
    /// The part of the shape that each request asks for: a place in [`KINDS`], from one; zero for none.
    key_kind: AtomicU8,
    /// How often the tables were seen to be altered.
    epoch: AtomicU64,
}

impl State {
    /// Whether the database is known to be away, so that nobody should wait for it.
    pub fn is_away(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= OPEN_AFTER
    }

    /// Whether the database has answered since the start.
    pub fn was_contacted(&self) -> bool {
        self.contacted.load(Ordering::Relaxed)
    }

    /// The cause of the latest failure, while there is one. Never holds a password or a row.
    pub fn cause(&self) -> Option<String> {
        self.cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the tables look like, as the latest connection has seen them; `None` before the first one.
    pub fn shape(&self) -> Option<Arc<Shape>> {
        self.shape
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the key column of the user table holds, as [`State::shape`] has it.
    pub(super) fn key_kind(&self) -> Option<KeyKind> {
        let kind = usize::from(self.key_kind.load(Ordering::Acquire));
        KINDS.get(kind.checked_sub(1)?).copied()
    }

    /// A connection that was opened in another epoch may know the tables as they are no more.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The tables are not as a connection knows them: no other one is to go by what it knows.
    pub(super) fn tables_changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// A connection has looked at the tables.
    pub(super) fn learn(&self, seen: &Arc<Shape>) {
        let mut shape = self.shape.write().unwrap_or_else(PoisonError::into_inner);
        if shape.as_ref() == Some(seen) {
            return;
        }
        if shape.is_some() {
            self.tables_changed();
        }
        let kind = seen.users.as_ref().map(|users| users.key);
        let kind = kind.and_then(|kind| KINDS.iter().position(|other| *other == kind));
        let kind = kind.and_then(|place| u8::try_from(place + 1).ok());
        self.key_kind
            .store(kind.unwrap_or_default(), Ordering::Release);
        *shape = Some(seen.clone());
    }

    /// An answer came. Reads only on the usual path: this runs once for each batch.
    pub(super) fn succeeded(&self) {
        if !self.contacted.load(Ordering::Relaxed) {
            self.contacted.store(true, Ordering::Relaxed);
        }
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        let failures = self.failures.swap(0, Ordering::Relaxed);
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if failures >= OPEN_AFTER {
            tracing::info!("the session database is back");
        }
    }

    /// A lookup or a probe had no answer. A locked file is not a failure of the database.
    pub(super) fn failed(&self, fault: &Fault) {
        if matches!(
            fault,
            Fault::Busy | Fault::Retry | Fault::Taken | Fault::Altered
        ) {
            return;
        }
        let sentence = fault.to_string();
        // The counter stays at the threshold: it is compared, never summed. In one step, so that an answer that comes
        // meanwhile is not forgotten.
        let one_more = |failures: u32| Some((failures + 1).min(OPEN_AFTER));
        let before = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        let failures = before.unwrap_or_else(|before| before) + 1;
        if failures == 1 || failures == OPEN_AFTER {
            tracing::warn!(cause = %sentence, away = failures >= OPEN_AFTER, "the session database cannot be used");
        }
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(sentence);
        if failures >= OPEN_AFTER {
            self.lost.notify_one();
        }
    }

    /// A change was not carried out. Only a broken connection says something about the database: a refused or
    /// slow change must not take the reads with it. While it is known to be away, nothing new is learned.
    pub(super) fn change_failed(&self, fault: &Fault) {
        if matches!(fault, Fault::Away(_)) && !self.is_away() {
            self.failed(fault);
        }
    }

    /// While the database is away nobody asks it anything, so this task looks for it, for as long as the
    /// store exists.
    pub(super) async fn probe<B: Backend>(self: Arc<Self>, backend: Arc<B>, deadline: Duration) {
        loop {
            self.lost.notified().await;
            while self.is_away() {
                tokio::time::sleep(PROBE_EVERY).await;
                let tried = timeout(deadline, contact(backend.as_ref(), &self));
                match tried.await.unwrap_or(Err(Fault::Timeout)) {
                    Ok(()) => self.succeeded(),
                    Err(fault) => self.failed(&fault),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_are_an_outage_and_one_answer_ends_it() {
        let state = State::default();
        for _ in 0..OPEN_AFTER {
            assert!(!state.is_away());
            state.failed(&Fault::Timeout);
        }
        state.failed(&Fault::Timeout);
        assert!(state.is_away() && state.cause().is_some());
        state.succeeded();
        assert!(!state.is_away() && state.cause().is_none());
        state.failed(&Fault::Timeout);
        assert!(!state.is_away());
    }
}
