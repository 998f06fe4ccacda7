//! Arguments to command to exit code.

use std::process::ExitCode;

use clap::Parser;
use session_gateway::command::Arguments;

/// A request allocates some fifty small pieces; glibc's allocator costs a tenth of its CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Arguments::parse().run()
}
