//! Caps the replicas of one function, by tier.

use std::collections::BTreeMap;

use eventflow_policy::{AdmissionPolicy, AdmissionVerdict, AdmissionView, Object, Operation, Settings, allow_if};
use schemars::JsonSchema;
use serde::Deserialize;

/// The caps. Without any, the tier's own `maxReplicasPerFunction` holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaLimit {
    /// Most replicas of a function of any tier that `tiers` does not name.
    max: Option<u32>,
    /// Most replicas of a function, by name of the tier.
    tiers: BTreeMap<String, u32>,
}

impl Settings for ReplicaLimit {}

impl AdmissionPolicy for ReplicaLimit {
    const NAME: &'static str = "replica-limit";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Caps the replicas of one function, by tier.";

    fn admit(&self, view: &AdmissionView, object: &Object) -> AdmissionVerdict {
        if !matches!(view.operation, Operation::Create | Operation::Update) {
            return AdmissionVerdict::Allow;
        }
        let tier = &view.tenant.tier;
        let cap = self.tiers.get(tier).copied().or(self.max).unwrap_or(view.tenant.limits.max_replicas_per_function);
        let mut objections = Vec::new();
        let mut within = |field: &str, replicas: u32| {
            if replicas > cap {
                objections.push(format!("{field} is {replicas}, tier {tier} allows at most {cap}"));
            }
        };
        within("replicas", object.spec.replicas.unwrap_or(1));
        if let Some(scaling) = &object.spec.scaling {
            within("scaling.max", scaling.max);
        }
        allow_if("too-many-replicas", &objections)
    }
}

eventflow_policy::export_admission_policy!(ReplicaLimit);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::admission::<super::ReplicaLimit>(include_str!("../fixtures.json"));
    }
}
