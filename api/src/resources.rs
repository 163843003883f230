//! CPU and memory of one pod of a function: what the caller writes, and what it comes to with the defaults.

use serde::{Deserialize, Serialize};

use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::violation::{Fields, Violation, ViolationCode};

/// Requests and limits as written; whatever is absent takes a default ([`Resources::parse`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Resources {
    /// CPU set aside for each pod, such as `100m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 32)))]
    pub cpu_request: Option<String>,
    /// Memory set aside for each pod, such as `128Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 32)))]
    pub memory_request: Option<String>,
    /// CPU that each pod may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 32)))]
    pub cpu_limit: Option<String>,
    /// Memory that each pod may use at most; over it the pod is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 32)))]
    pub memory_limit: Option<String>,
}

impl Resources {
    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the fields of a `resources` object.
    pub fn read(fields: &mut Fields) -> Self {
        Self {
            cpu_request: fields.text("cpuRequest"),
            memory_request: fields.text("memoryRequest"),
            cpu_limit: fields.text("cpuLimit"),
            memory_limit: fields.text("memoryLimit"),
        }
    }
}

/// Requests and limits of one pod, defaults filled in; each request is at most its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodResources {
    /// CPU set aside.
    pub cpu_request: MilliCpu,
    /// Memory set aside.
    pub memory_request: Bytes,
    /// Most CPU.
    pub cpu_limit: MilliCpu,
    /// Most memory.
    pub memory_limit: Bytes,
}

impl Default for PodResources {
    fn default() -> Self {
        Self {
            cpu_request: MilliCpu::from_millis(100),
            memory_request: Bytes::from_mebibytes(128),
            cpu_limit: MilliCpu::from_millis(500),
            memory_limit: Bytes::from_mebibytes(512),
        }
    }
}

/// Least memory limit with which a container runtime can start a process at all.
pub const MEMORY_LIMIT_MIN: Bytes = Bytes::from_mebibytes(8);

impl Resources {
    /// Fills in the defaults: 100m and 128Mi requested, 500m and 512Mi at most. A request over the default
    /// limit raises an absent limit to it; a limit under the default request lowers an absent request to it.
    pub fn parse(&self) -> Result<PodResources, Vec<Violation>> {
        let mut violations = Vec::new();
        let default = PodResources::default();
        let (cpu_request, cpu_limit) = pair(
            ["resources.cpuRequest", "resources.cpuLimit"],
            [&self.cpu_request, &self.cpu_limit],
            [default.cpu_request, default.cpu_limit],
            &mut violations,
        );
        let (memory_request, memory_limit) = pair(
            ["resources.memoryRequest", "resources.memoryLimit"],
            [&self.memory_request, &self.memory_limit],
            [default.memory_request, default.memory_limit],
            &mut violations,
        );
        if cpu_limit == MilliCpu::default() {
            violations.push(Violation::new("resources.cpuLimit", ViolationCode::Range, "must be more than 0"));
        }
        if memory_limit < MEMORY_LIMIT_MIN {
            let message = format!("must be at least {MEMORY_LIMIT_MIN}");
            violations.push(Violation::new("resources.memoryLimit", ViolationCode::Range, message));
        }
        if violations.is_empty() {
            Ok(PodResources { cpu_request, memory_request, cpu_limit, memory_limit })
        } else {
            Err(violations)
        }
    }
}

/// Request and limit of one dimension; `fields`, `texts` and `defaults` each hold request first, limit second.
fn pair<Q>(fields: [&str; 2], texts: [&Option<String>; 2], defaults: [Q; 2], violations: &mut Vec<Violation>) -> (Q, Q)
where
    Q: std::str::FromStr<Err = QuantityError> + Copy + Ord,
{
    let mut read = |i: usize| -> Option<Q> {
        let text = texts[i].as_ref()?;
        text.parse().map_err(|e| violations.push(Violation::new(fields[i], ViolationCode::Format, e))).ok()
    };
    let (request, limit) = (read(0), read(1));
    if let (Some(r), Some(l)) = (request, limit)
        && r > l
    {
        violations.push(Violation::new(fields[0], ViolationCode::Conflict, "must not be more than the limit"));
    }
    let written_limit = limit.unwrap_or(defaults[1].max(request.unwrap_or(defaults[1])));
    (request.unwrap_or(defaults[0].min(written_limit)), written_limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(texts: [&str; 4]) -> Resources {
        let [cpu_request, memory_request, cpu_limit, memory_limit] =
            texts.map(|t| (!t.is_empty()).then(|| t.to_owned()));
        Resources { cpu_request, memory_request, cpu_limit, memory_limit }
    }

    #[test]
    fn fills_in_defaults_that_fit() {
        assert_eq!(Resources::default().parse(), Ok(PodResources::default()));
        let raised = resources(["2", "", "", ""]).parse().unwrap();
        assert_eq!((raised.cpu_request.millis(), raised.cpu_limit.millis()), (2000, 2000));
        let lowered = resources(["", "", "", "64Mi"]).parse().unwrap();
        assert_eq!(
            (lowered.memory_request, lowered.memory_limit),
            (Bytes::from_mebibytes(64), Bytes::from_mebibytes(64))
        );
    }

    #[test]
    fn reports_every_fault() {
        let faults = resources(["2", "x", "1", "1Ki"]).parse().unwrap_err();
        let fields: Vec<_> = faults.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["resources.cpuRequest", "resources.memoryRequest", "resources.memoryLimit"]);
    }
}
