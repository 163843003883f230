//! The invoke path, against a real API server and stand-ins for pods that do what pods should not.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

#[path = "../common/mod.rs"]
mod common;
/// Operators and components.
#[path = "../policies/bed.rs"]
mod operator;
/// Functions, their endpoints, and stand-ins for pods.
mod bed;
/// What gets through, and how.
mod passing;
/// Web sockets.
mod sockets;
/// What goes wrong, and whose fault it is.
mod faults;
/// Pods that come and go.
mod rollout;
/// The function's own host name.
mod host;
/// What policies make of invocations.
mod policies;
/// The database or the API server away.
mod outages;
/// What calls come to.
mod usage;
