//! The process that everything of `make up` belongs to. When it ends, however it ends, nothing of it runs any more.

use std::{path::Path, sync::mpsc::RecvTimeoutError, time::Duration};

use crate::{
    cluster::Cluster,
    contained,
    control::{ComponentReport, Desk, Order},
    error::Result,
    layout::write,
    plan::Plan,
    platform,
};

/// How often components are looked after.
const ROUND: Duration = Duration::from_millis(500);

/// Runs the plan in `data` until told to stop. Why a start failed is left in the file that [`failure_file`] names.
///
/// # Errors
/// When something does not start.
pub fn supervise(data: &Path) -> Result<u8> {
    let plan = Plan::read(data)?;
    let desk = Desk::open(data)?;
    desk.report(|report| report.namespace = contained::process_namespace());
    let mut cluster = match start(&plan, &desk) {
        Ok(cluster) => cluster,
        Err(error) => {
            write(&failure_file(data), chain(&error))?;
            return Err(error);
        }
    };
    loop {
        report(&mut cluster, &desk, "");
        match desk.orders.recv_timeout(ROUND) {
            Ok((Order::Stop, _until_we_end)) => {
                report(&mut cluster, &desk, "Stopping");
                cluster.stop();
                return Ok(0);
            }
            Ok((Order::Renew, outcome)) => {
                let renewed = platform::renew(&plan, &mut cluster.components);
                // Whoever asked may have gone away meanwhile.
                drop(outcome.send(renewed.map_or_else(|error| chain(&error), |()| String::new())));
            }
            Err(RecvTimeoutError::Timeout) => cluster.components.iter_mut().for_each(crate::process::Component::revive),
            Err(RecvTimeoutError::Disconnected) => return Ok(1),
        }
    }
}

/// Where the reason of a failed start is found.
#[must_use]
pub fn failure_file(data: &Path) -> std::path::PathBuf {
    data.join("failure")
}

fn start(plan: &Plan, desk: &Desk) -> Result<Cluster> {
    let step = |text: &str| desk.report(|report| text.clone_into(&mut report.step));
    let mut cluster = if plan.kubeconfig.is_some() {
        step("Starting PostgreSQL");
        Cluster::start_database_only(&plan.layout())?
    } else {
        step("Starting PostgreSQL and Kubernetes");
        Cluster::start(&plan.layout())?
    };
    if plan.platform.is_some() {
        report(&mut cluster, desk, "Installing custom resources, tiers and the database's schema");
        platform::install(plan)?;
        report(&mut cluster, desk, "Starting the gateway and the controller");
        cluster.components.extend(platform::start(plan)?);
    }
    Ok(cluster)
}

fn report(cluster: &mut Cluster, desk: &Desk, step: &str) {
    let components = cluster.components.iter_mut().map(|component| ComponentReport {
        name: component.name.to_owned(),
        up: component.ended().is_none(),
        pid: component.pid(),
        address: component.address.clone(),
        restarts: component.restarts,
    });
    let components = components.collect();
    desk.report(|report| {
        report.components = components;
        step.clone_into(&mut report.step);
    });
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
