//! The Function: what a tenant asks for (`FunctionSpec`, as written), what it means (`ValidSpec`, parsed,
//! defaults filled in) and what became of it (`FunctionStatus`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::image::ImageRef;
use crate::names::EnvName;
use crate::resources::{PodResources, Resources};
use crate::violation::{Fields, Violation, ViolationCode};

/// Most pods a function may ask for.
pub const REPLICAS_MAX: i32 = 100;
/// Most entries of `command` and of `args`.
pub const WORDS_MAX: usize = 64;
/// Longest entry of `command` and of `args`, in bytes.
pub const WORD_MAX: usize = 4096;
/// Most environment variables.
pub const ENV_MAX: usize = 128;
/// Longest value of an environment variable, in bytes.
pub const ENV_VALUE_MAX: usize = 32 * 1024;
/// Longest time-out, in seconds (a day).
pub const TIMEOUT_MAX: i64 = 86_400;
/// Time-out when none is written, in seconds.
pub const TIMEOUT_DEFAULT: i64 = 60;

/// What a tenant asks for, as written. Serves as the custom resource's `spec`, as the stored intent and as the
/// body of the HTTP API, so it is one word in all three. [`FunctionSpec::parse`] says whether it makes sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::CustomResource, kube::KubeSchema))]
#[cfg_attr(
    feature = "crd",
    kube(
        group = "eventflow.eventflow.io",
        version = "v1alpha1",
        kind = "Function",
        plural = "functions",
        shortname = "fn",
        category = "eventflow",
        namespaced,
        status = "FunctionStatus",
        derive = "PartialEq",
        doc = "A container image that runs as a function of one tenant.",
        scale(
            spec_replicas_path = ".spec.replicas",
            status_replicas_path = ".status.replicas",
            label_selector_path = ".status.selector"
        ),
        validation = kube::core::Rule::new("self.metadata.name.size() <= 60 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
            .message("metadata.name must be a DNS label of at most 60 characters"),
        printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
        printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
        printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
        printcolumn(
            name = "Reason",
            type_ = "string",
            json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
        ),
        printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[cfg_attr(feature = "crd", schemars(extend("x-kubernetes-map-type" = "atomic")))]
pub struct FunctionSpec {
    /// The container image, such as `registry.example/team/app:1.0`.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 512)),
        x_kube(validation = kube::core::Rule::new(IMAGE_RULE).message("must be an image reference such as registry.example/team/app:1.0"))
    )]
    pub image: String,
    /// Replaces the image's entry point. At most 64 entries of at most 4,096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 64), inner(length(max = 4096))))]
    pub command: Vec<String>,
    /// Arguments to the command. At most 64 entries of at most 4,096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 64), inner(length(max = 4096))))]
    pub args: Vec<String>,
    /// Environment variables. At most 128, values of at most 32 KiB. Names starting with EVENTFLOW_ are the platform's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(
        feature = "crd",
        schemars(extend("maxProperties" = 128), inner(length(max = 32768))),
        x_kube(validation = kube::core::Rule::new("self.all(k, k.size() <= 128 && k.matches('^[A-Za-z_][A-Za-z0-9_]*$') && !k.startsWith('EVENTFLOW_'))")
            .message("names must consist of letters, digits and '_', not start with a digit or with EVENTFLOW_"))
    )]
    pub env: BTreeMap<String, String>,
    /// How many pods run, 0 to 100.
    #[serde(default = "one")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 100)))]
    pub replicas: i32,
    /// The port the program serves HTTP on. Set: the function can be called, and is ready once the port answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 65535)))]
    pub port: Option<i32>,
    /// Who may call the function at its own host name. At its path in the API it is always a token of the tenant's.
    #[serde(default, skip_serializing_if = "CallerAuth::is_default")]
    pub auth: CallerAuth,
    /// CPU and memory of each pod.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new(RESOURCES_RULE).message("must be quantities such as 100m or 128Mi; requests at most their limits, memoryLimit at least 8Mi")))]
    pub resources: Resources,
    /// Longest time one call may take, in seconds, 1 to 86,400.
    #[serde(default = "timeout_default")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 86400)))]
    pub timeout_seconds: i64,
    /// Set: no pods run, and everything else is kept.
    #[serde(default)]
    pub suspend: bool,
}

/// What [`ImageRef`] accepts, in CEL.
#[cfg(feature = "crd")]
const IMAGE_RULE: &str = concat!(
    r"self.matches('^(([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*(:[0-9]+)?)/)?",
    r"[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*",
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$')"
);

