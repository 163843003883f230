//! The contract's types on the host's side, shaped after `policies/wit/types.wit`; wasmtime compares them with a
//! module's own at load, so a difference is a refused module and a failing test, never a misread byte. Their JSON form
//! is that of the fixtures.

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

/// Package of the contract.
pub const PACKAGE: &str = "eventflow:policy";
/// Versions of the package that this engine runs.
pub const ACCEPTED: &str = "1.x";

/// Which kind of question a policy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// On every API call and invocation.
    Request,
    /// On every create, update, delete and invocation of a function.
    Admission,
}

impl World {
    /// The export that makes a module a policy of this world.
    #[must_use]
    pub fn export(self) -> &'static str {
        match self {
            Self::Request => "check",
            Self::Admission => "admit",
        }
    }

    /// The world's name as text; a bounded metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request-policy",
            Self::Admission => "admission-policy",
        }
    }
}

/// An import a policy can be granted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ComponentType, Lift, Lower,
)]
#[serde(rename_all = "snake_case")]
#[component(enum)]
#[repr(u8)]
pub enum Capability {
    /// Lines for the decision log.
    #[component(name = "log")]
    Log,
    /// The time, frozen per decision.
    #[component(name = "clock")]
    Clock,
    /// Token buckets of the host.
    #[component(name = "counters")]
    Counters,
    /// What the tenant has.
    #[component(name = "context")]
    Context,
}

/// What becomes of a request whose policy failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[serde(rename_all = "snake_case")]
#[component(enum)]
#[repr(u8)]
pub enum FailureMode {
    /// Refused.
    #[component(name = "closed")]
    Closed,
    /// Let through.
    #[component(name = "open")]
    Open,
}

/// What is about to be done to a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[serde(rename_all = "snake_case")]
#[component(enum)]
#[repr(u8)]
pub enum Operation {
    /// Made.
    #[component(name = "create")]
    Create,
    /// Changed.
    #[component(name = "update")]
    Update,
    /// Removed.
    #[component(name = "delete")]
    Delete,
    /// Run.
    #[component(name = "invoke")]
    Invoke,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[serde(rename_all = "snake_case")]
#[component(enum)]
#[repr(u8)]
pub enum Level {
    /// For the author.
    #[component(name = "debug")]
    Debug,
    /// For the record.
    #[component(name = "info")]
    Info,
    /// Worth a look.
    #[component(name = "warn")]
    Warn,
    /// Needs one.
    #[component(name = "error")]
    Error,
}

/// A name and a value: a header, a claim, a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// Rates and ceilings of a tier as they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct TierLimits {
    /// Sustained API calls and invocations per second.
    #[component(name = "requests-per-second")]
    pub requests_per_second: u32,
    /// Calls that may come at once.
    pub burst: u32,
    /// Invocations that may run at once.
    #[component(name = "concurrent-invocations")]
    pub concurrent_invocations: u32,
    /// Replicas of one function.
    #[component(name = "max-replicas-per-function")]
    pub max_replicas_per_function: u32,
    /// Longest time-out of one invocation, in seconds.
    #[component(name = "max-timeout-seconds")]
    pub max_timeout_seconds: u32,
}

/// Who asks and on whose behalf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct TenantView {
    /// The tenant's id.
    pub id: String,
    /// Name of the tenant's tier.
    pub tier: String,
    /// The tier's limits.
    pub limits: TierLimits,
}

/// One API call or invocation, before its body is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct RequestView {
    /// The id that answer, log and trace carry.
    #[component(name = "request-id")]
    pub request_id: String,
    /// Whose call it is.
    pub tenant: TenantView,
    /// Subject of the verified token.
    pub subject: String,
    /// `viewer`, `developer`, `owner` or `operator`.
    pub role: String,
    /// What is asked, from the route table.
    pub action: String,
    /// The function it is about, where it is about one.
    pub function: Option<String>,
    /// HTTP method in capitals.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query without the question mark.
    pub query: String,
    /// Headers, names in lower case; never `authorization` nor `cookie`.
    pub headers: Vec<Pair>,
    /// Claims the operator chose to show.
    pub claims: Vec<Pair>,
    /// Address of the caller as the gateway trusts it.
    #[component(name = "remote-address")]
    pub remote_address: String,
    /// Length of the body as declared.
    #[component(name = "content-length")]
    pub content_length: Option<u64>,
    /// Invocations of this tenant that this gateway carries now, this one among them if it is one.
    #[component(name = "in-flight")]
    pub in_flight: u32,
}

/// Amounts that a tenant's functions use or may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Amounts {
    /// Thousandths of a core, requests of all pods.
    #[component(name = "cpu-requests-milli")]
    pub cpu_requests_milli: u64,
    /// Bytes, requests of all pods.
    #[component(name = "memory-requests-bytes")]
    pub memory_requests_bytes: u64,
    /// Thousandths of a core, limits of all pods.
    #[component(name = "cpu-limits-milli")]
    pub cpu_limits_milli: u64,
    /// Bytes, limits of all pods.
    #[component(name = "memory-limits-bytes")]
    pub memory_limits_bytes: u64,
    /// Pods.
    pub pods: u64,
    /// Functions.
    pub functions: u64,
}

