//! The claims of this module as a model, under a clock of its own: a change that is older than the bound when a
//! question is asked is in its answer, and so is every change by this process that was acknowledged before it.
//! Under any interleaving of questions, statements, snapshots, answers, commits, lost commits, clock steps and
//! expiries.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use tokio::{
    runtime,
    sync::oneshot,
    task::{JoinHandle, yield_now},
};

use super::*;
use crate::django::KeyKind;
use crate::store::{
    Options, Plan, State, UnderWay, UserDetails, UserRow,
    backend::{Backend, Fault, Found, Proof, Wanted},
    change::{Changer, Decision, NewRow},
    shape::{Shape, UserShape},
};

/// A session or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Session(usize),
    User(usize),
}

/// What a commit made of a row.
#[derive(Clone, Copy, Debug)]
struct Version {
    /// Of its own; the row's contents are this number.
    id: u64,
    /// When it was committed; `None` before the play began.
    at: Option<Duration>,
    /// Until when the row lives; `None` where there is none any more.
    lives_until: Option<DateTime<Utc>>,
}

/// What becomes of a commit that was sent.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Carried,
    /// It is carried out, and the connection breaks.
    CarriedAndLost,
    /// The connection breaks before.
    Lost,
}

#[derive(Default)]
struct World {
    now: Duration,
    history: HashMap<Subject, Vec<Version>>,
    /// Of each session, the latest change by this process that was acknowledged, as a place in its history.
    acknowledged: HashMap<Subject, usize>,
    /// Sessions whose row a change holds.
    locked: Vec<Subject>,
    ids: u64,
    /// Statements that were sent, and wait for the server to take a snapshot.
    sent: Vec<oneshot::Sender<()>>,
    /// Statements whose snapshot was taken, and whose answer waits on the wire.
    seen: Vec<oneshot::Sender<()>>,
    /// Commits that the server has not carried out.
    commits: Vec<oneshot::Sender<Fate>>,
    /// Commits that wait to be answered.
    carried: Vec<oneshot::Sender<()>>,
    lost: usize,
}

/// A database and two clocks whose every step is taken by the test.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

const KEYS: usize = 3;
/// How long rows live at first: some of them end while the play goes on.
const LIVES: [i64; KEYS] = [900, 4000, 1_000_000];

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    fn wall(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + self.now
    }

    /// The row's contents and end, if there is a live one.
    fn row(&self, subject: Subject) -> Option<(u64, DateTime<Utc>)> {
        self.row_after(subject, self.wall())
    }

    /// The same, as if it were another time.
    fn row_after(&self, subject: Subject, now: DateTime<Utc>) -> Option<(u64, DateTime<Utc>)> {
        let latest = self.history[&subject].last().unwrap();
        let end = latest.lives_until.filter(|end| *end > now)?;
        Some((latest.id, end))
    }

    fn commit(&mut self, subject: Subject, id: u64, lives_until: Option<DateTime<Utc>>) {
        let at = Some(self.now);
        let version = Version {
            id,
            at,
            lives_until,
        };
        self.history.get_mut(&subject).unwrap().push(version);
    }

    fn new_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

impl Clock for Fake {
    fn now(&self) -> Moment {
        Moment::new(self.world().now)
    }

    fn wall(&self) -> DateTime<Utc> {
        self.world().wall()
    }
}

fn key(number: usize) -> SessionKey {
    SessionKey::parse(&[b"abc"[number]; 32]).unwrap()
}

fn session(key: &SessionKey) -> Subject {
    Subject::Session(usize::from(key.as_str().as_bytes()[0] - b'a'))
}

fn user_key(number: usize) -> UserKey {
    UserKey::Integer(i64::try_from(number).unwrap())
}

fn user(key: &UserKey) -> Subject {
    let UserKey::Integer(number) = key else {
        unreachable!("integers only")
    };
    Subject::User(usize::try_from(*number).unwrap())
}

fn session_row((id, expire_date): (u64, DateTime<Utc>)) -> SessionRow {
    SessionRow {
        data: RowData::Text(id.to_string().into()),
        expire_date,
    }
}

/// A transaction.
#[derive(Default)]
struct Transaction {
    locked: Option<Subject>,
    /// What it would write.
    write: Option<(u64, Option<DateTime<Utc>>)>,
}

impl Backend for Fake {
    type Connection = Transaction;

