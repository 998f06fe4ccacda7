//! The kept inputs of the fuzz targets, run again without libFuzzer (fuzz/README.md).

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

#[path = "../../fuzz/src/lib.rs"]
mod properties;

/// As much as a repository can bear.
const MOST_BYTES: u64 = 1024 * 1024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a folder, sorted; none where there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Every input that is kept for a target.
fn kept(target: &str) -> Vec<PathBuf> {
    let of = |kind: &str| files(&folder().join(kind).join(target));
    [of("corpus"), of("regressions")].concat()
}

#[test]
fn what_must_hold_for_every_input_holds_for_the_kept_ones() {
    let mut failed = Vec::new();
    for (target, check) in properties::TARGETS {
        let inputs = kept(target);
        assert!(inputs.len() > 10, "{target} has a corpus");
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            if panic::catch_unwind(|| check(&bytes)).is_err() {
                failed.push(input);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_target_is_a_wrapper_of_a_listed_check_and_has_its_inputs() {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    for (target, _) in properties::TARGETS {
        let wrapper = folder().join(format!("fuzz_targets/{target}.rs"));
        let wrapper = fs::read_to_string(wrapper).unwrap();
        assert!(wrapper.contains(&format!("session_gateway_fuzz::{target}::check(input)")));
        assert!(manifest.contains(&format!(
            "name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\""
        )));
    }
    let wrappers = files(&folder().join("fuzz_targets"));
    assert_eq!(wrappers.len(), properties::TARGETS.len());
    assert_eq!(
        manifest.matches("[[bin]]").count(),
        properties::TARGETS.len()
    );
}

#[test]
fn the_kept_inputs_stay_small() {
    let all = properties::TARGETS
        .iter()
        .flat_map(|(target, _)| kept(target));
    let sizes = all.map(|input| fs::metadata(input).unwrap().len());
    let bytes: u64 = sizes.sum();
    assert!(bytes < MOST_BYTES, "{bytes} bytes");
}
