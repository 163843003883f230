//! The load tests: a plain client of the gateway, beside a Kubernetes client for what must be compared with plain
//! Deployments. Every subcommand answers one question against a freshly started platform, prints a table, asserts
//! nothing about time, and is bounded in time. Targets and last results are in the folder of the same name.

/// The command line: one subcommand per question.
pub mod cli;
/// What is measured: a platform just started, its tenants and its cluster.
pub mod stage;
/// One kept HTTP connection of one user.
pub mod connection;
/// A closed loop of callers.
pub mod load;
/// When what was seen on a watch.
pub mod sightings;
/// Memory and processor time of a process.
pub mod usage;
/// Latencies, and exact percentiles of them.
pub mod samples;
/// The table that is printed and kept in the folders.
pub mod report;

/// `create`: how long until a function is accepted, and until it runs.
pub mod create;
/// `list`: what reading costs as functions become many.
pub mod list;
/// `get`: how many reads a second.
pub mod get;
/// `memory`: what the two programs hold.
pub mod memory;
/// `reconcile`: how fast Function objects become Deployments.
pub mod reconcile;
/// `admission`: how fast quota is given out, and what happens without that.
pub mod admission;
