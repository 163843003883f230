//! Changes made in the cluster to the rows: what kubectl edits, creates and deletes. Driven by what is there now, not
//! by what happened, so events may come late, twice, or be replaced by a list.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventflow_api::function::Function;
use eventflow_api::labels::GATEWAY_MANAGER;
use eventflow_api::names::{FunctionName, TenantId};
use kube::ResourceExt;
use tokio::sync::Notify;

use super::apply::{self, Checked, Hold};
use super::{Inner, object};
use crate::error::chain;
use crate::store::{Adoption, FunctionRow, Observed};

/// Objects looked at with one query.
const BATCH: usize = 256;
/// Wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Namespace and name.
type Key = (String, String);

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    /// This object may say something new.
    Object(Key),
    /// This object of this UID went.
    Absence(Key, String),
    /// This tenant appeared or changed.
    Tenant(String),
}

/// What the adopter has to look at; bounded by the number of objects.
#[derive(Default)]
pub(super) struct Desk {
    papers: Mutex<Papers>,
    filled: Notify,
    /// A list is complete: the sweeper may look for what no event told.
    pub(super) listed: Notify,
}

#[derive(Default)]
struct Papers {
    tasks: HashSet<Task>,
    /// What was found in order, so that a change of status alone costs nothing.
    checked: HashMap<Key, Checked>,
}

impl Desk {
    /// The object is new or changed.
    pub(super) fn changed(&self, function: &Function) {
        let key = key(function);
        let mut papers = self.papers();
        if papers.checked.get(&key) != Some(&Checked::of(function)) && papers.tasks.insert(Task::Object(key)) {
            self.filled.notify_one();
        }
    }

    /// The object went.
    pub(super) fn gone(&self, function: &Function) {
        let key = key(function);
        let mut papers = self.papers();
        papers.checked.remove(&key);
        papers.tasks.insert(Task::Absence(key, function.uid().unwrap_or_default()));
        self.filled.notify_one();
    }

    /// The tenant is new or changed.
    pub(super) fn tenant(&self, id: &str) {
        self.papers().tasks.insert(Task::Tenant(id.to_owned()));
        self.filled.notify_one();
    }

    /// A list is complete.
    pub(super) fn listed(&self) {
        self.listed.notify_one();
    }

    /// This state of this object is in order.
    pub(super) fn checked(&self, function: &Function, state: Checked) {
        self.papers().checked.insert(key(function), state);
    }

    fn take(&self) -> HashSet<Task> {
        let mut papers = self.papers();
        if papers.tasks.len() <= BATCH {
            return std::mem::take(&mut papers.tasks);
        }
        let some: HashSet<Task> = papers.tasks.iter().take(BATCH).cloned().collect();
        papers.tasks.retain(|task| !some.contains(task));
        some
    }

