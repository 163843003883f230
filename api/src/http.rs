//! Bodies of the public HTTP API. Functions are one flat object: the fields of the spec as written, and beside
//! them what the platform adds; sending back what was read is a valid update.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission::Admission;
use crate::function::{FunctionSpec, FunctionStatus, ValidSpec};
use crate::names::{FunctionName, TenantId};
use crate::violation::{Fields, Violation, ViolationCode};

/// Runs of functions.
pub mod invocations;
/// What happens to functions and the quota.
pub mod events;
/// The tenant's quota, and why a function is in the state it is in.
pub mod quota;
/// Tenants, for operators.
pub mod tenants;
/// Tiers, for operators.
pub mod tiers;
/// What calls came to.
pub mod usage;

/// Fields of a [`Function`] that the platform sets; ignored in what callers send.
pub const READ_ONLY_FIELDS: [&str; 8] =
    ["id", "namespace", "generation", "sync", "createdAt", "updatedAt", "status", "admission"];

/// Whether the cluster was told what the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// The cluster holds this generation.
    Applied,
    /// Durable here, and will be applied to the cluster as soon as it can be reached.
    Pending,
}

/// A function, as answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// The function's name, unique among the tenant's live functions.
    pub name: FunctionName,
    /// The store's id, a UUID; a function made again under the same name has another.
    pub id: String,
    /// The tenant's namespace.
    pub namespace: String,
    /// Counts the changes of the spec, from 1. The `ETag` is made of it.
    pub generation: i64,
    /// Whether the cluster was told.
    pub sync: Sync,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC.
    pub updated_at: String,
    /// What the tenant asked for.
    #[serde(flatten)]
    pub spec: FunctionSpec,
    /// What became of it.
    pub status: FunctionStatus,
    /// The verdict of quota admission, in the answer to a write and to a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
}

/// Reads the body of a create; every fault is listed.
pub fn parse_create(body: Value) -> Result<(FunctionName, FunctionSpec, ValidSpec), Vec<Violation>> {
    let mut fields = Fields::of(body);
    let name = fields.required_text("name");
    let missing = name.is_empty();
    let name = name.parse::<FunctionName>();
    let (spec, mut violations) = read_spec(fields);
    if let Err(e) = &name
        && !(missing && violations.iter().any(|v| v.field == "name"))
    {
        violations.push(Violation::new("name", ViolationCode::Format, e));
    }
    match (name, spec.parse()) {
        (Ok(name), Ok(valid)) if violations.is_empty() => Ok((name, spec, valid)),
        (_, parsed) => Err(all(violations, parsed.err())),
    }
}

/// Reads the body of a replacement of `name`; every fault is listed. A `name` in the body must be the same.
pub fn parse_replace(name: &FunctionName, body: Value) -> Result<(FunctionSpec, ValidSpec), Vec<Violation>> {
    let mut fields = Fields::of(body);
    let renamed = fields.text("name").is_some_and(|n| n != name.as_str());
    let (spec, mut violations) = read_spec(fields);
    if renamed {
        violations.push(Violation::new("name", ViolationCode::Immutable, "cannot be changed; create another function"));
    }
    match spec.parse() {
        Ok(valid) if violations.is_empty() => Ok((spec, valid)),
        parsed => Err(all(violations, parsed.err())),
    }
}

fn read_spec(mut fields: Fields) -> (FunctionSpec, Vec<Violation>) {
    READ_ONLY_FIELDS.iter().for_each(|f| fields.ignore(f));
    let spec = FunctionSpec::read(&mut fields);
    (spec, fields.finish())
}

/// Adds what parsing found, leaving out fields that already have a fault (an absent image is also a malformed one).
fn all(mut violations: Vec<Violation>, parsed: Option<Vec<Violation>>) -> Vec<Violation> {
    for violation in parsed.unwrap_or_default() {
        if violations.iter().all(|v| v.field != violation.field) {
            violations.push(violation);
        }
    }
    violations
}

/// Applies an RFC 7396 merge patch.
pub fn merge_patch(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge_patch(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// A page of functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionList {
    /// This page.
    pub functions: Vec<Function>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What a caller may do within its tenant; each includes the ones before it but for `operator`, who rules the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, writes, invokes.
    Developer,
    /// Also tokens and tenant settings.
    Owner,
    /// The platform: policies, tenants, tiers.
    Operator,
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// The tenant acted for.
    pub tenant: TenantId,
    /// Its namespace.
    pub namespace: String,
    /// The tenant's tier, once known.
    pub tier: String,
    /// The token's subject.
    pub subject: String,
    /// The token's issuer.
    pub issuer: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// Name, if the token says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// E-mail address, if the token says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// Asks the development issuer for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Who; names the tenant.
    pub user_id: String,
    /// What people call them.
    #[serde(default)]
    pub username: String,
    /// E-mail address.
    #[serde(default)]
    pub email: String,
    /// Roles; none given means developer.
    #[serde(default)]
    pub roles: Vec<Role>,
}

/// A token of the development issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The bearer token.
    pub token: String,
    /// Who.
    pub user_id: String,
    /// What people call them.
    pub username: String,
    /// E-mail address.
    pub email: String,
    /// The tenant's namespace; for information, never read from a token.
    pub namespace: String,
}

/// One thing somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    /// The tenant it concerns, if it concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// RFC 3339 in UTC.
    pub at: String,
    /// The caller's subject, or the field manager of a change made in the cluster.
    pub actor: String,
    /// `function.create`, `function.update`, `function.delete`, `function.adopt`, `invocation.create`,
    /// `invocation.cancel`; of operators `tenant.create`,
    /// `tenant.update`, `tier.create`, `tier.update`, written before the deed, and each of these with `.failed` added
    /// if it was not done after all.
    pub action: String,
    /// The thing's name.
    pub target: String,
    /// The function's generation after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Names the call in the platform's logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What else is worth knowing.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// A page of the audit log, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditList {
    /// This page.
    pub entries: Vec<AuditEntry>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_read_is_a_valid_update() {
        let (name, spec, _) = parse_create(json!({"name": "hello", "image": "hello:v1", "port": 8080})).unwrap();
        let function = Function {
            name: name.clone(),
            id: "x".into(),
            namespace: "tenant-a".into(),
            generation: 1,
            sync: Sync::Applied,
            created_at: String::new(),
            updated_at: String::new(),
            spec: spec.clone(),
            status: FunctionStatus::default(),
            admission: Some(Admission::Undecided { why: "it is new".into() }),
        };
        assert_eq!(parse_replace(&name, serde_json::to_value(&function).unwrap()).unwrap().0, spec);
    }

    #[test]
    fn an_empty_create_lists_each_missing_field_once() {
        let faults = parse_create(json!({})).unwrap_err();
        assert_eq!(faults.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), ["name", "image"]);
        assert!(faults.iter().all(|v| v.code == ViolationCode::Required));
        assert_eq!(parse_create(json!(7)).unwrap_err()[0].code, ViolationCode::Type);
    }

    #[test]
    fn renaming_is_refused() {
        let faults = parse_replace(&"a".parse().unwrap(), json!({"name": "b", "image": "x"})).unwrap_err();
        assert_eq!((faults[0].field.as_str(), faults[0].code), ("name", ViolationCode::Immutable));
    }

    #[test]
    fn merge_patch_follows_rfc_7396() {
        let mut value = json!({"a": 1, "b": {"c": 2, "d": 3}});
        merge_patch(&mut value, json!({"a": null, "b": {"c": 4}, "e": {"f": null}}));
        assert_eq!(value, json!({"b": {"c": 4, "d": 3}, "e": {}}));
    }
}
