//! One answer per idempotency key: the key is stored with the write it stands for, and gets its answer afterwards.

use super::{Store, StoreError};
use crate::auth::Tenant;

/// What makes a repeated call recognisable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's key: 1 to 255 visible ASCII characters.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub body_sha256: [u8; 32],
}

/// How a write is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It happened now.
    Fresh,
    /// It happened before and was answered so; answer the same.
    Replay {
        /// HTTP status.
        status: u16,
        /// The body as sent.
        body: Vec<u8>,
    },
    /// It happened before under this key, and nobody knows whether it was answered: show the row as it is now.
    Resumed,
}

impl Store {
    /// Remembers how the call with this key was answered. Best effort: without it the next call is
    /// [`Answer::Resumed`].
    ///
    /// # Errors
    /// When the database fails; the call itself is done, so log it and go on.
    pub async fn idempotency_finish(
        &self,
        tenant: &Tenant,
        key: &IdempotencyKey,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let _ = (tenant, key, status, body);
        todo!()
    }
}
