#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::common::{Reply, TestApp, eventually};

const PACKAGES: [&str; 8] = [
    "tier-limits",
    "replica-limit",
    "resource-bounds",
    "image-allowlist",
    "require-fields",
    "misbehave",
    "request-marks",
    "set-labels",
];

/// A built-in policy, or one of the examples in Rust, as a component, compiled from source once per run.
pub fn component(name: &str) -> Vec<u8> {
    static MODULES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let modules = MODULES.get_or_init(|| {
        let packages = PACKAGES.map(str::to_owned);
        policy_build::compile(&root.join("policies"), &root.join("target/policies"), &packages).unwrap()
    });
    let position = PACKAGES.iter().position(|package| *package == name).unwrap();
    let folders = [root.join("policies").join(name), root.join("policies/examples").join(name)];
    let fixtures = folders.iter().find_map(|folder| fs::read_to_string(folder.join("fixtures.json")).ok());
    policy_build::encode(&fs::read(&modules[position]).unwrap(), fixtures.as_deref()).unwrap()
}

/// The same policy in another revision: a custom section makes it other bytes.
pub fn another_revision(component: &[u8], mark: u8) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // Section 0 (custom), 3 bytes: a name of one letter, and one byte of content.
    bytes.extend([0, 3, 1, b'x', mark]);
    bytes
}

/// An operator of a gateway.
pub struct Operator<'a> {
    pub app: &'a TestApp,
    pub token: String,
}

impl<'a> Operator<'a> {
    pub async fn of(app: &'a TestApp) -> Self {
        let reply = app.token_of("olga", &["operator"]).await;
        Self { app, token: reply.json()["token"].as_str().unwrap().to_owned() }
    }

    pub async fn upload(&self, component: Vec<u8>) -> Reply {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/v1/policies", self.app.address))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/wasm");
        self.app.send(request.body(Full::new(Bytes::from(component))).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.app.get(&self.token, path).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.app.post(&self.token, path, body).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.app.call(Method::PUT, path, &self.token, body, &[]).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.app.call(Method::DELETE, path, &self.token, Value::Null, &[]).await
    }

    /// Uploads a policy of this repository and puts it in force here.
    pub async fn enforce(&self, name: &str, settings: Value) {
        let reply = self.upload(component(name)).await;
        assert!(reply.status.is_success(), "{reply:?}");
        self.verb(name, "activate", json!({"settings": settings})).await;
        self.settled().await;
    }

    /// `POST :verb`, which must succeed.
    pub async fn verb(&self, name: &str, verb: &str, body: Value) -> Value {
        let reply = self.post(&format!("/v1/policies/{name}:{verb}"), body).await;
        assert_eq!(reply.status, StatusCode::OK, "{verb} {name}: {reply:?}");
        reply.json()
    }

    /// Waits until this gateway runs what is stored.
    pub async fn settled(&self) {
        let wanted = self.get("/v1/policies").await.json()["set_revision"].as_i64().unwrap();
        eventually("the gateway runs what is stored", async || self.app.app.policies.running() >= Some(wanted)).await;
    }
}
