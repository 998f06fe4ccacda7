//! The table of keys says what the program does: each key is tried, in a whole file, with values that the table allows
//! and with values that it does not; and the schema says the same.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use toml::{Table, Value};

use super::super::keys::{Key, Kind, Otherwise, Section};
use super::{
    samples::{bad, good, least},
    *,
};

/// A file in which any key can be tried.
const BASE: &str = r#"
[gateway]
issuer = "https://shop.example"
signing = { kid = "g1", private_key = { env = "SIGNING_KEY" } }
[health]
address = "127.0.0.1:8081"
[django]
database = { env = "DATABASE_URL" }
secret_key = { env = "SECRET_KEY" }
cookie = { secure = true }
[upstream.orders]
servers = ["127.0.0.1:3001"]
keys = [{ kid = "k1", secret = { env = "ORDERS_KEY" } }]
django = true
[[route]]
host = "shop.example"
path = "/x/"
upstream = "orders"
[[route]]
path = "/"
upstream = "orders"
"#;

/// Where the tables of a section stand in a file, one of them.
fn way(section: &Section) -> Vec<&'static str> {
    match section.name {
        "" => vec![],
        "[[listener]]" => vec!["listener", "0"],
        "tls of [[listener]]" => vec!["listener", "0", "tls", "0"],
        "[health]" => vec!["health"],
        "[admin]" => vec!["admin"],
        "[gateway]" => vec!["gateway"],
        "signing of [gateway]" => vec!["gateway", "signing"],
        "published of [gateway]" => vec!["gateway", "published", "0"],
        "[limits]" => vec!["limits"],
        "[timeouts]" => vec!["timeouts"],
        "[log]" => vec!["log"],
        "[django]" => vec!["django"],
        "[django.user]" => vec!["django", "user"],
        "[django.cookie]" => vec!["django", "cookie"],
        "[upstream.X]" => vec!["upstream", "orders"],
        "keys of [upstream.X]" => vec!["upstream", "orders", "keys", "0"],
        "tls of [upstream.X]" => vec!["upstream", "orders", "tls"],
        "health of [upstream.X]" => vec!["upstream", "orders", "health"],
        "timeouts of [upstream.X]" => vec!["upstream", "orders", "timeouts"],
        "[[route]]" => vec!["route", "0"],
        "rate of [[route]]" => vec!["route", "0", "rate", "0"],
        "limits of [[route]]" => vec!["route", "0", "limits"],
        "a secret" => vec!["django", "secret_key"],
        name => panic!("where does {name} stand?"),
    }
}

/// The table at this place; what is not there on the way is made.
fn at<'a>(file: &'a mut Value, section: &Section, way: &[&str]) -> &'a mut Table {
    let Some((step, rest)) = way.split_first() else {
        return file.as_table_mut().expect("a table");
    };
    let next = match file {
        Value::Array(items) => {
            if items.is_empty() {
                items.push(least(section));
            }
            &mut items[0]
        }
        Value::Table(table) => table.entry(*step).or_insert_with(|| match rest.first() {
            Some(&"0") => Value::Array(Vec::new()),
            _ if rest.is_empty() => least(section),
            _ => panic!("{step} is missing"),
        }),
        other => panic!("{other}"),
    };
    at(next, section, rest)
}

/// The base with this section in it.
fn file_with(section: &Section) -> Value {
    let mut file: Value = Value::Table(toml::from_str(BASE).expect("TOML"));
    if section.name == "tls of [[listener]]" {
        let listener = toml::toml! { address = "127.0.0.1:8080" };
        let listeners = vec![Value::Table(listener)];
        file.as_table_mut()
            .expect("a table")
            .insert("listener".to_owned(), listeners.into());
    }
    at(&mut file, section, &way(section));
    file
}

