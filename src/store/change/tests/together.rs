//! Changes of one row that wait for each other: carried out together, as if one after the other.

use proptest::prelude::*;

use super::*;

/// What a change does to the row's text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    /// Appends this letter.
    Append(char),
    /// Moves the end.
    Touch,
    /// Changes nothing.
    Refuse,
    /// A new key for the text and this letter.
    Cycle(char),
    /// Deletes.
    Flush,
    /// Deletes, and begins a row of this letter.
    Afresh(char),
    /// Fails in a way that no plan should.
    Panic,
}

pub(super) use Act::{Afresh, Append, Cycle, Flush, Panic, Refuse, Touch};

impl Act {
    fn decide(self, seen: Option<&str>) -> Decision {
        let update = |data| Decision::Update {
            data,
            expire_date: later(),
        };
        let new = |data: String, letter: char| {
            Decision::Replace(NewRow {
                key: key_of(letter),
                data,
                expire_date: later(),
            })
        };
        match (self, seen) {
            (Append(letter), Some(seen)) => update(Some(format!("{seen}{letter}"))),
            (Touch, Some(_)) => update(None),
            (Cycle(letter), Some(seen)) => new(format!("{seen}{letter}"), letter),
            (Flush, _) => Decision::Delete,
            (Afresh(letter), _) => new(letter.to_string(), letter),
            (Refuse, _) | (_, None) => Decision::Keep,
            (Panic, _) => panic!("as planned"),
        }
    }
}

impl Plan for Act {
    /// The text that it met.
    type Answer = Option<String>;

    fn user(&self, _: Option<&SessionRow>) -> Option<UserKey> {
        None
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        _: Option<&UserRow>,
        _: DateTime<Utc>,
    ) -> (Decision, Option<String>) {
        let seen = row.map(|row| match &row.data {
            RowData::Text(text) => text.to_string(),
            _ => panic!("text"),
        });
        (Act::decide(*self, seen.as_deref()), seen)
    }

    fn not_stored(&self, _: &Fault) {}
}

/// A key for each letter.
pub(super) fn key_of(letter: char) -> SessionKey {
    let letter = if letter == '!' { 'b' } else { letter };
    SessionKey::parse(&[letter as u8; 32]).unwrap()
}

pub(super) type Told = Result<Option<String>, ChangeError>;

/// All ask in this order before the first is carried out, so that all others wait for it.
async fn ask(fake: &Fake, acts: &[Act]) -> Vec<Told> {
    let changes = acts.iter().map(|act| (old_key(), *act));
    ask_for(fake, changes.collect()).await
}

/// The same of any rows.
pub(super) async fn ask_for<P: Plan<Answer = Option<String>>>(
    fake: &Fake,
    changes: Vec<(SessionKey, P)>,
) -> Vec<Told> {
    let changer = changer(fake, changes.len());
    let mut asking: Vec<_> = changes
        .into_iter()
        .map(|(key, plan)| Box::pin(changer.clone().run(Some(key), plan)))
        .collect();
    for asking in &mut asking {
        assert_eq!(poll_once(asking), None);
    }
    let mut told = Vec::new();
    for asking in asking {
        told.push(asking.await);
    }
    changer.under_way.none().await;
    told
}

pub(super) fn met(text: &str) -> Told {
    Ok(Some(text.to_owned()))
}

/// The same, one after the other.
pub(super) fn model(acts: &[Act]) -> (Vec<Told>, Vec<(SessionKey, String)>) {
    let mut rows = HashMap::from([(old_key(), "old".to_owned())]);
    let mut told = Vec::new();
    for act in acts {
        let seen = rows.get(&old_key()).cloned();
        let decision = act.decide(seen.as_deref());
        let refused = |data: &str| data.contains('!');
        match decision {
            Decision::Update {
                data: Some(data), ..
            }
            | Decision::Replace(NewRow { data, .. })
                if refused(&data) =>
            {
                told.push(Err(ChangeError::NotSaved));
                continue;
            }
            Decision::Keep | Decision::Update { data: None, .. } => {}
            Decision::Update {
                data: Some(data), ..
            } => {
                rows.insert(old_key(), data);
            }
            Decision::Replace(new) => {
                rows.remove(&old_key());
                rows.insert(new.key, new.data);
            }
            Decision::Delete => {
                rows.remove(&old_key());
            }
        }
        told.push(Ok(seen));
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(key, _)| key.as_str().to_owned());
    (told, rows)
}

