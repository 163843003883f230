//! `reconcile`: how fast Function objects become Deployments, and how many status writes that takes. The gateway is
//! stopped: objects are posted directly, as kubectl would.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eventflow_api::function::Function;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, ListParams, PartialObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::create::plain_deployment;
use crate::load::Load;
use crate::report::Report;
use crate::samples::rate;
use crate::sightings::{Seen, Sightings, changes_of, first_and_last};
use crate::stage::{ROOMY, Stage, WRITERS};

const FUNCTIONS: usize = 1_000;
const TENANTS: usize = 8;
/// Longest wait for all of them.
const PATIENCE: Duration = Duration::from_secs(180);
/// The controller is done when no status was written for so long.
const QUIET: Duration = Duration::from_secs(5);

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(mut stage: Stage) -> Result<Report> {
    let mut report = Report::new("reconcile");
    stage.platform.stop_gateway();
    let namespaces = stage.tenants("reconcile", TENANTS, ROOMY).await?;
    // Both kinds of burst once, unmeasured: caches and connections.
    stage.post_functions(&namespaces, "warm", 0..16).await?;
    let direct = deployments_directly(&stage).await?;

    stage.platform.stop_controller();
    stage.post_functions(&namespaces, "waiting", 0..FUNCTIONS).await?;
    let watch = Watch::start(&stage).await?;
    let start = Instant::now();
    stage.platform.start_controller();
    let waiting = watch.finish(start, "waiting").await?;
    let first = format!("{:.2} s", waiting.first.as_secs_f64());
    report.row("controller's start to the first of 1,000 waiting Functions' Deployments", first, "");
    report.row("Deployments/s from 1,000 waiting Functions, first to last", waiting.rate(), ">= 200/s; Go: 76-87/s");
    report.row("the same counted from the controller's start", waiting.rate_from_start(), "");
    report.row("status writes per Function", waiting.writes(), "Go: 2.7");

    let watch = Watch::start(&stage).await?;
    let start = Instant::now();
    stage.post_functions(&namespaces, "live", 0..FUNCTIONS).await?;
    let posted = start.elapsed();
    let live = watch.finish(start, "live").await?;
    report.row("1,000 Functions posted by 16 writers meanwhile", format!("{:.0}/s", rate(FUNCTIONS, posted)), "");
    report.row("Deployments/s from them, from the first post", live.rate_from_start(), ">= 200/s; Go: 76-87/s");
    report.row("status writes per Function", live.writes(), "Go: 2.7");
    report.row("1,000 Deployments posted directly by 16 writers, same run", format!("{direct:.0}/s"), "for scale");
    report.row("processor time and memory of the controller", usage(&stage)?, "");
    Ok(report)
}

fn usage(stage: &Stage) -> Result<String> {
    let usage = stage.controller_usage()?;
    Ok(format!("{:.1} s, {usage}", usage.processor.as_secs_f64()))
}

/// Watches on what the controller makes and writes.
struct Watch {
    deployments: Sightings,
    statuses: Sightings,
}

/// What they saw of Functions of one prefix.
struct Burst {
    first: Duration,
    last: Duration,
    deployments: usize,
    written: usize,
    writes: usize,
}

impl Watch {
    async fn start(stage: &Stage) -> Result<Self> {
        let name = |object: &PartialObjectMeta<Deployment>| Some(object.name_any());
        let deployments =
            Sightings::start(Api::<PartialObjectMeta<Deployment>>::all(stage.client.clone()), name).await?;
        let changes = changes_of(ResourceExt::name_any, |function: &Function| json!(function.status));
        let statuses = Sightings::start(Api::<Function>::all(stage.client.clone()), changes).await?;
        Ok(Self { deployments, statuses })
    }

    /// Waits until every Function named `{prefix}-{number}` has its Deployment and no status is written any more.
    async fn finish(self, start: Instant, prefix: &str) -> Result<Burst> {
        let others = self.deployments.all().keys().filter(|name| !named(name, &format!("fn-{prefix}"))).count();
        let deployments = self.deployments.at_least(others + FUNCTIONS, PATIENCE).await;
        self.statuses.until_quiet(QUIET, PATIENCE).await;
        let deployments = of_prefix(deployments, &format!("fn-{prefix}"));
        let statuses = of_prefix(self.statuses.all(), prefix);
        let (first, last) = first_and_last(&deployments).context("no Deployment at all")?;
        Ok(Burst {
            first: first - start,
            last: last - start,
            deployments: deployments.len(),
            written: statuses.len(),
            writes: statuses.values().map(|sighting| sighting.times).sum(),
        })
    }
}

fn named(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))
}

fn of_prefix(mut seen: Seen, prefix: &str) -> Seen {
    seen.retain(|name, _| named(name, prefix));
    seen
}

impl Burst {
    fn rate(&self) -> String {
        let rate = rate(self.deployments, self.last.saturating_sub(self.first));
        format!("{rate:.0}/s ({} of {FUNCTIONS})", self.deployments)
    }

    fn rate_from_start(&self) -> String {
        let rate = rate(self.deployments, self.last);
        format!("{rate:.0}/s ({} of {FUNCTIONS} in {:.1} s)", self.deployments, self.last.as_secs_f64())
    }

    fn writes(&self) -> String {
        let each = self.writes as f64 / self.written.max(1) as f64;
        format!("{each:.2} ({} Functions with a status)", self.written)
    }
}

/// Posts as many Deployments without pods as there are Functions, and deletes them; gives how many a second.
async fn deployments_directly(stage: &Stage) -> Result<f64> {
    stage.plain_namespace("reconcile-plain").await?;
    let deployments = Api::<Deployment>::namespaced(stage.client.clone(), "reconcile-plain");
    let load = Load { workers: WRITERS, calls: FUNCTIONS, time: PATIENCE };
    let post = deployments.clone();
    let outcome = load.run(move |_, number| {
        let post = post.clone();
        async move {
            post.create(
                &PostParams::default(),
                &plain_deployment(&format!("plain-{number}"), &idle_deployment_spec())?,
            )
            .await?;
            Ok("created".to_owned())
        }
    });
    let rate = outcome.await?.rate();
    deployments.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let gone = || async { Ok(deployments.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty()) };
    crate::stage::eventually("the plain Deployments are gone", gone).await?;
    Ok(rate)
}

/// The spec of a Deployment like that of a function without pods, labels and selector not yet set.
#[must_use]
pub fn idle_deployment_spec() -> Value {
    let resources = json!({
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    });
    let container = json!({
        "name": "function", "image": "127.0.0.1:5000/hello:v1", "resources": resources,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let pod = json!({
        "automountServiceAccountToken": false, "containers": [container],
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    });
    json!({"replicas": 0, "selector": {}, "template": {"spec": pod}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_counts_its_own_functions_alone() {
        assert!(named("fn-live-12", "fn-live") && !named("fn-lively-1", "fn-live") && !named("live-1", "fn-live"));
        let burst = Burst {
            first: Duration::from_secs(1),
            last: Duration::from_secs(6),
            deployments: 1_000,
            written: 1_000,
            writes: 2_500,
        };
        assert_eq!(burst.rate(), "200/s (1000 of 1000)");
        assert_eq!(burst.rate_from_start(), "167/s (1000 of 1000 in 6.0 s)");
        assert_eq!(burst.writes(), "2.50 (1000 Functions with a status)");
    }

    #[test]
    fn the_plain_deployment_is_one() {
        let plain = plain_deployment("plain-3", &idle_deployment_spec()).unwrap();
        assert_eq!(plain.spec.unwrap().replicas, Some(0));
    }
}
