//! What the documentation says of itself: its links lead somewhere, the tests that it names are there, and its
//! configurations are right.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::support::gateway::{ended, program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of the project, by its path below the root.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "node_modules"].contains(&&*name) {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root()).unwrap().to_owned(), text);
            }
        }
    }
    assert!(found.len() > 8, "{:?}", found.keys());
    found
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// The blocks of code in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => {
                if let Some((true, block)) = open.take() {
                    blocks.push(block);
                }
            }
            (Some(info), None) => open = Some((info.trim() == language, String::new())),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The anchors of a document, as they are made from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// What stands between `](` and `)`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text).replace('\n', " ");
    let parts = prose.split("](").skip(1);
    parts
        .filter_map(|part| Some(part.split_once(')')?.0.trim().to_owned()))
        .collect()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let documents = documents();
    let mut broken = Vec::new();
    for (path, text) in &documents {
        for link in links(text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => root().join(path),
                _ => root().join(path).parent().unwrap().join(file),
            };
            let leads = match std::fs::read_to_string(&target) {
                Ok(text) => anchor.is_empty() || anchors(&text).contains(anchor),
                Err(_) => target.is_dir() && anchor.is_empty() || target.is_file(),
            };
            if !leads {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The names of all tests, in Rust, Python, JavaScript and Go.
fn sources() -> String {
    let mut all = String::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "clients", "examples"]
        .map(|folder| root().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "node_modules" {
                    folders.push(path);
                }
            } else if [".rs", ".py", ".js", ".mjs", ".go"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let sources = sources();
    let mut missing = Vec::new();
    for (path, text) in documents() {
        // A changelog tells of what was.
        if path.ends_with("CHANGELOG.md") {
            continue;
        }
        for name in prose(&text).split('`').skip(1).step_by(2) {
            let is_test = name.len() > 20
                && name.matches('_').count() >= 4
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            // Names of metrics and of settings are other things.
            let is_other = ["session_gateway_", "sg_", "async_"]
                .iter()
                .any(|start| name.starts_with(start));
            if is_test && !is_other && !sources.contains(name) {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_whole_configuration_in_the_documentation_is_right() {
    let mut checked = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "toml") {
            if !block.contains("[gateway]") || !block.contains("[django]") {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("gateway.toml");
            std::fs::write(&file, &block).unwrap();
            let mut check = program();
            let output = ended(
                check
                    .args(["check", "--without-secrets", "--config"])
                    .arg(&file),
            );
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success(),
                "{}:\n{block}\n{said}",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 0);
}
