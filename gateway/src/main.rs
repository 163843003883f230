//! Parses, wires, waits and exits; everything else is in the library.

use std::process::ExitCode;

use gateway::config::{Cli, Command, Config};
use gateway::{app, error, store, telemetry};

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Err(error) = telemetry::start(&cli.log) {
        eprintln!("gateway: {error}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome: Result<(), Box<dyn std::error::Error>> = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => Ok(app::run(Config::try_from(*args)?).await?),
            Command::Migrate(args) => Ok(store::migrate(&args.database_url).await?),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("gateway: {}", error::chain(error));
    ExitCode::FAILURE
}
