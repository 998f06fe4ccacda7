//! Lookups, gathered into batches; exact.
//!
//! A question enters the queue after its request arrived; a worker takes what is in the queue *before* it sends
//! its statement; the server takes the statement's snapshot after it received it. So no answer is older than
//! its question. A question that arrives while a statement runs waits for the next one: joining the statement
//! under way would be wrong, because its snapshot may be older. Nothing is cached here.

use std::sync::Arc;

use chrono::Utc;
use tokio::{
    runtime,
    sync::{Mutex, mpsc, oneshot},
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    Options, SessionRow, State, User,
    backend::{Backend, CONNECTION_LIFE, Fault, Found, Proof, Wanted, connect},
    clock::{Clock, Moment},
};
use crate::{
    django::UserKey,
    session::SessionKey,
    telemetry::metrics::{Held, Metrics, Pool},
};

/// Most questions in one statement. More would make the others' wait longer than it saves.
const MOST: usize = 128;

/// Why a lookup has no answer. Never to be taken for "nobody".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The database did not answer within the deadline, or is known to be away.
    #[error("the session database did not answer")]
    Unavailable,
    /// Too many lookups are waiting.
    #[error("too many lookups are waiting")]
    Overloaded,
}

/// What a lookup found.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// `None`: the primary answered, and there is no such row.
    pub value: Option<T>,
    /// The moment before the statement was sent, so before its snapshot; `None` where the batcher has no clock.
    pub sent: Option<Moment>,
}

/// What one request asks, about a session, a user or both, and where the answer goes.
struct Question {
    session: Option<SessionKey>,
    user: Option<UserQuestion>,
    reply: oneshot::Sender<Result<Told, LookupError>>,
    deadline: Instant,
}

/// Which user, and whether more than the row is asked for.
struct UserQuestion {
    key: UserKey,
    details: bool,
}

/// The answer to a question, of one statement.
struct Told {
    session: Option<SessionRow>,
    user: Option<User>,
    sent: Option<Moment>,
}

/// The queue in front of the lookup connections.
#[derive(Debug)]
pub struct Batcher {
    queue: mpsc::Sender<Question>,
    state: Arc<State>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}

impl Batcher {
    /// Starts one worker a connection on the store's runtime. With a clock, answers are stamped by it.
    pub fn start<B: Backend>(
        backend: Arc<B>,
        options: &Options,
        state: &Arc<State>,
        clock: Option<Arc<dyn Clock>>,
        runtime: &runtime::Handle,
    ) -> Self {
        let (queue, questions) = mpsc::channel(options.lookup_queue);
        let questions = Arc::new(Mutex::new(questions));
        let shared = Shared {
            state: state.clone(),
            metrics: options.metrics.clone(),
            clock,
        };
        for _ in 0..options.connections {
            runtime.spawn(supervise(
                backend.clone(),
                shared.clone(),
                questions.clone(),
            ));
        }
        Self {
            queue,
            state: state.clone(),
        }
    }

    /// How many questions wait for a worker.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// The live row of a key, from a snapshot taken after this call.
    pub async fn session(
        &self,
        key: SessionKey,
        until: Instant,
    ) -> Result<Answer<SessionRow>, LookupError> {
        let told = self.ask(Some(key), None, until).await?;
        Ok(Answer {
            value: told.session,
            sent: told.sent,
        })
    }

    /// A user, from a snapshot taken after this call.
    pub async fn user(
        &self,
        key: UserKey,
        details: bool,
        until: Instant,
    ) -> Result<Answer<User>, LookupError> {
        let user = UserQuestion { key, details };
        let told = self.ask(None, Some(user), until).await?;
        Ok(Answer {
            value: told.user,
            sent: told.sent,
        })
    }

    /// A live row and a user, from snapshots taken after this call.
    pub async fn both(
        &self,
        key: SessionKey,
        user: UserKey,
        details: bool,
        until: Instant,
    ) -> Result<(Answer<SessionRow>, Answer<User>), LookupError> {
        let user = UserQuestion { key: user, details };
        let Told {
            session,
            user,
            sent,
        } = self.ask(Some(key), Some(user), until).await?;
        let (session, user) = (
            Answer {
                value: session,
                sent,
            },
            Answer { value: user, sent },
        );
        Ok((session, user))
    }

