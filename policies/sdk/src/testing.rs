//! Runs a policy's fixtures natively: the same cases that the engine's tests run against the component.
//!
//! ```ignore
//! #[test]
//! fn fixtures() {
//!     eventflow_policy::testing::admission::<NoLatest>(include_str!("../fixtures.json"));
//! }
//! ```

use eventflow_policy_fixture::{Fixture, parse};
use serde_json::{Value, json};

use crate::settings::Settings;
use crate::{
    AdmissionPolicy, AdmissionVerdict, Denial, Rate, RequestChange, RequestPolicy, SettingsProblem, Verdict, export,
    settings,
};

/// Runs the cases of a request policy.
///
/// # Panics
/// With every case that came out otherwise, or if the cases cannot be read: this is a test harness.
pub fn request<P: RequestPolicy>(fixtures: &str) {
    run(fixtures, |case| {
        let view = case.request_view().ok_or("not a case of a request policy")?;
        let view = serde_json::from_value(view).map_err(|e| e.to_string())?;
        Ok(configured::<P>(case).map_or_else(refused, |policy| verdict_json(&policy.check(&view))))
    });
}

/// Runs the cases of an admission policy.
///
/// # Panics
/// With every case that came out otherwise, or if the cases cannot be read: this is a test harness.
pub fn admission<P: AdmissionPolicy>(fixtures: &str) {
    run(fixtures, |case| {
        let mut view = case.admission_view().ok_or("not a case of an admission policy")?;
        // The generated enum is read by its Rust name.
        if let Some(operation) = view["operation"].as_str() {
            let (first, rest) = operation.split_at(1);
            view["operation"] = Value::String(format!("{}{rest}", first.to_uppercase()));
        }
        let view = serde_json::from_value(view).map_err(|e| e.to_string())?;
        Ok(configured::<P>(case).map_or_else(refused, |policy| admission_json(&export::admit(&policy, &view))))
    });
}

fn run(fixtures: &str, verdict: impl Fn(&Fixture) -> Result<Value, String>) {
    let cases = parse(fixtures).unwrap_or_else(|e| panic!("{e}"));
    assert!(!cases.is_empty(), "no cases");
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| match verdict(case) {
            Ok(verdict) => case.mismatch(&verdict),
            Err(e) => Some(format!("\"{}\": {e}", case.name)),
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases came out otherwise:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn configured<S: Settings>(case: &Fixture) -> Result<S, Vec<SettingsProblem>> {
    settings::parse(&case.settings.to_string())
}

/// Which problem it is depends on who finds it first, the schema or the type; that there is one does not.
fn refused(_: Vec<SettingsProblem>) -> Value {
    json!("misconfigured")
}

/// A verdict in the form of a fixture's `expect`.
#[must_use]
pub fn verdict_json(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Allow => json!("allow"),
        Verdict::AllowWith(with) => {
            json!({"allow_with": {"changes": with.changes.iter().map(change_json).collect::<Vec<_>>()}})
        }
        Verdict::Rate(rate) => rate_json(rate),
        Verdict::Deny(denial) => denial_json(denial),
    }
}

/// An admission verdict in the form of a fixture's `expect`.
#[must_use]
pub fn admission_json(verdict: &AdmissionVerdict) -> Value {
    match verdict {
        AdmissionVerdict::Allow => json!("allow"),
        AdmissionVerdict::AllowWith(with) => json!({"allow_with": with}),
        AdmissionVerdict::Rate(rate) => rate_json(rate),
        AdmissionVerdict::Deny(denial) => denial_json(denial),
    }
}

fn rate_json(rate: &Rate) -> Value {
    json!({"rate": rate})
}

fn denial_json(denial: &Denial) -> Value {
    json!({"deny": denial})
}

fn change_json(change: &RequestChange) -> Value {
    match change {
        RequestChange::SetHeader(pair) => json!({"set_header": pair}),
        RequestChange::RemoveHeader(name) => json!({"remove_header": name}),
        RequestChange::SetPriority(priority) => json!({"set_priority": priority}),
        RequestChange::SetTimeout(milliseconds) => json!({"set_timeout": milliseconds}),
        RequestChange::Annotate(pair) => json!({"annotate": pair}),
    }
}
