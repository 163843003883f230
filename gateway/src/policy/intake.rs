//! From the bytes of an upload to a revision, from wished settings to settings that work, and an operator's question to
//! a revision. Nothing here changes what is in force.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::policy::{self as api, Evaluation, LogLine, Source};
use policy_engine::counters::Lane;
use policy_engine::types::{AdmissionVerdict, AdmissionView, RequestView};
use policy_engine::{
    Call, ConfigureError, Counters, Decision, Failure, Module, Policy, Problem, World, fixtures, patch,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::metrics::micros;
use super::request::now_ms;
use super::{Inner, WAIT};
use crate::store::{NewRevision, StoreError};

/// What is wrong with an upload or with settings; everything at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Everything found.
    pub problems: Vec<Problem>,
    /// Whether nothing is wrong but that everybody uploads at once.
    pub busy: bool,
}

impl Refusal {
    fn one(code: &'static str, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem { code, message: message.into() }], busy: false }
    }

    fn busy() -> Self {
        Self { busy: true, ..Self::one("busy", "too many modules are being worked on") }
    }
}

/// Checks modules and settings for operators.
pub struct Intake {
    inner: Arc<Inner>,
}

/// A question to one revision.
#[derive(Debug, Clone)]
pub enum Question {
    /// A request.
    Request(Box<RequestView>),
    /// A change of a function.
    Admission(Box<AdmissionView>),
}

impl Question {
    /// The world it belongs to.
    #[must_use]
    pub fn world(&self) -> World {
        match self {
            Self::Request(_) => World::Request,
            Self::Admission(_) => World::Admission,
        }
    }
}

impl Intake {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Validates, compiles and smoke-tests an upload.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub async fn accept(&self, bytes: Vec<u8>) -> Result<NewRevision, Refusal> {
        accept(&self.inner, Arc::new(bytes), Source::Upload).await
    }

    /// Whether a stored revision takes these settings, and stands the last requests with them.
    ///
    /// # Errors
    /// What is wrong; a store that fails is told as such.
    pub async fn try_settings(
        &self,
        policy: &str,
        revision: &api::Revision,
        world: api::World,
        settings: &Value,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let Some(module) = self.module(policy, revision).await? else {
            return Ok(Err(Refusal::one("compile", "its module does not load on this gateway any more")));
        };
        let world = match world {
            api::World::Request => World::Request,
            api::World::Admission => World::Admission,
        };
        let (inner, settings) = (Arc::clone(&self.inner), settings.clone());
        let Ok(Ok(_place)) = tokio::time::timeout(WAIT, self.inner.works.acquire()).await else {
            return Ok(Err(Refusal::busy()));
        };
        let tried = tokio::task::spawn_blocking(move || rehearse(&inner, &module, world, &settings)).await;
        Ok(tried.unwrap_or_else(|error| Err(Refusal::one("internal", error.to_string()))))
    }

