//! What the model does not show: memory, sweeping, answers that overtake each other, and threads.

use std::sync::Barrier;

use chrono::TimeDelta;

use super::*;

const BOUND: Duration = Duration::from_secs(1);

fn key(number: usize) -> SessionKey {
    SessionKey::parse(format!("{number:032}").as_bytes()).unwrap()
}

fn moment(milliseconds: u64) -> Moment {
    Moment::new(Duration::from_millis(milliseconds))
}

fn row(data: &str) -> SessionRow {
    SessionRow {
        data: RowData::Text(data.into()),
        expire_date: chrono::DateTime::UNIX_EPOCH + TimeDelta::days(40_000),
    }
}

fn found(data: &str, milliseconds: u64) -> Answer<SessionRow> {
    Answer {
        value: Some(row(data)),
        sent: Some(moment(milliseconds)),
    }
}

fn gone(milliseconds: u64) -> Answer<SessionRow> {
    Answer {
        value: None,
        sent: Some(moment(milliseconds)),
    }
}

fn shelf() -> Shelf<SessionKey, SessionRow> {
    Shelf::new(SESSION_BYTES)
}

impl Shelf<SessionKey, SessionRow> {
    fn put(&self, key: SessionKey, answer: &Answer<SessionRow>) {
        let reading = self.begin(&key);
        self.end(key, reading, answer);
    }

    fn holds(&self, key: SessionKey) -> Option<SessionRow> {
        self.cache.peek(&key).map(|entry| entry.value.clone())
    }
}

#[test]
fn an_answer_that_was_overtaken_changes_nothing() {
    let shelf = shelf();
    let slow = shelf.begin(&key(1));
    shelf.put(key(1), &found("new", 20));
    shelf.end(key(1), slow, &found("old", 10));
    assert_eq!(shelf.holds(key(1)), Some(row("new")));
    // Nor does one that found nothing, and was sent before.
    shelf.put(key(1), &gone(15));
    assert_eq!(shelf.holds(key(1)), Some(row("new")));
}

#[test]
fn what_has_gone_is_removed_and_does_not_come_back() {
    let shelf = shelf();
    shelf.put(key(1), &found("old", 10));
    let slow = shelf.begin(&key(1));
    shelf.put(key(1), &gone(20));
    assert_eq!(shelf.holds(key(1)), None);
    shelf.end(key(1), slow, &found("old", 15));
    assert_eq!(shelf.holds(key(1)), None);
    // What is not there is not remembered.
    shelf.put(key(2), &gone(30));
    assert_eq!(shelf.cache.len(), 0);
}

#[test]
fn an_answer_without_a_moment_is_not_kept() {
    let shelf = shelf();
    let answer = Answer {
        sent: None,
        ..found("row", 0)
    };
    shelf.put(key(1), &answer);
    assert_eq!(shelf.holds(key(1)), None);
}

#[test]
fn what_is_too_old_is_swept_away() {
    let shelf = shelf();
    shelf.put(key(1), &found("old", 10));
    shelf.put(key(2), &found("young", 11));
    shelf.sweep(moment(1011), BOUND);
    assert_eq!(shelf.holds(key(1)), None);
    assert_eq!(shelf.holds(key(2)), Some(row("young")));
}

#[test]
fn memory_is_bounded_however_many_sessions_there_are() {
    let shelf = shelf();
    let large = "x".repeat(100 * 1024);
    for number in 0..1500 {
        shelf.put(key(number), &found(&large, 10));
    }
    let weight = shelf.cache.weight();
    assert!(weight <= SESSION_BYTES, "{weight}");
    let entries = shelf.cache.len();
    assert!(entries > 100, "{entries}");
    let each = weight / u64::try_from(entries).unwrap();
    assert!((100 * 1024..101 * 1024).contains(&each), "{each}");
}

/// Whatever the threads do: a reading that began before a change has ended is not there after both.
#[test]
fn a_reading_never_outlives_a_change() {
    const ROUNDS: usize = 2000;
    let shelf = shelf();
    let (begun, ended) = (Barrier::new(2), Barrier::new(2));
    let mut left = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                let reading = shelf.begin(&key(round));
                begun.wait();
                shelf.end(key(round), reading, &found("old", 10));
                ended.wait();
            }
        });
        for round in 0..ROUNDS {
            begun.wait();
            shelf.forget(&key(round));
            ended.wait();
            left += usize::from(shelf.holds(key(round)).is_some());
        }
    });
    assert_eq!(left, 0);
}
