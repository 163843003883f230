//! Fifty writers ask at once for more than one tenant's quota, here and with plain Deployments under a ResourceQuota of
//! the same size: how many are left with some of their pods and not all, and how long until somebody who asks is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eventflow_api::condition::{ConditionType, find};
use eventflow_api::function::Function;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{ListParams, PartialObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::create::plain_deployment;
use crate::load::{Load, Outcome};
use crate::report::Report;
use crate::samples::Samples;
use crate::sightings::Sightings;
use crate::stage::{Stage, eventually};

const WRITERS: usize = 50;
/// Pods of each.
const REPLICAS: usize = 3;
/// Pods of the tenant: six of the fifty fit whole, and two pods' room is left.
const PODS: usize = 20;
/// Namespace of the plain Deployments.
const PLAIN: &str = "admission-plain";
/// How long to watch for what comes of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(stage: &Stage) -> Result<Report> {
    let mut report = Report::new("admission-plain");
    stage.tier("loadtest-small", &json!({"pods": PODS})).await?;
    let user = stage.user_of("fifty", "loadtest-small").await?;
    let namespace = user.namespace.clone();
    let image = stage.platform.image("hello:v1");

    let told = Sightings::start(Api::<Function>::namespaced(stage.client.clone(), &namespace), has_verdict).await?;
    let users: Arc<Vec<_>> = Arc::new((0..WRITERS).map(|_| user.another()).collect());
    let start = Instant::now();
    let created = all_at_once(move |number| {
        let (users, image) = (users.clone(), image.clone());
        async move {
            let body = json!({
                "name": format!("f-{number}"), "image": image, "replicas": REPLICAS, "port": 8080,
                "resources": {"cpuRequest": "20m", "memoryRequest": "16Mi", "cpuLimit": "500m", "memoryLimit": "64Mi"},
            });
            Ok(users[number].create(&body).await?.to_string())
        }
    });
    let created = created.await?;
    let told = told.at_least(WRITERS, PATIENCE).await;
    let times: Samples = told.values().map(|sighting| sighting.first - start).collect();
    let pods = settled_pods(stage, &namespace).await?;
    report.row("EventFlow: answers to 50 writers", created.answers(), "");
    report.row("EventFlow: answer p50 / p99 / max", &created.latencies, "");
    report.row(&format!("EventFlow: true status of {} p50 / p99 / max", times.len()), times, "");
    report.row("EventFlow: whole / partial / none", pods, "0 partial");

    let deployments = Api::<Deployment>::namespaced(stage.client.clone(), &namespace);
    let template = deployments.list(&ListParams::default().limit(1)).await?.items.pop();
    let template = json!(template.context("no function has a Deployment")?.spec);
    delete_all(stage, &namespace).await?;
    plain(stage, template, &mut report).await?;
    Ok(report)
}

/// The same with plain Deployments.
async fn plain(stage: &Stage, template: Value, report: &mut Report) -> Result<()> {
    stage.plain_namespace(PLAIN).await?;
    let quota = json!({"metadata": {"name": "quota"}, "spec": {"hard": {"pods": PODS.to_string()}}});
    let quotas = Api::<ResourceQuota>::namespaced(stage.client.clone(), PLAIN);
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let counted = || async {
        let status = quotas.get("quota").await?.status;
        Ok(status.is_some_and(|status| status.used.is_some_and(|used| !used.is_empty())))
    };
    eventually("the quota is counted", counted).await?;
    let deployments = Api::<Deployment>::namespaced(stage.client.clone(), PLAIN);
    let told = Sightings::start(deployments.clone(), says_the_truth).await?;
    let start = Instant::now();
    let created = all_at_once(move |number| {
        let (deployments, template) = (deployments.clone(), template.clone());
        async move {
            let deployment = plain_deployment(&format!("d-{number}"), &template)?;
            deployments.create(&PostParams::default(), &deployment).await?;
            Ok("201 Created".to_owned())
        }
    });
    let created = created.await?;
    let told = told.at_least(WRITERS, PATIENCE).await;
    let times: Samples = told.values().map(|sighting| sighting.first - start).collect();
    let pods = settled_pods(stage, PLAIN).await?;
    report.row("plain: answers to 50 writers", created.answers(), "all accepted, whatever fits");
    report.row("plain: answer p50 / p99 / max", &created.latencies, "");
    let what = format!("plain: status says full or short, {} of 50, p50 / p99 / max", times.len());
    report.row(&what, times, "");
    report.row("plain: whole / partial / none", pods, "");
    Ok(())
}

