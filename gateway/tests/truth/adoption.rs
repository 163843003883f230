use std::io::Write;
use std::process::{Command, Stdio};

use eventflow_api::labels;
use eventflow_api::tenant::{Tenant as TenantObject, TenantOwner, TenantSpec};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::bed::{Gateway, Scene, cluster, eventually, name, origin, spec};

fn kubectl_create(scene: &Scene, function: &str, image: &str) {
    let manifest = json!({
        "apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
        "metadata": { "name": function, "namespace": scene.tenant.namespace() }, "spec": { "image": image },
    });
    let mut child = Command::new("kubectl")
        .args(["--kubeconfig", cluster().kubeconfig_path().to_str().unwrap(), "create", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifest.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn an_edit_by_kubectl_becomes_a_generation() {
    let scene = Scene::new().await;
    let others = [scene.another_gateway().await, scene.another_gateway().await];
    scene.create("f", "x").await;
    scene.kubectl(&["patch", "fn", "f", "--type=merge", "-p", r#"{"spec":{"image":"by-hand"}}"#]);
    let row = scene.row_until("f", |row| row.generation == 2).await;
    assert_eq!(row.spec.image, "by-hand");
    assert!(row.is_synced());
    let object =
        scene.object_until("f", |o| o.annotations().get(labels::GENERATION).map(String::as_str) == Some("2")).await;
    assert_eq!(object.spec.image, "by-hand");
    // Scaling leaves no manager's name, so it gets one of its own.
    scene.create("g", "x").await;
    scene.kubectl(&["scale", "fn", "g", "--replicas=3"]);
    let row = scene.row_until("g", |row| row.spec.replicas == 3).await;
    assert_eq!(row.generation, 2);
    let audit = scene.audit().await;
    let adopted: Vec<_> = audit.iter().filter(|e| e.action == "function.adopt").collect();
    assert_eq!(adopted.len(), 2, "once each, whatever the number of gateways: {audit:#?}");
    assert_eq!((adopted[1].actor.as_str(), &adopted[1].detail), ("kubectl-patch", &json!({ "changed": ["image"] })));
    assert_eq!((adopted[0].actor.as_str(), adopted[0].target.as_str()), ("scale", "g"));
    drop(others);
}

#[tokio::test]
async fn a_function_made_by_kubectl_becomes_a_row() {
    let scene = Scene::new().await;
    let others = [scene.another_gateway().await];
    kubectl_create(&scene, "f", "by-hand");
    let row = scene.row_until("f", |_| true).await;
    assert_eq!((row.spec.image.as_str(), row.generation, row.is_synced()), ("by-hand", 1, true));
    scene.object_until("f", |o| o.annotations().get(labels::FUNCTION_ID) == Some(&row.id.to_string())).await;
    let audit = scene.audit().await;
    assert_eq!(audit.len(), 1);
    assert_eq!((audit[0].action.as_str(), audit[0].actor.as_str()), ("function.adopt", "kubectl-create"));
    // From then on it is like any other.
    let change = gateway::store::Change { spec: spec("by-api"), if_generation: Some((row.id, 1)) };
    let store = &scene.gateway.store;
    let row = store.function_replace(&scene.tenant, &name("f"), change, &origin(), None).await.unwrap().row;
    scene.apply(&row).await;
    assert_eq!(scene.functions().get("f").await.unwrap().spec.image, "by-api");
    let row = store.function_delete(&scene.tenant, &name("f"), None, &origin(), None).await.unwrap().row;
    scene.remove(&row).await;
    assert!(scene.functions().get_opt("f").await.unwrap().is_none());
    drop(others);
}

#[tokio::test]
async fn a_delete_by_kubectl_deletes_the_row() {
    let scene = Scene::new().await;
    let others = [scene.another_gateway().await];
    scene.create("f", "x").await;
    scene.kubectl(&["delete", "fn", "f"]);
    eventually("the row is gone", || async { scene.row("f").await.is_none().then_some(()) }).await;
    scene.settled().await;
    let audit = scene.audit().await;
    let deletes: Vec<_> = audit.iter().filter(|e| e.action == "function.delete").collect();
    assert_eq!((deletes.len(), deletes[0].actor.as_str()), (1, "kubernetes"));
    scene.create("f", "again").await;
    drop(others);
}

#[tokio::test]
async fn what_kubectl_did_while_nobody_watched_is_found() {
    let scene = Scene::new().await;
    for function in ["edited", "deleted", "kept"] {
        scene.create(function, "x").await;
    }
    // The sweep believes that an object is gone only where the tenant stands.
    let owner = TenantOwner { issuer: "https://issuer.test".into(), subject: scene.tenant.id().to_string() };
    let tenant =
        TenantSpec { tier: "pro".into(), owner: Some(owner), display_name: None, quota: None, suspended: false };
    let tenants: Api<TenantObject> = Api::all(scene.client.clone());
    tenants.create(&PostParams::default(), &TenantObject::new(scene.tenant.id().as_str(), tenant)).await.unwrap();

    let Scene { gateway, client, tenant, database } = scene;
    drop(gateway);
    let scene = Scene { gateway: Gateway::start(client.clone(), database.store()).await, client, tenant, database };
    // The old gateway's watches may see some of this still; the new one's see only what its list shows.
    scene.kubectl(&["patch", "fn", "edited", "--type=merge", "-p", r#"{"spec":{"image":"by-hand"}}"#]);
    scene.kubectl(&["delete", "fn", "deleted"]);
    kubectl_create(&scene, "made", "by-hand");
    scene.row_until("edited", |row| row.spec.image == "by-hand").await;
    scene.row_until("made", |_| true).await;
    eventually("the row is gone", || async { scene.row("deleted").await.is_none().then_some(()) }).await;
    assert_eq!(scene.row("kept").await.unwrap().generation, 1);
}

#[tokio::test]
async fn a_cluster_without_the_tenant_does_not_empty_the_store() {
    let scene = Scene::new().await;
    scene.create("f", "x").await;
    let Scene { gateway, client, tenant, database } = scene;
    drop(gateway);
    // As if the cluster had been made anew: neither Tenant nor Function, while nobody watched.
    database.sql().await.batch_execute("UPDATE functions SET object_uid = 'of-the-lost-cluster'").await.unwrap();
    let api: Api<eventflow_api::function::Function> = Api::namespaced(client.clone(), tenant.namespace());
    api.delete("f", &kube::api::DeleteParams::default()).await.unwrap();
    let gateway = Gateway::start(client.clone(), database.store()).await.ready().await;
    let scene = Scene { gateway, client, tenant, database };
    // Something later that is seen proves that the sweep had its turn or has nothing to say.
    kubectl_create(&scene, "marker", "x");
    scene.row_until("marker", |_| true).await;
    assert!(scene.row("f").await.is_some());
}

#[tokio::test]
async fn a_namespace_of_nobody_is_left_alone() {
    let scene = Scene::new().await;
    let stranger = gateway::auth::testing::tenant(format!("{}-x", scene.tenant.id()).parse().unwrap());
    crate::bed::create_namespace(&scene.client, &stranger).await;
    let strangers: Api<eventflow_api::function::Function> = Api::namespaced(scene.client.clone(), stranger.namespace());
    let object = eventflow_api::function::Function::new("f", spec("x"));
    strangers.create(&PostParams::default(), &object).await.unwrap();
    kubectl_create(&scene, "marker", "x");
    scene.row_until("marker", |_| true).await;
    let sql = scene.database.sql().await;
    let of_stranger = "SELECT count(*) FROM functions WHERE tenant_id = $1";
    let count = sql.query_one(of_stranger, &[&stranger.id().as_str()]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
    let object = strangers.get("f").await.unwrap();
    assert!(object.annotations().is_empty(), "{object:?}");
}

#[tokio::test]
async fn a_backup_put_back_by_kubectl_is_a_new_function() {
    let scene = Scene::new().await;
    let first = scene.create("f", "x").await;
    let mut backup = scene.functions().get("f").await.unwrap();
    scene.kubectl(&["delete", "fn", "f"]);
    eventually("the row is gone", || async { scene.row("f").await.is_none().then_some(()) }).await;
    backup.metadata.uid = None;
    backup.metadata.resource_version = None;
    backup.metadata.managed_fields = None;
    let params = PostParams { field_manager: Some("restore".into()), ..PostParams::default() };
    scene.functions().create(&params, &backup).await.unwrap();
    let row = scene.row_until("f", |_| true).await;
    assert_ne!(row.id, first.row.id);
    scene.object_until("f", |o| o.annotations().get(labels::FUNCTION_ID) == Some(&row.id.to_string())).await;
}
