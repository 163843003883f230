use gateway::store::{Change, FunctionQuery, StoreError};
use tokio_postgres::error::SqlState;

use crate::bed::{Database, name, new_tenant, origin, run_of, spec};

#[tokio::test]
async fn methods_see_their_own_tenant_alone() {
    let database = Database::new().await;
    let store = database.store();
    let (a, b) = (new_tenant(&store).await, new_tenant(&store).await);
    store.function_create(&a, &name("f"), &spec("x"), &origin(), None).await.unwrap();

    assert_eq!(store.function_get(&b, &name("f")).await.unwrap(), None);
    assert!(store.function_list(&b, &FunctionQuery::default()).await.unwrap().items.is_empty());
    assert!(store.audit_list(&b, None, None).await.unwrap().items.is_empty());
    let change = Change { spec: spec("y"), if_generation: None };
    let replaced = store.function_replace(&b, &name("f"), change, &origin(), None).await;
    assert!(matches!(replaced, Err(StoreError::NotFound)));
    let deleted = store.function_delete(&b, &name("f"), None, &origin(), None).await;
    assert!(matches!(deleted, Err(StoreError::NotFound)));
    store.function_create(&b, &name("f"), &spec("z"), &origin(), None).await.unwrap();
    assert_eq!(store.function_get(&a, &name("f")).await.unwrap().unwrap().spec, spec("x"));
}

#[tokio::test]
async fn hand_written_sql_is_stopped_by_the_wall() {
    let database = Database::new().await;
    let store = database.store();
    let (a, b) = (new_tenant(&store).await, new_tenant(&store).await);
    let function = store.function_create(&a, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    let new = run_of(&function, None);
    store.invocation_create(&a, new, &origin(), None).await.unwrap();
    let (a, b) = (a.id().as_str(), b.id().as_str());

    let sql = database.sql().await;
    sql.batch_execute("SET ROLE ef_app").await.unwrap();
    let count = async |tenant: Option<&str>| -> Vec<i64> {
        sql.batch_execute("BEGIN").await.unwrap();
        if let Some(tenant) = tenant {
            sql.execute("SELECT set_config('app.tenant', $1, true)", &[&tenant]).await.unwrap();
        }
        let mut counts = Vec::new();
        for table in ["functions", "audit_log", "idempotency_keys", "tenants", "invocations"] {
            let row = sql.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
            counts.push(row.get(0));
        }
        sql.batch_execute("COMMIT").await.unwrap();
        counts
    };
    assert_eq!(count(None).await, [0, 0, 0, 0, 0], "before the setting was ever made it is NULL");
    assert_eq!(count(Some(a)).await, [1, 2, 0, 1, 1]);
    assert_eq!(count(Some(b)).await, [0, 0, 0, 1, 0]);
    assert_eq!(count(None).await, [0, 0, 0, 0, 0], "after a transaction it is ''");
    assert_eq!(count(Some("")).await, [0, 0, 0, 0, 0]);

    // Writing: nothing of another's can be changed, and nothing can be put there.
    let as_b = format!("BEGIN; SELECT set_config('app.tenant', '{b}', true)");
    sql.batch_execute(&as_b).await.unwrap();
    assert_eq!(sql.execute("UPDATE functions SET generation = generation + 1", &[]).await.unwrap(), 0);
    let insert = format!(
        "INSERT INTO functions (id, tenant_id, name, spec, generation) VALUES (gen_random_uuid(), '{a}', 'g', '{{}}', 1)"
    );
    let refused = sql.batch_execute(&insert).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    sql.batch_execute("ROLLBACK").await.unwrap();
    for statement in [
        "DELETE FROM functions",
        "DELETE FROM invocations",
        "UPDATE invocations SET phase = 'Succeeded', finished_at = now()",
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "UPDATE tenants SET id = 'x'",
        "ALTER TABLE functions DISABLE ROW LEVEL SECURITY",
    ] {
        sql.batch_execute(&as_b).await.unwrap();
        let refused = sql.batch_execute(statement).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        sql.batch_execute("ROLLBACK").await.unwrap();
    }
    let member = sql.query_one("SELECT pg_has_role('ef_app', 'ef_owner', 'MEMBER')", &[]).await.unwrap();
    assert!(!member.get::<_, bool>(0));
}
