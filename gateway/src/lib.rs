//! EventFlow's gateway: one lean HTTP server between callers, the store and the cluster.
//!
//! Modules are listed in the order a request meets them. The gateway never creates pods, namespaces or quotas.

/// Flags and environment, read once and checked once.
pub mod config;
/// Logs and spans.
pub mod telemetry;
/// Counters and histograms of the HTTP side.
pub mod metrics;
/// Everything a handler may touch.
pub mod app;
/// The accept loop, connections and their deadlines, the drain.
pub mod server;
/// The tower layers, outermost first, each with its reason.
pub mod stack;
/// The route table as data, and the handlers.
pub mod routes;
/// Strict JSON: bounded, without duplicate keys.
pub mod json;
/// From a bearer token to a tenant; nobody else can make one.
pub mod auth;
/// Policies in the path of requests.
pub mod policy;
/// The same policies for kubectl: admission webhooks.
pub mod webhook;
/// Truth of intent and of history: PostgreSQL.
pub mod store;
/// From stored intent to Function objects, and from the watch back.
pub mod cluster;
/// From a caller's request to a pod of the function, and back.
pub mod forward;
/// What calls come to.
pub mod metering;
/// What functions wrote.
pub mod logs;
/// What happens to functions and quotas, as it happens.
pub mod live;
/// How many streams may be open.
pub mod streams;
/// Points at which a test kills the process.
pub mod failpoint;
/// The only map from a failure to a status.
pub mod error;
/// The admin port: metrics, liveness, readiness.
pub mod admin;
