//! One row to the API server, safely beside others who do the same, late or twice. Nothing is locked: every write
//! names the UID and the resourceVersion it was decided on, and starts over from what is there when they are not true
//! any more. An object that stands for a newer generation is left alone.

use eventflow_api::function::Function;
use eventflow_api::labels::GATEWAY_MANAGER;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::response::Status;
use kube::{Api, ResourceExt};
use uuid::Uuid;

use super::{Inner, object};
use crate::store::{FunctionRow, Life, StoreError};

/// How a row was carried.
pub(super) enum Carried {
    /// The object holds the row's generation.
    Applied(Box<Function>),
    /// The object holds a newer one.
    Superseded,
    /// The object of a deleted row is gone.
    Gone,
    /// The object of a deleted row is on its way out.
    Leaving,
}

/// Why a row could not be carried now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Hold {
    #[error("the tenant's namespace is not there yet")]
    NoNamespace,
    #[error("the object of an older function of this name is still being deleted")]
    Older,
    #[error("the object changed again and again meanwhile")]
    Contended,
    #[error("the API server refused: {0}")]
    Refused(String),
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

impl Hold {
    /// Whether nothing but the way is at fault, for this row as for every other.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Store(error) => error.is_outage(),
            Self::NoNamespace | Self::Older | Self::Contended | Self::Refused(_) => false,
        }
    }
}

/// Most rounds of looking and writing; each lost one means that somebody else wrote.
const ROUNDS: usize = 6;

/// Carries the row's intent to the API server.
pub(super) async fn carry(inner: &Inner, row: &FunctionRow) -> Result<Carried, Hold> {
    if row.deleted_at.is_some() { remove(inner, row).await } else { apply(inner, row).await }
}

async fn apply(inner: &Inner, row: &FunctionRow) -> Result<Carried, Hold> {
    let api = api(inner, row);
    // What the watch saw last spares a call; if it is old news, the write is refused and we look.
    let mut current = inner.functions.get(&row.tenant.namespace(), row.name.as_str()).map(|f| (*f).clone());
    for _ in 0..ROUNDS {
        let outcome = match &current {
            None => create(&api, row).await,
            Some(current) => {
                if !may_write(inner, row, current).await? {
                    return Ok(Carried::Superseded);
                }
                overwrite(&api, row, current).await
            }
        };
        match outcome {
            Ok(function) => return Ok(Carried::Applied(Box::new(function))),
            Err(kube::Error::Api(status)) if status.code == 409 => current = look(&api, row).await?,
            Err(kube::Error::Api(status)) if status.code == 404 && current.is_some() => {
                current = look(&api, row).await?;
            }
            Err(error) => return Err(hold(error)),
        }
    }
    Err(Hold::Contended)
}

async fn create(api: &Api<Function>, row: &FunctionRow) -> Result<Function, kube::Error> {
    let params = PostParams { field_manager: Some(GATEWAY_MANAGER.to_owned()), ..PostParams::default() };
    api.create(&params, &object::wanted(row)).await
}

async fn overwrite(api: &Api<Function>, row: &FunctionRow, current: &Function) -> Result<Function, kube::Error> {
    let patch = Patch::Apply(object::applied_over(row, current));
    api.patch(row.name.as_str(), &PatchParams::apply(GATEWAY_MANAGER).force(), &patch).await
}

/// Whether the row's intent is to go over this object; `Ok(false)` when the object holds a newer one.
async fn may_write(inner: &Inner, row: &FunctionRow, current: &Function) -> Result<bool, Hold> {
    if current.metadata.deletion_timestamp.is_some() {
        return Err(Hold::Older);
    }
    match object::function_id(current) {
        Some(id) if id == row.id => Ok(object::generation(current).is_none_or(|there| there <= row.generation)),
        // Made by kubectl: our unapplied intent wins.
        None => Ok(true),
        Some(other) => match inner.store.function_life(other).await? {
            // Its own deletion comes first.
            Life::Leaving => Err(Hold::Older),
            // Either the name went from this row to that one, so that this one's intent is void; or somebody copied
            // another function's annotations.
            Life::Live => Ok(inner.store.function_life(row.id).await? == Life::Live),
            // An annotation that somebody copied.
            Life::Purged | Life::Unknown => Ok(true),
        },
    }
}

async fn remove(inner: &Inner, row: &FunctionRow) -> Result<Carried, Hold> {
    let api = api(inner, row);
    let mut uid = row.object_uid.clone();
    for _ in 0..ROUNDS {
        let Some(target) = uid else {
            // Perhaps applied by a process that died before it could say so.
            match look(&api, row).await? {
                Some(function) if object::function_id(&function) == Some(row.id) => uid = function.uid(),
                _ => return Ok(Carried::Gone),
            }
            continue;
        };
        let preconditions = Some(Preconditions { uid: Some(target), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::background() };
        match api.delete(row.name.as_str(), &params).await {
            Ok(either) => return Ok(either.either(|_| Carried::Leaving, |_| Carried::Gone)),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Carried::Gone),
            // Another object of this name, which may still be this row's.
            Err(kube::Error::Api(status)) if status.code == 409 => uid = None,
            Err(error) => return Err(hold(error)),
        }
    }
    Err(Hold::Contended)
}

/// Makes an adopted object say which row and generation it now stands for. Lost races do not matter: whoever wrote
/// makes an event, and that is looked at again.
pub(super) async fn stamp(inner: &Inner, row: &FunctionRow, current: &Function) -> Result<(), Hold> {
    let patch = Patch::Merge(object::stamp(row, current));
    let params = PatchParams { field_manager: Some(GATEWAY_MANAGER.to_owned()), ..PatchParams::default() };
    match api(inner, row).patch(row.name.as_str(), &params, &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(hold(error)),
    }
}

/// The object as it is now, from the API server itself.
pub(super) async fn look(api: &Api<Function>, row: &FunctionRow) -> Result<Option<Function>, Hold> {
    api.get_opt(row.name.as_str()).await.map_err(hold)
}

pub(super) fn api(inner: &Inner, row: &FunctionRow) -> Api<Function> {
    Api::namespaced(inner.client.clone(), &row.tenant.namespace())
}

/// Why a call of the API server failed.
pub(super) fn hold(error: kube::Error) -> Hold {
    let kube::Error::Api(status) = error else { return Hold::Unreachable(error.to_string()) };
    match status.code {
        404 => Hold::NoNamespace,
        403 if namespace_terminating(&status) => Hold::NoNamespace,
        // Not set up yet, or our rights changed: comes right without a change of the row.
        401 | 403 | 429 | 500.. => Hold::Unreachable(status.message.clone()),
        _ => Hold::Refused(status.message.clone()),
    }
}

fn namespace_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// What the adopter may skip: this state of this object was written or checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    uid: Option<String>,
    /// The API server's own count of changes of the spec.
    spec_generation: Option<i64>,
    function_id: Option<Uuid>,
    generation: Option<i64>,
}

impl Checked {
    pub(super) fn of(function: &Function) -> Self {
        Self {
            uid: function.uid(),
            spec_generation: function.metadata.generation,
            function_id: object::function_id(function),
            generation: object::generation(function),
        }
    }
}
