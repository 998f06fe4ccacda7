//! What an operator installs: the Debian package with its units, the image, the Kubernetes manifests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{from_tests_run, gateway::program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project.
fn file(name: &str) -> PathBuf {
    root().join(name)
}

/// A program of the environment for this.
fn tool(name: &str) -> Command {
    let python = PathBuf::from(from_tests_run("SG_TEST_PACKAGING"));
    let mut command = Command::new(python.with_file_name(name));
    command.current_dir(root());
    command
}

/// Runs it to its end. Panics with what it has printed if it fails.
#[track_caller]
fn passes(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{talk}",
        output.status
    );
    out
}

/// Namespaces take root. Says what is left out otherwise.
fn is_root(what: &str) -> bool {
    let is_root = passes(Command::new("id").arg("-u")).trim() == "0";
    if !is_root {
        eprintln!("left out, as it takes root: {what}");
    }
    is_root
}

#[test]
fn the_shell_scripts_have_no_known_mistakes() {
    let listed = passes(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root()),
    );
    let scripts: Vec<&str> = listed
        .lines()
        .filter(|name| {
            // What is listed may have been removed, and not everything is text.
            let bytes = fs::read(file(name)).unwrap_or_default();
            let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
            first.starts_with(b"#!") && first.ends_with(b"sh")
        })
        .collect();
    for script in ["tests/run", "deploy/debian/test", "deploy/debian/postinst"] {
        assert!(scripts.contains(&script), "{scripts:?}");
    }
    passes(tool("shellcheck").arg("--severity=warning").args(&scripts));
}

#[test]
fn the_dockerfile_has_no_known_mistakes() {
    passes(tool("hadolint").arg("Dockerfile"));
}

#[test]
fn the_steps_of_the_dockerfile_make_an_image_that_runs_confined_and_ends_in_order() {
    if !is_root("the steps of the Dockerfile") {
        return;
    }
    let said = passes(tool("python").args(["tests/packaging/dockerfile.py", "dev"]));
    assert!(said.contains("all steps are right"), "{said}");
}

#[test]
fn the_kubernetes_manifests_are_valid_and_agree_with_each_other() {
    passes(tool("python").arg("tests/packaging/kubernetes.py"));
}

#[test]
fn the_configurations_that_are_installed_pass_the_check() {
    for name in [
        "deploy/debian/gateway.toml",
        "deploy/kubernetes/gateway.toml",
    ] {
        let mut check = program();
        check
            .args(["check", "--strict", "--without-secrets", "--config"])
            .arg(file(name));
        passes(&mut check);
    }
}

#[test]
fn the_debian_package_is_installed_upgraded_and_purged_and_its_service_works_confined() {
    if !is_root("the Debian package") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let built = passes(
        Command::new(file("deploy/debian/build"))
            .arg("--binary")
            .arg(program().get_program())
            .arg("--output")
            .arg(folder.path()),
    );
    let package = built.trim();
    passes(Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning", package]));
    let said = passes(Command::new(file("deploy/debian/test")).arg(package));
    assert!(said.contains("all as it should be"), "{said}");
}
