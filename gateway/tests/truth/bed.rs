//! Databases, tenants and gateways to test with. Each test has its own database, cloned from a template that is
//! migrated once, and its own tenant with its own namespace.

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use devcluster::TestCluster;
use eventflow_api::function::{Function, FunctionSpec};
use eventflow_api::invocation::{Invocation, InvocationSpec};
use eventflow_api::names::{FunctionName, TenantClaim};
use eventflow_api::{ledger, tenant, tier};
use gateway::auth::Tenant;
use gateway::auth::testing;
use gateway::cluster::{Applied, Cluster};
use gateway::store::{AuditRow, FunctionRow, NewInvocation, Origin, Store, StoreConfig, Written, migrate};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, CustomResourceExt, ResourceExt};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait for anything; reached only when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The cluster that the tests run in.
pub fn cluster() -> TestCluster {
    TestCluster::attach().unwrap()
}

/// Waits until `probe` has something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A database of one's own; dropped with this value.
pub struct Database {
    pub name: String,
}

impl Database {
    /// With nothing in it.
    pub async fn empty() -> Self {
        let name = format!("t_{}", Uuid::new_v4().simple());
        connect(cluster().database_url()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { name }
    }

    /// Migrated.
    pub async fn new() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE
            .get_or_init(|| async {
                let database = Self::empty().await;
                migrate(&database.url().into()).await.unwrap();
                let name = database.name.clone();
                // Stays until the server goes.
                std::mem::forget(database);
                name
            })
            .await;
        let name = format!("t_{}", Uuid::new_v4().simple());
        let client = connect(cluster().database_url()).await;
        // The connection that migrated may take a moment to be gone.
        eventually("the template is free", || async {
            client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.ok()
        })
        .await;
        Self { name }
    }

    /// As superuser.
    pub fn url(&self) -> String {
        let cluster = cluster();
        let (server, _) = cluster.database_url().rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    pub fn url_through(&self, address: &str) -> String {
        self.url().replacen(cluster().database_address(), address, 1)
    }

    /// A superuser's connection.
    pub async fn sql(&self) -> tokio_postgres::Client {
        connect(&self.url()).await
    }

    pub fn store(&self) -> Store {
        store_at(&self.url())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (url, name) = (cluster().database_url().to_owned(), self.name.clone());
        // A thread of its own, because a runtime may be winding down around us.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                connect(&url).await.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await
            })
        });
        drop(dropping.join());
    }
}

pub fn store_at(url: &str) -> Store {
    Store::new(&StoreConfig {
        database_url: SecretString::from(url),
        pool_size: 8,
        wait: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(5),
        lock_timeout: Duration::from_secs(5),
    })
    .unwrap()
}

pub fn origin() -> Origin {
    Origin { actor: "alice".into(), request_id: "request-1".into(), traceparent: None, notes: Vec::new() }
}

pub fn name(name: &str) -> FunctionName {
    name.parse().unwrap()
}

pub fn spec(image: &str) -> FunctionSpec {
    serde_json::from_value(json!({ "image": image, "env": { "KEY": "value" }, "port": 8080 })).unwrap()
}

/// A run of that function with that input.
pub fn run_of(function: &FunctionRow, input: Option<&str>) -> NewInvocation {
    let spec = InvocationSpec {
        function: function.name.to_string(),
        input: input.map(str::to_owned),
        ..InvocationSpec::default()
    };
    NewInvocation { function_id: function.id, spec, retry_of: None }
}

/// A tenant that nobody else has.
pub async fn new_tenant(store: &Store) -> Tenant {
    let claim: TenantClaim = format!("t{}", &Uuid::new_v4().simple().to_string()[..12]).parse().unwrap();
    let id = store.tenant_resolve("https://issuer.test", &claim, true).await.unwrap().unwrap();
    testing::tenant(id)
}

/// A client of the API server at `address`, or of the real one.
pub async fn kube_client(address: Option<&str>) -> Client {
    static CRDS: OnceCell<()> = OnceCell::const_new();
    let cluster = cluster();
    let direct = client_of(cluster.kubeconfig_path().to_owned()).await;
    CRDS.get_or_init(|| install_crds(direct.clone())).await;
    let Some(address) = address else { return direct };
    let path = std::env::temp_dir().join(format!("kubeconfig-{}", Uuid::new_v4().simple()));
    cluster.write_kubeconfig_through(address, &path).unwrap();
    let client = client_of(path.clone()).await;
    std::fs::remove_file(path).unwrap();
    client
}

