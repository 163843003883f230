//! `/v1/tiers`: what a tenant may use, as operators see and change it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tenants::TIER_NAME_MAX;
use crate::function::{REPLICAS_MAX, TIMEOUT_MAX};
use crate::quantity::{Bytes, MilliCpu};
use crate::tier::{
    EgressRule, KEPT_INVOCATION_DAYS_DEFAULT, KEPT_INVOCATIONS_DEFAULT, PodSecurity, Quota, REQUEST_BYTES_DEFAULT,
    REQUEST_BYTES_MAX, TierSpec,
};
use crate::violation::{Fields, Violation, ViolationCode};

/// Most egress rules, and most exceptions of one.
const EGRESS_MAX: usize = 256;

/// A tier, as answered to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Counts its changes. The `ETag` is made of it.
    pub generation: i64,
    /// How many tenants are of this tier.
    pub tenants: usize,
    /// What its tenants may use.
    #[serde(flatten)]
    pub spec: TierSpec,
}

/// All tiers, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierList {
    /// All of them.
    pub tiers: Vec<Tier>,
}

/// Whether a text can be a tier's name: what Kubernetes takes as a name.
#[must_use]
pub fn is_tier_name(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = |at: Option<&u8>| at.is_some_and(|b| alnum(*b));
        ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| alnum(*b) || *b == b'-')
    };
    name.len() <= TIER_NAME_MAX && name.split('.').all(label)
}

/// Reads the body of a replacement of the tier `name`; every fault is listed.
pub fn parse_tier(name: &str, body: Value) -> Result<TierSpec, Vec<Violation>> {
    let mut fields = Fields::of(body);
    ["generation", "tenants"].iter().for_each(|field| fields.ignore(field));
    let renamed = fields.text("name").is_some_and(|given| given != name);
    let quota = read_quota(&mut fields);
    let no_quota = quota.is_none();
    let spec = TierSpec {
        quota: quota.unwrap_or_else(none),
        requests_per_second: fields.required_count("requestsPerSecond"),
        burst: fields.required_count("burst"),
        concurrent_invocations: fields.required_count("concurrentInvocations"),
        max_request_bytes: fields
            .integer("maxRequestBytes")
            .map_or(REQUEST_BYTES_DEFAULT, |n| n.try_into().unwrap_or(0)),
        max_replicas_per_function: fields.required_count("maxReplicasPerFunction"),
        max_timeout_seconds: fields.required_count("maxTimeoutSeconds"),
        kept_invocations: fields.count("keptInvocations").unwrap_or(KEPT_INVOCATIONS_DEFAULT),
        kept_invocation_days: fields.count("keptInvocationDays").unwrap_or(KEPT_INVOCATION_DAYS_DEFAULT),
        pod_security: PodSecurity::default(),
        egress: fields
            .objects("egress", |rule| EgressRule { cidr: rule.required_text("cidr"), except: rule.texts("except") }),
    };
    let pod_security = fields.text("podSecurity");
    let mut violations = fields.finish();
    if no_quota && violations.iter().all(|v| v.field != "quota") {
        violations.push(Violation::new("quota", ViolationCode::Required, "is required"));
    }
    if renamed {
        violations.push(Violation::new("name", ViolationCode::Immutable, "cannot be changed; make another tier"));
    }
    let pod_security = match pod_security.as_deref() {
        None | Some("restricted") => PodSecurity::Restricted,
        Some("baseline") => PodSecurity::Baseline,
        Some(_) => {
            violations.push(Violation::new("podSecurity", ViolationCode::Format, "must be restricted or baseline"));
            PodSecurity::Restricted
        }
    };
    // A field that has a fault already is not told again.
    let more: Vec<_> = check(&spec).into_iter().filter(|v| violations.iter().all(|w| w.field != v.field)).collect();
    violations.extend(more);
    if violations.is_empty() { Ok(TierSpec { pod_security, ..spec }) } else { Err(violations) }
}

/// No limits at all; they are at fault already.
fn none() -> Quota {
    let zero = || "0".to_owned();
    Quota {
        cpu_requests: zero(),
        memory_requests: zero(),
        cpu_limits: zero(),
        memory_limits: zero(),
        pods: 0,
        persistent_volume_claims: 0,
        functions: 0,
    }
}

/// The hard limits, if there are any.
fn read_quota(fields: &mut Fields) -> Option<Quota> {
    fields.object("quota", |quota| {
        Some(Quota {
            cpu_requests: quota.required_text("cpuRequests"),
            memory_requests: quota.required_text("memoryRequests"),
            cpu_limits: quota.required_text("cpuLimits"),
            memory_limits: quota.required_text("memoryLimits"),
            pods: quota.required_count("pods"),
            persistent_volume_claims: quota.required_count("persistentVolumeClaims"),
            functions: quota.required_count("functions"),
        })
    })
}

