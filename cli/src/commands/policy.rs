//! `policy`: the life of a policy, from its source to the decisions it makes. For operators.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::deploy;
use super::look::pages;
use crate::args::{Format, Globals};
use crate::client::Request;
use crate::error::CliError;
use crate::input;
use crate::output::clean;
use crate::render;
use crate::session::Session;

/// `policy new`, `policy build`: on this machine alone.
mod source;
/// `policy test`, if the engine is compiled in.
#[cfg(feature = "policy-test")]
mod test;

/// Longest module that is sent; the platform takes less.
const MODULE_MAX: u64 = 64 << 20;

/// Policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Write a new policy that compiles, with its test cases.
    New(source::New),
    /// Compile a policy to a component with its test cases in it.
    Build(source::Build),
    /// Run a component's test cases on the platform's own engine.
    #[cfg(feature = "policy-test")]
    Test(test::Test),
    /// Upload a component as a new revision; nothing is in force by that.
    Push(Push),
    /// List the policies, and what runs where.
    List,
    /// Show a policy with its bindings and revisions.
    Get(Named),
    /// Put a policy in force for someone, or change how: scope, order, settings.
    Bind(Bind),
    /// Remove a binding.
    Unbind(Unbind),
    /// Try a revision out: it judges everything and decides nothing.
    Shadow(Rollout),
    /// Try a revision out: it decides for a share of the requests, or for some tenants.
    Canary(Canary),
    /// Put a revision in force.
    Activate(Rollout),
    /// Put the revision before in force again.
    Rollback(Rollback),
    /// Show what would change if the revision in shadow decided.
    Report(Named),
    /// Show what a policy decided, newest first.
    Logs(Logs),
    /// Ask a revision about a sample or a stored function; nothing is changed.
    Evaluate(Evaluate),
    /// Delete a policy that is not bound.
    Delete(Named),
}

/// One policy.
#[derive(Debug, Args)]
pub struct Named {
    /// The policy.
    name: String,
}

/// Upload a component.
#[derive(Debug, Args)]
pub struct Push {
    /// The component, as `eventflow policy build` makes it; `-` for standard input.
    file: PathBuf,
}

