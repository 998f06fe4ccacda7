//! What is read beside the text: secrets, their files, and the files of this repository.

use super::*;

#[test]
fn without_secrets_nothing_is_looked_up() {
    let options = LoadOptions {
        without_secrets: true,
    };
    let none = |_: &str| -> Option<OsString> { panic!("looked up") };
    let text = edited("{ env = \"SECRET_KEY\" }", "{ file = \"no/such/file\" }");
    assert!(Config::parse(&text, Path::new("gateway.toml"), &none, options).is_ok());
    let same = edited("ORDERS_KEY", "SECRET_KEY");
    let problems =
        Config::parse(&same, Path::new("gateway.toml"), &none, options).expect_err("the same name");
    assert!(
        problems[0].sentence.contains("this is Django's SECRET_KEY"),
        "{problems:?}"
    );
}

#[test]
fn files_are_relative_to_the_configuration_and_lose_one_newline() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let text = edited("{ env = \"SECRET_KEY\" }", "{ file = \"secrets/key\" }")
        .replace("{ env = \"DATABASE_URL\" }", "\"sqlite:db.sqlite3\"");
    fs::write(&path, text).expect("written");
    fs::create_dir(folder.path().join("secrets")).expect("created");
    let key = folder.path().join("secrets/key");
    for (written, read) in [
        ("k\n", "k"),
        ("k\n\n", "k\n"),
        ("k\r\n", "k"),
        (" k ", " k "),
    ] {
        fs::write(&key, written).expect("written");
        set_mode(&key, 0o600);
        let config = Config::load(&path, &env, LoadOptions::default())
            .expect("a good file")
            .config;
        assert_eq!(config.django.secret_key.expose(), read.as_bytes());
        assert!(
            matches!(&config.django.database, Database::Sqlite(db) if *db == folder.path().join("db.sqlite3"))
        );
    }
}

#[cfg(unix)]
#[test]
fn a_secret_that_others_may_write_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    fs::write(
        &path,
        edited("{ env = \"SECRET_KEY\" }", "{ file = \"key\" }"),
    )
    .expect("written");
    let key = folder.path().join("key");
    fs::write(&key, "secret").expect("written");
    for (mode, problems, remarks) in [
        (0o600, 0, 0),
        (0o640, 0, 0),
        (0o644, 0, 1),
        (0o444, 0, 1),
        (0o660, 1, 0),
        (0o602, 1, 0),
    ] {
        set_mode(&key, mode);
        match Config::load(&path, &env, LoadOptions::default()) {
            Ok(loaded) => {
                let told = loaded
                    .remarks
                    .iter()
                    .filter(|remark| remark.sentence.contains("others may read"));
                assert_eq!((0, told.count()), (problems, remarks), "{mode:o}");
            }
            Err(found) => {
                assert_eq!(found.len(), problems, "{mode:o}");
                assert!(found[0].sentence.contains("others may write"), "{found:?}");
            }
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_in_one_sentence() {
    let load =
        |path: &Path| Config::load(path, &env, LoadOptions::default()).expect_err("unreadable");
    let missing = load(Path::new("no/such/gateway.toml"));
    assert_eq!(
        missing[0].to_string(),
        "no/such/gateway.toml: cannot be read: No such file or directory (os error 2)"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    fs::write(&path, b"\xff\xfe").expect("written");
    assert_eq!(load(&path)[0].sentence, "is not UTF-8");
}

#[test]
fn the_checked_in_file_is_good() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml");
    let options = LoadOptions {
        without_secrets: true,
    };
    let loaded =
        Config::load(&path, &|_| None, options).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert!(loaded.config.routes.len() >= 2);
}

#[test]
fn every_key_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(path).expect("docs/configuration.md");
    let section = |heading: &str| {
        let found = text
            .split("\n## ")
            .find(|section| section.lines().next() == Some(heading));
        let found = found.unwrap_or_else(|| panic!("{heading} is missing"));
        // What stands under a heading of its own lists no keys.
        found.split("\n### ").next().unwrap_or_default()
    };
    let documented = |heading: &str| -> Vec<&str> {
        let rows = section(heading)
            .lines()
            .filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split('`').next()).collect()
    };
    assert_eq!(documented("The top of the file"), keys::TOP.keys[..4]);
    for of in keys::ALL
        .into_iter()
        .filter(|section| section.name.starts_with('['))
    {
        let own: &[&str] = match of.name {
            "[upstream.X]" => &[
                "kid",
                "secret",
                "ca",
                "certificate",
                "key",
                "name",
                "path",
                "host",
                "every",
                "timeout",
                "fall",
                "rise",
                "status",
            ],
            "[gateway]" => &["kid", "private_key", "public_key"],
            _ => &[],
        };
        assert_eq!(
            documented(&format!("`{}`", of.name)),
            [of.keys, own].concat()
        );
    }
}
