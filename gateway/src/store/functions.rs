//! Functions as stored: the row, and the writing of it with its audit entry and its idempotency key in one transaction.

use eventflow_api::function::FunctionSpec;
use eventflow_api::names::{FunctionName, TenantId};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Answer, IdempotencyKey, Origin, Store, StoreError};
use crate::auth::Tenant;

/// A function as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionRow {
    /// Another one for a function made again under the same name.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Unique among the tenant's live functions.
    pub name: FunctionName,
    /// What the tenant asks for.
    pub spec: FunctionSpec,
    /// Counts the changes of the spec, from 1.
    pub generation: i64,
    /// The newest generation that the cluster is known to hold; 0 for none.
    pub synced_generation: i64,
    /// UID of the Function object that was last written or adopted.
    pub object_uid: Option<String>,
    /// Its resourceVersion then; anything older says nothing new.
    pub applied_rv: Option<i64>,
    /// W3C `traceparent` of the call that made this generation.
    pub traceparent: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its spec was last changed.
    pub updated_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
}

impl FunctionRow {
    /// Whether the cluster was told all of it.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced_generation >= self.generation
    }
}

/// A new spec for a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Replaces the stored one; equal to it, nothing changes.
    pub spec: FunctionSpec,
    /// The row id and generation that the caller read, from `If-Match`.
    pub if_generation: Option<(Uuid, i64)>,
}

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The row after it.
    pub row: FunctionRow,
    /// How the call is to be answered.
    pub answer: Answer,
}

impl Store {
    /// Stores a new function.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], those of the idempotency key, and failures of the database.
    pub async fn function_create(
        &self,
        tenant: &Tenant,
        name: &FunctionName,
        spec: &FunctionSpec,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<Written, StoreError> {
        let _ = (tenant, name, spec, origin, key);
        todo!()
    }

    /// Stores a new spec of a live function.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::StaleGeneration`], those of the idempotency key, and failures of the
    /// database.
    pub async fn function_replace(
        &self,
        tenant: &Tenant,
        name: &FunctionName,
        change: Change,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<Written, StoreError> {
        let _ = (tenant, name, change, origin, key);
        todo!()
    }

    /// Marks a live function as deleted; its name is free at once, its history stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::StaleGeneration`], those of the idempotency key, and failures of the
    /// database.
    pub async fn function_delete(
        &self,
        tenant: &Tenant,
        name: &FunctionName,
        if_generation: Option<(Uuid, i64)>,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<Written, StoreError> {
        let _ = (tenant, name, if_generation, origin, key);
        todo!()
    }
}
