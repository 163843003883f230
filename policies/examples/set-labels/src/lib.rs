//! Puts labels on functions. An example of a patch, and for objects made in the cluster alone: functions made through
//! the API have no labels of their own, so that there such a patch is refused.

use std::collections::BTreeMap;

use eventflow_policy::{AdmissionPolicy, AdmissionVerdict, AdmissionView, Object, Operation, Settings, patch};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// What to put on functions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetLabels {
    /// Labels, which replace those of the same name.
    labels: BTreeMap<String, String>,
}

impl Settings for SetLabels {}

impl AdmissionPolicy for SetLabels {
    const NAME: &'static str = "set-labels";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Puts labels on functions.";

    fn admit(&self, view: &AdmissionView, object: &Object) -> AdmissionVerdict {
        let mut labels = object.metadata.labels.clone();
        labels.extend(self.labels.clone());
        let written = matches!(view.operation, Operation::Create | Operation::Update);
        if !written || labels == object.metadata.labels {
            return AdmissionVerdict::Allow;
        }
        // The whole map: there may be none yet.
        patch(&json!([{"op": "add", "path": "/metadata/labels", "value": labels}]))
    }
}

eventflow_policy::export_admission_policy!(SetLabels);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::admission::<super::SetLabels>(include_str!("../fixtures.json"));
    }
}
