//! What other programs want to know of this one: shells, man, editors.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, failure};
use crate::config;

/// `completions`
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For which shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> ExitCode {
        let mut command = shown();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "session-gateway", &mut script);
        if self.shell == Shell::Bash {
            // Where a program's name has a hyphen, clap_complete looks for its commands under another name than it
            // gives them (clap-rs/clap, issue 6421), and nothing behind a command is completed.
            let script_text = String::from_utf8_lossy(&script);
            script = script_text
                .replace("session__subcmd__gateway", "session__gateway")
                .into_bytes();
        }
        print(&script)
    }
}

/// The command line without what is hidden in it, which scripts of shells would offer.
fn shown() -> Command {
    let all = Arguments::command();
    let shown = all.get_subcommands().filter(|below| !below.is_hide_set());
    Command::new("session-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(all.get_arguments())
        .subcommands(shown)
}

/// `man`
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write the page of each command into this folder.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> ExitCode {
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        match &self.folder {
            None => match page(&command) {
                Ok(page) => print(&page),
                Err(error) => failure(&format!("the page cannot be written: {error}"), 1),
            },
            Some(folder) => {
                match std::fs::create_dir_all(folder).and_then(|()| write_pages(&command, folder)) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => failure(&format!("{}: {error}", folder.display()), 1),
                }
            }
        }
    }
}

/// The page of a command and of all below it.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    let below = command.get_subcommands();
    for command in below.filter(|command| !command.is_hide_set()) {
        write_pages(command, folder)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    std::fs::write(folder.join(format!("{name}.1")), page(command)?)
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .source(concat!("session-gateway ", env!("CARGO_PKG_VERSION")))
        .manual("session-gateway")
        .render(&mut page)?;
    Ok(page)
}

/// `schema`
pub(super) fn schema() -> ExitCode {
    print(format!("{:#}\n", config::schema()).as_bytes())
}

/// `reference`
pub(super) fn reference(file: &Path) -> ExitCode {
    let written = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let written = written.and_then(|text| config::reference(&text));
    let written = written.and_then(|text| {
        let written = std::fs::write(file, text);
        written.map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failure(&format!("{}: {why}", file.display()), 1),
    }
}

/// All of it on standard output. Who stops reading has had enough.
fn print(bytes: &[u8]) -> ExitCode {
    let mut output = io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            failure(&format!("standard output: {error}"), 1)
        }
        _ => ExitCode::SUCCESS,
    }
}