#[tokio::test]
async fn those_that_wait_are_committed_together_each_from_what_the_one_before_made() {
    let fake = world(&[]);
    let told = ask(
        &fake,
        &[Append('1'), Append('2'), Append('3'), Touch, Append('4')],
    )
    .await;
    let seen = ["old", "old1", "old12", "old123", "old123"];
    assert_eq!(told, seen.map(met));
    assert_eq!(contents(&fake), [(old_key(), "old1234".to_owned())]);
    assert_eq!(fake.world().begun, 2, "the first, and all others");

    let many: Vec<Act> = (0..MOST_TOGETHER + 2).map(|_| Append('x')).collect();
    let fake = world(&[]);
    assert!(ask(&fake, &many).await.iter().all(Result::is_ok));
    assert_eq!(contents(&fake)[0].1.len(), 3 + MOST_TOGETHER + 2);
    assert_eq!(fake.world().begun, 3);
}

#[tokio::test]
async fn one_that_changes_nothing_harms_nobody() {
    let fake = world(&[]);
    let told = ask(&fake, &[Append('1'), Refuse, Append('2'), Refuse]).await;
    assert_eq!(told, ["old", "old1", "old1", "old12"].map(met));
    assert_eq!(contents(&fake), [(old_key(), "old12".to_owned())]);
    let fake = world(&[]);
    ask(&fake, &[Refuse, Refuse, Refuse]).await;
    assert_eq!(contents(&fake), [(old_key(), "old".to_owned())]);
}

#[tokio::test]
async fn after_a_new_key_or_a_deletion_the_row_is_gone_for_the_others() {
    let fake = world(&[]);
    let told = ask(
        &fake,
        &[Touch, Append('1'), Cycle('c'), Append('2'), Touch, Flush],
    )
    .await;
    let gone = || Ok(None);
    assert_eq!(
        told,
        [met("old"), met("old"), met("old1"), gone(), gone(), gone()]
    );
    assert_eq!(contents(&fake), [(key_of('c'), "old1c".to_owned())]);

    let fake = world(&[]);
    let told = ask(
        &fake,
        &[Touch, Flush, Append('1'), Afresh('d'), Append('2')],
    )
    .await;
    assert_eq!(told, [met("old"), met("old"), gone(), gone(), gone()]);
    assert_eq!(contents(&fake), [(key_of('d'), "d".to_owned())]);
}

