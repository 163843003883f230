//! `completion`: scripts for shells, made from the same definition as the help.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::{Cli, Globals};
use crate::error::CliError;
use crate::output::Output;

/// Print the completion script of a shell.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell.
    shell: Shell,
}

impl Completion {
    /// Prints it.
    ///
    /// # Errors
    /// When nobody reads it.
    pub fn run(self, globals: &Globals) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "eventflow", &mut script);
        Output::new(globals.no_colour()).print(&String::from_utf8_lossy(&script))
    }
}
