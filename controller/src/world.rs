//! What the watches say, in memory: one table per kind, holding of each object only what is read. Turns changes
//! into keys of work. Never talks to the API server.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eventflow_api::names::TenantId;

use crate::admission::survey::Told;
use crate::queue::Queue;
use crate::validate::TenantContext;

/// Objects that the controller makes.
pub mod child;
/// Ledgers.
pub mod ledger;
/// Runs.
pub mod run;
/// One kind's objects, with the order of their versions kept.
pub mod table;
/// What is read of custom resources and pods.
pub mod views;

use child::{Child, ChildKind, ChildView};
use ledger::LedgerView;
use run::{InvocationView, JobView, RunPodView};
use table::{Seen, Table};
use views::{FunctionView, PodView, TenantView, TierView};

/// Name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name within it.
    pub name: String,
}

impl Name {
    /// The name of an object.
    #[must_use]
    pub fn of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Self {
        Self { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
    }
}

/// One object to bring in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A tenant, by id.
    Tenant(String),
    /// A function.
    Function(Name),
    /// A run.
    Invocation(Name),
    /// The ledger of a tenant, by the tenant's id.
    Admission(String),
}

/// The tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// By tenant.
    pub tenants: Table<TenantView>,
    /// By tier, each in the group of its own name.
    pub tiers: Table<TierView>,
    /// Grouped by tenant of the namespace.
    pub functions: Table<FunctionView>,
    /// Grouped by function.
    pub pods: Table<PodView>,
    /// Grouped by tenant of the namespace.
    pub invocations: Table<InvocationView>,
    /// Jobs of runs, each in the group of its own run.
    pub jobs: Table<JobView>,
    /// Grouped by run.
    pub run_pods: Table<RunPodView>,
    /// Grouped by tenant.
    pub ledgers: Table<LedgerView>,
    children: [Table<ChildView>; ChildKind::ALL.len()],
    /// What was last decided about each function and each run.
    told: HashMap<Key, Told>,
    /// What functions were last told of each tenant.
    contexts: HashMap<String, TenantContext>,
}

impl Tables {
    /// The table of a kind the controller makes.
    #[must_use]
    pub fn children(&self, kind: ChildKind) -> &Table<ChildView> {
        &self.children[kind as usize]
    }

    fn children_mut(&mut self, kind: ChildKind) -> &mut Table<ChildView> {
        &mut self.children[kind as usize]
    }

    /// What functions need to know of the tenant `id`, if there is one.
    #[must_use]
    pub fn context(&self, id: &str) -> Option<TenantContext> {
        let tenant = self.tenants.get(&cluster_name(id))?;
        let tier = tenant.view.spec.as_ref().ok().and_then(|spec| self.tiers.get(&cluster_name(&spec.tier)));
        let tier = tier.as_ref().and_then(|tier| tier.view.spec.as_ref().ok());
        let namespace: TenantId = id.parse().ok()?;
        let namespace = self.children(ChildKind::Namespace).get(&cluster_name(&namespace.namespace()));
        let namespace = namespace.is_some_and(|n| !n.view.deleting && n.view.is_owned_by(&tenant.uid));
        Some(TenantContext::new(&tenant.view, tier, namespace))
    }

    /// Keeps what functions are to know of a tenant; tells whether that is news.
    fn renew_context(&mut self, id: &str) -> bool {
        let context = self.context(id);
        if self.contexts.get(id) == context.as_ref() {
            return false;
        }
        match context {
            Some(context) => drop(self.contexts.insert(id.to_owned(), context)),
            None => drop(self.contexts.remove(id)),
        }
        true
    }

    /// What was last decided about a function or a run.
    #[must_use]
    pub fn told(&self, key: &Key) -> Option<&Told> {
        self.told.get(key)
    }

    /// Whether every kind has been listed once.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.tenants.synced()
            && self.tiers.synced()
            && self.functions.synced()
            && self.pods.synced()
            && self.invocations.synced()
            && self.jobs.synced()
            && self.run_pods.synced()
            && self.ledgers.synced()
            && self.children.iter().all(Table::synced)
    }
}

/// Name of a cluster-scoped object.
#[must_use]
pub fn cluster_name(name: &str) -> Name {
    Name { namespace: String::new(), name: name.to_owned() }
}

/// What the watches say, and the work that follows from changes.
#[derive(Debug, Default)]
pub struct World {
    tables: Mutex<Tables>,
    /// Work to do.
    pub queue: Queue,
}

