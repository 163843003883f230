//! Logs: one line per request and one per event, as JSON or as text, on standard output. Never holds a token, a
//! password or a body; what may be logged is decided where it is logged.

use tracing_subscriber::EnvFilter;

use crate::config::{LogArgs, LogFormat};

/// Starts logging. Called once, first of all.
///
/// # Errors
/// When the filter cannot be read; the text says why.
pub fn start(args: &LogArgs) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log_level).map_err(|error| format!("--log-level: {error}"))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_target(true);
    let started = match args.log_format {
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        LogFormat::Text => logs.with_ansi(false).try_init(),
    };
    started.map_err(|error| error.to_string())
}
