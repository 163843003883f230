//! What the API tells, read with leniency: words stay words. A platform that is newer than this program may know more
//! phases and reasons, and one unknown word must not hide the rest.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A function.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The store's id.
    pub id: String,
    /// The tenant's namespace.
    pub namespace: String,
    /// Counts the changes.
    pub generation: i64,
    /// `applied` or `pending`.
    pub sync: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// The container image.
    pub image: String,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Pods asked for.
    pub replicas: i64,
    /// HTTP port.
    pub port: Option<i64>,
    /// CPU and memory of each pod, as written.
    pub resources: BTreeMap<String, String>,
    /// Longest time of a call.
    pub timeout_seconds: i64,
    /// No pods run.
    pub suspend: bool,
    /// What became of it.
    pub status: Status,
}

/// A run of a function.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The function's name.
    pub function: String,
    /// Where it stands.
    pub phase: String,
    /// Why it ended as it did.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Times its program was started.
    pub attempts: i64,
    /// Exit code of the last attempt.
    pub exit_code: Option<i64>,
    /// The run that it repeats.
    pub retry_of: String,
    /// RFC 3339, as are the following.
    pub created_at: String,
    /// When quota was reserved.
    pub admitted_at: String,
    /// When its program was first started.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
    /// Its time in seconds, split.
    pub timing: BTreeMap<String, i64>,
    /// The end of its log.
    pub log_tail: String,
}

impl Run {
    /// Reads a document, as far as it can be read.
    #[must_use]
    pub fn of(document: &Value) -> Self {
        serde_json::from_value(document.clone()).unwrap_or_default()
    }
}

/// What became of a function.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Where it stands, in one word.
    pub phase: String,
    /// Pods that exist.
    pub replicas: i64,
    /// Pods that are ready.
    pub ready_replicas: i64,
    /// The generation that this speaks of.
    pub observed_generation: i64,
    /// What is true, and why.
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When `status` changed, RFC 3339.
    pub last_transition_time: String,
}

/// A page of functions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Page {
    /// The functions of a page of functions.
    pub functions: Vec<Value>,
    /// The entries of a page of the audit log.
    pub entries: Vec<Value>,
    /// The decisions of a page of a policy's decisions.
    pub decisions: Vec<Value>,
    /// The tenants of a page of tenants.
    pub tenants: Vec<Value>,
    /// Leads to the next page.
    pub next_cursor: Option<String>,
}

/// Who is calling.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Me {
    /// The tenant acted for.
    pub tenant: String,
    /// Its namespace.
    pub namespace: String,
    /// Its tier.
    pub tier: String,
    /// The token's subject.
    pub subject: String,
    /// The token's issuer.
    pub issuer: String,
    /// Roles.
    pub roles: Vec<String>,
    /// Name.
    pub username: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
}

/// One thing somebody did.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuditEntry {
    /// RFC 3339.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// With what.
    pub target: String,
    /// The generation after it.
    pub generation: Option<i64>,
    /// Names the call in the platform's logs.
    pub request_id: Option<String>,
    /// What else is worth knowing.
    pub detail: Value,
}

/// The quota of a tenant.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuotaReport {
    /// The tenant's tier.
    pub tier: String,
    /// Nothing runs.
    pub suspended: bool,
    /// More is reserved than the limits allow.
    pub over_quota: bool,
    /// The hard limits.
    pub hard: BTreeMap<String, String>,
    /// What all functions hold together.
    pub reserved: BTreeMap<String, String>,
    /// What the pods are charged.
    pub used: Option<BTreeMap<String, String>>,
    /// Who waits.
    pub queued: Vec<Queued>,
    /// What each function wants and holds.
    pub functions: Vec<Share>,
}

/// A function that waits for quota.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Queued {
    /// Its name.
    pub name: String,
    /// Its place, from 1.
    pub position: u64,
    /// What is missing.
    pub shortfall: Vec<Shortfall>,
}

/// What is missing in one dimension.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Shortfall {
    /// Which.
    pub dimension: String,
    /// How much.
    pub missing: String,
}

/// What one function wants and holds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// What quota admission says.
    pub verdict: String,
    /// What it asks for, by dimension.
    pub wanted: Value,
    /// What it holds, by dimension.
    pub reserved: Value,
}

