//! Short ways to say a verdict.

use serde_json::Value;

use crate::{AdmissionChanges, AdmissionVerdict, Denial, Rate, Verdict};

/// A refusal with an HTTP status (400 to 499), a code for machines and a sentence for people.
#[must_use]
pub fn deny(status: u16, code: &str, message: impl Into<String>) -> Denial {
    Denial { status, code: code.to_owned(), message: message.into(), retry_after_ms: None }
}

/// A withdrawal of one token from the tenant's own bucket `name`, which refills with `per_second` tokens a second.
#[must_use]
pub fn rate(name: &str, per_second: u32, burst: u32) -> Rate {
    Rate { name: name.to_owned(), key: String::new(), cost: 1, limit: per_second, burst, window_ms: 1000 }
}

/// A JSON Patch as the verdict "allow, with these changes". The value must be a list of RFC 6902 operations.
#[must_use]
pub fn patch(operations: &Value) -> AdmissionVerdict {
    AdmissionVerdict::AllowWith(AdmissionChanges { patch: operations.to_string(), warnings: Vec::new() })
}

/// Allow if there are no objections, deny with all of them if there are.
#[must_use]
pub fn allow_if(code: &str, objections: &[String]) -> AdmissionVerdict {
    if objections.is_empty() { AdmissionVerdict::Allow } else { deny(403, code, objections.join("; ")).into() }
}

impl From<Denial> for Verdict {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

impl From<Denial> for AdmissionVerdict {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

impl From<Rate> for Verdict {
    fn from(rate: Rate) -> Self {
        Self::Rate(rate)
    }
}

impl From<Rate> for AdmissionVerdict {
    fn from(rate: Rate) -> Self {
        Self::Rate(rate)
    }
}
