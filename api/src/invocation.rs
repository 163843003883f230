//! The Invocation: one run of a function as a Job. What is asked for (`InvocationSpec`), what it means
//! (`ValidInvocation`, parsed) and what became of it (`InvocationStatus`). It is short-lived: the object goes once its
//! record is safe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::function::{TIMEOUT_MAX, check_words, parse_env, within};
use crate::names::{EnvName, FunctionName};
use crate::violation::{Violation, ViolationCode};

/// Longest input, in bytes.
pub const INPUT_MAX: usize = 256 * 1024;
/// Most times a run is tried again.
pub const RETRIES_MAX: i64 = 10;
/// Longest result in a file, in bytes: what Kubernetes keeps of it. Longer ones go to standard output.
pub const RESULT_FILE_MAX: usize = 4096;
/// Longest result, in bytes.
pub const RESULT_MAX: usize = 256 * 1024;
/// Where the program finds its input, if there is one; the variable `EVENTFLOW_INPUT_FILE` says so.
pub const INPUT_FILE: &str = "/eventflow/input";
/// Where the program may write its result; the variable `EVENTFLOW_RESULT_FILE` says so.
pub const RESULT_FILE: &str = "/eventflow/result";

/// What is asked for. Nothing of it is to change but `cancel`, which only turns true; input, arguments and environment
/// are read once, when the run starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::CustomResource, kube::KubeSchema))]
#[cfg_attr(
    feature = "crd",
    kube(
        group = "eventflow.eventflow.io",
        version = "v1alpha1",
        kind = "Invocation",
        plural = "invocations",
        shortname = "inv",
        category = "eventflow",
        namespaced,
        status = "InvocationStatus",
        derive = "PartialEq",
        doc = "One run of a function, as a Job.",
        validation = kube::core::Rule::new("self.metadata.name.size() <= 58 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
            .message("metadata.name must be a DNS label of at most 58 characters"),
        printcolumn(name = "Function", type_ = "string", json_path = ".spec.function"),
        printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
        printcolumn(name = "Attempts", type_ = "integer", json_path = ".status.attempts"),
        printcolumn(name = "Exit-Code", type_ = "integer", json_path = ".status.exitCode"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[cfg_attr(
    feature = "crd",
    x_kube(
        validation = kube::core::Rule::new(UNCHANGED_RULE).message("only cancel can be changed; start another run"),
        validation = kube::core::Rule::new("!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)").message("cancel cannot be taken back")
    )
)]
pub struct InvocationSpec {
    /// The function to run, of the same namespace.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 60)),
        x_kube(validation = kube::core::Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("must be the name of a function"), validation = kube::core::Rule::new("self == oldSelf").message("cannot be changed; start another run"))
    )]
    pub function: String,
    /// What the program reads. At most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 262144)))]
    pub input: Option<String>,
    /// Replaces the function's arguments. At most 64 entries of at most 4,096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 64), inner(length(max = 4096))))]
    pub args: Option<Vec<String>>,
    /// Added to the function's environment variables, and over those of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(
        feature = "crd",
        schemars(extend("maxProperties" = 128), inner(length(max = 32768))),
        x_kube(validation = kube::core::Rule::new("self.all(k, k.size() <= 128 && k.matches('^[A-Za-z_][A-Za-z0-9_]*$') && !k.startsWith('EVENTFLOW_'))")
            .message("names must consist of letters, digits and '_', not start with a digit or with EVENTFLOW_"))
    )]
    pub env: BTreeMap<String, String>,
    /// Longest time of one attempt, in seconds, 1 to 86,400; the function's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 86400)))]
    pub timeout_seconds: Option<i64>,
    /// How often it is tried again after it failed, 0 to 10, with waits that double from 10 s.
    #[serde(default)]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 10)))]
    pub retries: i64,
    /// Set: it is not started any more, or ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
}

/// What the API server can compare within its budget for rules: what is long it cannot.
#[cfg(feature = "crd")]
const UNCHANGED_RULE: &str = concat!(
    "has(self.timeoutSeconds) == has(oldSelf.timeoutSeconds)",
    " && (!has(self.timeoutSeconds) || self.timeoutSeconds == oldSelf.timeoutSeconds)",
    " && self.retries == oldSelf.retries && has(self.input) == has(oldSelf.input)",
);

/// What a spec means: every field checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidInvocation {
    /// The function to run.
    pub function: FunctionName,
    /// What the program reads.
    pub input: Option<String>,
    /// Replaces the function's arguments.
    pub args: Option<Vec<String>>,
    /// Added to the function's environment.
    pub env: BTreeMap<EnvName, String>,
    /// Longest time of one attempt; the function's if absent.
    pub timeout_seconds: Option<u32>,
    /// How often it is tried again.
    pub retries: u32,
}

