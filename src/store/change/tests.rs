//! What becomes of a change when the database misbehaves at each step, with a database made for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;

use super::*;
use crate::store::{
    RowData,
    backend::{Found, Proof, Wanted},
    shape::Shape,
};

mod swapped;
mod together;

/// One row of the fake.
type Row = (String, DateTime<Utc>);

/// How the next commit, or swap, is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lost {
    /// The connection breaks before the server has seen it.
    Before,
    /// The connection breaks after the server has carried it out.
    After,
    /// As `After`, and then somebody else writes the row.
    ThenOverwritten,
    /// As `Before`, and the server stays away.
    ForGood,
    /// Of a swap only: it is carried out when the next transaction has ended.
    Late,
}

#[derive(Default)]
struct World {
    rows: HashMap<SessionKey, Row>,
    /// What becomes of the coming commits, the last of them first.
    at_commit: Vec<Option<Lost>>,
    at_lock: Vec<Fault>,
    /// Whoever holds it lets nobody have a row's lock, nor any answer to a swap.
    gate: Arc<tokio::sync::RwLock<()>>,
    begun: usize,
    /// What becomes of the coming swaps, the last of them first.
    at_swap: Vec<Option<Lost>>,
    late: Vec<Swap>,
    swapped: usize,
    is_away: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

/// A transaction works on a copy and puts it in place at its commit.
#[derive(Default)]
struct Copy(HashMap<SessionKey, Row>);

impl Fake {
    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    /// A transaction has ended.
    fn carry_out_late(&mut self) {
        for swap in std::mem::take(&mut self.late) {
            self.swap(&swap);
        }
    }

    fn swap(&mut self, swap: &Swap) -> bool {
        let before = (swap.old_data.to_string(), swap.old_expire_date);
        let is_same = self.rows.get(&swap.key) == Some(&before);
        if is_same {
            let row = (swap.data.to_string(), swap.expire_date.trunc_subsecs(0));
            self.rows.insert(swap.key, row);
        }
        is_same
    }
}

impl Backend for Fake {
    type Connection = Copy;

    async fn connect(&self) -> Result<Copy, Fault> {
        if self.world().is_away {
            return Err(Fault::Away("refused".into()));
        }
        Ok(Copy::default())
    }

    fn shape(&self, _: &Copy) -> Arc<Shape> {
        Arc::default()
    }

    async fn check(&self, _: &mut Copy) -> Result<(), Fault> {
        Ok(())
    }

    async fn ping(&self, _: &mut Copy) -> Result<(), Fault> {
        Ok(())
    }

    async fn lookup(
        &self,
        _: &mut Copy,
        _: &Wanted,
        _: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        unreachable!("changes only")
    }

    async fn begin(&self, copy: &mut Copy) -> Result<(), Fault> {
        let mut world = self.world();
        world.begun += 1;
        copy.0 = world.rows.clone();
        Ok(())
    }

    async fn lock(
        &self,
        copy: &mut Copy,
        key: &SessionKey,
        now: DateTime<Utc>,
    ) -> Result<Option<SessionRow>, Fault> {
        let gate = self.world().gate.clone();
        let _passed = gate.read().await;
        if let Some(fault) = self.world().at_lock.pop() {
            return Err(fault);
        }
        let row = copy
            .0
            .get(key)
            .filter(|(_, expire_date)| *expire_date > now);
        Ok(row.map(|(data, expire_date)| SessionRow {
            data: RowData::Text(data.as_str().into()),
            expire_date: *expire_date,
        }))
    }

    async fn user(&self, _: &mut Copy, _: &UserKey) -> Result<Option<UserRow>, Fault> {
        Ok(None)
    }

    async fn insert(&self, copy: &mut Copy, row: &NewRow) -> Result<(), Fault> {
        if copy.0.contains_key(&row.key) {
            return Err(Fault::Taken);
        }
        refuse(Some(&row.data))?;
        copy.0
            .insert(row.key, (row.data.clone(), self.held(row.expire_date)));
        Ok(())
    }

