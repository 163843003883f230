//! Admits images from listed registries and repositories, with the tags and digests asked for.

use eventflow_policy::settings::problem;
use eventflow_policy::{
    AdmissionPolicy, AdmissionVerdict, AdmissionView, ImageParts, Object, Operation, Settings, SettingsProblem,
    allow_if,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What an image must look like. An empty list does not limit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ImageAllowlist {
    /// Registries and repositories images may come from, by whole path segments: `ghcr.io/acme`.
    allowed: Vec<String>,
    /// Ones they may not come from, though allowed above.
    denied: Vec<String>,
    /// Tags that may not be used. An image without tag and digest has the tag `latest`.
    denied_tags: Vec<String>,
    /// Whether a tag or digest must be written.
    require_tag: bool,
    /// Whether a digest must be written.
    require_digest: bool,
    /// Digests images may have, where one is written; `sha256:` and 64 hexadecimal digits.
    digests: Vec<String>,
}

impl Settings for ImageAllowlist {
    fn problems(&self) -> Vec<SettingsProblem> {
        let mut problems = Vec::new();
        for (list, patterns) in [("allowed", &self.allowed), ("denied", &self.denied)] {
            for (i, pattern) in patterns.iter().enumerate() {
                if pattern.is_empty() || pattern.contains(['@', '*']) || pattern.starts_with('/') {
                    let message =
                        "must be a registry or repository such as ghcr.io/acme, without wildcard, tag or digest";
                    problems.push(problem(&format!("/{list}/{i}"), message));
                }
            }
        }
        for (i, digest) in self.digests.iter().enumerate() {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                problems
                    .push(problem(&format!("/digests/{i}"), "must be sha256: and 64 lower-case hexadecimal digits"));
            }
        }
        problems
    }
}

impl AdmissionPolicy for ImageAllowlist {
    const NAME: &'static str = "image-allowlist";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Admits images from listed registries, with the tags and digests asked for.";

    fn admit(&self, view: &AdmissionView, object: &Object) -> AdmissionVerdict {
        if view.operation == Operation::Delete {
            return AdmissionVerdict::Allow;
        }
        match ImageParts::parse(&object.spec.image) {
            Ok(image) => allow_if("image-not-allowed", &self.objections(&image)),
            Err(e) => allow_if("image-not-allowed", &[format!("image {e}")]),
        }
    }
}

impl ImageAllowlist {
    fn objections(&self, image: &ImageParts) -> Vec<String> {
        let mut objections = Vec::new();
        let place = format!("{}/{}", image.registry, image.repository);
        if !self.allowed.is_empty() && !self.allowed.iter().any(|p| image.is_under(p)) {
            objections.push(format!("{place} is not under {}", self.allowed.join(" or ")));
        }
        if let Some(pattern) = self.denied.iter().find(|p| image.is_under(p)) {
            objections.push(format!("{place} is under {pattern}, which is closed"));
        }
        if self.require_tag && image.tag.is_none() && image.digest.is_none() {
            objections.push("a tag or digest must be written".to_owned());
        }
        // A digest decides alone what runs, so the tag beside it is only a comment.
        let tag = image.tag.as_deref().unwrap_or("latest");
        if image.digest.is_none() && self.denied_tags.iter().any(|t| t == tag) {
            objections.push(format!("the tag {tag} is not allowed"));
        }
        match &image.digest {
            None if self.require_digest => objections.push("a digest must be written: name@sha256:...".to_owned()),
            Some(digest) if !self.digests.is_empty() && !self.digests.contains(digest) => {
                objections.push(format!("the digest {digest} is not on the list"));
            }
            _ => {}
        }
        objections
    }
}

eventflow_policy::export_admission_policy!(ImageAllowlist);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::admission::<super::ImageAllowlist>(include_str!("../fixtures.json"));
    }
}
