//! One decision: a fresh store and instance, a deadline, and a verdict or a [`Failure`] that names what the guest did.
//! Whatever happens to the instance ends with it; the next decision starts from the frozen image again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower};
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::counters::{Counters, Lane, Owner};
use crate::engine::PolicyEngine;
use crate::host::{self, CallState, FactsSource, HostRefusal, LogLine, Surroundings};
use crate::limits::{self, Limits};
use crate::module::Problem;
use crate::snapshot::Policy;
use crate::types::{
    AdmissionVerdict, AdmissionView, Capability, Manifest, RequestView, SettingsProblem, Verdict, World,
};
use crate::verdict::{self, InvalidAnswer};

/// What surrounds the decisions about one request: the same for every policy that judges it.
#[derive(Clone)]
pub struct Call {
    /// Milliseconds since 1970, read once: every policy of a request sees the same time.
    pub now_ms: u64,
    /// Whose request it is; buckets and facts are this tenant's.
    pub tenant: Arc<str>,
    /// The buckets.
    pub counters: Arc<Counters>,
    /// Whether withdrawals count.
    pub lane: Lane,
    /// What the tenant has, asked for only if a policy asks.
    pub facts: Option<FactsSource>,
}

/// A policy did not decide. It costs this request and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It computed past its deadline and was stopped.
    #[error("it did not answer within {} ms of computing", .0.as_millis())]
    TimedOut(Duration),
    /// It needed more memory than it may have.
    #[error("it needs more than its {} MiB of memory", .0 >> 20)]
    OutOfMemory(usize),
    /// It trapped: a panic, an endless recursion, a wild pointer.
    #[error("it trapped: {0}")]
    Trapped(String),
    /// It called the host more often than it may.
    #[error("it called the host more than {0} times")]
    HostCalls(u32),
    /// It answered something that is no verdict.
    #[error("its answer is invalid: {0}")]
    Invalid(InvalidAnswer),
    /// What it was to judge is larger than policies are given.
    #[error("the request is larger than a policy is given")]
    ViewTooLarge,
    /// Every slot of the pool is in use. Nothing the policy did.
    #[error("no instance was free")]
    Busy,
}

impl Failure {
    /// A bounded metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "timed-out",
            Self::OutOfMemory(_) => "out-of-memory",
            Self::Trapped(_) => "trapped",
            Self::HostCalls(_) => "host-calls",
            Self::Invalid(_) => "invalid",
            Self::ViewTooLarge => "view-too-large",
            Self::Busy => "busy",
        }
    }
}

/// What came of one call into a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<V> {
    /// The verdict, checked, or why there is none.
    pub outcome: Result<V, Failure>,
    /// The lines it wrote.
    pub log: Vec<LogLine>,
    /// Lines that were over the cap.
    pub log_dropped: u32,
    /// From before the instance was made until it was gone.
    pub elapsed: Duration,
    /// Bytes of its memory at the end.
    pub memory_bytes: usize,
}

impl<V> Decision<V> {
    /// The same decision with the verdict said otherwise.
    pub(crate) fn map<U>(self, say: impl FnOnce(V) -> U) -> Decision<U> {
        let Self { outcome, log, log_dropped, elapsed, memory_bytes } = self;
        Decision { outcome: outcome.map(say), log, log_dropped, elapsed, memory_bytes }
    }
}

/// Where a component's functions are.
#[derive(Debug, Clone)]
pub(crate) struct Exports {
    pub configure: ComponentExportIndex,
    pub check: Option<ComponentExportIndex>,
    pub admit: Option<ComponentExportIndex>,
}

impl Exports {
    /// Finds them; none if `configure` is not there.
    pub fn find(component: &Component) -> Option<Self> {
        Some(Self {
            configure: component.get_export_index(None, "configure")?,
            check: component.get_export_index(None, World::Request.export()),
            admit: component.get_export_index(None, World::Admission.export()),
        })
    }
}

/// What differs between the worlds.
struct Question<'a, V> {
    limits: &'static Limits,
    export: Option<&'a ComponentExportIndex>,
    /// Whether the view is small enough to be handed over.
    fits: bool,
    /// What makes an answer a verdict.
    valid: fn(&V, &Limits) -> Result<(), InvalidAnswer>,
}

/// The result of a guest's `configure`.
pub(crate) type Configured = Result<(), Vec<SettingsProblem>>;

