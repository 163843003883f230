//! The routes, each in the file of its path.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

mod common;

#[path = "routes/auth/token.rs"]
mod auth_token;
#[path = "routes/health.rs"]
mod health;
#[path = "routes/v1/audit.rs"]
mod v1_audit;
#[path = "routes/v1/events.rs"]
mod v1_events;
#[path = "routes/v1/functions.rs"]
mod v1_functions;
#[path = "routes/v1/functions/admission.rs"]
mod v1_functions_admission;
#[path = "routes/v1/functions/invoke.rs"]
mod v1_functions_invoke;
#[path = "routes/v1/functions/events.rs"]
mod v1_functions_events;
#[path = "routes/v1/functions/list.rs"]
mod v1_functions_list;
#[path = "routes/v1/functions/name.rs"]
mod v1_functions_name;
#[path = "routes/v1/invocations.rs"]
mod v1_invocations;
#[path = "routes/v1/me.rs"]
mod v1_me;
#[path = "routes/v1/quota.rs"]
mod v1_quota;
#[path = "routes/v1/tenants.rs"]
mod v1_tenants;
#[path = "routes/v1/tiers.rs"]
mod v1_tiers;
