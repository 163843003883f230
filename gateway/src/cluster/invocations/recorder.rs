//! Writes down what became of runs: of those that ended, with the end of their log, before their objects go; and of
//! those whose objects somebody else took away. Driven by what is there now, so that it does not matter how often or how
//! late anything is told. Several gateways may do the same; the first record stays.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventflow_api::invocation::{Invocation, InvocationStatus, RunPhase, RunReason};
use eventflow_api::names::TenantId;
use eventflow_api::tier::{KEPT_INVOCATION_DAYS_DEFAULT, KEPT_INVOCATIONS_DEFAULT};
use futures::{AsyncReadExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, ResourceExt};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use super::metrics::RunMetrics;
use super::{object, outcome};
use crate::cluster::Inner;
use crate::cluster::apply::{Hold, hold};
use crate::error::chain;
use crate::failpoint;
use crate::store::{Ending, Record, Retention};

/// Runs written down at the same time.
const AT_ONCE: usize = 16;
/// Wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for reading the end of a log.
const LOG_DEADLINE: Duration = Duration::from_secs(5);
/// Lines of a log that are asked for.
const LOG_LINES: i64 = 1_000;
/// How often to look for runs whose objects went while nobody watched, and for old records.
const PERIOD: Duration = Duration::from_secs(300);
/// Rows at a time.
const BATCH: i64 = 500;
/// Announcements kept for a slow listener, which looks for itself if it missed one.
const ANNOUNCED_MAX: usize = 1_024;
/// What is kept of a tenant whose tier is not known.
const KEPT: Retention = Retention { count: KEPT_INVOCATIONS_DEFAULT, days: KEPT_INVOCATION_DAYS_DEFAULT };

/// A run to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Task {
    tenant: TenantId,
    id: Uuid,
}

/// What is to be written down; bounded by the number of objects.
pub(in crate::cluster) struct Recorder {
    tasks: Mutex<HashSet<Task>>,
    filled: Notify,
    listed: Notify,
    recorded: broadcast::Sender<Uuid>,
    pub(super) metrics: RunMetrics,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            tasks: Mutex::default(),
            filled: Notify::new(),
            listed: Notify::new(),
            recorded: broadcast::Sender::new(ANNOUNCED_MAX),
            metrics: RunMetrics::default(),
        }
    }
}

impl Recorder {
    /// The object is new or changed.
    pub(super) fn changed(&self, invocation: &Invocation) {
        if invocation.status.as_ref().is_some_and(|status| status.phase.is_final()) {
            self.add(invocation);
        }
    }

    /// The object went.
    pub(super) fn gone(&self, invocation: &Invocation) {
        self.add(invocation);
    }

    /// A list is complete.
    pub(super) fn listed(&self) {
        self.listed.notify_one();
    }

    /// Announces runs that were written down, from now on.
    pub(super) fn recorded(&self) -> broadcast::Receiver<Uuid> {
        self.recorded.subscribe()
    }

    /// One that kubectl made has no row.
    fn add(&self, invocation: &Invocation) {
        let tenant = invocation.namespace().as_deref().and_then(TenantId::from_namespace);
        if let (Some(tenant), Some(id)) = (tenant, object::invocation_id(invocation)) {
            self.put([Task { tenant, id }]);
        }
    }

    fn put(&self, tasks: impl IntoIterator<Item = Task>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        self.filled.notify_one();
    }

