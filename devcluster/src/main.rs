//! Starts and stops a real Kubernetes on this machine: see `devcluster --help`.

use std::{error::Error, process::ExitCode};

use clap::Parser;

fn main() -> ExitCode {
    match devcluster::cli::Cli::parse().execute() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprint!("devcluster: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::from(125)
        }
    }
}