    async fn update(
        &self,
        copy: &mut Copy,
        key: &SessionKey,
        data: Option<&str>,
        expire_date: DateTime<Utc>,
    ) -> Result<u64, Fault> {
        refuse(data)?;
        let Some(row) = copy.0.get_mut(key) else {
            return Ok(0);
        };
        if let Some(data) = data {
            row.0 = data.to_owned();
        }
        row.1 = self.held(expire_date);
        Ok(1)
    }

    async fn delete(&self, copy: &mut Copy, key: &SessionKey) -> Result<(), Fault> {
        copy.0.remove(key);
        Ok(())
    }

    /// Whole seconds only.
    fn held(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        time.trunc_subsecs(0)
    }

    async fn commit(&self, copy: &mut Copy) -> Result<(), Fault> {
        let mut world = self.world();
        let lost = world.at_commit.pop().flatten();
        if matches!(lost, None | Some(Lost::After | Lost::ThenOverwritten)) {
            world.rows = std::mem::take(&mut copy.0);
        }
        world.carry_out_late();
        match lost {
            None => return Ok(()),
            Some(Lost::ThenOverwritten) => {
                for row in world.rows.values_mut() {
                    row.0 = "somebody else's".into();
                }
            }
            Some(Lost::ForGood) => world.is_away = true,
            Some(_) => {}
        }
        Err(Fault::Away("the connection broke".into()))
    }

    async fn rollback(&self, _: &mut Copy) -> Result<(), Fault> {
        self.world().carry_out_late();
        Ok(())
    }

    fn swaps(&self) -> bool {
        true
    }

    async fn swap(&self, _: &mut Copy, swaps: &[Swap]) -> Result<Vec<bool>, Fault> {
        let gate = self.world().gate.clone();
        let _passed = gate.read().await;
        let mut world = self.world();
        world.swapped += 1;
        for swap in swaps {
            refuse(Some(&swap.data))?;
        }
        let lost = world.at_swap.pop().flatten();
        if lost == Some(Lost::Late) {
            world.late = swaps.to_vec();
        }
        if matches!(lost, None | Some(Lost::After | Lost::ThenOverwritten)) {
            let stored = swaps.iter().map(|swap| world.swap(swap)).collect();
            if lost.is_none() {
                return Ok(stored);
            }
        }
        if lost == Some(Lost::ThenOverwritten) {
            for row in world.rows.values_mut() {
                row.0 = "somebody else's".into();
            }
        }
        world.is_away = lost == Some(Lost::ForGood);
        Err(Fault::Away("the connection broke".into()))
    }
}

/// The fake's own rule: no exclamation marks.
fn refuse(data: Option<&str>) -> Result<(), Fault> {
    match data {
        Some(data) if data.contains('!') => Err(Fault::Refused("no exclamation marks".into())),
        _ => Ok(()),
    }
}

#[derive(Clone)]
struct Fixed(fn() -> Decision);

impl Plan for Fixed {
    type Answer = bool;

    fn user(&self, _: Option<&SessionRow>) -> Option<UserKey> {
        None
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        _: Option<&UserRow>,
        _: DateTime<Utc>,
    ) -> (Decision, bool) {
        ((self.0)(), row.is_some())
    }
}

fn old_key() -> SessionKey {
    SessionKey::parse(&[b'a'; 32]).unwrap()
}

fn new_key() -> SessionKey {
    SessionKey::parse(&[b'b'; 32]).unwrap()
}

/// Long after any test has run, and not as the database holds it.
fn later() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(40_000) + TimeDelta::milliseconds(1)
}

fn update() -> Decision {
    Decision::Update {
        data: Some("new".into()),
        expire_date: later(),
    }
}

fn replace() -> Decision {
    Decision::Replace(NewRow {
        key: new_key(),
        data: "new".into(),
        expire_date: later(),
    })
}

fn delete() -> Decision {
    Decision::Delete
}

async fn run(
    fake: &Fake,
    key: Option<SessionKey>,
    decision: fn() -> Decision,
) -> Result<bool, ChangeError> {
    changer(fake, 2).run(key, Fixed(decision)).await
}

