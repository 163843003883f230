//! Bodies of the operators' routes for policies. A policy is a WebAssembly component under the name of its manifest; an
//! upload makes an immutable *revision* of it; a *binding* puts it in force for someone, with settings.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `GET /v1/policies` | | `PolicyList` |
//! | `POST /v1/policies` | the component, `application/wasm` | 201 `Uploaded`; 200 if this very module is there already; 422 `policy-refused` with every problem |
//! | `GET /v1/policies/{name}` | | `Policy`, with an `ETag` |
//! | `DELETE /v1/policies/{name}` | | 204; 409 `policy-state` while it is bound |
//! | `GET /v1/policies/{name}/revisions` | | `RevisionList` |
//! | `GET /v1/policies/{name}/bindings` | | `BindingList` |
//! | `PUT /v1/policies/{name}/bindings/{binding}` | `BindingRequest` | `Policy` |
//! | `DELETE /v1/policies/{name}/bindings/{binding}` | | `Policy` |
//! | `POST /v1/policies/{name}:shadow`, `:canary`, `:activate` | `Rollout` | `Policy` |
//! | `POST /v1/policies/{name}:rollback` | `Rollout`, of which only `binding` counts | `Policy` |
//! | `POST /v1/policies/{name}:evaluate` | `Evaluate` | `Evaluation` |
//! | `GET /v1/policies/{name}/shadow` | | `ShadowReport` |
//! | `GET /v1/policies/{name}/decisions` | query `limit`, `cursor` | `DecisionList` |
//! | `GET /v1/policies/{name}/history` | query `limit`, `cursor` | `crate::http::AuditList` |
//! | `GET /v1/policy-groups` | | `GroupList` |
//! | `PUT /v1/policy-groups/{name}`, `DELETE` | `GroupRequest` | `Group`; 204 |
//!
//! Every write takes `If-Match` with the policy's `ETag` and then fails with 412 if another operator was quicker. A
//! verb on a policy without a binding makes one of the policy's name, for everyone.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which kind of question a policy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// On every API call and invocation.
    Request,
    /// On every create, update, delete and invocation of a function.
    Admission,
}

/// What becomes of a request whose policy failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureMode {
    /// Refused with 503.
    Closed,
    /// Let through.
    Open,
}

/// Whom a binding is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "name")]
pub enum Scope {
    /// Every tenant.
    #[default]
    Everyone,
    /// Tenants of this tier.
    Tier(String),
    /// This tenant.
    Tenant(String),
}

/// How the verdicts of a group's members become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupKind {
    /// All must allow.
    All,
    /// One must allow.
    Any,
    /// The first member whose scope covers the tenant decides alone.
    FirstMatch,
}

/// How a revision is tried out beside the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialMode {
    /// Judged on every request, never enforced.
    Shadow,
    /// Decides for a share of the requests and for named tenants.
    Canary,
}

/// Where a revision comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Uploaded by an operator.
    Upload,
    /// Shipped with the gateway.
    Builtin,
}

/// Whether a revision is good for use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevisionStatus {
    /// Passed everything at upload.
    Accepted,
    /// Failed in use and was rolled back by the platform.
    RolledBack,
}

/// What the smoke test of an upload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smoke {
    /// Cases that ran.
    pub cases: usize,
    /// Half of the decisions took at most this long, in microseconds.
    pub p50_us: u64,
    /// 99 % of the decisions took at most this long, in microseconds.
    pub p99_us: u64,
    /// Bytes of the largest memory.
    pub memory_bytes: usize,
}

/// A module as uploaded; never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Counts the policy's revisions, from 1.
    pub number: i32,
    /// SHA-256 of the module, in hexadecimal: its identity.
    pub digest: String,
    /// Bytes of the module.
    pub size: i64,
    /// The author's own version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// What it can judge.
    pub worlds: Vec<World>,
    /// Capabilities that it imports.
    pub capabilities: Vec<String>,
    /// JSON Schema of its settings.
    pub settings_schema: Value,
    /// What the author wants when it fails.
    pub failure_mode: FailureMode,
    /// Where it comes from.
    pub source: Source,
    /// Whether it is good for use.
    pub status: RevisionStatus,
    /// The smoke test.
    pub smoke: Smoke,
    /// Who uploaded it.
    pub uploaded_by: String,
    /// RFC 3339 in UTC.
    pub created_at: String,
}