/// What [`Resources::parse`] accepts, in CEL.
#[cfg(feature = "crd")]
const RESOURCES_RULE: &str = concat!(
    "(!has(self.cpuRequest) || (isQuantity(self.cpuRequest) && !quantity(self.cpuRequest).isLessThan(quantity('0'))))",
    " && (!has(self.memoryRequest) || (isQuantity(self.memoryRequest) && !quantity(self.memoryRequest).isLessThan(quantity('0'))))",
    " && (!has(self.cpuLimit) || (isQuantity(self.cpuLimit) && quantity(self.cpuLimit).isGreaterThan(quantity('0'))))",
    " && (!has(self.memoryLimit) || (isQuantity(self.memoryLimit) && !quantity(self.memoryLimit).isLessThan(quantity('8Mi'))))",
    " && (!has(self.cpuRequest) || !has(self.cpuLimit) || !quantity(self.cpuRequest).isGreaterThan(quantity(self.cpuLimit)))",
    " && (!has(self.memoryRequest) || !has(self.memoryLimit) || !quantity(self.memoryRequest).isGreaterThan(quantity(self.memoryLimit)))",
);

fn one() -> i32 {
    1
}

fn timeout_default() -> i64 {
    TIMEOUT_DEFAULT
}

/// What a spec means: every field checked, defaults filled in. Two specs that parse to equal values ask for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidSpec {
    /// The container image.
    pub image: ImageRef,
    /// Replaces the image's entry point unless empty.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<EnvName, String>,
    /// Pods asked for, 0 to 100, `suspend` not yet counted.
    pub replicas: u32,
    /// HTTP port.
    pub port: Option<u16>,
    /// Who may call it at its own host name.
    pub auth: CallerAuth,
    /// CPU and memory of each pod.
    pub resources: PodResources,
    /// Longest time of a call, in seconds.
    pub timeout_seconds: u32,
    /// No pods run.
    pub suspend: bool,
}

impl FunctionSpec {
    /// Reads a spec from the fields of a JSON object; faults of type are left in `fields`.
    pub fn read(fields: &mut Fields) -> Self {
        Self {
            image: fields.required_text("image"),
            command: fields.texts("command"),
            args: fields.texts("args"),
            env: fields.text_map("env"),
            replicas: fields.integer("replicas").map_or(1, saturate),
            port: fields.integer("port").map(saturate),
            auth: read_auth(fields),
            resources: fields.object("resources", Resources::read),
            timeout_seconds: fields.integer("timeoutSeconds").unwrap_or(TIMEOUT_DEFAULT),
            suspend: fields.boolean("suspend").unwrap_or(false),
        }
    }

    /// Checks every field and fills in the defaults, or says everything that is wrong.
    pub fn parse(&self) -> Result<ValidSpec, Vec<Violation>> {
        let mut violations = Vec::new();
        let image = self.image.parse().map_err(|e| violations.push(Violation::new("image", ViolationCode::Format, e)));
        check_words("command", &self.command, &mut violations);
        check_words("args", &self.args, &mut violations);
        let env = parse_env(&self.env, &mut violations);
        let replicas = within("replicas", i64::from(self.replicas), 0, i64::from(REPLICAS_MAX), &mut violations);
        let port = self.port.map(|p| within("port", i64::from(p), 1, 65_535, &mut violations));
        let timeout_seconds = within("timeoutSeconds", self.timeout_seconds, 1, TIMEOUT_MAX, &mut violations);
        let resources = self.resources.parse().map_err(|v| violations.extend(v));
        match (image, resources) {
            (Ok(image), Ok(resources)) if violations.is_empty() => Ok(ValidSpec {
                image,
                command: self.command.clone(),
                args: self.args.clone(),
                env,
                replicas,
                port: port.map(|p| p as u16),
                auth: self.auth,
                resources,
                timeout_seconds,
                suspend: self.suspend,
            }),
            _ => Err(violations),
        }
    }
}

impl ValidSpec {
    /// Pods that should run now: none while suspended.
    #[must_use]
    pub fn wanted_replicas(&self) -> u32 {
        if self.suspend { 0 } else { self.replicas }
    }
}

/// Who may call a function at its own host name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum CallerAuth {
    /// Callers of the function's tenant, with a token.
    #[default]
    Platform,
    /// Everybody; who the caller is, is the function's own business.
    None,
}