    fn take(&self) -> HashSet<Task> {
        std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Works for ever.
pub(in crate::cluster) async fn run(inner: Arc<Inner>) {
    loop {
        let tasks = inner.recorder.take();
        if tasks.is_empty() {
            inner.recorder.filled.notified().await;
            continue;
        }
        let looked = futures::stream::iter(tasks).map(|task| look_again_on_failure(&inner, task));
        let failed: Vec<Task> = looked.buffer_unordered(AT_ONCE).filter_map(|failed| async { failed }).collect().await;
        if !failed.is_empty() {
            tokio::time::sleep(PAUSE).await;
            inner.recorder.put(failed);
        }
    }
}

/// The task, if it is to be done again.
async fn look_again_on_failure(inner: &Inner, task: Task) -> Option<Task> {
    match look_at(inner, &task).await {
        Ok(()) => None,
        Err(hold) => {
            tracing::warn!(
                tenant.id = %task.tenant, invocation.id = %task.id, error = %chain(&hold),
                "What became of a run cannot be written down now"
            );
            Some(task)
        }
    }
}

async fn look_at(inner: &Inner, task: &Task) -> Result<(), Hold> {
    let Task { tenant, id } = task;
    let seen = inner.runs.get(&tenant.namespace(), &id.to_string());
    if !inner.store.invocation_is_open(tenant, *id).await? {
        if seen.is_none() {
            inner.store.invocation_purged(*id).await?;
        }
        // Perhaps another gateway was first: who waits here is told too.
        announce(inner, *id);
        return Ok(());
    }
    let record = match seen.as_ref().and_then(|seen| seen.status.as_ref()) {
        Some(status) if status.phase.is_final() => {
            let log = log(inner, tenant, status).await;
            of(status, &log)
        }
        Some(_) => return Ok(()),
        None if seen.is_some() || is_there(inner, task).await? => return Ok(()),
        None => removed(),
    };
    failpoint::hit("before-invocation-record");
    if let Ending::Recorded(created) = inner.store.invocation_finish(tenant, *id, &record).await? {
        inner.recorder.metrics.ended(created, &record);
    }
    failpoint::hit("after-invocation-record");
    announce(inner, *id);
    Ok(())
}

fn announce(inner: &Inner, id: Uuid) {
    // Nobody may be listening.
    drop(inner.recorder.recorded.send(id));
    inner.runs_due.notify_one();
}

/// Whether the API server itself has the object.
async fn is_there(inner: &Inner, task: &Task) -> Result<bool, Hold> {
    let api: Api<Invocation> = Api::namespaced(inner.client.clone(), &task.tenant.namespace());
    Ok(api.get_metadata_opt(&task.id.to_string()).await.map_err(hold)?.is_some())
}

/// The record of a run that ended so.
fn of(status: &InvocationStatus, log: &str) -> Record {
    let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
    Record {
        phase: status.phase,
        reason: status.reason,
        message: status.message.clone(),
        attempts: status.attempts,
        exit_code: status.exit_code,
        admitted_at: time(&status.admitted_at),
        started_at: time(&status.started_at),
        finished_at: time(&status.finished_at).unwrap_or_else(Timestamp::now),
        result: outcome::result(status.result.as_deref(), log),
        log_tail: outcome::tail(log),
    }
}

/// The record of a run whose object somebody took away.
fn removed() -> Record {
    Record {
        phase: RunPhase::Failed,
        reason: Some(RunReason::Removed),
        message: "its object was deleted in the cluster".to_owned(),
        attempts: 0,
        exit_code: None,
        admitted_at: None,
        started_at: None,
        finished_at: Timestamp::now(),
        result: None,
        log_tail: None,
    }
}

/// The end of what the last attempt wrote. A log that cannot be read is no reason not to write down the rest.
async fn log(inner: &Inner, tenant: &TenantId, status: &InvocationStatus) -> String {
    let Some(pod) = &status.pod else { return String::new() };
    if status.started_at.is_none() {
        return String::new();
    }
    let api: Api<Pod> = Api::namespaced(inner.client.clone(), &tenant.namespace());
    match tokio::time::timeout(LOG_DEADLINE, read_log(&api, pod)).await {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => {
            tracing::debug!(tenant.id = %tenant, pod, error = %error, "The log of a run cannot be read");
            String::new()
        }
        Err(_) => {
            tracing::warn!(tenant.id = %tenant, pod, "The log of a run cannot be read in time");
            String::new()
        }
    }
}

async fn read_log(api: &Api<Pod>, pod: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let params = LogParams { tail_lines: Some(LOG_LINES), ..LogParams::default() };
    let mut reader = std::pin::pin!(api.log_stream(pod, &params).await?);
    let mut last: VecDeque<u8> = VecDeque::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        match reader.read(&mut chunk).await? {
            0 => break,
            read => last.extend(&chunk[..read]),
        }
        let over = last.len().saturating_sub(outcome::LOOKED_AT_MAX);
        last.drain(..over);
    }
    Ok(String::from_utf8_lossy(last.make_contiguous()).into_owned())
}

/// Looks, now and then, for runs whose objects went while nobody watched, and for records that are not to be kept.
pub(in crate::cluster) async fn sweep(inner: Arc<Inner>) {
    loop {
        drop(tokio::time::timeout(PERIOD, inner.recorder.listed.notified()).await);
        // Without the tenants no absence proves anything, see `sweeper`.
        futures::future::join(inner.runs.filled(), inner.tenants.filled()).await;
        if let Err(error) = find_missing(&inner).await {
            tracing::warn!(error = %chain(&error), "Runs cannot be compared with the cluster now");
        }
        if let Err(error) = prune(&inner).await {
            tracing::warn!(error = %chain(&error), "Old records of runs cannot be pruned now");
        }
    }
}

async fn find_missing(inner: &Inner) -> Result<(), Hold> {
    let mut after = Uuid::nil();
    loop {
        let rows = inner.store.invocation_unfinished(after, BATCH).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        let stands = |tenant: &TenantId| {
            let tenant = inner.tenants.get("", tenant.as_str());
            tenant.is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_none())
        };
        let missing = rows.into_iter().filter(|row| {
            inner.runs.get(&row.tenant.namespace(), &row.id.to_string()).is_none() && stands(&row.tenant)
        });
        inner.recorder.put(missing.map(|row| Task { tenant: row.tenant, id: row.id }));
    }
}

async fn prune(inner: &Inner) -> Result<(), Hold> {
    let mut by_tier = std::collections::BTreeMap::<Retention, Vec<String>>::new();
    for tenant in inner.tenants.all("") {
        let tier = inner.tiers.get("", &tenant.spec.tier);
        let keep = tier
            .map_or(KEPT, |tier| Retention { count: tier.spec.kept_invocations, days: tier.spec.kept_invocation_days });
        by_tier.entry(keep).or_default().push(tenant.name_any());
    }
    for (keep, tenants) in by_tier {
        while inner.store.invocation_prune(&tenants, keep, BATCH).await? == BATCH as usize {}
    }
    Ok(())
}