    async fn connect(&self) -> Result<Transaction, Fault> {
        Ok(Transaction::default())
    }

    fn shape(&self, _: &Transaction) -> Arc<Shape> {
        Arc::new(Shape {
            users: Some(UserShape {
                key: KeyKind::Integer,
                key_type: "integer".into(),
                has_is_active: true,
                columns: Vec::new(),
                member: None,
            }),
            ..Shape::default()
        })
    }

    async fn check(&self, _: &mut Transaction) -> Result<(), Fault> {
        Ok(())
    }

    async fn ping(&self, _: &mut Transaction) -> Result<(), Fault> {
        Ok(())
    }

    async fn lookup(
        &self,
        _: &mut Transaction,
        wanted: &Wanted,
        _: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        let (take_snapshot, taken) = oneshot::channel();
        self.world().sent.push(take_snapshot);
        taken.await.unwrap();
        let mut found = Found::default();
        let (answer, answered) = oneshot::channel();
        {
            let mut world = self.world();
            for key in &wanted.sessions {
                let row = world.row(session(key)).map(session_row);
                found.sessions.extend(row.map(|row| (*key, row)));
            }
            for key in &wanted.users {
                let row = world.row(user(key)).map(|(id, _)| UserRow {
                    password: id.to_string().into(),
                    is_active: true,
                });
                found.users.extend(row.map(|row| (key.clone(), row)));
            }
            for key in &wanted.details {
                let details = world.row(user(key)).map(|(id, _)| UserDetails {
                    columns: vec![Some(id.to_string().into())],
                    groups: vec![id.to_string()],
                });
                found
                    .details
                    .extend(details.map(|details| (key.clone(), details)));
            }
            world.seen.push(answer);
        }
        answered.await.unwrap();
        Ok((found, Proof::Primary))
    }

    async fn begin(&self, transaction: &mut Transaction) -> Result<(), Fault> {
        *transaction = Transaction::default();
        Ok(())
    }

    async fn lock(
        &self,
        transaction: &mut Transaction,
        key: &SessionKey,
        now: DateTime<Utc>,
    ) -> Result<Option<SessionRow>, Fault> {
        transaction.locked = Some(session(key));
        let mut world = self.world();
        world.locked.push(session(key));
        // Who reads back a lost commit asks for expired rows too; the other times are not of this world.
        let row = if now == DateTime::UNIX_EPOCH {
            world.row_after(session(key), now)
        } else {
            world.row(session(key))
        };
        Ok(row.map(session_row))
    }

    async fn user(&self, _: &mut Transaction, _: &UserKey) -> Result<Option<UserRow>, Fault> {
        Ok(None)
    }

    async fn insert(&self, _: &mut Transaction, _: &NewRow) -> Result<(), Fault> {
        unreachable!("updates and deletions only")
    }

    async fn update(
        &self,
        transaction: &mut Transaction,
        _: &SessionKey,
        data: Option<&str>,
        end: DateTime<Utc>,
    ) -> Result<u64, Fault> {
        transaction.write = Some((data.unwrap().parse().unwrap(), Some(end)));
        Ok(1)
    }

    async fn delete(&self, transaction: &mut Transaction, _: &SessionKey) -> Result<(), Fault> {
        // The plan has just taken it.
        transaction.write = Some((self.world().ids, None));
        Ok(())
    }

    async fn commit(&self, transaction: &mut Transaction) -> Result<(), Fault> {
        let (carry_out, fate) = oneshot::channel();
        self.world().commits.push(carry_out);
        let fate = fate.await.unwrap();
        let (answer, answered) = oneshot::channel();
        {
            let mut world = self.world();
            let (id, end) = transaction.write.take().unwrap();
            let subject = transaction.locked.take().unwrap();
            if !matches!(fate, Fate::Lost) {
                world.commit(subject, id, end);
            }
            world.locked.retain(|other| *other != subject);
            world.carried.push(answer);
        }
        answered.await.unwrap();
        match fate {
            Fate::Carried => Ok(()),
            Fate::CarriedAndLost | Fate::Lost => Err(Fault::Away("the connection broke".into())),
        }
    }

    async fn rollback(&self, transaction: &mut Transaction) -> Result<(), Fault> {
        let locked = transaction.locked.take();
        self.world().locked.retain(|other| Some(*other) != locked);
        Ok(())
    }
}

/// A change by this process.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Update,
    Delete,
    Keep,
}