/// A function about to be created, changed, deleted or invoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct AdmissionView {
    /// The id that answer, log and trace carry.
    #[component(name = "request-id")]
    pub request_id: String,
    /// Whose function it is.
    pub tenant: TenantView,
    /// The caller, or field manager and user name when it comes by kubectl.
    pub subject: String,
    /// What is about to be done.
    pub operation: Operation,
    /// The function as it would be, as JSON: `metadata` and `spec`.
    pub object: String,
    /// The function as it is, for an update.
    pub old: Option<String>,
    /// What the tenant's functions use now.
    pub used: Amounts,
    /// What they may use at most.
    pub hard: Amounts,
    /// True if nothing will be changed whatever the verdict.
    #[component(name = "dry-run")]
    pub dry_run: bool,
}

/// A withdrawal from a token bucket of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Rate {
    /// Name of the limit, shown to the caller.
    pub name: String,
    /// Which bucket of the tenant and policy; empty for the tenant's own.
    pub key: String,
    /// Tokens this request costs.
    pub cost: u32,
    /// Tokens that come back per window.
    pub limit: u32,
    /// Size of the bucket.
    pub burst: u32,
    /// Length of the window in milliseconds.
    #[component(name = "window-ms")]
    pub window_ms: u32,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Denial {
    /// HTTP status, 400 to 499.
    pub status: u16,
    /// Machine-readable reason, `[a-z0-9-]{1,64}`.
    pub code: String,
    /// A sentence for the caller.
    pub message: String,
    /// When trying again makes sense, in milliseconds.
    #[component(name = "retry-after-ms")]
    pub retry_after_ms: Option<u32>,
}

/// Changes to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct RequestChanges {
    /// In the order they apply.
    pub changes: Vec<RequestChange>,
}

/// Changes to a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct AdmissionChanges {
    /// JSON Patch as text; empty for none.
    pub patch: String,
    /// Sentences for the caller.
    pub warnings: Vec<String>,
}

/// Something wrong with the settings that the schema cannot say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct SettingsProblem {
    /// JSON Pointer to the value.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// What a policy says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// The author's version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// Capabilities it means to use.
    pub capabilities: Vec<Capability>,
    /// JSON Schema of the settings, as text.
    #[component(name = "settings-schema")]
    pub settings_schema: String,
    /// What the author wants when it fails.
    #[component(name = "failure-mode")]
    pub failure_mode: FailureMode,
}

/// A function in few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct FunctionSummary {
    /// Its name.
    pub name: String,
    /// Its image as written.
    pub image: String,
    /// Replicas asked for.
    pub replicas: u32,
    /// Its phase.
    pub phase: String,
}

/// What came of a withdrawal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Taken {
    /// False if there were fewer tokens than the cost.
    pub allowed: bool,
    /// Tokens left, rounded down.
    pub remaining: u32,
    /// Milliseconds until the cost would be covered.
    #[component(name = "retry-after-ms")]
    pub retry_after_ms: u32,
}

/// What a policy decides about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[serde(rename_all = "snake_case")]
#[component(variant)]
pub enum Verdict {
    /// No objection.
    #[component(name = "allow")]
    Allow,
    /// No objection, with changes.
    #[component(name = "allow-with")]
    AllowWith(RequestChanges),
    /// Let through if the counter has room.
    #[component(name = "rate")]
    Rate(Rate),
    /// Refuse.
    #[component(name = "deny")]
    Deny(Denial),
}

/// What a policy decides about a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[serde(rename_all = "snake_case")]
#[component(variant)]
pub enum AdmissionVerdict {
    /// No objection.
    #[component(name = "allow")]
    Allow,
    /// No objection, with changes.
    #[component(name = "allow-with")]
    AllowWith(AdmissionChanges),
    /// Let through if the counter has room.
    #[component(name = "rate")]
    Rate(Rate),
    /// Refuse.
    #[component(name = "deny")]
    Deny(Denial),
}

/// The closed set of what a policy may change about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[serde(rename_all = "snake_case")]
#[component(variant)]
pub enum RequestChange {
    /// Sets a header towards the function.
    #[component(name = "set-header")]
    SetHeader(Pair),
    /// Removes a header towards the function.
    #[component(name = "remove-header")]
    RemoveHeader(String),
    /// Scheduling priority, 0 (last) to 9 (first).
    #[component(name = "set-priority")]
    SetPriority(u8),
    /// Shortens the time-out, in milliseconds.
    #[component(name = "set-timeout")]
    SetTimeout(u32),
    /// A note for audit log and trace.
    #[component(name = "annotate")]
    Annotate(Pair),
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 4] = [Self::Log, Self::Clock, Self::Counters, Self::Context];

    /// The interface of the package that it is imported by.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Clock => "clock",
            Self::Counters => "counters",
            Self::Context => "context",
        }
    }
}

impl Amounts {
    /// Nothing at all.
    pub const NONE: Self = Self {
        cpu_requests_milli: 0,
        memory_requests_bytes: 0,
        cpu_limits_milli: 0,
        memory_limits_bytes: 0,
        pods: 0,
        functions: 0,
    };
}
