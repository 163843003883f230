//! `create`: how long until a create is answered, until its Deployment is there, and until its pod is ready, beside
//! Deployments of the very same pod template posted directly, in turn with them; then many creates at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PartialObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::load::Load;
use crate::report::Report;
use crate::samples::{Samples, rate, time};
use crate::sightings::{Sightings, first_and_last};
use crate::stage::{Stage, eventually, idle_function};

/// Pairs of one function and one plain Deployment, after one that is not counted.
const ROUNDS: usize = 20;
/// Creates one after the other.
const ALONE: usize = 200;
/// Creates of each number of clients.
const MANY: usize = 600;
const TENANTS: usize = 8;
/// Longest wait for one thing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Namespace of the plain Deployments.
const PLAIN: &str = "create-plain";

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(stage: &Stage) -> Result<Report> {
    let mut report = Report::new("create");
    let user = stage.user("create").await?;
    stage.plain_namespace(PLAIN).await?;
    let name = |object: &PartialObjectMeta<Deployment>| Some(path(object));
    let deployments = Sightings::start(Api::<PartialObjectMeta<Deployment>>::all(stage.client.clone()), name).await?;
    to_ready(stage, &user, &deployments, &mut report).await?;
    alone(&user, &deployments, &mut report).await?;
    for clients in [1, 8, 16] {
        many(stage, clients, &deployments, &mut report).await?;
    }
    for writers in [8, 16] {
        let load = Load { workers: writers, calls: MANY, time: PATIENCE };
        let posted = load.run(post_plain(stage, writers)).await?;
        let name = format!("Deployments posted directly by {writers} writers, same run");
        report.row(&name, format!("{:.0}/s, {}", posted.rate(), posted.latencies), "for scale");
    }
    Ok(report)
}

fn path(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Names a pod by what it was made for, once it is ready.
fn ready(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.then(|| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.labels().get("function").map_or("", |f| f)))
}

/// Functions and plain Deployments in turn, each alone in the cluster, until their pods are ready.
async fn to_ready(stage: &Stage, user: &Connection, deployments: &Sightings, report: &mut Report) -> Result<()> {
    let pods = Sightings::start(Api::<Pod>::all(stage.client.clone()), ready).await?;
    let mut round = Round { stage, user, deployments, pods: &pods, template: Value::Null, times: Times::default() };
    round.function("r-warm").await?;
    round.plain("warm").await?;
    round.times = Times::default();
    for number in 0..ROUNDS {
        // Who comes first changes, so that neither gains from what the other left.
        if number % 2 == 0 {
            round.function(&format!("r-{number}")).await?;
            round.plain(&format!("d-{number}")).await?;
        } else {
            round.plain(&format!("d-{number}")).await?;
            round.function(&format!("r-{number}")).await?;
        }
    }
    let Times { answered, deployed, ready, plain } = round.times;
    let of = |what: &str| format!("{what}, p50 / p99 / max of {ROUNDS}");
    report.row(&of("create with a pod to its answer"), answered, "p50 <= 35 ms; Go: 11 ms");
    report.row(&of("create to Deployment"), deployed, "Go: 14 ms");
    let (ours, theirs) = (ready.percentile(50.0), plain.percentile(50.0));
    report.row(&of("create to ready pod"), ready, "Go: 1.46 s");
    report.row(&of("Deployment posted directly to ready pod"), plain, "for scale; Go's run: 1.40 s");
    let (ours, theirs) = (ours.context("no rounds")?, theirs.context("no rounds")?);
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let more = format!("{:+.0} ms ({ratio:.2} x)", (ours.as_secs_f64() - theirs.as_secs_f64()) * 1e3);
    report.row("create to ready pod beyond that, p50", more, "<= +200 ms");
    Ok(())
}

#[derive(Default)]
struct Times {
    answered: Samples,
    deployed: Samples,
    ready: Samples,
    plain: Samples,
}