/// A revision that is tried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The revision.
    pub revision: i32,
    /// Its identity.
    pub digest: String,
    /// How.
    pub mode: TrialMode,
    /// Of a canary: the share of the requests, in percent, in steps of 0.01.
    pub percent: f64,
    /// Of a canary: tenants for which it decides always.
    pub tenants: Vec<String>,
    /// Its settings.
    pub settings: Value,
    /// RFC 3339 in UTC.
    pub since: String,
}

/// A policy put in force for someone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// Unique on the platform.
    pub name: String,
    /// The policy.
    pub policy: String,
    /// Which question it is asked.
    pub world: World,
    /// Whom it is about.
    pub scope: Scope,
    /// Lower runs earlier; within a group, among its members.
    pub order: i32,
    /// What becomes of a request when it fails.
    pub failure_mode: FailureMode,
    /// The group it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Settings of the active revision.
    pub settings: Value,
    /// The revision that decides; none while a first one is tried out, or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<i32>,
    /// The active revision's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_digest: Option<String>,
    /// The revision that is tried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// RFC 3339 in UTC.
    pub updated_at: String,
}

/// A policy with its bindings and revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Counts the changes; the `ETag` is made of it.
    pub version: i64,
    /// Where it is in force.
    pub bindings: Vec<Binding>,
    /// Newest first.
    pub revisions: Vec<Revision>,
    /// RFC 3339 in UTC.
    pub updated_at: String,
}

/// A policy that a gateway cannot put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadProblem {
    /// The binding; requests in its scope get its failure mode.
    pub binding: String,
    /// The policy.
    pub policy: String,
    /// What is wrong.
    pub message: String,
}

/// One replica of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Another one for every start.
    pub id: String,
    /// The machine's or pod's name.
    pub name: String,
    /// The set of policies it runs.
    pub set_revision: i64,
    /// RFC 3339 in UTC.
    pub started_at: String,
    /// RFC 3339 in UTC.
    pub seen_at: String,
    /// What it cannot put in force.
    pub problems: Vec<LoadProblem>,
}

/// Every policy, and what runs where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyList {
    /// By name.
    pub policies: Vec<Policy>,
    /// The set of policies that every replica is to run; grows with every change.
    pub set_revision: i64,
    /// Replicas of the gateway that are alive.
    pub replicas: Vec<Replica>,
}

/// Answer to an upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Uploaded {
    /// The policy's name, from the manifest.
    pub policy: String,
    /// The revision.
    pub revision: Revision,
    /// False if this very module was there already.
    pub created: bool,
}

/// A policy's revisions, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionList {
    /// Newest first.
    pub revisions: Vec<Revision>,
}

/// A policy's bindings, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindingList {
    /// In order.
    pub bindings: Vec<Binding>,
}

/// Makes a binding, or replaces one; what it runs stays as it is. New settings of a binding with an active revision are
/// in force at once, and `:rollback` takes them back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingRequest {
    /// May be left out if the newest revision has one world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<World>,
    /// Everyone if left out.
    #[serde(default)]
    pub scope: Scope,
    /// 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
    /// What the newest revision's author wants if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<FailureMode>,
    /// A group of the same world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `{}` if left out.
    #[serde(default = "no_settings")]
    pub settings: Value,
}

fn no_settings() -> Value {
    Value::Object(Map::new())
}

/// A revision by its number, or by at least 8 digits of its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RevisionRef {
    /// By number.
    Number(i32),
    /// By the beginning of its digest.
    Digest(String),
}

/// Tries a revision out, or puts it in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// If left out: the one that is tried out, otherwise the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionRef>,
    /// One binding; all of the policy's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// If left out: the trial's, otherwise the binding's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// `:canary` only: share of the requests, 0 to 100 in steps of 0.01; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// `:canary` only: tenants for which it decides always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
}

/// What to judge, and with what. One of `request`, `admission` and `function` is needed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The newest if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionRef>,
    /// Whose settings to take, unless `settings` says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// `{}` if neither these nor a binding is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// A request view, laid over a complete default one, as in a policy's `fixtures.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// An admission view, laid over a complete default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Value>,
    /// A function as it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<StoredFunction>,
}

/// Names a tenant's function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFunction {
    /// The tenant's id.
    pub tenant: String,
    /// The function's name.
    pub name: String,
    /// `create`, `update`, `delete` or `invoke`; `create` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// One difference between two documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// JSON Pointer.
    pub path: String,
    /// Absent if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// A line that a policy wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The text.
    pub message: String,
}

