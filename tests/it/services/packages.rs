//! Each package's own tests, in its own language: among them the tokens of `tests/vectors/contract.json`.

use std::process::Command;

use crate::support::from_tests_run;

#[test]
fn the_python_package_passes_its_own_tests() {
    let python = from_tests_run("SG_TEST_UPSTREAMS_PYTHON");
    passes(
        "",
        &python,
        &["-m", "unittest", "discover", "-s", "clients/python/tests"],
    );
}

#[test]
fn the_node_package_passes_its_own_tests() {
    let folder = from_tests_run("SG_TEST_UPSTREAMS_NODE");
    passes(&folder, "npm", &["run", "--silent", "check"]);
}

#[test]
fn the_go_package_passes_its_own_tests() {
    passes("clients/go", "go", &["vet", "./..."]);
    passes("clients/go", "go", &["test", "./..."]);
}

/// Runs a command in a folder of the project; it must end well.
fn passes(folder: &str, program: &str, arguments: &[&str]) {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(std::path::Path::new(root).join(folder))
        .env("PYTHONPATH", format!("{root}/clients/python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SG_VECTORS", format!("{root}/tests/vectors/contract.json"));
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?} in {folder}:\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
