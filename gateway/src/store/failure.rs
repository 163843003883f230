//! What can go wrong in the store, and the one place where the database's words become ours. Constraint names and
//! SQLSTATEs are read here and nowhere else; nothing of the database's own text leaves through `Display`.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is starting or stopping, or every connection is taken. Trying again may help.
    /// After a write its outcome is unknown; the idempotency key settles it.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Source),
    /// The database took too long, or a lock was held for too long.
    #[error("the database took too long")]
    Timeout(#[source] Source),
    /// A live thing has this name.
    #[error("the name is taken")]
    AlreadyExists,
    /// There is no such live thing of this tenant.
    #[error("there is no such thing")]
    NotFound,
    /// The thing was changed since the caller read it.
    #[error("the thing was changed meanwhile")]
    StaleGeneration,
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// A call with the same idempotency key is under way.
    #[error("a call with the same idempotency key is under way")]
    IdempotencyInFlight,
    /// The thing is in no state for this; why.
    #[error("not in this state: {0}")]
    WrongState(String),
    /// The run is over.
    #[error("the run is over")]
    Over,
    /// There may be no more of them.
    #[error("{limit} is {most}")]
    TooMany {
        /// The limit's name.
        limit: &'static str,
        /// How many there may be.
        most: i64,
    },
    /// The cursor was not made by this query.
    #[error("the cursor does not belong to this query")]
    BadCursor,
    /// A fault of ours.
    #[error("the store failed")]
    Internal(#[source] Source),
}

/// The cause of a [`StoreError`], for logs.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

impl StoreError {
    /// A fault of ours.
    pub(super) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(error))
    }

    /// A fault of ours that no other error causes.
    pub(super) fn fault(message: &'static str) -> Self {
        Self::Internal(message.into())
    }

    /// Whether nothing but the way to the database is at fault, so that trying again later may help.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // Without an answer of the database's: the line is cut, or (never seen) a value of ours does not fit.
            let ours = std::error::Error::source(&error).is_some_and(|s| !s.is::<std::io::Error>());
            return if ours && !error.is_closed() {
                Self::Internal(error.into())
            } else {
                Self::Unavailable(error.into())
            };
        };
        if matches!(db.constraint(), Some("functions_live_name_key" | "tenants_owner_key")) {
            return Self::AlreadyExists;
        }
        if let Some(message) = db.constraint().and_then(wrong_state) {
            return Self::WrongState(message.to_owned());
        }
        match db.code() {
            &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE => Self::Timeout(error.into()),
            &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE => Self::Timeout(error.into()),
            // A standby that has not taken over yet, and a database that is not migrated yet.
            &SqlState::READ_ONLY_SQL_TRANSACTION | &SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN => {
                Self::Unavailable(error.into())
            }
            code if is_outage(code.code()) => Self::Unavailable(error.into()),
            _ => Self::Internal(error.into()),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// Constraints that a well-formed wish can run into.
fn wrong_state(constraint: &str) -> Option<&'static str> {
    match constraint {
        "policy_bindings_group_fkey" => Some("there is no such group of this world, or it still has members"),
        "policy_bindings_active_fkey" | "policy_bindings_trial_fkey" => Some("there is no such revision"),
        _ => None,
    }
}

/// Classes 08 (connection), 28 (credentials), 3D (no such database), 53 (resources), 57 (operator intervention).
fn is_outage(code: &str) -> bool {
    ["08", "28", "3D", "53", "57"].iter().any(|class| code.starts_with(class))
}
