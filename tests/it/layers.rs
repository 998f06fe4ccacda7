//! The architecture of docs/design.md: each module imports only from those below it.

use std::{fs, path::Path};

/// From top to bottom. Modules of one row may import each other.
const LAYERS: [&[&str]; 14] = [
    &["main", "lib"],
    &["command"],
    &["server"],
    &["admin"],
    &["gateway"],
    &["gateway/*"],
    &["sample", "sessions"],
    &["upstream", "store"],
    &["assertion", "patch"],
    &["django", "session"],
    &["json", "body"],
    &["telemetry"],
    &["config"],
    &["reserved", "path", "error"],
];

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| panic!("{module} has no layer"))
}

/// The module of a file, as [`LAYERS`] names it.
fn module_of(file: &Path) -> String {
    let mut parts = file
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    match (parts.remove(0), parts.is_empty()) {
        (top, false) if top == "gateway" => "gateway/*".to_owned(),
        (top, _) => top,
    }
}

fn imports(source: &str) -> impl Iterator<Item = String> + '_ {
    // What stands in `use crate::{...}` over several lines is found by its lines' beginnings.
    let flat: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    let mut rest = flat.as_str();
    while let Some(place) = rest.find("crate::") {
        rest = &rest[place + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut item) = (1, String::new());
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => found.push(std::mem::take(&mut item)),
                    letter if depth == 1 => item.push(letter),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            found.push(item);
        } else {
            found.push(rest.to_owned());
        }
    }
    found.into_iter().filter_map(|item| {
        let name: String = item
            .trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        (!name.is_empty()).then_some(name)
    })
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_module_imports_upward() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 30, "the sources were found");
    let mut upward = Vec::new();
    for file in files {
        let module = module_of(file.strip_prefix(&root).unwrap());
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            if LAYERS.iter().any(|row| row.contains(&import.as_str()))
                && layer(&import) < layer(&module)
            {
                upward.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}
