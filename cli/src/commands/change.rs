//! `scale`, `suspend`, `resume`: one field each, and then the wait until it is so.

use std::time::Duration;

use clap::Args;
use eventflow_api::names::FunctionName;
use http::Method;
use serde_json::{Value, json};

use crate::args::{Format, duration};
use crate::client::Request;
use crate::error::CliError;
use crate::render;
use crate::session::Session;
use crate::settle::settle;
use crate::view::Function;

/// Whether and how long to wait.
#[derive(Debug, Args)]
#[command(next_help_heading = "Waiting")]
pub struct Patience {
    /// Do not wait: exit 0 means accepted, not running.
    #[arg(long)]
    pub no_wait: bool,
    /// Longest wait; what was asked for goes on when it ends.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

impl Patience {
    /// Waits if that is wanted for the function as it was written, and tells how it stands.
    ///
    /// # Errors
    /// It is not as it was asked for, or not in time.
    pub async fn end(&self, session: &Session, written: Value) -> Result<(), CliError> {
        let function = Function::of(&written);
        let document = if self.no_wait {
            written
        } else {
            settle(session, &function.name, function.generation, self.timeout).await?
        };
        session.output.document(session.format, &document, |format, _| match format {
            Format::Name => format!("{}\n", function.name),
            _ if self.no_wait => format!("{} is accepted as generation {}\n", function.name, function.generation),
            _ => render::function::line(&document),
        })
    }
}

async fn patch(session: &Session, name: &FunctionName, patch: Value, patience: &Patience) -> Result<(), CliError> {
    let request = Request::new(Method::PATCH, &["v1", "functions", name.as_str()]).merge_patch(&patch);
    let written = session.client.call(&request).await?.json()?;
    patience.end(session, written).await
}

/// Set how many pods run.
#[derive(Debug, Args)]
pub struct Scale {
    /// The function.
    name: FunctionName,
    /// How many pods.
    #[arg(value_name = "REPLICAS", value_parser = clap::value_parser!(u32).range(0..=100))]
    replicas: u32,
    #[command(flatten)]
    patience: Patience,
}

impl Scale {
    /// Scales, and waits.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        patch(session, &self.name, json!({"replicas": self.replicas}), &self.patience).await
    }
}

/// Switch a function off.
#[derive(Debug, Args)]
pub struct Suspend {
    /// The function.
    name: FunctionName,
    #[command(flatten)]
    patience: Patience,
}

impl Suspend {
    /// Suspends, and waits.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        patch(session, &self.name, json!({"suspend": true}), &self.patience).await
    }
}

/// Switch a suspended function on again.
#[derive(Debug, Args)]
pub struct Resume {
    /// The function.
    name: FunctionName,
    #[command(flatten)]
    patience: Patience,
}

impl Resume {
    /// Resumes, and waits.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        patch(session, &self.name, json!({"suspend": false}), &self.patience).await
    }
}