/// Put a policy in force for someone.
#[derive(Debug, Args)]
pub struct Bind {
    /// The policy.
    name: String,
    /// The binding; the policy's name if left out.
    binding: Option<String>,
    /// Only for tenants of this tier.
    #[arg(long, conflicts_with = "tenant")]
    tier: Option<String>,
    /// Only for this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// What it judges, if it can do both: request or admission.
    #[arg(long, value_parser = ["request", "admission"])]
    world: Option<String>,
    /// Lower runs earlier.
    #[arg(long)]
    order: Option<i32>,
    /// What becomes of a request when it fails: closed or open.
    #[arg(long, value_parser = ["closed", "open"])]
    failure_mode: Option<String>,
    /// The group it belongs to.
    #[arg(long)]
    group: Option<String>,
    /// A document of settings in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// Remove a binding.
#[derive(Debug, Args)]
pub struct Unbind {
    /// The policy.
    name: String,
    /// The binding; the policy's name if left out.
    binding: Option<String>,
}

/// Which revision, where.
#[derive(Debug, Args)]
pub struct Rollout {
    /// The policy.
    name: String,
    /// The revision, by number or by the beginning of its digest; without it the one that is tried out, or the newest.
    #[arg(long)]
    revision: Option<String>,
    /// One binding; all of the policy's if left out.
    #[arg(long)]
    binding: Option<String>,
    /// A document of settings in YAML or JSON, instead of those there are.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// A revision that decides for some.
#[derive(Debug, Args)]
pub struct Canary {
    #[command(flatten)]
    rollout: Rollout,
    /// Share of the requests, in percent, in steps of 0.01.
    #[arg(long, required_unless_present = "tenant")]
    percent: Option<f64>,
    /// A tenant for which it decides always; may be given many times.
    #[arg(long)]
    tenant: Vec<String>,
}

/// The revision before.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The policy.
    name: String,
    /// One binding; all of the policy's if left out.
    #[arg(long)]
    binding: Option<String>,
}

/// What a policy decided.
#[derive(Debug, Args)]
pub struct Logs {
    /// The policy.
    name: String,
    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Ask a revision.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// The policy.
    name: String,
    /// The revision, by number or by the beginning of its digest; the newest if left out.
    #[arg(long)]
    revision: Option<String>,
    /// A document with `request` or `admission` as in a policy's fixtures, and maybe `settings`.
    #[arg(short, long, value_name = "FILE", required_unless_present = "function")]
    file: Option<PathBuf>,
    /// A stored function instead, TENANT/NAME.
    #[arg(long, value_name = "TENANT/NAME", value_parser = stored, conflicts_with = "file")]
    function: Option<Stored>,
}

/// A tenant's function.
#[derive(Debug, Clone)]
struct Stored(String, String);

fn stored(text: &str) -> Result<Stored, String> {
    let (tenant, name) = text.split_once('/').ok_or("must be TENANT/NAME")?;
    Ok(Stored(tenant.to_owned(), name.to_owned()))
}

/// A number is a revision's number, anything else the beginning of its digest.
fn revision(text: &str) -> Value {
    text.parse::<i32>().map_or_else(|_| Value::from(text), Value::from)
}

impl Policy {
    /// Whether it needs no platform.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::New(_) | Self::Build(_) => true,
            #[cfg(feature = "policy-test")]
            Self::Test(_) => true,
            _ => false,
        }
    }

    /// Does what needs no platform.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run_here(self, globals: &Globals) -> Result<(), CliError> {
        match self {
            Self::New(new) => new.run(globals),
            Self::Build(build) => build.run(globals).await,
            #[cfg(feature = "policy-test")]
            Self::Test(test) => test.run(globals).await,
            _ => Ok(()),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::New(_) | Self::Build(_) => Ok(()),
            #[cfg(feature = "policy-test")]
            Self::Test(_) => Ok(()),
            Self::Push(push) => push.run(session).await,
            Self::List => list(session).await,
            Self::Get(Named { name }) => show(session, Request::get(&["v1", "policies", &name])).await,
            Self::Bind(bind) => bind.run(session).await,
            Self::Unbind(Unbind { name, binding }) => {
                let binding = binding.unwrap_or_else(|| name.clone());
                show(session, Request::new(Method::DELETE, &["v1", "policies", &name, "bindings", &binding])).await
            }
            Self::Shadow(rollout) => rollout.run(session, ":shadow", Map::new()).await,
            Self::Activate(rollout) => rollout.run(session, ":activate", Map::new()).await,
            Self::Canary(canary) => canary.run(session).await,
            Self::Rollback(Rollback { name, binding }) => {
                let body: Map<String, Value> = binding.map(|b| ("binding".to_owned(), json!(b))).into_iter().collect();
                show(session, Request::new(Method::POST, &["v1", "policies", &name]).then(":rollback").json(&body))
                    .await
            }
            Self::Report(Named { name }) => report(session, &name).await,
            Self::Logs(logs) => logs.run(session).await,
            Self::Evaluate(evaluate) => evaluate.run(session).await,
            Self::Delete(Named { name }) => {
                session.client.call(&Request::new(Method::DELETE, &["v1", "policies", &name])).await?;
                session.output.print(&format!("{} is deleted\n", clean(&name)))
            }
        }
    }
}

impl Push {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let module = input::whole(&self.file, MODULE_MAX).await?;
        let request = Request::new(Method::POST, &["v1", "policies"]).bytes("application/wasm", module);
        let document = session.client.call(&request).await?.json()?;
        session.output.document(session.format, &document, |format, _| match format {
            Format::Name => format!("{}\n", clean(document["policy"].as_str().unwrap_or_default())),
            _ => render::policy::uploaded(&document),
        })
    }
}

