//! The policy engine: everything between the bytes of an upload and a verdict.
//!
//! It is a crate of its own because two programs must run the *very same* engine: the gateway, which enforces, and the
//! command line's `eventflow policy test`, by which an author decides whether to upload. A second implementation for
//! one of them would make the tool's answer a guess.
//!
//! What it never does: speak HTTP, touch the database, look at the clock on behalf of a guest in the middle of a
//! decision, or panic over what a guest did. A guest's failure is a value ([`Failure`]); the caller decides what becomes
//! of the request (fail open or closed), or leaves it to [`set`], which follows the binding.

// In the order in which a module meets them: bytes, checks, machine code, settings, decision, verdict of the whole set.
/// Every limit on a guest, with its reason.
pub mod limits;
/// The contract's types, on the host's side.
pub mod types;
/// wasmtime's settings, the pool and the epoch ticker.
pub mod engine;
/// Hard bounds on a module's shape, checked before it is compiled.
pub mod scan;
/// A settings schema, bounded before it is built.
mod schema;
/// The threads that compile.
mod compiler;
/// Compiled modules on disk: private, keyed and authenticated.
pub mod cache;
/// What the host does for a guest during a call.
pub mod host;
/// An upload, validated and compiled.
pub mod module;
/// A module with settings, configured and frozen.
pub mod snapshot;
/// What makes an answer a verdict.
pub mod verdict;
/// One decision.
pub mod run;
/// Token buckets of the host.
pub mod counters;
/// What an admission policy's patch may touch.
pub mod patch;
/// The policies in force and how their verdicts become one.
pub mod set;
/// Test cases that travel with a module.
pub mod fixtures;

pub use cache::Cache;
pub use counters::Counters;
pub use engine::{EngineError, EngineOptions, Fallback, PolicyEngine};
pub use module::{Module, ModuleError, Problem};
pub use run::{Call, Decision, Failure};
pub use set::{Binding, PolicySet, Published};
pub use snapshot::{ConfigureError, Policy};
pub use types::{Capability, FailureMode, Manifest, World};
