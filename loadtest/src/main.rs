//! Starts a platform and answers one question about it.

use anyhow::Result;
use clap::Parser;
use eventflow_e2e::platform::Platform;
use eventflow_loadtest::cli::Cli;

fn main() -> Result<()> {
    let question = Cli::parse().question;
    // Before the runtime: starting blocks.
    let platform = Platform::start();
    eprintln!("logs: {}", platform.logs.display());
    tokio::runtime::Runtime::new()?.block_on(question.answer(platform))
}
