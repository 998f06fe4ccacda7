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

/// The text of a file of this repository.
fn checked_in(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_reference_has_every_key_as_the_program_reads_it() {
    let text = checked_in("docs/configuration.md");
    let written = reference(&text).unwrap_or_else(|why| panic!("{why}"));
    let is_current = text == written;
    assert!(
        is_current,
        "docs/configuration.md is out of date, write its tables anew: cargo run -- reference docs/configuration.md"
    );
    let marks: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("<!-- keys: ")?.strip_suffix(" -->"))
        .flat_map(|names| names.split(", "))
        .collect();
    for section in keys::every() {
        let name = match section.name {
            "" => "the top",
            name => name,
        };
        assert!(marks.contains(&name), "{name} has no table");
    }
}

#[test]
fn the_reference_has_every_field_of_the_access_log() {
    let text = checked_in("docs/configuration.md");
    let (_, fields) = text.split_once("### Its fields").expect("the fields");
    let (fields, _) = fields.split_once("\n## ").expect("the next section");
    let documented: Vec<&str> = fields
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    let fields = keys::LOG.key("fields").expect("a key").kind.items().words();
    for field in fields {
        assert!(documented.contains(field), "{field}");
    }
    assert_eq!(documented.len(), fields.len());
}

#[test]
fn the_checked_in_schema_is_the_one_of_the_program() {
    let is_current = checked_in("docs/gateway.schema.json") == format!("{:#}\n", schema());
    assert!(
        is_current,
        "docs/gateway.schema.json is out of date: cargo run -- schema > docs/gateway.schema.json"
    );
}
