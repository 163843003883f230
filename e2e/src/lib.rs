//! End to end: the real gateway and controller, started once per test process against the cluster that
//! `devcluster run --node` provides, and callers that speak HTTP to them as anybody would. Only tests use this.

/// The platform's processes.
pub mod platform;
/// A tenant's user with a token.
pub mod caller;
/// Waiting for something to become true.
pub mod eventually;