fn changer(fake: &Fake, session_queue: usize) -> Arc<Changer<Fake>> {
    let options = Options {
        table: "django_session".into(),
        time_zone: Tz::UTC,
        max_staleness: Duration::ZERO,
        deadline: Duration::from_millis(300),
        connections: 1,
        write_connections: 2,
        pooled: false,
        accept_replica: false,
        session_data: 1024,
        lookup_queue: 1,
        session_queue,
        users: None,
        metrics: Arc::default(),
        under_way: UnderWay::default(),
    };
    let state = Arc::new(State::default());
    let runtime = runtime::Handle::current();
    let changer = Changer::new(Arc::new(fake.clone()), &options, &state, None, &runtime);
    Arc::new(changer)
}

fn world(at_commit: &[Lost]) -> Fake {
    let fake = Fake::default();
    fake.world().rows.insert(old_key(), ("old".into(), later()));
    fake.world().at_commit = at_commit.iter().copied().map(Some).collect();
    fake
}

fn contents(fake: &Fake) -> Vec<(SessionKey, String)> {
    let mut rows: Vec<_> = fake
        .world()
        .rows
        .iter()
        .map(|(key, (data, _))| (*key, data.clone()))
        .collect();
    rows.sort_by_key(|(key, _)| key.as_str().to_owned());
    rows
}

const DECISIONS: [fn() -> Decision; 3] = [update, replace, delete];

fn wanted(place: usize) -> Vec<(SessionKey, String)> {
    match place {
        0 => vec![(old_key(), "new".into())],
        1 => vec![(new_key(), "new".into())],
        _ => vec![],
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_to_have_happened() {
    for (place, decision) in DECISIONS.into_iter().enumerate() {
        let fake = world(&[Lost::After]);
        assert_eq!(run(&fake, Some(old_key()), decision).await, Ok(true));
        assert_eq!(contents(&fake), wanted(place));
    }
    let fake = world(&[Lost::After]);
    assert_eq!(run(&fake, None, replace).await, Ok(false));
    assert_eq!(contents(&fake).len(), 2);
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_tried_again() {
    for (place, decision) in DECISIONS.into_iter().enumerate() {
        let fake = world(&[Lost::Before]);
        assert_eq!(run(&fake, Some(old_key()), decision).await, Ok(true));
        assert_eq!(contents(&fake), wanted(place));
    }
}

#[tokio::test]
async fn what_somebody_else_wrote_after_a_lost_commit_is_never_overwritten() {
    let fake = world(&[Lost::ThenOverwritten]);
    assert_eq!(
        run(&fake, Some(old_key()), update).await,
        Err(ChangeError::Unknown)
    );
    assert_eq!(contents(&fake), [(old_key(), "somebody else's".to_owned())]);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_learned_is_said_to_be_unknown() {
    let fake = world(&[Lost::ForGood]);
    assert_eq!(
        run(&fake, Some(old_key()), update).await,
        Err(ChangeError::Unknown)
    );
}

#[tokio::test]
async fn a_deadlock_is_tried_again_as_a_whole() {
    let fake = world(&[]);
    fake.world().at_lock = vec![Fault::Retry, Fault::Retry];
    assert_eq!(run(&fake, Some(old_key()), update).await, Ok(true));
    assert_eq!(fake.world().begun, 3);
    assert_eq!(contents(&fake), wanted(0));
}

#[tokio::test]
async fn a_lock_that_is_not_had_is_busy_and_stores_nothing() {
    let fake = world(&[]);
    fake.world().at_lock = vec![Fault::Busy];
    assert_eq!(
        run(&fake, Some(old_key()), update).await,
        Err(ChangeError::Busy)
    );
    assert_eq!(contents(&fake), [(old_key(), "old".to_owned())]);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_commit_stores_nothing() {
    let fake = world(&[]);
    fake.world().at_lock = vec![Fault::Away("broke".into())];
    assert_eq!(
        run(&fake, Some(old_key()), update).await,
        Err(ChangeError::NotSaved)
    );
    assert_eq!(contents(&fake), [(old_key(), "old".to_owned())]);
}

#[tokio::test]
async fn a_change_is_carried_out_when_its_asker_has_left() {
    let fake = world(&[]);
    let asking = run(&fake, Some(old_key()), update);
    {
        let mut asking = Box::pin(asking);
        // Asked, and left at once.
        assert!(poll_once(&mut asking).is_none());
    }
    while contents(&fake) != wanted(0) {
        tokio::task::yield_now().await;
    }
}

/// Polls once.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
