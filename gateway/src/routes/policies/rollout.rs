//! What is in force and what is tried out. Settings are checked before anything is changed: against the schema, by the
//! module itself, and on the last requests.

use std::sync::Arc;

use eventflow_api::policy::{Binding, BindingRequest, Policy, Revision, Rollout as Wanted, Scope, TrialMode, World};
use eventflow_api::problem::ProblemCode;
use serde_json::{Map, Value};

use super::{Errand, body, document, label, refused, revision};
use crate::app::App;
use crate::auth::Operator;
use crate::error::ApiError;
use crate::routes::Answer;
use crate::routes::call::Call;
use crate::store::{PolicyChange, Rollout, StoreError, TrialRequest};

/// Order of a binding that does not say.
const ORDER: i32 = 100;

/// `PUT /v1/policies/{name}/bindings/{binding}`: makes a binding, or replaces one; what it runs stays.
///
/// # Errors
/// Faults of the body, settings that are refused, no such policy or group, a failed precondition, a failing store.
pub async fn bind(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let wanted: BindingRequest = body(&mut call).await?;
    let policy = app.store.policy_get(call.param(0)).await?;
    let name = label(call.param(1))?;
    let newest = revision(&policy, None)?;
    let old = policy.bindings.iter().find(|binding| binding.name == name);
    let world = match (wanted.world, old) {
        (Some(world), _) => world,
        (None, Some(old)) => old.world,
        (None, None) => only_world(newest)?,
    };
    let binding = Binding {
        name: name.to_owned(),
        policy: policy.name.clone(),
        world,
        scope: wanted.scope,
        order: wanted.order.unwrap_or(ORDER),
        failure_mode: wanted.failure_mode.unwrap_or(newest.failure_mode),
        group: wanted.group,
        settings: settings_or_none(wanted.settings),
        active: old.and_then(|old| old.active),
        active_digest: old.and_then(|old| old.active_digest.clone()),
        trial: None,
        updated_at: String::new(),
    };
    // With nothing in force yet they are for the newest revision.
    let runs = policy.revisions.iter().find(|revision| Some(revision.number) == binding.active).unwrap_or(newest);
    check(&app, &policy.name, runs, (world, &binding.settings)).await?;
    let new_state = old.is_some_and(|old| old.active.is_some() && old.settings != binding.settings);
    document(
        &Errand::of(&operator, &call)?.run(&app, PolicyChange::Bind { binding: Box::new(binding), new_state }).await?,
    )
}

/// `DELETE /v1/policies/{name}/bindings/{binding}`: nothing is judged by it any more.
///
/// # Errors
/// No such policy or binding, a failed precondition, a failing store.
pub async fn unbind(app: Arc<App>, operator: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let binding = call.param(1).to_owned();
    document(&Errand::of(&operator, &call)?.run(&app, PolicyChange::Unbind(binding)).await?)
}

/// `POST /v1/policies/{name}:shadow`: judges beside what decides, and is never enforced.
///
/// # Errors
/// Faults of the body, settings that are refused, no such policy, a failed precondition, a failing store.
pub async fn shadow(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let wanted: Wanted = body(&mut call).await?;
    only_for_canaries(&wanted)?;
    let trial = TrialRequest { mode: TrialMode::Shadow, basis_points: 0, tenants: Vec::new() };
    roll_out(&app, Errand::of(&operator, &call)?, wanted, Some(trial)).await
}

/// `POST /v1/policies/{name}:canary`: decides for a share of the requests, and for named tenants.
///
/// # Errors
/// As [`shadow`].
pub async fn canary(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let wanted: Wanted = body(&mut call).await?;
    let percent = wanted.percent.unwrap_or(0.0);
    if !(0.0..=100.0).contains(&percent) {
        return Err(ApiError::malformed("The field \"percent\" must be a number from 0 to 100."));
    }
    let basis_points = (percent * 100.0).round() as i32;
    if basis_points == 0 && wanted.tenants.is_empty() {
        return Err(ApiError::malformed("A canary needs \"percent\" of the requests, or \"tenants\"."));
    }
    let trial = TrialRequest { mode: TrialMode::Canary, basis_points, tenants: wanted.tenants.clone() };
    roll_out(&app, Errand::of(&operator, &call)?, wanted, Some(trial)).await
}

