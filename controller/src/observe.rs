//! What is known of one object and its surroundings at one moment. Reads the tables, never the API server: a
//! reconcile of something that is in order costs no call.

use std::sync::Arc;

use crate::validate::TenantContext;
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
        Key::Function(_) | Key::Admission(_) => None,
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