struct OwnChange {
    fake: Fake,
    subject: Subject,
    kind: Kind,
}

/// What a change has seen or made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Made {
    /// The version with this number.
    Version(u64),
    /// Nothing; it has seen what stands at this place of the history.
    Seen(usize),
}

impl Plan for OwnChange {
    type Answer = Made;

    fn user(&self, _: Option<&SessionRow>) -> Option<UserKey> {
        None
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        _: Option<&UserRow>,
        _: DateTime<Utc>,
    ) -> (Decision, Made) {
        let mut world = self.fake.world();
        let seen = Made::Seen(world.history[&self.subject].len() - 1);
        let Some(row) = row else {
            return (Decision::Keep, seen);
        };
        let decision = match self.kind {
            Kind::Keep => return (Decision::Keep, seen),
            Kind::Delete => Decision::Delete,
            Kind::Update => Decision::Update {
                data: Some((world.ids + 1).to_string()),
                expire_date: row.expire_date + TimeDelta::milliseconds(500),
            },
        };
        (decision, Made::Version(world.new_id()))
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request asks for a session.
    Session(usize, Freshness),
    /// A request asks for a user, and whether for details.
    User(usize, bool, Freshness),
    /// A request asks for a session and a user at once.
    Both(usize, usize, bool, Freshness),
    /// Somebody else commits a change; `false`: the row goes.
    Foreign(Subject, bool),
    /// This process begins a change.
    Own(usize, Kind),
    /// The server takes the snapshot of one of the statements that it was sent.
    Snapshot(usize),
    /// One of the answers arrives.
    Answer(usize),
    /// The server carries out one of the commits that it was sent, or not.
    Commit(usize, Fate),
    /// A commit is answered.
    Acknowledge(usize),
    /// Milliseconds pass.
    Wait(u64),
    /// What is too old is removed.
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let freshness = || {
        prop_oneof![
            5 => Just(Freshness::Bounded),
            1 => Just(Freshness::Exact),
        ]
    };
    let subject = prop_oneof![
        (0..KEYS).prop_map(Subject::Session),
        (0..2_usize).prop_map(Subject::User),
    ];
    let kind = prop_oneof![
        4 => Just(Kind::Update),
        1 => Just(Kind::Delete),
        1 => Just(Kind::Keep),
    ];
    let fate = prop_oneof![
        6 => Just(Fate::Carried),
        1 => Just(Fate::CarriedAndLost),
        1 => Just(Fate::Lost),
    ];
    prop_oneof![
        6 => (0..KEYS, freshness()).prop_map(|(number, freshness)| Step::Session(number, freshness)),
        4 => (0..2_usize, any::<bool>(), freshness())
            .prop_map(|(number, details, freshness)| Step::User(number, details, freshness)),
        4 => (0..KEYS, 0..2_usize, any::<bool>(), freshness())
            .prop_map(|(number, user, details, freshness)| Step::Both(number, user, details, freshness)),
        3 => (subject, prop::bool::weighted(0.8))
            .prop_map(|(subject, lives)| Step::Foreign(subject, lives)),
        3 => (0..KEYS, kind).prop_map(|(number, kind)| Step::Own(number, kind)),
        5 => (0..4_usize).prop_map(Step::Snapshot),
        5 => (0..4_usize).prop_map(Step::Answer),
        3 => (0..2_usize, fate).prop_map(|(place, fate)| Step::Commit(place, fate)),
        3 => (0..2_usize).prop_map(Step::Acknowledge),
        4 => (1..700_u64).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ]
}

/// A question that was asked.
struct Question {
    subject: Subject,
    /// The place in the history before which no answer may be.
    floor: usize,
    asked: DateTime<Utc>,
    answer: JoinHandle<Told>,
}

/// What an asker was told: the numbers that he got, and when.
struct Told {
    ids: Option<Vec<u64>>,
    at: DateTime<Utc>,
}

struct Play {
    fake: Fake,
    bound: Duration,
    bounded: Arc<Bounded>,
    batcher: Arc<Batcher>,
    changer: Arc<Changer<Fake>>,
    questions: Vec<Question>,
    changes: Vec<JoinHandle<()>>,
}

impl Play {
    fn new(bound: Duration, connections: usize) -> Self {
        let fake = Fake::default();
        {
            let mut world = fake.world();
            let begin = world.wall();
            let rows = (0..KEYS).map(|key| (Subject::Session(key), LIVES[key]));
            let users = (0..2).map(|user| (Subject::User(user), i64::from(u32::MAX)));
            for (subject, life) in rows.chain(users) {
                let first = Version {
                    id: 0,
                    at: None,
                    lives_until: Some(begin + TimeDelta::milliseconds(life)),
                };
                world.history.insert(subject, vec![first]);
            }
        }
        let options = Options {
            table: "django_session".into(),
            time_zone: chrono_tz::Tz::UTC,
            max_staleness: bound,
            deadline: Duration::from_secs(3600),
            connections,
            write_connections: 2,
            pooled: false,
            accept_replica: false,
            session_data: 1024,
            lookup_queue: 1000,
            session_queue: 100,
            users: None,
            metrics: Arc::default(),
            under_way: UnderWay::default(),
        };
        let (state, runtime) = (Arc::new(State::default()), runtime::Handle::current());
        let clock: Arc<dyn Clock> = Arc::new(fake.clone());
        let bounded = Arc::new(Bounded::new(bound, clock, options.metrics.clone()));
        let backend = Arc::new(fake.clone());
        let clock = Some(bounded.clock().clone());
        Self {
            batcher: Arc::new(Batcher::start(
                backend.clone(),
                &options,
                &state,
                clock,
                &runtime,
            )),
            changer: Arc::new(Changer::new(
                backend,
                &options,
                &state,
                Some(bounded.clone()),
                &runtime,
            )),
            fake,
            bound,
            bounded,
            questions: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Session(number, freshness) => {
                let (bounded, batcher) = (self.bounded.clone(), self.batcher.clone());
                self.ask(Subject::Session(number), freshness, async move {
                    let row = bounded
                        .session(&batcher, key(number), freshness, later())
                        .await;
                    row.unwrap().map(|row| vec![id_of(&row)])
                });
            }
            Step::User(number, details, freshness) => {
                let (bounded, batcher) = (self.bounded.clone(), self.batcher.clone());
                self.ask(Subject::User(number), freshness, async move {
                    let key = user_key(number);
                    let user = bounded.user(&batcher, key, details, freshness, later());
                    user.await.unwrap().map(|user| ids_of(user, details))
                });
            }
            Step::Both(number, user, details, freshness) => {
                let (bounded, batcher) = (self.bounded.clone(), self.batcher.clone());
                let (tell, told) = oneshot::channel();
                self.ask(Subject::Session(number), freshness, async move {
                    let (key, user) = (key(number), user_key(user));
                    let both = bounded.both(&batcher, key, user, details, freshness, later());
                    let (row, user) = both.await.unwrap();
                    let _ = tell.send(user.map(|user| ids_of(user, details)));
                    row.map(|row| vec![id_of(&row)])
                });
                self.ask(Subject::User(user), freshness, async move {
                    told.await.unwrap()
                });
            }
            Step::Foreign(subject, lives) => {
                let mut world = self.fake.world();
                // A row that has gone stays gone, as Django never inserts an old key.
                let Some((_, end)) = world.row(subject) else {
                    return;
                };
                if !world.locked.contains(&subject) {
                    let id = world.new_id();
                    world.commit(subject, id, lives.then_some(end));
                }
            }
            Step::Own(number, kind) => self.change(number, kind),
            Step::Snapshot(place) => let_go(&mut self.fake.world().sent, place, ()),
            Step::Answer(place) => let_go(&mut self.fake.world().seen, place, ()),
            Step::Commit(place, fate) => {
                let mut world = self.fake.world();
                // A third one in a row would be taken for an outage.
                let lost = usize::from(!matches!(fate, Fate::Carried) && !world.commits.is_empty());
                world.lost += lost;
                let fate = if world.lost > 2 { Fate::Carried } else { fate };
                let_go(&mut world.commits, place, fate);
            }
            Step::Acknowledge(place) => let_go(&mut self.fake.world().carried, place, ()),
            Step::Wait(milliseconds) => {
                self.fake.world().now += Duration::from_millis(milliseconds)
            }
            Step::Sweep => {
                let now = self.fake.now();
                self.bounded.sessions.sweep(now, self.bound);
                self.bounded.users.sweep(now, self.bound);
            }
        }
    }

