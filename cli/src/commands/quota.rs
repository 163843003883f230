//! `quota`, `explain`.

use clap::Args;
use eventflow_api::names::FunctionName;
use http::Method;
use jiff::Timestamp;

use crate::args::Format;
use crate::client::Request;
use crate::error::CliError;
use crate::output::clean;
use crate::render;
use crate::session::Session;

/// Show what your tenant may use.
#[derive(Debug, Args)]
pub struct Quota {}

impl Quota {
    /// Asks for it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let document = session.client.call(&Request::get(&["v1", "quota"])).await?.json()?;
        session.output.document(session.format, &document, |format, style| match format {
            Format::Name => format!("{}\n", clean(document["tier"].as_str().unwrap_or_default())),
            format => render::quota::report(&document, format == Format::Wide, style),
        })
    }
}

/// Say why a function is in the state it is in.
#[derive(Debug, Args)]
pub struct Explain {
    /// The function.
    name: FunctionName,
}

impl Explain {
    /// Asks for it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        // It changes nothing, so there is nothing to repeat under a key.
        let request = Request::new(Method::POST, &["v1", "functions", self.name.as_str()]).then(":explain");
        let document = session.client.call(&request).await?.json()?;
        session.output.document(session.format, &document, |format, style| match format {
            Format::Name => format!("{}\n", self.name),
            _ => render::quota::explanation(&document, style, Timestamp::now()),
        })
    }
}
