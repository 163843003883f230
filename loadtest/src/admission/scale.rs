//! What the controller needs for 1,000 and for 10,000 Functions without pods, idle, and to start cold with them.
//! The gateway is stopped; Functions are posted directly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eventflow_api::function::Function;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::PartialObjectMeta;
use kube::{Api, ResourceExt};

use crate::admission::admitted;
use crate::report::Report;
use crate::samples::rate;
use crate::sightings::Sightings;
use crate::stage::{ROOMY, Stage};
use crate::usage::Usage;

const TENANTS: usize = 50;
const SIZES: [usize; 2] = [1_000, 10_000];
/// Longest wait for Deployments of all.
const PATIENCE: Duration = Duration::from_secs(420);
/// How long an idle controller is looked at.
const REST: Duration = Duration::from_secs(20);
/// A controller that uses less than this of one core for [`CALM`] has settled.
const IDLE: f64 = 0.05;
/// See [`IDLE`].
const CALM: Duration = Duration::from_secs(2);

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(mut stage: Stage) -> Result<Report> {
    let mut report = Report::new("admission-scale");
    stage.platform.stop_gateway();
    let namespaces = stage.tenants("scale", TENANTS, ROOMY).await?;
    let name = |object: &PartialObjectMeta<Deployment>| Some(object.name_any());
    let deployments = Sightings::start(Api::<PartialObjectMeta<Deployment>>::all(stage.client.clone()), name).await?;
    let mut there = 0;
    for size in SIZES {
        let start = Instant::now();
        stage.post_functions(&namespaces, "f", there..size).await?;
        let made = deployments.at_least(size, PATIENCE).await.len();
        let speed = rate(made - there, start.elapsed());
        report.row(&format!("{there} to {size} Functions"), format!("{speed:.0}/s, {made} Deployments"), "");
        there = size;
        settle(&stage).await?;
        let before = stage.controller_usage()?;
        tokio::time::sleep(REST).await;
        let after = stage.controller_usage()?;
        let target = if size == 10_000 { "<= 120 MB" } else { "Go: 58 MB at 201" };
        report.row(&format!("controller's memory with {size} Functions"), after, target);
        report.row(&format!("its processor time until then with {size}"), seconds(before), "");
        report.row(&format!("its use of one core, idle with {size}"), percent(before, after), "");
    }
    drop(deployments);
    cold_start(&mut stage, &namespaces, &mut report).await?;
    Ok(report)
}

/// Starts the controller anew: until a new Function is admitted, and until it has looked at everything.
async fn cold_start(stage: &mut Stage, namespaces: &[String], report: &mut Report) -> Result<()> {
    stage.platform.stop_controller();
    let probe = format!("{}/probe-0", namespaces[0]);
    let functions = Api::<Function>::namespaced(stage.client.clone(), &namespaces[0]);
    let admissions = Sightings::start(functions, admitted).await?;
    let start = Instant::now();
    stage.platform.start_controller();
    stage.post_functions(namespaces, "probe", 0..1).await?;
    let admitted = admissions.of(&probe, PATIENCE).await.context("after a cold start")?;
    let first = (admitted.first - start).as_secs_f64();
    report.row("cold start with 10,000 to the first new admission", format!("{first:.1} s"), "");
    let steady = settle(stage).await? - start;
    let usage = stage.controller_usage()?;
    report.row("cold start with 10,000 to steady state", format!("{:.1} s", steady.as_secs_f64()), "");
    report.row("its memory and processor time", format!("{usage}, {}", seconds(usage)), "<= 120 MB");
    Ok(())
}

fn seconds(usage: Usage) -> String {
    format!("{:.1} s", usage.processor.as_secs_f64())
}

/// Of one core, between two looks [`REST`] apart.
fn percent(before: Usage, after: Usage) -> String {
    format!("{:.1} %", 100.0 * share(before, after, REST))
}

fn share(before: Usage, after: Usage, time: Duration) -> f64 {
    (after.processor - before.processor).as_secs_f64() / time.as_secs_f64()
}

/// Waits until the controller does hardly anything; gives when that began. Bounded by [`PATIENCE`].
async fn settle(stage: &Stage) -> Result<Instant> {
    let start = Instant::now();
    loop {
        let (before, since) = (stage.controller_usage()?, Instant::now());
        tokio::time::sleep(CALM).await;
        if share(before, stage.controller_usage()?, CALM) < IDLE || start.elapsed() > PATIENCE {
            return Ok(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_one_core() {
        let usage = |ms| Usage { resident_kb: 1, peak_kb: 1, processor: Duration::from_millis(ms) };
        assert_eq!(percent(usage(1_000), usage(3_000)), "10.0 %");
    }
}
