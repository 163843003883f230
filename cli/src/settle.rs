//! Waiting for a function to be what was asked for, and telling the truth about it: what counts is the status that
//! speaks of the very generation that was written.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{CallError, Request};
use crate::error::CliError;
use crate::output::clean;
use crate::session::Session;
use crate::view::Function;

/// First wait between two looks; each is longer than the one before.
const LOOK_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between two looks.
const LOOK_LAST: Duration = Duration::from_secs(2);
/// How long a failure must last to be believed: a pod may be refused once while its namespace is still being set up.
const BELIEVED: Duration = Duration::from_secs(3);

/// Where a function stands on its way to what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// On its way; what it waits for.
    Moving(String),
    /// Waits for quota.
    Queued(String),
    /// There.
    There(String),
    /// Will not run as it is: reason and message.
    Refused(String, String),
    /// Does not run: reason and message.
    Failed(String, String),
    /// Somebody changed it since.
    Superseded,
}

/// Where the function stands on its way to `generation`.
#[must_use]
pub fn stage(function: &Function, generation: i64) -> Stage {
    if function.generation > generation {
        return Stage::Superseded;
    }
    if function.sync == "pending" {
        return Stage::Moving("accepted; it goes to the cluster as soon as the cluster can be reached".to_owned());
    }
    if function.status.observed_generation < generation {
        return Stage::Moving("accepted; the controller has not seen it yet".to_owned());
    }
    if let Some(admitted) = function.condition("Admitted").filter(|admitted| admitted.status != "True") {
        let (reason, message) = (admitted.reason.clone(), admitted.message.clone());
        return match reason.as_str() {
            "WaitingForQuota" | "ScaleUpPending" | "UpdatePending" => Stage::Queued(message),
            "TenantNotReady" | "Terminating" => Stage::Moving(message),
            "InvalidSpec" | "NameConflict" => Stage::Failed(reason, message),
            _ => Stage::Refused(reason, message),
        };
    }
    let ready = function.condition("Ready").cloned().unwrap_or_default();
    match (function.status.phase.as_str(), ready.status.as_str()) {
        ("Suspended", _) if ready.reason == "TenantSuspended" => Stage::Refused(ready.reason, ready.message),
        ("Suspended", _) | (_, "True") => Stage::There(ready.message),
        ("Failed", _) => Stage::Failed(ready.reason, ready.message),
        _ => Stage::Moving(ready.message),
    }
}

/// Looks at a function until it is what `generation` asked for, or will not be, or `patience` ends. Gives its last
/// document.
///
/// # Errors
/// Refused, failed, not in time, changed or deleted by somebody else.
pub async fn settle(session: &Session, name: &str, generation: i64, patience: Duration) -> Result<Value, CliError> {
    let mut wait = Wait::new(session, name, generation, patience);
    loop {
        if let Some(document) = wait.look().await? {
            return Ok(document);
        }
        let left = patience.saturating_sub(wait.started.elapsed());
        if left.is_zero() {
            return Err(wait.too_late());
        }
        tokio::time::sleep(wait.pause.min(left)).await;
        wait.pause = wait.pause.mul_f64(1.5).min(LOOK_LAST);
    }
}

struct Wait<'a> {
    session: &'a Session,
    name: &'a str,
    generation: i64,
    patience: Duration,
    started: Instant,
    pause: Duration,
    /// Since when it has failed.
    failing: Option<Instant>,
    told: String,
}

impl<'a> Wait<'a> {
    fn new(session: &'a Session, name: &'a str, generation: i64, patience: Duration) -> Self {
        let (started, pause) = (Instant::now(), LOOK_FIRST);
        Self { session, name, generation, patience, started, pause, failing: None, told: String::new() }
    }

