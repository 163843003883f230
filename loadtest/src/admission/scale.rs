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
        stage.settled(PATIENCE).await?;
        let before = stage.controller_usage()?;
        tokio::time::sleep(REST).await;
        let after = stage.controller_usage()?;
        let target = if size == 10_000 { "<= 120 MB" } else { "Go: 58 MB at 201" };
        report.row(&format!("controller's memory with {size} Functions"), after, target);
        report.row(&format!("its processor time until then with {size}"), seconds(before), "");
        report.row(
            &format!("its use of one core, idle with {size}"),
            format!("{:.1} %", 100.0 * after.share_of_core(before, REST)),
            "",
        );
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
    let steady = stage.settled(PATIENCE).await? - start;
    let usage = stage.controller_usage()?;
    report.row("cold start with 10,000 to steady state", format!("{:.1} s", steady.as_secs_f64()), "");
    report.row("its memory and processor time", format!("{usage}, {}", seconds(usage)), "<= 120 MB");
    Ok(())
}

fn seconds(usage: Usage) -> String {
    format!("{:.1} s", usage.processor.as_secs_f64())
}
