//! Arguments to command to exit code.

use std::process::ExitCode;

use clap::Parser;
use session_gateway::command::Arguments;

fn main() -> ExitCode {
    Arguments::parse().run()
}
