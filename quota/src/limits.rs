//! What a tier allows one function whatever room there is: pods, and the longest time-out. Checked when something more
//! is to be reserved; what runs already is nobody's to stop because a tier was lowered.

use std::fmt;

use eventflow_api::function::ValidSpec;
use eventflow_api::tier::TierSpec;

/// A field that asks for more than the tier allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// The field of the function's spec.
    pub field: &'static str,
    /// What it asks for.
    pub asked: u32,
    /// What the tier allows.
    pub limit: u32,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, asked, limit } = self;
        write!(f, "{field} is {asked}, the limit is {limit}")
    }
}

/// Every field that asks for more than the tier allows.
#[must_use]
pub fn excesses(spec: &ValidSpec, tier: &TierSpec) -> Vec<Excess> {
    let fields = [
        ("replicas", spec.replicas, tier.max_replicas_per_function),
        ("timeoutSeconds", spec.timeout_seconds, tier.max_timeout_seconds),
    ];
    let excesses = fields.into_iter().filter(|(_, asked, limit)| asked > limit);
    excesses.map(|(field, asked, limit)| Excess { field, asked, limit }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventflow_api::function::{CallerAuth, FunctionSpec};
    use eventflow_api::resources::Resources;
    use eventflow_api::tier::{PodSecurity, Quota};
    use std::collections::BTreeMap;

    #[test]
    fn what_is_over_the_tiers_limits_is_named() {
        let tier = TierSpec {
            quota: Quota {
                cpu_requests: "2".into(),
                memory_requests: "4Gi".into(),
                cpu_limits: "4".into(),
                memory_limits: "8Gi".into(),
                pods: 10,
                persistent_volume_claims: 2,
                functions: 5,
            },
            requests_per_second: 1,
            burst: 1,
            concurrent_invocations: 1,
            max_request_bytes: 1,
            max_replicas_per_function: 3,
            max_timeout_seconds: 300,
            kept_invocations: 1,
            kept_invocation_days: 1,
            pod_security: PodSecurity::Restricted,
            egress: Vec::new(),
        };
        let over = |replicas, timeout| {
            let spec = FunctionSpec {
                image: "a:1".into(),
                command: Vec::new(),
                args: Vec::new(),
                env: BTreeMap::new(),
                replicas,
                port: None,
                auth: CallerAuth::default(),
                resources: Resources::default(),
                timeout_seconds: timeout,
                suspend: false,
            };
            let all: Vec<_> = excesses(&spec.parse().unwrap(), &tier).iter().map(ToString::to_string).collect();
            all.join("; ")
        };
        assert_eq!(over(3, 300), "");
        assert_eq!(over(4, 301), "replicas is 4, the limit is 3; timeoutSeconds is 301, the limit is 300");
    }
}
