//! The commands that say what is wrong and what would happen: `doctor`, `explain`, `session show`. They write
//! nothing, and tell nothing that is secret.

mod doctor;
mod explain;
mod session_show;
mod surroundings;

use std::{fs::File, io::Write as _, process::Command};

use crate::support::{
    Database, Engine, SECRET_KEY, from_tests_run,
    gateway::{Setup, program},
    rows, token,
};

/// All databases.
const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::MariaDb];

/// What a command has printed.
#[derive(Debug)]
struct Printed {
    code: Option<i32>,
    out: String,
    talk: String,
}

impl Printed {
    /// Asserts that a line has all these words, and gives it.
    #[track_caller]
    fn has(&self, words: &[&str]) -> &str {
        let found = self
            .out
            .lines()
            .find(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("no line has {words:?}:\n{}\n{}", self.out, self.talk))
    }

    #[track_caller]
    fn has_no(&self, word: &str) -> &Self {
        assert!(
            !self.out.contains(word) && !self.talk.contains(word),
            "{word:?} is in:\n{}\n{}",
            self.out,
            self.talk
        );
        self
    }

    #[track_caller]
    fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.talk);
        self
    }
}

/// Runs a command with this configuration, and this on standard input.
fn run(setup: &Setup, command: &[&str], input: &str) -> Printed {
    let folder = tempfile::tempdir().unwrap();
    let stdin = folder.path().join("stdin");
    File::create(&stdin)
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let mut process = setup.command(command[0]);
    process
        .args(&command[1..])
        .arg("--config")
        .arg(setup.write(folder.path()))
        .stdin(File::open(stdin).unwrap());
    printed(&mut process)
}

fn printed(process: &mut Command) -> Printed {
    let output = process.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Printed {
        code: output.status.code(),
        out: text(&output.stdout),
        talk: text(&output.stderr),
    }
}

/// Asserts that nothing which the tests plant is printed.
#[track_caller]
fn tells_no_secret(printed: &Printed, database: &Database) {
    let mut secrets = vec![
        SECRET_KEY.to_owned(),
        token::secret("app"),
        rows::PASSWORD.to_owned(),
        "planted".to_owned(),
        // The beginning of every token.
        "eyJhbGciOi".to_owned(),
    ];
    if database.engine() == Engine::Postgres {
        secrets.push(from_tests_run("SG_TEST_PG_PASSWORD"));
    }
    for secret in secrets {
        printed.has_no(&secret);
    }
}

#[test]
fn each_command_has_an_example_in_its_help() {
    for command in [
        &["doctor"][..],
        &["explain"],
        &["session", "show"],
        &["check"],
        &["run"],
    ] {
        let help = printed(program().args(command).arg("--help"));
        help.ends(0);
        let example = format!("session-gateway {}", command.join(" "));
        assert!(
            help.out.contains("Example") && help.out.contains(&example),
            "{command:?}: {}",
            help.out
        );
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_by_each_command() {
    for command in [
        &["doctor"][..],
        &["explain", "GET", "http://shop.test/"],
        &["session", "show", "x"],
    ] {
        let failed = printed(
            program()
                .args(command)
                .args(["--config", "/nowhere/gateway.toml"]),
        );
        failed.ends(1);
        let text = format!("{}{}", failed.out, failed.talk);
        assert!(
            text.contains("/nowhere/gateway.toml"),
            "{command:?}: {text}"
        );
    }
}
