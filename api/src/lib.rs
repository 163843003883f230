//! EventFlow's shared nouns: names, quantities, custom resources, HTTP bodies and problem codes.
//!
//! Every other crate and the dashboard speak in these types. This crate never does I/O, knows no runtime and
//! compiles to wasm32; the custom resources themselves (which need kube's derive) sit behind the `crd` feature,
//! their plain `spec` and `status` types do not.

/// Names of tenants and functions, with their length budgets.
pub mod names;
/// Exact CPU and memory quantities in Kubernetes' grammar.
pub mod quantity;
/// Container image references.
pub mod image;
/// One field of bad input, and the collecting of all of them.
pub mod violation;
/// CPU and memory of one pod: what the caller writes, and what it comes to.
pub mod resources;
/// The Function: its spec, its parsed form, its status.
pub mod function;
/// The Invocation: one run of a function.
pub mod invocation;
/// Conditions, with their closed sets of types and reasons.
pub mod condition;
/// The Tier: what a tenant may use.
pub mod tier;
/// The verdict of quota admission, as every surface tells it.
pub mod admission;
/// The QuotaLedger: who holds what of a tenant's quota.
pub mod ledger;
/// The Tenant: who owns things.
pub mod tenant;
/// Labels, annotations and field managers that the parts agree on.
pub mod labels;
/// Problem documents (RFC 9457) and their closed set of codes.
pub mod problem;
/// Bodies of the public HTTP API.
pub mod http;
/// Bodies of the operators' routes for policies.
pub mod policy;
