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

const OWNED: &str = "SELECT id FROM tenants WHERE issuer = $1 AND claim = $2";
const OWNER: &str = "SELECT issuer, claim FROM tenants WHERE id = $1";
/// Nothing comes back if the id or the owner is taken; a tenant without an owner may get one.
const ADD: &str = "
    INSERT INTO tenants (id, issuer, claim) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET issuer = $2, claim = $3
    WHERE tenants.issuer IS NULL OR (tenants.issuer = $2 AND tenants.claim = $3)
    RETURNING id";

impl Store {
    /// For operators: the tenant of this owner.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_of(&self, issuer: &str, claim: &TenantClaim) -> Result<Option<TenantId>, StoreError> {
        let rows = self.projector.query(OWNED, &[&issuer, &claim.as_str()]).await?;
        rows.first().map(|row| row.get::<_, String>(0).parse().map_err(StoreError::internal)).transpose()
    }

    /// For operators: the owner of the tenant of this id, if there is such a tenant, and if it has one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_owner(&self, id: &TenantId) -> Result<Option<Option<(String, String)>>, StoreError> {
        let rows = self.projector.query(OWNER, &[&id.as_str()]).await?;
        Ok(rows.first().map(|row| row.get::<_, Option<String>>(0).zip(row.get(1))))
    }

    /// For operators: makes the tenant known, with its owner if it has one. Again is no failure.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the id or the owner is taken, and failures of the database.
    pub async fn tenant_add(&self, id: &TenantId, owner: Option<(&str, &TenantClaim)>) -> Result<(), StoreError> {
        let (issuer, claim) = owner.map(|(issuer, claim)| (issuer, claim.as_str())).unzip();
        let rows = self.projector.query(ADD, &[&id.as_str(), &issuer, &claim]).await?;
        if rows.is_empty() { Err(StoreError::AlreadyExists) } else { Ok(()) }
    }

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