impl CallerAuth {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn read_auth(fields: &mut Fields) -> CallerAuth {
    match fields.text("auth").as_deref() {
        None | Some("platform") => CallerAuth::Platform,
        Some("none") => CallerAuth::None,
        Some(_) => {
            fields.fault("auth", ViolationCode::Format, "must be platform or none");
            CallerAuth::Platform
        }
    }
}

fn saturate(n: i64) -> i32 {
    n.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

pub(crate) fn within(field: &str, value: i64, min: i64, max: i64, violations: &mut Vec<Violation>) -> u32 {
    if value < min || value > max {
        violations.push(Violation::new(field, ViolationCode::Range, format!("must be between {min} and {max}")));
    }
    value.clamp(min, max) as u32
}

pub(crate) fn check_words(field: &str, words: &[String], violations: &mut Vec<Violation>) {
    if words.len() > WORDS_MAX {
        violations.push(Violation::new(field, ViolationCode::Range, format!("must have at most {WORDS_MAX} entries")));
    }
    for (i, word) in words.iter().enumerate() {
        if word.len() > WORD_MAX {
            let message = format!("must be at most {WORD_MAX} bytes long");
            violations.push(Violation::new(format!("{field}[{i}]"), ViolationCode::Range, message));
        } else if word.contains('\0') {
            violations.push(Violation::new(format!("{field}[{i}]"), ViolationCode::Format, "must not contain NUL"));
        }
    }
}

pub(crate) fn parse_env(env: &BTreeMap<String, String>, violations: &mut Vec<Violation>) -> BTreeMap<EnvName, String> {
    if env.len() > ENV_MAX {
        violations.push(Violation::new("env", ViolationCode::Range, format!("must have at most {ENV_MAX} entries")));
    }
    let mut parsed = BTreeMap::new();
    for (name, value) in env {
        let field = || format!("env.{}", name.escape_debug());
        if value.len() > ENV_VALUE_MAX {
            let message = format!("must be at most {ENV_VALUE_MAX} bytes long");
            violations.push(Violation::new(field(), ViolationCode::Range, message));
        } else if value.contains('\0') {
            violations.push(Violation::new(field(), ViolationCode::Format, "must not contain NUL"));
        }
        match name.parse::<EnvName>() {
            Ok(name) => drop(parsed.insert(name, value.clone())),
            Err(e) => violations.push(Violation::new(field(), ViolationCode::Format, e)),
        }
    }
    parsed
}

/// Where a function stands, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Phase {
    /// On its way.
    #[default]
    Pending,
    /// Waits for room in the tenant's quota.
    Queued,
    /// Every pod asked for is ready.
    Running,
    /// Scaled to zero; the next call wakes it.
    Idle,
    /// Switched off by `suspend` or by the tenant's suspension.
    Suspended,
    /// Cannot run as it is; the conditions say why.
    Failed,
    /// Cannot be told.
    Unknown,
}

/// What became of a function. Written by the controller alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct FunctionStatus {
    /// Where it stands, in one word.
    pub phase: Phase,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods ready for long enough to count on.
    pub available_replicas: i32,
    /// Pods that are ready.
    pub ready_replicas: i32,
    /// Selects the function's pods; for `kubectl scale` and autoscalers.
    pub selector: String,
    /// The generation of the spec this speaks of.
    pub observed_generation: i64,
    /// When this was last written, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,
    /// What is true of the function, and why.
    #[cfg_attr(
        feature = "crd",
        schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))
    )]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> (FunctionSpec, Vec<Violation>) {
        let mut fields = Fields::of(value);
        let spec = FunctionSpec::read(&mut fields);
        (spec, fields.finish())
    }

    #[test]
    fn the_least_spec_takes_every_default() {
        let (spec, faults) = read(json!({"image": "hello:v1"}));
        assert!(faults.is_empty());
        let valid = spec.parse().unwrap();
        assert_eq!((valid.replicas, valid.port, valid.timeout_seconds, valid.suspend), (1, None, 60, false));
        assert_eq!(valid.resources, PodResources::default());
    }

    #[test]
    fn reading_and_serde_agree() {
        let value = json!({"image": "a:1", "command": ["/x"], "args": ["y"], "env": {"A": "1"}, "replicas": 3, "port": 8080,
            "auth": "none", "resources": {"cpuRequest": "1"}, "timeoutSeconds": 5, "suspend": true});
        let (spec, faults) = read(value.clone());
        assert!(faults.is_empty());
        assert_eq!(serde_json::from_value::<FunctionSpec>(value.clone()).unwrap(), spec);
        assert_eq!(serde_json::to_value(&spec).unwrap(), value);
    }

    #[test]
    fn every_fault_is_listed() {
        let (spec, faults) = read(json!({
            "image": "Bad Image", "command": vec!["x"; 65], "args": ["a\0b"], "env": {"1A": "x", "EVENTFLOW_X": "y"},
            "replicas": 101, "port": 0, "resources": {"cpuRequest": "2", "cpuLimit": "1"}, "timeoutSeconds": 0, "colour": "red"
        }));
        let mut fields: Vec<_> = faults.into_iter().chain(spec.parse().unwrap_err()).map(|v| v.field).collect();
        fields.sort();
        let expected = [
            "args[0]",
            "colour",
            "command",
            "env.1A",
            "env.EVENTFLOW_X",
            "image",
            "port",
            "replicas",
            "resources.cpuRequest",
            "timeoutSeconds",
        ];
        assert_eq!(fields, expected);
    }
}
