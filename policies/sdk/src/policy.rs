//! What a policy is: a type that is its own settings, and one pure function of settings and view.

use crate::settings::Settings;
use crate::{
    AdmissionVerdict, AdmissionView, Capability, FailureMode, Manifest, Object, RequestView, Verdict, settings,
};

/// A policy on every API call and invocation.
pub trait RequestPolicy: Settings {
    /// Name as in `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 characters.
    const NAME: &'static str;
    /// The author's version; usually `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// One sentence for the list of policies.
    const SUMMARY: &'static str;
    /// Capabilities the policy uses; uploading fails if it imports another.
    const CAPABILITIES: &'static [Capability] = &[];
    /// What should happen when the policy itself fails.
    const FAILURE_MODE: FailureMode = FailureMode::Closed;

    /// Decides. `self` is the settings.
    fn check(&self, request: &RequestView) -> Verdict;
}

/// A policy on every create, update, delete and invocation of a function.
pub trait AdmissionPolicy: Settings {
    /// Name as in `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 characters.
    const NAME: &'static str;
    /// The author's version; usually `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// One sentence for the list of policies.
    const SUMMARY: &'static str;
    /// Capabilities the policy uses; uploading fails if it imports another.
    const CAPABILITIES: &'static [Capability] = &[];
    /// What should happen when the policy itself fails.
    const FAILURE_MODE: FailureMode = FailureMode::Closed;

    /// Decides. `self` is the settings; `object` is `view.object`, parsed.
    fn admit(&self, view: &AdmissionView, object: &Object) -> AdmissionVerdict;
}

/// The manifest of a request policy.
#[must_use]
pub fn request_manifest<P: RequestPolicy>() -> Manifest {
    Manifest {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        summary: P::SUMMARY.to_owned(),
        capabilities: P::CAPABILITIES.to_vec(),
        settings_schema: settings::schema::<P>(),
        failure_mode: P::FAILURE_MODE,
    }
}

/// The manifest of an admission policy.
#[must_use]
pub fn admission_manifest<P: AdmissionPolicy>() -> Manifest {
    Manifest {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        summary: P::SUMMARY.to_owned(),
        capabilities: P::CAPABILITIES.to_vec(),
        settings_schema: settings::schema::<P>(),
        failure_mode: P::FAILURE_MODE,
    }
}
