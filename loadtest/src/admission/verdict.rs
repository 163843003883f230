//! How long a caller waits for the verdict on a create, all writers in one tenant: the worst case, one ledger. Answers
//! are counted by their verdict: what is `undecided` was not answered within the gateway's two seconds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::load::Load;
use crate::report::Report;
use crate::stage::{Stage, idle_function};

/// Longest time of one measurement.
const TIME: Duration = Duration::from_secs(20);
/// Creates of one measurement at most.
const CREATES: usize = 1_000;

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(stage: &Stage) -> Result<Report> {
    let mut report = Report::new("admission-verdict");
    for tenants in [1, 8] {
        for writers in [1, 8, 50] {
            if tenants <= writers {
                verdicts(stage, writers, tenants, &mut report).await?;
            }
        }
    }
    Ok(report)
}

async fn verdicts(stage: &Stage, writers: usize, tenants: usize, report: &mut Report) -> Result<()> {
    let mut users = Vec::new();
    for number in 0..writers.min(tenants) {
        users.push(stage.user(&format!("verdict-{tenants}-{writers}-{number}")).await?);
    }
    let users: Arc<Vec<_>> = Arc::new((0..writers).map(|writer| users[writer % tenants].another()).collect());
    let load = Load { workers: writers, calls: CREATES, time: TIME };
    let created = load.run(move |writer, number| {
        let users = users.clone();
        async move { users[writer].create_verdict(&idle_function(&format!("f-{number}"))).await }
    });
    let created = created.await?;
    let what = format!("{writers} writers in {tenants} tenants");
    let target = if writers == 1 { "p50 <= 35 ms" } else { "" };
    report.row(&format!("{what}: verdict p50 / p99 / max"), &created.latencies, target);
    report.row(&format!("{what}: answers"), format!("{:.0}/s ({})", created.rate(), created.answers()), "");
    Ok(())
}