/// What a revision says, and what that took. Nothing is changed and no counter is drawn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The revision that was asked.
    pub revision: i32,
    /// The verdict as in a policy's `fixtures.json`; absent if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Value>,
    /// What it did instead of answering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What it would change about the object.
    pub changes: Vec<Change>,
    /// The lines it wrote.
    pub log: Vec<LogLine>,
    /// How long it took, in microseconds.
    pub time_us: u64,
    /// Bytes of its memory.
    pub memory_bytes: usize,
}

/// One policy's part in judging one request. Kept for refusals, failures and differences, and for a sample of the rest;
/// without values of headers, of the query and of environment variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Grows with time.
    pub id: i64,
    /// RFC 3339 in UTC.
    pub at: String,
    /// Names the call in the platform's logs.
    pub request_id: String,
    /// Whose call it was.
    pub tenant: String,
    /// What was asked: `functions.create`, ...
    pub action: String,
    /// The function it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The set of policies that judged.
    pub set_revision: i64,
    /// The binding.
    pub binding: String,
    /// The revision's identity.
    pub digest: String,
    /// `active`, `canary` or `shadow`.
    pub role: String,
    /// `allow`, `change`, `deny`, `rate-limited` or `failed`.
    pub verdict: String,
    /// What it did, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Of a shadow: what was enforced, if that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced: Option<String>,
    /// Of a shadow: what it would have been, if that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_be: Option<String>,
    /// How long it took, in microseconds.
    pub time_us: i64,
    /// The lines it wrote.
    pub log: Vec<LogLine>,
}

/// A page of the decision log, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionList {
    /// This page.
    pub decisions: Vec<Decision>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// How a trial differs from what is enforced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialReport {
    /// The binding.
    pub binding: String,
    /// The revision's identity.
    pub digest: String,
    /// Decisions of the trial.
    pub decided: i64,
    /// Those that would have been, or were, another than the active one's; shadow only.
    pub differed: i64,
    /// Those that failed.
    pub failed: i64,
    /// RFC 3339 in UTC.
    pub since: String,
    /// The newest that differed.
    pub examples: Vec<Decision>,
}

/// What would change if the revisions in shadow decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// One per binding and revision.
    pub trials: Vec<TrialReport>,
}

/// Makes a group, or replaces one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRequest {
    /// World of all its members.
    pub world: World,
    /// How.
    pub kind: GroupKind,
    /// Lower runs earlier; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
}

/// Several bindings that give one verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// World of all its members.
    pub world: World,
    /// How.
    pub kind: GroupKind,
    /// Lower runs earlier.
    pub order: i32,
    /// Names of the member bindings, in order.
    pub members: Vec<String>,
}

/// All groups, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupList {
    /// In order.
    pub groups: Vec<Group>,
}

/// One policy's part in the trace of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The binding.
    pub binding: String,
    /// The policy.
    pub policy: String,
    /// The revision's identity.
    pub digest: String,
    /// `active`, `canary` or `shadow`.
    pub role: String,
    /// `allow`, `change`, `deny`, `rate-limited` or `failed`.
    pub verdict: String,
    /// How long it took, in microseconds.
    pub time_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rollout_may_say_nothing_and_nothing_unknown() {
        assert_eq!(serde_json::from_value::<Rollout>(json!({})).unwrap(), Rollout::default());
        assert!(serde_json::from_value::<Rollout>(json!({"revison": 1})).is_err());
        let by = |value: Value| serde_json::from_value::<RevisionRef>(value).unwrap();
        assert_eq!(by(json!(3)), RevisionRef::Number(3));
        assert_eq!(by(json!("ab12")), RevisionRef::Digest("ab12".to_owned()));
    }

    #[test]
    fn scopes_are_written_by_kind() {
        let text = |scope: &Scope| serde_json::to_value(scope).unwrap();
        assert_eq!(text(&Scope::Everyone), json!({"kind": "everyone"}));
        assert_eq!(text(&Scope::Tier("pro".into())), json!({"kind": "tier", "name": "pro"}));
        let binding: BindingRequest = serde_json::from_value(json!({"scope": {"kind": "everyone"}})).unwrap();
        assert_eq!(binding.settings, json!({}));
    }
}
