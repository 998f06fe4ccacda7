//! A recorded history, and what must hold of it:
//!
//! * What was acknowledged is in every later answer, unless a save of Django's explains its absence: one that
//!   wrote the session after the change, from a copy that it had loaded before it. Nothing a gateway does
//!   explains anything.
//! * What was refused is in no answer.
//! * A session that ended is nobody's from the acknowledgement on, and its row does not come back.
//! * A session that nobody has begun to end is never nobody's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use serde::Deserialize;
use serde_json::Value;

/// Counters in a session.
pub type Numbers = BTreeMap<String, u64>;

/// What one request was told.
#[derive(Debug)]
pub struct Event {
    /// The session, under whatever key.
    pub line: u64,
    /// The key that the request bore.
    pub key: String,
    pub start: f64,
    pub end: f64,
    pub told: Told,
}

#[derive(Debug)]
pub enum Told {
    /// These were the contents.
    Read { known: bool, numbers: Numbers },
    /// The counter has this value now.
    Stored(String, u64),
    /// The counter was not set to this value.
    Refused(String, u64),
    /// The session is not under this key any more.
    Ended,
    /// It may be, or not.
    MayHaveEnded,
}

/// One save of Django's.
#[derive(Debug, Deserialize)]
pub struct Save {
    key: Option<String>,
    start: f64,
    end: f64,
    loaded: Numbers,
    ok: bool,
}

pub struct History {
    pub events: Vec<Event>,
    pub saves: Vec<Save>,
    /// The keys in the table at the end.
    pub rows: Vec<String>,
}

/// How much was checked.
#[derive(Debug, Default)]
pub struct Counts {
    pub patches: usize,
    pub reads: usize,
    pub saves: usize,
    pub ended: usize,
    /// Changes that Django's saves have overwritten.
    pub explained: usize,
}

/// The counters among the members of a session.
pub fn numbers(session: &Value) -> Numbers {
    let members = session.as_object().into_iter().flatten();
    members
        .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
        .collect()
}

/// What Django's engine of the test has written down.
pub fn saves(log: &Path) -> Vec<Save> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A change that was acknowledged.
struct Stored<'a> {
    number: u64,
    start: f64,
    end: f64,
    counter: &'a str,
}

impl History {
    /// Panics with the first thing that must not be.
    pub fn check(&self) -> Counts {
        let mut counts = Counts {
            saves: self.saves.len(),
            ..Counts::default()
        };
        let mut lines: HashMap<u64, Vec<&Event>> = HashMap::new();
        for event in &self.events {
            lines.entry(event.line).or_default().push(event);
        }
        for events in lines.values() {
            self.check_line(events, &mut counts);
        }
        counts
    }

    fn check_line(&self, events: &[&Event], counts: &mut Counts) {
        let keys: BTreeSet<&str> = events.iter().map(|event| event.key.as_str()).collect();
        let of_line =
            |save: &&Save| save.ok && save.key.as_deref().is_some_and(|key| keys.contains(key));
        let saves: Vec<&Save> = self.saves.iter().filter(of_line).collect();
        let mut stored: BTreeMap<&str, Vec<Stored<'_>>> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        let mut ended: HashMap<&str, f64> = HashMap::new();
        let mut ending: HashMap<&str, f64> = HashMap::new();
        for event in events {
            match &event.told {
                Told::Stored(counter, number) => {
                    counts.patches += 1;
                    stored.entry(counter).or_default().push(Stored {
                        number: *number,
                        start: event.start,
                        end: event.end,
                        counter,
                    });
                }
                Told::Refused(counter, number) => {
                    refused.insert((counter.as_str(), *number));
                }
                Told::Ended => {
                    counts.ended += 1;
                    let at = ended.entry(&event.key).or_insert(f64::INFINITY);
                    *at = at.min(event.end);
                }
                Told::Read { .. } | Told::MayHaveEnded => {}
            }
            if matches!(event.told, Told::Ended | Told::MayHaveEnded) {
                let at = ending.entry(&event.key).or_insert(f64::INFINITY);
                *at = at.min(event.start);
            }
        }
        // One worker counts up, one request after the other, so the latest is the largest.
        for changes in stored.values_mut() {
            changes.sort_by(|a, b| a.end.total_cmp(&b.end));
        }
        for (key, at) in &ended {
            assert!(
                !self.rows.iter().any(|row| row == key),
                "resurrected: ended at {at}"
            );
        }
        for read in events {
            let Told::Read { known, numbers } = &read.told else {
                continue;
            };
            counts.reads += 1;
            let has_ended = ended
                .get(read.key.as_str())
                .is_some_and(|at| *at < read.start);
            assert!(
                !(has_ended && *known),
                "answered from an ended session: {read:?}"
            );
            let may_have_ended = ending
                .get(read.key.as_str())
                .is_some_and(|at| *at <= read.end);
            assert!(
                *known || may_have_ended,
                "a live session was nobody's: {read:?}"
            );
            if !known {
                continue;
            }
            for (counter, number) in numbers {
                assert!(
                    !refused.contains(&(counter.as_str(), *number)),
                    "{counter} = {number} was refused and is there: {read:?}"
                );
            }
            for changes in stored.values() {
                let before = changes.partition_point(|change| change.end < read.start);
                let Some(latest) = changes[..before].last() else {
                    continue;
                };
                let found = numbers.get(latest.counter).copied().unwrap_or_default();
                if found >= latest.number {
                    continue;
                }
                let explains = |save: &&&Save| {
                    let had = save.loaded.get(latest.counter).copied().unwrap_or_default();
                    save.end >= latest.start && save.start <= read.end && had < latest.number
                };
                assert!(
                    saves.iter().any(|save| explains(&save)),
                    "{} = {} was stored between {} and {}, and {found} is found: {read:?}",
                    latest.counter,
                    latest.number,
                    latest.start,
                    latest.end
                );
                counts.explained += 1;
            }
        }
    }
}
