//! The schema for editors, and a validator that tells what an editor would.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{LazyLock, Mutex},
};

use super::from_tests_run;

/// One for all tests: it has read the schema once. It ends with them, when its input does.
static VALIDATOR: LazyLock<Mutex<Validator>> = LazyLock::new(|| Mutex::new(Validator::start()));

struct Validator {
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Validator {
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let schema = std::fs::read_to_string(root.join("docs/gateway.schema.json")).unwrap();
        let mut child = Command::new(from_tests_run("SG_TEST_CLIENTS"))
            .arg(root.join("tests/clients/validate.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{}", schema.replace('\n', "")).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            _process: child,
            input,
            output,
        }
    }

    fn ask(&mut self, instance: &serde_json::Value) -> Option<String> {
        writeln!(self.input, "{instance}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// What an editor would say of a configuration: `None` where nothing is wrong.
pub fn problem(text: &str) -> Option<String> {
    problem_of(&toml::from_str(text).unwrap())
}

/// The same of one that has been parsed.
pub fn problem_of(configuration: &toml::Table) -> Option<String> {
    let instance = serde_json::to_value(configuration).unwrap();
    VALIDATOR.lock().unwrap().ask(&instance)
}