/// What the rounds share.
struct Round<'a> {
    stage: &'a Stage,
    user: &'a Connection,
    deployments: &'a Sightings,
    pods: &'a Sightings,
    /// The spec of a function's Deployment, to be posted directly.
    template: Value,
    times: Times,
}

impl Round<'_> {
    async fn function(&mut self, name: &str) -> Result<()> {
        let body = json!({
            "name": name, "image": self.stage.platform.image("hello:v1"), "port": 8080,
            "resources": {"cpuRequest": "20m", "memoryRequest": "16Mi", "cpuLimit": "500m", "memoryLimit": "64Mi"},
        });
        let start = Instant::now();
        let (status, answer) = self.user.call(Method::POST, "/v1/functions", Some(&body)).await?;
        self.times.answered.push(start.elapsed());
        ensure!(status.is_success(), "create: {status} {}", String::from_utf8_lossy(&answer));
        let namespace = &self.user.namespace;
        let deployed = self.deployments.of(&format!("{namespace}/fn-{name}"), PATIENCE).await?;
        self.times.deployed.push(deployed.first - start);
        let ready = self.pods.of(&format!("{namespace}/{name}"), PATIENCE).await?;
        self.times.ready.push(ready.first - start);
        let deployments = Api::<Deployment>::namespaced(self.stage.client.clone(), namespace);
        if self.template.is_null() {
            self.template = json!(deployments.get(&format!("fn-{name}")).await?.spec);
        }
        let (status, _) = self.user.call(Method::DELETE, &format!("/v1/functions/{name}"), None).await?;
        ensure!(status.is_success(), "delete: {status}");
        self.gone(namespace, name).await
    }

    async fn plain(&mut self, name: &str) -> Result<()> {
        let deployment = plain_deployment(name, &self.template)?;
        let deployments = Api::<Deployment>::namespaced(self.stage.client.clone(), PLAIN);
        let start = Instant::now();
        deployments.create(&PostParams::default(), &deployment).await?;
        let ready = self.pods.of(&format!("{PLAIN}/{name}"), PATIENCE).await?;
        self.times.plain.push(ready.first - start);
        deployments.delete(name, &DeleteParams::background()).await?;
        self.gone(PLAIN, name).await
    }

    /// Waits until no pod is left, so that the next round finds the node idle.
    async fn gone(&self, namespace: &str, name: &str) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.stage.client.clone(), namespace);
        let of_it = ListParams::default().labels(&format!("function={name}"));
        let gone = || async { Ok(pods.list_metadata(&of_it).await?.items.is_empty()) };
        eventually(&format!("the pods of {name} are gone"), gone).await
    }
}

/// A Deployment of the pods that `spec` says, that nobody takes for a function's.
///
/// # Errors
/// When `spec` is not that of a Deployment.
pub fn plain_deployment(name: &str, spec: &Value) -> Result<Deployment> {
    let labels = json!({"app": "plain", "function": name});
    let mut spec = spec.clone();
    spec["selector"] = json!({"matchLabels": labels});
    spec["template"]["metadata"] = json!({"labels": labels});
    if let Some(pod) = spec["template"]["spec"].as_object_mut() {
        pod.remove("serviceAccount");
        pod.remove("serviceAccountName");
    }
    let deployment = json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
    Ok(serde_json::from_value(deployment)?)
}

/// Creates of functions without pods, one after the other on one connection.
async fn alone(user: &Connection, deployments: &Sightings, report: &mut Report) -> Result<()> {
    let (mut answered, mut deployed) = (Samples::default(), Samples::default());
    for number in 0..ALONE {
        let start = Instant::now();
        let status = user.create(&idle_function(&format!("alone-{number}"))).await?;
        answered.push(start.elapsed());
        ensure!(status.is_success(), "create: {status}");
        let seen = deployments.of(&format!("{}/fn-alone-{number}", user.namespace), PATIENCE).await?;
        deployed.push(seen.first - start);
    }
    let of = |what: &str| format!("{what}, p50 / p99 / max of {ALONE}");
    report.row(&of("create without a pod, alone, to its answer"), answered, "p50 <= 35 ms; Go: 11 ms");
    report.row(&of("the same to its Deployment"), deployed, "Go: 14 ms");
    Ok(())
}

