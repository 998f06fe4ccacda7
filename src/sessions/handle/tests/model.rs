//! Handles of the same rows against dicts: whatever they do between each other's saves, a save writes what its
//! handle changed and nothing else, and no row comes back.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

type Dict = BTreeMap<String, i64>;

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, i64),
    Remove(usize),
    Clear,
    SetExpiry,
    Save,
    Reload,
    Cycle,
    Flush,
    /// A new handle with the key of the other.
    Join,
    /// Django deletes the row.
    Delete,
}

/// What a handle should be.
#[derive(Clone, Debug, Default)]
struct Model {
    key: Option<String>,
    read: Dict,
    edits: BTreeMap<String, Option<i64>>,
}

impl Model {
    fn edit(&mut self, name: &str, value: Option<i64>) {
        if self.read.get(name).copied() == value {
            self.edits.remove(name);
        } else {
            self.edits.insert(name.to_owned(), value);
        }
    }

    fn view(&self) -> Dict {
        let mut view = self.read.clone();
        self.apply(&mut view);
        view
    }

    fn apply(&self, dict: &mut Dict) {
        for (name, value) in &self.edits {
            match value {
                Some(value) => drop(dict.insert(name.clone(), *value)),
                None => drop(dict.remove(name)),
            }
        }
    }

    fn stored(&mut self, key: &str, row: &Dict) {
        *self = Self {
            key: Some(key.to_owned()),
            read: row.clone(),
            edits: BTreeMap::new(),
        };
    }
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        6 => (0..4_usize, 0..3_i64).prop_map(|(name, value)| Step::Insert(name, value)),
        3 => (0..4_usize).prop_map(Step::Remove),
        1 => Just(Step::Clear),
        1 => Just(Step::SetExpiry),
        6 => Just(Step::Save),
        2 => Just(Step::Reload),
        1 => Just(Step::Cycle),
        1 => Just(Step::Flush),
        3 => Just(Step::Join),
        1 => Just(Step::Delete),
    ];
    prop::collection::vec((0..2_usize, step), 1..40)
}

const NAMES: [&str; 4] = ["a", "caf\u{e9}", "\"", "b"];

const EXPIRY: &str = "_session_expiry";

async fn play(steps: Vec<(usize, Step)>) {
    let (site, sessions) = site().await;
    let mut rows: BTreeMap<String, Dict> = BTreeMap::new();
    let mut ever: HashSet<String> = HashSet::new();
    let mut handles = [loaded(&sessions, None).await, loaded(&sessions, None).await];
    let mut models = [Model::default(), Model::default()];
    for (who, step) in steps {
        let (handle, model) = (&mut handles[who], &mut models[who]);
        match step {
            Step::Insert(name, value) => {
                handle.insert(NAMES[name], value).unwrap();
                model.edit(NAMES[name], Some(value));
            }
            Step::Remove(name) => {
                let was_there = handle.remove(NAMES[name]).unwrap();
                assert_eq!(was_there, model.view().contains_key(NAMES[name]));
                model.edit(NAMES[name], None);
            }
            Step::Clear => {
                handle.clear().unwrap();
                model.edits = model.read.keys().map(|name| (name.clone(), None)).collect();
            }
            Step::SetExpiry => {
                handle.set_expiry(Some(1000)).unwrap();
                model.edit(EXPIRY, Some(1000));
            }
            Step::Save | Step::Cycle => {
                let cycle = matches!(step, Step::Cycle);
                let saved = match cycle {
                    true => handle.cycle_key().await.map(|()| true),
                    false => handle.save().await,
                };
                let begins = model
                    .edits
                    .iter()
                    .any(|(name, value)| value.is_some() && name != EXPIRY);
                match model.key.clone() {
                    // Nothing to do, and nothing to say.
                    _ if !cycle && model.edits.is_empty() => assert_eq!(saved, Ok(false)),
                    Some(key) => match rows.remove(&key) {
                        None => assert_eq!(saved, Err(Error::SessionGone)),
                        Some(before) => {
                            let mut row = before.clone();
                            model.apply(&mut row);
                            assert_eq!(saved, Ok(cycle || row != before));
                            let new = handle.key().unwrap();
                            assert_eq!(new != key, cycle);
                            assert!(!cycle || ever.insert(new.to_owned()), "a used key");
                            model.stored(new, &row);
                            rows.insert(new.to_owned(), row);
                        }
                    },
                    None if begins => {
                        assert_eq!(saved, Ok(true));
                        let new = handle.key().unwrap();
                        assert!(ever.insert(new.to_owned()), "a used key");
                        let row = model.view();
                        model.stored(new, &row);
                        rows.insert(new.to_owned(), row);
                    }
                    None => assert_eq!(saved, Ok(cycle)),
                }
            }
            Step::Reload => {
                handle.reload().await.unwrap();
                let row = model
                    .key
                    .take()
                    .and_then(|key| Some((rows.get(&key)?, key)));
                match row {
                    Some((row, key)) => model.stored(&key, row),
                    None => *model = Model::default(),
                }
            }
            Step::Flush => {
                handle.flush().await.unwrap();
                if let Some(key) = &model.key {
                    rows.remove(key);
                }
                *model = Model::default();
            }
            Step::Join => {
                let key = models[1 - who].key.clone();
                handles[who] = loaded(&sessions, key.as_deref()).await;
                models[who] = Model::default();
                if let Some((key, row)) = key.and_then(|key| rows.get_key_value(&key)) {
                    models[who].stored(key, row);
                }
            }
            Step::Delete => {
                if let Some(key) = &model.key {
                    rows.remove(key);
                    let delete = format!("DELETE FROM django_session WHERE session_key = '{key}'");
                    site.execute(delete).await.unwrap();
                }
            }
        }
        for (handle, model) in handles.iter().zip(&models) {
            assert_eq!(dict(handle), model.view());
            assert_eq!(handle.len(), Ok(model.view().len()));
            assert_eq!(handle.key(), model.key.as_deref());
            assert_eq!(handle.modified(), !model.edits.is_empty());
        }
    }
    for key in ever {
        let session = loaded(&sessions, Some(&key)).await;
        assert_eq!(session.key().is_some(), rows.contains_key(&key));
        assert_eq!(dict(&session), rows.remove(&key).unwrap_or_default());
    }
    assert!(rows.is_empty());
}

fn dict(session: &Session) -> Dict {
    let members = session.iter().unwrap();
    members
        .map(|(name, raw)| (name.into_owned(), raw.parse().unwrap()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn two_handles_of_a_row_lose_nothing_and_bring_nothing_back(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
