//! What the API tells, in words for people. Pure: a document in, text out.

/// Functions: rows and the long form.
pub mod function;
/// Runs of functions.
pub mod run;
/// The audit log.
pub mod audit;
/// The verdict of quota admission.
pub mod admission;
/// What happens.
pub mod events;
/// The quota, and explanations.
pub mod quota;
/// What calls came to.
pub mod usage;
/// Tenants and tiers.
pub mod tenants;
/// Policies.
pub mod policy;
/// Who one is.
pub mod me;
/// How it went wrong, and what to do next.
pub mod error;
/// Points in time.
pub mod time;
