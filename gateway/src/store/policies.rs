//! Policies as stored: what they are, where they are bound, and what every replica of the gateway is to run. No
//! tenant's; everything here works as the role `ef_operator`.

use deadpool_postgres::Client;
use eventflow_api::policy::{Binding, Group, Policy, Revision, Scope, Trial};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{Store, StoreError};

/// Making revisions, and the built-in ones.
mod upload;
/// Changing what is in force, one operator after the other.
mod change;
/// Going back to what was in force before.
mod rollback;
/// Groups.
mod groups;
/// The decision log, and how trials differ.
mod decisions;
/// Replicas of the gateway.
mod replicas;

pub use change::{PolicyChange, Rollout, TrialRequest};
pub use decisions::{NewDecision, TrialCount};
pub use replicas::{Beat, Heart};
pub use rollback::Reverted;
pub use upload::{NewRevision, Shipped};

/// What is in force: all bindings and groups, as of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// Grows with every change.
    pub set_revision: i64,
    /// Bindings by name.
    pub bindings: Vec<Binding>,
    /// Groups by name.
    pub groups: Vec<Group>,
    /// The newest revision of each policy, and those that a roll-back would go to: worth having at hand.
    pub near: Vec<(String, i32, String)>,
}

/// The columns of a [`Revision`], in order; the module itself is not among them.
const REVISION: &str = "r.number, r.digest, octet_length(r.module)::bigint, r.manifest, r.findings, r.source, r.status, \
     r.uploaded_by, r.created_at";
/// A [`Binding`], in order.
const BINDING: &str = "SELECT b.name, b.policy, b.world, b.scope, b.scope_name, b.ord, b.failure_mode, b.group_name, \
         b.settings, b.active, a.digest, b.trial, t.digest, b.trial_mode, b.trial_basis_points, b.trial_tenants, \
         b.trial_settings, b.trial_since, b.updated_at \
     FROM policy_bindings b \
     LEFT JOIN policy_revisions a ON a.policy = b.policy AND a.number = b.active \
     LEFT JOIN policy_revisions t ON t.policy = b.policy AND t.number = b.trial";
const GROUPS: &str = "
    SELECT g.name, g.world, g.kind, g.ord,
        coalesce((SELECT array_agg(b.name ORDER BY b.ord, b.name) FROM policy_bindings b WHERE b.group_name = g.name), '{}')
    FROM policy_groups g ORDER BY g.ord, g.name";
/// Revisions that are at hand though nothing runs them: the newest of each policy, and up to three that each binding
/// ran before.
const NEAR: &str = "
    SELECT r.policy, r.number, r.digest FROM policy_revisions r
    WHERE r.number = (SELECT max(n.number) FROM policy_revisions n WHERE n.policy = r.policy)
       OR (r.policy, r.number) IN (
           SELECT h.policy, h.revision FROM (
               SELECT policy, revision, row_number() OVER (PARTITION BY binding ORDER BY id DESC) AS age
               FROM policy_history WHERE undone_at IS NULL) h
           WHERE h.age <= 4)";

impl Store {
    /// What every replica is to run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policies_in_force(&self) -> Result<InForce, StoreError> {
        let client = self.operator.get().await?;
        self.operator.finish(client, |client| Box::pin(in_force(client))).await
    }

    /// The revision of what every replica is to run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_set_revision(&self) -> Result<i64, StoreError> {
        let rows = self.operator.query("SELECT revision FROM policy_set", &[]).await?;
        Ok(rows.first().ok_or(StoreError::NotFound)?.try_get(0)?)
    }

    /// A revision's module.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and failures of the database.
    pub async fn policy_module(&self, policy: &str, number: i32) -> Result<Vec<u8>, StoreError> {
        let sql = "SELECT module FROM policy_revisions WHERE policy = $1 AND number = $2";
        let rows = self.operator.query(sql, &[&policy, &number]).await?;
        Ok(rows.first().ok_or(StoreError::NotFound)?.try_get(0)?)
    }

    /// A policy with its bindings and revisions.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and failures of the database.
    pub async fn policy_get(&self, policy: &str) -> Result<Policy, StoreError> {
        let mut policies = self.policies(Some(policy)).await?;
        policies.pop().ok_or(StoreError::NotFound)
    }

    /// Every policy, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_list(&self) -> Result<Vec<Policy>, StoreError> {
        self.policies(None).await
    }

    async fn policies(&self, policy: Option<&str>) -> Result<Vec<Policy>, StoreError> {
        let policy = policy.map(str::to_owned);
        let client = self.operator.get().await?;
        self.operator.finish(client, |client| Box::pin(read_policies(client, policy))).await
    }
}

