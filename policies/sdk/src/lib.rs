//! Write EventFlow policies in Rust.
//!
//! A policy is a settings type and one pure function. The platform runs it in a fresh sandbox per decision; it has no
//! files, no network, no environment and no memory of earlier calls, only what the view says and the capabilities the
//! operator granted.
//!
//! ```
//! use eventflow_policy::{AdmissionPolicy, AdmissionVerdict, AdmissionView, Object, Settings, deny};
//!
//! /// The settings: parsed once, before any decision. Unknown fields should be refused.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! pub struct NoLatest {}
//!
//! impl Settings for NoLatest {}
//!
//! impl AdmissionPolicy for NoLatest {
//!     const NAME: &'static str = "no-latest";
//!     const VERSION: &'static str = "1.0.0";
//!     const SUMMARY: &'static str = "Refuses images without a tag or digest.";
//!
//!     fn admit(&self, view: &AdmissionView, object: &Object) -> AdmissionVerdict {
//!         if object.spec.image.contains(':') {
//!             AdmissionVerdict::Allow
//!         } else {
//!             deny(403, "tag-missing", format!("name a version of {}", object.spec.image)).into()
//!         }
//!     }
//! }
//!
//! eventflow_policy::export_admission_policy!(NoLatest);
//! # fn main() {}
//! ```
//!
//! Test it natively with `fixtures.json` ([`testing`]), build it with `policy-build` (one command, one component).
//! The contract itself, for other languages, is `policies/wit/`.

// The order in which a decision passes through them.
mod bindings;
/// Settings: JSON text to type, and the schema the platform checks them against.
pub mod settings;
/// What a policy is: the two traits.
pub mod policy;
/// The function a policy judges, parsed.
pub mod object;
/// Image references in their parts.
pub mod image;
/// What the host does for a policy that was granted it.
pub mod capability;
/// Short ways to say a verdict.
pub mod verdict;
/// Makes a policy's type the component's exports.
#[doc(hidden)]
pub mod export;
/// Runs a policy's fixtures natively.
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use bindings::types::{
    AdmissionChanges, AdmissionVerdict, AdmissionView, Amounts, Capability, Denial, FailureMode, Manifest, Operation,
    Pair, Rate, RequestChange, RequestChanges, RequestView, SettingsProblem, TenantView, TierLimits, Verdict,
};
pub use image::ImageParts;
pub use object::Object;
pub use policy::{AdmissionPolicy, RequestPolicy};
pub use settings::Settings;
pub use verdict::{allow_if, deny, patch, rate};

/// Quantities as Kubernetes writes them, read by the platform's own parser.
pub use eventflow_api::quantity::{Bytes, MilliCpu};

#[doc(hidden)]
pub use bindings::{admission_world, request_world};
