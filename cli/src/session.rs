//! What a command works with: the platform, the token for it, and the form of what is printed.

use std::path::PathBuf;

use crate::args::{Format, Globals};
use crate::client::{Client, Target};
use crate::config::{Config, ConfigError};
use crate::error::CliError;
use crate::output::Output;

/// Name of the context that is made when none is named.
pub const DEFAULT_CONTEXT: &str = "default";

/// What a command works with.
#[derive(Debug)]
pub struct Session {
    /// Calls the API.
    pub client: Client,
    /// The form of what is printed.
    pub format: Format,
    /// Where it is printed.
    pub output: Output,
}

impl Session {
    /// The session that flags, environment and config file ask for.
    ///
    /// # Errors
    /// No platform is named, an unreadable config file, certificates that cannot be read.
    pub fn open(globals: &Globals) -> Result<Self, CliError> {
        let config = match globals.config_file() {
            Some(path) => Config::read(&path)?,
            None => Config::default(),
        };
        let target = target(globals, &config)?;
        Ok(Self {
            client: Client::new(target, globals.request_timeout)?,
            format: globals.output,
            output: Output::new(globals.no_colour()),
        })
    }
}

/// The config file's path and content, for commands that change it.
///
/// # Errors
/// See [`ConfigError`].
pub fn config(globals: &Globals) -> Result<(PathBuf, Config), ConfigError> {
    let path = globals.config_file().ok_or(ConfigError::NoPlace)?;
    let config = Config::read(&path)?;
    Ok((path, config))
}

/// Where to, and as whom. A context's token is used for that context's URL alone, however the URL was given.
fn target(globals: &Globals, config: &Config) -> Result<Target, CliError> {
    let name = globals.context.as_ref().or(config.current.as_ref());
    let context = name.and_then(|name| config.contexts.get(name));
    if let (Some(named), None) = (&globals.context, context) {
        let detail = format!("there is no context \"{named}\": {}", config.names());
        return Err(CliError::usage(detail));
    }
    let Some(url) = globals.url.clone().or_else(|| Some(context?.url.clone())) else {
        return Err(CliError::usage(
            "no platform is named: run `eventflow login --url URL`, or set EVENTFLOW_URL".to_owned(),
        ));
    };
    let context = context.filter(|context| context.url == url);
    let token = globals.token.clone().or_else(|| context?.token.clone());
    let ca_file = globals.ca_file.clone().or_else(|| context?.ca_file.clone());
    Ok(Target { url, token, ca_file })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;
    use secrecy::ExposeSecret;

    fn globals(args: &[&str]) -> Globals {
        Cli::try_parse_from([&["eventflow", "whoami"], args].concat()).unwrap().globals
    }

    fn config() -> Config {
        let yaml = "
current: one
contexts:
  one: {url: 'https://one.example', token: t1, caFile: /ca}
  two: {url: 'https://two.example', token: t2}
";
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn seen(args: &[&str]) -> (String, Option<String>) {
        let target = target(&globals(args), &config()).unwrap();
        (target.url.to_string(), target.token.map(|token| token.expose_secret().to_owned()))
    }

    #[test]
    fn a_token_goes_only_where_it_belongs() {
        let of = |url: &str, token: Option<&str>| (url.to_owned(), token.map(str::to_owned));
        assert_eq!(seen(&[]), of("https://one.example", Some("t1")));
        assert_eq!(seen(&["--context", "two"]), of("https://two.example", Some("t2")));
        assert_eq!(seen(&["--url", "https://evil.example"]), of("https://evil.example", None));
        assert_eq!(seen(&["--url", "http://one.example"]), of("http://one.example", None));
        assert_eq!(seen(&["--url", "https://one.example/"]), of("https://one.example", Some("t1")));
        assert_eq!(seen(&["--url", "https://evil.example", "--token", "t"]), of("https://evil.example", Some("t")));
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = target(&globals(&["--context", "three"]), &config()).unwrap_err();
        assert!(error.to_string().contains("there are one, two"), "{error}");
        let error = target(&globals(&[]), &Config::default()).unwrap_err();
        assert!(error.to_string().contains("eventflow login"), "{error}");
    }
}
