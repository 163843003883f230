//! The way to the database: two pools, one per role, and the two shapes of work on them. A read is one round trip; a
//! write runs to its end in a task of its own, so that a caller who hangs up never leaves a transaction open.

use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use eventflow_api::names::TenantId;
use futures::future::BoxFuture;
use secrecy::ExposeSecret;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, NoTls, Row};

use super::{StoreConfig, StoreError};

/// Names the tenant to row-level security until the transaction ends.
pub(super) const NAME_TENANT: &str = "SELECT set_config('app.tenant', $1, true)";

/// Beyond the database's own time-outs, which do not help when the line is dead.
const GRACE: Duration = Duration::from_secs(1);

/// One role's connections.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    pool: Pool,
    patience: Duration,
}

impl Connections {
    /// Prepares a pool whose connections work as `role`, whatever the login is; connects to nothing yet.
    pub(super) fn new(config: &StoreConfig, role: &str, size: usize) -> Result<Self, StoreError> {
        let mut pg: Config = config.database_url.expose_secret().parse().map_err(StoreError::internal)?;
        let given = pg.get_options().unwrap_or_default();
        let options = format!(
            "{given} -c role={role} -c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout=10000",
            config.statement_timeout.as_millis(),
            config.lock_timeout.as_millis(),
        );
        pg.options(options.trim_start());
        pg.application_name("eventflow-gateway");
        pg.connect_timeout(Duration::from_secs(2));
        pg.keepalives_idle(Duration::from_secs(10));
        pg.tcp_user_timeout(Duration::from_secs(10));
        let manager = Manager::from_config(pg, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(config.wait))
            .create_timeout(Some(Duration::from_secs(2)))
            .recycle_timeout(Some(Duration::from_secs(1)))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(StoreError::internal)?;
        Ok(Self { pool, patience: config.statement_timeout + GRACE })
    }

    /// Connections that are open, and of these those that nobody uses now.
    pub(super) fn state(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }

    /// A connection of one's own for a while.
    pub(super) async fn get(&self) -> Result<Client, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// Waits for work on a connection and gives up on both when the line is dead. A connection on which something
    /// failed for want of an answer is not used again.
    pub(super) async fn finish<T>(
        &self,
        mut client: Client,
        work: impl for<'c> FnOnce(&'c mut Client) -> BoxFuture<'c, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let outcome = match tokio::time::timeout(self.patience, work(&mut client)).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(StoreError::Timeout(elapsed.into())),
        };
        settle(client, outcome)
    }

    /// One query as `tenant`.
    pub(super) async fn read(
        &self,
        tenant: &TenantId,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.one_round_trip("BEGIN READ ONLY", tenant, sql, params).await
    }

    /// One changing statement as `tenant`.
    pub(super) async fn write(
        &self,
        tenant: &TenantId,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.one_round_trip("BEGIN", tenant, sql, params).await
    }

    /// A whole transaction sent at once: nothing waits for the answer before it, so nothing is left half sent when
    /// the caller goes away, and a failure of one part makes the COMMIT a ROLLBACK.
    async fn one_round_trip(
        &self,
        begin: &str,
        tenant: &TenantId,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.get().await?;
        let sent = send_transaction(&client, begin, tenant, sql, params);
        let outcome = match tokio::time::timeout(self.patience, sent).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(StoreError::Timeout(elapsed.into())),
        };
        settle(client, outcome)
    }

    /// One statement on its own, not as a tenant.
    pub(super) async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let client = self.get().await?;
        let outcome = match tokio::time::timeout(self.patience, send_statement(&client, sql, params)).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(StoreError::Timeout(elapsed.into())),
        };
        settle(client, outcome)
    }
}

async fn send_transaction(
    client: &Client,
    begin: &str,
    tenant: &TenantId,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    let name_tenant = client.prepare_cached(NAME_TENANT).await?;
    let statement = client.prepare_cached(sql).await?;
    let id = tenant.as_str();
    let named: [&(dyn ToSql + Sync); 1] = [&id];
    let (begun, named, rows, done) = futures::join!(
        client.batch_execute(begin),
        client.execute(&name_tenant, &named),
        client.query(&statement, params),
        client.batch_execute("COMMIT"),
    );
    begun?;
    named?;
    let rows = rows?;
    done?;
    Ok(rows)
}

async fn send_statement(client: &Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, params).await?)
}

/// Gives the connection back, unless it may be dead.
fn settle<T>(client: Client, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
    if outcome.as_ref().is_err_and(StoreError::is_outage) {
        drop(Object::take(client));
    }
    outcome
}
