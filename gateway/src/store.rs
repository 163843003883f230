//! The truth of intent and history: PostgreSQL. Only this module holds SQL; its methods take the tenant first, open
//! a transaction that names the tenant to row-level security, and answer in our own words.
//!
//! It never talks to the cluster, never decides an HTTP status, and needs no database to be up in order to exist.

use std::time::Duration;

use deadpool_postgres::Pool;
use eventflow_api::names::{FunctionName, TenantClaim, TenantId};
use secrecy::SecretString;

use crate::auth::Tenant;

/// What can go wrong, and how the database's words become ours.
mod failure;
/// Functions: what is stored, and the writing of it.
mod functions;
/// Reading functions page by page.
mod listing;
/// Who did what.
mod audit;
/// One answer per idempotency key.
mod idempotency;

pub use audit::AuditRow;
pub use failure::StoreError;
pub use functions::{Change, FunctionRow, Written};
pub use idempotency::{Answer, IdempotencyKey};
pub use listing::{FunctionQuery, NameFilter, Page, Sort};

/// How to reach the database, and for how long to wait for it.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `postgres://user:password@host:port/database`. The user must be a member of the role `ef_app`.
    pub database_url: SecretString,
    /// Most connections for requests; the projector has two more of its own.
    pub pool_size: usize,
    /// Longest wait for a free connection.
    pub wait: Duration,
    /// Longest time of one statement.
    pub statement_timeout: Duration,
    /// Longest wait for a row lock.
    pub lock_timeout: Duration,
}

/// Where a write comes from, for the audit log and for traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The caller's subject.
    pub actor: String,
    /// Names the call in the logs.
    pub request_id: String,
    /// W3C `traceparent` of the call.
    pub traceparent: Option<String>,
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Prepares the pools; connects to nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Internal`] when the URL cannot be read.
    pub fn new(_config: &StoreConfig) -> Result<Self, StoreError> {
        todo!()
    }

    /// Whether the database answers and has the schema this program needs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// The tenant that the claim of this issuer names; made when there is none and `provision` says so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_resolve(
        &self,
        _issuer: &str,
        _claim: &TenantClaim,
        _provision: bool,
    ) -> Result<Option<TenantId>, StoreError> {
        todo!()
    }

    /// The live function of that name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn function_get(&self, _tenant: &Tenant, _name: &FunctionName) -> Result<Option<FunctionRow>, StoreError> {
        todo!()
    }
}

/// Applies the migrations that the database lacks, one program at a time.
///
/// # Errors
/// When the database cannot be reached or refuses; the chain says why.
pub async fn migrate(_database_url: &SecretString) -> Result<(), StoreError> {
    todo!()
}
