//! From an issuer's claim to a tenant: chosen once, under unique keys, and then kept for ever.

use deadpool_postgres::{Client, Transaction};
use eventflow_api::names::{TenantClaim, TenantId};

use super::{Store, StoreError};

/// Names the verified identity to row-level security, which shows its tenant and no other.
const NAME_IDENTITY: &str = "SELECT set_config('app.issuer', $1, true), set_config('app.claim', $2, true)";
const FIND: &str = "SELECT id FROM tenants WHERE issuer = $1 AND claim = $2";
/// An operator's tenant without an owner goes to the first caller whose claim is its id.
const TAKE: &str = "UPDATE tenants SET issuer = $1, claim = $2 WHERE id = $2 AND issuer IS NULL RETURNING id";
const MAKE: &str = "INSERT INTO tenants (id, issuer, claim) VALUES ($3, $1, $2) ON CONFLICT DO NOTHING RETURNING id";

impl Store {
    /// The tenant that the claim of this issuer names; made when there is none and `provision` says so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_resolve(
        &self,
        issuer: &str,
        claim: &TenantClaim,
        provision: bool,
    ) -> Result<Option<TenantId>, StoreError> {
        let client = self.app.get().await?;
        let (store, issuer, claim) = (self.clone(), issuer.to_owned(), claim.clone());
        let task = tokio::spawn(async move {
            store.app.finish(client, |client| Box::pin(resolve(client, issuer, claim, provision))).await
        });
        task.await.map_err(StoreError::internal)?
    }
}

async fn resolve(
    client: &mut Client,
    issuer: String,
    claim: TenantClaim,
    provision: bool,
) -> Result<Option<TenantId>, StoreError> {
    let (issuer, claim) = (issuer.as_str(), &claim);
    let tx = client.transaction().await?;
    tx.execute(&tx.prepare_cached(NAME_IDENTITY).await?, &[&issuer, &claim.as_str()]).await?;
    if let Some(id) = one(&tx, FIND, issuer, claim).await? {
        return Ok(Some(id));
    }
    if !provision {
        return Ok(None);
    }
    let id = make(&tx, issuer, claim).await?;
    tx.commit().await?;
    Ok(Some(id))
}

async fn make(tx: &Transaction<'_>, issuer: &str, claim: &TenantClaim) -> Result<TenantId, StoreError> {
    if let Some(id) = one(tx, TAKE, issuer, claim).await? {
        return Ok(id);
    }
    let statement = tx.prepare_cached(MAKE).await?;
    for candidate in claim.candidate_ids(issuer) {
        // Waits for whoever inserts the same key right now, and does nothing if they succeed.
        let made = tx.query_opt(&statement, &[&issuer, &claim.as_str(), &candidate.as_str()]).await?;
        if made.is_some() {
            return Ok(candidate);
        }
        if let Some(id) = one(tx, FIND, issuer, claim).await? {
            return Ok(id);
        }
    }
    Err(StoreError::fault("every id that this claim could have belongs to somebody else"))
}

async fn one(
    tx: &Transaction<'_>,
    sql: &str,
    issuer: &str,
    claim: &TenantClaim,
) -> Result<Option<TenantId>, StoreError> {
    let row = tx.query_opt(&tx.prepare_cached(sql).await?, &[&issuer, &claim.as_str()]).await?;
    row.map(|row| row.get::<_, String>(0).parse().map_err(StoreError::internal)).transpose()
}
