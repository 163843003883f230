//! What was decided: metrics at once, the decision log and the counts of trials in batches from a task beside. The log
//! has every refusal, failure and difference up to a rate, and one in a hundred of the rest; it never has a value of a
//! header, of the query or of an environment variable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventflow_api::policy::{Decision, LogLine};
use policy_engine::World;
use policy_engine::set::{Role, Step};
use policy_engine::types::{AdmissionView, RequestView};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::metrics::micros;
use super::{Inner, role_word};
use crate::error::chain;
use crate::store::{NewDecision, TrialCount};

/// Decisions that wait to be written.
const WAITING: usize = 1_000;
/// Decisions written at once.
const BATCH: usize = 200;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(500);
/// Refusals, failures and differences logged per batch at most.
const NOTABLE: u32 = 100;
/// Of so many other decisions one is logged.
const ONE_IN: u64 = 100;
/// Between two clean-ups of the log.
const PRUNE: Duration = Duration::from_secs(60);
/// Shortest text that is worth hiding: shorter ones are in every sentence.
const SECRET_MIN: usize = 4;

/// The request that a decision was about.
pub(super) struct About {
    world: World,
    request_id: String,
    tenant: String,
    action: String,
    function: Option<String>,
    set_revision: i64,
}

impl About {
    pub(super) fn of_request(view: &RequestView, set_revision: i64) -> Self {
        Self {
            world: World::Request,
            request_id: view.request_id.clone(),
            tenant: view.tenant.id.clone(),
            action: view.action.clone(),
            function: view.function.clone(),
            set_revision,
        }
    }

    pub(super) fn of_admission(view: &AdmissionView, function: &str, set_revision: i64) -> Self {
        let operation = json!(view.operation);
        Self {
            world: World::Admission,
            request_id: view.request_id.clone(),
            tenant: view.tenant.id.clone(),
            action: format!("functions.{}", operation.as_str().unwrap_or_default()),
            function: Some(function.to_owned()),
            set_revision,
        }
    }
}

pub(super) struct Recorder {
    decisions: mpsc::Sender<NewDecision>,
    seen: AtomicU64,
    /// Of [`NOTABLE`], since the last batch.
    notable: AtomicU32,
    trials: Mutex<HashMap<(String, String), TrialCount>>,
}

impl Recorder {
    pub(super) fn new() -> (Self, mpsc::Receiver<NewDecision>) {
        let (decisions, receiver) = mpsc::channel(WAITING);
        let recorder =
            Self { decisions, seen: AtomicU64::new(0), notable: AtomicU32::new(0), trials: Mutex::default() };
        (recorder, receiver)
    }

    fn wants(&self, step: &Step) -> bool {
        let notable = step.difference.is_some() || !matches!(step.verdict, "allow" | "change");
        if notable {
            return self.notable.fetch_add(1, Ordering::Relaxed) < NOTABLE;
        }
        self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN)
    }

    fn count_trial(&self, step: &Step) {
        let key = (step.binding.to_string(), step.digest.to_string());
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
        let count = trials.entry(key.clone()).or_insert_with(|| TrialCount {
            binding: key.0,
            digest: key.1,
            ..TrialCount::default()
        });
        count.decided += 1;
        count.differed += i64::from(step.difference.is_some());
        count.failed += i64::from(step.failure.is_some());
    }
}

impl Inner {
    /// Takes note of who judged, with which outcome. `secrets` are texts that the log must not show.
    pub(super) fn note(&self, about: &About, steps: &[Step], secrets: impl Fn() -> Vec<String>) {
        for step in steps {
            self.metrics.count(step);
            self.guard.note(step, about.world);
            if step.role != Role::Active {
                self.recorder.count_trial(step);
            }
            if self.recorder.wants(step) && self.recorder.decisions.try_send(decision(about, step, &secrets())).is_err()
            {
                self.metrics.unlogged.inc();
            }
        }
    }
}

fn decision(about: &About, step: &Step, secrets: &[String]) -> NewDecision {
    let (enforced, would_be) = step.difference.clone().unzip();
    let hide = |text: String| redact(text, secrets);
    let mut log: Vec<LogLine> = step
        .log
        .iter()
        .map(|line| LogLine {
            level: json!(line.level).as_str().unwrap_or_default().to_owned(),
            message: hide(line.message.clone()),
        })
        .collect();
    if step.log_dropped > 0 {
        log.push(LogLine { level: "warn".to_owned(), message: format!("{} more lines were cut", step.log_dropped) });
    }
    NewDecision {
        policy: step.policy.to_string(),
        decision: Decision {
            id: 0,
            at: String::new(),
            request_id: about.request_id.clone(),
            tenant: about.tenant.clone(),
            action: about.action.clone(),
            function: about.function.clone(),
            set_revision: about.set_revision,
            binding: step.binding.to_string(),
            digest: step.digest.to_string(),
            role: role_word(step.role).to_owned(),
            verdict: step.verdict.to_owned(),
            failure: step.failure.as_ref().map(|failure| hide(failure.to_string())),
            enforced: enforced.map(hide),
            would_be: would_be.map(hide),
            time_us: i64::try_from(micros(step.elapsed)).unwrap_or(i64::MAX),
            log,
        },
    }
}

/// The text without the secrets, and without the NUL that the database has no room for.
fn redact(text: String, secrets: &[String]) -> String {
    let text = secrets.iter().filter(|secret| secret.len() >= SECRET_MIN).fold(text, |text, secret| {
        if text.contains(secret.as_str()) { text.replace(secret.as_str(), "[redacted]") } else { text }
    });
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The values of a function's environment variables: what the log must not show of it.
pub(super) fn secrets_of(object: &Value) -> Vec<String> {
    let env = object.pointer("/spec/env").and_then(Value::as_object);
    env.into_iter().flatten().filter_map(|(_, value)| value.as_str()).map(str::to_owned).collect()
}

/// Works for ever.
pub(super) async fn run(inner: Arc<Inner>, mut decisions: mpsc::Receiver<NewDecision>) {
    let mut prune = tokio::time::interval(PRUNE);
    loop {
        tokio::time::sleep(PAUSE).await;
        inner.recorder.notable.store(0, Ordering::Relaxed);
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Ok(decision) = decisions.try_recv()
        {
            batch.push(decision);
        }
        let trials: Vec<TrialCount> = {
            let mut trials = inner.recorder.trials.lock().unwrap_or_else(PoisonError::into_inner);
            trials.drain().map(|(_, count)| count).collect()
        };
        // What cannot be written now is let go: a decision's outcome never waits for its record.
        if !batch.is_empty()
            && let Err(error) = inner.store.policy_decisions_add(&batch).await
        {
            inner.metrics.unlogged.inc_by(batch.len() as u64);
            tracing::warn!(error = chain(&error), "Decisions of policies could not be logged.");
        }
        if !trials.is_empty()
            && let Err(error) = inner.store.policy_trials_add(&trials).await
        {
            tracing::warn!(error = chain(&error), "Decisions of policies that are tried out were not counted.");
        }
        let due = tokio::time::timeout(Duration::ZERO, prune.tick()).await.is_ok();
        if due && let Err(error) = inner.store.policy_decisions_prune().await {
            tracing::warn!(error = chain(&error), "Old decisions of policies were not removed.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let secrets = secrets_of(&json!({"spec": {"env": {"PASSWORD": "hunter22", "ON": "1"}}}));
        assert_eq!(redact("it is hunter22, 1 of 2".to_owned(), &secrets), "it is [redacted], 1 of 2");
        assert_eq!(redact("a\0b".to_owned(), &[]), "a\u{fffd}b");
    }
}
