//! Every way a command ends, and the exit code of each. No other module picks an exit code.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::{CallError, Problem};
use crate::config::ConfigError;

/// Something else failed.
pub const OTHER: u8 = 1;
/// A flag, a file or a field is at fault.
pub const USAGE: u8 = 2;
/// Not signed in, or not allowed.
pub const AUTH: u8 = 3;
/// There is no such thing.
pub const NOT_FOUND: u8 = 4;
/// Refused by quota, policy, limit or suspension.
pub const REFUSED: u8 = 5;
/// It exists already, or was changed meanwhile.
pub const CONFLICT: u8 = 6;
/// The function, or what was tested, failed.
pub const FAILED: u8 = 7;
/// Still queued or on its way.
pub const NOT_IN_TIME: u8 = 8;
/// The platform failed or cannot be reached.
pub const PLATFORM: u8 = 9;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The contexts cannot be had.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The platform did not answer as hoped.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The platform will not run it as it is.
    #[error("{name} is refused ({reason}): {message}")]
    Refused {
        /// The function.
        name: String,
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
    /// It does not run.
    #[error("{name} failed ({reason}): {message}")]
    Failed {
        /// The function.
        name: String,
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
    /// Test cases of a policy came out otherwise.
    #[error("{} of {run} cases came out otherwise", wrong.len())]
    Cases {
        /// How many ran.
        run: usize,
        /// What was expected and what came, a line each.
        wrong: Vec<String>,
    },
    /// It was not there in time.
    #[error("{name} is not there after {}: {last}", humantime::format_duration(*after))]
    NotInTime {
        /// The function.
        name: String,
        /// How long was waited.
        after: Duration,
        /// Where it stood last.
        last: String,
    },
    /// Somebody else changed it while this command waited.
    #[error("{0}")]
    Superseded(String),
    /// What was asked for on the terminal was not confirmed.
    #[error("nothing was done")]
    Declined,
    /// Words could not be printed.
    #[error("cannot print")]
    Output(#[source] io::Error),
    /// The program could not start.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// Ctrl-C.
    #[error("interrupted; what was sent before may have happened")]
    Interrupted,
}

impl CliError {
    /// The command line makes no sense.
    pub fn usage(detail: impl Into<String>) -> Self {
        Self::Usage(detail.into())
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::File { .. } => USAGE,
            Self::Call(error) => of_call(error),
            Self::Refused { .. } => REFUSED,
            Self::Failed { .. } | Self::Cases { .. } => FAILED,
            Self::NotInTime { .. } => NOT_IN_TIME,
            Self::Superseded(_) => CONFLICT,
            Self::Declined | Self::Write { .. } | Self::Output(_) | Self::Start(_) => OTHER,
            Self::Interrupted => INTERRUPTED,
        }
    }
}

fn of_call(error: &CallError) -> u8 {
    match error {
        CallError::Refused(problem) => of_problem(problem),
        CallError::Certificates { .. } | CallError::Unsendable(_) => USAGE,
        CallError::Unreachable { .. }
        | CallError::Broken { .. }
        | CallError::TooLate { .. }
        | CallError::Foreign { .. }
        | CallError::Unreadable(_) => PLATFORM,
    }
}

fn of_problem(problem: &Problem) -> u8 {
    match (problem.status, problem.code.as_str()) {
        (_, "policy-denied" | "tenant-suspended" | "quota-exceeds-tier") | (429, _) => REFUSED,
        (_, "idempotency-mismatch") => CONFLICT,
        (401 | 403, _) => AUTH,
        (404, _) => NOT_FOUND,
        (409 | 412, _) => CONFLICT,
        (408 | 500.., _) => PLATFORM,
        _ => USAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: u16, code: &str) -> u8 {
        of_problem(&Problem { status, code: code.to_owned(), ..Problem::default() })
    }

    #[test]
    fn each_class_has_its_code() {
        assert_eq!(code(400, "malformed-request"), USAGE);
        assert_eq!(code(422, "invalid-fields"), USAGE);
        assert_eq!(code(401, "unauthenticated"), AUTH);
        assert_eq!(code(403, "forbidden"), AUTH);
        assert_eq!(code(403, "policy-denied"), REFUSED);
        assert_eq!(code(422, "quota-exceeds-tier"), REFUSED);
        assert_eq!(code(429, "too-many-requests"), REFUSED);
        assert_eq!(code(404, "not-found"), NOT_FOUND);
        assert_eq!(code(409, "already-exists"), CONFLICT);
        assert_eq!(code(412, "precondition-failed"), CONFLICT);
        assert_eq!(code(503, "store-unavailable"), PLATFORM);
        assert_eq!(code(422, "of-a-later-version"), USAGE);
    }

    #[test]
    fn the_help_tells_every_code() {
        let help = <crate::args::Cli as clap::CommandFactory>::command().render_long_help().to_string();
        let codes = [OTHER, USAGE, AUTH, NOT_FOUND, REFUSED, CONFLICT, FAILED, NOT_IN_TIME, PLATFORM, INTERRUPTED];
        for code in codes {
            assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{code}:\n{help}");
        }
    }
}
