//! Lookups, gathered into batches; exact.
//!
//! A question enters the queue after its request arrived; a worker takes what is in the queue *before* it sends
//! its statement; the server takes the statement's snapshot after it received it. So no answer is older than
//! its question. A question that arrives while a statement runs waits for the next one: joining the statement
//! under way would be wrong, because its snapshot may be older. Nothing is cached.

use std::{collections::HashMap, sync::Arc};

use chrono::Utc;
use tokio::{
    runtime,
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    Options, SessionRow, State, UserRow,
    backend::{Backend, CONNECTION_LIFE, Fault, Found, Proof},
};
use crate::session::SessionKey;

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

enum Question {
    Session(
        SessionKey,
        oneshot::Sender<Result<Option<SessionRow>, LookupError>>,
    ),
    User(i64, oneshot::Sender<Result<Option<UserRow>, LookupError>>),
}

struct Asked {
    question: Question,
    deadline: Instant,
}

/// The queue in front of the lookup connections.
#[derive(Debug)]
pub struct Batcher {
    queue: mpsc::Sender<Asked>,
    state: Arc<State>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

impl Batcher {
    /// Starts one worker a connection on the store's runtime.
    pub fn start<B: Backend>(
        backend: Arc<B>,
        options: &Options,
        state: &Arc<State>,
        runtime: &runtime::Handle,
    ) -> Self {
        let (queue, questions) = mpsc::channel(options.lookup_queue);
        let questions = Arc::new(Mutex::new(questions));
        for _ in 0..options.connections {
            runtime.spawn(supervise(backend.clone(), state.clone(), questions.clone()));
        }
        Self {
            queue,
            state: state.clone(),
        }
    }

    /// The live row of a key, from a snapshot taken after this call.
    pub async fn session(
        &self,
        key: SessionKey,
        until: Instant,
    ) -> Result<Option<SessionRow>, LookupError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::Session(key, reply), answer, until).await
    }

    /// A user's row, from a snapshot taken after this call.
    pub async fn user(&self, id: i64, until: Instant) -> Result<Option<UserRow>, LookupError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::User(id, reply), answer, until).await
    }

    async fn ask<T>(
        &self,
        question: Question,
        answer: oneshot::Receiver<Result<T, LookupError>>,
        deadline: Instant,
    ) -> Result<T, LookupError> {
        if self.state.is_away() {
            return Err(LookupError::Unavailable);
        }
        self.queue
            .try_send(Asked { question, deadline })
            .map_err(|error| match error {
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

/// Those who wait for one answer.
type Replies<T> = Vec<oneshot::Sender<Result<Option<T>, LookupError>>>;

/// Keeps one worker at work. A panic in a driver costs the questions of one batch, which are answered as
/// unavailable because their senders are dropped; it must not take the lookups of everybody with it.
async fn supervise<B: Backend>(
    backend: Arc<B>,
    state: Arc<State>,
    questions: Arc<Mutex<mpsc::Receiver<Asked>>>,
) {
    loop {
        let worker = Worker {
            backend: backend.clone(),
            connection: None,
            state: state.clone(),
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
    connection: Option<(B::Connection, Instant)>,
    state: Arc<State>,
}

/// The questions of one statement, each key once.
#[derive(Default)]
struct Batch {
    sessions: HashMap<SessionKey, Replies<SessionRow>>,
    users: HashMap<i64, Replies<UserRow>>,
}

impl<B: Backend> Worker<B> {
    async fn run(mut self, questions: Arc<Mutex<mpsc::Receiver<Asked>>>) {
        let mut asked = Vec::with_capacity(MOST);
        loop {
            // Others wait for the lock while this worker waits for the first question.
            let count = questions.lock().await.recv_many(&mut asked, MOST).await;
            if count == 0 {
                return;
            }
            self.answer(&mut asked).await;
        }
    }

    async fn answer(&mut self, asked: &mut Vec<Asked>) {
        // Each asker watches its own deadline; the statement may run as long as the last of them waits.
        let mut until = Instant::now();
        let mut batch = Batch::default();
        for Asked { question, deadline } in asked.drain(..) {
            until = until.max(deadline);
            match question {
                Question::Session(_, reply) if reply.is_closed() => {}
                Question::User(_, reply) if reply.is_closed() => {}
                Question::Session(key, reply) => batch.sessions.entry(key).or_default().push(reply),
                Question::User(id, reply) => batch.users.entry(id).or_default().push(reply),
            }
        }
        if batch.sessions.is_empty() && batch.users.is_empty() {
            return;
        }
        let sessions: Vec<_> = batch.sessions.keys().copied().collect();
        let users: Vec<_> = batch.users.keys().copied().collect();
        match self.fetch(&sessions, &users, until).await {
            Ok(found) => batch.deliver(found),
            Err(error) => batch.refuse(error),
        }
    }

    /// One statement; a second try, on a fresh connection, where the connection was an old one that broke, or
    /// where a server answered that may not be believed. A locked file (SQLite) is tried again until the end.
    async fn fetch(
        &mut self,
        sessions: &[SessionKey],
        users: &[i64],
        until: Instant,
    ) -> Result<Found, LookupError> {
        let mut second = false;
        loop {
            let fault = match timeout_at(until, self.try_fetch(sessions, users)).await {
                Ok(Ok(found)) => {
                    self.state.succeeded();
                    return Ok(found);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Timeout,
            };
            self.state.failed(&fault);
            match fault {
                Fault::Busy | Fault::Retry => {}
                Fault::Away(_) | Fault::ReadOnly | Fault::Altered if !second => second = true,
                _ => return Err(LookupError::Unavailable),
            }
        }
    }

    async fn try_fetch(&mut self, sessions: &[SessionKey], users: &[i64]) -> Result<Found, Fault> {
        // Taken out while it is used: a statement that is given up takes its connection with it.
        let (mut connection, since) = match self.connection.take() {
            Some((connection, since)) if since.elapsed() < CONNECTION_LIFE => (connection, since),
            _ => (self.backend.connect().await?, Instant::now()),
        };
        let answer = self
            .backend
            .lookup(&mut connection, sessions, users, Utc::now())
            .await;
        match answer {
            Ok((found, Proof::Primary)) => {
                self.connection = Some((connection, since));
                Ok(found)
            }
            Ok((_, Proof::ReadOnly)) => Err(Fault::ReadOnly),
            Err(fault) => {
                if !fault.breaks_connection() {
                    self.connection = Some((connection, since));
                }
                Err(fault)
            }
        }
    }
}

impl Batch {
    fn deliver(mut self, found: Found) {
        for (key, row) in found.sessions {
            // The database's collation may find a key that is not the one asked for; the map compares bytes.
            for reply in self.sessions.remove(&key).unwrap_or_default() {
                let _ = reply.send(Ok(Some(row.clone())));
            }
        }
        for (id, row) in found.users {
            for reply in self.users.remove(&id).unwrap_or_default() {
                let _ = reply.send(Ok(Some(row.clone())));
            }
        }
        for reply in self.sessions.into_values().flatten() {
            let _ = reply.send(Ok(None));
        }
        for reply in self.users.into_values().flatten() {
            let _ = reply.send(Ok(None));
        }
    }

    fn refuse(self, error: LookupError) {
        for reply in self.sessions.into_values().flatten() {
            let _ = reply.send(Err(error));
        }
        for reply in self.users.into_values().flatten() {
            let _ = reply.send(Err(error));
        }
    }
}

#[cfg(test)]
mod model;
