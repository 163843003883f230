//! `tenant`: who owns things, in which tier, with how much. For operators.

use clap::{Args, Subcommand};
use eventflow_api::names::TenantId;
use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::look::pages;
use crate::args::Format;
use crate::client::Request;
use crate::error::CliError;
use crate::output::clean;
use crate::render;
use crate::session::Session;

/// Tenants.
#[derive(Debug, Subcommand)]
pub enum Tenant {
    /// List the tenants.
    List(List),
    /// Show all about a tenant.
    Get(One),
    /// Create a tenant, for an owner or for the first caller whose claim is its id.
    Create(Create),
    /// Change a tenant's tier, display name or quota.
    Set(Set),
    /// Suspend a tenant: nothing of it runs, and nothing new is taken.
    Suspend(One),
    /// Let a suspended tenant run again.
    Resume(One),
}

/// List the tenants.
#[derive(Debug, Args)]
pub struct List {
    /// Only those of this tier.
    #[arg(long)]
    tier: Option<String>,
}

/// One tenant.
#[derive(Debug, Args)]
pub struct One {
    /// The tenant.
    id: TenantId,
}

/// Create a tenant.
#[derive(Debug, Args)]
pub struct Create {
    /// Its id; without it, made of the owner's claim.
    #[arg(required_unless_present = "subject")]
    id: Option<TenantId>,
    /// Issuer of the tokens that lead to it.
    #[arg(long, requires = "subject")]
    issuer: Option<String>,
    /// The claim in those tokens that names it.
    #[arg(long, requires = "issuer")]
    subject: Option<String>,
    #[command(flatten)]
    fields: Fields,
}

/// Change a tenant.
#[derive(Debug, Args)]
pub struct Set {
    /// The tenant.
    id: TenantId,
    #[command(flatten)]
    fields: Fields,
}

/// What an operator decides.
#[derive(Debug, Args)]
struct Fields {
    /// Its tier.
    #[arg(long)]
    tier: Option<String>,
    /// What people call it.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// A deviation from the tier, such as pods=20 or cpuRequests=4; without a value, as the tier says. May be given many
    /// times.
    #[arg(long, value_name = "DIMENSION=AMOUNT", value_parser = deviation)]
    quota: Vec<(String, Value)>,
}

/// Counts are numbers, amounts are texts; the platform knows which is which, and says so.
fn deviation(text: &str) -> Result<(String, Value), String> {
    let (dimension, amount) = text.split_once('=').ok_or("must be DIMENSION=AMOUNT")?;
    let is_count = matches!(dimension, "pods" | "persistentVolumeClaims" | "functions");
    let value = match amount {
        "" => Value::Null,
        amount if is_count => amount.parse::<u32>().map(Value::from).map_err(|_| format!("{dimension} is a count"))?,
        amount => Value::from(amount),
    };
    Ok((dimension.to_owned(), value))
}

impl Fields {
    fn patch(&self) -> Map<String, Value> {
        let mut patch = Map::new();
        if let Some(tier) = &self.tier {
            patch.insert("tier".to_owned(), json!(tier));
        }
        if let Some(name) = &self.display_name {
            patch.insert("displayName".to_owned(), json!(name));
        }
        if !self.quota.is_empty() {
            patch.insert("quota".to_owned(), Value::Object(self.quota.iter().cloned().collect()));
        }
        patch
    }
}

impl Tenant {
    /// Does it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run(session).await,
            Self::Get(One { id }) => show(session, Request::get(&["v1", "tenants", id.as_str()])).await,
            Self::Create(create) => create.run(session).await,
            Self::Set(Set { id, fields }) => {
                let patch = fields.patch();
                if patch.is_empty() {
                    return Err(CliError::usage("say what to change: --tier, --display-name or --quota"));
                }
                change(session, &id, Value::Object(patch)).await
            }
            Self::Suspend(One { id }) => change(session, &id, json!({"suspended": true})).await,
            Self::Resume(One { id }) => change(session, &id, json!({"suspended": false})).await,
        }
    }
}

impl List {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = |limit: usize, cursor: Option<&str>| {
            let request = Request::get(&["v1", "tenants"]).query("limit", &limit.to_string());
            request.maybe("tier", self.tier.as_deref()).maybe("cursor", cursor)
        };
        let tenants = pages(session, usize::MAX, request, |page| page.tenants).await?;
        session.output.document(session.format, &json!({"tenants": tenants}), |format, style| match format {
            Format::Name => {
                tenants.iter().map(|tenant| format!("{}\n", clean(tenant["id"].as_str().unwrap_or_default()))).collect()
            }
            format => render::tenants::table(&tenants, format == Format::Wide, style, Timestamp::now()),
        })
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut body = self.fields.patch();
        if let Some(id) = &self.id {
            body.insert("id".to_owned(), json!(id));
        }
        if let (Some(issuer), Some(subject)) = (&self.issuer, &self.subject) {
            body.insert("owner".to_owned(), json!({"issuer": issuer, "subject": subject}));
        }
        show(session, Request::new(Method::POST, &["v1", "tenants"]).json(&body)).await
    }
}

async fn change(session: &Session, id: &TenantId, patch: Value) -> Result<(), CliError> {
    show(session, Request::new(Method::PATCH, &["v1", "tenants", id.as_str()]).merge_patch(&patch)).await
}

async fn show(session: &Session, request: Request) -> Result<(), CliError> {
    let document = session.client.call(&request).await?.json()?;
    session.output.document(session.format, &document, |format, style| match format {
        Format::Name => format!("{}\n", clean(document["id"].as_str().unwrap_or_default())),
        _ => render::tenants::long(&document, style, Timestamp::now()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_counts_or_amounts() {
        assert_eq!(deviation("pods=3"), Ok(("pods".into(), json!(3))));
        assert_eq!(deviation("cpuRequests=1500m"), Ok(("cpuRequests".into(), json!("1500m"))));
        assert_eq!(deviation("pods="), Ok(("pods".into(), Value::Null)));
        assert!(deviation("pods=many").is_err() && deviation("pods").is_err());
    }
}