/// A change of one table.
#[derive(Debug)]
pub enum Change<V> {
    /// A list starts.
    Init,
    /// An object of a list that is under way.
    Listed(Name, Seen<V>),
    /// The list is complete: what was not in it is gone.
    Done,
    /// An object came or changed.
    Applied(Name, Seen<V>),
    /// An object went.
    Deleted(Name, String),
}

impl World {
    /// The tables, to read. Held for a few lookups, never over an await.
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change of the tables is complete when it returns: a panic elsewhere leaves them sound.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change of the tenants.
    pub fn tenants(&self, change: Change<TenantView>) {
        let mut tables = self.tables();
        for key in tables.tenants.change(change) {
            self.tenant_changed(&mut tables, key);
        }
    }

    /// A change of the tiers: every tenant of the tier is looked at again.
    pub fn tiers(&self, change: Change<TierView>) {
        let mut tables = self.tables();
        for tier in tables.tiers.change(change) {
            let Key::Tenant(tier) = tier else { continue };
            let of_tier = |tenant: &TenantView| tenant.spec.as_ref().is_ok_and(|spec| spec.tier == tier);
            let tenants = tables.tenants.find(|seen| of_tier(&seen.view));
            for (name, _) in tenants {
                self.tenant_changed(&mut tables, Key::Tenant(name.name));
            }
        }
    }

    /// A change of the functions.
    pub fn functions(&self, change: Change<FunctionView>) {
        let mut tables = self.tables();
        for name in tables.functions.change_named(change) {
            let key = Key::Function(name.clone());
            match tables.functions.get(&name) {
                None => drop(tables.told.remove(&key)),
                Some(seen) => {
                    let decided = tables.told(&key).map(|told| told.generation);
                    if let Key::Tenant(id) = &seen.group
                        && decided != u64::try_from(seen.view.generation).ok()
                    {
                        self.queue.add(Key::Admission(id.clone()));
                    }
                }
            }
            self.tell_runs(&tables, &name);
            self.queue.add(key);
        }
    }

    /// Runs of a function that changed and that did not start yet are of what it is now.
    fn tell_runs(&self, tables: &Tables, function: &Name) {
        let Some(tenant) = TenantId::from_namespace(&function.namespace) else { return };
        for (name, seen) in tables.invocations.members(&Key::Tenant(tenant.into())) {
            let of_it = seen.view.spec.as_ref().is_ok_and(|spec| spec.function.as_str() == function.name);
            if of_it && !seen.view.status.phase.is_final() {
                self.queue.add(Key::Invocation(name));
            }
        }
    }

    /// A change of the runs.
    pub fn invocations(&self, change: Change<InvocationView>) {
        let mut tables = self.tables();
        for name in tables.invocations.change_named(change) {
            let key = Key::Invocation(name.clone());
            match tables.invocations.get(&name) {
                None => drop(tables.told.remove(&key)),
                // A new one is decided about first.
                Some(seen) if !seen.view.status.phase.is_final() && tables.told(&key).is_none() => {
                    if let Key::Tenant(id) = &seen.group {
                        self.queue.add(Key::Admission(id.clone()));
                    }
                }
                Some(_) => {}
            }
            self.queue.add(key);
        }
    }

    /// A change of the Jobs of runs.
    pub fn jobs(&self, change: Change<JobView>) {
        let mut tables = self.tables();
        for key in tables.jobs.change(change) {
            self.queue.add(key);
        }
    }

    /// A change of the pods of runs.
    pub fn run_pods(&self, change: Change<RunPodView>) {
        let mut tables = self.tables();
        for key in tables.run_pods.change(change) {
            self.queue.add(key);
        }
    }

    /// Remembers the answer to our own write of a run's status.
    pub fn record_invocation(&self, name: Name, seen: Seen<InvocationView>) {
        self.tables().invocations.answered(name, seen);
    }

    /// Remembers a Job as the API server answered with it.
    pub fn record_job(&self, name: Name, seen: Seen<JobView>) {
        self.tables().jobs.change(Change::Applied(name, seen));
    }

    /// Forgets a Job that turned out to be gone.
    pub fn forget_job(&self, name: &Name) {
        let mut tables = self.tables();
        if let Some(seen) = tables.jobs.get(name) {
            tables.jobs.change(Change::Deleted(name.clone(), seen.uid.clone()));
        }
    }

