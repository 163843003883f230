//! The truth of intent and history: PostgreSQL. Only this module holds SQL; its methods take the tenant first, open
//! a transaction that names the tenant to row-level security, and answer in our own words.
//!
//! It never talks to the cluster, never decides an HTTP status, and needs no database to be up in order to exist.

use std::time::Duration;

use secrecy::SecretString;

/// What can go wrong, and how the database's words become ours.
mod failure;
/// The way to the database: pools, reads in one round trip, writes that run to their end.
mod connection;
/// Bringing a database to the schema this program needs.
mod migration;
/// From an issuer's claim to a tenant.
mod tenants;
/// Functions: what is stored, and the writing of it.
mod functions;
/// Reading functions page by page.
mod listing;
/// Runs of functions: what was asked for, and what became of it.
mod invocations;
/// Who did what.
mod audit;
/// One answer per idempotency key.
mod idempotency;
/// What is still to be carried to the cluster.
mod pending;
/// What the cluster changed on its own.
mod adoption;
/// Policies, the replicas that run them, and what they decided.
mod policies;
/// What calls came to.
mod usage;

pub use adoption::{Adoption, Observed};
pub use audit::{AuditRow, Deed};
pub use failure::StoreError;
pub use functions::{Change, FunctionRow, Written};
pub use idempotency::{Answer, IdempotencyKey};
pub use invocations::{
    Ending, InvocationRow, NewInvocation, Record, Retention, UNFINISHED_MAX, Unfinished, WrittenInvocation,
};
pub use listing::{FunctionQuery, NameFilter, Page, Sort};
pub use migration::migrate;
pub use pending::{Backlog, Life};
pub use policies::{
    Beat, Heart, InForce, NewDecision, NewRevision, PolicyChange, Reverted, Rollout, Shipped, TrialCount, TrialRequest,
};
pub use usage::{CallSum, UsageQuery, UsageRow};

use connection::Connections;

/// How to reach the database, and for how long to wait for it.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `postgres://user:password@host:port/database`. The user must be a member of the role `ef_app`.
    pub database_url: SecretString,
    /// Most connections for requests; the projector has a few more of its own.
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
    /// What policies noted about the call, by name.
    pub notes: Vec<(String, String)>,
}

impl Origin {
    /// The detail of an entry in the audit log, with the policies' notes if there are any.
    fn noted(&self, mut detail: serde_json::Value) -> serde_json::Value {
        if !self.notes.is_empty()
            && let Some(detail) = detail.as_object_mut()
        {
            let notes = self.notes.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
            detail.insert("notes".to_owned(), notes.collect::<serde_json::Map<_, _>>().into());
        }
        detail
    }
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// For callers: one tenant's rows at a time.
    app: Connections,
    /// For joining store and cluster: all tenants' rows. Its own few connections, so that neither can starve the other.
    projector: Connections,
    /// For operators, and for what the gateway runs by itself: what is no tenant's.
    operator: Connections,
}

/// Connections of the projector, the adopter and readiness together.
const PROJECTOR_CONNECTIONS: usize = 4;
/// Connections of operators, and of the loader, the heartbeat and the decision log.
const OPERATOR_CONNECTIONS: usize = 4;

impl Store {
    /// Prepares the pools; connects to nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Internal`] when the URL cannot be read.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        // Nobody waits for the projector's answers, so it may wait longer for a connection.
        let patient = StoreConfig { wait: Duration::from_secs(2), ..config.clone() };
        Ok(Self {
            app: Connections::new(config, "ef_app", config.pool_size)?,
            projector: Connections::new(&patient, "ef_projector", PROJECTOR_CONNECTIONS)?,
            operator: Connections::new(&patient, "ef_operator", OPERATOR_CONNECTIONS)?,
        })
    }

    /// Connections for callers that are open, and of these those that nobody uses now.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        self.app.state()
    }

    /// Whether the database answers and has the schema this program needs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let rows = self.projector.query("SELECT max(version) FROM refinery_schema_history", &[]).await?;
        let version: Option<i32> = rows.first().and_then(|row| row.get(0));
        let wanted = migration::newest_version();
        if version.is_none_or(|version| version < wanted) {
            let message =
                format!("the schema is at version {version:?}, and {wanted} is needed: run `gateway migrate`");
            return Err(StoreError::Unavailable(message.into()));
        }
        Ok(())
    }
}
