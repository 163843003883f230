//! What can be written on the command line; the arguments of each command stand with the command. Environment variables
//! are read here and nowhere else.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use secrecy::SecretString;

use crate::commands::Command;
use crate::url::BaseUrl;

/// Shown under the help of the whole program.
const AFTER_HELP: &str = "\
Exit codes:
  0    done; for deploy, scale and resume: it runs
  1    something else failed
  2    usage: a flag, a file or a field is at fault
  3    not signed in, or not allowed
  4    there is no such thing
  5    refused: by quota, policy, limit or suspension
  6    conflict: it exists already, or was changed meanwhile
  7    the function or its run failed, and says why; for policy test: a case did
  8    not in time: still queued or on its way
  9    the platform failed or cannot be reached
  130  interrupted

Environment:
  EVENTFLOW_URL, EVENTFLOW_TOKEN, EVENTFLOW_CONTEXT, EVENTFLOW_CONFIG   as the flags; flags win
  NO_COLOR                                                             no colour on terminals";

/// Deploys and looks after functions on an EventFlow platform.
#[derive(Debug, Parser)]
#[command(name = "eventflow", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Globals {
    /// Which of the contexts of the config file to use.
    #[arg(long, global = true, env = "EVENTFLOW_CONTEXT", value_name = "NAME", hide_env = true)]
    pub context: Option<String>,
    /// Where the platform is, whatever the context says. The context's token goes only where it belongs.
    #[arg(long, global = true, env = "EVENTFLOW_URL", hide_env = true)]
    pub url: Option<BaseUrl>,
    /// The form of what is printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORM")]
    pub output: Format,
    /// Longest wait for one answer of the platform.
    #[arg(long, global = true, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub request_timeout: Duration,
    /// Certificates (PEM) to trust instead of the system's.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The config file.
    #[arg(long, global = true, env = "EVENTFLOW_CONFIG", value_name = "FILE", hide_env = true, hide_short_help = true)]
    pub config: Option<PathBuf>,
    /// The bearer token. The process list shows flags to everybody: this one is for its environment variable.
    #[arg(long, global = true, env = "EVENTFLOW_TOKEN", hide = true, value_parser = token)]
    pub token: Option<SecretString>,
    #[arg(long, global = true, env = "XDG_CONFIG_HOME", hide = true)]
    xdg_config_home: Option<PathBuf>,
    #[arg(long, global = true, env = "HOME", hide = true)]
    home: Option<PathBuf>,
    #[arg(long, global = true, env = "NO_COLOR", hide = true)]
    no_color: Option<String>,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    Table,
    /// More columns.
    Wide,
    /// The platform's own document.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names alone, one a line.
    Name,
}

impl Globals {
    /// The config file: as told, or `eventflow/config.yaml` in the user's folder of configuration.
    #[must_use]
    pub fn config_file(&self) -> Option<PathBuf> {
        let absolute = |path: &&PathBuf| path.is_absolute();
        let folder = self.xdg_config_home.as_ref().filter(absolute).cloned();
        let folder = folder.or_else(|| Some(self.home.as_ref()?.join(".config")));
        self.config.clone().or_else(|| Some(folder?.join("eventflow/config.yaml")))
    }

    /// Whether colour is unwanted whatever the output is.
    #[must_use]
    pub fn no_colour(&self) -> bool {
        self.no_color.as_ref().is_some_and(|value| !value.is_empty())
    }
}

/// A span of time: `90s`, `5m`.
///
/// # Errors
/// When it is none, or zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| "must be a time such as 90s or 5m".to_owned())?;
    if duration.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}

/// A bearer token.
///
/// # Errors
/// When it cannot be one. Never repeats it.
pub fn token(text: &str) -> Result<SecretString, String> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a token is one word of printable characters".to_owned());
    }
    Ok(SecretString::from(text))
}
