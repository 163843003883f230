use gateway::store::{Change, StoreError};

use crate::bed::{Database, name, new_tenant, origin, spec};

fn change(image: &str) -> Change {
    Change { spec: spec(image), if_generation: None }
}

#[tokio::test]
async fn what_is_written_is_read() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let written = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap();
    assert_eq!((written.row.generation, written.row.synced_generation), (1, 0));
    assert_eq!(store.function_get(&tenant, &name("f")).await.unwrap().unwrap(), written.row);

    let same = store.function_replace(&tenant, &name("f"), change("x"), &origin(), None).await.unwrap();
    assert_eq!(same.row, written.row, "an equal spec is no change");
    let replaced = store.function_replace(&tenant, &name("f"), change("y"), &origin(), None).await.unwrap();
    assert_eq!((replaced.row.generation, replaced.row.spec), (2, spec("y")));

    let audit = store.audit_list(&tenant, None, None).await.unwrap().items;
    let actions: Vec<_> = audit.iter().map(|e| (e.action.as_str(), e.generation)).collect();
    assert_eq!(actions, [("function.update", Some(2)), ("function.create", Some(1))]);
    assert_eq!(audit[0].detail, serde_json::json!({ "changed": ["image"] }));
    assert_eq!((audit[0].actor.as_str(), audit[0].request_id.as_deref()), ("alice", Some("request-1")));
    assert!(!format!("{audit:?}").contains("value"), "values of variables are nobody's business");
}

#[tokio::test]
async fn a_name_is_taken_while_live_and_free_once_deleted() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let first = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap();
    let again = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists)), "{again:?}");
    for _ in 0..3 {
        store.function_delete(&tenant, &name("f"), None, &origin(), None).await.unwrap();
        assert_eq!(store.function_get(&tenant, &name("f")).await.unwrap(), None);
        let gone = store.function_delete(&tenant, &name("f"), None, &origin(), None).await;
        assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
        let next = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap();
        assert_ne!(next.row.id, first.row.id);
        assert_eq!(next.row.generation, 1);
    }
}

#[tokio::test]
async fn only_one_of_ten_creates_at_once_wins() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let (name, spec, origin) = (name("f"), spec("x"), origin());
    let calls = (0..10).map(|_| store.function_create(&tenant, &name, &spec, &origin, None));
    let outcomes = futures::future::join_all(calls).await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|o| matches!(o, Ok(_) | Err(StoreError::AlreadyExists))), "{outcomes:?}");
}

#[tokio::test]
async fn twenty_updates_at_once_lose_nothing() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    store.function_create(&tenant, &name("f"), &spec("counter:v0"), &origin(), None).await.unwrap();
    let count = async || {
        // What a client does with GET, If-Match and PUT.
        loop {
            let row = store.function_get(&tenant, &name("f")).await.unwrap().unwrap();
            let n: u32 = row.spec.image.strip_prefix("counter:v").unwrap().parse().unwrap();
            let change =
                Change { spec: spec(&format!("counter:v{}", n + 1)), if_generation: Some((row.id, row.generation)) };
            match store.function_replace(&tenant, &name("f"), change, &origin(), None).await {
                Ok(_) => return,
                Err(StoreError::StaleGeneration) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    futures::future::join_all((0..20).map(|_| count())).await;
    let row = store.function_get(&tenant, &name("f")).await.unwrap().unwrap();
    assert_eq!((row.spec.image.as_str(), row.generation), ("counter:v20", 21));
    assert_eq!(store.audit_list(&tenant, None, None).await.unwrap().items.len(), 21);
}

#[tokio::test]
async fn if_match_is_about_this_very_function() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let old = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    store.function_delete(&tenant, &name("f"), Some((old.id, 1)), &origin(), None).await.unwrap();
    store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap();
    let stale = store.function_delete(&tenant, &name("f"), Some((old.id, 1)), &origin(), None).await;
    assert!(matches!(stale, Err(StoreError::StaleGeneration)), "the namesake is at generation 1 too: {stale:?}");
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_nothing_half_done() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    let (spec, origin) = (spec("x"), origin());
    for i in 0..40u64 {
        let name = name(&format!("f{i}"));
        let call = store.function_create(&tenant, &name, &spec, &origin, None);
        let cut = tokio::time::timeout(std::time::Duration::from_micros(i * 50), call).await;
        drop(cut);
    }
    // Every connection still works, outside of any transaction, and every function has its audit entry.
    let checks = (0..32).map(|i| {
        let store = store.clone();
        let tenant = tenant.clone();
        async move { store.function_get(&tenant, &name(&format!("f{i}"))).await.unwrap().is_some() }
    });
    futures::future::join_all(checks).await;
    let sql = database.sql().await;
    crate::bed::eventually("no transaction is open", || async {
        let open = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        (sql.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let unequal = "SELECT (SELECT count(*) FROM functions) - (SELECT count(*) FROM audit_log)";
    assert_eq!(sql.query_one(unequal, &[]).await.unwrap().get::<_, i64>(0), 0);
}
