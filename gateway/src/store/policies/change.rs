//! Changing what is in force. Every change is one transaction that holds the set's row from its start, so operators
//! come one after the other; whoever names the version that was read is told if it is not the newest any more.

use deadpool_postgres::{Client, Transaction};
use eventflow_api::policy::{Binding, Policy, Scope, TrialMode};
use serde_json::{Value, json};

use super::{read_policies_in, rollback, word};
use crate::failpoint;
use crate::store::{Origin, Store, StoreError};

/// Something an operator wants of one policy.
#[derive(Debug, Clone)]
pub enum PolicyChange {
    /// Makes the binding, or replaces all of it but what it runs.
    Bind {
        /// As it is to be.
        binding: Box<Binding>,
        /// Whether its settings are to be in force as a state of their own, to be gone back from.
        new_state: bool,
    },
    /// Removes the binding.
    Unbind(String),
    /// Tries a revision out beside what decides.
    Try(Vec<Rollout>, TrialRequest),
    /// Puts a revision in force.
    Activate(Vec<Rollout>),
    /// Ends the trial of these bindings; where there is none, goes back to what decided before.
    Rollback(Vec<String>),
    /// Removes the policy, which must not be bound.
    Delete,
}

/// A revision with settings, for a binding; one that is not there is made.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// The binding, as it is or as it is to be made.
    pub binding: Binding,
    /// The revision's number.
    pub revision: i32,
    /// Its settings.
    pub settings: Value,
}

/// How a revision is tried out.
#[derive(Debug, Clone)]
pub struct TrialRequest {
    /// How.
    pub mode: TrialMode,
    /// Hundredths of a percent of the requests.
    pub basis_points: i32,
    /// Tenants for which it decides always.
    pub tenants: Vec<String>,
}

/// What a binding is to run.
pub(super) struct NewState<'a> {
    pub(super) revision: i32,
    pub(super) settings: &'a Value,
}

impl Store {
    /// Changes a policy, if it is still the version that was read. Answers with the policy as it is then; after a
    /// deletion as it was.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::StaleGeneration`], [`StoreError::WrongState`], and failures of the
    /// database.
    pub async fn policy_change(
        &self,
        policy: &str,
        if_version: Option<i64>,
        change: PolicyChange,
        origin: &Origin,
    ) -> Result<Policy, StoreError> {
        let client = self.operator.get().await?;
        let work = Work { policy: policy.to_owned(), if_version, change, origin: origin.clone() };
        let store = self.clone();
        let task =
            tokio::spawn(async move { store.operator.finish(client, |client| Box::pin(work.perform(client))).await });
        task.await.map_err(StoreError::internal)?
    }
}

struct Work {
    policy: String,
    if_version: Option<i64>,
    change: PolicyChange,
    origin: Origin,
}

impl Work {
    async fn perform(self, client: &mut Client) -> Result<Policy, StoreError> {
        let tx = client.transaction().await?;
        lock(&tx).await?;
        let before = read_policies_in(&tx, Some(&self.policy)).await?.pop().ok_or(StoreError::NotFound)?;
        if self.if_version.is_some_and(|read| read != before.version) {
            return Err(StoreError::StaleGeneration);
        }
        let (action, detail) = self.apply(&tx, &before).await?;
        audit(&tx, &self.origin, (action, &self.policy), detail).await?;
        advance(&tx, &self.policy).await?;
        let after = read_policies_in(&tx, Some(&self.policy)).await?.pop().unwrap_or(before);
        failpoint::hit("policy-before-commit");
        tx.commit().await?;
        failpoint::hit("policy-after-commit");
        Ok(after)
    }

    async fn apply(&self, tx: &Transaction<'_>, before: &Policy) -> Result<(&'static str, Value), StoreError> {
        match &self.change {
            PolicyChange::Bind { binding, new_state } => {
                put_binding(tx, binding).await?;
                if let (true, Some(revision)) = (new_state, binding.active) {
                    let state = NewState { revision, settings: &binding.settings };
                    activate(tx, &binding.name, &self.policy, state).await?;
                }
                Ok(("policy.bind", json!({"binding": binding.name, "scope": binding.scope, "order": binding.order})))
            }
            PolicyChange::Unbind(binding) => {
                let sql = "DELETE FROM policy_bindings WHERE name = $1 AND policy = $2";
                if tx.execute(&tx.prepare_cached(sql).await?, &[binding, &self.policy]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                Ok(("policy.unbind", json!({"binding": binding})))
            }
            PolicyChange::Try(rollouts, trial) => {
                for rollout in rollouts {
                    put_new(tx, before, rollout).await?;
                    try_out(tx, rollout, trial).await?;
                }
                let action = if trial.mode == TrialMode::Shadow { "policy.shadow" } else { "policy.canary" };
                Ok((action, told(rollouts, Some(trial))))
            }
            PolicyChange::Activate(rollouts) => {
                for rollout in rollouts {
                    put_new(tx, before, rollout).await?;
                    let state = NewState { revision: rollout.revision, settings: &rollout.settings };
                    activate(tx, &rollout.binding.name, &self.policy, state).await?;
                }
                Ok(("policy.activate", told(rollouts, None)))
            }
            PolicyChange::Rollback(bindings) => {
                let mut reverted = Vec::new();
                for binding in bindings {
                    reverted.extend(rollback::one(tx, &self.policy, binding).await?);
                }
                if reverted.is_empty() {
                    let message = "nothing is tried out, and nothing was in force before".to_owned();
                    return Err(StoreError::WrongState(message));
                }
                Ok(("policy.rollback", json!({"reverted": reverted})))
            }
            PolicyChange::Delete => {
                if !before.bindings.is_empty() {
                    let names: Vec<&str> = before.bindings.iter().map(|binding| binding.name.as_str()).collect();
                    let message = format!("it is bound by {}; remove these bindings first", names.join(", "));
                    return Err(StoreError::WrongState(message));
                }
                tx.execute(&tx.prepare_cached("DELETE FROM policies WHERE name = $1").await?, &[&self.policy]).await?;
                Ok(("policy.delete", json!({"revisions": before.revisions.len()})))
            }
        }
    }
}

/// For the audit log: names and numbers, never settings.
fn told(rollouts: &[Rollout], trial: Option<&TrialRequest>) -> Value {
    let bindings: Vec<_> =
        rollouts.iter().map(|r| json!({"binding": r.binding.name, "revision": r.revision})).collect();
    match trial {
        Some(trial) => json!({"bindings": bindings, "basis_points": trial.basis_points, "tenants": trial.tenants}),
        None => json!({ "bindings": bindings }),
    }
}

/// Waits for those before us, and keeps those after us waiting until the transaction ends.
pub(super) async fn lock(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute(&tx.prepare_cached("SELECT FROM policy_set FOR UPDATE").await?, &[]).await?;
    Ok(())
}

/// Tells every replica that there is something new.
pub(super) async fn advance(tx: &Transaction<'_>, policy: &str) -> Result<(), StoreError> {
    let sql = "UPDATE policies SET version = version + 1, updated_at = now() WHERE name = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&policy]).await?;
    advance_set(tx).await
}

/// As [`advance`], of no policy.
pub(super) async fn advance_set(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute(&tx.prepare_cached("UPDATE policy_set SET revision = revision + 1").await?, &[]).await?;
    Ok(())
}

/// Writes down who did what to what.
pub(super) async fn audit(
    tx: &Transaction<'_>,
    origin: &Origin,
    (action, target): (&str, &str),
    detail: Value,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_log (actor, action, target, request_id, detail)
               VALUES ($1, $2, $3, NULLIF($4, ''), $5)";
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&origin.actor, &action, &target, &origin.request_id, &detail];
    tx.execute(&tx.prepare_cached(sql).await?, &params).await?;
    Ok(())
}