/// Writes a value, and what it cannot be without.
fn set(file: &mut Value, section: &Section, key: &str, value: Value) {
    let many = value.as_array().map(Vec::len);
    let table = at(file, section, &way(section));
    let mut put = |key: &str, value: Value| table.insert(key.to_owned(), value);
    match (section.name, key) {
        ("[gateway]", "trusted_fields") => drop(put("trusted_proxies", vec!["unix"].into())),
        ("[upstream.X]", "weights") => {
            let servers = (1..=many.unwrap_or(1)).map(|port| format!("127.0.0.1:{port}").into());
            put("servers", Value::Array(servers.collect()));
        }
        ("[upstream.X]", "algorithm") if value.as_str() == Some("EdDSA") => {
            table.remove("keys");
        }
        ("[upstream.X]", "keys") => {
            for route in file["route"].as_array_mut().expect("routes") {
                let route = route.as_table_mut().expect("a table");
                route.insert("session".to_owned(), "off".into());
            }
        }
        ("tls of [upstream.X]", "certificate") => drop(put("key", "key.pem".into())),
        ("tls of [upstream.X]", "key") => drop(put("certificate", "cert.pem".into())),
        ("[[route]]", "redirect") => drop(table.remove("upstream")),
        ("[[route]]", "groups") => drop(put("require", "login".into())),
        ("[[route]]", "strip_prefix") => drop(put("path", "/orders/x/".into())),
        ("a secret", _) => table.clear(),
        _ => {}
    }
    let table = at(file, section, &way(section));
    table.insert(key.to_owned(), value);
}

fn load(file: &Value) -> Result<Config, Vec<String>> {
    let text = toml::to_string(file).expect("TOML");
    let options = LoadOptions {
        without_secrets: true,
    };
    let loaded = Config::parse(&text, Path::new("gateway.toml"), &|_| None, options);
    let loaded = loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect());
    loaded.map(|loaded| loaded.config)
}

fn every_key() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    keys::every().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

/// Whether a table is tried as a section of its own.
fn is_section(key: &Key) -> bool {
    matches!(key.kind, Kind::Table(_) | Kind::Tables(..) | Kind::Named(_))
}

/// Every key with every value to try: what to call it, the file, and whether it is right.
fn tries() -> Vec<(String, Value, bool)> {
    let mut tries = Vec::new();
    for (section, key) in every_key() {
        let right = good(&key.kind).into_iter().map(|value| (value, true));
        let wrong = bad(&key.kind).into_iter().map(|value| (value, false));
        // A section that must be there stands in the base, with all that belongs to it.
        let keep_base = section.name.is_empty() && is_section(key);
        for (value, is_right) in right.filter(|_| !keep_base).chain(wrong) {
            let mut file = file_with(section);
            let name = format!("{} {} = {value}", section.name, key.name);
            set(&mut file, section, key.name, value);
            tries.push((name, file, is_right));
        }
    }
    for section in keys::every() {
        let mut file = file_with(section);
        at(&mut file, section, &way(section)).insert("no_such_key".to_owned(), 1.into());
        tries.push((format!("{} no_such_key", section.name), file, false));
        let required = |key: &&Key| matches!(key.otherwise, Otherwise::Required(_));
        for key in section.keys.iter().filter(required) {
            let mut file = file_with(section);
            at(&mut file, section, &way(section)).remove(key.name);
            tries.push((
                format!("{} without {}", section.name, key.name),
                file,
                false,
            ));
        }
    }
    tries
}

