//! Supplies default resources where none are written and holds functions to bounds, by tier.

use std::collections::BTreeMap;

use eventflow_policy::object::ResourceTexts;
use eventflow_policy::settings::problem;
use eventflow_policy::{
    AdmissionPolicy, AdmissionVerdict, AdmissionView, Bytes, MilliCpu, Object, Operation, Settings, SettingsProblem,
    deny, patch,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// One of the four quantities, by its name in a function's `resources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Quantity {
    CpuRequest,
    MemoryRequest,
    CpuLimit,
    MemoryLimit,
}

impl Quantity {
    const ALL: [Self; 4] = [Self::CpuRequest, Self::MemoryRequest, Self::CpuLimit, Self::MemoryLimit];

    fn name(self) -> &'static str {
        match self {
            Self::CpuRequest => "cpuRequest",
            Self::MemoryRequest => "memoryRequest",
            Self::CpuLimit => "cpuLimit",
            Self::MemoryLimit => "memoryLimit",
        }
    }

    fn written(self, texts: &ResourceTexts) -> Option<&str> {
        match self {
            Self::CpuRequest => texts.cpu_request.as_deref(),
            Self::MemoryRequest => texts.memory_request.as_deref(),
            Self::CpuLimit => texts.cpu_limit.as_deref(),
            Self::MemoryLimit => texts.memory_limit.as_deref(),
        }
    }

    /// The amount in milli-CPU or bytes.
    fn amount(self, text: &str) -> Result<u64, String> {
        match self {
            Self::CpuRequest | Self::CpuLimit => {
                text.parse::<MilliCpu>().map(MilliCpu::millis).map_err(|e| e.to_string())
            }
            Self::MemoryRequest | Self::MemoryLimit => {
                text.parse::<Bytes>().map(Bytes::bytes).map_err(|e| e.to_string())
            }
        }
    }

    /// What the platform fills in when nothing is written and the policy has no default of its own.
    fn platform_default(self) -> &'static str {
        match self {
            Self::CpuRequest => "100m",
            Self::MemoryRequest => "128Mi",
            Self::CpuLimit => "500m",
            Self::MemoryLimit => "512Mi",
        }
    }
}

/// Least and most, both allowed themselves, as Kubernetes writes quantities.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Bound {
    min: Option<String>,
    max: Option<String>,
}

/// Defaults and bounds of a tier.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Rules {
    /// Written into functions that do not write the quantity.
    defaults: BTreeMap<Quantity, String>,
    /// Outside of them a function is refused.
    bounds: BTreeMap<Quantity, Bound>,
}

/// Rules for everyone and rules by tier; a tier's rules take the place of everyone's, quantity by quantity.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceBounds {
    /// For tiers and quantities that `tiers` does not name.
    everyone: Rules,
    /// By name of the tier.
    tiers: BTreeMap<String, Rules>,
}

impl Settings for ResourceBounds {
    fn problems(&self) -> Vec<SettingsProblem> {
        let everyone = rule_problems("/everyone", &self.everyone);
        let tiers = self.tiers.iter().flat_map(|(tier, rules)| rule_problems(&format!("/tiers/{tier}"), rules));
        everyone.into_iter().chain(tiers).collect()
    }
}

/// Quantities that cannot be read, and bounds with their ends swapped.
fn rule_problems(path: &str, rules: &Rules) -> Vec<SettingsProblem> {
    let mut problems = Vec::new();
    for (quantity, text) in &rules.defaults {
        if let Err(e) = quantity.amount(text) {
            problems.push(problem(&format!("{path}/defaults/{}", quantity.name()), e));
        }
    }
    for (quantity, bound) in &rules.bounds {
        let mut ends = [None, None];
        for (end, (name, text)) in ends.iter_mut().zip([("min", &bound.min), ("max", &bound.max)]) {
            match text.as_deref().map(|t| quantity.amount(t)).transpose() {
                Ok(amount) => *end = amount,
                Err(e) => problems.push(problem(&format!("{path}/bounds/{}/{name}", quantity.name()), e)),
            }
        }
        if let [Some(min), Some(max)] = ends
            && min > max
        {
            problems.push(problem(&format!("{path}/bounds/{}", quantity.name()), "min is more than max"));
        }
    }
    problems
}

impl ResourceBounds {
    fn default_of(&self, tier: &str, quantity: Quantity) -> Option<&str> {
        let of_tier = self.tiers.get(tier).and_then(|rules| rules.defaults.get(&quantity));
        of_tier.or_else(|| self.everyone.defaults.get(&quantity)).map(String::as_str)
    }

    fn bound_of(&self, tier: &str, quantity: Quantity) -> Option<&Bound> {
        let of_tier = self.tiers.get(tier).and_then(|rules| rules.bounds.get(&quantity));
        of_tier.or_else(|| self.everyone.bounds.get(&quantity))
    }

    /// Says why `text` is out of the bounds of `quantity`, if it is.
    fn objection(&self, tier: &str, quantity: Quantity, text: &str) -> Option<String> {
        let bound = self.bound_of(tier, quantity)?;
        let name = quantity.name();
        let Ok(amount) = quantity.amount(text) else {
            return Some(format!("resources.{name} is not a quantity"));
        };
        // The bounds were read before, so an end that cannot be read does not exist.
        let end = |text: &Option<String>| text.as_deref().and_then(|t| quantity.amount(t).ok());
        if end(&bound.max).is_some_and(|max| amount > max) {
            let max = bound.max.as_deref().unwrap_or_default();
            return Some(format!("resources.{name} is {text}, tier {tier} allows at most {max}"));
        }
        if end(&bound.min).is_some_and(|min| amount < min) {
            let min = bound.min.as_deref().unwrap_or_default();
            return Some(format!("resources.{name} is {text}, tier {tier} needs at least {min}"));
        }
        None
    }
}

impl AdmissionPolicy for ResourceBounds {
    const NAME: &'static str = "resource-bounds";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Supplies default resources and holds functions to bounds, by tier.";

    fn admit(&self, view: &AdmissionView, object: &Object) -> AdmissionVerdict {
        if !matches!(view.operation, Operation::Create | Operation::Update) {
            return AdmissionVerdict::Allow;
        }
        let (tier, resources) = (view.tenant.tier.as_str(), &object.spec.resources);
        let (mut supplied, mut objections) = (serde_json::Map::new(), Vec::new());
        for quantity in Quantity::ALL {
            let written = quantity.written(resources);
            let default = self.default_of(tier, quantity);
            if let (None, Some(default)) = (written, default) {
                supplied.insert(quantity.name().to_owned(), default.into());
            }
            let text = written.or(default).unwrap_or(quantity.platform_default());
            objections.extend(self.objection(tier, quantity, text));
        }
        if !objections.is_empty() {
            return deny(403, "resources-out-of-bounds", objections.join("; ")).into();
        }
        if supplied.is_empty() {
            return AdmissionVerdict::Allow;
        }
        let nothing_written = *resources == ResourceTexts::default();
        if nothing_written {
            return patch(&json!([{"op": "add", "path": "/spec/resources", "value": supplied}]));
        }
        let each = supplied.into_iter();
        let operations: Vec<_> = each
            .map(|(name, value)| json!({"op": "add", "path": format!("/spec/resources/{name}"), "value": value}))
            .collect();
        patch(&json!(operations))
    }
}

eventflow_policy::export_admission_policy!(ResourceBounds);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::admission::<super::ResourceBounds>(include_str!("../fixtures.json"));
    }
}
