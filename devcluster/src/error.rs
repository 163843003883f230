//! Why a cluster could not be started, stopped or asked.

use std::{io, path::PathBuf, process::ExitStatus};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure a person can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something the machine lacks or has in the way: one sentence saying what, and how to fix it.
    #[error("{0}")]
    Precondition(String),
    /// The operating system refused.
    #[error("cannot {action}")]
    Io {
        /// What was tried, to be read after "cannot".
        action: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A program that was run to its end ended badly.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// A long-running component ended while it was awaited.
    #[error("{name} stopped while starting ({status}); the end of {log}:\n{tail}", log = log.display())]
    Died {
        /// The component.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// A long-running component did not get ready in time.
    #[error("{name} was not ready after {seconds} s ({reason}); the end of {log}:\n{tail}", log = log.display())]
    NotReady {
        /// The component.
        name: String,
        /// How long it was awaited.
        seconds: u64,
        /// What the last probe found.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// A key or certificate could not be made.
    #[error("cannot make the cluster's certificates")]
    Pki(#[from] rcgen::Error),
}

impl Error {
    /// Wraps a system error; `action` is read after "cannot".
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
