//! `/v1/tenants`: who owns things, as operators see and change it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::condition::Condition;
use crate::names::{TenantClaim, TenantId};
use crate::quantity::{Bytes, MilliCpu};
use crate::tenant::{DEFAULT_TIER, TenantOwner, TenantSpec};
use crate::tier::QuotaOverride;
use crate::violation::{Fields, Violation, ViolationCode};

/// Longest display name, in characters.
const DISPLAY_NAME_MAX: usize = 256;
/// Longest issuer, in bytes.
const ISSUER_MAX: usize = 2048;
/// Longest name of a tier, in bytes.
pub(super) const TIER_NAME_MAX: usize = 253;

/// A tenant, as answered to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its namespace.
    pub namespace: String,
    /// Counts the changes of its spec. The `ETag` is made of it.
    pub generation: i64,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// What operators decide.
    #[serde(flatten)]
    pub spec: TenantSpec,
    /// What is true of it, and why.
    pub conditions: Vec<Condition>,
}

/// Fields of a [`Tenant`] that the platform sets; ignored in what callers send.
const READ_ONLY_FIELDS: [&str; 4] = ["namespace", "generation", "createdAt", "conditions"];

/// A page of tenants, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantList {
    /// This page.
    pub tenants: Vec<Tenant>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A tenant to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTenant {
    /// Its id, if the operator chose one.
    pub id: Option<TenantId>,
    /// The owner's claim, parsed; `spec.owner` is there exactly if this is.
    pub claim: Option<TenantClaim>,
    /// All else.
    pub spec: TenantSpec,
}

impl NewTenant {
    /// The owner: the issuer of the tokens that lead to it, and the claim.
    #[must_use]
    pub fn owner(&self) -> Option<(&str, &TenantClaim)> {
        Some((self.spec.owner.as_ref()?.issuer.as_str(), self.claim.as_ref()?))
    }
}

/// Reads the body of a create; every fault is listed. A tenant without an owner needs an id, and goes to the first
/// caller whose claim is that id.
pub fn parse_create(body: Value) -> Result<NewTenant, Vec<Violation>> {
    let mut fields = Fields::of(body);
    let id = fields.text("id");
    let spec = read(&mut fields);
    let mut violations = fields.finish();
    let id = id.map(|id| id.parse::<TenantId>()).transpose();
    if let Err(error) = &id {
        violations.push(Violation::new("id", ViolationCode::Format, error));
    }
    if matches!(id, Ok(None)) && spec.owner.is_none() {
        violations.push(Violation::new("id", ViolationCode::Required, "is required for a tenant without an owner"));
    }
    let claim = spec.owner.as_ref().map(|owner| owner.subject.parse::<TenantClaim>());
    violations.extend(check(&spec));
    match (id, claim.transpose()) {
        (Ok(id), Ok(claim)) if violations.is_empty() => Ok(NewTenant { id, claim, spec }),
        _ => Err(violations),
    }
}

/// Reads what a change makes of a tenant; every fault is listed. The id and the owner never change.
pub fn parse_change(id: &str, old: &TenantSpec, body: Value) -> Result<TenantSpec, Vec<Violation>> {
    let mut fields = Fields::of(body);
    let renamed = fields.text("id").is_some_and(|given| given != id);
    let spec = read(&mut fields);
    let mut violations = fields.finish();
    if renamed {
        violations.push(Violation::new("id", ViolationCode::Immutable, "cannot be changed; create another tenant"));
    }
    if spec.owner != old.owner {
        violations.push(Violation::new("owner", ViolationCode::Immutable, "cannot be changed; create another tenant"));
    } else {
        violations.extend(check(&spec));
    }
    if violations.is_empty() { Ok(spec) } else { Err(violations) }
}

fn read(fields: &mut Fields) -> TenantSpec {
    READ_ONLY_FIELDS.iter().for_each(|field| fields.ignore(field));
    TenantSpec {
        tier: fields.text("tier").unwrap_or_else(|| DEFAULT_TIER.to_owned()),
        owner: fields.object("owner", |owner| {
            Some(TenantOwner { issuer: owner.required_text("issuer"), subject: owner.required_text("subject") })
        }),
        display_name: fields.text("displayName"),
        quota: fields
            .object("quota", |quota| Some(read_quota(quota)))
            .filter(|quota| *quota != QuotaOverride::default()),
        suspended: fields.boolean("suspended").unwrap_or(false),
    }
}