impl Policy {
    /// Judges a request. Runs on the calling thread, for at most [`limits::REQUEST`]'s deadline.
    ///
    /// A policy of the other world answers with [`Failure::Invalid`]; [`crate::set`] never asks one.
    #[must_use]
    pub fn check(&self, view: &RequestView, call: &Call) -> Decision<Verdict> {
        let question = Question {
            limits: &limits::REQUEST,
            export: self.exports.check.as_ref(),
            fits: verdict::request_view_bytes(view) <= limits::REQUEST_VIEW_BYTES,
            valid: verdict::check_request,
        };
        self.decide(question, call, (view,))
    }

    /// Judges a change of a function. Runs on the calling thread, for at most [`limits::ADMISSION`]'s deadline: not for
    /// a thread that serves requests.
    #[must_use]
    pub fn admit(&self, view: &AdmissionView, call: &Call) -> Decision<AdmissionVerdict> {
        let size = view.object.len() + view.old.as_ref().map_or(0, String::len);
        let question = Question {
            limits: &limits::ADMISSION,
            export: self.exports.admit.as_ref(),
            fits: size <= limits::ADMISSION_VIEW_BYTES,
            valid: verdict::check_admission,
        };
        self.decide(question, call, (view,))
    }

    fn decide<P, V>(&self, question: Question<'_, V>, call: &Call, params: P) -> Decision<V>
    where
        P: ComponentNamedList + Lower,
        (V,): ComponentNamedList + Lift,
    {
        let started = Instant::now();
        let around = Surroundings {
            now_ms: call.now_ms,
            owner: Owner { tenant: call.tenant.clone(), policy: self.name.clone() },
            lane: call.lane,
            counters: call.counters.clone(),
            facts: call.facts.clone(),
        };
        let Question { limits, export, fits, valid } = question;
        let mut store = store(&self.engine, limits, around);
        let outcome = match export {
            Some(export) if fits => self
                .ask(&mut store, export, params)
                .and_then(|answer: V| valid(&answer, limits).map(|()| answer).map_err(Failure::Invalid)),
            Some(_) => Err(Failure::ViewTooLarge),
            None => Err(Failure::Invalid(InvalidAnswer::OtherWorld)),
        };
        let state = store.into_data();
        Decision {
            outcome,
            log: state.log,
            log_dropped: state.log_dropped,
            elapsed: started.elapsed(),
            memory_bytes: state.memory_bytes,
        }
    }

    fn ask<P, V>(&self, store: &mut Store<CallState>, export: &ComponentExportIndex, params: P) -> Result<V, Failure>
    where
        P: ComponentNamedList + Lower,
        (V,): ComponentNamedList + Lift,
    {
        let asked = self.pre.instantiate(&mut *store).and_then(|instance| {
            if let Some(settings) = &self.configure_each {
                let configured = call_configure(store, &instance, &self.exports.configure, settings)?;
                // It was accepted once; a guest that refuses it now is not to be relied on.
                configured.map_err(|_| wasmtime::Error::msg("it refused settings it had accepted"))?;
            }
            let function = instance.get_typed_func::<P, (V,)>(&mut *store, export)?;
            Ok(function.call(&mut *store, params)?.0)
        });
        asked.map_err(|e| failure(&e, store.data(), self.limits()))
    }

    fn limits(&self) -> &'static Limits {
        limits_of(self.world)
    }
}

/// The limits of a world's decisions.
pub(crate) fn limits_of(world: World) -> &'static Limits {
    match world {
        World::Request => &limits::REQUEST,
        World::Admission => &limits::ADMISSION,
    }
}

/// A store for one call, with every limit set.
pub(crate) fn store(engine: &PolicyEngine, limits: &'static Limits, around: Surroundings) -> Store<CallState> {
    let mut store = Store::new(engine.wasmtime(), CallState::new(limits, around));
    store.limiter(|state| state);
    deadline(&mut store, engine, limits);
    store.set_hostcall_fuel(limits.hostcall_fuel);
    store.set_max_component_handles(limits.handles);
    engine.ticker().awake();
    store
}

/// Stops a guest that has computed for longer than its deadline.
///
/// Epochs count time as it passes, but a thread that the machine did not run has not computed, and on a busy machine
/// that happens to good guests all the time. So the first alarm comes early and only notes how much this thread has
/// computed so far; those after it compare. Decisions that end before the first alarm, which is nearly all, pay nothing.
fn deadline(store: &mut Store<CallState>, engine: &PolicyEngine, limits: &'static Limits) {
    let (ticker, mut since) = (engine.ticker().clone(), None);
    store.set_epoch_deadline(limits::FIRST_ALARM_TICKS);
    store.epoch_deadline_callback(move |_| {
        // The ticker must not fall asleep over a guest that the machine does not let finish.
        ticker.awake();
        let now = computed();
        let before = *since.get_or_insert(now);
        let left = limits.deadline.saturating_sub(limits::first_alarm()).saturating_sub(now.saturating_sub(before));
        Ok(if left.is_zero() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(limits::ticks(left)) })
    });
}

