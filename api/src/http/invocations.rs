//! Runs of functions over the public HTTP API: what a caller asks for, and the record of what became of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission::Admission;
use crate::invocation::{InvocationSpec, RunPhase, RunReason};
use crate::names::FunctionName;
use crate::violation::{Fields, Violation};

/// What the answer to a started run says, as the original platform did.
pub const STARTED: &str = "Invocation Started";
/// What it says of one that waits.
pub const QUEUED: &str = "Invocation Queued";

/// A run, as answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    /// The run's id, a UUID.
    pub id: String,
    /// The function's name.
    pub function: FunctionName,
    /// Where it stands.
    pub phase: RunPhase,
    /// Why it ended as it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RunReason>,
    /// The same for people, or what it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Times its program was started, or was to be.
    pub attempts: i32,
    /// Exit code of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Longest time of one attempt; the function's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// How often it is tried again.
    pub retries: i64,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// Its end was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
    /// RFC 3339 in UTC, as are the following.
    pub created_at: String,
    /// When quota was reserved for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_at: Option<String>,
    /// When its program was first started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// How long it waited, started and ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// What the program gave back: JSON, or a text that is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The last lines of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
}

/// A run's time, split. To the second, as Kubernetes tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// Seconds from the call until quota was reserved.
    pub queued_seconds: i64,
    /// Seconds from there until the program was first started.
    pub starting_seconds: i64,
    /// Seconds from there to the end, waits between attempts included.
    pub running_seconds: i64,
}

/// The answer to a call that starts a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvocationStarted {
    /// [`STARTED`] or [`QUEUED`].
    pub message: String,
    /// The run's id.
    pub invocation_id: String,
    /// The verdict of quota admission.
    pub admission: Admission,
    /// The run as it is now: with its result if that was waited for and came in time.
    pub invocation: Invocation,
}

/// A page of runs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvocationList {
    /// This page.
    pub invocations: Vec<Invocation>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Reads the body of `:invoke`, none of which is required; every fault is listed. `input` may be any JSON: a text is
/// given to the program as it is, anything else as compact JSON.
pub fn parse_invoke(function: &FunctionName, body: Option<Value>) -> Result<InvocationSpec, Vec<Violation>> {
    let mut fields = Fields::of(body.unwrap_or_else(|| Value::Object(serde_json::Map::new())));
    let input = fields.any("input").map(|input| match input {
        Value::String(text) => text,
        other => other.to_string(),
    });
    let has_args = fields.has("args");
    let args = fields.texts("args");
    let spec = InvocationSpec {
        function: function.to_string(),
        input,
        args: has_args.then_some(args),
        env: fields.text_map("env"),
        timeout_seconds: fields.integer("timeout_seconds"),
        retries: fields.integer("retries").unwrap_or(0),
        cancel: false,
    };
    let mut violations = fields.finish();
    for violation in spec.parse().err().unwrap_or_default() {
        let field = if violation.field == "timeoutSeconds" { "timeout_seconds".to_owned() } else { violation.field };
        violations.push(Violation { field, ..violation });
    }
    if violations.is_empty() { Ok(spec) } else { Err(violations) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<InvocationSpec, Vec<String>> {
        let spec = parse_invoke(&"f".parse().unwrap(), Some(body));
        spec.map_err(|faults| faults.into_iter().map(|fault| fault.field).collect())
    }

    #[test]
    fn nothing_is_required() {
        let spec = parse_invoke(&"f".parse().unwrap(), None).unwrap();
        assert_eq!((spec.function.as_str(), spec.input, spec.args, spec.retries), ("f", None, None, 0));
    }

    #[test]
    fn input_may_be_any_json() {
        assert_eq!(read(json!({"input": "a b"})).unwrap().input.as_deref(), Some("a b"));
        assert_eq!(read(json!({"input": {"a": [1, null]}})).unwrap().input.as_deref(), Some(r#"{"a":[1,null]}"#));
        assert_eq!(read(json!({"input": 7})).unwrap().input.as_deref(), Some("7"));
        assert_eq!(read(json!({"input": null})).unwrap().input, None);
        assert_eq!(read(json!({"args": []})).unwrap().args, Some(Vec::new()));
    }

    #[test]
    fn every_fault_is_listed_under_its_name_here() {
        let body = json!({"timeout_seconds": 0, "retries": 11, "env": {"A": 1}, "colour": "red", "timeoutSeconds": 5});
        let mut fields = read(body).unwrap_err();
        fields.sort();
        assert_eq!(fields, ["colour", "env.A", "retries", "timeoutSeconds", "timeout_seconds"]);
        assert_eq!(read(json!({"timeout_seconds": "30s"})).unwrap_err(), ["timeout_seconds"]);
        assert_eq!(read(json!([])).unwrap_err(), [""]);
    }
}
