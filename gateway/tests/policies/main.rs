//! Policies through the API: their life, what they do to requests and to changes of functions, and what happens when
//! they are bad or change under load.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

#[path = "../common/mod.rs"]
mod common;

/// Operators and components.
mod bed;
/// Upload to deletion.
mod lifecycle;
/// What policies do to requests and changes.
mod enforcement;
/// Bad policies.
mod failures;
/// Several replicas, and changes under load.
mod swap;
/// A replica that dies in the middle of a change.
mod crash;
