use std::time::Duration;

use devcluster::Proxy;
use gateway::cluster::Applied;
use gateway::store::{Change, FunctionQuery, Store, StoreConfig, StoreError};
use kube::api::ListParams;

use crate::bed::{
    Database, Gateway, Scene, cluster, create_namespace, eventually, kube_client, name, new_tenant, origin, spec,
};

/// A scene whose gateway reaches the API server through a proxy; the test itself reaches it directly.
async fn behind_api_proxy() -> (Scene, Proxy) {
    let proxy = Proxy::start(&cluster().api_server_address().unwrap()).unwrap();
    let database = Database::new().await;
    let through = kube_client(Some(&proxy.address().to_string())).await;
    let gateway = Gateway::start(through, database.store()).await.ready().await;
    let tenant = new_tenant(&gateway.store).await;
    let client = kube_client(None).await;
    create_namespace(&client, &tenant).await;
    (Scene { gateway, client, tenant, database }, proxy)
}

#[tokio::test]
async fn writes_go_on_while_the_api_server_is_away() {
    let (scene, proxy) = behind_api_proxy().await;
    scene.create("kept", "x").await;
    scene.create("changed", "x").await;
    scene.create("deleted", "x").await;
    proxy.cut();
    scene.create_pending("made", "x").await;
    let store = &scene.gateway.store;
    let change = Change { spec: spec("y"), if_generation: None };
    let row = store.function_replace(&scene.tenant, &name("changed"), change, &origin(), None).await.unwrap().row;
    assert!(matches!(scene.gateway.cluster.function_apply(&row).await, Applied::Pending(_)));
    let row = store.function_delete(&scene.tenant, &name("deleted"), None, &origin(), None).await.unwrap().row;
    assert!(matches!(scene.gateway.cluster.function_remove(&row).await, Applied::Pending(_)));
    scene.kubectl(&["patch", "fn", "kept", "--type=merge", "-p", r#"{"spec":{"image":"by-hand"}}"#]);
    assert!(!scene.row("made").await.unwrap().is_synced());
    proxy.restore();

    scene.settled().await;
    scene.row_until("kept", |row| row.spec.image == "by-hand").await;
    let objects = scene.functions().list(&ListParams::default()).await.unwrap();
    let mut images: Vec<_> =
        objects.items.iter().map(|o| (o.metadata.name.as_deref().unwrap(), &*o.spec.image)).collect();
    images.sort();
    assert_eq!(images, [("changed", "y"), ("kept", "by-hand"), ("made", "x")]);
    // Recovered without a restart: the next one is applied at once.
    scene.create("next", "x").await;
}

#[tokio::test]
async fn a_silent_api_server_delays_nobody_for_long() {
    let (scene, proxy) = behind_api_proxy().await;
    proxy.delay(Duration::from_secs(3600));
    let written = scene.store("f", "x").await;
    let applied = tokio::time::timeout(Duration::from_secs(10), scene.gateway.cluster.function_apply(&written.row));
    assert!(matches!(applied.await.unwrap(), Applied::Pending(_)));
    proxy.restore();
    scene.object_until("f", |_| true).await;
    scene.settled().await;
}

fn impatient(url: &str) -> Store {
    Store::new(&StoreConfig {
        database_url: url.into(),
        pool_size: 4,
        wait: Duration::from_millis(250),
        statement_timeout: Duration::from_secs(1),
        lock_timeout: Duration::from_millis(500),
    })
    .unwrap()
}

#[tokio::test]
async fn without_the_database_nothing_is_half_done_and_all_comes_back() {
    let proxy = Proxy::start(cluster().database_address()).unwrap();
    let database = Database::new().await;
    let store = impatient(&database.url_through(&proxy.address().to_string()));
    let tenant = new_tenant(&store).await;
    let client = kube_client(None).await;
    create_namespace(&client, &tenant).await;
    let gateway = Gateway::start(client.clone(), store).await.ready().await;
    let scene = Scene { gateway, client, tenant, database };
    let store = &scene.gateway.store;
    scene.create("before", "x").await;

    proxy.cut();
    for _ in 0..5 {
        let refused = store.function_create(&scene.tenant, &name("f"), &spec("x"), &origin(), None).await;
        assert!(refused.as_ref().is_err_and(StoreError::is_outage), "{refused:?}");
        let refused = store.function_list(&scene.tenant, &FunctionQuery::default()).await;
        assert!(refused.as_ref().is_err_and(StoreError::is_outage), "{refused:?}");
        assert!(store.ping().await.is_err());
    }
    // A change of the cluster's meanwhile is not lost either.
    scene.kubectl(&["patch", "fn", "before", "--type=merge", "-p", r#"{"spec":{"image":"by-hand"}}"#]);
    proxy.restore();

    eventually("the store is back", || async { store.ping().await.ok() }).await;
    assert!(scene.row("f").await.is_none(), "refused means not done");
    assert!(scene.functions().get_opt("f").await.unwrap().is_none());
    scene.create("f", "x").await;
    scene.row_until("before", |row| row.spec.image == "by-hand").await;
}

#[tokio::test]
async fn a_line_cut_under_writes_leaves_whole_writes_alone() {
    let proxy = Proxy::start(cluster().database_address()).unwrap();
    let database = Database::new().await;
    let store = impatient(&database.url_through(&proxy.address().to_string()));
    let tenant = new_tenant(&store).await;
    let mut known = Vec::new();
    for round in 0..5 {
        let writes = (0..8).map(|i| {
            let (store, tenant) = (store.clone(), tenant.clone());
            async move {
                let name = name(&format!("f{round}-{i}"));
                (name.clone(), store.function_create(&tenant, &name, &spec("x"), &origin(), None).await)
            }
        });
        let cut = async {
            tokio::task::yield_now().await;
            proxy.cut();
            proxy.restore();
        };
        let (outcomes, ()) = futures::future::join(futures::future::join_all(writes), cut).await;
        known.extend(outcomes.into_iter().filter_map(|(name, outcome)| outcome.ok().map(|_| name)));
    }
    let sql = database.sql().await;
    let count = async |table: &str| -> i64 {
        sql.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    };
    assert_eq!(count("functions").await, count("audit_log").await);
    for name in known {
        let row = eventually("the store answers", || async { store.function_get(&tenant, &name).await.ok() }).await;
        assert!(row.is_some(), "{name} was acknowledged");
    }
}

#[tokio::test]
async fn a_silent_database_is_given_up_and_then_used_again() {
    let proxy = Proxy::start(cluster().database_address()).unwrap();
    let database = Database::new().await;
    let store = impatient(&database.url_through(&proxy.address().to_string()));
    let tenant = new_tenant(&store).await;
    proxy.delay(Duration::from_secs(3600));
    let answer = tokio::time::timeout(Duration::from_secs(15), store.function_get(&tenant, &name("f"))).await;
    assert!(answer.unwrap().is_err_and(|error| error.is_outage()));
    proxy.restore();
    eventually("the store is back", || async { store.function_get(&tenant, &name("f")).await.ok() }).await;
}

#[tokio::test]
async fn a_steady_load_opens_no_connections() {
    let proxy = Proxy::start(cluster().database_address()).unwrap();
    let database = Database::new().await;
    let store = impatient(&database.url_through(&proxy.address().to_string()));
    let tenant = new_tenant(&store).await;
    store.function_create(&tenant, &name("f"), &spec("x"), &origin(), None).await.unwrap();
    let before = proxy.accepted();
    for i in 0..50 {
        store.function_get(&tenant, &name("f")).await.unwrap();
        let change = Change { spec: spec(&format!("x:v{i}")), if_generation: None };
        store.function_replace(&tenant, &name("f"), change, &origin(), None).await.unwrap();
    }
    assert_eq!(proxy.accepted(), before);
}