/// Why a function is in the state it is in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// Its name.
    pub name: String,
    /// Its state in one word.
    pub phase: String,
    /// The one thing to know.
    pub summary: String,
    /// The verdict of quota admission.
    pub admission: Value,
    /// What is true of it.
    pub conditions: Vec<Condition>,
    /// What the cluster reported.
    pub events: Vec<ClusterEvent>,
    /// Why there may be more events.
    pub events_missing: Option<String>,
}

/// Something the cluster reported.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ClusterEvent {
    /// RFC 3339.
    pub at: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Why, for programs.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// Of what.
    pub object: String,
    /// How often.
    pub count: i64,
}

/// What the cluster reported of a function.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FunctionEvents {
    /// Newest first.
    pub events: Vec<ClusterEvent>,
    /// There may be others.
    pub more: bool,
}

/// How a function stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionEvent {
    /// Its name.
    pub name: String,
    /// Counts the changes of its spec.
    pub generation: Option<i64>,
    /// Its state in one word.
    pub phase: String,
    /// Pods that exist.
    pub replicas: i64,
    /// Pods that are ready.
    pub ready_replicas: i64,
    /// It is being taken down.
    pub deleting: bool,
    /// What is true of it.
    pub conditions: Vec<Condition>,
}

/// How the quota stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct QuotaEvent {
    /// The hard limits.
    pub hard: std::collections::BTreeMap<String, String>,
    /// What is reserved.
    pub reserved: std::collections::BTreeMap<String, String>,
    /// How many functions wait.
    pub queued: i64,
}

/// What calls came to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// From when on.
    pub from: String,
    /// Up to before when.
    pub to: String,
    /// Step by step.
    pub steps: Vec<UsageStep>,
}

/// What calls came to within one step.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageStep {
    /// Its beginning.
    pub from: String,
    /// The function, if each was asked for.
    pub function: Option<String>,
    /// Calls in all.
    pub calls: i64,
    /// Calls by how they ended.
    pub outcomes: std::collections::BTreeMap<String, i64>,
    /// How long they took together.
    pub run_seconds: f64,
    /// Bytes of their answers.
    pub bytes_out: i64,
}

/// A tenant, as operators see it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// RFC 3339.
    pub created_at: String,
    /// Its tier.
    pub tier: String,
    /// Issuer and subject.
    pub owner: Value,
    /// What people call it.
    pub display_name: Option<String>,
    /// Deviations from the tier.
    pub quota: Option<Value>,
    /// Nothing runs.
    pub suspended: bool,
    /// What is true of it.
    pub conditions: Vec<Condition>,
}

/// A tier, as operators see it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// How many tenants are of it.
    pub tenants: u64,
    /// The hard limits.
    pub quota: Value,
}

impl Function {
    /// Reads a document of the API.
    #[must_use]
    pub fn of(document: &Value) -> Self {
        // A field of another type than it has today hides the rest, so nothing but the name is kept then.
        serde_json::from_value(document.clone()).unwrap_or_else(|_| Self {
            name: document["name"].as_str().unwrap_or_default().to_owned(),
            ..Self::default()
        })
    }

    /// The condition of that type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_word_hides_nothing() {
        let document = json!({"name": "a", "image": "b", "colour": "red", "status": {"phase": "Dreaming",
            "conditions": [{"type": "Asleep", "status": "True", "reason": "Night", "extra": 1}]}});
        let function = Function::of(&document);
        assert_eq!(
            (function.status.phase.as_str(), function.status.conditions[0].reason.as_str()),
            ("Dreaming", "Night")
        );
        assert_eq!(Function::of(&json!({"name": "a", "replicas": "many"})).name, "a");
    }

    #[test]
    fn the_api_s_own_documents_are_read_whole() {
        let (name, spec, _) = eventflow_api::http::parse_create(json!({"name": "a", "image": "b", "port": 1})).unwrap();
        let status = eventflow_api::function::FunctionStatus::default();
        let function = eventflow_api::http::Function {
            name,
            spec,
            status,
            id: "i".into(),
            namespace: "n".into(),
            generation: 3,
            sync: eventflow_api::http::Sync::Pending,
            created_at: "c".into(),
            updated_at: "u".into(),
            admission: None,
        };
        let view = Function::of(&serde_json::to_value(&function).unwrap());
        assert_eq!((view.generation, view.sync.as_str(), view.port, view.timeout_seconds), (3, "pending", Some(1), 60));
        assert_eq!(view.status.phase, "Pending");
    }
}
