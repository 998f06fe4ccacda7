//! Addresses of a database that cannot be used are refused with one sentence, which does not hold them.

use std::{path::Path, process::Output};

use crate::support::{
    Upstream,
    gateway::{Setup, ended},
};

#[test]
fn an_address_that_would_tell_its_password_is_refused_with_one_sentence() {
    let app = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    for address in [
        "postgres://app@127.0.0.1:1/site?sslpassword=planted",
        "postgres://app@127.0.0.1:1/site?passfile=planted&sslmode=disable",
        "postgres://app@127.0.0.1:1/site?planted",
        "postgres://app:planted#word@127.0.0.1:1/site",
        "postgres://app:#planted@127.0.0.1:1/site",
        "postgres://app:planted@word@127.0.0.1:1/site",
        "postgres://app:word@planted@127.0.0.1:1/site",
        "postgres://app:word?planted@127.0.0.1:1/site",
        "postgresql://planted:planted@planted#planted",
    ] {
        let setup = setup(address, &app);
        let file = setup.write(folder.path());
        for command in ["check", "run"] {
            let output = ended(setup.command(command).arg("--config").arg(&file));
            let (problems, talk) = printed(&output);
            let what = format!("{command} {address}: {problems}{talk}");
            assert_eq!(output.status.code(), Some(1), "{what}");
            let found = if command == "check" {
                problems
            } else {
                talk.clone()
            };
            assert_eq!(found.lines().count(), 1, "{what}");
            assert!(found.contains("a PostgreSQL address"), "{what}");
            assert!(!format!("{found}{talk}").contains("planted"), "{what}");
        }
    }
    // The same, spelt as it must be.
    let setup = setup(
        "postgres://app:pla%23nt%40ed@127.0.0.1:1/site?sslmode=disable",
        &app,
    );
    let file = setup.write(folder.path());
    let output = ended(setup.command("check").arg("--config").arg(file));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_sqlite_path_that_is_no_database_is_refused_with_one_sentence() {
    let app = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "This is not a database. ".repeat(1000)).unwrap();
    let short = folder.path().join("short");
    std::fs::write(&short, "planted").unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let missing = folder.path().join("missing");
    for path in [
        folder.path(),
        &text,
        &short,
        &empty,
        &missing,
        Path::new("/dev/null"),
    ] {
        let output = setup(&format!("sqlite:{}", path.display()), &app).fails();
        let (out, talk) = printed(&output);
        let what = format!("{}: {out}{talk}", path.display());
        assert_eq!(output.status.code(), Some(1), "{what}");
        // Beside the log.
        let said = |line: &&str| line.starts_with("session-gateway: ");
        let sentences: Vec<_> = talk.lines().filter(said).collect();
        let last = talk.lines().next_back().unwrap();
        assert_eq!((out.as_str(), sentences), ("", vec![last]), "{what}");
        assert!(last.contains("the session database said no: "), "{what}");
        assert!(!talk.contains("planted"), "{what}");
    }
    assert!(!missing.exists(), "no empty file is made");
}

fn setup(database: &str, app: &Upstream) -> Setup {
    Setup::new(database)
        .upstream("app", app)
        .route("path = '/'\nupstream = 'app'")
}

/// Standard output and standard error.
fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}