/// `POST /v1/policies/{name}:activate`: decides from now on, everywhere, within two seconds.
///
/// # Errors
/// As [`shadow`].
pub async fn activate(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let wanted: Wanted = body(&mut call).await?;
    only_for_canaries(&wanted)?;
    roll_out(&app, Errand::of(&operator, &call)?, wanted, None).await
}

/// `POST /v1/policies/{name}:rollback`: ends the trial; where there is none, goes back to what decided before.
///
/// # Errors
/// Nothing to go back to, no such policy or binding, a failed precondition, a failing store.
pub async fn rollback(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let wanted: Wanted = body(&mut call).await?;
    let policy = app.store.policy_get(call.param(0)).await?;
    let bindings = match wanted.binding {
        Some(name) => vec![name],
        None => policy.bindings.iter().map(|binding| binding.name.clone()).collect(),
    };
    document(&Errand::of(&operator, &call)?.run(&app, PolicyChange::Rollback(bindings)).await?)
}

async fn roll_out(app: &App, errand: Errand, wanted: Wanted, trial: Option<TrialRequest>) -> Answer {
    let policy = app.store.policy_get(&errand.policy).await?;
    let mut rollouts = Vec::new();
    for binding in meant(&policy, &wanted)? {
        let tried = binding.trial.as_ref();
        let picked = match (&wanted.revision, tried) {
            (None, Some(trial)) => policy.revisions.iter().find(|revision| revision.number == trial.revision),
            (wanted, _) => Some(revision(&policy, wanted.as_ref())?),
        };
        let picked = picked.ok_or(StoreError::NotFound)?;
        let settings = wanted.settings.clone().map(settings_or_none);
        let of_trial = tried.filter(|trial| trial.revision == picked.number).map(|trial| trial.settings.clone());
        let settings = settings.or(of_trial).unwrap_or_else(|| binding.settings.clone());
        check(app, &policy.name, picked, (binding.world, &settings)).await?;
        rollouts.push(Rollout { binding, revision: picked.number, settings });
    }
    let wish = match trial {
        Some(trial) => PolicyChange::Try(rollouts, trial),
        None => PolicyChange::Activate(rollouts),
    };
    document(&errand.run(app, wish).await?)
}

/// The bindings that are meant; of a policy without any, one to be made.
fn meant(policy: &Policy, wanted: &Wanted) -> Result<Vec<Binding>, ApiError> {
    if let Some(name) = &wanted.binding {
        let binding = policy.bindings.iter().find(|binding| binding.name == *name);
        return Ok(vec![binding.cloned().ok_or(StoreError::NotFound)?]);
    }
    if !policy.bindings.is_empty() {
        return Ok(policy.bindings.clone());
    }
    let picked = revision(policy, wanted.revision.as_ref())?;
    Ok(vec![Binding {
        name: policy.name.clone(),
        policy: policy.name.clone(),
        world: only_world(picked)?,
        scope: Scope::Everyone,
        order: ORDER,
        failure_mode: picked.failure_mode,
        group: None,
        settings: Value::Object(Map::new()),
        active: None,
        active_digest: None,
        trial: None,
        updated_at: String::new(),
    }])
}

fn only_world(revision: &Revision) -> Result<World, ApiError> {
    match revision.worlds.as_slice() {
        [world] => Ok(*world),
        _ => Err(ApiError::malformed("The policy has two worlds: make a binding that names one.")),
    }
}

fn only_for_canaries(wanted: &Wanted) -> Result<(), ApiError> {
    if wanted.percent.is_some() || !wanted.tenants.is_empty() {
        return Err(ApiError::malformed("The fields \"percent\" and \"tenants\" are for :canary alone."));
    }
    Ok(())
}

fn settings_or_none(settings: Value) -> Value {
    if settings.is_null() { Value::Object(Map::new()) } else { settings }
}

async fn check(
    app: &App,
    policy: &str,
    revision: &Revision,
    (world, settings): (World, &Value),
) -> Result<(), ApiError> {
    if !revision.worlds.contains(&world) {
        let detail = format!("Revision {} does not judge in the binding's world.", revision.number);
        return Err(ApiError::new(ProblemCode::PolicyState, detail));
    }
    app.policies.intake().try_settings(policy, revision, world, settings).await?.map_err(refused)
}
