//! Values that a key may have, and values that it may not, made from what the table of keys says of it.

use toml::{Table, Value};

use super::super::{
    keys::{Kind, Map, Section},
    value::{spell_duration, spell_size},
};
use super::*;

/// What no key takes for a word, a number with a unit, or a name with rules.
const NO_WORD: &str = "no such word!";

/// Values that are right, of any kind, all ends of ranges and all words among them.
pub(super) fn good(kind: &'static Kind) -> Vec<Value> {
    match kind {
        Kind::Flag => vec![true.into(), false.into()],
        Kind::False => vec![false.into()],
        Kind::Count(range) => vec![count(*range.start()), count(*range.end())],
        Kind::Duration(range) | Kind::Seconds(range) => {
            let [from, to] = [range.start(), range.end()];
            let millis = |end: &Duration| format!("00{}ms", end.as_millis());
            let ends = [spell_duration(*from), spell_duration(*to)];
            let ends = ends.into_iter().chain([millis(from), millis(to)]);
            ends.map(Value::from).collect()
        }
        Kind::Size(range) => {
            let [from, to] = [*range.start(), *range.end()];
            let ends = [
                spell_size(from),
                spell_size(to),
                format!("{from}B"),
                format!("{to}B"),
            ];
            ends.map(Value::from).to_vec()
        }
        Kind::Choice(words) => words.iter().map(|word| text(word)).collect(),
        Kind::Text(form) if form.good.is_empty() => vec!["LICENSE-MIT".into()],
        Kind::Text(form) => form.good.iter().map(|one| text(one)).collect(),
        Kind::Secret(_) => vec![
            table("{ env = 'OTHER_KEY' }"),
            table("{ file = 'LICENSE-MIT' }"),
        ],
        Kind::List(list) => {
            let items = good(&list.of);
            let mut lists: Vec<Value> = match list.least {
                0 | 1 => items.iter().map(|item| vec![item.clone()].into()).collect(),
                _ => Vec::new(),
            };
            let all = items.into_iter().take(list.most.unwrap_or(usize::MAX));
            lists.push(Value::Array(all.collect()));
            lists.extend((list.least == 0).then(|| Value::Array(Vec::new())));
            lists
        }
        Kind::Or(kinds) => kinds.iter().flat_map(good).collect(),
        Kind::Table(section) => vec![least(section)],
        Kind::Tables(section, least_many) => {
            let empty = (*least_many == 0).then(|| Value::Array(Vec::new()));
            empty
                .into_iter()
                .chain([vec![least(section)].into()])
                .collect()
        }
        Kind::Named(_) => Vec::new(),
        Kind::Map(map) => {
            let names = map.names.good.iter();
            let of_names = names.map(|name| entry(name, good(&map.values).swap_remove(0)));
            let first = map.names.good[0];
            let of_values = good(&map.values)
                .into_iter()
                .map(|value| entry(first, value));
            of_names.chain(of_values).collect()
        }
    }
}

