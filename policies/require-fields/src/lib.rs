//! Refuses functions that leave out what the operator wants stated: labels, annotations, environment, time-outs.

use std::collections::BTreeMap;

use eventflow_policy::{AdmissionPolicy, AdmissionVerdict, AdmissionView, Object, Operation, Settings, allow_if};
use schemars::JsonSchema;
use serde::Deserialize;

/// What must be stated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct RequireFields {
    /// Labels by name, with the values they may have; an empty list for any value that is not empty.
    labels: BTreeMap<String, Vec<String>>,
    /// Annotations by name, in the same way.
    annotations: BTreeMap<String, Vec<String>>,
    /// Environment variables by name, in the same way.
    env: BTreeMap<String, Vec<String>>,
    /// Whether `timeoutSeconds` must be written.
    timeout: bool,
    /// Longest time-out in seconds that may be written or, where none is, the platform's 60.
    max_timeout_seconds: Option<u32>,
    /// Whether a port must be written.
    port: bool,
}

impl Settings for RequireFields {}

impl AdmissionPolicy for RequireFields {
    const NAME: &'static str = "require-fields";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Refuses functions that leave out what the operator wants stated.";

    fn admit(&self, view: &AdmissionView, object: &Object) -> AdmissionVerdict {
        if !matches!(view.operation, Operation::Create | Operation::Update) {
            return AdmissionVerdict::Allow;
        }
        let mut objections = Vec::new();
        missing("label", &self.labels, &object.metadata.labels, &mut objections);
        missing("annotation", &self.annotations, &object.metadata.annotations, &mut objections);
        missing("environment variable", &self.env, &object.spec.env, &mut objections);
        if self.timeout && object.spec.timeout_seconds.is_none() {
            objections.push("timeoutSeconds must be written".to_owned());
        }
        let timeout = object.spec.timeout_seconds.unwrap_or(60);
        if let Some(max) = self.max_timeout_seconds.filter(|max| timeout > *max) {
            objections.push(format!("timeoutSeconds is {timeout}, at most {max} is allowed"));
        }
        if self.port && object.spec.port.is_none() {
            objections.push("port must be written".to_owned());
        }
        allow_if("field-required", &objections)
    }
}

/// Objects to every name of `wanted` that `given` lacks or gives another value.
fn missing(
    kind: &str,
    wanted: &BTreeMap<String, Vec<String>>,
    given: &BTreeMap<String, String>,
    objections: &mut Vec<String>,
) {
    for (name, values) in wanted {
        match given.get(name).filter(|value| !value.is_empty()) {
            None => objections.push(format!("{kind} {name} must be set")),
            Some(value) if !values.is_empty() && !values.contains(value) => {
                objections.push(format!("{kind} {name} must be {}", values.join(" or ")));
            }
            Some(_) => {}
        }
    }
}

eventflow_policy::export_admission_policy!(RequireFields);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::admission::<super::RequireFields>(include_str!("../fixtures.json"));
    }
}
