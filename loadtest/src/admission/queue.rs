//! Standing queues of functions that wait for one blocker in each tenant, until the tier is raised for all at once.
//! Functions have no pods: what is scarce is the number of functions. The gateway is stopped.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eventflow_api::function::Function;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{PartialObjectMeta, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::admission::{admitted, queued};
use crate::load::Load;
use crate::report::Report;
use crate::samples::{rate, time};
use crate::sightings::{Sightings, first_and_last};
use crate::stage::{Stage, WRITERS};

const FUNCTIONS: usize = 2_000;
/// Longest wait for a queue to build up, and to drain.
const PATIENCE: Duration = Duration::from_secs(240);

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(mut stage: Stage) -> Result<Report> {
    let mut report = Report::new("admission-queue");
    stage.platform.stop_gateway();
    let patches = status_patches(&mut stage).await?;
    let for_scale = "for scale; the notes' machine: 606/s";
    report.row("status patches/s of the API server alone, 16 writers", format!("{patches:.0}/s"), for_scale);
    let many = drain(&stage, "many", 50).await?;
    let share = 100.0 * many.rate / patches;
    report.row("queue of 2,000 in 50 tenants: admissions/s", &many.text, "published Kueue: about 42/s");
    report.row("that in % of the status patches", format!("{share:.0} %"), ">= 60 %");
    report.row("its Deployments", many.deployed, "");
    let one = drain(&stage, "one", 1).await?;
    report.row("queue of 2,000 in one tenant: admissions/s", &one.text, ">= 100/s");
    report.row("its Deployments", one.deployed, "");
    report.row("controller afterwards", stage.controller_usage()?, "");
    Ok(report)
}

/// The API server's own rate of status patches: each of 2,000 Functions that nobody else writes is patched once.
async fn status_patches(stage: &mut Stage) -> Result<f64> {
    stage.platform.stop_controller();
    stage.plain_namespace("admission-raw").await?;
    stage.post_functions(&["admission-raw".to_owned()], "raw", 0..FUNCTIONS).await?;
    let functions = Api::<Function>::namespaced(stage.client.clone(), "admission-raw");
    let load = Load { workers: WRITERS, calls: FUNCTIONS, time: PATIENCE };
    let patch = functions.clone();
    let patched = load.run(move |_, number| {
        let patch = patch.clone();
        async move {
            let status = json!({"status": {"observedGeneration": 1, "conditions": [{
                "type": "Admitted", "status": "True", "reason": "Admitted", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}});
            let (name, params) = (format!("raw-{number}"), PatchParams::default());
            patch.patch_status(&name, &params, &Patch::Merge(&status)).await?;
            Ok("patched".to_owned())
        }
    });
    let rate = patched.await?.rate();
    functions.delete_collection(&kube::api::DeleteParams::default(), &kube::api::ListParams::default()).await?;
    stage.platform.start_controller();
    Ok(rate)
}

/// How a queue drained.
struct Drained {
    rate: f64,
    text: String,
    deployed: String,
}

/// Builds the queues, opens them, and waits until all is admitted.
async fn drain(stage: &Stage, prefix: &str, tenants: usize) -> Result<Drained> {
    let tier = format!("loadtest-{prefix}");
    stage.tier(&tier, &json!({"functions": 1})).await?;
    let namespaces = stage.tenants(&format!("queue-{prefix}"), tenants, &tier).await?;
    let all = || Api::<Function>::all(stage.client.clone());
    let ours = format!("tenant-queue-{prefix}-");
    let mine = |seen: fn(&Function) -> Option<String>| {
        let ours = ours.clone();
        move |function: &Function| seen(function).filter(|path| path.starts_with(&ours))
    };
    let admissions = Sightings::start(all(), mine(admitted)).await?;
    stage.post_functions(&namespaces, "blocker", 0..tenants).await?;
    admissions.at_least(tenants, PATIENCE).await;
    let waiting = Sightings::start(all(), mine(queued)).await?;
    stage.post_functions(&namespaces, prefix, 0..FUNCTIONS).await?;
    let waiting = waiting.at_least(FUNCTIONS, PATIENCE).await.len();
    let queued = waiting + tenants - admissions.all().len().min(waiting + tenants);
    let ours = ours.clone();
    let of_ours = move |object: &PartialObjectMeta<Deployment>| {
        let namespace = object.namespace().unwrap_or_default();
        format!("{namespace}-").starts_with(&ours).then(|| format!("{namespace}/{}", object.name_any()))
    };
    let deployments =
        Sightings::start(Api::<PartialObjectMeta<Deployment>>::all(stage.client.clone()), of_ours).await?;
    let start = Instant::now();
    stage.tier(&tier, &json!({})).await?;
    let mut admissions = admissions.at_least(tenants + FUNCTIONS, PATIENCE).await;
    admissions.retain(|_, sighting| sighting.first >= start);
    let mut deployments = deployments.at_least(tenants + FUNCTIONS, PATIENCE).await;
    deployments.retain(|_, sighting| sighting.first >= start);
    let (first, last) = first_and_last(&admissions).with_context(|| format!("none of {queued} queued was admitted"))?;
    let rate_from_start = rate(admissions.len(), last - start);
    let text = format!(
        "{rate_from_start:.0}/s ({} of {queued} queued, in {}, the first after {})",
        admissions.len(),
        time(Some(last - start)),
        time(Some(first - start)),
    );
    let deployed = first_and_last(&deployments).map(|(_, last)| last - start).unwrap_or_default();
    let deployed = format!("{} in {}", deployments.len(), time(Some(deployed)));
    Ok(Drained { rate: rate_from_start, text, deployed })
}