/// Time that this thread has computed since it began.
fn computed() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// A store for `describe` and `configure`, where nothing outside exists.
pub(crate) fn setup_store(engine: &PolicyEngine) -> Store<CallState> {
    let around = Surroundings {
        now_ms: 0,
        owner: Owner { tenant: "".into(), policy: "".into() },
        lane: Lane::Peek,
        counters: Arc::default(),
        facts: None,
    };
    store(engine, &limits::SETUP, around)
}

/// Asks a module who it is, and checks its functions' types on the way.
pub(crate) fn describe(
    engine: &PolicyEngine,
    component: &Component,
    imports: &BTreeSet<Capability>,
    worlds: &BTreeSet<World>,
) -> Result<(Exports, Manifest), Problem> {
    let pre = link(engine, component, imports)?;
    let exports = Exports::find(component).ok_or_else(|| problem("missing-export", "does not export configure"))?;
    let mut store = setup_store(engine);
    let trap = |e: &wasmtime::Error, store: &Store<CallState>, doing: &str| {
        problem("trap", &format!("failed at {doing}: {}", failure(e, store.data(), &limits::SETUP)))
    };
    let instance = pre.instantiate(&mut store).map_err(|e| trap(&e, &store, "start"))?;
    let mistyped = |name: &str, e: wasmtime::Error| {
        problem("mistyped-export", &format!("exports {name} with types other than the contract's: {e:#}"))
    };
    let describe =
        instance.get_typed_func::<(), (Manifest,)>(&mut store, "describe").map_err(|e| mistyped("describe", e))?;
    instance
        .get_typed_func::<(&str,), (Configured,)>(&mut store, &exports.configure)
        .map_err(|e| mistyped("configure", e))?;
    if worlds.contains(&World::Request) {
        instance
            .get_typed_func::<(&RequestView,), (Verdict,)>(&mut store, World::Request.export())
            .map_err(|e| mistyped("check", e))?;
    }
    if worlds.contains(&World::Admission) {
        instance
            .get_typed_func::<(&AdmissionView,), (AdmissionVerdict,)>(&mut store, World::Admission.export())
            .map_err(|e| mistyped("admit", e))?;
    }
    let manifest = describe.call(&mut store, ()).map_err(|e| trap(&e, &store, "describe"))?.0;
    Ok((exports, manifest))
}

/// Joins a component with what it imports.
pub(crate) fn link(
    engine: &PolicyEngine,
    component: &Component,
    imports: &BTreeSet<Capability>,
) -> Result<InstancePre<CallState>, Problem> {
    let pre = host::linker(engine.wasmtime(), imports).and_then(|linker| linker.instantiate_pre(component));
    pre.map_err(|e| {
        problem("mistyped-import", &format!("imports something with types other than the contract's: {e:#}"))
    })
}

/// Calls a guest's `configure`.
pub(crate) fn call_configure(
    store: &mut Store<CallState>,
    instance: &Instance,
    export: &ComponentExportIndex,
    settings: &str,
) -> wasmtime::Result<Configured> {
    let configure = instance.get_typed_func::<(&str,), (Configured,)>(&mut *store, export)?;
    Ok(configure.call(&mut *store, (settings,))?.0)
}

fn problem(code: &'static str, message: &str) -> Problem {
    Problem::new(code, message.to_owned())
}

/// What a guest did, from wasmtime's error. Recognised by type; only what has none is an invalid answer.
pub(crate) fn failure(error: &wasmtime::Error, state: &CallState, limits: &Limits) -> Failure {
    if error.downcast_ref::<HostRefusal>().is_some() {
        return Failure::HostCalls(limits.host_calls);
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Failure::Busy;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::TimedOut(limits.deadline),
        Some(_) if state.memory_refused => Failure::OutOfMemory(limits.memory_bytes),
        Some(trap) => Failure::Trapped(trap.to_string()),
        None if state.memory_refused => Failure::OutOfMemory(limits.memory_bytes),
        None => Failure::Invalid(InvalidAnswer::Unreadable(format!("{:#}", error.root_cause()))),
    }
}
