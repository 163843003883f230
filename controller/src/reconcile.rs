//! Brings one object in order: observe, validate, desired, apply, status. Assumes nothing about why it runs, and
//! may stop at any `?`: the next run picks up from what is there.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use crate::admission::cover::Reader;
use crate::admission::quiet::Quiet;
use crate::admission::{self, AdmissionError};
use crate::apply::{Applier, ApplyError};
use crate::desired::Surroundings;
use crate::events::Events;
use crate::lease::Tenure;
use crate::metrics::Metrics;
use crate::queue::Next;
use crate::status::write::StatusError;
use crate::world::{Key, Name, World};

/// Functions.
pub mod function;
/// Runs.
pub mod invocation;
/// Tenants.
pub mod tenant;

/// Wait before looking again at something that no watch of ours would show.
const UNWATCHED: Duration = Duration::from_secs(30);

/// What a reconcile works with.
pub struct Context {
    /// Writes statuses.
    pub client: Client,
    /// What the watches say.
    pub world: Arc<World>,
    /// Writes objects.
    pub applier: Applier,
    /// Reads ledgers afresh.
    pub reader: Reader,
    /// Tells transitions.
    pub events: Events,
    /// What is the same for every tenant.
    pub surroundings: Surroundings,
    /// Counts the leaders; this one's number.
    pub epoch: u64,
    /// How long this leader may act.
    pub tenure: Tenure,
    /// How long one that waits for quota may be passed by smaller ones.
    pub max_pass: Duration,
    /// Since when nothing is left of functions whose end is marked.
    pub quiet: Quiet,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Why a reconcile stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// An object could not be made as it should be.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The ledger could not be brought in order.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The status could not be written.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// Others wrote a Deployment each time.
    #[error("the Deployment of {}/{} was written by others each time", .0.namespace, .0.name)]
    Contended(Name),
}

/// Brings one object in order.
///
/// # Errors
/// If the API server refuses something or cannot be asked.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Next, ReconcileError> {
    match key {
        Key::Tenant(id) => tenant::reconcile(context, id).await,
        Key::Function(name) => function::reconcile(context, name).await,
        Key::Invocation(name) => invocation::reconcile(context, name).await,
        Key::Admission(id) => admission::reconcile(context, id).await,
    }
}