    fn ask(
        &mut self,
        subject: Subject,
        freshness: Freshness,
        answer: impl Future<Output = Option<Vec<u64>>> + Send + 'static,
    ) {
        let world = self.fake.world();
        let history = &world.history[&subject];
        let must_be_in = |version: &Version| match (freshness, version.at) {
            (Freshness::Exact, _) | (_, None) => true,
            (Freshness::Bounded, Some(at)) => at + self.bound < world.now,
        };
        let old = history.iter().rposition(must_be_in).unwrap();
        let own = world.acknowledged.get(&subject).copied().unwrap_or(0);
        let fake = self.fake.clone();
        self.questions.push(Question {
            subject,
            floor: old.max(own),
            asked: world.wall(),
            answer: tokio::spawn(async move {
                let ids = answer.await;
                let at = fake.world().wall();
                Told { ids, at }
            }),
        });
    }

    fn change(&mut self, number: usize, kind: Kind) {
        let (changer, fake) = (self.changer.clone(), self.fake.clone());
        let subject = Subject::Session(number);
        let plan = OwnChange {
            fake: fake.clone(),
            subject,
            kind,
        };
        self.changes.push(tokio::spawn(async move {
            // Where nobody knows, nobody was promised anything.
            let Ok(made) = changer.run(Some(key(number)), plan).await else {
                return;
            };
            let mut world = fake.world();
            let is_it = |version: &Version| made == Made::Version(version.id);
            let history = &world.history[&subject];
            let place = match made {
                // A deletion that was lost, where somebody else has deleted the row since: it is gone for good.
                Made::Version(_) => history.iter().position(is_it).unwrap_or(history.len() - 1),
                Made::Seen(place) => place,
            };
            let latest = world.acknowledged.entry(subject).or_default();
            *latest = place.max(*latest);
        }));
    }

