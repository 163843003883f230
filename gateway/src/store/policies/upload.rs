//! Making revisions: an operator's upload, and what the gateway ships with.

use deadpool_postgres::{Client, Transaction};
use eventflow_api::policy::{Binding, Revision, Source};
use serde_json::{Value, json};

use super::change::{self, NewState};
use super::{REVISION, read_policies_in, revision, word};
use crate::store::{Origin, Store, StoreError};

/// Revisions that are kept of a policy beside those that are bound or could be rolled back to.
const KEPT: i32 = 20;

/// A module that passed everything.
#[derive(Debug, Clone)]
pub struct NewRevision {
    /// The policy's name, from the manifest.
    pub policy: String,
    /// SHA-256 of the module, in hexadecimal.
    pub digest: String,
    /// The module.
    pub module: Vec<u8>,
    /// What it says about itself, as [`Revision`] tells it.
    pub manifest: Value,
    /// The smoke test.
    pub findings: Value,
    /// Where it comes from.
    pub source: Source,
}

/// A module that the gateway ships with, and how it is bound on a platform that has never seen the policy.
#[derive(Debug, Clone)]
pub struct Shipped {
    /// The module.
    pub revision: NewRevision,
    /// Its first bindings; of these names, worlds, scopes, orders, failure modes and settings count.
    pub bindings: Vec<Binding>,
}

impl Store {
    /// Stores a revision, unless this very module is there already. Says which it is, and whether it is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_upload(&self, new: NewRevision, origin: &Origin) -> Result<(Revision, bool), StoreError> {
        let (client, origin) = (self.operator.get().await?, origin.clone());
        let store = self.clone();
        let task =
            tokio::spawn(
                async move { store.operator.finish(client, |client| Box::pin(upload(client, new, origin))).await },
            );
        task.await.map_err(StoreError::internal)?
    }

    /// Whether the policy has this module already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_revision_of(&self, policy: &str, digest: &str) -> Result<Option<Revision>, StoreError> {
        let sql = format!("SELECT {REVISION} FROM policy_revisions r WHERE r.policy = $1 AND r.digest = $2");
        let rows = self.operator.query(&sql, &[&policy, &digest]).await?;
        rows.first().map(revision).transpose()
    }

    /// Stores a shipped revision. A policy that is new here is bound as shipped; where a shipped revision decides, the
    /// new one takes over. What operators uploaded, bound or removed stays as it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_ship(&self, shipped: Shipped) -> Result<(), StoreError> {
        let client = self.operator.get().await?;
        let store = self.clone();
        let task =
            tokio::spawn(async move { store.operator.finish(client, |client| Box::pin(ship(client, shipped))).await });
        task.await.map_err(StoreError::internal)?
    }
}

async fn upload(client: &mut Client, new: NewRevision, origin: Origin) -> Result<(Revision, bool), StoreError> {
    let tx = client.transaction().await?;
    change::lock(&tx).await?;
    if let Some(found) = find(&tx, &new).await? {
        return Ok((found, false));
    }
    let made = insert(&tx, &new, &origin.actor).await?;
    // Others compile it before it is needed.
    change::advance(&tx, &new.policy).await?;
    let detail = json!({"revision": made.number, "digest": made.digest, "size": made.size});
    change::audit(&tx, &origin, ("policy.upload", &new.policy), detail).await?;
    prune(&tx, &new.policy).await?;
    tx.commit().await?;
    Ok((made, true))
}

async fn find(tx: &Transaction<'_>, new: &NewRevision) -> Result<Option<Revision>, StoreError> {
    let sql = format!("SELECT {REVISION} FROM policy_revisions r WHERE r.policy = $1 AND r.digest = $2");
    let row = tx.query_opt(&tx.prepare_cached(&sql).await?, &[&new.policy, &new.digest]).await?;
    row.as_ref().map(revision).transpose()
}

async fn insert(tx: &Transaction<'_>, new: &NewRevision, by: &str) -> Result<Revision, StoreError> {
    let sql = "INSERT INTO policies (name, version) VALUES ($1, 0) ON CONFLICT DO NOTHING";
    tx.execute(&tx.prepare_cached(sql).await?, &[&new.policy]).await?;
    let sql = format!(
        "INSERT INTO policy_revisions AS r (policy, number, digest, module, manifest, findings, source, uploaded_by)
         SELECT $1, 1 + coalesce((SELECT max(number) FROM policy_revisions WHERE policy = $1), 0), $2, $3, $4, $5, $6, $7
         RETURNING {REVISION}"
    );
    let NewRevision { policy, digest, module, manifest, findings, source } = new;
    let statement = tx.prepare_cached(&sql).await?;
    let row = tx.query_one(&statement, &[policy, digest, module, manifest, findings, &word(source), &by]).await?;
    revision(&row)
}

/// Old revisions that nothing runs or could be rolled back to go.
async fn prune(tx: &Transaction<'_>, policy: &str) -> Result<(), StoreError> {
    let sql = "
        DELETE FROM policy_revisions r
        WHERE r.policy = $1 AND r.number <= (SELECT max(number) FROM policy_revisions WHERE policy = $1) - $2
          AND NOT EXISTS (SELECT FROM policy_bindings b WHERE b.policy = $1 AND r.number IN (b.active, b.trial))
          AND NOT EXISTS (SELECT FROM policy_history h WHERE h.policy = $1 AND h.revision = r.number)";
    tx.execute(&tx.prepare_cached(sql).await?, &[&policy, &KEPT]).await?;
    Ok(())
}

async fn ship(client: &mut Client, shipped: Shipped) -> Result<(), StoreError> {
    let Shipped { revision: new, bindings } = shipped;
    let origin =
        Origin { actor: "eventflow".to_owned(), request_id: String::new(), traceparent: None, notes: Vec::new() };
    let tx = client.transaction().await?;
    change::lock(&tx).await?;
    if find(&tx, &new).await?.is_some() {
        return Ok(());
    }
    let before = read_policies_in(&tx, Some(&new.policy)).await?.pop();
    let made = insert(&tx, &new, &origin.actor).await?;
    match before {
        None => {
            for binding in &bindings {
                change::put_binding(&tx, binding).await?;
                let state = NewState { revision: made.number, settings: &binding.settings };
                change::activate(&tx, &binding.name, &new.policy, state).await?;
            }
        }
        Some(before) => {
            let shipped =
                |number: i32| before.revisions.iter().any(|r| r.number == number && r.source == Source::Builtin);
            for binding in before.bindings.iter().filter(|binding| binding.active.is_some_and(shipped)) {
                let state = NewState { revision: made.number, settings: &binding.settings };
                change::activate(&tx, &binding.name, &new.policy, state).await?;
            }
        }
    }
    change::advance(&tx, &new.policy).await?;
    let detail = json!({"revision": made.number, "digest": made.digest, "size": made.size});
    change::audit(&tx, &origin, ("policy.ship", &new.policy), detail).await?;
    prune(&tx, &new.policy).await?;
    tx.commit().await?;
    Ok(())
}
