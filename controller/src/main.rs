//! The controller's program: flags, logs, connection, run.

use std::process::ExitCode;

use clap::Parser;
use controller::config::Config;
use controller::telemetry::{self, chain};

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(error) = telemetry::start(&config.log) {
        eprintln!("--log: {error}");
        return ExitCode::FAILURE;
    }
    let client = match kube::Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(error = chain(&error), "There is no way to the cluster");
            return ExitCode::FAILURE;
        }
    };
    match controller::run::run(config, client, controller::run::asked_to_end()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "The controller ends");
            ExitCode::FAILURE
        }
    }
}
