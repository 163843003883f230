use eventflow_api::invocation::{Invocation, RunPhase, RunReason};
use gateway::store::{Answer, Ending, IdempotencyKey, InvocationRow, Record, Retention, Store, StoreError};
use jiff::Timestamp;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use uuid::Uuid;

use crate::bed::{
    Database, Gateway, create_namespace, eventually, kube_client, name, new_tenant, origin, run_of, spec,
};

fn record(phase: RunPhase) -> Record {
    Record {
        phase,
        reason: Some(RunReason::ExitCode),
        message: "the program ended with exit code 3".into(),
        attempts: 2,
        exit_code: Some(3),
        admitted_at: Some(Timestamp::UNIX_EPOCH),
        started_at: None,
        finished_at: "2026-01-01T00:00:05Z".parse().unwrap(),
        result: Some("{\"a\":1}".into()),
        log_tail: Some("line".into()),
    }
}

/// Carried and ended, so that nothing of it is left but the record.
async fn over(store: &Store, row: &InvocationRow) {
    store.invocation_finish(&row.tenant, row.id, &record(RunPhase::Failed)).await.unwrap();
    store.invocation_purged(row.id).await.unwrap();
}

#[tokio::test]
async fn what_was_asked_for_is_kept_and_belongs_to_its_tenant() {
    let database = Database::new().await;
    let store = database.store();
    let (a, b) = (new_tenant(&store).await, new_tenant(&store).await);
    let function = store.function_create(&a, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    let new = run_of(&function, Some("the input"));
    let written = store.invocation_create(&a, new.clone(), &origin(), None).await.unwrap();
    assert_eq!((written.answer, written.row.generation, written.row.is_synced()), (Answer::Fresh, 1, false));
    let id = written.row.id;
    let read = store.invocation_get(&a, id).await.unwrap().unwrap();
    assert_eq!((read.spec.input, read.function.as_str(), read.record), (None, "f", None));
    let whole = store.invocation_get_whole(&a, id).await.unwrap().unwrap();
    assert_eq!(whole.spec, new.spec);
    assert_eq!(store.invocation_get(&b, id).await.unwrap(), None);
    assert!(store.invocation_list(&b, function.id, None, None).await.unwrap().items.is_empty());
    assert!(matches!(store.invocation_cancel(&b, id, &origin(), None).await, Err(StoreError::NotFound)));
    assert!(matches!(store.invocation_create(&b, new, &origin(), None).await, Err(StoreError::NotFound)));
    assert!(!store.invocation_is_open(b.id(), id).await.unwrap());
    assert_eq!(store.invocation_finish(b.id(), id, &record(RunPhase::Failed)).await.unwrap(), Ending::Known);
    store.function_delete(&a, &name("f"), None, &origin(), None).await.unwrap();
    let late = store.invocation_create(&a, run_of(&function, None), &origin(), None).await;
    assert!(matches!(late, Err(StoreError::NotFound)), "{late:?}");
}

#[tokio::test]
async fn a_key_stands_for_one_run() {
    let database = Database::new().await;
    let store = database.store();
    let a = new_tenant(&store).await;
    let function = store.function_create(&a, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    let key = IdempotencyKey { key: "k".into(), body_sha256: [7; 32] };
    let create = async |key: &IdempotencyKey| {
        store.invocation_create(&a, run_of(&function, Some("i")), &origin(), Some(key)).await
    };
    let first = create(&key).await.unwrap();
    let again = create(&key).await.unwrap();
    assert_eq!((again.answer, again.row.id), (Answer::Resumed, first.row.id));
    store.idempotency_finish(&a, &key, 200, b"{}").await.unwrap();
    assert_eq!(create(&key).await.unwrap().answer, Answer::Replay { status: 200, body: b"{}".to_vec() });
    assert_eq!(store.invocation_replay(&a, &key).await.unwrap().unwrap().row.id, first.row.id);
    let other = IdempotencyKey { body_sha256: [8; 32], ..key };
    assert!(matches!(create(&other).await, Err(StoreError::IdempotencyMismatch)));
    assert_eq!(store.invocation_list(&a, function.id, None, None).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn the_first_record_stays_and_what_is_over_is_not_cancelled() {
    let database = Database::new().await;
    let store = database.store();
    let a = new_tenant(&store).await;
    let function = store.function_create(&a, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    let create = async || store.invocation_create(&a, run_of(&function, None), &origin(), None).await.unwrap().row;
    let row = create().await;
    assert!(matches!(
        store.invocation_finish(a.id(), row.id, &record(RunPhase::Failed)).await.unwrap(),
        Ending::Recorded(_)
    ));
    assert_eq!(store.invocation_finish(a.id(), row.id, &record(RunPhase::Succeeded)).await.unwrap(), Ending::Known);
    let read = store.invocation_get(&a, row.id).await.unwrap().unwrap();
    assert_eq!(*read.record.unwrap(), record(RunPhase::Failed));
    assert!(matches!(store.invocation_cancel(&a, row.id, &origin(), None).await, Err(StoreError::Over)));

    let row = create().await;
    let cancelled = store.invocation_cancel(&a, row.id, &origin(), None).await.unwrap().row;
    assert_eq!((cancelled.generation, cancelled.cancel_requested), (2, true));
    let again = store.invocation_cancel(&a, row.id, &origin(), None).await.unwrap().row;
    assert_eq!(again.generation, 2, "asking again changes nothing");
    let actions = store.audit_list(&a, None, None).await.unwrap().items;
    assert_eq!(actions.iter().filter(|entry| entry.action == "invocation.cancel").count(), 1);
}

#[tokio::test]
async fn pages_are_newest_first_and_old_records_go() {
    let database = Database::new().await;
    let store = database.store();
    let a = new_tenant(&store).await;
    let function = store.function_create(&a, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let row = store.invocation_create(&a, run_of(&function, None), &origin(), None).await.unwrap().row;
        ids.insert(0, row.id);
        over(&store, &row).await;
    }
    let first = store.invocation_list(&a, function.id, None, Some(3)).await.unwrap();
    let second = store.invocation_list(&a, function.id, first.next_cursor.as_deref(), Some(3)).await.unwrap();
    let listed: Vec<Uuid> = first.items.iter().chain(&second.items).map(|row| row.id).collect();
    assert_eq!((listed, second.next_cursor), (ids.clone(), None));
    let bad = store.invocation_list(&a, function.id, Some("x"), None).await;
    assert!(matches!(bad, Err(StoreError::BadCursor)));

    let tenants = [a.id().to_string()];
    let unfinished = store.invocation_create(&a, run_of(&function, None), &origin(), None).await.unwrap().row;
    let keep = Retention { count: 3, days: 36_500 };
    assert_eq!(store.invocation_prune(&tenants, keep, 500).await.unwrap(), 2);
    assert_eq!(store.invocation_prune(&tenants, keep, 500).await.unwrap(), 0);
    assert_eq!(store.invocation_prune(&["nobody".to_owned()], Retention { count: 0, days: 1 }, 500).await.unwrap(), 0);
    let sql = database.sql().await;
    sql.execute("UPDATE invocations SET finished_at = now() - interval '2 days' WHERE finished_at IS NOT NULL", &[])
        .await
        .unwrap();
    let keep = Retention { count: 1_000, days: 1 };
    assert_eq!(store.invocation_prune(&tenants, keep, 500).await.unwrap(), 3);
    let left = store.invocation_list(&a, function.id, None, None).await.unwrap().items;
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), [unfinished.id], "what is not over stays");
}

#[tokio::test]
async fn there_are_only_so_many_at_once() {
    let database = Database::new().await;
    let store = database.store();
    let a = new_tenant(&store).await;
    let function = store.function_create(&a, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    store.invocation_create(&a, run_of(&function, None), &origin(), None).await.unwrap();
    let sql = "INSERT INTO invocations (id, tenant_id, function_id, function_name, spec, actor)
        SELECT gen_random_uuid(), tenant_id, function_id, function_name, spec, actor
        FROM invocations, generate_series(2, $1)";
    let most = i32::try_from(gateway::store::UNFINISHED_MAX).unwrap();
    database.sql().await.execute(sql, &[&most]).await.unwrap();
    let refused = store.invocation_create(&a, run_of(&function, None), &origin(), None).await;
    assert!(matches!(refused, Err(StoreError::TooMany { limit: "unfinished-invocations", .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_become_objects_and_an_object_that_goes_ends_the_run() {
    let database = Database::new().await;
    let client = kube_client(None).await;
    let gateway = Gateway::start(client.clone(), database.store()).await;
    let tenant = new_tenant(&gateway.store).await;
    create_namespace(&client, &tenant).await;
    let store = &gateway.store;
    let function = store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap().row;
    let row = store.invocation_create(&tenant, run_of(&function, Some("in")), &origin(), None).await.unwrap().row;
    let runs: Api<Invocation> = Api::namespaced(client.clone(), tenant.namespace());
    // Nobody carries it by hand: the projector does.
    let object = eventually("the object is there", || async { runs.get_opt(&row.id.to_string()).await.unwrap() }).await;
    assert_eq!((object.spec.function.as_str(), object.spec.input.as_deref()), ("f", Some("in")));
    eventually("the row says so", || async {
        store.invocation_get(&tenant, row.id).await.unwrap().filter(InvocationRow::is_synced)
    })
    .await;
    store.invocation_cancel(&tenant, row.id, &origin(), None).await.unwrap();
    eventually("the object is told", || async {
        runs.get(&row.id.to_string()).await.unwrap().spec.cancel.then_some(())
    })
    .await;
    runs.delete(&object.name_any(), &DeleteParams::default()).await.unwrap();
    let record = eventually("the run is over", || async {
        store.invocation_get(&tenant, row.id).await.unwrap().and_then(|row| row.record)
    })
    .await;
    assert_eq!((record.phase, record.reason), (RunPhase::Failed, Some(RunReason::Removed)));
    let purged = || async {
        let sql = database.sql().await;
        let row =
            sql.query_one("SELECT purged_at IS NOT NULL FROM invocations WHERE id = $1", &[&row.id]).await.unwrap();
        row.get::<_, bool>(0).then_some(())
    };
    eventually("nothing is left to do", purged).await;
    assert!(runs.get_opt(&object.name_any()).await.unwrap().is_none(), "it is not made again");
}
