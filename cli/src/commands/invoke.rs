//! `invoke`, `invocation`: runs of functions, their results, and their end by hand.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use eventflow_api::invocation::INPUT_MAX;
use eventflow_api::names::FunctionName;
use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::deploy::pair;
use crate::args::{Format, duration};
use crate::client::{CallError, Request};
use crate::error::CliError;
use crate::input;
use crate::output::clean;
use crate::render;
use crate::session::Session;
use crate::view::Run;

/// First wait between two looks; each is longer than the one before.
const LOOK_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between two looks.
const LOOK_LAST: Duration = Duration::from_secs(2);

/// Run a function once, as a job.
#[derive(Debug, Args)]
pub struct Invoke {
    /// The function.
    name: FunctionName,
    /// The input, a text that the program gets as it is.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "input")]
    data: Option<String>,
    /// A file that is the input, `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// An argument, in the place of the function's own; may be given many times.
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// An environment variable, NAME=VALUE, besides the function's own; may be given many times.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Longest time of one attempt, in seconds; the function's if absent.
    #[arg(long, value_name = "SECONDS")]
    timeout_seconds: Option<u32>,
    /// How often it is tried again after it failed.
    #[arg(long, value_name = "TIMES")]
    retries: Option<u32>,
    #[command(flatten)]
    patience: Patience,
}

/// Whether and how long to wait for the end.
#[derive(Debug, Args)]
#[command(next_help_heading = "Waiting")]
pub struct Patience {
    /// Wait for the end and print the result; exit 7 if the run fails.
    #[arg(short, long)]
    wait: bool,
    /// Longest wait; the run goes on when it ends.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME", requires = "wait")]
    timeout: Duration,
}

impl Invoke {
    /// Starts the run, and waits for its end if that is wanted.
    ///
    /// # Errors
    /// It was not started; with `--wait` it failed, or did not end in time.
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let body = self.body().await?;
        let request = Request::new(Method::POST, &["v1", "functions", self.name.as_str()]).then(":invoke").json(&body);
        self.patience.end(session, &request).await
    }

    async fn body(&self) -> Result<Value, CliError> {
        let input = match (&self.data, &self.input) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(file)) => {
                let bytes = input::whole(file, INPUT_MAX as u64).await?;
                let text = String::from_utf8(bytes);
                Some(text.map_err(|_| CliError::usage("the input must be a text in UTF-8; encode it, in Base64 say"))?)
            }
            (None, None) => None,
        };
        let mut body = Map::new();
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(field.to_owned(), value);
            }
        };
        set("input", input.map(Value::String));
        set("args", (!self.args.is_empty()).then(|| json!(self.args)));
        let env: Map<String, Value> = self.env.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        set("env", (!env.is_empty()).then_some(Value::Object(env)));
        set("timeout_seconds", self.timeout_seconds.map(Value::from));
        set("retries", self.retries.map(Value::from));
        Ok(Value::Object(body))
    }
}

impl Patience {
    /// Starts a run by this request, and tells that, or its end.
    async fn end(&self, session: &Session, request: &Request) -> Result<(), CliError> {
        let started = session.client.call(request).await?.json()?;
        let run = Run::of(&started["invocation"]);
        if !self.wait {
            return session.output.document(session.format, &started, |format, _| match format {
                Format::Name => format!("{}\n", clean(&run.id)),
                _ => render::run::started(&started),
            });
        }
        session.output.tell(&format!("run {} of {}", clean(&run.id), clean(&run.function)));
        let document = over(session, &run.id, self.timeout).await?;
        let run = Run::of(&document);
        session.output.document(session.format, &document, |format, _| match format {
            Format::Name => format!("{}\n", clean(&run.id)),
            _ => render::run::result(&document),
        })?;
        if run.phase == "Succeeded" {
            return Ok(());
        }
        if !run.log_tail.is_empty() {
            session.output.tell(render::run::log(&run).trim_end());
        }
        Err(CliError::Failed { name: format!("run {}", run.id), reason: run.reason, message: run.message })
    }
}

