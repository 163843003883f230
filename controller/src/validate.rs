//! From what was observed to what can be made, or the reason why not. No client, no clock; below this nothing
//! is invalid any more.

use std::sync::Arc;

use eventflow_api::condition::Reason;
use eventflow_api::function::ValidSpec;
use eventflow_api::invocation::{RunReason, ValidInvocation};
use eventflow_api::names::{FunctionName, TenantId};
use eventflow_api::tier::{EgressRule, PodSecurity, TierSpec};

use crate::cidr::Cidr;
use crate::observe::{ObservedFunction, ObservedInvocation, ObservedTenant};
use crate::world::views::TenantView;
use quota::vector::Vector;

/// Why nothing can be made of an object, in the words of its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal for `reason`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Addresses that functions may call, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Allowed addresses.
    pub cidr: Cidr,
    /// Addresses that stay forbidden.
    pub except: Vec<Cidr>,
}

/// A tenant that can be set up.
#[derive(Debug, Clone)]
pub struct ValidTenant {
    /// Its id.
    pub id: TenantId,
    /// The object's identity.
    pub uid: String,
    /// The hard limits of its tier, its own deviations applied.
    pub hard: Vector,
    /// How strictly its pods are confined.
    pub pod_security: PodSecurity,
    /// Addresses its functions may call.
    pub egress: Vec<Egress>,
}

/// A function that can be run.
#[derive(Debug, Clone)]
pub struct ValidFunction {
    /// Its name.
    pub name: FunctionName,
    /// The object's identity.
    pub uid: String,
    /// The generation of its spec.
    pub generation: u64,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it asks for.
    pub spec: Arc<ValidSpec>,
    /// Pods that run now: what is asked for, unless it or its tenant is suspended.
    pub replicas: u32,
    /// Why no pods run although some are asked for.
    pub suspension: Option<Reason>,
    /// How strictly its pods are confined.
    pub pod_security: PodSecurity,
    /// Whether a roll-out may start a new pod before it ends an old one.
    pub surge: bool,
}

/// A run that can be started.
#[derive(Debug, Clone)]
pub struct ValidRun {
    /// Its name.
    pub name: String,
    /// The object's identity.
    pub uid: String,
    /// The function it is a run of.
    pub function: ValidFunction,
    /// What it asks for, but for the input.
    pub spec: ValidInvocation,
    /// Whether it has an input.
    pub has_input: bool,
    /// The call that asked for it.
    pub traceparent: Option<String>,
    /// Why nothing may be reserved for it now, whatever room there is.
    pub barred: Option<Refusal>,
}

/// Why a run cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It may be later.
    Yet(Refusal),
    /// It never will.
    Ever(RunReason, String),
    /// There is no function of that name.
    NoFunction(String),
}

/// What can be made of a run.
///
/// # Errors
/// If it is malformed, or its function cannot be run.
pub fn invocation(observed: &ObservedInvocation) -> Result<ValidRun, Unfit> {
    let view = &observed.invocation.view;
    let spec = view.spec.as_ref().map_err(|e| Unfit::Ever(RunReason::InvalidSpec, e.clone()))?;
    let Some(of) = observed.function.as_ref().filter(|of| !of.function.view.deleting) else {
        return Err(Unfit::NoFunction(spec.function.to_string()));
    };
    let function = function(of).map_err(|refusal| match refusal.reason {
        Reason::TenantNotReady => Unfit::Yet(refusal),
        _ => Unfit::Ever(RunReason::FunctionUnusable, refusal.message),
    })?;
    let barred = function.suspension.map(|reason| {
        let whose = if reason == Reason::TenantSuspended { "the tenant" } else { "the function" };
        Refusal::new(reason, format!("{whose} is suspended: nothing is started until it is resumed"))
    });
    Ok(ValidRun {
        name: observed.name.clone(),
        uid: observed.invocation.uid.clone(),
        function,
        spec: spec.clone(),
        has_input: view.has_input,
        traceparent: view.traceparent.clone(),
        barred,
    })
}