    async fn ask(
        &self,
        session: Option<SessionKey>,
        user: Option<UserQuestion>,
        deadline: Instant,
    ) -> Result<Told, LookupError> {
        if self.state.is_away() {
            return Err(LookupError::Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        let question = Question {
            session,
            user,
            reply,
            deadline,
        };
        self.queue.try_send(question).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LookupError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => LookupError::Unavailable,
        })?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The worker is gone, or the deadline has passed while the question was waiting.
            Ok(Err(_)) | Err(_) => Err(LookupError::Unavailable),
        }
    }
}

/// Keeps one worker at work. A panic in a driver costs the questions of one batch, which are answered as
/// unavailable because their senders are dropped; it must not take the lookups of everybody with it.
async fn supervise<B: Backend>(
    backend: Arc<B>,
    shared: Shared,
    questions: Arc<Mutex<mpsc::Receiver<Question>>>,
) {
    loop {
        let worker = Worker {
            backend: backend.clone(),
            connection: None,
            shared: shared.clone(),
        };
        match tokio::spawn(worker.run(questions.clone())).await {
            Err(error) if error.is_panic() => {
                tracing::error!("a database worker failed; another one takes its place");
            }
            _ => return,
        }
    }
}

struct Worker<B: Backend> {
    backend: Arc<B>,
    connection: Option<Opened<B::Connection>>,
    shared: Shared,
}

/// What all workers have.
#[derive(Clone)]
struct Shared {
    state: Arc<State>,
    metrics: Arc<Metrics>,
    clock: Option<Arc<dyn Clock>>,
}

/// A connection, since when it is open, and the epoch of the tables that it knows.
struct Opened<C> {
    connection: C,
    since: Instant,
    epoch: u64,
    _open: Held,
}

impl<B: Backend> Worker<B> {
    async fn run(mut self, questions: Arc<Mutex<mpsc::Receiver<Question>>>) {
        let mut asked = Vec::with_capacity(MOST);
        let mut is_crowded = false;
        loop {
            // Others wait for the lock while this worker waits for the first question.
            let mut queue = questions.lock().await;
            if queue.recv_many(&mut asked, MOST).await == 0 {
                return;
            }
            // The first of many requests that have just come wakes this worker before the others were looked at:
            // they are let go first, so that one statement answers all of them.
            if is_crowded {
                yield_now().await;
                while asked.len() < MOST
                    && let Ok(more) = queue.try_recv()
                {
                    asked.push(more);
                }
            }
            drop(queue);
            is_crowded = asked.len() > 1;
            self.answer(&mut asked).await;
        }
    }

    async fn answer(&mut self, asked: &mut Vec<Question>) {
        asked.retain(|question| !question.reply.is_closed());
        // Each asker watches its own deadline; the statement may run as long as the last of them waits.
        let Some(until) = asked.iter().map(|question| question.deadline).max() else {
            return;
        };
        let count = |question: &Question| {
            usize::from(question.session.is_some()) + usize::from(question.user.is_some())
        };
        let questions: usize = asked.iter().map(count).sum();
        self.shared.metrics.batch_questions.observe(questions);
        match self.fetch(&wanted(asked), until).await {
            Ok((found, sent)) => deliver(asked, found, sent),
            Err(error) => {
                for question in asked.drain(..) {
                    let _ = question.reply.send(Err(error));
                }
            }
        }
    }

