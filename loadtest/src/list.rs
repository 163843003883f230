//! `list`: what a tenant's list costs as its functions become many, and what that does to another tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::connection::Connection;
use crate::load::Load;
use crate::report::Report;
use crate::samples::Samples;
use crate::stage::{Stage, WRITERS, idle_function};

/// How many functions, and what the prototype needed for a list of them.
const SIZES: [(usize, &str); 3] =
    [(1, "Go: 18 ms at 10"), (100, "Go: 8.5 s"), (1_000, "<= 20 ms; Go: no answer at 200")];
/// Lists at once beside the quiet tenant, and what it then waited for in the prototype.
const NEIGHBOURS: [(usize, &str); 4] = [(0, ""), (1, "Go: 0.2 s"), (5, "Go: 0.6 s"), (20, "Go: 2.1 s")];
/// The longest page the API gives; a longer list takes more calls.
const PAGE: usize = 1_000;
/// How long each measurement runs.
const TIME: Duration = Duration::from_secs(5);
/// Calls of one measurement at most.
const CALLS: usize = 500;

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(stage: &Stage) -> Result<Report> {
    let mut report = Report::new("list");
    let (busy, quiet) = (stage.user("busy").await?, stage.user("quiet").await?);
    quiet.create(&idle_function("only")).await?;
    let mut functions = 0;
    for (size, target) in SIZES {
        fill(&busy, functions..size).await?;
        functions = size;
        stage.settled(Duration::from_secs(60)).await?;
        let requests = stage.gateway_reads().await?;
        let (listed, pages) = busy.list(PAGE).await?;
        ensure!(listed == size, "{listed} functions listed of {size}");
        let lists = repeat(|| async { busy.get("/v1/functions?limit=1000").await.map(drop) }).await?;
        let gets = repeat(|| async { busy.get("/v1/functions/f-0").await.map(drop) }).await?;
        let requests = stage.gateway_reads().await? - requests;
        let name = |what: &str| format!("{what} at {size} functions, p50 / p99 / max of {}", lists.len());
        report.row(&name(if pages == 1 { "list" } else { "first page of the list" }), &lists, target);
        if pages > 1 {
            let all = repeat(|| async { busy.list(PAGE).await.map(|_| ()) }).await?;
            report.row(&format!("whole list at {size} functions, {pages} calls"), &all, target);
        }
        report.row(&name("get"), &gets, "");
        let count = lists.len() + gets.len();
        report.row(
            &format!("gets and lists that the gateway asked the API server for in {count} reads"),
            requests,
            "none per read",
        );
    }
    for (loops, target) in NEIGHBOURS {
        let (samples, lists) = beside(&quiet, &busy, loops).await?;
        let name = format!("list of 1 beside {loops} loops listing 1,000, p50 / p99 / max of {}", samples.len());
        report.row(&name, format!("{samples} (beside {lists:.0} lists/s)"), target);
    }
    Ok(report)
}

/// Creates functions of these numbers through the API.
async fn fill(user: &Connection, numbers: std::ops::Range<usize>) -> Result<()> {
    let connections: Arc<Vec<_>> = Arc::new((0..WRITERS).map(|_| user.another()).collect());
    let (first, count) = (numbers.start, numbers.len());
    let load = Load { workers: WRITERS, calls: count, time: Duration::from_secs(180) };
    let outcome = load.run(move |worker, number| {
        let connections = connections.clone();
        async move {
            let function = idle_function(&format!("f-{}", first + number));
            Ok(connections[worker].create(&function).await?.to_string())
        }
    });
    let outcome = outcome.await?;
    let created: usize = outcome.answers.iter().filter(|(answer, _)| answer.starts_with('2')).map(|(_, n)| n).sum();
    ensure!(created == count, "creating {count} functions: {}", outcome.answers());
    Ok(())
}

/// Calls one after the other on one connection, for as long and as often as one measurement takes.
async fn repeat<C: Future<Output = Result<()>>>(mut call: impl FnMut() -> C) -> Result<Samples> {
    call().await?;
    let (start, mut samples) = (Instant::now(), Samples::default());
    while start.elapsed() < TIME && samples.len() < CALLS {
        let asked = Instant::now();
        call().await?;
        samples.push(asked.elapsed());
    }
    Ok(samples)
}

/// Lists of `quiet` while `loops` connections of `busy` list without a pause; also how many of those a second.
async fn beside(quiet: &Connection, busy: &Connection, loops: usize) -> Result<(Samples, f64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let neighbours: Vec<_> = (0..loops).map(|_| tokio::spawn(list_until(stop.clone(), busy.another()))).collect();
    let start = Instant::now();
    let samples = repeat(|| async { quiet.get("/v1/functions").await.map(drop) }).await;
    stop.store(true, Ordering::Relaxed);
    let elapsed = start.elapsed();
    let mut lists = 0;
    for neighbour in neighbours {
        lists += neighbour.await??;
    }
    Ok((samples?, lists as f64 / elapsed.as_secs_f64()))
}

async fn list_until(stop: Arc<AtomicBool>, user: Connection) -> Result<usize> {
    let mut lists = 0;
    while !stop.load(Ordering::Relaxed) {
        user.get("/v1/functions?limit=1000").await?;
        lists += 1;
    }
    Ok(lists)
}