#[test]
fn each_key_takes_what_its_table_says_and_nothing_else() {
    assert!(load(&Value::Table(toml::from_str(BASE).expect("TOML"))).is_ok());
    let mut wrong = Vec::new();
    for (name, file, is_right) in tries() {
        let problems = load(&file).err();
        // One limit may be too small or too large for another one; alone it is none the worse.
        let is_other = |problem: &String| problem.contains("refuses to read back");
        let is_taken = problems.iter().flatten().all(is_other);
        if is_taken != is_right {
            wrong.push(format!("{name}: {problems:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is in force with this file, as text, without where it stood in the file.
fn in_force(file: &Value) -> String {
    let mut config = load(file).unwrap_or_else(|problems| panic!("{problems:#?}"));
    config.digest.clear();
    for route in &mut config.routes {
        (route.line, route.recheck.is_explicit) = (0, false);
    }
    format!("{config:#?}")
}

#[test]
fn a_default_is_the_same_as_its_value_written_out() {
    let mut tried = 0;
    for (section, key) in every_key() {
        let Otherwise::Is(default) = key.otherwise else {
            continue;
        };
        let value: Table = toml::from_str(&format!("x = {default}")).expect("TOML");
        let mut file = file_with(section);
        set(&mut file, section, key.name, value["x"].clone());
        let written = in_force(&file);
        at(&mut file, section, &way(section)).remove(key.name);
        assert_eq!(in_force(&file), written, "{} {}", section.name, key.name);
        tried += 1;
    }
    assert!(tried > 70, "{tried}");
}

/// So that a default which the program does not look at would be seen.
#[test]
fn another_value_than_the_default_makes_a_difference() {
    for (section, key) in every_key().filter(|(_, key)| !is_section(key)) {
        let mut file = file_with(section);
        if section.name != "a secret" && !matches!(key.otherwise, Otherwise::Required(_)) {
            at(&mut file, section, &way(section)).remove(key.name);
        }
        let without = load(&file).map_or_else(|why| format!("{why:?}"), |_| in_force(&file));
        let differs = good(&key.kind).into_iter().any(|value| {
            let mut file = file.clone();
            set(&mut file, section, key.name, value);
            load(&file).is_ok() && in_force(&file) != without
        });
        // Secrets are not looked at here, and what holds keys shows none of them.
        let is_silent = ["a secret", "tls of [[listener]]", "tls of [upstream.X]"];
        let is_secret = matches!(key.kind, Kind::Secret(_))
            || key.name == "secret_key_fallbacks"
            || is_silent.contains(&section.name);
        assert!(differs || is_secret, "{} {}", section.name, key.name);
    }
}

#[test]
fn the_sections_are_those_that_the_file_is_made_of() {
    fn walk(section: &'static Section, found: &mut Vec<&'static str>) {
        found.push(section.name);
        for key in section.keys {
            if is_section(key) {
                walk(key.kind.section(), found);
            }
        }
    }
    let mut found = vec!["a secret"];
    walk(&keys::TOP, &mut found);
    let mut listed: Vec<&str> = keys::every().map(|section| section.name).collect();
    for names in [&mut found, &mut listed] {
        names.sort_unstable();
        names.dedup();
    }
    assert_eq!(found, listed);
}

/// What a validator of JSON Schema says of each of these: `None` where it is valid.
fn validated(instances: impl Iterator<Item = serde_json::Value>) -> Vec<Option<String>> {
    let python = std::env::var("SG_TEST_CLIENTS").expect(
        "SG_TEST_CLIENTS is not set: this test needs a validator of JSON Schema, run it with `tests/run`",
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/validate.py");
    let mut validator = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the validator");
    let lines: Vec<String> = [schema()]
        .into_iter()
        .chain(instances)
        .map(|line| format!("{line}\n"))
        .collect();
    let mut input = validator.stdin.take().expect("its input");
    let writer = std::thread::spawn(move || input.write_all(lines.concat().as_bytes()));
    let output = validator.wait_with_output().expect("its output");
    assert!(output.status.success());
    writer.join().expect("written").expect("written");
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    let told = told.lines().map(serde_json::from_str);
    told.map(|line| line.expect("JSON")).collect()
}

/// Its patterns are made of pieces, so that not only the ends count.
#[test]
fn the_schema_takes_just_the_numbers_between_the_ends() {
    let mut tries = Vec::new();
    let mut random = 1_u64;
    for (section, key, unit, from, to) in [
        ("timeouts", "head", "ms", 1, 86_400_000),
        ("timeouts", "head", "m", 1, 1440),
        ("limits", "request_head", "B", 8192, 1_048_576),
        ("limits", "session_json", "KiB", 1, 65_536),
        ("limits", "session_json", "B", 1024, 67_108_864),
    ] {
        let nearby = [1, 10, 100, 1000, 10_000, 100_000, from, to].into_iter();
        let nearby = nearby.flat_map(|number: u64| number.saturating_sub(3)..number + 3);
        let somewhere = (0..400).map(|_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 16) % (to + to / 8)
        });
        for number in nearby.chain(somewhere) {
            let mut file: Value = Value::Table(toml::from_str(BASE).expect("TOML"));
            let text = format!("{section} = {{ {key} = '{number}{unit}' }}");
            let more: Table = toml::from_str(&text).expect("TOML");
            file.as_table_mut().expect("a table").extend(more);
            tries.push((text, file, (from..=to).contains(&number)));
        }
    }
    let instances = tries
        .iter()
        .map(|(_, file, _)| serde_json::to_value(file).expect("JSON"));
    for ((text, _, is_right), told) in tries.iter().zip(validated(instances)) {
        assert_eq!(told.is_none(), *is_right, "{text}: {told:?}");
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses_of_a_value() {
    let tries = tries();
    let instances = tries
        .iter()
        .map(|(_, file, _)| serde_json::to_value(file).expect("JSON"));
    let told = validated(instances);
    assert_eq!(told.len(), tries.len());
    let wrong: Vec<String> = tries
        .iter()
        .zip(told)
        .filter(|((_, _, is_right), told)| told.is_none() != *is_right)
        .map(|((name, _, _), told)| format!("{name}: {told:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
