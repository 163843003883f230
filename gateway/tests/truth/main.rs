//! The truth side of the gateway, against a real PostgreSQL and a real kube-apiserver: run it under `devcluster run`.
#![allow(clippy::unwrap_used, reason = "a test that panics says what is wrong")]

/// Databases, tenants and gateways to test with.
mod bed;
/// The migrations lead to `schema.sql`, and every tenant table is walled in.
mod schema;
/// Nobody reads or writes another tenant's rows.
mod isolation;
/// From claims to tenants.
mod tenants;
/// Names, generations, races.
mod functions;
/// One answer per idempotency key.
mod idempotency;
/// Pages.
mod listing;
/// Rows to objects.
mod projection;
/// Objects to rows.
mod adoption;
/// The database or the API server away.
mod outages;
/// Runs: rows, their records and their end.
mod invocations;
/// The real program, killed at each named point.
mod crash;