/// Values that are wrong: of another type, just out of a range, no such word, another form.
pub(super) fn bad(kind: &'static Kind) -> Vec<Value> {
    let millisecond = Duration::from_millis(1);
    match kind {
        Kind::Flag => vec!["true".into(), 1.into(), 0.5.into()],
        Kind::False => vec![true.into(), 0.into()],
        Kind::Count(range) => {
            let [below, above] = [count(*range.start()), count(*range.end())];
            let [below, above] = [below, above].map(|end| end.as_integer().expect("a number"));
            vec![
                (below - 1).into(),
                (above + 1).into(),
                "5".into(),
                5.5.into(),
                true.into(),
            ]
        }
        Kind::Duration(range) | Kind::Seconds(range) => {
            let below = range.start().checked_sub(millisecond);
            let ends = below.into_iter().chain([*range.end() + millisecond]);
            let mut wrong: Vec<Value> = ends.map(|end| spell_duration(end).into()).collect();
            wrong.extend(["5", "5 s", "5S", "1.5s", "-5s", "s", "5min", "", NO_WORD].map(text));
            if matches!(kind, Kind::Seconds(_)) {
                wrong.push("60500ms".into());
            }
            wrong.extend([5.into(), true.into()]);
            wrong
        }
        Kind::Size(range) => {
            let below = range.start().checked_sub(1);
            let ends = below.into_iter().chain([*range.end() + 1]);
            let mut wrong: Vec<Value> = ends.map(|end| spell_size(end).into()).collect();
            wrong.extend(
                [
                    "4096", "4 KiB", "4kib", "4KB", "0.5MiB", "-4KiB", "", NO_WORD,
                ]
                .map(text),
            );
            wrong.extend([4096.into(), true.into()]);
            wrong
        }
        Kind::Choice(words) => {
            let first = words[0].to_uppercase();
            let mut wrong = vec![text(NO_WORD), "".into(), 1.into(), true.into()];
            wrong.extend((!words.contains(&first.as_str())).then(|| text(&first)));
            wrong
        }
        Kind::Text(form) => {
            let wrong = form.bad.iter().map(|one| text(one));
            wrong
                .chain([1.into(), true.into(), Value::Array(Vec::new())])
                .collect()
        }
        Kind::Secret(_) => {
            let both = "{ env = 'OTHER_KEY', file = 'LICENSE-MIT' }";
            let wrong = ["{}", both, "{ evn = 'OTHER_KEY' }", "{ env = 1 }"].map(table);
            let mut wrong = wrong.to_vec();
            wrong.extend(["hunter2".into(), 1.into()]);
            wrong
        }
        Kind::List(list) => {
            let items = good(&list.of);
            let mut wrong: Vec<Value> = bad(&list.of)
                .into_iter()
                .map(|item| {
                    let mut whole: Vec<Value> =
                        items.iter().take(list.least.max(1) - 1).cloned().collect();
                    whole.push(item);
                    whole.into()
                })
                .collect();
            wrong.extend([1.into(), true.into()]);
            wrong.extend((list.least > 0).then(|| Value::Array(Vec::new())));
            if list.unique {
                wrong.push(vec![items[0].clone(), items[0].clone()].into());
            }
            if let Some(most) = list.most {
                let many = items.iter().cycle().take(most + 1).cloned();
                wrong.push(Value::Array(many.collect()));
            }
            // An item without its list.
            wrong.push(items[0].clone());
            wrong
        }
        Kind::Or(kinds) => {
            let right = good(kind);
            let wrong = kinds.iter().flat_map(bad);
            wrong.filter(|value| !right.contains(value)).collect()
        }
        Kind::Table(section) => {
            let mut misspelt = least(section);
            insert(&mut misspelt, "no_such_key", 1.into());
            vec![misspelt, "text".into(), 1.into(), true.into()]
        }
        Kind::Tables(section, least_many) => {
            let mut misspelt = least(section);
            insert(&mut misspelt, "no_such_key", 1.into());
            let mut wrong: Vec<Value> = vec![vec![misspelt].into(), least(section), 1.into()];
            wrong.extend((*least_many > 0).then(|| Value::Array(Vec::new())));
            wrong
        }
        Kind::Named(_) => vec![1.into(), "text".into(), vec![Value::from(1)].into()],
        Kind::Map(Map { names, values, .. }) => {
            let of_names = names.bad.iter();
            let of_names = of_names.map(|name| entry(name, good(values).swap_remove(0)));
            let of_values = bad(values).into_iter();
            let of_values = of_values.map(|value| entry(names.good[0], value));
            of_names
                .chain(of_values)
                .chain(["text".into(), 1.into()])
                .collect()
        }
    }
}

/// The least that a table of this section has in it.
pub(super) fn least(section: &Section) -> Value {
    table(match section.name {
        "[[listener]]" => "{ address = '127.0.0.1:8080' }",
        "tls of [[listener]]" => "{ certificate = 'cert.pem', key = 'key.pem' }",
        "[gateway]" => "{ issuer = 'https://shop.example' }",
        "[django]" => {
            "{ database = { env = 'DATABASE_URL' }, secret_key = { env = 'SECRET_KEY' } }"
        }
        "keys of [upstream.X]" => "{ kid = 'k1', secret = { env = 'ORDERS_KEY' } }",
        "health of [upstream.X]" => "{ path = '/healthz' }",
        "signing of [gateway]" => "{ kid = 'g1', private_key = { env = 'SIGNING_KEY' } }",
        "published of [gateway]" => {
            "{ kid = 'g0', public_key = 'Ln67-A8TOKZ6-NmsY9jbFGICMYS6KO1iuzRzNtnrVLw' }"
        }
        "rate of [[route]]" => "{ by = 'address', requests = 5, every = '1s' }",
        "[[route]]" => "{ path = '/', upstream = 'orders' }",
        "a secret" => "{ env = 'SECRET_KEY' }",
        _ => "{}",
    })
}

fn count(number: usize) -> Value {
    i64::try_from(number).expect("a small number").into()
}

fn text(text: &str) -> Value {
    text.into()
}

fn table(inline: &str) -> Value {
    let mut parsed: Table = toml::from_str(&format!("x = {inline}")).expect("TOML");
    parsed.remove("x").expect("a value")
}

fn entry(name: &str, value: Value) -> Value {
    Value::Table([(name.to_owned(), value)].into_iter().collect())
}

fn insert(table: &mut Value, key: &str, value: Value) {
    let table = table.as_table_mut().expect("a table");
    table.insert(key.to_owned(), value);
}
