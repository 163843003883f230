use std::time::Duration;

use eventflow_api::admission::Admission;
use eventflow_api::function::Function;
use eventflow_api::labels;
use gateway::cluster::Applied;
use gateway::store::Change;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::bed::{Scene, eventually, name, origin, spec};

fn generation(function: &Function) -> Option<&str> {
    function.annotations().get(labels::GENERATION).map(String::as_str)
}

async fn replace(scene: &Scene, function: &str, image: &str) -> gateway::store::FunctionRow {
    let change = Change { spec: spec(image), if_generation: None };
    let store = &scene.gateway.store;
    store.function_replace(&scene.tenant, &name(function), change, &origin(), None).await.unwrap().row
}

async fn delete(scene: &Scene, function: &str) -> gateway::store::FunctionRow {
    let store = &scene.gateway.store;
    store.function_delete(&scene.tenant, &name(function), None, &origin(), None).await.unwrap().row
}

/// Holds the object when it is deleted, until [`release`].
async fn hold(api: &Api<Function>, function: &str) {
    let patch = json!({ "metadata": { "finalizers": ["eventflow.io/test"] } });
    api.patch(function, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn release(api: &Api<Function>, function: &str) {
    let patch = json!({ "metadata": { "finalizers": null } });
    api.patch(function, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test]
async fn a_create_is_applied_marked_and_seen() {
    let scene = Scene::new().await;
    let written = scene.create("f", "x").await;
    let object = scene.functions().get("f").await.unwrap();
    assert_eq!(object.spec, spec("x"));
    assert_eq!(generation(&object), Some("1"));
    assert_eq!(object.annotations().get(labels::FUNCTION_ID), Some(&written.row.id.to_string()));
    let row = scene.row("f").await.unwrap();
    assert!(row.is_synced());
    assert_eq!(row.object_uid, object.uid());

    // The controller's word arrives by the watch.
    let verdict = {
        let (cluster, row) = (scene.gateway.cluster.clone(), row.clone());
        tokio::spawn(async move { cluster.admission(&row, Duration::from_secs(15)).await })
    };
    let status = json!({ "status": { "phase": "Running", "replicas": 1, "conditions": [{
        "type": "Admitted", "status": "True", "reason": "Admitted", "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    scene.functions().patch_status("f", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let verdict = verdict.await.unwrap();
    assert!(matches!(verdict, Admission::Admitted { .. }), "{verdict:?}");
    let cluster = &scene.gateway.cluster;
    let seen = eventually("the status is seen", || async {
        cluster.function_status(&scene.tenant, &name("f"), &row.id).filter(|status| status.replicas == 1)
    })
    .await;
    assert_eq!(cluster.phases(&scene.tenant)["f"], seen.phase);
    assert!(cluster.function_status(&scene.tenant, &name("f"), &uuid::Uuid::nil()).is_none(), "of another row");
}

#[tokio::test]
async fn an_update_replaces_every_field_and_nothing_is_adopted_back() {
    let scene = Scene::new().await;
    scene.create("f", "x").await;
    for i in 1..=10 {
        let row = replace(&scene, "f", &format!("x:v{i}")).await;
        scene.apply(&row).await;
    }
    let mut bare = spec("bare");
    bare.env.clear();
    bare.port = None;
    let change = Change { spec: bare.clone(), if_generation: None };
    let store = &scene.gateway.store;
    let row = store.function_replace(&scene.tenant, &name("f"), change, &origin(), None).await.unwrap().row;
    scene.apply(&row).await;
    let object = scene.functions().get("f").await.unwrap();
    assert_eq!((object.spec, row.generation), (bare, 12));
    // A change by kubectl comes after all the events of ours: once it is taken over, so were those, if any.
    scene.kubectl(&["patch", "fn", "f", "--type=merge", "-p", r#"{"spec":{"image":"by-hand"}}"#]);
    let row = scene.row_until("f", |row| row.spec.image == "by-hand").await;
    assert_eq!(row.generation, 13);
    let adopted = scene.audit().await.iter().filter(|entry| entry.action == "function.adopt").count();
    assert_eq!(adopted, 1);
}

#[tokio::test]
async fn what_a_dead_process_left_is_carried_as_it_is_now() {
    let scene = Scene::new().await;
    scene.store("f", "x:v1").await;
    for i in 2..=5 {
        replace(&scene, "f", &format!("x:v{i}")).await;
    }
    let object = scene.object_until("f", |_| true).await;
    assert_eq!((object.spec.image.as_str(), generation(&object)), ("x:v5", Some("5")));
    assert_eq!(object.metadata.generation, Some(1), "carried once");
    scene.row_until("f", |row| row.is_synced()).await;
    delete(&scene, "f").await;
    scene.settled().await;
    assert!(scene.functions().get_opt("f").await.unwrap().is_none());
}

#[tokio::test]
async fn gateways_side_by_side_do_not_double_anything() {
    let scene = Scene::new().await;
    let others = [scene.another_gateway().await, scene.another_gateway().await];
    for i in 0..30 {
        scene.store(&format!("f{i}"), "x").await;
    }
    scene.settled().await;
    let objects = scene.functions().list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(objects.items.len(), 30);
    assert!(objects.items.iter().all(|object| object.metadata.generation == Some(1)));
    for i in 0..30 {
        delete(&scene, &format!("f{i}")).await;
    }
    scene.settled().await;
    assert!(scene.functions().list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
    assert_eq!(scene.audit().await.len(), 60, "thirty creates and thirty deletes, no adoption");
    drop(others);
}

#[tokio::test]
async fn an_old_generation_never_goes_over_a_newer_one() {
    let scene = Scene::new().await;
    let old = scene.create("f", "x:v1").await;
    let new = replace(&scene, "f", "x:v2").await;
    scene.apply(&new).await;
    // A process that slept between its commit and its apply.
    let late = scene.another_gateway().await;
    late.cluster.function_apply(&old.row).await;
    let object = scene.functions().get("f").await.unwrap();
    assert_eq!((object.spec.image.as_str(), generation(&object)), ("x:v2", Some("2")));
    assert!(scene.row("f").await.unwrap().is_synced());
}

#[tokio::test]
async fn a_create_that_comes_after_its_deletion_goes_again() {
    let scene = Scene::new().await;
    let written = scene.create("f", "x").await;
    let deleted = delete(&scene, "f").await;
    scene.remove(&deleted).await;
    // As the process that made the row would do had it slept for long.
    let never_applied = gateway::store::FunctionRow { object_uid: None, ..written.row };
    scene.gateway.cluster.function_apply(&never_applied).await;
    scene.settled().await;
    eventually("the late object is gone", || async {
        scene.functions().get_opt("f").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(scene.row("f").await.is_none());
}

#[tokio::test]
async fn a_name_is_used_again_while_the_old_object_lingers() {
    let scene = Scene::new().await;
    scene.create("f", "old").await;
    let api = scene.functions();
    hold(&api, "f").await;
    let old = api.get("f").await.unwrap();
    let deleted = delete(&scene, "f").await;
    scene.gateway.cluster.function_remove(&deleted).await;
    let new = scene.store("f", "new").await;
    let applied = scene.gateway.cluster.function_apply(&new.row).await;
    assert!(matches!(applied, Applied::Pending(_)), "{applied:?}");
    assert_eq!(api.get("f").await.unwrap().spec.image, "old", "never written over on its way out");
    release(&api, "f").await;
    let object = scene.object_until("f", |object| object.spec.image == "new").await;
    assert_ne!(object.uid(), old.uid());
    scene.settled().await;
    assert_eq!(scene.row("f").await.unwrap().id, new.row.id);
}

#[tokio::test]
async fn a_late_delete_spares_the_namesake() {
    let scene = Scene::new().await;
    scene.create("f", "old").await;
    let deleted = delete(&scene, "f").await;
    scene.remove(&deleted).await;
    let new = scene.create("f", "new").await;
    let late = scene.another_gateway().await;
    late.cluster.function_remove(&deleted).await;
    let never_marked = gateway::store::FunctionRow { object_uid: None, ..deleted };
    late.cluster.function_remove(&never_marked).await;
    let object = scene.functions().get("f").await.unwrap();
    assert_eq!(object.annotations().get(labels::FUNCTION_ID), Some(&new.row.id.to_string()));
    assert!(object.metadata.deletion_timestamp.is_none());
}

#[tokio::test]
async fn a_function_waits_for_its_namespace() {
    let scene = Scene::without_namespace().await;
    scene.create_pending("f", "x").await;
    scene.create_namespace().await;
    scene.object_until("f", |_| true).await;
    scene.row_until("f", |row| row.is_synced()).await;
}

#[tokio::test]
async fn an_intent_not_yet_applied_wins_over_the_cluster() {
    let scene = Scene::new().await;
    scene.create("f", "x:v1").await;
    let row = replace(&scene, "f", "x:v2").await;
    scene.kubectl(&["patch", "fn", "f", "--type=merge", "-p", r#"{"spec":{"image":"by-hand"}}"#]);
    scene.gateway.cluster.function_apply(&row).await;
    scene.settled().await;
    assert_eq!(scene.functions().get("f").await.unwrap().spec.image, "x:v2");
    assert_eq!(scene.row("f").await.unwrap().generation, 2);

    // Deleted by hand during an intent: made again.
    let row = replace(&scene, "f", "x:v3").await;
    scene.kubectl(&["delete", "fn", "f"]);
    scene.gateway.cluster.function_apply(&row).await;
    scene.settled().await;
    assert_eq!(scene.functions().get("f").await.unwrap().spec.image, "x:v3");
    assert_eq!(scene.row("f").await.unwrap().id, row.id);
}
