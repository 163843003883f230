//! Bringing a database to the schema this program needs. Several programs may try at once: one works, the rest wait.

use refinery::Runner;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{Client, NoTls};

use super::StoreError;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Any number, as long as it stays: `SELECT hashtext('eventflow')` once.
const LOCK: i64 = 7_341_870_211;

/// Applies the migrations that the database lacks, one program at a time.
///
/// # Errors
/// When the database cannot be reached or refuses; the chain says why.
pub async fn migrate(database_url: &SecretString) -> Result<(), StoreError> {
    let (mut client, connection) = tokio_postgres::connect(database_url.expose_secret(), NoTls).await?;
    let connection = tokio::spawn(connection);
    let outcome = migrate_locked(&mut client).await;
    // Gives the lock back as well.
    drop(client);
    if let Ok(Err(error)) = connection.await {
        tracing::debug!(error = %error, "the connection of the migration ended badly");
    }
    outcome
}

async fn migrate_locked(client: &mut Client) -> Result<(), StoreError> {
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let report = runner().run_async(client).await.map_err(StoreError::internal)?;
    for migration in report.applied_migrations() {
        tracing::info!(migration = %migration, "Applied a migration");
    }
    // Readiness compares the version.
    client.batch_execute("GRANT SELECT ON refinery_schema_history TO ef_app, ef_projector").await?;
    Ok(())
}

/// The version that this program needs.
pub(super) fn newest_version() -> i32 {
    runner().get_migrations().iter().map(|migration| migration.version()).max().unwrap_or(0)
}

fn runner() -> Runner {
    embedded::migrations::runner()
}
