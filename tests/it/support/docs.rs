//! What the documentation says to write, so that the tests run it as it stands there.

/// The blocks of code under a heading of a page in `docs/`: their languages and texts. What stands under the smaller
/// headings below it is not among them.
pub fn blocks(page: &str, heading: &str) -> Vec<(String, String)> {
    let path = format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut found = Vec::new();
    let mut is_there = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if is_there {
                found.push((language.to_owned(), code.join("\n") + "\n"));
            }
        } else if line.starts_with('#') {
            is_there = line.trim_start_matches('#').trim() == heading;
        }
    }
    assert!(!found.is_empty(), "{path} has no code under {heading:?}");
    found
}

/// The only block in this language there.
pub fn block(page: &str, heading: &str, language: &str) -> String {
    let mut found = blocks(page, heading);
    found.retain(|(of, _)| of == language);
    assert_eq!(found.len(), 1, "{language} under {heading:?} of {page}");
    found.remove(0).1
}

/// The text with another word in the place of one that must be there.
pub fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in:\n{text}");
    text.replace(from, to)
}
