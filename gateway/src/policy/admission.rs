//! Changes of functions: what a policy is shown of one, what it may change, and what the caller hears. A policy may
//! take half a second, so it runs on a thread beside the server's, one of a bounded number.

use std::sync::Arc;

use eventflow_api::function::FunctionSpec;
use eventflow_api::http::parse_replace;
use eventflow_api::labels;
use eventflow_api::names::{FunctionName, TenantId};
use eventflow_api::policy::{TraceStep, World};
use eventflow_api::problem::ProblemCode;
use policy_engine::Call as Surroundings;
use policy_engine::counters::Lane;
use policy_engine::set::{AdmissionOutcome, Step};
use policy_engine::types::{AdmissionView, Operation};
use serde_json::{Value, json};

use super::metrics::micros;
use super::recorder::{About, secrets_of};
use super::request::{now_ms, refusal};
use super::{Policies, Sets, WAIT, facts, role_word};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;

/// What the operator hears of a policy that sets labels through the API.
const NO_METADATA: &str = "its labels or annotations are changed, and functions made through the API have none of their \
    own: let the policy change the spec alone, or bind it where functions are made with kubectl";

/// What somebody wants of a function.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// What is about to be done.
    pub operation: Operation,
    /// The function.
    pub name: &'a FunctionName,
    /// Its spec as it would be; of a deletion or invocation as it is.
    pub spec: &'a FunctionSpec,
    /// As it is, for a change.
    pub old: Option<&'a FunctionSpec>,
    /// True if nothing will be done whatever the verdict.
    pub dry_run: bool,
}

/// What the policies said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Sentences for the caller.
    pub warnings: Vec<String>,
    /// Who judged, in order.
    pub trace: Vec<TraceStep>,
}

/// Something to judge, from wherever it comes.
#[derive(Debug, Clone)]
pub(crate) struct Matter {
    pub(crate) tenant: TenantId,
    pub(crate) request_id: String,
    pub(crate) subject: String,
    pub(crate) operation: Operation,
    pub(crate) name: FunctionName,
    /// As it would be: `metadata` and `spec`.
    pub(crate) object: Value,
    pub(crate) old: Option<Value>,
    pub(crate) dry_run: bool,
    /// Whether tokens are taken from counters.
    pub(crate) counts: bool,
    /// Whether labels and annotations that policies set are kept: not those of functions made through the API, whose
    /// documents have none.
    pub(crate) keeps_metadata: bool,
}

/// A function as policies see it.
#[must_use]
pub fn function_object(tenant: &TenantId, name: &FunctionName, spec: &FunctionSpec) -> Value {
    json!({
        "apiVersion": format!("{}/{}", labels::GROUP, labels::VERSION),
        "kind": "Function",
        "metadata": {
            "name": name,
            "namespace": tenant.namespace(),
            "labels": {labels::MANAGED_BY: labels::MANAGED_BY_VALUE, labels::TENANT: tenant},
        },
        "spec": spec,
    })
}

impl Policies {
    /// Whether any policy judges changes of functions; if none does, nothing need be read for them.
    #[must_use]
    pub fn judges_changes(&self) -> bool {
        self.inner.sets.load().as_ref().is_none_or(|sets| sets.bound.1 > 0 || !sets.broken.is_empty())
    }

    /// Judges a change of a function that a tenant wants through the API, and says what to go on with.
    ///
    /// # Errors
    /// A refusal, a policy that failed, and no place to judge in.
    pub async fn admit(
        &self,
        app: &Arc<App>,
        (caller, request_id): (&Caller, &str),
        proposal: Proposal<'_>,
    ) -> Result<(FunctionSpec, Said), ApiError> {
        let tenant = caller.tenant.id();
        let Proposal { operation, name, spec, old, dry_run } = proposal;
        if !self.judges_changes() {
            return Ok((spec.clone(), Said::default()));
        }
        let matter = Matter {
            tenant: tenant.clone(),
            request_id: request_id.to_owned(),
            subject: caller.identity.subject.clone(),
            operation,
            name: name.clone(),
            object: function_object(tenant, name, spec),
            old: old.map(|old| function_object(tenant, name, old)),
            dry_run,
            counts: !dry_run,
            keeps_metadata: false,
        };
        let outcome = self.judge(app, matter).await?;
        let trace = trace(&outcome.steps);
        let admitted = outcome.result.map_err(refusal)?;
        let warnings = admitted.warnings;
        let is_change = matches!(operation, Operation::Create | Operation::Update);
        let spec = if is_change && admitted.changed {
            let (spec, _) = parse_replace(name, admitted.object["spec"].clone()).map_err(ApiError::invalid)?;
            spec
        } else {
            spec.clone()
        };
        Ok((spec, Said { warnings, trace }))
    }