    /// Asks a stored revision. No counter is drawn from.
    ///
    /// # Errors
    /// Settings that are refused; a store that fails is told as such.
    pub async fn evaluate(
        &self,
        policy: &str,
        revision: &api::Revision,
        settings: Value,
        question: Question,
    ) -> Result<Result<Evaluation, Refusal>, StoreError> {
        let Some(module) = self.module(policy, revision).await? else {
            return Ok(Err(Refusal::one("compile", "its module does not load on this gateway any more")));
        };
        let Ok(Ok(_place)) = tokio::time::timeout(WAIT, self.inner.works.acquire()).await else {
            return Ok(Err(Refusal::busy()));
        };
        let (number, counters) = (revision.number, Arc::clone(&self.inner.counters));
        let ask = move || {
            let policy = configure(&module, question.world(), &settings)?;
            Ok(asked(&policy, &question, counters, number))
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        Ok(asked.unwrap_or_else(|error| Err(Refusal::one("internal", error.to_string()))))
    }

    async fn module(&self, policy: &str, revision: &api::Revision) -> Result<Option<Arc<Module>>, StoreError> {
        if let Some(module) = self.inner.shelf.module(&revision.digest) {
            return Ok(Some(module));
        }
        let bytes = self.inner.store.policy_module(policy, revision.number).await?;
        let compiled = self.inner.shelf.compile(Arc::new(bytes)).await.ok();
        if let Some(module) = &compiled {
            self.inner.shelf.put_module(module);
        }
        Ok(compiled)
    }
}

/// See [`Intake::accept`].
pub(super) async fn accept(inner: &Arc<Inner>, bytes: Arc<Vec<u8>>, source: Source) -> Result<NewRevision, Refusal> {
    let Ok(Ok(_place)) = tokio::time::timeout(WAIT, inner.works.acquire()).await else { return Err(Refusal::busy()) };
    let compiled = inner.shelf.compile(Arc::clone(&bytes)).await;
    let module = compiled.map_err(|problems| Refusal { problems, busy: false })?;
    let for_smoke = Arc::clone(&module);
    let smoke = tokio::task::spawn_blocking(move || smoke(&for_smoke)).await;
    let smoke = smoke.unwrap_or_else(|error| Err(Refusal::one("internal", error.to_string())))?;
    let manifest = told(&module);
    // It is about to be used, and would be compiled again.
    inner.shelf.put_module(&module);
    Ok(NewRevision {
        policy: module.manifest().name.clone(),
        digest: module.digest().to_string(),
        module: Arc::unwrap_or_clone(bytes),
        manifest,
        findings: json!(smoke),
        source,
    })
}

/// The manifest as the store keeps it.
fn told(module: &Module) -> Value {
    let manifest = module.manifest();
    let schema: Value = serde_json::from_str(&manifest.settings_schema).unwrap_or(Value::Null);
    let worlds: Vec<api::World> = module
        .worlds()
        .iter()
        .map(|world| match world {
            World::Request => api::World::Request,
            World::Admission => api::World::Admission,
        })
        .collect();
    json!({
        "version": manifest.version,
        "summary": manifest.summary,
        "worlds": worlds,
        "capabilities": module.imports(),
        "settings_schema": schema,
        "failure_mode": manifest.failure_mode,
    })
}

/// Runs the module's own cases, twice, so that what is right once and wrong then is found.
fn smoke(module: &Module) -> Result<api::Smoke, Refusal> {
    let cases = module.fixtures();
    let (first, second) = (fixtures::run(module, cases), fixtures::run(module, cases));
    let mut wrong: Vec<String> = first.wrong;
    wrong.extend(second.wrong.into_iter().filter(|again| !wrong.contains(again)).collect::<Vec<_>>());
    if !wrong.is_empty() {
        let problem = |message: String| Problem { code: "smoke-test", message: format!("its own case {message}") };
        return Err(Refusal { problems: wrong.into_iter().map(problem).collect(), busy: false });
    }
    let mut times: Vec<Duration> = first.times.into_iter().chain(second.times).collect();
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    Ok(api::Smoke {
        cases: first.run,
        p50_us: at(50).copied().map_or(0, micros),
        p99_us: at(99).copied().map_or(0, micros),
        memory_bytes: first.memory_peak_bytes.max(second.memory_peak_bytes),
    })
}

fn configure(module: &Module, world: World, settings: &Value) -> Result<Policy, Refusal> {
    Policy::configure(module, world, settings).map_err(|error| match error {
        ConfigureError::Refused(problems) => {
            let problem = |p: policy_engine::types::SettingsProblem| Problem {
                code: "settings",
                message: format!("the settings at {:?}: {}", p.path, p.message),
            };
            Refusal { problems: problems.into_iter().map(problem).collect(), busy: false }
        }
        ConfigureError::OtherWorld(world) => Refusal::one("world", format!("the module is no {world}")),
        error @ (ConfigureError::Failed(_) | ConfigureError::Link(_)) => Refusal::one("settings", error.to_string()),
    })
}

/// Configures the module and shows it the last requests. What it says is its own affair; that it answers is ours.
fn rehearse(inner: &Inner, module: &Module, world: World, settings: &Value) -> Result<(), Refusal> {
    let policy = configure(module, world, settings)?;
    let mut failures: Vec<Failure> = Vec::new();
    let mut shown = 0;
    match world {
        World::Request => {
            for view in inner.samples.requests() {
                shown += 1;
                failures.extend(policy.check(&view, &around(&view.tenant.id, &inner.counters)).outcome.err());
            }
        }
        World::Admission => {
            for view in inner.samples.admissions() {
                shown += 1;
                failures.extend(policy.admit(&view, &around(&view.tenant.id, &inner.counters)).outcome.err());
            }
        }
    }
    failures.retain(|failure| !matches!(failure, Failure::Busy | Failure::ViewTooLarge));
    match failures.first() {
        Some(first) => {
            let message = format!("it failed on {} of the last {shown} requests: {first}", failures.len());
            Err(Refusal::one("smoke-test", message))
        }
        None => Ok(()),
    }
}

fn around(tenant: &str, counters: &Arc<Counters>) -> Call {
    Call { now_ms: now_ms(), tenant: tenant.into(), counters: Arc::clone(counters), lane: Lane::Peek, facts: None }
}

fn asked(policy: &Policy, question: &Question, counters: Arc<Counters>, revision: i32) -> Evaluation {
    match question {
        Question::Request(view) => told_of(policy.check(view, &around(&view.tenant.id, &counters)), revision),
        Question::Admission(view) => {
            let decision = policy.admit(view, &around(&view.tenant.id, &counters));
            let changed = match &decision.outcome {
                Ok(AdmissionVerdict::AllowWith(with)) => {
                    let object: Value = serde_json::from_str(&view.object).unwrap_or(Value::Null);
                    Some(patch::apply(&object, &with.patch).map(|after| differences(&object, &after)))
                }
                _ => None,
            };
            let mut evaluation = told_of(decision, revision);
            match changed {
                Some(Ok(changes)) => evaluation.changes = changes,
                Some(Err(invalid)) => evaluation.failure = Some(invalid.to_string()),
                None => {}
            }
            evaluation
        }
    }
}

fn told_of<V: Serialize>(decision: Decision<V>, revision: i32) -> Evaluation {
    let level = |line: &policy_engine::host::LogLine| json!(line.level).as_str().unwrap_or_default().to_owned();
    let log = decision.log.iter().map(|line| LogLine { level: level(line), message: line.message.clone() }).collect();
    let (verdict, failure) = match decision.outcome {
        Ok(verdict) => (Some(json!(verdict)), None),
        Err(failure) => (None, Some(failure.to_string())),
    };
    Evaluation {
        revision,
        verdict,
        failure,
        changes: Vec::new(),
        log,
        time_us: micros(decision.elapsed),
        memory_bytes: decision.memory_bytes,
    }
}

/// What differs, leaf by leaf.
fn differences(before: &Value, after: &Value) -> Vec<api::Change> {
    let mut changes = Vec::new();
    differ("", Some(before), Some(after), &mut changes);
    changes
}

fn differ(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<api::Change>) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) {
        let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let escaped = key.replace('~', "~0").replace('/', "~1");
            differ(&format!("{path}/{escaped}"), before.get(key), after.get(key), changes);
        }
        return;
    }
    changes.push(api::Change { path: path.to_owned(), before: before.cloned(), after: after.cloned() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_leaf_by_leaf() {
        let before = json!({"spec": {"image": "a", "env": {"A": "1"}, "replicas": 1}});
        let after = json!({"spec": {"image": "a", "env": {"A": "1", "B/C": "2"}}});
        let told = differences(&before, &after);
        assert_eq!(
            told,
            [
                api::Change { path: "/spec/env/B~1C".into(), before: None, after: Some(json!("2")) },
                api::Change { path: "/spec/replicas".into(), before: Some(json!(1)), after: None },
            ]
        );
        assert_eq!(differences(&before, &before), []);
    }
}
