//! `usage`: what the calls of a tenant's functions came to.

use clap::{Args, ValueEnum};
use http::header::{ACCEPT, HeaderValue};

use crate::args::Format;
use crate::client::Request;
use crate::error::CliError;
use crate::render;
use crate::session::Session;

/// Show what the calls of your functions came to.
#[derive(Debug, Args)]
pub struct Usage {
    /// Since when: a time, or how long ago, such as 7d; without it the last 24 hours.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when; without it until now.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Whole hours that are added up to one row, such as 1h or 1d.
    #[arg(long, value_name = "TIME")]
    step: Option<String>,
    /// Each function for itself.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// As CSV, whatever --output says.
    #[arg(long)]
    csv: bool,
}

/// For what there are rows of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// A function.
    Function,
}

impl Usage {
    /// Asks for it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = Request::get(&["v1", "usage"])
            .maybe("from", self.from.as_deref())
            .maybe("to", self.to.as_deref())
            .maybe("step", self.step.as_deref())
            .maybe("by", self.by.map(|By::Function| "function"));
        if self.csv {
            let accept = HeaderValue::from_static("text/csv, application/problem+json");
            let reply = session.client.call(&request.header(ACCEPT, accept)).await?;
            return session.output.print(&reply.text());
        }
        let document = session.client.call(&request).await?.json()?;
        session.output.document(session.format, &document, |format, style| {
            render::usage::report(&document, format == Format::Wide, style)
        })
    }
}
