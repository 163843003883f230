//! `policy test`: runs a component's test cases on the engine that the platform runs, so that what passes here passes
//! there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use policy_engine::{Capability, EngineOptions, Module, ModuleError, PolicyEngine, fixtures};

use super::MODULE_MAX;
use crate::args::Globals;
use crate::error::CliError;
use crate::input;
use crate::output::{Output, clean};

/// Longest file of cases that is read.
const CASES_MAX: u64 = 16 << 20;

/// Run a component's test cases.
#[derive(Debug, Args)]
pub struct Test {
    /// The component, as `eventflow policy build` makes it.
    file: PathBuf,
    /// Cases to run instead of those in the component.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
}

impl Test {
    /// Runs them all.
    ///
    /// # Errors
    /// It is no policy, has no cases, or some came out otherwise.
    pub async fn run(self, globals: &Globals) -> Result<(), CliError> {
        let bytes = input::whole(&self.file, MODULE_MAX).await?;
        let cases = match &self.cases {
            Some(file) => Some(input::whole(file, CASES_MAX).await?),
            None => None,
        };
        let file = self.file.clone();
        let tested = tokio::task::spawn_blocking(move || test(&file, &bytes, cases.as_deref())).await;
        let report = tested.map_err(|error| CliError::Start(std::io::Error::other(error)))??;
        let output = Output::new(globals.no_colour());
        if !report.wrong.is_empty() {
            let wrong = report.wrong.iter().map(|case| clean(case)).collect();
            return Err(CliError::Cases { run: report.run, wrong });
        }
        let median = report.times.get(report.times.len() / 2).copied().unwrap_or_default().as_micros();
        let memory = report.memory_peak_bytes / 1024;
        output.print(&format!("{} cases passed; half took at most {median} us; {memory} KiB of memory\n", report.run))
    }
}

fn test(file: &Path, bytes: &[u8], cases: Option<&[u8]>) -> Result<fixtures::Report, CliError> {
    let at_fault = |what: String| CliError::usage(format!("{}: {}", file.display(), clean(&what)));
    let engine = PolicyEngine::new(EngineOptions::default()).map_err(|error| at_fault(error.to_string()))?;
    let module = Module::load(&engine, bytes, &BTreeSet::from(Capability::ALL), None);
    let module = module.map_err(|error| at_fault(problems(&error)))?;
    let given = cases.map(|cases| eventflow_policy_fixture::parse(&String::from_utf8_lossy(cases))).transpose();
    let given = given.map_err(|error| at_fault(error.to_string()))?;
    let cases = given.as_deref().unwrap_or_else(|| module.fixtures());
    if cases.is_empty() {
        return Err(at_fault("has no test cases: put them in fixtures.json and build it again".to_owned()));
    }
    Ok(fixtures::run(&module, cases))
}

/// Everything that is wrong with a module.
fn problems(error: &ModuleError) -> String {
    let problems: Vec<&str> = error.problems.iter().map(|problem| problem.message.as_str()).collect();
    format!("is no policy: {}", problems.join("; "))
}
