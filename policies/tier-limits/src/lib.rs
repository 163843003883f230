//! Holds every tenant to the request rate and concurrency of its tier. The numbers are the tier's, as operators edit
//! them; the settings only say who and what is weighed differently.

use std::collections::BTreeMap;

use eventflow_policy::settings::problem;
use eventflow_policy::{RequestPolicy, RequestView, Settings, SettingsProblem, Verdict, deny, rate};
use schemars::JsonSchema;
use serde::Deserialize;

/// Actions that run a function.
const INVOCATIONS: [&str; 2] = ["functions.invoke", "functions.http"];

/// Who is exempt and what costs more.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct TierLimits {
    /// Roles that are never limited.
    exempt_roles: Vec<String>,
    /// Tokens an action costs, by name from the route table; every other action costs 1.
    costs: BTreeMap<String, u32>,
    /// Whether invocations that run at once are limited too.
    concurrency: bool,
}

impl Default for TierLimits {
    fn default() -> Self {
        Self { exempt_roles: vec!["operator".to_owned()], costs: BTreeMap::new(), concurrency: true }
    }
}

impl Settings for TierLimits {
    fn problems(&self) -> Vec<SettingsProblem> {
        let free = self.costs.iter().filter(|(_, cost)| **cost == 0);
        free.map(|(action, _)| problem(&format!("/costs/{action}"), "must be at least 1")).collect()
    }
}

impl RequestPolicy for TierLimits {
    const NAME: &'static str = "tier-limits";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Holds every tenant to the request rate and concurrency of its tier.";

    fn check(&self, request: &RequestView) -> Verdict {
        if self.exempt_roles.contains(&request.role) {
            return Verdict::Allow;
        }
        let limits = &request.tenant.limits;
        let invocation = INVOCATIONS.contains(&request.action.as_str());
        if self.concurrency && invocation && request.in_flight > limits.concurrent_invocations {
            let message = format!(
                "tier {} runs at most {} invocations at once",
                request.tenant.tier, limits.concurrent_invocations
            );
            let mut denial = deny(429, "concurrent-invocations", message);
            denial.retry_after_ms = Some(1000);
            return denial.into();
        }
        let mut withdrawal = rate("requests", limits.requests_per_second, limits.burst);
        // A cost over the burst could never be paid.
        withdrawal.cost = self.costs.get(&request.action).copied().unwrap_or(1).min(limits.burst);
        withdrawal.into()
    }
}

eventflow_policy::export_request_policy!(TierLimits);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::request::<super::TierLimits>(include_str!("../fixtures.json"));
    }
}
