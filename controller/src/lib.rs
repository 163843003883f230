//! EventFlow's controller: makes the cluster match Tenant, Tier and Function objects.
//!
//! It talks to the API server and to nothing else: no database, no HTTP API but its own health and metrics.

/// The custom resource definitions, as files of the chart.
pub mod crds;
/// Quota admission, the pure part: demand, order, ledger, verdict.
pub mod quota;