async fn client_of(path: PathBuf) -> Client {
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn install_crds(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in
        [Function::crd(), Invocation::crd(), tenant::Tenant::crd(), tier::Tier::crd(), ledger::QuotaLedger::crd()]
    {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
        eventually("the CRD is served", || async {
            let conditions = api.get(&name).await.unwrap().status?.conditions?;
            conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(())
        })
        .await;
    }
}

/// A running truth side of a gateway.
pub struct Gateway {
    pub store: Store,
    pub cluster: Cluster,
    shutdown: CancellationToken,
}

impl Gateway {
    pub async fn start(client: Client, store: Store) -> Self {
        let shutdown = CancellationToken::new();
        let (cluster, tasks) = Cluster::start(client, store.clone(), shutdown.clone());
        tokio::spawn(tasks.join_all());
        Self { store, cluster, shutdown }
    }

    /// Once its caches are filled.
    pub async fn ready(self) -> Self {
        eventually("the caches are filled", || async { self.cluster.ready().iter().all(|r| r.1).then_some(()) }).await;
        self
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// One gateway, one tenant, one namespace.
pub struct Scene {
    pub gateway: Gateway,
    pub client: Client,
    pub tenant: Tenant,
    pub database: Database,
}

impl Scene {
    pub async fn new() -> Self {
        let scene = Self::without_namespace().await;
        scene.create_namespace().await;
        scene
    }

    pub async fn without_namespace() -> Self {
        let database = Database::new().await;
        let client = kube_client(None).await;
        let gateway = Gateway::start(client.clone(), database.store()).await.ready().await;
        let tenant = new_tenant(&gateway.store).await;
        Self { gateway, client, tenant, database }
    }

    pub async fn create_namespace(&self) {
        create_namespace(&self.client, &self.tenant).await;
    }

    /// A second gateway on the same store and cluster.
    pub async fn another_gateway(&self) -> Gateway {
        Gateway::start(self.client.clone(), self.database.store()).await.ready().await
    }

    pub fn functions(&self) -> Api<Function> {
        Api::namespaced(self.client.clone(), self.tenant.namespace())
    }

    /// As the handler does: store, then apply; until the cluster holds it.
    pub async fn create(&self, function: &str, image: &str) -> Written {
        let written = self.store(function, image).await;
        self.apply(&written.row).await;
        written
    }

    /// Until the cluster holds the row.
    pub async fn apply(&self, row: &FunctionRow) {
        self.gateway.cluster.function_apply(row).await;
        self.row_until(row.name.as_str(), |now| now.synced_generation >= row.generation).await;
    }

    /// Until the deleted row's object is gone, and nothing else is pending.
    pub async fn remove(&self, row: &FunctionRow) {
        self.gateway.cluster.function_remove(row).await;
        self.settled().await;
    }

    /// As a handler does while the cluster is away.
    pub async fn create_pending(&self, function: &str, image: &str) -> Written {
        let written = self.store(function, image).await;
        let applied = self.gateway.cluster.function_apply(&written.row).await;
        assert!(matches!(applied, Applied::Pending(_)), "{applied:?}");
        written
    }

    /// As a handler that dies after its commit does.
    pub async fn store(&self, function: &str, image: &str) -> Written {
        let store = &self.gateway.store;
        store.function_create(&self.tenant, &name(function), &spec(image), &origin(), None).await.unwrap()
    }

    pub async fn row(&self, function: &str) -> Option<FunctionRow> {
        self.gateway.store.function_get(&self.tenant, &name(function)).await.unwrap()
    }

    /// Waits until the row is as `test` wants it.
    pub async fn row_until(&self, function: &str, test: impl Fn(&FunctionRow) -> bool) -> FunctionRow {
        eventually("the row is as wanted", || async { self.row(function).await.filter(&test) }).await
    }

    /// Waits until the object is as `test` wants it.
    pub async fn object_until(&self, function: &str, test: impl Fn(&Function) -> bool) -> Function {
        let api = self.functions();
        eventually("the object is as wanted", || async { api.get_opt(function).await.unwrap().filter(&test) }).await
    }

    pub async fn audit(&self) -> Vec<AuditRow> {
        self.gateway.store.audit_list(&self.tenant, None, None).await.unwrap().items
    }

    /// Waits until nothing is to be carried to the cluster.
    pub async fn settled(&self) {
        eventually("nothing is pending", || async {
            (self.gateway.store.backlog().await.ok()?.rows == 0).then_some(())
        })
        .await;
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = Command::new("kubectl")
            .args(["--kubeconfig", cluster().kubeconfig_path().to_str().unwrap(), "-n", self.tenant.namespace()])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

pub async fn create_namespace(client: &Client, tenant: &Tenant) {
    let namespace = serde_json::from_value(json!({ "metadata": { "name": tenant.namespace() } })).unwrap();
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}