/// One call of each writer.
async fn all_at_once<F, C>(call: F) -> Result<Outcome>
where
    F: Fn(usize) -> C + Clone + Send + 'static,
    C: Future<Output = Result<String>> + Send + 'static,
{
    let load = Load { workers: WRITERS, calls: WRITERS, time: PATIENCE };
    load.run(move |_, number| call(number)).await
}

/// Names a function once its status holds the verdict on its quota.
fn has_verdict(function: &Function) -> Option<String> {
    let conditions = &function.status.as_ref()?.conditions;
    find(conditions, ConditionType::QuotaReserved).map(|_| function.name_any())
}

/// Names a Deployment once its status says that all its pods are there, or that some cannot be made.
fn says_the_truth(deployment: &Deployment) -> Option<String> {
    let status = deployment.status.as_ref()?;
    let whole = status.ready_replicas == Some(REPLICAS as i32);
    let failed = status.conditions.iter().flatten().any(|c| c.type_ == "ReplicaFailure" && c.status == "True");
    (whole || failed).then(|| deployment.name_any())
}

/// Waits until no pod comes or goes for a while; says how many of the fifty have all, some and none of their pods.
async fn settled_pods(stage: &Stage, namespace: &str) -> Result<String> {
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(stage.client.clone(), namespace);
    let names = Sightings::start(pods.clone(), |pod| Some(pod.name_any())).await?;
    names.until_quiet(Duration::from_secs(10), PATIENCE).await;
    let mut by_function = BTreeMap::<String, usize>::new();
    for pod in pods.list(&ListParams::default()).await?.items {
        *by_function.entry(pod.labels().get("function").cloned().unwrap_or_default()).or_default() += 1;
    }
    let whole = by_function.values().filter(|pods| **pods >= REPLICAS).count();
    let partial = by_function.len() - whole;
    Ok(format!("{whole} / {partial} / {}", WRITERS.saturating_sub(whole + partial)))
}

/// Deletes all functions of a namespace and waits until their pods are gone.
async fn delete_all(stage: &Stage, namespace: &str) -> Result<()> {
    let functions = Api::<Function>::namespaced(stage.client.clone(), namespace);
    functions.delete_collection(&kube::api::DeleteParams::default(), &ListParams::default()).await?;
    let pods = Api::<Pod>::namespaced(stage.client.clone(), namespace);
    let gone = || async { Ok(pods.list_metadata(&ListParams::default()).await?.items.is_empty()) };
    eventually("the functions' pods are gone", gone).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_tells_the_truth_when_full_or_refused() {
        let deployment = |status: Value| {
            let deployment = json!({"metadata": {"name": "d"}, "status": status});
            says_the_truth(&serde_json::from_value::<Deployment>(deployment).unwrap())
        };
        let failure = |status: &str| json!([{"type": "ReplicaFailure", "status": status}]);
        assert_eq!(deployment(json!({"readyReplicas": 2})), None);
        assert_eq!(deployment(json!({"readyReplicas": 3})), Some("d".to_owned()));
        assert_eq!(deployment(json!({"conditions": failure("True")})), Some("d".to_owned()));
        assert_eq!(deployment(json!({"conditions": failure("False")})), None);
    }
}
