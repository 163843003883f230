use gateway::store::{Answer, IdempotencyKey, StoreError};

use crate::bed::{Database, name, new_tenant, origin, spec};

fn key(text: &str, body: u8) -> IdempotencyKey {
    IdempotencyKey { key: text.into(), body_sha256: [body; 32] }
}

#[tokio::test]
async fn the_same_call_again_has_the_same_answer() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let key = key("k", 1);
    let first = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), Some(&key)).await.unwrap();
    assert_eq!(first.answer, Answer::Fresh);
    store.idempotency_finish(&tenant, &key, 201, b"made").await.unwrap();
    let again = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), Some(&key)).await.unwrap();
    assert_eq!(again.answer, Answer::Replay { status: 201, body: b"made".to_vec() });
    assert_eq!(again.row.id, first.row.id);
    assert_eq!(store.audit_list(&tenant, None, None).await.unwrap().items.len(), 1, "it happened once");

    // The same key of another tenant is another key.
    let other = new_tenant(&store).await;
    let theirs = store.function_create(&other, &name("f"), &spec("y"), &origin(), Some(&key)).await.unwrap();
    assert_eq!(theirs.answer, Answer::Fresh);
}

#[tokio::test]
async fn another_call_under_the_key_is_refused() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    store.function_create(&tenant, &name("f"), &spec("x"), &origin(), Some(&key("k", 1))).await.unwrap();
    let other = store.function_create(&tenant, &name("g"), &spec("x"), &origin(), Some(&key("k", 2))).await;
    assert!(matches!(other, Err(StoreError::IdempotencyMismatch)), "{other:?}");
    assert_eq!(store.function_get(&tenant, &name("g")).await.unwrap(), None);
}

#[tokio::test]
async fn a_call_that_died_before_its_answer_is_resumed() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let (make, unmake) = (key("k", 1), key("l", 2));
    let first = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), Some(&make)).await.unwrap();
    let again = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), Some(&make)).await.unwrap();
    assert_eq!((again.answer, again.row.id), (Answer::Resumed, first.row.id));
    store.function_delete(&tenant, &name("f"), None, &origin(), Some(&unmake)).await.unwrap();
    let again = store.function_delete(&tenant, &name("f"), None, &origin(), Some(&unmake)).await.unwrap();
    assert_eq!((again.answer, again.row.deleted_at.is_some()), (Answer::Resumed, true));
}

#[tokio::test]
async fn a_failed_call_leaves_its_key_free() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let key = key("k", 1);
    let missing = store.function_delete(&tenant, &name("f"), None, &origin(), Some(&key)).await;
    assert!(matches!(missing, Err(StoreError::NotFound)));
    store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap();
    let deleted = store.function_delete(&tenant, &name("f"), None, &origin(), Some(&key)).await.unwrap();
    assert_eq!(deleted.answer, Answer::Fresh);
}

#[tokio::test]
async fn a_call_under_way_keeps_others_out() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap();
    // The first delete waits for the row's lock, and holds its key meanwhile.
    let sql = database.sql().await;
    sql.batch_execute("BEGIN; SELECT * FROM functions FOR UPDATE").await.unwrap();
    let first = {
        let (store, tenant) = (store.clone(), tenant.clone());
        tokio::spawn(
            async move { store.function_delete(&tenant, &name("f"), None, &origin(), Some(&key("k", 1))).await },
        )
    };
    let watcher = database.sql().await;
    crate::bed::eventually("the first waits", || async {
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted";
        (watcher.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    let second = store.function_delete(&tenant, &name("f"), None, &origin(), Some(&key("k", 1))).await;
    assert!(matches!(second, Err(StoreError::IdempotencyInFlight)), "{second:?}");
    sql.batch_execute("COMMIT").await.unwrap();
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn keys_last_a_day() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    for i in 0..5 {
        let key = key(&format!("k{i}"), 1);
        store.function_create(&tenant, &name(&format!("f{i}")), &spec("x"), &origin(), Some(&key)).await.unwrap();
    }
    let sql = database.sql().await;
    let age = "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key <> 'k4'";
    sql.batch_execute(age).await.unwrap();
    // Old but not swept yet: free.
    let again = store.function_create(&tenant, &name("g"), &spec("x"), &origin(), Some(&key("k0", 9))).await.unwrap();
    assert_eq!(again.answer, Answer::Fresh);
    assert_eq!(store.idempotency_sweep(2).await.unwrap(), 2, "in bounded batches");
    assert_eq!(store.idempotency_sweep(2).await.unwrap(), 1);
    assert_eq!(store.idempotency_sweep(2).await.unwrap(), 0);
}
