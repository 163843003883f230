//! `get`: how many authenticated reads a second, and what each costs the database and the API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_postgres::{Client, NoTls};

use crate::connection::Connection;
use crate::load::Load;
use crate::report::Report;
use crate::stage::{Stage, idle_function};

/// Connections, and callers.
const CONNECTIONS: usize = 32;
/// How long each measurement runs.
const TIME: Duration = Duration::from_secs(10);
/// PostgreSQL tells what a session did at most this much later.
const STATISTICS_DELAY: Duration = Duration::from_secs(2);

/// Answers the question.
///
/// # Errors
/// When it could not be measured.
pub async fn measure(stage: &Stage) -> Result<Report> {
    let mut report = Report::new("get");
    let user = stage.user("reader").await?;
    user.create(&idle_function("one")).await?;
    stage.settled(Duration::from_secs(30)).await?;
    let connections: Arc<Vec<_>> = Arc::new((0..CONNECTIONS).map(|_| user.another()).collect());
    let database = connect(stage.platform.database_url()).await?;
    // Each caller connects, and the gateway fills its pools and caches.
    read(&connections, Load { workers: CONNECTIONS, calls: 500, time: TIME }).await?;

    let (sessions, requests) = (sessions(&database).await?, stage.gateway_reads().await?);
    let processor = stage.usage()?.0.processor;
    let outcome = read(&connections, Load { workers: CONNECTIONS, calls: usize::MAX, time: TIME }).await?;
    let processor = stage.usage()?.0.processor - processor;
    let opened = self::sessions(&database).await? - sessions;
    let requests = stage.gateway_reads().await? - requests;
    let count = outcome.latencies.len();

    let rate = format!("{:.0}/s ({})", outcome.rate(), outcome.answers());
    report.row("GET of one function, 32 connections", rate, "Go: 10.5/s");
    report.row("latency p50 / p99 / max", &outcome.latencies, "");
    let cost = processor.as_secs_f64() * 1e6 / count.max(1) as f64;
    report.row("processor time of the gateway per request", format!("{cost:.0} µs"), "");
    let opened = format!("{opened} in {count} requests");
    report.row("PostgreSQL connections opened", opened, "Go: one per request");
    report.row("gets and lists that the gateway asked the API server for meanwhile", requests, "none per read");
    let alone = read(&connections, Load { workers: 1, calls: usize::MAX, time: TIME / 2 }).await?;
    let alone = format!("{} ({:.0}/s)", alone.latencies, alone.rate());
    report.row("one connection: p50 / p99 / max", alone, "");
    Ok(report)
}

async fn read(connections: &Arc<Vec<Connection>>, load: Load) -> Result<crate::load::Outcome> {
    let connections = connections.clone();
    let read = move |worker: usize, _| {
        let connections = connections.clone();
        async move { connections[worker].get("/v1/functions/one").await.map(|_| "200".to_owned()) }
    };
    load.run(read).await
}

/// Connects to the platform's database.
async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Sessions of this database since it was made.
async fn sessions(database: &Client) -> Result<i64> {
    tokio::time::sleep(STATISTICS_DELAY).await;
    let query = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    Ok(database.query_one(query, &[]).await?.get(0))
}
