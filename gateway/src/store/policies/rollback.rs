//! Going back to what was in force before: by an operator, or by the platform when a revision fails in use.

use deadpool_postgres::{Client, Transaction};
use serde::Serialize;
use serde_json::{Value, json};

use super::change;
use crate::store::{Origin, Store, StoreError};

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reverted {
    /// The binding.
    pub binding: String,
    /// The revision that went.
    pub from: i32,
    /// The one that decides now; none if only a trial ended and there was no other.
    pub to: Option<i32>,
    /// Whether a trial ended.
    pub trial: bool,
}

impl Store {
    /// Takes a revision that fails in use back, in this binding: the one that is tried out if `trial`, otherwise the
    /// one that decides. Nothing happens when somebody else was quicker, or when there is nothing to go back to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_revert(
        &self,
        binding: &str,
        digest: &str,
        trial: bool,
        why: &str,
    ) -> Result<Option<Reverted>, StoreError> {
        let client = self.operator.get().await?;
        let failing = Failing { binding: binding.to_owned(), digest: digest.to_owned(), trial, why: why.to_owned() };
        let store = self.clone();
        let task =
            tokio::spawn(
                async move { store.operator.finish(client, |client| Box::pin(revert(client, failing))).await },
            );
        task.await.map_err(StoreError::internal)?
    }
}

struct Failing {
    binding: String,
    digest: String,
    trial: bool,
    why: String,
}

async fn revert(client: &mut Client, failing: Failing) -> Result<Option<Reverted>, StoreError> {
    let Failing { binding, digest, trial, why } = failing;
    let tx = client.transaction().await?;
    change::lock(&tx).await?;
    let sql = "
        SELECT b.policy, r.number FROM policy_bindings b
        JOIN policy_revisions r ON r.policy = b.policy AND r.number = CASE WHEN $3 THEN b.trial ELSE b.active END
        WHERE b.name = $1 AND r.digest = $2";
    let Some(row) = tx.query_opt(&tx.prepare_cached(sql).await?, &[&binding, &digest, &trial]).await? else {
        return Ok(None);
    };
    let (policy, number): (String, i32) = (row.try_get(0)?, row.try_get(1)?);
    let reverted = if trial { one(&tx, &policy, &binding).await? } else { back(&tx, &binding).await? };
    let Some(reverted) = reverted else { return Ok(None) };
    let sql = "UPDATE policy_revisions SET status = 'rolled-back' WHERE policy = $1 AND number = $2";
    tx.execute(&tx.prepare_cached(sql).await?, &[&policy, &number]).await?;
    let origin =
        Origin { actor: "eventflow".to_owned(), request_id: String::new(), traceparent: None, notes: Vec::new() };
    let detail = json!({"reverted": [reverted], "why": why});
    change::audit(&tx, &origin, ("policy.auto-rollback", &policy), detail).await?;
    change::advance(&tx, &policy).await?;
    tx.commit().await?;
    Ok(Some(reverted))
}

/// Ends the binding's trial; where there is none, goes back to what decided before.
pub(super) async fn one(tx: &Transaction<'_>, policy: &str, binding: &str) -> Result<Option<Reverted>, StoreError> {
    let sql = "SELECT active, trial FROM policy_bindings WHERE name = $1 AND policy = $2";
    let row = tx.query_opt(&tx.prepare_cached(sql).await?, &[&binding, &policy]).await?.ok_or(StoreError::NotFound)?;
    let (active, trial): (Option<i32>, Option<i32>) = (row.try_get(0)?, row.try_get(1)?);
    if let Some(from) = trial {
        let sql = "
            UPDATE policy_bindings SET trial = NULL, trial_mode = NULL, trial_settings = NULL, trial_basis_points = NULL,
                trial_tenants = NULL, trial_since = NULL, updated_at = now()
            WHERE name = $1";
        tx.execute(&tx.prepare_cached(sql).await?, &[&binding]).await?;
        return Ok(Some(Reverted { binding: binding.to_owned(), from, to: active, trial: true }));
    }
    back(tx, binding).await
}

/// Goes back to what decided before.
async fn back(tx: &Transaction<'_>, binding: &str) -> Result<Option<Reverted>, StoreError> {
    let sql = "SELECT active, state_id FROM policy_bindings WHERE name = $1";
    let row = tx.query_one(&tx.prepare_cached(sql).await?, &[&binding]).await?;
    let (Some(from), Some(state)) = (row.try_get::<_, Option<i32>>(0)?, row.try_get::<_, Option<i64>>(1)?) else {
        return Ok(None);
    };
    let sql = "
        SELECT id, revision, settings FROM policy_history
        WHERE binding = $1 AND id < $2 AND undone_at IS NULL ORDER BY id DESC LIMIT 1";
    let Some(row) = tx.query_opt(&tx.prepare_cached(sql).await?, &[&binding, &state]).await? else { return Ok(None) };
    let (id, to, settings): (i64, i32, Value) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let sql = "UPDATE policy_history SET undone_at = now() WHERE id = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&state]).await?;
    let sql = "
        UPDATE policy_bindings SET active = $2, settings = $3, state_id = $4, updated_at = now() WHERE name = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&binding, &to, &settings, &id]).await?;
    Ok(Some(Reverted { binding: binding.to_owned(), from, to: Some(to), trial: false }))
}
