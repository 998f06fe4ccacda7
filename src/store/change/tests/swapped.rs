//! Changes of rows that were seen before: stored without a lock, if the rows are the same.

use proptest::prelude::*;

use super::{
    together::{Act, Append, Flush, Refuse, Told, act, ask_for, each_key_once, met, model},
    *,
};

/// A change by somebody who has seen this text.
#[derive(Clone)]
struct Seeing(Act, Option<&'static str>);

impl Plan for Seeing {
    type Answer = Option<String>;

    fn seen(&self) -> Option<SessionRow> {
        let data = RowData::Text(self.1?.into());
        let expire_date = later();
        Some(SessionRow { data, expire_date })
    }

    fn user(&self, row: Option<&SessionRow>) -> Option<UserKey> {
        self.0.user(row)
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        user: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> (Decision, Option<String>) {
        self.0.decide(row, user, now)
    }

    fn not_stored(&self, _: &Fault) {}
}

async fn ask(fake: &Fake, acts: &[Act], seen: Option<&'static str>) -> Vec<Told> {
    let changes = acts.iter().map(|act| (old_key(), Seeing(*act, seen)));
    ask_for(fake, changes.collect()).await
}

/// How many statements without, and how many transactions with a lock.
fn counts(fake: &Fake) -> (usize, usize) {
    let world = fake.world();
    (world.swapped, world.begun)
}

#[tokio::test]
async fn a_row_that_is_as_it_was_seen_is_stored_by_one_statement() {
    let fake = world(&[]);
    assert_eq!(ask(&fake, &[Append('1')], Some("old")).await, [met("old")]);
    assert_eq!(contents(&fake), [(old_key(), "old1".to_owned())]);
    assert_eq!(counts(&fake), (1, 0));
}

#[tokio::test]
async fn a_row_that_has_changed_since_is_decided_again_under_its_lock() {
    let fake = world(&[]);
    assert_eq!(
        ask(&fake, &[Append('1')], Some("older")).await,
        [met("old")]
    );
    assert_eq!(contents(&fake), [(old_key(), "old1".to_owned())]);
    assert_eq!(counts(&fake), (1, 1));

    let fake = world(&[]);
    fake.world().rows.clear();
    assert_eq!(ask(&fake, &[Append('1')], Some("old")).await, [Ok(None)]);
    assert_eq!(contents(&fake), []);
}

#[tokio::test]
async fn those_that_wait_go_on_from_what_was_stored_last() {
    let fake = world(&[]);
    let told = ask(&fake, &[Append('1'), Append('2'), Append('3')], Some("old")).await;
    assert_eq!(told, ["old", "old1", "old12"].map(met));
    assert_eq!(contents(&fake), [(old_key(), "old123".to_owned())]);
    assert_eq!(counts(&fake), (2, 0));
}

#[tokio::test]
async fn what_writes_nothing_is_never_told_from_an_old_row() {
    let fake = world(&[]);
    let told = ask(&fake, &[Refuse], Some("older")).await;
    assert_eq!(told, [met("old")]);
    let told = ask(&fake, &[Flush], Some("older")).await;
    assert_eq!(told, [met("old")]);
    assert_eq!(contents(&fake), []);
    assert_eq!(fake.world().swapped, 0);
}

fn key(number: usize) -> SessionKey {
    SessionKey::parse(format!("{number:032}").as_bytes()).unwrap()
}

#[tokio::test]
async fn rows_that_wait_share_a_statement() {
    let fake = world(&[]);
    let rows = (0..200).map(|number| (key(number), ("old".to_owned(), later())));
    fake.world().rows.extend(rows);
    let changes = (0..200).map(|number| (key(number), Seeing(Append('1'), Some("old"))));
    let told = ask_for(&fake, changes.collect()).await;
    assert!(told.iter().all(|told| *told == met("old")), "{told:?}");
    let stored = contents(&fake);
    let is_new = |(key, text): &&(SessionKey, String)| *key != old_key() && text == "old1";
    assert_eq!(stored.iter().filter(is_new).count(), 200);
    let (statements, begun) = counts(&fake);
    assert!(statements <= 3 && begun == 0, "{statements}");
}

#[tokio::test]
async fn one_that_has_changed_and_one_that_is_refused_harm_no_other() {
    let fake = world(&[]);
    let rows = (0..3).map(|number| (key(number), ("old".to_owned(), later())));
    fake.world().rows.extend(rows);
    let changes = vec![
        (key(0), Seeing(Append('1'), Some("old"))),
        (key(1), Seeing(Append('1'), Some("older"))),
        (old_key(), Seeing(Append('!'), Some("old"))),
        (key(2), Seeing(Append('1'), Some("old"))),
    ];
    let told = ask_for(&fake, changes).await;
    let refused = Err(ChangeError::NotSaved);
    assert_eq!(told, [met("old"), met("old"), refused, met("old")]);
    let stored: Vec<String> = contents(&fake).into_iter().map(|(_, text)| text).collect();
    assert_eq!(stored, ["old1", "old1", "old1", "old"]);
}

#[tokio::test]
async fn what_waits_for_too_long_was_never_sent() {
    let fake = world(&[]);
    let rows = (0..3).map(|number| (key(number), ("old".to_owned(), later())));
    fake.world().rows.extend(rows);
    let gate = fake.world().gate.clone();
    let closed = gate.write().await;
    let changer = changer(&fake, 1);
    let ask = |number| {
        let change = Seeing(Append('1'), Some("old"));
        changer.clone().run(Some(key(number)), change)
    };
    // Two are sent, by the two who may send at once; the third waits.
    let mut first = Box::pin(ask(0));
    assert_eq!(poll_once(&mut first), None);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let mut second = Box::pin(ask(1));
    assert_eq!(poll_once(&mut second), None);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert_eq!(ask(2).await, Err(ChangeError::NotSaved));
    assert_eq!(first.await, Err(ChangeError::Unknown));
    assert_eq!(second.await, Err(ChangeError::Unknown));
    drop(closed);
    changer.under_way.none().await;
    let now = |number| fake.world().rows[&key(number)].0.clone();
    assert_eq!([0, 1, 2].map(now), ["old"; 3]);
}

#[tokio::test]
async fn a_statement_that_was_not_answered_has_happened_or_never_will() {
    for lost in [Lost::Before, Lost::After, Lost::Late] {
        let fake = world(&[]);
        fake.world().at_swap = vec![Some(lost)];
        let acts = [Append('1'), Append('2')];
        assert_eq!(ask(&fake, &acts, Some("old")).await, model(&acts).0);
        fake.world().carry_out_late();
        assert_eq!(
            contents(&fake),
            [(old_key(), "old12".to_owned())],
            "{lost:?}"
        );
    }
}

#[tokio::test]
async fn of_a_statement_that_was_not_answered_nobody_says_that_nothing_is_stored() {
    let unknown = || Err(ChangeError::Unknown);
    let fake = world(&[]);
    fake.world().at_swap = vec![Some(Lost::ThenOverwritten)];
    let told = ask(&fake, &[Append('1')], Some("old")).await;
    assert_eq!(told, [unknown()]);
    assert_eq!(contents(&fake), [(old_key(), "somebody else's".to_owned())]);

    let fake = world(&[]);
    fake.world().at_swap = vec![Some(Lost::ForGood)];
    assert_eq!(ask(&fake, &[Append('1')], Some("old")).await, [unknown()]);

    // It comes when the row was found as it was, and what was to be stored instead is lost as well.
    for commit in [Lost::Before, Lost::After] {
        let fake = world(&[commit]);
        fake.world().at_swap = vec![Some(Lost::Late)];
        assert_eq!(ask(&fake, &[Append('1')], Some("old")).await, [unknown()]);
        assert_eq!(contents(&fake), [(old_key(), "old1".to_owned())]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever was seen, and whatever becomes of statements: what is stored and what is told is what it would be
    /// under the lock, one after the other.
    #[test]
    fn seen_or_locked_they_come_to_the_same(
        acts in proptest::collection::vec(act(), 1..12),
        seen in prop_oneof![3 => Just(Some("old")), 1 => Just(Some("older")), 1 => Just(None)],
        lost in proptest::collection::vec(
            prop_oneof![
                3 => Just(None),
                1 => Just(Some(Lost::Before)),
                1 => Just(Some(Lost::After)),
                1 => Just(Some(Lost::Late)),
            ],
            // After three in a row nobody asks the database any more.
            0..3,
        ),
    ) {
        let acts = each_key_once(acts);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fake = world(&[]);
        // A row that is neither what it was nor what it should be may have been both since.
        fake.world().at_swap = if seen == Some("old") { lost } else { Vec::new() };
        let told = runtime.block_on(ask(&fake, &acts, seen));
        fake.world().carry_out_late();
        prop_assert_eq!((told, contents(&fake)), model(&acts));
    }
}