async fn in_force(client: &mut Client) -> Result<InForce, StoreError> {
    let tx = client.build_transaction().read_only(true).isolation_level(SNAPSHOT).start().await?;
    let revision = tx.query_one(&tx.prepare_cached("SELECT revision FROM policy_set").await?, &[]).await?;
    let bindings = tx.query(&tx.prepare_cached(&format!("{BINDING} ORDER BY b.name")).await?, &[]).await?;
    let groups = tx.query(&tx.prepare_cached(GROUPS).await?, &[]).await?;
    let near = tx.query(&tx.prepare_cached(NEAR).await?, &[]).await?;
    Ok(InForce {
        set_revision: revision.try_get(0)?,
        bindings: bindings.iter().map(binding).collect::<Result<_, _>>()?,
        groups: groups.iter().map(group).collect::<Result<_, _>>()?,
        near: near
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect::<Result<_, StoreError>>()?,
    })
}

/// One moment for several queries.
const SNAPSHOT: tokio_postgres::IsolationLevel = tokio_postgres::IsolationLevel::RepeatableRead;

async fn read_policies(client: &mut Client, policy: Option<String>) -> Result<Vec<Policy>, StoreError> {
    let tx = client.build_transaction().read_only(true).isolation_level(SNAPSHOT).start().await?;
    read_policies_in(&tx, policy.as_deref()).await
}

/// As a transaction sees them.
async fn read_policies_in(
    tx: &deadpool_postgres::Transaction<'_>,
    policy: Option<&str>,
) -> Result<Vec<Policy>, StoreError> {
    let sql = "SELECT name, version, updated_at FROM policies WHERE $1::text IS NULL OR name = $1 ORDER BY name";
    let rows = tx.query(&tx.prepare_cached(sql).await?, &[&policy]).await?;
    let mut policies = Vec::new();
    for row in &rows {
        let name: String = row.try_get(0)?;
        let updated_at: Timestamp = row.try_get(2)?;
        policies.push(Policy {
            bindings: bindings_of(tx, &name).await?,
            revisions: revisions_of(tx, &name).await?,
            name,
            version: row.try_get(1)?,
            updated_at: updated_at.to_string(),
        });
    }
    Ok(policies)
}

async fn bindings_of(tx: &deadpool_postgres::Transaction<'_>, policy: &str) -> Result<Vec<Binding>, StoreError> {
    let sql = format!("{BINDING} WHERE b.policy = $1 ORDER BY b.ord, b.name");
    let rows = tx.query(&tx.prepare_cached(&sql).await?, &[&policy]).await?;
    rows.iter().map(binding).collect()
}

async fn revisions_of(tx: &deadpool_postgres::Transaction<'_>, policy: &str) -> Result<Vec<Revision>, StoreError> {
    let sql = format!("SELECT {REVISION} FROM policy_revisions r WHERE r.policy = $1 ORDER BY r.number DESC");
    let rows = tx.query(&tx.prepare_cached(&sql).await?, &[&policy]).await?;
    rows.iter().map(revision).collect()
}