    fn put_back(&self, tasks: impl IntoIterator<Item = Task>) {
        self.papers().tasks.extend(tasks);
        self.filled.notify_one();
    }

    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(function: &Function) -> Key {
    (function.namespace().unwrap_or_default(), function.name_any())
}

/// Works for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let tasks = inner.desk.take();
        if tasks.is_empty() {
            inner.desk.filled.notified().await;
            continue;
        }
        if let Err(hold) = work(&inner, &tasks).await {
            tracing::warn!(error = %chain(&hold), "Changes made in the cluster cannot be taken over now");
            inner.desk.put_back(tasks);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn work(inner: &Inner, tasks: &HashSet<Task>) -> Result<(), Hold> {
    let mut objects = Vec::new();
    for task in tasks {
        match task {
            Task::Object(key) => objects.push(key.clone()),
            Task::Absence((namespace, name), uid) => {
                if let Some(tenant) = TenantId::from_namespace(namespace)
                    && inner.store.adopt_absence(&tenant, name, uid).await?
                {
                    tracing::info!(tenant.id = %tenant, function.name = name, "A function was deleted in the cluster");
                }
            }
            Task::Tenant(id) => {
                let Ok(tenant) = id.parse::<TenantId>() else { continue };
                inner.store.pending_hurry(&tenant).await?;
                inner.due.notify_one();
                let names = inner.functions.map(&tenant.namespace(), |_| ()).into_keys();
                objects.extend(names.map(|name| (tenant.namespace(), name)));
            }
        }
    }
    for batch in objects.chunks(BATCH) {
        look_at(inner, batch).await?;
    }
    Ok(())
}

/// Compares objects with their rows by one query, and takes a closer look at those that differ.
async fn look_at(inner: &Inner, keys: &[Key]) -> Result<(), Hold> {
    let of_tenant = |(namespace, name): &Key| Some((TenantId::from_namespace(namespace)?, name.clone()));
    let wanted: Vec<(TenantId, String)> = keys.iter().filter_map(of_tenant).collect();
    let rows = inner.store.live_rows(&wanted).await?;
    let rows: HashMap<Key, FunctionRow> =
        rows.into_iter().map(|row| ((row.tenant.namespace(), row.name.to_string()), row)).collect();
    for key in keys {
        // What is there now; nothing means that its absence is on the desk too.
        let Some(function) = inner.functions.get(&key.0, &key.1) else { continue };
        match rows.get(key) {
            Some(row) if agree(row, &function) => {
                inner.desk.checked(&function, Checked::of(&function));
                continue;
            }
            // Our intent goes first; whoever applies it looks at the object again.
            Some(row) if !row.is_synced() => continue,
            _ => {}
        }
        match adopt(inner, &function).await {
            Err(hold) if hold.is_outage() => return Err(hold),
            // One object that cannot be taken over must not keep the rest waiting.
            Err(hold) => tracing::warn!(
                object.namespace = key.0, object.name = key.1, error = %chain(&hold),
                "A change made in the cluster cannot be taken over"
            ),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether there is nothing to take over, and nothing to stamp.
fn agree(row: &FunctionRow, function: &Function) -> bool {
    row.is_synced()
        && row.object_uid == function.metadata.uid
        && object::function_id(function) == Some(row.id)
        && object::generation(function) == Some(row.generation)
        && row.spec == function.spec
}

async fn adopt(inner: &Inner, function: &Function) -> Result<(), Hold> {
    let Some(observed) = observe(inner, function) else { return Ok(()) };
    match inner.store.adopt(&observed).await? {
        // Until it changes, or its tenant does.
        Adoption::Nothing => inner.desk.checked(function, Checked::of(function)),
        Adoption::Stamp(row) => {
            tracing::info!(
                tenant.id = %row.tenant, function.name = %row.name, generation = row.generation,
                actor = observed.actor, "A change made in the cluster was taken over"
            );
            apply::stamp(inner, &row, function).await?;
        }
        Adoption::Leave => inner.due.notify_one(),
    }
    Ok(())
}

/// The object in the store's words, unless it is none of ours to take over.
fn observe(inner: &Inner, function: &Function) -> Option<Observed> {
    if function.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let tenant = TenantId::from_namespace(&function.namespace()?)?;
    let name: FunctionName = function.name_any().parse().ok()?;
    if let Err(violations) = function.spec.parse() {
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        tracing::warn!(
            tenant.id = %tenant, function.name = %name, fields = ?fields,
            "A change made in the cluster makes no sense and is left alone"
        );
        inner.desk.checked(function, Checked::of(function));
        return None;
    }
    let actor = object::spec_manager(function);
    Some(Observed {
        ownerless: inner.tenants.get("", tenant.as_str()).is_some_and(|tenant| tenant.spec.owner.is_none()),
        tenant,
        name,
        spec: function.spec.clone(),
        uid: function.uid()?,
        resource_version: object::resource_version(function),
        function_id: object::function_id(function),
        generation: object::generation(function),
        ours: actor == GATEWAY_MANAGER,
        actor,
    })
}
