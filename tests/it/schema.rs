//! The schema for editors and the configurations that are there: of the repository, of the documentation and, by
//! [`Setup::start`](crate::support::gateway::Setup::start), of all tests.

use std::path::{Path, PathBuf};

use crate::support::schema::{problem, problem_of};

/// Files of the project with a name that `is_wanted` wants.
fn files(is_wanted: impl Fn(&str) -> bool) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_ours = !name.starts_with('.') && name != "target" && name != "node_modules";
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if is_wanted(&name) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn the_checked_in_configurations_are_valid_by_the_schema() {
    let files = files(|name| name == "gateway.toml");
    assert!(!files.is_empty());
    // One with gaps is a template.
    for (path, text) in files.into_iter().filter(|(_, text)| !text.contains("{{")) {
        assert_eq!(problem(&text), None, "{}", path.display());
    }
    let sample =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml"));
    let first = sample.unwrap().lines().next().unwrap().to_owned();
    assert_eq!(first, "#:schema ./docs/gateway.schema.json");
}

#[test]
fn the_configurations_of_the_documentation_are_valid_by_the_schema() {
    let whole: toml::Table = toml::from_str(
        "[gateway]
        issuer = 'shop'
        [django]
        database = 'sqlite:db.sqlite3'
        secret_key = { env = 'SECRET_KEY' }
        [[route]]
        path = '/'
        redirect = 'https://shop.example'",
    )
    .unwrap();
    let mut tried = 0;
    for (path, text) in files(|name| name.ends_with(".md")) {
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            // Files of other programs are TOML too.
            let Ok(part) = toml::from_str::<toml::Table>(block) else {
                panic!("{}: not TOML:\n{block}", path.display());
            };
            let is_ours = part.keys().any(|key| {
                ["gateway", "django", "upstream", "route", "error_pages"].contains(&key.as_str())
            });
            if !is_ours {
                continue;
            }
            let mut file = whole.clone();
            for (key, value) in part {
                match (file.get_mut(&key), value) {
                    (Some(toml::Value::Table(there)), toml::Value::Table(more)) => {
                        there.extend(more);
                    }
                    (_, value) => drop(file.insert(key, value)),
                }
            }
            assert_eq!(problem_of(&file), None, "{}:\n{block}", path.display());
            tried += 1;
        }
    }
    assert!(tried >= 3, "{tried}");
}

/// What editors mark in a file that is being written.
#[test]
fn the_schema_finds_slips_in_the_checked_in_configuration() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml");
    let good = std::fs::read_to_string(path).unwrap();
    for (old, new, told) in [
        ("writable =", "writeable =", "writeable"),
        ("drain_delay = \"5s\"", "drain_delay = \"5\"", "drain_delay"),
        (
            "drain_delay = \"5s\"",
            "drain_delay = \"25h\"",
            "drain_delay",
        ),
        ("\"32KiB\"", "\"32KB\"", "request_head"),
        ("require = \"login\"", "require = \"loign\"", "require"),
        ("in_flight = 4096", "in_flight = 0", "in_flight"),
        ("secure = true", "secure = \"true\"", "secure"),
        ("{ env = \"DATABASE_URL\" }", "{ env = 1 }", "database"),
        ("issuer = ", "# issuer = ", "issuer"),
        ("upstream = \"orders\"", "", "route"),
    ] {
        assert!(good.contains(old), "{old}");
        let said = problem(&good.replacen(old, new, 1)).unwrap_or_default();
        assert!(said.contains(told), "{new}: {said}");
    }
}
