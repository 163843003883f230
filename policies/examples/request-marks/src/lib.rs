//! Marks requests as its settings say: sets and removes headers towards the function, ranks, shortens time-outs and
//! leaves notes. An example of every change that a request policy may make, and of telling callers apart.

use std::collections::BTreeMap;

use eventflow_policy::{
    Pair, RequestChange, RequestChanges, RequestPolicy, RequestView, Settings, SettingsProblem, Verdict, deny,
    settings::problem,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What to put on requests. Values may have `{tenant}`, `{subject}`, `{role}` and `{address}`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct RequestMarks {
    /// Only requests with one of these actions are marked; all if empty.
    actions: Vec<String>,
    /// Headers to set, by name in lower case.
    set_headers: BTreeMap<String, String>,
    /// Headers to remove.
    remove_headers: Vec<String>,
    /// Rank, 0 (last) to 9 (first).
    priority: Option<u8>,
    /// Time-out in milliseconds.
    timeout_ms: Option<u32>,
    /// Notes for audit log and trace.
    notes: BTreeMap<String, String>,
    /// Whether callers without a token are refused.
    deny_anonymous: bool,
}

impl Settings for RequestMarks {
    fn problems(&self) -> Vec<SettingsProblem> {
        let mut problems = Vec::new();
        if self.priority.is_some_and(|priority| priority > 9) {
            problems.push(problem("/priority", "must be 0 to 9"));
        }
        if self.timeout_ms == Some(0) {
            problems.push(problem("/timeoutMs", "must be at least 1"));
        }
        problems
    }
}

impl RequestPolicy for RequestMarks {
    const NAME: &'static str = "request-marks";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Marks requests: headers towards functions, priority, time-out, notes.";

    fn check(&self, request: &RequestView) -> Verdict {
        if self.deny_anonymous && request.role == "anonymous" {
            return deny(403, "anonymous", "This operator lets nobody call without a token.").into();
        }
        if !self.actions.is_empty() && !self.actions.contains(&request.action) {
            return Verdict::Allow;
        }
        let pairs = |map: &BTreeMap<String, String>| -> Vec<Pair> {
            map.iter().map(|(name, value)| Pair { name: name.clone(), value: filled(value, request) }).collect()
        };
        let mut changes: Vec<RequestChange> = Vec::new();
        changes.extend(self.remove_headers.iter().cloned().map(RequestChange::RemoveHeader));
        changes.extend(pairs(&self.set_headers).into_iter().map(RequestChange::SetHeader));
        changes.extend(self.priority.map(RequestChange::SetPriority));
        changes.extend(self.timeout_ms.map(RequestChange::SetTimeout));
        changes.extend(pairs(&self.notes).into_iter().map(RequestChange::Annotate));
        if changes.is_empty() { Verdict::Allow } else { Verdict::AllowWith(RequestChanges { changes }) }
    }
}

fn filled(template: &str, request: &RequestView) -> String {
    template
        .replace("{tenant}", &request.tenant.id)
        .replace("{subject}", &request.subject)
        .replace("{role}", &request.role)
        .replace("{address}", &request.remote_address)
}

eventflow_policy::export_request_policy!(RequestMarks);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::request::<super::RequestMarks>(include_str!("../fixtures.json"));
    }
}