    /// One statement; a second try, on a fresh connection, where the connection was an old one that broke or
    /// that knows the tables as they were, or where a server answered that may not be believed. A locked file
    /// (SQLite) is tried again until the end.
    async fn fetch(
        &mut self,
        wanted: &Wanted,
        until: Instant,
    ) -> Result<(Found, Option<Moment>), LookupError> {
        let mut second = false;
        loop {
            let fault = match timeout_at(until, self.try_fetch(wanted)).await {
                Ok(Ok(answer)) => {
                    self.shared.state.succeeded();
                    return Ok(answer);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Timeout,
            };
            self.shared.state.failed(&fault);
            match fault {
                Fault::Busy | Fault::Retry => {}
                Fault::Away(_) | Fault::ReadOnly | Fault::Altered | Fault::Refused(_)
                    if !second =>
                {
                    second = true;
                }
                _ => return Err(LookupError::Unavailable),
            }
        }
    }

    async fn try_fetch(&mut self, wanted: &Wanted) -> Result<(Found, Option<Moment>), Fault> {
        // Taken out while it is used: a statement that is given up takes its connection with it.
        let kept = self.connection.take().filter(|kept| {
            kept.since.elapsed() < CONNECTION_LIFE && kept.epoch == self.shared.state.epoch()
        });
        let is_new = kept.is_none();
        let _busy = self
            .shared
            .metrics
            .database_connections_busy
            .hold(Pool::Lookups);
        let mut opened = match kept {
            Some(kept) => kept,
            None => open(self.backend.as_ref(), &self.shared).await?,
        };
        if !self.backend.shape(&opened.connection).fits(&wanted.users) {
            return Err(Fault::Altered);
        }
        let sent = self.shared.clock.as_ref().map(|clock| clock.now());
        let answer = self
            .backend
            .lookup(&mut opened.connection, wanted, Utc::now())
            .await;
        match answer {
            Ok((found, Proof::Primary)) => {
                self.connection = Some(opened);
                Ok((found, sent))
            }
            Ok((_, Proof::ReadOnly)) => Err(Fault::ReadOnly),
            Err(fault @ Fault::Refused(_)) => {
                if !is_new {
                    self.shared.state.tables_changed();
                }
                Err(fault)
            }
            Err(fault) => {
                if !fault.breaks_connection() {
                    self.connection = Some(opened);
                }
                Err(fault)
            }
        }
    }
}

async fn open<B: Backend>(backend: &B, shared: &Shared) -> Result<Opened<B::Connection>, Fault> {
    // Before it looks at the tables.
    let epoch = shared.state.epoch();
    Ok(Opened {
        connection: connect(backend, &shared.state).await?,
        since: Instant::now(),
        epoch,
        _open: shared.metrics.database_connections.hold(Pool::Lookups),
    })
}

/// What these questions ask for, each key once.
fn wanted(asked: &[Question]) -> Wanted {
    let mut sessions: Vec<SessionKey> = asked.iter().filter_map(|asked| asked.session).collect();
    sessions.sort_unstable();
    sessions.dedup();
    let mut users: Vec<&UserQuestion> = asked.iter().filter_map(|it| it.user.as_ref()).collect();
    // Of the same user those who ask for more come first.
    users.sort_unstable_by(|one, other| (&one.key, other.details).cmp(&(&other.key, one.details)));
    users.dedup_by(|one, other| one.key == other.key);
    let details = users.iter().filter(|user| user.details);
    Wanted {
        sessions,
        details: details.map(|user| user.key.clone()).collect(),
        users: users.iter().map(|user| user.key.clone()).collect(),
    }
}

/// Hands out what was found.
fn deliver(asked: &mut Vec<Question>, mut found: Found, sent: Option<Moment>) {
    found.sessions.sort_unstable_by_key(|(key, _)| *key);
    found
        .users
        .sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    found
        .details
        .sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    for Question {
        session,
        user,
        reply,
        ..
    } in asked.drain(..)
    {
        // The database's collation may find a key that is not the one asked for; here bytes are compared.
        let session = session.and_then(|key| of(&found.sessions, &key).cloned());
        let user = user.and_then(|UserQuestion { key, .. }| {
            Some(User {
                row: of(&found.users, &key)?.clone(),
                details: of(&found.details, &key).cloned(),
            })
        });
        let _ = reply.send(Ok(Told {
            session,
            user,
            sent,
        }));
    }
}

/// What is found under a key, in the order of keys.
fn of<'a, K: Ord, V>(found: &'a [(K, V)], key: &K) -> Option<&'a V> {
    let place = found.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
    Some(&found[place].1)
}

#[cfg(test)]
mod model;
