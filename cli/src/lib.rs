//! The `eventflow` command line: deploy, look, scale, delete. A plain client of the public HTTP API, with no door of its
//! own: whatever it does, `curl` can do. It never prints a token, and never sends one anywhere but to the platform that
//! the token was given for.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

// In the order in which a command meets them.
/// What can be written on the command line.
pub mod args;
/// The URL of a platform.
pub mod url;
/// The file of contexts: platforms and the tokens for them.
pub mod config;
/// What a command works with: where to, as whom, and how to show it.
pub mod session;
/// One call of the API: deadline, retries, answer.
pub mod client;
/// Standard input and files.
pub mod input;
/// What the API tells, read with leniency.
pub mod view;
/// Waiting for a function to be what was asked for.
pub mod settle;
/// One module per command.
pub mod commands;
/// What the API tells, in words for people.
pub mod render;
/// Where words go: tables, JSON, YAML, colour.
pub mod output;
/// Every way a command ends, with its exit code.
pub mod error;

use error::CliError;

/// Parses, works, and says how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // Help and version come this way too.
        Err(error) => {
            // Nowhere left to complain to.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::USAGE));
        }
    };
    let colour = output::style::Style::of(&std::io::stderr(), cli.globals.no_colour());
    match run_to_end(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere left to complain to.
            drop(std::io::stderr().write_all(render::error::text(&error, colour).as_bytes()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_to_end(cli: args::Cli) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Start)?;
    let ended = runtime.block_on(async {
        tokio::select! {
            done = commands::run(cli) => done,
            // Everything that was written is whole: files are replaced at once, calls carry an idempotency key.
            signal = tokio::signal::ctrl_c() => Err(signal.map_or_else(CliError::Start, |()| CliError::Interrupted)),
        }
    });
    // A thread may still wait for somebody to type.
    runtime.shutdown_background();
    ended
}