    async fn look(&mut self) -> Result<Option<Value>, CliError> {
        let request = Request::get(&["v1", "functions", self.name]);
        let document = match self.session.client.call(&request).await {
            Ok(answer) => answer.json()?,
            // The platform may be away for a moment; what was asked for is safe with it.
            Err(error) if error.is_passing() || matches!(error, CallError::TooLate { .. }) => {
                self.tell(&format!("{error}; trying again"));
                return Ok(None);
            }
            Err(error) if error.is_not_found() => {
                let detail = format!("{} was deleted while this command waited for it", self.name);
                return Err(CliError::Superseded(detail));
            }
            Err(error) => return Err(error.into()),
        };
        let function = Function::of(&document);
        let name = self.name.to_owned();
        match stage(&function, self.generation) {
            Stage::There(_) => return Ok(Some(document)),
            Stage::Moving(line) => self.tell(&line),
            Stage::Queued(line) => self.tell(&format!("queued: {line}")),
            Stage::Refused(reason, message) => return Err(CliError::Refused { name, reason, message }),
            Stage::Failed(reason, message) => {
                let since = *self.failing.get_or_insert_with(Instant::now);
                if since.elapsed() >= BELIEVED {
                    return Err(CliError::Failed { name, reason, message });
                }
                self.tell(&format!("{reason}: {message}"));
                return Ok(None);
            }
            Stage::Superseded => {
                let (now, then) = (function.generation, self.generation);
                let detail =
                    format!("{name} was changed while this command waited: generation {now} instead of {then}");
                return Err(CliError::Superseded(detail));
            }
        }
        self.failing = None;
        Ok(None)
    }

    fn tell(&mut self, line: &str) {
        if line != self.told && !line.is_empty() {
            let seconds = self.started.elapsed().as_secs();
            self.session.output.tell(&format!("{seconds:>4}s  {}", clean(line)));
            line.clone_into(&mut self.told);
        }
    }

    fn too_late(&self) -> CliError {
        CliError::NotInTime { name: self.name.to_owned(), after: self.patience, last: self.told.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(phase: &str, observed: i64, conditions: Value) -> Stage {
        let function = json!({"name": "a", "generation": 2, "sync": "applied",
            "status": {"phase": phase, "observedGeneration": observed, "conditions": conditions}});
        stage(&Function::of(&function), 2)
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "m"})
    }

    #[test]
    fn the_status_of_another_generation_counts_for_nothing() {
        assert!(matches!(at("Running", 1, json!([condition("Ready", "True", "AllReady")])), Stage::Moving(_)));
        assert!(matches!(at("Failed", 1, json!([condition("Ready", "False", "CrashLooping")])), Stage::Moving(_)));
        assert_eq!(at("Running", 2, json!([condition("Ready", "True", "AllReady")])), Stage::There("m".into()));
        let newer = json!({"name": "a", "generation": 3, "sync": "applied"});
        assert_eq!(stage(&Function::of(&newer), 2), Stage::Superseded);
        let pending = json!({"name": "a", "generation": 2, "sync": "pending", "status": {"observedGeneration": 2}});
        assert!(matches!(stage(&Function::of(&pending), 2), Stage::Moving(_)));
    }

    #[test]
    fn what_waits_for_quota_is_not_there_although_the_old_version_runs() {
        for reason in ["WaitingForQuota", "ScaleUpPending", "UpdatePending"] {
            let conditions = json!([condition("Admitted", "False", reason), condition("Ready", "True", "AllReady")]);
            assert_eq!(at("Running", 2, conditions), Stage::Queued("m".into()), "{reason}");
        }
    }

    #[test]
    fn refused_and_failed_are_told_apart() {
        let refused = |reason: &str| at("Failed", 2, json!([condition("Admitted", "False", reason)]));
        assert_eq!(refused("ExceedsMaxQuota"), Stage::Refused("ExceedsMaxQuota".into(), "m".into()));
        assert_eq!(refused("PolicyDenied"), Stage::Refused("PolicyDenied".into(), "m".into()));
        assert_eq!(refused("NameConflict"), Stage::Failed("NameConflict".into(), "m".into()));
        assert!(matches!(refused("TenantNotReady"), Stage::Moving(_)));
        let failed = json!([condition("Admitted", "True", "Admitted"), condition("Ready", "False", "ImagePullFailed")]);
        assert_eq!(at("Failed", 2, failed), Stage::Failed("ImagePullFailed".into(), "m".into()));
    }

    #[test]
    fn a_function_that_was_switched_off_is_where_it_should_be() {
        assert_eq!(at("Suspended", 2, json!([condition("Ready", "False", "Suspended")])), Stage::There("m".into()));
        let tenant = at("Suspended", 2, json!([condition("Ready", "False", "TenantSuspended")]));
        assert_eq!(tenant, Stage::Refused("TenantSuspended".into(), "m".into()));
        assert_eq!(at("Idle", 2, json!([condition("Ready", "True", "ScaledToZero")])), Stage::There("m".into()));
        assert_eq!(at("Pending", 2, json!([condition("Ready", "False", "Starting")])), Stage::Moving("m".into()));
    }
}
