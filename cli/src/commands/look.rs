//! `list`, `get`, `describe`.

use clap::{Args, ValueEnum};
use eventflow_api::names::FunctionName;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::args::Format;
use crate::client::{CallError, Request};
use crate::error::CliError;
use crate::render;
use crate::session::Session;
use crate::view::Page;

/// Longest page that is asked for at once.
const PAGE: usize = 500;

/// List the functions.
#[derive(Debug, Args)]
pub struct List {
    /// Only those whose name contains this.
    #[arg(value_name = "TEXT")]
    contains: Option<String>,
    /// Only those in this phase: Pending, Queued, Running, Idle, Suspended, Failed, Unknown.
    #[arg(long)]
    phase: Option<String>,
    /// Only those whose image contains this.
    #[arg(long, value_name = "TEXT")]
    image: Option<String>,
    /// The order; `-` in front turns it around.
    #[arg(long, value_enum, default_value_t = Sort::Name, allow_hyphen_values = true)]
    sort: Sort,
    /// At most so many.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sort {
    Name,
    #[value(name = "-name")]
    NameDown,
    Created,
    #[value(name = "-created")]
    CreatedDown,
    Updated,
    #[value(name = "-updated")]
    UpdatedDown,
}

impl Sort {
    fn as_parameter(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::NameDown => "-name",
            Self::Created => "createdAt",
            Self::CreatedDown => "-createdAt",
            Self::Updated => "updatedAt",
            Self::UpdatedDown => "-updatedAt",
        }
    }
}

impl List {
    /// Asks for page after page.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let wanted = self.limit.map_or(usize::MAX, |limit| limit as usize);
        let request = |limit: usize, cursor: Option<&str>| {
            Request::get(&["v1", "functions"])
                .query("sort", self.sort.as_parameter())
                .query("limit", &limit.to_string())
                .maybe("q", self.contains.as_deref())
                .maybe("phase", self.phase.as_deref())
                .maybe("image", self.image.as_deref())
                .maybe("cursor", cursor)
        };
        let functions = pages(session, wanted, request, |page| page.functions).await?;
        if functions.is_empty() && matches!(session.format, Format::Table | Format::Wide) {
            session.output.tell("There are none. `eventflow deploy NAME --image IMAGE` makes one.");
            return Ok(());
        }
        session.output.document(session.format, &json!({"functions": functions}), |format, style| match format {
            Format::Name => names(&functions),
            format => render::function::table(&functions, format == Format::Wide, style, Timestamp::now()),
        })
    }
}

/// Reads pages until there are `wanted` items, or no more.
///
/// # Errors
/// See [`CallError`].
pub async fn pages(
    session: &Session,
    wanted: usize,
    request: impl Fn(usize, Option<&str>) -> Request,
    items: impl Fn(Page) -> Vec<Value>,
) -> Result<Vec<Value>, CallError> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < wanted {
        let limit = PAGE.min(wanted - all.len());
        let page: Page = session.client.call(&request(limit, cursor.as_deref())).await?.read()?;
        cursor.clone_from(&page.next_cursor);
        all.extend(items(page));
        if cursor.is_none() {
            break;
        }
    }
    all.truncate(wanted);
    Ok(all)
}

fn names(functions: &[Value]) -> String {
    functions.iter().map(|function| format!("{}\n", function["name"].as_str().unwrap_or_default())).collect()
}

/// Show a function in one row.
#[derive(Debug, Args)]
pub struct Get {
    /// The function.
    name: FunctionName,
}

impl Get {
    /// Asks for it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let document = function(session, &self.name).await?;
        let one = std::slice::from_ref(&document);
        session.output.document(session.format, &document, |format, style| match format {
            Format::Name => names(one),
            format => render::function::table(one, format == Format::Wide, style, Timestamp::now()),
        })
    }
}

/// Show all about a function.
#[derive(Debug, Args)]
pub struct Describe {
    /// The function.
    name: FunctionName,
}

impl Describe {
    /// Asks for it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let document = function(session, &self.name).await?;
        session.output.document(session.format, &document, |format, style| match format {
            Format::Name => names(std::slice::from_ref(&document)),
            _ => render::function::long(&document, style, Timestamp::now()),
        })
    }
}

async fn function(session: &Session, name: &FunctionName) -> Result<Value, CallError> {
    session.client.call(&Request::get(&["v1", "functions", name.as_str()])).await?.json()
}