/// Creates of functions without pods by so many clients, spread over the tenants.
async fn many(stage: &Stage, clients: usize, deployments: &Sightings, report: &mut Report) -> Result<()> {
    let mut users = Vec::new();
    for client in 0..clients {
        users.push(stage.user(&format!("many-{clients}-{}", client % TENANTS)).await?);
    }
    let (users, before) = (Arc::new(users), deployments.all().len());
    let (load, start) = (Load { workers: clients, calls: MANY, time: PATIENCE }, Instant::now());
    let created = load.run(move |client, number| {
        let users = users.clone();
        async move { Ok(users[client].create(&idle_function(&format!("f-{number}"))).await?.to_string()) }
    });
    let created = created.await?;
    let mut seen = deployments.at_least(before + created.latencies.len(), PATIENCE).await;
    let missing = (before + created.latencies.len()).saturating_sub(seen.len());
    seen.retain(|_, sighting| sighting.first >= start);
    let target = match clients {
        1 => "",
        8 => "Go: 10.8/s, 0.80 s each",
        _ => ">= 150/s",
    };
    let what = format!("{clients} clients over {} tenants, creates", clients.min(TENANTS));
    report.row(&what, format!("{:.0}/s ({})", created.rate(), created.answers()), target);
    report.row(&format!("{what}: p50 / p99 / max"), &created.latencies, "");
    if let Some((_, last)) = first_and_last(&seen) {
        let deployed = format!("{:.0}/s, the last after {}", rate(seen.len(), last - start), time(Some(last - start)));
        report.row(&format!("{what}: Deployments"), format!("{deployed}, {missing} missing"), "");
    }
    Ok(())
}

/// Posts Deployments without pods.
fn post_plain(
    stage: &Stage,
    writers: usize,
) -> impl Fn(usize, usize) -> futures::future::BoxFuture<'static, Result<String>> + Clone + Send + use<> {
    let deployments = Api::<Deployment>::namespaced(stage.client.clone(), PLAIN);
    move |_, number| {
        let deployments = deployments.clone();
        Box::pin(async move {
            let name = format!("plain-{writers}-{number}");
            let deployment = plain_deployment(&name, &crate::reconcile::idle_deployment_spec())?;
            deployments.create(&PostParams::default(), &deployment).await?;
            Ok("created".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_deployment_shares_the_pod_and_no_labels() {
        let spec = json!({
            "replicas": 1, "selector": {"matchLabels": {"app": "eventflow-function"}},
            "template": {
                "metadata": {"labels": {"app": "eventflow-function"}},
                "spec": {"serviceAccountName": "function", "containers": [{"name": "function", "image": "i"}]},
            },
        });
        let plain = json!(plain_deployment("d-1", &spec).unwrap());
        assert!(!plain.to_string().contains("eventflow") && !plain.to_string().contains("serviceAccount"));
        assert_eq!(plain["spec"]["template"]["spec"]["containers"][0]["image"], "i");
        assert_eq!(plain["spec"]["selector"]["matchLabels"]["function"], "d-1");
    }

    #[test]
    fn only_ready_pods_count() {
        let pod = |status: &str| {
            let pod = json!({
                "metadata": {"name": "p", "namespace": "n", "labels": {"function": "f"}},
                "status": {"conditions": [{"type": "Ready", "status": status}]},
            });
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        assert_eq!(ready(&pod("True")), Some("n/f".to_owned()));
        assert_eq!(ready(&pod("False")), None);
    }
}