/// Makes the binding, or replaces all of it but what it runs.
pub(super) async fn put_binding(tx: &Transaction<'_>, binding: &Binding) -> Result<(), StoreError> {
    let (scope, scope_name) = match &binding.scope {
        Scope::Everyone => ("everyone", ""),
        Scope::Tier(name) => ("tier", name.as_str()),
        Scope::Tenant(id) => ("tenant", id.as_str()),
    };
    let sql = "
        INSERT INTO policy_bindings AS b
            (name, policy, world, scope, scope_name, ord, failure_mode, group_name, settings)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (name) DO UPDATE SET scope = $4, scope_name = $5, ord = $6, failure_mode = $7, group_name = $8,
            settings = $9, updated_at = now()
        WHERE b.policy = $2 AND b.world = $3";
    let (world, failure) = (word(binding.world), word(binding.failure_mode));
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
        &binding.name,
        &binding.policy,
        &world,
        &scope,
        &scope_name,
        &binding.order,
        &failure,
        &binding.group,
        &binding.settings,
    ];
    if tx.execute(&tx.prepare_cached(sql).await?, &params).await? == 0 {
        let message = format!("the binding {} is of another policy or world", binding.name);
        return Err(StoreError::WrongState(message));
    }
    Ok(())
}

/// Makes the binding of a rollout if it is a new one.
async fn put_new(tx: &Transaction<'_>, before: &Policy, rollout: &Rollout) -> Result<(), StoreError> {
    if before.bindings.iter().any(|binding| binding.name == rollout.binding.name) {
        return Ok(());
    }
    put_binding(tx, &rollout.binding).await
}

async fn try_out(tx: &Transaction<'_>, rollout: &Rollout, trial: &TrialRequest) -> Result<(), StoreError> {
    let sql = "
        UPDATE policy_bindings SET trial = $2, trial_mode = $3, trial_settings = $4, trial_basis_points = $5,
            trial_tenants = $6, trial_since = now(), updated_at = now()
        WHERE name = $1";
    let mode = word(trial.mode);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&rollout.binding.name, &rollout.revision, &mode, &rollout.settings, &trial.basis_points, &trial.tenants];
    tx.execute(&tx.prepare_cached(sql).await?, &params).await?;
    // What a shadow was compared with is another thing now.
    let sql = "DELETE FROM policy_trials WHERE binding = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&rollout.binding.name]).await?;
    Ok(())
}

/// Puts a revision with settings in force and ends the trial.
pub(super) async fn activate(
    tx: &Transaction<'_>,
    binding: &str,
    policy: &str,
    state: NewState<'_>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO policy_history (binding, policy, revision, settings) VALUES ($1, $2, $3, $4) RETURNING id";
    let statement = tx.prepare_cached(sql).await?;
    let row = tx.query_one(&statement, &[&binding, &policy, &state.revision, &state.settings]).await?;
    let id: i64 = row.try_get(0)?;
    let sql = "
        UPDATE policy_bindings SET active = $2, settings = $3, state_id = $4, trial = NULL, trial_mode = NULL,
            trial_settings = NULL, trial_basis_points = NULL, trial_tenants = NULL, trial_since = NULL, updated_at = now()
        WHERE name = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&binding, &state.revision, &state.settings, &id]).await?;
    // A thousand activations leave a bounded past, and what was undone leaves none.
    let sql = "DELETE FROM policy_history WHERE binding = $1 AND id NOT IN (
                   SELECT id FROM policy_history WHERE binding = $1 AND undone_at IS NULL ORDER BY id DESC LIMIT 20)";
    tx.execute(&tx.prepare_cached(sql).await?, &[&binding]).await?;
    Ok(())
}