    /// A change of the pods.
    pub fn pods(&self, change: Change<PodView>) {
        let mut tables = self.tables();
        for key in tables.pods.change(change) {
            self.queue.add(key);
        }
    }

    /// A change of a kind that the controller makes.
    pub fn children(&self, kind: ChildKind, change: Change<ChildView>) {
        let mut tables = self.tables();
        for key in tables.children_mut(kind).change(change) {
            match kind {
                ChildKind::Namespace => self.tenant_changed(&mut tables, key),
                _ => self.queue.add(key),
            }
        }
    }

    /// Remembers the answer to our own write, so that nobody decides on what was before it. The object itself is
    /// no work because of it; the functions of a tenant that changes may be.
    pub fn record<K: Child>(&self, object: &K) {
        let (name, seen) = child::see(object);
        let mut tables = self.tables();
        for key in tables.children_mut(K::KIND).change(Change::Applied(name, seen)) {
            if let (ChildKind::Namespace, Key::Tenant(id)) = (K::KIND, &key) {
                self.tell_functions(&mut tables, id);
            }
        }
    }

    /// A change of the ledgers that was not ours.
    pub fn ledgers(&self, change: Change<LedgerView>) {
        let mut tables = self.tables();
        for key in tables.ledgers.change(change) {
            if let Key::Tenant(id) = key {
                self.queue.add(Key::Admission(id));
            }
        }
    }

    /// Remembers a ledger as the API server answered with it.
    pub fn record_ledger(&self, name: Name, seen: Seen<LedgerView>) {
        self.tables().ledgers.change(Change::Applied(name, seen));
    }

    /// Forgets an object that turned out to be gone.
    pub fn forget(&self, kind: ChildKind, name: &Name) {
        let mut tables = self.tables();
        if let Some(seen) = tables.children(kind).get(name) {
            tables.children_mut(kind).change(Change::Deleted(name.clone(), seen.uid.clone()));
        }
    }

    /// Forgets a ledger, whatever became of it.
    pub fn forget_ledger(&self, name: &Name) {
        let mut tables = self.tables();
        if let Some(seen) = tables.ledgers.get(name) {
            tables.ledgers.change(Change::Deleted(name.clone(), seen.uid.clone()));
        }
    }

    /// Keeps what was decided about a function or a run, which is then looked at; tells whether it is news.
    pub fn tell(&self, key: &Key, told: Told) -> bool {
        let mut tables = self.tables();
        if tables.told.get(key) == Some(&told) {
            return false;
        }
        tables.told.insert(key.clone(), told);
        self.queue.add(key.clone());
        true
    }

    /// Remembers the answer to our own write of a tenant's status.
    pub fn record_tenant(&self, name: Name, seen: Seen<TenantView>) {
        let mut tables = self.tables();
        for key in tables.tenants.answered(name, seen) {
            if let Key::Tenant(id) = &key {
                self.tell_functions(&mut tables, id);
            }
        }
    }

    /// Remembers the answer to our own write of a function's status.
    pub fn record_function(&self, name: Name, seen: Seen<FunctionView>) {
        self.tables().functions.answered(name, seen);
    }

    /// Looks at everything.
    pub fn enqueue_all(&self) {
        let tables = self.tables();
        for (name, _) in tables.tenants.find(|_| true) {
            self.queue.add(Key::Admission(name.name.clone()));
            self.queue.add(Key::Tenant(name.name));
        }
        for (name, _) in tables.functions.find(|_| true) {
            self.queue.add(Key::Function(name));
        }
        for (name, _) in tables.invocations.find(|_| true) {
            self.queue.add(Key::Invocation(name));
        }
    }

    fn tell_functions(&self, tables: &mut Tables, id: &str) {
        if tables.renew_context(id) {
            self.queue.add(Key::Admission(id.to_owned()));
            for name in tables.functions.group(&Key::Tenant(id.to_owned())) {
                self.queue.add(Key::Function(name));
            }
            for name in tables.invocations.group(&Key::Tenant(id.to_owned())) {
                self.queue.add(Key::Invocation(name));
            }
        }
    }

    /// A tenant, its tier or its namespace changed: so may what its functions know of it.
    fn tenant_changed(&self, tables: &mut Tables, key: Key) {
        if let Key::Tenant(id) = &key {
            self.tell_functions(tables, id);
        }
        self.queue.add(key);
    }
}
