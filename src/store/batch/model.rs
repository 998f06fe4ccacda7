//! The claim of this module as a model: no answer is older than its question, under any interleaving of
//! questions, statements, snapshots, commits and answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use tokio::{runtime, sync::oneshot, task::JoinHandle};

use super::*;
use crate::store::{RowData, UnderWay, UserRow, change::NewRow, shape::Shape};

/// A database whose every step is taken by the test.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    /// Commits so far, by key. A key's row holds its number.
    commits: HashMap<SessionKey, u64>,
    /// Statements that were sent, and wait for the server to take a snapshot.
    sent: Vec<oneshot::Sender<()>>,
    /// Statements whose snapshot was taken, and whose answer waits on the wire.
    seen: Vec<oneshot::Sender<()>>,
}

impl Backend for Fake {
    type Connection = ();

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn shape(&self, (): &()) -> Arc<Shape> {
        Arc::default()
    }

    async fn check(&self, (): &mut ()) -> Result<(), Fault> {
        Ok(())
    }

    async fn ping(&self, (): &mut ()) -> Result<(), Fault> {
        Ok(())
    }

    async fn lookup(
        &self,
        (): &mut (),
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        let (take_snapshot, taken) = oneshot::channel();
        self.0.lock().unwrap().sent.push(take_snapshot);
        taken.await.unwrap();
        let mut found = Found::default();
        let (answer, answered) = oneshot::channel();
        {
            let mut world = self.0.lock().unwrap();
            for key in &wanted.sessions {
                if let Some(number) = world.commits.get(key) {
                    let data = RowData::Text(number.to_string().into());
                    found.sessions.push((
                        *key,
                        SessionRow {
                            data,
                            expire_date: now,
                        },
                    ));
                }
            }
            world.seen.push(answer);
        }
        answered.await.unwrap();
        // Any order will do.
        found.sessions.reverse();
        Ok((found, Proof::Primary))
    }

    async fn begin(&self, (): &mut ()) -> Result<(), Fault> {
        unreachable!("lookups only")
    }

    async fn lock(
        &self,
        (): &mut (),
        _: &SessionKey,
        _: DateTime<Utc>,
    ) -> Result<Option<SessionRow>, Fault> {
        unreachable!("lookups only")
    }

    async fn user(&self, (): &mut (), _: &UserKey) -> Result<Option<UserRow>, Fault> {
        unreachable!("lookups only")
    }

    async fn insert(&self, (): &mut (), _: &NewRow) -> Result<(), Fault> {
        unreachable!("lookups only")
    }

    async fn update(
        &self,
        (): &mut (),
        _: &SessionKey,
        _: Option<&str>,
        _: DateTime<Utc>,
    ) -> Result<u64, Fault> {
        unreachable!("lookups only")
    }

    async fn delete(&self, (): &mut (), _: &SessionKey) -> Result<(), Fault> {
        unreachable!("lookups only")
    }

    async fn commit(&self, (): &mut ()) -> Result<(), Fault> {
        unreachable!("lookups only")
    }

    async fn rollback(&self, (): &mut ()) -> Result<(), Fault> {
        unreachable!("lookups only")
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request asks for the session of key n.
    Ask(usize),
    /// Requests ask for the sessions of all keys at the same time.
    Rush,
    /// Somebody commits a change of key n.
    Commit(usize),
    /// The server takes the snapshot of one of the statements that it was sent.
    Snapshot(usize),
    /// One of the answers arrives.
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize).prop_map(Step::Ask),
        Just(Step::Rush),
        (0..3_usize).prop_map(Step::Commit),
        (0..4_usize).prop_map(Step::Snapshot),
        (0..4_usize).prop_map(Step::Answer),
    ]
}

struct Asked {
    /// Commits of the key that were acknowledged before it was asked.
    before: u64,
    answer: JoinHandle<Result<Answer<SessionRow>, LookupError>>,
}

fn ask(fake: &Fake, batcher: &Arc<Batcher>, key: SessionKey) -> Asked {
    let before = fake.0.lock().unwrap().commits.get(&key).copied();
    let batcher = batcher.clone();
    let answer = tokio::spawn(async move {
        let until = Instant::now() + Duration::from_secs(3600);
        batcher.session(key, until).await
    });
    Asked {
        before: before.unwrap_or(0),
        answer,
    }
}

async fn play(steps: Vec<Step>, connections: usize) -> Result<(), TestCaseError> {
    let keys = [b'a', b'b', b'c'].map(|letter| SessionKey::parse(&[letter; 32]).unwrap());
    let fake = Fake::default();
    let options = Options {
        table: "django_session".into(),
        time_zone: Tz::UTC,
        max_staleness: Duration::ZERO,
        deadline: Duration::from_secs(3600),
        connections,
        write_connections: 1,
        pooled: false,
        accept_replica: false,
        session_data: 1024,
        lookup_queue: 1000,
        session_queue: 1,
        users: None,
        metrics: Arc::default(),
        under_way: UnderWay::default(),
    };
    let state = Arc::new(State::default());
    let batcher = Batcher::start(
        Arc::new(fake.clone()),
        &options,
        &state,
        None,
        &runtime::Handle::current(),
    );
    let batcher = Arc::new(batcher);
    let mut questions = Vec::new();
    for step in steps {
        match step {
            Step::Ask(place) => questions.push(ask(&fake, &batcher, keys[place])),
            Step::Rush => questions.extend(keys.map(|key| ask(&fake, &batcher, key))),
            Step::Commit(place) => {
                *fake
                    .0
                    .lock()
                    .unwrap()
                    .commits
                    .entry(keys[place])
                    .or_default() += 1;
            }
            Step::Snapshot(place) => let_go(&mut fake.0.lock().unwrap().sent, place),
            Step::Answer(place) => let_go(&mut fake.0.lock().unwrap().seen, place),
        }
        settle().await;
    }
    // Whatever still waits is served in the end.
    while questions
        .iter()
        .any(|question| !question.answer.is_finished())
    {
        let_go(&mut fake.0.lock().unwrap().sent, 0);
        settle().await;
        let_go(&mut fake.0.lock().unwrap().seen, 0);
        settle().await;
    }
    for Asked { before, answer } in questions {
        let number = match answer.await.unwrap().unwrap().value {
            None => 0,
            Some(SessionRow {
                data: RowData::Text(number),
                ..
            }) => number.parse().unwrap(),
            Some(_) => unreachable!("the fake gives text"),
        };
        prop_assert!(
            number >= before,
            "asked after commit {before}, answered from commit {number}"
        );
    }
    Ok(())
}

fn let_go(waiting: &mut Vec<oneshot::Sender<()>>, place: usize) {
    if !waiting.is_empty() {
        let place = place % waiting.len();
        let _ = waiting.remove(place).send(());
    }
}

/// Lets every task run until all of them wait for the test.
async fn settle() {
    for _ in 0..16 {
        yield_now().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_answer_is_older_than_its_question(
        steps in prop::collection::vec(step(), 0..60),
        connections in 1..4_usize,
    ) {
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(play(steps, connections))?;
    }
}