impl Bind {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut body = Map::new();
        let scope = match (&self.tier, &self.tenant) {
            (Some(tier), _) => json!({"kind": "tier", "name": tier}),
            (None, Some(tenant)) => json!({"kind": "tenant", "name": tenant}),
            (None, None) => json!({"kind": "everyone"}),
        };
        body.insert("scope".to_owned(), scope);
        let words = [("world", &self.world), ("failure_mode", &self.failure_mode), ("group", &self.group)];
        body.extend(words.iter().filter_map(|(field, word)| Some(((*field).to_owned(), json!(word.as_ref()?)))));
        body.extend(self.order.map(|order| ("order".to_owned(), json!(order))));
        if let Some(file) = &self.settings {
            body.insert("settings".to_owned(), deploy::document(file).await?);
        }
        let binding = self.binding.as_deref().unwrap_or(&self.name);
        let path = ["v1", "policies", &self.name, "bindings", binding];
        show(session, Request::new(Method::PUT, &path).json(&body)).await
    }
}

impl Rollout {
    async fn run(self, session: &Session, verb: &str, mut body: Map<String, Value>) -> Result<(), CliError> {
        body.extend(self.revision.as_deref().map(|text| ("revision".to_owned(), revision(text))));
        body.extend(self.binding.map(|binding| ("binding".to_owned(), json!(binding))));
        if let Some(file) = &self.settings {
            body.insert("settings".to_owned(), deploy::document(file).await?);
        }
        show(session, Request::new(Method::POST, &["v1", "policies", &self.name]).then(verb).json(&body)).await
    }
}

impl Canary {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut body = Map::new();
        body.extend(self.percent.map(|percent| ("percent".to_owned(), json!(percent))));
        if !self.tenant.is_empty() {
            body.insert("tenants".to_owned(), json!(self.tenant));
        }
        self.rollout.run(session, ":canary", body).await
    }
}

impl Logs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = |limit: usize, cursor: Option<&str>| {
            let request = Request::get(&["v1", "policies", &self.name, "decisions"]);
            request.query("limit", &limit.to_string()).maybe("cursor", cursor)
        };
        let decisions = pages(session, self.limit as usize, request, |page| page.decisions).await?;
        session.output.document(session.format, &json!({"decisions": decisions}), |format, style| match format {
            Format::Name => decisions.iter().map(|decision| format!("{}\n", decision["id"])).collect(),
            format => render::policy::decisions(&decisions, format == Format::Wide, style),
        })
    }
}

impl Evaluate {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut body = match (&self.file, &self.function) {
            (Some(file), _) => deploy::document(file).await?,
            (None, Some(Stored(tenant, name))) => json!({"function": {"tenant": tenant, "name": name}}),
            (None, None) => json!({}),
        };
        if let Some(text) = &self.revision {
            body["revision"] = revision(text);
        }
        let request = Request::new(Method::POST, &["v1", "policies", &self.name]).then(":evaluate").json(&body);
        let document = session.client.call(&request).await?.json()?;
        session.output.document(session.format, &document, |_, style| render::policy::evaluation(&document, style))
    }
}

async fn list(session: &Session) -> Result<(), CliError> {
    let document = session.client.call(&Request::get(&["v1", "policies"])).await?.json()?;
    session.output.document(session.format, &document, |format, style| match format {
        Format::Name => render::policy::names(&document),
        format => render::policy::list(&document, format == Format::Wide, style, Timestamp::now()),
    })
}

async fn report(session: &Session, name: &str) -> Result<(), CliError> {
    let document = session.client.call(&Request::get(&["v1", "policies", name, "shadow"])).await?.json()?;
    session.output.document(session.format, &document, |_, style| render::policy::report(&document, style))
}

/// Makes a call that answers with the policy.
async fn show(session: &Session, request: Request) -> Result<(), CliError> {
    let document = session.client.call(&request).await?.json()?;
    session.output.document(session.format, &document, |format, style| match format {
        Format::Name => format!("{}\n", clean(document["name"].as_str().unwrap_or_default())),
        _ => render::policy::long(&document, style, Timestamp::now()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_numbers_or_digests() {
        assert_eq!((revision("12"), revision("12ab34cd")), (json!(12), json!("12ab34cd")));
        assert!(stored("a/b").is_ok() && stored("ab").is_err());
    }
}
