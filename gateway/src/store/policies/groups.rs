//! Groups: several bindings that give one verdict.

use deadpool_postgres::Client;
use eventflow_api::policy::Group;
use serde_json::json;

use super::{GROUPS, change, group, word};
use crate::store::{Origin, Store, StoreError};

impl Store {
    /// All groups, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_groups(&self) -> Result<Vec<Group>, StoreError> {
        let rows = self.operator.query(GROUPS, &[]).await?;
        rows.iter().map(group).collect()
    }

    /// Makes a group, or replaces one; its world stays.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] for another world, and failures of the database.
    pub async fn policy_group_put(&self, group: &Group, origin: &Origin) -> Result<(), StoreError> {
        self.group_change(Act::Put(group.clone()), origin).await
    }

    /// Removes a group without members.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::WrongState`] while it has members, and failures of the database.
    pub async fn policy_group_delete(&self, name: &str, origin: &Origin) -> Result<(), StoreError> {
        self.group_change(Act::Delete(name.to_owned()), origin).await
    }

    async fn group_change(&self, act: Act, origin: &Origin) -> Result<(), StoreError> {
        let client = self.operator.get().await?;
        let (store, origin) = (self.clone(), origin.clone());
        let task = tokio::spawn(async move {
            store.operator.finish(client, |client| Box::pin(perform(client, act, origin))).await
        });
        task.await.map_err(StoreError::internal)?
    }
}

enum Act {
    Put(Group),
    Delete(String),
}

async fn perform(client: &mut Client, act: Act, origin: Origin) -> Result<(), StoreError> {
    let tx = client.transaction().await?;
    change::lock(&tx).await?;
    let (action, target, detail) = match &act {
        Act::Put(group) => {
            let sql = "
                INSERT INTO policy_groups AS g (name, world, kind, ord) VALUES ($1, $2, $3, $4)
                ON CONFLICT (name) DO UPDATE SET kind = $3, ord = $4 WHERE g.world = $2";
            let (world, kind) = (word(group.world), word(group.kind));
            if tx.execute(&tx.prepare_cached(sql).await?, &[&group.name, &world, &kind, &group.order]).await? == 0 {
                return Err(StoreError::WrongState("a group of this name has the other world".to_owned()));
            }
            ("policy-group.put", &group.name, json!({"kind": group.kind, "order": group.order}))
        }
        Act::Delete(name) => {
            if tx.execute(&tx.prepare_cached("DELETE FROM policy_groups WHERE name = $1").await?, &[name]).await? == 0 {
                return Err(StoreError::NotFound);
            }
            ("policy-group.delete", name, json!({}))
        }
    };
    change::audit(&tx, &origin, (action, target), detail).await?;
    change::advance_set(&tx).await?;
    tx.commit().await?;
    Ok(())
}
