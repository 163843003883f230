//! `context`: shows, chooses and removes contexts. Never shows a token, only whether there is one.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::args::{Format, Globals};
use crate::config::Config;
use crate::error::CliError;
use crate::output::Output;
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};
use crate::session;

/// Contexts.
#[derive(Debug, Subcommand)]
pub enum Context {
    /// List the contexts; the one in use has a star.
    List,
    /// Use this context from now on.
    Use(Named),
    /// Remove this context and its token.
    Remove(Named),
}

/// One context.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name.
    name: String,
}

impl Context {
    /// Does it.
    ///
    /// # Errors
    /// No such context, or the file cannot be read or written.
    pub fn run(self, globals: &Globals) -> Result<(), CliError> {
        let output = Output::new(globals.no_colour());
        let (path, mut config) = session::config(globals)?;
        let said = match self {
            Self::List => return list(&config, globals, &output),
            Self::Use(Named { name }) => {
                must_exist(&config, &name)?;
                config.current = Some(name.clone());
                format!("Commands now use the context \"{name}\".\n")
            }
            Self::Remove(Named { name }) => {
                must_exist(&config, &name)?;
                config.contexts.remove(&name);
                config.current = config.current.filter(|current| *current != name);
                format!("The context \"{name}\" is gone.\n")
            }
        };
        config.write(&path)?;
        output.print(&said)
    }
}

fn must_exist(config: &Config, name: &str) -> Result<(), CliError> {
    if config.contexts.contains_key(name) {
        return Ok(());
    }
    Err(CliError::usage(format!("there is no context \"{name}\": {}", config.names())))
}

fn list(config: &Config, globals: &Globals, output: &Output) -> Result<(), CliError> {
    let is_current = |name: &String| config.current.as_ref() == Some(name);
    let documents = config.contexts.iter().map(|(name, context)| {
        json!({"name": name, "url": context.url, "current": is_current(name), "signedIn": context.token.is_some()})
    });
    let documents: Vec<_> = documents.collect();
    output.document(globals.output, &documents, |format, style| match format {
        Format::Name => config.contexts.keys().map(|name| format!("{name}\n")).collect(),
        _ => table(config, style),
    })
}

fn table(config: &Config, style: Style) -> String {
    let mut table = Table::new(&["", "NAME", "URL", "TOKEN"]);
    for (name, context) in &config.contexts {
        let star = if config.current.as_ref() == Some(name) { "*" } else { "" };
        let token = if context.token.is_some() { "kept" } else { "none" };
        table.row(vec![Cell::toned(star, Tone::Good), name.into(), context.url.as_str().into(), token.into()]);
    }
    table.render(style)
}