#[tokio::test]
async fn one_that_the_database_refuses_harms_nobody() {
    for bad in [Append('!'), Cycle('!'), Afresh('!')] {
        let fake = world(&[]);
        let told = ask(&fake, &[Append('1'), Append('2'), bad, Append('3')]).await;
        let not_saved = Err(ChangeError::NotSaved);
        assert_eq!(
            told,
            [met("old"), met("old1"), not_saved, met("old12")],
            "{bad:?}"
        );
        assert_eq!(
            contents(&fake),
            [(old_key(), "old123".to_owned())],
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn a_lost_commit_of_several_is_all_of_them_or_none() {
    let acts = [Append('1'), Append('2'), Touch, Append('3')];
    let cycling = [Append('1'), Append('2'), Cycle('c'), Append('3')];
    let flushing = [Append('1'), Append('2'), Flush, Flush];
    for acts in [acts, cycling, flushing] {
        for lost in [Lost::Before, Lost::After] {
            let fake = world(&[]);
            fake.world().at_commit = vec![Some(lost), None];
            assert_eq!((ask(&fake, &acts).await, contents(&fake)), model(&acts));
        }
    }
    let fake = world(&[]);
    fake.world().at_commit = vec![Some(Lost::ThenOverwritten), None];
    let unknown = Err(ChangeError::Unknown);
    let told = ask(&fake, &[Append('1'), Append('2'), Append('3')]).await;
    assert_eq!(told, [met("old"), unknown.clone(), unknown]);
    assert_eq!(contents(&fake), [(old_key(), "somebody else's".to_owned())]);
}

#[tokio::test]
async fn a_deadlock_of_several_is_tried_again_with_all_of_them() {
    let fake = world(&[]);
    let acts = [Append('1'), Append('2'), Append('3')];
    // The first one's own, and then twice that of the others.
    fake.world().at_lock = vec![Fault::Retry, Fault::Altered, Fault::Retry];
    assert_eq!((ask(&fake, &acts).await, contents(&fake)), model(&acts));
}

#[tokio::test]
async fn whoever_leaves_the_line_is_carried_out_all_the_same() {
    let fake = world(&[]);
    let changer = changer(&fake, 2);
    let mut first = Box::pin(changer.clone().run(Some(old_key()), Append('1')));
    let mut second = Box::pin(changer.clone().run(Some(old_key()), Append('2')));
    assert!(poll_once(&mut first).is_none() && poll_once(&mut second).is_none());
    drop((first, second));
    changer.under_way.none().await;
    assert_eq!(contents(&fake), [(old_key(), "old12".to_owned())]);
}

#[tokio::test]
async fn whoever_waits_for_too_long_is_told_so_and_never_carried_out() {
    let fake = world(&[]);
    let gate = fake.world().gate.clone();
    let closed = gate.write().await;
    let told = ask(&fake, &[Append('1'), Append('2'), Append('3')]).await;
    let busy = Err(ChangeError::Busy);
    assert_eq!(told, [Err(ChangeError::NotSaved), busy.clone(), busy]);
    drop(closed);
    let told = ask(&fake, &[Append('4')]).await;
    assert_eq!(told, [met("old")], "nothing of the others came");
    assert_eq!(contents(&fake), [(old_key(), "old4".to_owned())]);
}

#[tokio::test]
async fn a_full_line_takes_nobody() {
    let fake = world(&[]);
    let changer = changer(&fake, 2);
    let ask = || Box::pin(changer.clone().run(Some(old_key()), Append('x')));
    let mut served: Vec<_> = (0..3).map(|_| ask()).collect();
    assert!(served.iter_mut().all(|asking| poll_once(asking).is_none()));
    assert_eq!(poll_once(&mut ask()), Some(Err(ChangeError::Busy)));
    // Another key has a line of its own.
    let mut other = Box::pin(changer.clone().run(Some(new_key()), Flush));
    assert!(poll_once(&mut other).is_none());
    for asking in served {
        assert!(asking.await.is_ok());
    }
    assert_eq!(other.await, Ok(None));
    assert_eq!(ask().await, met("oldxxx"), "and then there is room again");
}

#[tokio::test]
async fn nobody_waits_for_one_that_has_failed_badly() {
    for acts in [
        [Panic, Append('1'), Append('2')],
        [Append('1'), Panic, Append('2')],
    ] {
        let fake = world(&[]);
        let told = ask(&fake, &acts).await;
        let unknown = Err(ChangeError::Unknown);
        assert_eq!(&told[1..], [unknown.clone(), unknown]);
        let told = ask(&fake, &[Append('3')]).await;
        assert!(told[0].is_ok(), "the line is open again");
    }
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => proptest::char::range('1', '9').prop_map(Append),
        1 => Just(Cycle('!')),
        1 => Just(Afresh('!')),
        2 => Just(Touch),
        1 => Just(Refuse),
        1 => proptest::char::range('c', 'n').prop_map(Cycle),
        1 => Just(Flush),
        1 => proptest::char::range('o', 'z').prop_map(Afresh),
    ]
}

/// A letter is the key of one new row only.
pub(super) fn each_key_once(mut acts: Vec<Act>) -> Vec<Act> {
    let mut used = Vec::new();
    acts.retain(|act| match act {
        Cycle(letter) | Afresh(letter) if used.contains(letter) => false,
        Cycle(letter) | Afresh(letter) => {
            used.push(*letter);
            true
        }
        _ => true,
    });
    acts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever they ask, and whatever becomes of commits: what is stored and what is told is what it would be if
    /// they had come one after the other.
    #[test]
    fn together_they_come_to_what_they_would_one_by_one(
        acts in proptest::collection::vec(act(), 1..12),
        lost in proptest::collection::vec(
            prop_oneof![
                2 => Just(None),
                1 => Just(Some(Lost::Before)),
                1 => Just(Some(Lost::After)),
            ],
            // After three in a row nobody asks the database any more.
            0..3,
        ),
    ) {
        let acts = each_key_once(acts);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fake = world(&[]);
        fake.world().at_commit = lost;
        let told = runtime.block_on(ask(&fake, &acts));
        prop_assert_eq!((told, contents(&fake)), model(&acts));
    }
}
