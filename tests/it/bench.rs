//! What `bench/run` makes of its measurements.

use std::{path::Path, process::Command};

#[test]
fn what_is_measured_is_judged_and_shown_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3")
        .arg("bench/test_report.py")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