fn read_quota(fields: &mut Fields) -> QuotaOverride {
    QuotaOverride {
        cpu_requests: fields.text("cpuRequests"),
        memory_requests: fields.text("memoryRequests"),
        cpu_limits: fields.text("cpuLimits"),
        memory_limits: fields.text("memoryLimits"),
        pods: fields.count("pods"),
        persistent_volume_claims: fields.count("persistentVolumeClaims"),
        functions: fields.count("functions"),
    }
}

fn check(spec: &TenantSpec) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut fault = |field: &str, code, message: String| violations.push(Violation::new(field, code, message));
    if spec.tier.is_empty() || spec.tier.len() > TIER_NAME_MAX {
        fault("tier", ViolationCode::Range, format!("must be 1 to {TIER_NAME_MAX} characters long"));
    }
    if spec.display_name.as_ref().is_some_and(|name| name.chars().count() > DISPLAY_NAME_MAX) {
        fault("displayName", ViolationCode::Range, format!("must be at most {DISPLAY_NAME_MAX} characters long"));
    }
    if let Some(owner) = &spec.owner {
        if owner.issuer.is_empty() || owner.issuer.len() > ISSUER_MAX || owner.issuer.chars().any(char::is_control) {
            let message = format!("must be 1 to {ISSUER_MAX} bytes long, without control characters");
            fault("owner.issuer", ViolationCode::Format, message);
        }
        if let Err(error) = owner.subject.parse::<TenantClaim>() {
            fault("owner.subject", ViolationCode::Format, error.to_string());
        }
    }
    let quota = spec.quota.clone().unwrap_or_default();
    for (field, text) in [("quota.cpuRequests", quota.cpu_requests), ("quota.cpuLimits", quota.cpu_limits)] {
        if let Some(Err(error)) = text.map(|text| text.parse::<MilliCpu>()) {
            fault(field, ViolationCode::Format, error.to_string());
        }
    }
    for (field, text) in [("quota.memoryRequests", quota.memory_requests), ("quota.memoryLimits", quota.memory_limits)]
    {
        if let Some(Err(error)) = text.map(|text| text.parse::<Bytes>()) {
            fault(field, ViolationCode::Format, error.to_string());
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(outcome: Result<impl std::fmt::Debug, Vec<Violation>>) -> Vec<(String, ViolationCode)> {
        outcome.unwrap_err().into_iter().map(|v| (v.field, v.code)).collect()
    }

    #[test]
    fn a_create_needs_an_id_or_an_owner() {
        let new = parse_create(json!({"owner": {"issuer": "https://a.test", "subject": "Team A"}})).unwrap();
        assert_eq!((new.id, new.claim.unwrap().as_str(), new.spec.tier.as_str()), (None, "Team A", "pro"));
        let new = parse_create(json!({"id": "team", "tier": "free", "suspended": true, "quota": {}})).unwrap();
        assert_eq!((new.id.unwrap().as_str(), new.spec.quota, new.spec.suspended), ("team", None, true));
        assert_eq!(faults(parse_create(json!({}))), [("id".to_owned(), ViolationCode::Required)]);
    }

    #[test]
    fn every_fault_is_listed() {
        let body = json!({"id": "A_B", "tier": "", "owner": {"issuer": "", "subject": "\u{1}"}, "colour": "red",
            "displayName": "x".repeat(257), "suspended": "no",
            "quota": {"cpuRequests": "lots", "memoryLimits": "1Xi", "pods": -1, "functions": "5", "gpus": 1}});
        let mut fields: Vec<_> = faults(parse_create(body)).into_iter().map(|(field, _)| field).collect();
        fields.sort();
        let expected = [
            "colour",
            "displayName",
            "id",
            "owner.issuer",
            "owner.subject",
            "quota.cpuRequests",
            "quota.functions",
            "quota.gpus",
            "quota.memoryLimits",
            "quota.pods",
            "suspended",
            "tier",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn id_and_owner_stay() {
        let owner = TenantOwner { issuer: "i".into(), subject: "s".into() };
        let old =
            TenantSpec { tier: "pro".into(), owner: Some(owner), display_name: None, quota: None, suspended: false };
        let mut body = serde_json::to_value(&old).unwrap();
        body["tier"] = json!("free");
        assert_eq!(parse_change("a", &old, body.clone()).unwrap().tier, "free");
        body["id"] = json!("b");
        body["owner"]["subject"] = json!("t");
        let expected = ["id", "owner"].map(|field| (field.to_owned(), ViolationCode::Immutable));
        assert_eq!(faults(parse_change("a", &old, body)), expected);
    }
}
