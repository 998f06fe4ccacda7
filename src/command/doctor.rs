//! `doctor`: looks for what is wrong, and says what to do.

mod database;
mod rows;
mod surroundings;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    failure,
    run::block_on,
    text::{count, print},
};
use crate::config::{Config, LoadOptions};

/// The arguments of `doctor`.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// The configuration file.
    #[arg(long, default_value = "gateway.toml", value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object a line, with the members level, check, found and todo.
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    check: &'static str,
    /// What was found: a clause.
    found: String,
    /// What to do: a sentence; empty where there is nothing.
    todo: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            check,
            found: found.into(),
            todo: String::new(),
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            todo: todo.into(),
            ..Self::ok(check, found)
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, found, todo)
        }
    }

    fn line(&self, json: bool) -> String {
        let Self {
            level,
            check,
            found,
            todo,
        } = self;
        let level = level.as_str();
        if json {
            let object =
                serde_json::json!({"level": level, "check": check, "found": found, "todo": todo});
            return object.to_string();
        }
        let mut line = format!("{level:<4} {check:<14} {found}");
        if !todo.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(line, ". {todo}");
        }
        // A database's own words may have several lines.
        line.replace(|letter: char| letter.is_control(), " ")
    }
}

impl Doctor {
    /// Carries it out.
    pub(super) fn run(self) -> ExitCode {
        let mut findings = Vec::new();
        if let Some(config) = configuration(&self.config, &mut findings) {
            let examined = block_on(async {
                examine(&config, &mut findings).await;
                Ok(())
            });
            if let Err(sentence) = examined {
                return failure(&sentence, 1);
            }
        }
        let mut text = String::new();
        for finding in &findings {
            text.push_str(&finding.line(self.json));
            text.push('\n');
        }
        let worst = findings.iter().map(|finding| finding.level).max();
        let code = match worst {
            Some(Level::Fail) => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        };
        let code = print(&text, code);
        let of = |level| findings.iter().filter(|f| f.level == level).count();
        eprintln!(
            "{}: {} failed, {}",
            self.config.display(),
            of(Level::Fail),
            count(of(Level::Warn), "warning")
        );
        code
    }
}

/// Reads the file; `None` where that is the end.
fn configuration(file: &Path, findings: &mut Vec<Finding>) -> Option<Config> {
    let environment = |name: &str| std::env::var_os(name);
    match Config::load(file, &environment, LoadOptions::default()) {
        Ok(loaded) => {
            let routes = count(loaded.config.routes.len(), "route");
            let upstreams = count(loaded.config.upstreams.len(), "upstream");
            let found = format!("{}: {routes}, {upstreams}", file.display());
            findings.push(Finding::ok("configuration", found));
            for remark in &loaded.remarks {
                findings.push(Finding::warn("configuration", remark.to_string(), ""));
            }
            Some(loaded.config)
        }
        Err(problems) => {
            for problem in problems {
                findings.push(Finding::fail("configuration", problem.to_string(), ""));
            }
            None
        }
    }
}

async fn examine(config: &Config, findings: &mut Vec<Finding>) {
    findings.push(surroundings::keys(config));
    database::examine(config, findings).await;
    surroundings::upstreams(config, findings).await;
    surroundings::listeners(config, findings).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let found = "the server says:\nno\x1b[2J";
        let finding = Finding::fail("database", found, "Do this.");
        assert_eq!(
            finding.line(false),
            "FAIL database       the server says: no [2J. Do this."
        );
        let object: serde_json::Value = serde_json::from_str(&finding.line(true)).unwrap();
        assert_eq!(
            (&object["level"], &object["found"]),
            (&"FAIL".into(), &found.into())
        );
        assert_eq!(finding.line(true).lines().count(), 1);
    }
}
