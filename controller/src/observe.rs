//! What is known of one object and its surroundings at one moment. Reads the tables, never the API server: a
//! reconcile of something that is in order costs no call.

use std::sync::Arc;

use crate::desired;
use crate::validate::TenantContext;
use crate::world::run::{InvocationView, JobView, RunPodView};
use crate::world::table::Seen;
use crate::world::views::{FunctionView, PodView, TenantView, TierView};
use crate::world::{Key, Name, World, cluster_name};

/// A tenant and its tier.
#[derive(Debug, Clone)]
pub struct ObservedTenant {
    /// The tenant's id.
    pub name: String,
    /// The tenant.
    pub tenant: Arc<Seen<TenantView>>,
    /// Its tier, if that exists.
    pub tier: Option<Arc<Seen<TierView>>>,
}

/// A function and what is known of its tenant.
#[derive(Debug, Clone)]
pub struct ObservedFunction {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The function.
    pub function: Arc<Seen<FunctionView>>,
    /// What is to be known of its tenant, if there is one.
    pub context: Option<TenantContext>,
}

/// Looks at a tenant; nothing if it is gone.
#[must_use]
pub fn tenant(world: &World, id: &str) -> Option<ObservedTenant> {
    let tables = world.tables();
    let tenant = tables.tenants.get(&cluster_name(id))?;
    let tier = tenant.view.spec.as_ref().ok().and_then(|spec| tables.tiers.get(&cluster_name(&spec.tier)));
    Some(ObservedTenant { name: id.to_owned(), tenant, tier })
}

/// Looks at a function; nothing if it is gone.
#[must_use]
pub fn function(world: &World, name: &Name) -> Option<ObservedFunction> {
    let tables = world.tables();
    let function = tables.functions.get(name)?;
    let context = match &function.group {
        Key::Tenant(id) => tables.context(id),
        Key::Function(_) | Key::Invocation(_) | Key::Admission(_) => None,
    };
    Some(ObservedFunction { namespace: name.namespace.clone(), name: name.name.clone(), function, context })
}

/// Looks at a function's pods.
#[must_use]
pub fn pods(world: &World, name: &Name) -> Vec<PodView> {
    let tables = world.tables();
    let members = tables.pods.members(&Key::Function(name.clone()));
    members.into_iter().map(|(_, seen)| seen.view.clone()).collect()
}

/// A run and what is known of its function, its tenant, its Job and its pods.
#[derive(Debug, Clone)]
pub struct ObservedInvocation {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The run.
    pub invocation: Arc<Seen<InvocationView>>,
    /// Its function, if there is one.
    pub function: Option<ObservedFunction>,
    /// The Job of its name, whosever it is.
    pub job: Option<Arc<Seen<JobView>>>,
    /// Its own pods, oldest first.
    pub pods: Vec<(String, RunPodView)>,
}

/// Looks at a run; nothing if it is gone.
#[must_use]
pub fn invocation(world: &World, name: &Name) -> Option<ObservedInvocation> {
    let (invocation, job, pods) = {
        let tables = world.tables();
        let job = Name { namespace: name.namespace.clone(), name: desired::job::name(&name.name) };
        let pods = tables.run_pods.members(&Key::Invocation(name.clone()));
        (tables.invocations.get(name)?, tables.jobs.get(&job), pods)
    };
    let function =
        invocation.view.spec.as_ref().ok().and_then(|spec| {
            function(world, &Name { namespace: name.namespace.clone(), name: spec.function.to_string() })
        });
    let own = |pod: &Seen<RunPodView>| pod.view.invocation.as_ref() == Some(&invocation.uid);
    let mut pods: Vec<_> =
        pods.into_iter().filter(|(_, pod)| own(pod)).map(|(name, pod)| (name.name, pod.view.clone())).collect();
    pods.sort_by(|(a, one), (b, other)| (one.created, a).cmp(&(other.created, b)));
    Some(ObservedInvocation {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        invocation,
        function,
        job,
        pods,
    })
}
