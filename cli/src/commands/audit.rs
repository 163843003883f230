//! `audit`.

use clap::Args;
use serde_json::{Value, json};

use super::look::pages;
use crate::args::Format;
use crate::client::Request;
use crate::error::CliError;
use crate::render;
use crate::session::Session;

/// Show who did what.
#[derive(Debug, Args)]
pub struct Audit {
    /// At most so many entries.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Audit {
    /// Asks for page after page.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = |limit: usize, cursor: Option<&str>| {
            Request::get(&["v1", "audit"]).query("limit", &limit.to_string()).maybe("cursor", cursor)
        };
        let entries = pages(session, self.limit as usize, request, |page| page.entries).await?;
        session.output.document(session.format, &json!({"entries": entries}), |format, style| match format {
            Format::Name => entries.iter().map(|entry: &Value| format!("{}\n", entry["id"])).collect(),
            format => render::audit::table(&entries, format == Format::Wide, style),
        })
    }
}
