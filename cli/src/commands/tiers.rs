//! `tier`: what the tenants of a tier may use. For operators.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use http::header::ETAG;
use serde_json::json;

use super::deploy;
use crate::args::Format;
use crate::client::Request;
use crate::error::CliError;
use crate::output::{clean, yaml};
use crate::render;
use crate::session::Session;

/// Tiers.
#[derive(Debug, Subcommand)]
pub enum Tier {
    /// List the tiers.
    List,
    /// Show a tier's document.
    Get(Get),
    /// Create a tier or replace it by a document; what runs is not evicted.
    Set(Set),
}

/// Show a tier's document.
#[derive(Debug, Args)]
pub struct Get {
    /// The tier.
    name: String,
}

/// Create a tier or replace it.
#[derive(Debug, Args)]
pub struct Set {
    /// The tier.
    name: String,
    /// The document in YAML or JSON, `-` for standard input: what `eventflow tier get` shows, changed.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

impl Tier {
    /// Does it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::List => list(session).await,
            Self::Get(Get { name }) => show(session, Request::get(&["v1", "tiers", &name])).await,
            Self::Set(set) => set.run(session).await,
        }
    }
}

async fn list(session: &Session) -> Result<(), CliError> {
    let document = session.client.call(&Request::get(&["v1", "tiers"])).await?.json()?;
    let tiers = document["tiers"].as_array().cloned().unwrap_or_default();
    session.output.document(session.format, &document, |format, style| match format {
        Format::Name => {
            tiers.iter().map(|tier| format!("{}\n", clean(tier["name"].as_str().unwrap_or_default()))).collect()
        }
        format => render::tenants::tiers(&tiers, format == Format::Wide, style),
    })
}

impl Set {
    /// Over the very version that was read, so that nobody's change is lost unseen.
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut document = deploy::document(&self.file).await?;
        let path = ["v1", "tiers", self.name.as_str()];
        let tag = match session.client.call(&Request::get(&path)).await {
            Ok(answer) => answer.header(&ETAG).map(str::to_owned),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        if document["name"].is_null() {
            document["name"] = json!(self.name);
        }
        show(session, Request::new(Method::PUT, &path).if_match(tag.as_deref()).json(&document)).await
    }
}

async fn show(session: &Session, request: Request) -> Result<(), CliError> {
    let document = session.client.call(&request).await?.json()?;
    session.output.document(session.format, &document, |format, _| match format {
        Format::Name => format!("{}\n", clean(document["name"].as_str().unwrap_or_default())),
        _ => yaml(&document),
    })
}