impl InvocationSpec {
    /// Checks every field, or says everything that is wrong. Fields are named as the custom resource names them.
    pub fn parse(&self) -> Result<ValidInvocation, Vec<Violation>> {
        let mut violations = Vec::new();
        let function = self.function.parse();
        if let Err(error) = &function {
            violations.push(Violation::new("function", ViolationCode::Format, error));
        }
        if let Some(input) = &self.input {
            check_input(input, &mut violations);
        }
        check_words("args", self.args.as_deref().unwrap_or_default(), &mut violations);
        let env = parse_env(&self.env, &mut violations);
        let timeout_seconds =
            self.timeout_seconds.map(|t| within("timeoutSeconds", t, 1, TIMEOUT_MAX, &mut violations));
        let retries = within("retries", self.retries, 0, RETRIES_MAX, &mut violations);
        match function {
            Ok(function) if violations.is_empty() => {
                let (input, args) = (self.input.clone(), self.args.clone());
                Ok(ValidInvocation { function, input, args, env, timeout_seconds, retries })
            }
            _ => Err(violations),
        }
    }
}

fn check_input(input: &str, violations: &mut Vec<Violation>) {
    if input.len() > INPUT_MAX {
        let message = format!("must be at most {INPUT_MAX} bytes long");
        violations.push(Violation::new("input", ViolationCode::Range, message));
    }
    if input.contains('\0') {
        violations.push(Violation::new("input", ViolationCode::Format, "must not contain NUL"));
    }
}

/// Where a run stands, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum RunPhase {
    /// Nobody has looked at it yet.
    #[default]
    Pending,
    /// Waits for room in the tenant's quota.
    Queued,
    /// Admitted; its program does not run yet, or not again yet.
    Starting,
    /// Its program runs.
    Running,
    /// Its program ended with exit code 0.
    Succeeded,
    /// It failed; the reason says why.
    Failed,
    /// Its caller does not want it any more, and nothing of it runs.
    Cancelled,
}

impl RunPhase {
    /// Whether it will never change again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Why a run ended as it did. Stable: programs may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum RunReason {
    /// Its program ended with exit code 0.
    Completed,
    /// Its program ended with another exit code.
    ExitCode,
    /// It took longer than its time-out.
    TimedOut,
    /// Its program was killed for using more memory than its limit.
    OutOfMemory,
    /// Its node took the pod away.
    Evicted,
    /// The image cannot be pulled.
    ImagePullFailed,
    /// The container cannot be set up: a missing command, a bad working directory.
    ContainerFailed,
    /// No node had room for it in time.
    Unschedulable,
    /// It can never fit the tenant's quota.
    ExceedsMaxQuota,
    /// There is no such function (any more), or it cannot be run.
    FunctionUnusable,
    /// It is malformed in a way its schema could not refuse.
    InvalidSpec,
    /// Its caller does not want it any more.
    Cancelled,
    /// Somebody else took it, its Job or its pod out of the cluster.
    Removed,
}

impl RunReason {
    /// The reason as text: `TimedOut`. A bounded metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::ExitCode => "ExitCode",
            Self::TimedOut => "TimedOut",
            Self::OutOfMemory => "OutOfMemory",
            Self::Evicted => "Evicted",
            Self::ImagePullFailed => "ImagePullFailed",
            Self::ContainerFailed => "ContainerFailed",
            Self::Unschedulable => "Unschedulable",
            Self::ExceedsMaxQuota => "ExceedsMaxQuota",
            Self::FunctionUnusable => "FunctionUnusable",
            Self::InvalidSpec => "InvalidSpec",
            Self::Cancelled => "Cancelled",
            Self::Removed => "Removed",
        }
    }
}

/// What became of a run. Written by the controller alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct InvocationStatus {
    /// Where it stands, in one word.
    pub phase: RunPhase,
    /// Why it ended as it did, once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<RunReason>,
    /// The same for people, or what it waits for; at most 1,024 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Times its program was started, or was to be.
    pub attempts: i32,
    /// Exit code of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When quota was reserved for it, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admitted_at: Option<String>,
    /// When its program was first started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The pod of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// What the program wrote into its result file, at most 4,096 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The generation of the spec this speaks of.
    pub observed_generation: i64,
    /// `QuotaReserved` and `Admitted`.
    #[cfg_attr(
        feature = "crd",
        schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))
    )]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> InvocationSpec {
        InvocationSpec { function: "hello".into(), ..InvocationSpec::default() }
    }

    #[test]
    fn the_least_spec_is_a_name() {
        let valid = spec().parse().unwrap();
        assert_eq!((valid.function.as_str(), valid.input, valid.retries), ("hello", None, 0));
        assert_eq!(serde_json::to_value(spec()).unwrap(), serde_json::json!({"function": "hello", "retries": 0}));
    }

    #[test]
    fn every_fault_is_listed() {
        let bad = InvocationSpec {
            function: "Bad Name".into(),
            input: Some("\0".repeat(INPUT_MAX + 1)),
            args: Some(vec!["a\0b".into()]),
            env: BTreeMap::from([("EVENTFLOW_X".into(), "y".into())]),
            timeout_seconds: Some(0),
            retries: 11,
            cancel: false,
        };
        let fields: Vec<_> = bad.parse().unwrap_err().into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["function", "input", "input", "args[0]", "env.EVENTFLOW_X", "timeoutSeconds", "retries"]);
        let most = InvocationSpec { input: Some("x".repeat(INPUT_MAX)), ..spec() };
        assert!(most.parse().is_ok());
    }

    #[test]
    fn text_and_serde_agree() {
        for reason in [RunReason::Completed, RunReason::OutOfMemory, RunReason::ExceedsMaxQuota, RunReason::Removed] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