fn check(spec: &TierSpec) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut fault = |field: String, code, message: String| violations.push(Violation::new(field, code, message));
    let quota = &spec.quota;
    for (field, text) in [("cpuRequests", &quota.cpu_requests), ("cpuLimits", &quota.cpu_limits)] {
        if let Err(error) = text.parse::<MilliCpu>() {
            fault(format!("quota.{field}"), ViolationCode::Format, error.to_string());
        }
    }
    for (field, text) in [("memoryRequests", &quota.memory_requests), ("memoryLimits", &quota.memory_limits)] {
        if let Err(error) = text.parse::<Bytes>() {
            fault(format!("quota.{field}"), ViolationCode::Format, error.to_string());
        }
    }
    let (replicas, timeout) = (u32::try_from(REPLICAS_MAX), u32::try_from(TIMEOUT_MAX));
    for (field, value, range) in [
        ("requestsPerSecond", spec.requests_per_second, 1..=u32::MAX),
        ("burst", spec.burst, 1..=u32::MAX),
        ("concurrentInvocations", spec.concurrent_invocations, 1..=u32::MAX),
        ("maxReplicasPerFunction", spec.max_replicas_per_function, 0..=replicas.unwrap_or(u32::MAX)),
        ("maxTimeoutSeconds", spec.max_timeout_seconds, 1..=timeout.unwrap_or(u32::MAX)),
        ("keptInvocations", spec.kept_invocations, 1..=1_000_000),
        ("keptInvocationDays", spec.kept_invocation_days, 1..=3_650),
    ] {
        if !range.contains(&value) {
            let message = format!("must be from {} to {}", range.start(), range.end());
            fault(field.to_owned(), ViolationCode::Range, message);
        }
    }
    if !(1..=REQUEST_BYTES_MAX).contains(&spec.max_request_bytes) {
        let message = format!("must be from 1 to {REQUEST_BYTES_MAX}");
        fault("maxRequestBytes".to_owned(), ViolationCode::Range, message);
    }
    if spec.egress.len() > EGRESS_MAX {
        fault("egress".to_owned(), ViolationCode::Range, format!("must have at most {EGRESS_MAX} entries"));
    }
    for (i, rule) in spec.egress.iter().enumerate() {
        let cidrs = std::iter::once((format!("egress[{i}].cidr"), &rule.cidr));
        let excepts = rule.except.iter().enumerate().map(|(j, cidr)| (format!("egress[{i}].except[{j}]"), cidr));
        for (field, cidr) in cidrs.chain(excepts).filter(|(_, cidr)| !is_cidr(cidr)) {
            fault(field, ViolationCode::Format, format!("must be addresses such as 10.0.0.0/8, not {cidr:?}"));
        }
    }
    violations
}

/// Whether a text is an address and the length of its prefix.
fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    match (address.parse::<IpAddr>(), prefix.parse::<u8>()) {
        (Ok(address), Ok(prefix)) => digits && prefix <= if address.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn free() -> Value {
        json!({"quota": {"cpuRequests": "2", "memoryRequests": "4Gi", "cpuLimits": "4", "memoryLimits": "8Gi",
            "pods": 10, "persistentVolumeClaims": 2, "functions": 5}, "requestsPerSecond": 20, "burst": 40,
            "concurrentInvocations": 10, "maxReplicasPerFunction": 3, "maxTimeoutSeconds": 300,
            "egress": [{"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}, {"cidr": "::/0"}]})
    }

    #[test]
    fn what_was_read_is_a_valid_replacement() {
        let spec = parse_tier("free", free()).unwrap();
        let tier = Tier { name: "free".into(), generation: 3, tenants: 1, spec: spec.clone() };
        assert_eq!(parse_tier("free", serde_json::to_value(tier).unwrap()), Ok(spec));
    }

    #[test]
    fn every_fault_is_listed_once() {
        let mut body = free();
        body["name"] = json!("pro");
        body["quota"]["cpuLimits"] = json!("many");
        body["quota"]["pods"] = json!(-1);
        body["quota"].as_object_mut().unwrap().remove("functions");
        body["burst"] = json!(0);
        body["maxReplicasPerFunction"] = json!(101);
        body["maxRequestBytes"] = json!(-1);
        body["podSecurity"] = json!("none");
        body["egress"] = json!([{"cidr": "10.0.0.0/33", "except": ["::/0", "x"]}, {"port": 1}, 7]);
        body["colour"] = json!("red");
        let mut fields: Vec<_> = parse_tier("free", body).unwrap_err().into_iter().map(|v| v.field).collect();
        fields.sort();
        let expected = [
            "burst",
            "colour",
            "egress[0].cidr",
            "egress[0].except[1]",
            "egress[1].cidr",
            "egress[1].port",
            "egress[2]",
            "egress[2].cidr",
            "maxReplicasPerFunction",
            "maxRequestBytes",
            "name",
            "podSecurity",
            "quota.cpuLimits",
            "quota.functions",
            "quota.pods",
        ];
        assert_eq!(fields, expected);
        let missing = parse_tier("free", json!({})).unwrap_err();
        assert!(missing.iter().any(|v| v.field == "quota" && v.code == ViolationCode::Required), "{missing:?}");
        assert!(missing.iter().all(|v| !v.field.starts_with("quota.")), "{missing:?}");
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        assert!(["free", "a.b-c", "1"].iter().all(|name| is_tier_name(name)));
        assert!(["", "A", "a_b", "-a", "a-", "a..b", &"x".repeat(254)].iter().all(|name| !is_tier_name(name)));
    }
}
