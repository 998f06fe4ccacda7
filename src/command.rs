//! The command line.

mod check;
mod demo;
mod doctor;
mod explain;
mod key;
mod run;
mod session;
mod shell;
mod text;

use std::{path::Path, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    config::{Config, LoadOptions, Loaded},
    telemetry::{self, Format},
};

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
    /// Look for what is wrong: with the database, the tables, their rows, the keys, the services.
    ///
    /// One line for each thing that was looked at: ok, warn or FAIL, what was found, what to do. The exit code is 1
    /// if something failed. Nothing is written anywhere, and neither keys nor session data are printed.
    ///
    /// Example: session-gateway doctor --config /etc/session-gateway/gateway.toml
    Doctor(doctor::Doctor),
    /// Explain what would become of a request, without calling the service behind.
    ///
    /// Which route serves it and why the others do not, whose session it is, what would be answered, or sent to the
    /// service. Values of the session are left out unless --reveal is given.
    ///
    /// Example: session-gateway explain GET https://shop.example/orders/7 --user 42
    ///
    /// Example: session-gateway explain POST http://shop.example/orders/ --session - < key
    Explain(explain::Explain),
    /// Look at sessions.
    #[command(subcommand)]
    Session(session::Session),
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
    /// Print what completes this command line in a shell.
    ///
    /// Example: session-gateway completions bash > /etc/bash_completion.d/session-gateway
    Completions(shell::Completions),
    /// Print the page for man.
    ///
    /// Example: session-gateway man --folder /usr/local/share/man/man1
    Man(shell::Man),
    /// Print the JSON Schema of the configuration file, for editors.
    ///
    /// Example: session-gateway schema > gateway.schema.json
    Schema,
    /// Write the tables of keys anew in docs/configuration.md.
    #[command(hide = true)]
    Reference {
        /// The Markdown file, with marks where tables stand.
        file: PathBuf,
    },
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
        // What these print is all that they say: nothing of a session may come into a log.
        let is_silent = matches!(
            self.command,
            Command::Doctor(_)
                | Command::Explain(_)
                | Command::Session(_)
                | Command::Completions(_)
                | Command::Man(_)
                | Command::Schema
                | Command::Reference { .. }
        );
        if !is_silent && let Err(sentence) = telemetry::init(self.log, level) {
            return failure(&sentence, 2);
        }
        let code = match self.command {
            Command::Doctor(doctor) => doctor.run(),
            Command::Explain(explain) => explain.run(),
            Command::Session(session) => session.run(),
            Command::Run { config } => run::run(&config),
            Command::Check {
                config,
                strict,
                without_secrets,
            } => check::check(&config, strict, without_secrets),
            Command::Demo { data } => demo::demo(data.as_deref()),
            Command::Key(command) => key::run(&command),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            Command::Schema => shell::schema(),
            Command::Reference { file } => shell::reference(&file),
        };
        telemetry::access::flush();
        telemetry::spans::flush();
        code
    }
}

/// The configuration, or its problems on standard error.
fn load(path: &Path) -> Result<Loaded, ExitCode> {
    let environment = |name: &str| std::env::var_os(name);
    Config::load(path, &environment, LoadOptions::default()).map_err(|problems| {
        for problem in problems {
            eprintln!("{problem}");
        }
        ExitCode::FAILURE
    })
}

/// One sentence on standard error and an exit code.
fn failure(sentence: &str, code: u8) -> ExitCode {
    eprintln!("session-gateway: {sentence}");
    ExitCode::from(code)
}