    /// Judges a matter on a thread beside the server's.
    pub(crate) async fn judge(&self, app: &Arc<App>, matter: Matter) -> Result<AdmissionOutcome, ApiError> {
        let inner = &self.inner;
        let Some(sets) = inner.sets.load_full() else {
            return Err(ApiError::policy_failed("(none yet)", "no set of policies was loaded since the start"));
        };
        let tenant = facts::tenant(app, &matter.tenant);
        if let Some(broken) = sets.broken(World::Admission, &tenant) {
            return Err(ApiError::policy_failed(&broken.binding, broken.message.clone()));
        }
        let (used, hard) = facts::amounts(app, &matter.tenant);
        let view = AdmissionView {
            request_id: matter.request_id,
            tenant,
            subject: matter.subject,
            operation: matter.operation,
            object: matter.object.to_string(),
            old: matter.old.as_ref().map(Value::to_string),
            used,
            hard,
            dry_run: matter.dry_run,
        };
        inner.samples.admission(&view);
        let around = Surroundings {
            now_ms: now_ms(),
            tenant: matter.tenant.as_str().into(),
            counters: Arc::clone(&inner.counters),
            lane: if matter.counts { Lane::Enforced } else { Lane::Peek },
            facts: Some(facts::source(app, &matter.tenant)),
        };
        let _place = match tokio::time::timeout(WAIT, inner.admissions.acquire()).await {
            Ok(Ok(place)) => place,
            _ => {
                let detail = "Too many changes are being judged at once. Try again in a moment.";
                return Err(ApiError::new(ProblemCode::Overloaded, detail));
            }
        };
        let (name, about) = (matter.name.clone(), About::of_admission(&view, matter.name.as_str(), sets.revision));
        let given = (!matter.keeps_metadata).then(|| matter.object["metadata"].clone());
        let judge = move || evaluate(&sets, &view, (&name, given.as_ref()), &around);
        let judged = tokio::task::spawn_blocking(judge).await;
        let outcome = judged.map_err(|error| ApiError::internal(format!("judging a change: {error}")))?;
        let secrets = || {
            let mut secrets = secrets_of(&matter.object);
            secrets.extend(matter.old.as_ref().map(secrets_of).unwrap_or_default());
            secrets
        };
        inner.note(&about, &outcome.steps, secrets);
        Ok(outcome)
    }
}

/// With `given`, that metadata must stay: a patch that changes it is refused as any other that cannot be carried out,
/// and not carried out in part.
fn evaluate(
    sets: &Sets,
    view: &AdmissionView,
    (name, given): (&FunctionName, Option<&Value>),
    around: &Surroundings,
) -> AdmissionOutcome {
    let validate = |object: &Value| {
        if given.is_some_and(|given| object["metadata"] != *given) {
            return Err(NO_METADATA.to_owned());
        }
        let parsed = parse_replace(name, object["spec"].clone());
        parsed.map(drop).map_err(|violations| {
            let faults: Vec<String> = violations.iter().map(|v| format!("{} {}", v.field, v.message)).collect();
            faults.join("; ")
        })
    };
    sets.admission.admit(view, &validate, around)
}

/// The trace of a dry run.
pub(super) fn trace(steps: &[Step]) -> Vec<TraceStep> {
    let told = |step: &Step| TraceStep {
        binding: step.binding.to_string(),
        policy: step.policy.to_string(),
        digest: step.digest.to_string(),
        role: role_word(step.role).to_owned(),
        verdict: step.verdict.to_owned(),
        time_us: micros(step.elapsed),
    };
    steps.iter().map(told).collect()
}