fn revision(row: &Row) -> Result<Revision, StoreError> {
    let manifest: Value = row.try_get(3)?;
    let created_at: Timestamp = row.try_get(8)?;
    let text = |name: &str| manifest[name].as_str().unwrap_or_default().to_owned();
    let part = |name: &str| serde_json::from_value(manifest[name].clone()).map_err(StoreError::internal);
    Ok(Revision {
        number: row.try_get(0)?,
        digest: row.try_get(1)?,
        size: row.try_get(2)?,
        version: text("version"),
        summary: text("summary"),
        worlds: serde_json::from_value(manifest["worlds"].clone()).map_err(StoreError::internal)?,
        capabilities: part("capabilities")?,
        settings_schema: manifest["settings_schema"].clone(),
        failure_mode: serde_json::from_value(manifest["failure_mode"].clone()).map_err(StoreError::internal)?,
        smoke: serde_json::from_value(row.try_get(4)?).map_err(StoreError::internal)?,
        source: parse_word(row.try_get(5)?)?,
        status: parse_word(row.try_get(6)?)?,
        uploaded_by: row.try_get(7)?,
        created_at: created_at.to_string(),
    })
}

fn binding(row: &Row) -> Result<Binding, StoreError> {
    let scope_name: String = row.try_get(4)?;
    let updated_at: Timestamp = row.try_get(18)?;
    Ok(Binding {
        name: row.try_get(0)?,
        policy: row.try_get(1)?,
        world: parse_word(row.try_get(2)?)?,
        scope: match row.try_get::<_, &str>(3)? {
            "tier" => Scope::Tier(scope_name),
            "tenant" => Scope::Tenant(scope_name),
            _ => Scope::Everyone,
        },
        order: row.try_get(5)?,
        failure_mode: parse_word(row.try_get(6)?)?,
        group: row.try_get(7)?,
        settings: row.try_get(8)?,
        active: row.try_get(9)?,
        active_digest: row.try_get(10)?,
        trial: row.try_get::<_, Option<i32>>(11)?.map(|number| trial(row, number)).transpose()?,
        updated_at: updated_at.to_string(),
    })
}

fn trial(row: &Row, revision: i32) -> Result<Trial, StoreError> {
    let since: Timestamp = row.try_get(17)?;
    Ok(Trial {
        revision,
        digest: row.try_get(12)?,
        mode: parse_word(row.try_get(13)?)?,
        percent: f64::from(row.try_get::<_, i32>(14)?) / 100.0,
        tenants: row.try_get(15)?,
        settings: row.try_get(16)?,
        since: since.to_string(),
    })
}

fn group(row: &Row) -> Result<Group, StoreError> {
    Ok(Group {
        name: row.try_get(0)?,
        world: parse_word(row.try_get(1)?)?,
        kind: parse_word(row.try_get(2)?)?,
        order: row.try_get(3)?,
        members: row.try_get(4)?,
    })
}

/// A value of a closed set, from its word.
fn parse_word<T: DeserializeOwned>(word: &str) -> Result<T, StoreError> {
    serde_json::from_value(json!(word)).map_err(StoreError::internal)
}

/// The word of a value of a closed set.
fn word<T: Serialize>(value: T) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use eventflow_api::policy::{FailureMode, GroupKind, RevisionStatus, Source, TrialMode, World};

    use super::*;

    #[test]
    fn words_of_the_schema_are_those_of_the_api() {
        assert_eq!([word(World::Request), word(World::Admission)], ["request", "admission"]);
        assert_eq!([word(FailureMode::Closed), word(FailureMode::Open)], ["closed", "open"]);
        assert_eq!(
            [word(GroupKind::All), word(GroupKind::Any), word(GroupKind::FirstMatch)],
            ["all", "any", "first-match"]
        );
        assert_eq!([word(TrialMode::Shadow), word(TrialMode::Canary)], ["shadow", "canary"]);
        assert_eq!([word(Source::Upload), word(Source::Builtin)], ["upload", "builtin"]);
        assert_eq!([word(RevisionStatus::Accepted), word(RevisionStatus::RolledBack)], ["accepted", "rolled-back"]);
        assert_eq!(parse_word::<World>("admission").unwrap(), World::Admission);
    }
}
