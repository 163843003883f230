//! `eventflow`: see the library half.

use std::process::ExitCode;

fn main() -> ExitCode {
    eventflow_cli::run(std::env::args_os())
}
