use std::collections::HashSet;

use eventflow_api::names::TenantClaim;
use eventflow_api::tenant::{Tenant as TenantObject, TenantSpec};
use gateway::cluster::ClusterError;
use kube::Api;
use kube::api::PostParams;
use uuid::Uuid;

use crate::bed::{Database, Gateway, kube_client};

fn claim(text: &str) -> TenantClaim {
    text.parse().unwrap()
}

#[tokio::test]
async fn ten_first_calls_at_once_agree() {
    let database = Database::new().await;
    let stores: Vec<_> = (0..10).map(|_| database.store()).collect();
    for text in ["alice", "Alice Smith"] {
        let claim = claim(text);
        let calls = stores.iter().map(|store| store.tenant_resolve("https://a.test", &claim, true));
        let ids = futures::future::join_all(calls).await;
        let ids: HashSet<_> = ids.into_iter().map(|id| id.unwrap().unwrap()).collect();
        assert_eq!(ids.len(), 1, "{text}: {ids:?}");
    }
}

#[tokio::test]
async fn one_name_of_two_issuers_is_two_tenants() {
    let database = Database::new().await;
    let store = database.store();
    let mut ids = HashSet::new();
    for issuer in ["https://a.test", "https://b.test"] {
        for text in ["alice", "Alice Smith"] {
            let id = store.tenant_resolve(issuer, &claim(text), true).await.unwrap().unwrap();
            assert_eq!(store.tenant_resolve(issuer, &claim(text), true).await.unwrap(), Some(id.clone()));
            assert!(ids.insert(id.namespace()), "{issuer} {text} {id}");
        }
    }
    assert_eq!(store.tenant_resolve("https://c.test", &claim("alice"), false).await.unwrap(), None);
}

#[tokio::test]
async fn hostile_claims_neither_collide_nor_escape() {
    let database = Database::new().await;
    let store = database.store();
    let long_a = "a".repeat(300);
    let long_b = format!("{long_a}b");
    let hostile = [
        "a_b",
        "a-b",
        "A-B",
        "a.b",
        "a b",
        "../x",
        "system",
        "default",
        "kube-system",
        "tenant-system",
        "é",
        "e",
        "ÅÄÖ",
        "🦀",
        "'; DROP TABLE tenants; --",
        "%s%n",
        "a-",
        "-a",
        "a--b",
        &long_a,
        &long_b,
        "\u{202e}evil",
        "ⓐ",
        "*",
    ];
    let mut namespaces = HashSet::new();
    for text in hostile {
        let id = store.tenant_resolve("https://a.test", &claim(text), true).await.unwrap().unwrap();
        let namespace = id.namespace();
        assert!(namespace.starts_with("tenant-") && namespace.len() <= 63, "{namespace}");
        assert!(namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{namespace}");
        assert!(!namespace.ends_with('-'), "{namespace}");
        assert!(namespaces.insert(namespace), "{text} collides");
    }
    // A made-up id of one claim taken literally by another.
    let made_up = store.tenant_resolve("https://a.test", &claim("a_b"), true).await.unwrap().unwrap();
    let literal = store.tenant_resolve("https://a.test", &claim(made_up.as_str()), true).await.unwrap().unwrap();
    assert_ne!(made_up, literal);
}

#[tokio::test]
async fn an_operators_tenant_goes_to_the_first_of_its_name() {
    let database = Database::new().await;
    database.sql().await.batch_execute("INSERT INTO tenants (id) VALUES ('team')").await.unwrap();
    let store = database.store();
    let first = store.tenant_resolve("https://a.test", &claim("team"), true).await.unwrap().unwrap();
    let second = store.tenant_resolve("https://b.test", &claim("team"), true).await.unwrap().unwrap();
    assert_eq!(first.as_str(), "team");
    assert_ne!(second.as_str(), "team");
}

#[tokio::test]
async fn the_tenant_object_is_made_once_and_never_taken_from_another() {
    let database = Database::new().await;
    let gateway = Gateway::start(kube_client(None).await, database.store()).await.ready().await;
    let text = format!("t{}", &Uuid::new_v4().simple().to_string()[..12]);
    let id = gateway.store.tenant_resolve("https://a.test", &claim(&text), true).await.unwrap().unwrap();
    let claim = claim(&text);
    let calls = (0..10).map(|_| gateway.cluster.tenant_ensure("https://a.test", &claim, &id));
    for outcome in futures::future::join_all(calls).await {
        outcome.unwrap();
    }
    let api: Api<TenantObject> = Api::all(kube_client(None).await);
    let object = api.get(id.as_str()).await.unwrap();
    let owner = object.spec.owner.unwrap();
    assert_eq!((owner.issuer.as_str(), owner.subject), ("https://a.test", text));
    let other = gateway.cluster.tenant_ensure("https://b.test", &claim, &id).await;
    assert!(matches!(other, Err(ClusterError::TenantConflict)), "{other:?}");
}

#[tokio::test]
async fn a_tenant_object_without_an_owner_gets_its_first() {
    let database = Database::new().await;
    let client = kube_client(None).await;
    let gateway = Gateway::start(client.clone(), database.store()).await.ready().await;
    let text = format!("t{}", &Uuid::new_v4().simple().to_string()[..12]);
    let api: Api<TenantObject> = Api::all(client);
    let spec = TenantSpec { tier: "pro".into(), owner: None, display_name: None, quota: None, suspended: false };
    api.create(&PostParams::default(), &TenantObject::new(&text, spec)).await.unwrap();
    let id = text.parse().unwrap();
    gateway.cluster.tenant_ensure("https://a.test", &claim(&text), &id).await.unwrap();
    assert_eq!(api.get(&text).await.unwrap().spec.owner.unwrap().issuer, "https://a.test");
}
