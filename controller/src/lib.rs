//! EventFlow's controller: makes the cluster match Tenant, Tier and Function objects, and says what became of them.
//!
//! It talks to the API server and to nothing else: no database, no HTTP API but its own health and metrics.
//! Watches fill the [`world`]; changes become keys in the [`queue`]; a reconcile observes, validates, computes what
//! is [`desired`], applies it and writes the status.

/// The custom resource definitions, as files of the chart.
pub mod crds;
/// Flags and environment.
pub mod config;
/// Logs.
pub mod telemetry;
/// Start, leadership, shutdown.
pub mod run;
/// One leader at a time.
pub mod lease;
/// Watches of every kind, into the world.
pub mod watch;
/// What the watches say, in memory.
pub mod world;
/// Work to do, each key once.
pub mod queue;
/// One object brought in order.
pub mod reconcile;
/// What is known of one object at one moment.
pub mod observe;
/// From what was observed to what can be made, or why not.
pub mod validate;
/// Blocks of addresses.
pub mod cidr;
/// One tenant's ledger brought in order.
pub mod admission;
/// What should exist.
pub mod desired;
/// Digests for comparing without keeping.
pub mod digest;
/// Making objects be as they should.
pub mod apply;
/// What is said of tenants and functions.
pub mod status;
/// Events on transitions.
pub mod events;
/// Counters and gauges.
pub mod metrics;
/// Health and metrics over HTTP.
pub mod admin;