/// What can be made of a tenant.
///
/// # Errors
/// If its tier is missing, or it or its tier is malformed.
pub fn tenant(observed: &ObservedTenant) -> Result<ValidTenant, Refusal> {
    let view = &observed.tenant.view;
    let spec = view.spec.as_ref().map_err(|e| Refusal::new(Reason::InvalidSpec, e))?;
    let id: TenantId =
        observed.name.parse().map_err(|e| Refusal::new(Reason::InvalidSpec, format!("metadata.name {e}")))?;
    let tier = match &observed.tier {
        None => return Err(Refusal::new(Reason::UnknownTier, format!("the tier {} does not exist", spec.tier))),
        Some(tier) => tier
            .view
            .spec
            .as_ref()
            .map_err(|e| Refusal::new(Reason::InvalidSpec, format!("the tier {} is malformed: {e}", spec.tier)))?,
    };
    let hard = Vector::hard(&tier.quota, spec.quota.as_ref()).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Refusal::new(Reason::InvalidSpec, all.join("; "))
    })?;
    let egress = egress(tier)
        .map_err(|e| Refusal::new(Reason::InvalidSpec, format!("the tier {} is malformed: {e}", spec.tier)))?;
    Ok(ValidTenant { id, uid: observed.tenant.uid.clone(), hard, pod_security: tier.pod_security, egress })
}

/// What can be made of a function.
///
/// # Errors
/// If it is malformed, or its namespace is not that of a tenant that is set up.
pub fn function(observed: &ObservedFunction) -> Result<ValidFunction, Refusal> {
    let name: FunctionName =
        observed.name.parse().map_err(|e| Refusal::new(Reason::InvalidSpec, format!("metadata.name {e}")))?;
    let spec = observed.function.view.spec.as_ref().map_err(|e| Refusal::new(Reason::InvalidSpec, e))?;
    let not_ready = |message: String| Refusal::new(Reason::TenantNotReady, message);
    let tenant = TenantId::from_namespace(&observed.namespace)
        .ok_or_else(|| not_ready(format!("the namespace {} belongs to no tenant", observed.namespace)))?;
    let context = observed.context.as_ref().ok_or_else(|| not_ready(format!("there is no tenant {tenant}")))?;
    if !context.ready {
        return Err(not_ready(format!("the tenant {tenant} is not set up: see its conditions")));
    }
    let suspension = match (spec.suspend, context.suspended) {
        (true, _) => Some(Reason::Suspended),
        (false, true) => Some(Reason::TenantSuspended),
        (false, false) => None,
    };
    Ok(ValidFunction {
        name,
        uid: observed.function.uid.clone(),
        generation: u64::try_from(observed.function.view.generation).unwrap_or_default(),
        tenant,
        spec: spec.clone(),
        replicas: if suspension.is_some() { 0 } else { spec.wanted_replicas() },
        suspension,
        pod_security: context.pod_security,
        surge: false,
    })
}

fn egress(tier: &TierSpec) -> Result<Vec<Egress>, String> {
    let parse = |(i, rule): (usize, &EgressRule)| {
        let at = |field: &str, e| format!("egress[{i}].{field} {e}");
        let cidr = rule.cidr.parse().map_err(|e| at("cidr", e))?;
        let except = rule.except.iter().map(|x| x.parse().map_err(|e| at("except", e)));
        Ok(Egress { cidr, except: except.collect::<Result<_, String>>()? })
    };
    tier.egress.iter().enumerate().map(parse).collect()
}

/// What a tenant's functions need to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantContext {
    /// Its namespace and everything in it is in place.
    pub ready: bool,
    /// Its functions are to be stopped.
    pub suspended: bool,
    /// How strictly pods are confined.
    pub pod_security: PodSecurity,
}

impl TenantContext {
    /// What functions need to know of this tenant, given its tier and whether its namespace is there.
    #[must_use]
    pub fn new(tenant: &TenantView, tier: Option<&TierSpec>, namespace: bool) -> Self {
        Self {
            ready: namespace && !tenant.deleting && tenant.is_ready(),
            suspended: tenant.spec.as_ref().is_ok_and(|spec| spec.suspended),
            pod_security: tier.map_or(PodSecurity::Restricted, |tier| tier.pod_security),
        }
    }
}
