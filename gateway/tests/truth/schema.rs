use std::process::Command;

use gateway::store::migrate;

use crate::bed::{Database, eventually};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schema.sql");

fn dump(database: &Database) -> Vec<String> {
    let output = Command::new("pg_dump")
        .args(["--schema-only", "--exclude-table=refinery_schema_history", "--dbname", &database.url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Without comments and the random tokens of newer versions.
    let lines = text.lines().filter(|l| !l.starts_with("--") && !l.starts_with('\\') && !l.is_empty());
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_migrations_lead_to_schema_sql() {
    let (by_schema, by_migrations) = (Database::empty().await, Database::new().await);
    by_schema.sql().await.batch_execute(&std::fs::read_to_string(SCHEMA).unwrap()).await.unwrap();
    let (by_schema, by_migrations) = (dump(&by_schema), dump(&by_migrations));
    assert!(by_schema.iter().any(|line| line.contains("CREATE TABLE public.functions")), "{by_schema:#?}");
    assert_eq!(by_schema, by_migrations);
}

#[tokio::test]
async fn several_may_migrate_at_once_and_again() {
    let database = Database::empty().await;
    let url = database.url().into();
    let outcomes = futures::future::join_all((0..4).map(|_| migrate(&url))).await;
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    migrate(&url).await.unwrap();
    database.store().ping().await.unwrap();
}

#[tokio::test]
async fn a_database_without_schema_is_not_ready() {
    let database = Database::empty().await;
    let error = database.store().ping().await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    migrate(&database.url().into()).await.unwrap();
    let store = database.store();
    eventually("the store is ready without a restart", || async { store.ping().await.ok() }).await;
}

#[tokio::test]
async fn every_tenant_table_is_walled_in() {
    let database = Database::new().await;
    let sql = "
        SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity,
               EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND 'ef_app'::regrole = ANY (p.polroles)
                       AND p.polqual IS NOT NULL AND p.polwithcheck IS NOT NULL)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND (c.relname = 'tenants' OR EXISTS (
              SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))";
    let rows = database.sql().await.query(sql, &[]).await.unwrap();
    assert!(rows.len() >= 4, "the tables are found at all");
    for row in rows {
        let table: String = row.get(0);
        assert!(row.get::<_, bool>(1), "{table} lacks FORCE ROW LEVEL SECURITY");
        assert!(row.get::<_, bool>(2), "{table} has no whole policy for ef_app");
    }
}

#[tokio::test]
async fn every_other_table_is_the_operators_alone() {
    let database = Database::new().await;
    let sql = "
        SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity,
               (SELECT array_agg(DISTINCT role::text) FROM pg_policy p, unnest(p.polroles::regrole[]) role
                WHERE p.polrelid = c.oid AND p.polqual IS NOT NULL AND p.polwithcheck IS NOT NULL),
               has_table_privilege('ef_app', c.oid, 'SELECT') OR has_table_privilege('ef_app', c.oid, 'INSERT')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname = 'public' AND c.relname NOT IN ('tenants', 'refinery_schema_history')
          AND NOT EXISTS (
              SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)";
    let rows = database.sql().await.query(sql, &[]).await.unwrap();
    assert!(rows.len() >= 9, "the tables are found at all");
    for row in rows {
        let table: String = row.get(0);
        assert!(row.get::<_, bool>(1), "{table} lacks FORCE ROW LEVEL SECURITY");
        assert_eq!(row.get::<_, Vec<String>>(2), ["ef_operator"], "{table}");
        assert!(!row.get::<_, bool>(3), "{table} can be reached as ef_app");
    }
}

#[tokio::test]
async fn the_app_role_owns_nothing_and_cannot_do_without_the_wall() {
    let database = Database::new().await;
    let sql = "
        SELECT (SELECT count(*) FROM pg_class WHERE relowner = 'ef_app'::regrole), rolsuper, rolbypassrls, rolinherit
        FROM pg_roles WHERE rolname = 'ef_app'";
    let row = database.sql().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    assert!(!row.get::<_, bool>(1) && !row.get::<_, bool>(2) && !row.get::<_, bool>(3));
}
