//! The command line.

mod check;
mod demo;
mod key;
mod run;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::telemetry::{self, Format};

/// A reverse proxy that gives services beside a Django site the visitor's Django session.
///
/// It resolves the Django session cookie, hands the session to the service in a signed X-Session header, and
/// writes what the service answers in X-Session-Set back into Django's session table.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines on standard error are written.
    #[arg(long, global = true, value_enum, default_value_t)]
    log: Format,
    /// What is logged: a level, or a filter such as info,access=off.
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    ///
    /// Example: session-gateway run --config /etc/session-gateway/gateway.toml
    Run {
        /// The configuration file.
        #[arg(long, default_value = "gateway.toml", value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file without starting anything.
    ///
    /// Every problem is printed with its line, and the exit code is 1 if there is one.
    ///
    /// Example: session-gateway check --config gateway.toml --strict
    Check {
        /// The configuration file.
        #[arg(long, default_value = "gateway.toml", value_name = "FILE")]
        config: PathBuf,
        /// Fail on remarks too.
        #[arg(long)]
        strict: bool,
        /// Do not look for the secrets: for a check on a machine that does not have them.
        #[arg(long)]
        without_secrets: bool,
    },
    /// Try it: an embedded database, a service and the gateway in one process.
    ///
    /// Prints the address to open. Everything is on this machine's loopback, and gone afterwards.
    ///
    /// Example: session-gateway demo --data ./demo
    Demo {
        /// Keep the database and a gateway.toml that runs in this folder.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Make keys.
    #[command(subcommand)]
    Key(key::Command),
}

impl Arguments {
    /// Carries out the command.
    pub fn run(self) -> ExitCode {
        // A demo's talk is its own; the log has only what is wrong.
        let quiet = matches!(self.command, Command::Demo { .. }) && self.log_level == "info";
        let level = if quiet {
            "warn"
        } else {
            self.log_level.as_str()
        };
        if let Err(sentence) = telemetry::init(self.log, level) {
            return failure(&sentence, 2);
        }
        match self.command {
            Command::Run { config } => run::run(&config),
            Command::Check {
                config,
                strict,
                without_secrets,
            } => check::check(&config, strict, without_secrets),
            Command::Demo { data } => demo::demo(data.as_deref()),
            Command::Key(command) => key::run(&command),
        }
    }
}

/// One sentence on standard error and an exit code.
fn failure(sentence: &str, code: u8) -> ExitCode {
    eprintln!("session-gateway: {sentence}");
    ExitCode::from(code)
}