/// The document of a run once it is over.
async fn over(session: &Session, id: &str, patience: Duration) -> Result<Value, CliError> {
    let (began, mut look, mut told) = (Instant::now(), LOOK_FIRST, String::new());
    loop {
        let document = session.client.call(&Request::get(&["v1", "invocations", id])).await?.json()?;
        let run = Run::of(&document);
        if !run.finished_at.is_empty() {
            return Ok(document);
        }
        let stands = render::run::stands(&run);
        if stands != told {
            session.output.tell(&stands);
            told.clone_from(&stands);
        }
        if began.elapsed() >= patience {
            return Err(CliError::NotInTime { name: format!("the end of run {id}"), after: patience, last: stands });
        }
        tokio::time::sleep(look).await;
        look = (look * 2).min(LOOK_LAST);
    }
}

/// Runs of functions: what they came to, and their end by hand.
#[derive(Debug, Subcommand)]
pub enum Invocation {
    /// List the runs of a function, newest first.
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a run: state, times, result, the end of its log.
    Get(Get),
    /// End a run that waits or runs.
    Cancel(Cancel),
    /// Start a run like one that is over.
    Retry(Retry),
}

/// List the runs of a function.
#[derive(Debug, Args)]
pub struct List {
    /// The function.
    name: FunctionName,
    /// How many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

/// Show a run.
#[derive(Debug, Args)]
pub struct Get {
    /// The run's id.
    id: Uuid,
}

/// End a run.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The run's id.
    id: Uuid,
}

/// Start a run like one that is over.
#[derive(Debug, Args)]
pub struct Retry {
    /// The run's id.
    id: Uuid,
    #[command(flatten)]
    patience: Patience,
}

impl Invocation {
    /// Does it.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run(session).await,
            Self::Get(get) => {
                let document = session.client.call(&Request::get(&["v1", "invocations", &get.id.to_string()])).await?;
                told(session, &document.json()?)
            }
            Self::Cancel(cancel) => {
                let request = Request::new(Method::POST, &["v1", "invocations", &cancel.id.to_string()]);
                let document = session.client.call(&request.then(":cancel")).await?.json()?;
                session.output.document(session.format, &document, |format, _| match format {
                    Format::Name => format!("{}\n", cancel.id),
                    _ => format!("run {} is being cancelled\n", cancel.id),
                })
            }
            Self::Retry(retry) => {
                let request = Request::new(Method::POST, &["v1", "invocations", &retry.id.to_string()]);
                retry.patience.end(session, &request.then(":retry")).await
            }
        }
    }
}

fn told(session: &Session, document: &Value) -> Result<(), CliError> {
    session.output.document(session.format, document, |format, style| match format {
        Format::Name => format!("{}\n", clean(&Run::of(document).id)),
        _ => render::run::long(document, style),
    })
}

impl List {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = Request::get(&["v1", "functions", self.name.as_str(), "invocations"]);
        let document = session.client.call(&request.query("limit", &self.limit.to_string())).await?.json()?;
        let runs: Vec<Run> = serde_json::from_value(document["invocations"].clone())
            .map_err(|error| CallError::Unreadable(error.to_string()))?;
        session.output.document(session.format, &document, |format, style| match format {
            Format::Name => runs.iter().map(|run| format!("{}\n", clean(&run.id))).collect(),
            _ => render::run::rows(&runs, style, Timestamp::now()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::commands::Command;
    use clap::Parser;

    async fn body(args: &[&str]) -> Value {
        let cli = Cli::try_parse_from([&["eventflow", "invoke", "job"], args].concat()).unwrap();
        let Command::Invoke(invoke) = cli.command else { panic!() };
        invoke.body().await.unwrap()
    }

    #[tokio::test]
    async fn only_what_was_given_is_sent() {
        assert_eq!(body(&[]).await, json!({}));
        let all =
            ["-d", "{\"a\":1}", "--arg", "-x", "--arg", "y", "-e", "A=1=2", "--timeout-seconds", "9", "--retries", "2"];
        let expected =
            json!({"input": "{\"a\":1}", "args": ["-x", "y"], "env": {"A": "1=2"}, "timeout_seconds": 9, "retries": 2});
        assert_eq!(body(&all).await, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            &["invoke", "job", "-d", "x", "-i", "f"][..],
            &["invoke", "job", "--timeout", "5s"],
            &["invocation", "get", "x"],
        ] {
            assert!(Cli::try_parse_from([&["eventflow"], bad].concat()).is_err(), "{bad:?}");
        }
    }
}
