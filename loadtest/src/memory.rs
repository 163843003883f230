//! `memory`: resident memory of gateway and controller, just started and after 1,000 functions came by the API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use eventflow_api::function::Function;
use kube::Api;

use crate::load::Load;
use crate::report::Report;
use crate::sightings::Sightings;
use crate::stage::{Stage, WRITERS, idle_function};

const FUNCTIONS: usize = 1_000;
const TENANTS: usize = 8;
/// Longest wait for all statuses, and then for a controller that does nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the processes are left alone before a first look at them.
const REST: Duration = Duration::from_secs(10);

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(stage: &Stage) -> Result<Report> {
    let mut report = Report::new("memory");
    tokio::time::sleep(REST).await;
    let (gateway, controller) = stage.usage()?;
    report.row("gateway, idle", gateway, "<= 80 MB with policies; Go: 35 MB");
    report.row("controller, idle", controller, "Go: 50 MB");

    let mut users = Vec::new();
    for number in 0..WRITERS {
        let tenant = format!("memory-{}", number % TENANTS);
        users.push(stage.user(&tenant).await?);
    }
    let users = Arc::new(users);
    let settled = |function: &Function| {
        let settled = function.status.as_ref().is_some_and(|status| !status.conditions.is_empty());
        settled.then(|| format!("{:?}/{:?}", function.metadata.namespace, function.metadata.name))
    };
    let settled = Sightings::start(Api::<Function>::all(stage.client.clone()), settled).await?;
    let load = Load { workers: WRITERS, calls: FUNCTIONS, time: Duration::from_secs(180) };
    let outcome = load.run(move |worker, number| {
        let users = users.clone();
        async move { Ok(users[worker].create(&idle_function(&format!("f-{number}"))).await?.to_string()) }
    });
    let outcome = outcome.await?;
    let settled = settled.at_least(FUNCTIONS, PATIENCE).await;
    stage.settled(PATIENCE).await?;
    let (gateway, controller) = stage.usage()?;
    let created = format!("{} settled; {:.0}/s ({})", settled.len(), outcome.rate(), outcome.answers());
    report.row("1,000 functions in 8 tenants created by 16 clients", created, "");
    report.row("gateway, after", gateway, "Go: peak 45 MB");
    report.row("controller, after", controller, "Go: peak 58 MB at 201 functions");
    Ok(report)
}
