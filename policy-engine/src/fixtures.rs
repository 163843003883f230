//! Test cases that travel with a module, run against the very component: part of the smoke test of an upload, of
//! `eventflow policy test`, and of this repository's tests of the built-in policies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventflow_policy_fixture::Fixture;
use serde_json::{Value, json};

use crate::counters::{Counters, Lane};
use crate::limits;
use crate::module::Module;
use crate::run::Call;
use crate::snapshot::{ConfigureError, Policy};
use crate::types::World;

/// What came of a run of test cases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many ran.
    pub run: usize,
    /// Those that came out otherwise: name of the case, what was expected and what came.
    pub wrong: Vec<String>,
    /// Time of each decision, shortest first.
    pub times: Vec<Duration>,
    /// Bytes of the largest memory.
    pub memory_peak_bytes: usize,
}

/// Runs `cases` against `module`, each with settings of its own and counters of its own, for at most
/// [`limits::FIXTURES_TIME`].
#[must_use]
pub fn run(module: &Module, cases: &[Fixture]) -> Report {
    let (mut report, started) = (Report::default(), Instant::now());
    for case in cases {
        if started.elapsed() > limits::FIXTURES_TIME {
            let seconds = limits::FIXTURES_TIME.as_secs();
            report.wrong.push(format!(
                "{} of {} cases took {seconds} s; the others did not run",
                report.run,
                cases.len()
            ));
            break;
        }
        report.run += 1;
        match verdict(module, case, &mut report) {
            Ok(verdict) => report.wrong.extend(case.mismatch(&verdict)),
            Err(why) => report.wrong.push(format!("\"{}\": {why}", case.name)),
        }
    }
    report.times.sort();
    report
}

/// The verdict of one case in the form of its `expect`.
fn verdict(module: &Module, case: &Fixture, report: &mut Report) -> Result<Value, String> {
    let world = if case.request.is_some() { World::Request } else { World::Admission };
    let policy = match Policy::configure(module, world, &case.settings) {
        Ok(policy) => policy,
        Err(ConfigureError::Refused(_)) => return Ok(json!("misconfigured")),
        Err(e) => return Err(e.to_string()),
    };
    let view = case.request_view().or_else(|| case.admission_view()).unwrap_or(Value::Null);
    let call = Call {
        now_ms: 1_700_000_000_000,
        tenant: view["tenant"]["id"].as_str().unwrap_or_default().into(),
        counters: Arc::new(Counters::default()),
        lane: Lane::Enforced,
        facts: None,
    };
    let unreadable = |e: serde_json::Error| format!("its view cannot be read: {e}");
    let outcome = match world {
        World::Request => {
            let decision = policy.check(&serde_json::from_value(view).map_err(unreadable)?, &call);
            report.times.push(decision.elapsed);
            report.memory_peak_bytes = report.memory_peak_bytes.max(decision.memory_bytes);
            decision.outcome.map(|verdict| json!(verdict))
        }
        World::Admission => {
            let decision = policy.admit(&serde_json::from_value(view).map_err(unreadable)?, &call);
            report.times.push(decision.elapsed);
            report.memory_peak_bytes = report.memory_peak_bytes.max(decision.memory_bytes);
            decision.outcome.map(|verdict| json!(verdict))
        }
    };
    outcome.map_err(|failure| failure.to_string())
}
