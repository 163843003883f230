//! Logs: to standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogConfig, LogFormat};

/// Starts logging. Only the first call of a process has an effect.
///
/// # Errors
/// If the directives cannot be parsed.
pub fn start(config: &LogConfig) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A logger that is there already, as in tests, stays.
    drop(match config.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    });
    Ok(())
}

/// An error and its causes, in one line. Kube's errors repeat their causes and print them in full; of those only
/// the API server's own sentence is taken.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let boxed = error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
        let (words, last) = match error.downcast_ref::<kube::Error>().or(boxed) {
            Some(kube::Error::Api(status)) => (format!("{} ({})", status.message, status.code), true),
            _ => (error.to_string(), false),
        };
        if !text.contains(&words) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&words);
        }
        next = error.source().filter(|_| !last);
    }
    text
}