    async fn end(&mut self) {
        let is_over = |play: &Self| {
            play.questions
                .iter()
                .all(|asked| asked.answer.is_finished())
                && play.changes.iter().all(JoinHandle::is_finished)
        };
        while !is_over(self) {
            self.take(Step::Commit(0, Fate::Carried));
            settle().await;
            self.take(Step::Acknowledge(0));
            settle().await;
            self.take(Step::Snapshot(0));
            settle().await;
            self.take(Step::Answer(0));
            settle().await;
        }
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn id_of(row: &SessionRow) -> u64 {
    let RowData::Text(text) = &row.data else {
        unreachable!("the fake gives text")
    };
    text.parse().unwrap()
}

fn ids_of(user: User, details: bool) -> Vec<u64> {
    let mut ids = vec![user.row.password.parse().unwrap()];
    if details {
        let details = user.details.expect("what was asked for");
        ids.push(details.columns[0].as_ref().unwrap().parse().unwrap());
        ids.push(details.groups[0].parse().unwrap());
    }
    ids
}

fn let_go<T>(waiting: &mut Vec<oneshot::Sender<T>>, place: usize, word: T) {
    if !waiting.is_empty() {
        let place = place % waiting.len();
        let _ = waiting.remove(place).send(word);
    }
}

/// Lets every task run until all of them wait for the test.
async fn settle() {
    for _ in 0..32 {
        yield_now().await;
    }
}

async fn play(steps: Vec<Step>, bound: Duration, connections: usize) -> Result<(), TestCaseError> {
    let mut play = Play::new(bound, connections);
    for step in steps {
        play.take(step);
        settle().await;
    }
    play.end().await;
    for Question {
        subject,
        floor,
        asked,
        answer,
    } in play.questions
    {
        let told = answer.await.unwrap();
        let world = play.fake.world();
        let history = &world.history[&subject];
        let is_right = match &told.ids {
            None => history[floor..]
                .iter()
                .any(|version| version.lives_until.is_none_or(|end| end <= told.at)),
            Some(ids) => ids.iter().all(|id| {
                history[floor..].iter().any(|version| {
                    version.id == *id && version.lives_until.is_some_and(|end| end > asked)
                })
            }),
        };
        prop_assert!(
            is_right,
            "{subject:?} asked {asked}, told {:?}, not before place {floor} of {history:#?}",
            told.ids
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_answer_is_older_than_the_bound_nor_than_an_own_change(
        steps in prop::collection::vec(step(), 0..80),
        bound in 50..1000_u64,
        connections in 1..4_usize,
    ) {
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(play(steps, Duration::from_millis(bound), connections))?;
    }
}
