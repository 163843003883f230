//! The lines of all of a function's pods, in one feed: what was written so far in the order it was written in, then what
//! is written from now on as it comes, from the pods there are and those that appear.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::labels;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{AbortHandle, JoinSet};

use super::feed::Feed;
use super::line::Line;
use super::request::LogRequest;
use super::source::{Lines, Mark, Source};
use super::{LogError, Subject, Writer};
use crate::cluster::Cluster;
use crate::streams::OpenStream;

/// Longest wait for the list of pods.
const LIST_DEADLINE: Duration = Duration::from_secs(2);
/// Most pods that are read for one reader; no function has more.
const PODS_MAX: u32 = 200;

/// How long the last lines of a run that is over may take to come.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A feed that is being filled until this is dropped.
pub struct Gathered {
    /// The feed.
    pub feed: Arc<Feed>,
    task: AbortHandle,
    _open: OpenStream,
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins to fill a feed with what is asked for.
///
/// # Errors
/// See [`LogError`].
pub async fn gather(
    cluster: &Cluster,
    subject: &Subject,
    request: LogRequest,
    open: OpenStream,
) -> Result<Gathered, LogError> {
    let selector = match &subject.of {
        Writer::Function(name) if cluster.function(&subject.tenant, name).is_none() => {
            return Err(LogError::NoFunction);
        }
        Writer::Function(name) => {
            format!("{}={},{}={}", labels::APP, labels::APP_VALUE, labels::FUNCTION, name.as_str())
        }
        Writer::Run(id) => format!("{}={},{}={id}", labels::APP, labels::APP_RUN, labels::INVOCATION),
    };
    let over = over(cluster, subject);
    let api = cluster.pods_of(&subject.tenant);
    let listed = ListParams::default().labels(&selector).limit(PODS_MAX);
    let pods = tokio::time::timeout(LIST_DEADLINE, api.list(&listed)).await;
    let pods = pods.map_err(|elapsed| LogError::Unavailable(elapsed.into()))?;
    let pods = pods.map_err(|error| LogError::Unavailable(error.into()))?.items;
    let wanted: Vec<&Pod> = pods.iter().filter(|pod| is_wanted(pod, &request)).collect();
    if wanted.is_empty() && (request.pod.is_some() || (request.container.is_some() && !pods.is_empty())) {
        return Err(LogError::NoPod);
    }
    let histories = wanted.iter().filter_map(|pod| {
        let source = source(&api, pod, &request)?;
        let request = &request;
        Some(async move { Ok((pod.uid(), source.history(request).await?, source)) })
    });
    let histories: Vec<(Option<String>, Option<Lines>, Source)> = futures::future::try_join_all(histories).await?;
    let feed = Arc::new(Feed::default());
    let filled = Arc::clone(&feed);
    let task = tokio::spawn(async move {
        let read = tell_history(histories, &filled).await;
        if request.follow {
            tokio::select! {
                () = follow(&api, &selector, &request, read, &filled) => {}
                () = over => {}
            }
        }
        filled.end();
    });
    Ok(Gathered { feed, task: task.abort_handle(), _open: open })
}

/// Completes a moment after the run is over; never for a function.
fn over(cluster: &Cluster, subject: &Subject) -> impl Future<Output = ()> + use<> {
    let mut recorded = cluster.invocations_recorded();
    let (cluster, subject) = (cluster.clone(), subject.clone());
    async move {
        let Writer::Run(run) = subject.of else { return std::future::pending().await };
        while !cluster.invocation_is_over(&subject.tenant, run) {
            match recorded.recv().await {
                Ok(id) if id == run => break,
                // A run that ended before its object was seen here is told as any other, or looked for now.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
        tokio::time::sleep(LAST_LINES).await;
    }
}

/// Whether the pod is asked for, and has the container that is.
fn is_wanted(pod: &Pod, request: &LogRequest) -> bool {
    request.pod.as_ref().is_none_or(|name| *name == pod.name_any()) && container(pod, request).is_some()
}

/// The container to read: the one asked for, or the function's own, which is the first.
fn container(pod: &Pod, request: &LogRequest) -> Option<String> {
    let containers = pod.spec.as_ref()?.containers.iter();
    let mut names = containers.map(|container| &container.name);
    match &request.container {
        None => names.next().cloned(),
        Some(wanted) => names.find(|name| *name == wanted).cloned(),
    }
}

fn source(api: &Api<Pod>, pod: &Pod, request: &LogRequest) -> Option<Source> {
    Some(Source { api: api.clone(), pod: pod.name_any().into(), container: container(pod, request)? })
}

/// Whether the container has ever run, so that there is something to read.
fn has_begun(pod: &Pod, container: &str) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ran = |state: &Option<ContainerState>| {
        state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    statuses.filter(|status| status.name == container).any(|status| ran(&status.state) || ran(&status.last_state))
}

/// Adds what was written so far, oldest first; gives how far each pod was read.
async fn tell_history(
    histories: Vec<(Option<String>, Option<Lines>, Source)>,
    feed: &Feed,
) -> HashMap<String, (Mark, Source)> {
    let mut read = HashMap::new();
    let mut open: Vec<(Line, Lines, String, Source)> = Vec::new();
    for (uid, lines, source) in histories {
        let Some(uid) = uid else { continue };
        // A pod that could not be read yet is one that appears.
        let Some(mut lines) = lines else { continue };
        match lines.next().await {
            Ok(Some(first)) => open.push((first, lines, uid, source)),
            _ => drop(read.insert(uid, (lines.mark(), source))),
        }
    }
    while let Some(oldest) = (0..open.len()).min_by_key(|at| open[*at].0.at) {
        match open[oldest].1.next().await {
            Ok(Some(next)) => feed.push_patiently(std::mem::replace(&mut open[oldest].0, next)).await,
            _ => {
                let (last, lines, uid, source) = open.swap_remove(oldest);
                feed.push_patiently(last).await;
                read.insert(uid, (lines.mark(), source));
            }
        }
    }
    read
}

/// Adds what is written from now on, for ever.
async fn follow(
    api: &Api<Pod>,
    selector: &str,
    request: &LogRequest,
    read: HashMap<String, (Mark, Source)>,
    feed: &Arc<Feed>,
) {
    let mut readers = JoinSet::new();
    let mut known = HashSet::new();
    for (uid, (mark, source)) in read {
        known.insert(uid);
        readers.spawn(source.follow(mark, Arc::clone(feed)));
    }
    let pods = watcher(api.clone(), watcher::Config::default().labels(selector)).default_backoff();
    let mut pods = std::pin::pin!(pods);
    while let Some(event) = pods.next().await {
        // What ended was told to nobody else; the set only keeps those that go on.
        while readers.try_join_next().is_some() {}
        let pod = match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => pod,
            Ok(Event::Delete(pod)) => {
                // Its reader ends by itself once it has read the rest.
                known.retain(|uid| Some(uid) != pod.metadata.uid.as_ref());
                continue;
            }
            Ok(_) | Err(_) => continue,
        };
        let (Some(uid), Some(source)) = (pod.uid(), source(api, &pod, request)) else { continue };
        if is_wanted(&pod, request) && has_begun(&pod, &source.container) && known.insert(uid) {
            readers.spawn(source.follow(Mark::default(), Arc::clone(feed)));
        }
    }
}
