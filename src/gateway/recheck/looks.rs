//! Looks at many sessions at the same time: those that are asked for within a moment are asked of the database together.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::oneshot, time::sleep};

use crate::{
    session::SessionKey,
    sessions::{Resolved, Sessions},
    store::LookupError,
};

/// How long the first of them waits for others. Nobody waits for a look, and without this the database would be asked
/// about the first one before the others have woken up.
const MOMENT: Duration = Duration::from_millis(20);

/// Most that are asked at once, far below what the queue of lookups takes, so that requests find room in it.
const AT_ONCE: usize = 512;

/// What waits to be asked.
#[derive(Debug, Default)]
pub struct Looks(Mutex<Vec<Look>>);

#[derive(Debug)]
struct Look {
    key: SessionKey,
    details: bool,
    answer: oneshot::Sender<Result<Resolved, LookupError>>,
}

impl Looks {
    /// Asks about a session; `sessions` says where, when the moment is over.
    pub async fn look(
        self: &Arc<Self>,
        key: SessionKey,
        details: bool,
        sessions: impl FnOnce() -> Arc<Sessions> + Send + 'static,
    ) -> Result<Resolved, LookupError> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut waiting = self.lock();
            waiting.push(Look {
                key,
                details,
                answer,
            });
            waiting.len() == 1
        };
        if is_first {
            let looks = self.clone();
            // A task of its own: the stream of the first one may end while the others wait.
            tokio::spawn(async move {
                sleep(MOMENT).await;
                let waiting = mem::take(&mut *looks.lock());
                ask(waiting, &sessions()).await;
            });
        }
        // An error means that the process ends.
        answered.await.unwrap_or(Err(LookupError::Unavailable))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(mut waiting: Vec<Look>, sessions: &Sessions) {
    while !waiting.is_empty() {
        let rest = waiting.split_off(waiting.len().min(AT_ONCE));
        let asked = mem::replace(&mut waiting, rest);
        join_all(asked.into_iter().map(async |look| {
            let found = sessions.resolve(look.key, look.details).await;
            // A stream that has ended meanwhile does not want to know.
            let _ = look.answer.send(found);
        }))
        .await;
    }
}
