//! `delete`: asks a person first, and a script for `--yes`.

use clap::Args;
use eventflow_api::names::FunctionName;
use http::Method;

use crate::client::Request;
use crate::error::CliError;
use crate::input;
use crate::session::Session;

/// Delete functions.
#[derive(Debug, Args)]
pub struct Delete {
    /// The functions.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<FunctionName>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

impl Delete {
    /// Asks, and deletes one after the other; the first that cannot be deleted ends it.
    ///
    /// # Errors
    /// Not confirmed, or see [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        if !self.yes {
            self.confirm(session).await?;
        }
        for name in &self.names {
            session.client.call(&Request::new(Method::DELETE, &["v1", "functions", name.as_str()])).await?;
            session.output.print(&format!("{name} is deleted; its pods are being taken down\n"))?;
        }
        Ok(())
    }

    async fn confirm(&self, session: &Session) -> Result<(), CliError> {
        if !session.output.is_interactive() {
            return Err(CliError::usage("nobody is here to be asked: pass --yes to delete without asking"));
        }
        let names = self.names.iter().map(FunctionName::as_str).collect::<Vec<_>>().join(", ");
        session.output.tell(&format!("Delete {names} at {}? [y/N]", session.client.url()));
        if matches!(input::line().await?.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(CliError::Declined) }
    }
}
