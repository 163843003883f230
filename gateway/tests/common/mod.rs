//! One gateway per test, in this process, on real sockets, with a database of its own and the run's API server; and one
//! controller for all of them, since verdicts and namespaces are its own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::too_many_arguments,
    reason = "each test program uses a part of it, and a test that cannot be set up should fail"
)]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use devcluster::TestCluster;
use eventflow_api::condition::{ConditionStatus, ConditionType, find};
use eventflow_api::function::Function;
use eventflow_api::invocation::Invocation;
use eventflow_api::ledger::QuotaLedger;
use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use gateway::app::App;
use gateway::auth::{Auth, AuthConfig};
use gateway::cluster::Cluster;
use gateway::config::Limits;
use gateway::forward::Forward;
use gateway::policy::{Policies, PolicyConfig};
use gateway::server::{self, Drained};
use gateway::stack;
use gateway::store::{self, Store, StoreConfig};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, CustomResourceExt, ResourceExt};
use policy_engine::{EngineOptions, PolicyEngine};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Longest wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Domain of the functions' own host names.
pub const FUNCTIONS_DOMAIN: &str = "fn.test";

/// Limits that tests do not run into by accident.
pub fn limits() -> Limits {
    Limits {
        max_body: 1 << 20,
        max_header: 16 << 10,
        header_deadline: Duration::from_secs(10),
        body_deadline: Duration::from_secs(10),
        request_deadline: Duration::from_secs(20),
        max_connections: 1000,
        max_requests: 1000,
        max_invocations: 1000,
        max_streams: 100,
        keep_alive: Duration::from_secs(60),
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(10),
    }
}

/// How to start one.
struct Start<'a> {
    limits: Limits,
    database_at: Option<&'a str>,
    api_at: Option<&'a str>,
    policies: PolicyConfig,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self { limits: limits(), database_at: None, api_at: None, policies: PolicyConfig::default() }
    }
}

/// A gateway.
pub struct TestApp {
    pub app: Arc<App>,
    pub address: SocketAddr,
    pub kube: kube::Client,
    /// The database's URL.
    pub database: SecretString,
    stop: CancellationToken,
    shutdown: CancellationToken,
    served: Option<JoinHandle<Drained>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem's code, after checking that it is a whole problem document.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_with(limits()).await
    }

    pub async fn start_with(limits: Limits) -> Self {
        Self::start_on(Self::new_database().await, Start { limits, ..Start::default() }).await
    }

    /// Starts one that reaches the API server and the database through these proxies, to be cut by the test.
    pub async fn start_behind(api_server: &devcluster::Proxy, database: &devcluster::Proxy) -> Self {
        let (api_at, database_at) = (api_server.address().to_string(), database.address().to_string());
        Self::start_through(limits(), Some(&database_at), Some(&api_at)).await
    }

    /// Starts one that reaches the database and the API server at these addresses, which may be proxies; the test
    /// itself reaches them directly.
    pub async fn start_through(limits: Limits, database_at: Option<&str>, api_at: Option<&str>) -> Self {
        let start = Start { limits, database_at, api_at, ..Start::default() };
        Self::start_on(Self::new_database().await, start).await
    }

    /// One that ships policies, or keeps compiled ones.
    pub async fn start_with_policies(policies: PolicyConfig) -> Self {
        Self::start_on(Self::new_database().await, Start { policies, ..Start::default() }).await
    }

    /// Another replica, on the same database and cluster.
    pub async fn another(&self) -> Self {
        self.another_with(PolicyConfig::default()).await
    }

    pub async fn another_with(&self, policies: PolicyConfig) -> Self {
        Self::start_on(self.database.clone(), Start { policies, ..Start::default() }).await
    }

    async fn new_database() -> SecretString {
        let cluster = TestCluster::attach().unwrap();
        let database = format!("gateway_{}", uuid::Uuid::new_v4().simple());
        admin(&cluster, &format!("CREATE DATABASE {database}")).await;
        let url = SecretString::from(url_of(&cluster, &database));
        store::migrate(&url).await.unwrap();
        url
    }

    async fn start_on(database: SecretString, start: Start<'_>) -> Self {
        let Start { limits, database_at, api_at, policies } = start;
        let cluster = TestCluster::attach().unwrap();
        let through = match database_at {
            Some(address) => database.expose_secret().replacen(cluster.database_address(), address, 1).into(),
            None => database.clone(),
        };
        let store = Store::new(&StoreConfig {
            database_url: through,
            pool_size: 8,
            // Tests share two cores with everything else; what is tested is not how quick a connection is.
            wait: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
        })
        .unwrap();
        let kube = kube_client(&cluster).await;
        static CRDS: OnceCell<()> = OnceCell::const_new();
        CRDS.get_or_init(|| install(kube.clone())).await;
        start_controller();
        let shutdown = CancellationToken::new();
        let watched = match api_at {
            Some(address) => kube_through(&cluster, address).await,
            None => kube.clone(),
        };
        let (watches, mut tasks) = Cluster::start(watched, store.clone(), shutdown.clone());
        tasks.detach_all();
        let auth = Auth::new(AuthConfig { issuers: Vec::new(), dev_issuer: true, provision: true });
        let forward = Forward::new(Some(FUNCTIONS_DOMAIN.to_owned()), limits.max_invocations);
        let (policies, mut policy_tasks) = Policies::start(engine(), store.clone(), policies, shutdown.clone());
        policy_tasks.detach_all();
        let app = Arc::new(App::new(auth, store, watches, forward, policies, limits));
        let (meter, written) = (Arc::clone(&app.forward.meter), app.store.clone());
        tokio::spawn(gateway::metering::run(meter, written, shutdown.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let signals = (stop.clone().cancelled_owned(), std::future::pending());
        let served = tokio::spawn(server::serve(listener, stack::stack(Arc::clone(&app)), limits, signals));
        // No connection is kept: an idle one would hold a place that a test counts on.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let served = Some(served);
        let test = Self { app, address, kube, database, stop, shutdown, served, client };
        test.ready().await;
        test
    }

    async fn ready(&self) {
        eventually("the gateway is ready", async || self.get("", "/readyz").await.status == StatusCode::OK).await;
    }

    /// Stops the gateway as a signal would, and says how that went.
    pub fn stop(&mut self) -> JoinHandle<Drained> {
        self.app.start_draining();
        self.stop.cancel();
        self.served.take().unwrap()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let response = tokio::time::timeout(PATIENCE, self.client.request(request)).await.expect("an answer").unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// As [`TestApp::send`]; none if the connection broke.
    pub async fn try_send(&self, request: Request<Full<Bytes>>) -> Option<StatusCode> {
        let response = tokio::time::timeout(PATIENCE, self.client.request(request)).await.expect("an end");
        response.ok().map(|response| response.status())
    }

    /// Sends a request with this token, body and headers; an empty token or a null body means none.
    pub async fn call(&self, method: Method, path: &str, token: &str, body: Value, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = match &body {
            Value::Null => Bytes::new(),
            body => {
                if !headers.iter().any(|(name, _)| *name == "content-type") {
                    request = request.header("content-type", "application/json");
                }
                body.to_string().into()
            }
        };
        self.send(request.body(Full::new(bytes)).unwrap()).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Reply {
        self.call(Method::GET, path, token, Value::Null, &[]).await
    }

    /// Asks the admin port's service.
    pub async fn admin(&self, path: &str) -> Reply {
        let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
        let response = gateway::admin::service(Arc::clone(&self.app)).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub async fn post(&self, token: &str, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, token, body, &[]).await
    }

    /// A token of the development issuer, with these roles.
    pub async fn token_of(&self, user: &str, roles: &[&str]) -> Reply {
        self.post("", "/auth/token", json!({"user_id": user, "roles": roles})).await
    }

    /// A token of an operator.
    pub async fn operator(&self) -> String {
        let user = format!("op-{}", uuid::Uuid::new_v4().simple());
        self.token_of(&user, &["operator"]).await.json()["token"].as_str().unwrap().to_owned()
    }

    /// A developer of a tenant of its own, which is set up.
    pub async fn tenant(&self) -> String {
        self.tenant_named(&format!("t-{}", uuid::Uuid::new_v4().simple())).await
    }

    pub async fn tenant_named(&self, user: &str) -> String {
        let reply = self.token_of(user, &[]).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        let reply = reply.json();
        self.set_up(reply["namespace"].as_str().unwrap()).await;
        reply["token"].as_str().unwrap().to_owned()
    }

    /// A developer of a tenant of its own that may use so much; the tenant's id.
    pub async fn tenant_with(&self, quota: Value) -> (String, String) {
        self.tenant_but(json!({ "quota": quota })).await
    }

    /// A developer of a tenant of its own, of which an operator changed so much; the tenant's id.
    pub async fn tenant_but(&self, patch: Value) -> (String, String) {
        let id = format!("t-{}", uuid::Uuid::new_v4().simple());
        let token = self.tenant_named(&id).await;
        let reply = self.call(Method::PATCH, &format!("/v1/tenants/{id}"), &self.operator().await, patch, &[]).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        let tenant: Api<Tenant> = Api::all(self.kube.clone());
        let changed = tenant.get(&id).await.unwrap().metadata.generation;
        eventually("the gateway has seen the change", async || {
            self.app.cluster.tenant(&id.parse().unwrap()).is_some_and(|tenant| tenant.metadata.generation >= changed)
        })
        .await;
        (token, id)
    }

    /// Waits until the controller has set a tenant up, and the gateway has seen it.
    pub async fn set_up(&self, namespace: &str) {
        let id = namespace.strip_prefix("tenant-").unwrap().parse().unwrap();
        let start = tokio::time::Instant::now();
        loop {
            let known = self.app.cluster.tenant(&id);
            let status = known.as_ref().and_then(|tenant| tenant.status.clone()).unwrap_or_default();
            if find(&status.conditions, ConditionType::Ready).is_some_and(|c| c.status == ConditionStatus::True) {
                return;
            }
            if start.elapsed() > PATIENCE {
                let there = Api::<Tenant>::all(self.kube.clone()).get_opt(id.as_str()).await;
                panic!("{id} is not set up; the gateway knows {known:?}; there is {there:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The database and the namespaces stay until the run's cluster goes: dropping a database can take PostgreSQL a minute
/// while others come and go (it waits for every process to have noticed).
impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shutdown.cancel();
    }
}

/// One engine for all gateways of the process: each reserves a good part of the address space.
fn engine() -> PolicyEngine {
    static ENGINE: std::sync::OnceLock<PolicyEngine> = std::sync::OnceLock::new();
    ENGINE.get_or_init(|| PolicyEngine::new(EngineOptions::default()).unwrap()).clone()
}

/// Waits until it is so.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client of the API server.
async fn kube_client(cluster: &TestCluster) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// The controller of this process, with a lease of its own; it ends with the process.
fn start_controller() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let client = kube_client(&TestCluster::attach().unwrap()).await;
                let lease = format!("gateway-tests-{}", std::process::id());
                let flags = ["controller", "--admin-listen", "127.0.0.1:0", "--lease-name", &lease];
                loop {
                    let config = controller::config::Config::try_parse_from(flags).unwrap();
                    // A lease lost on a machine that stood still is taken again.
                    drop(controller::run::run(config, client.clone(), std::future::pending()).await);
                }
            });
        });
    });
}

/// Puts the custom resources and the shipped tiers in place.
async fn install(client: kube::Client) {
    let params = PatchParams::apply("test").force();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in [Function::crd(), Invocation::crd(), Tenant::crd(), Tier::crd(), QuotaLedger::crd()] {
        let name = crd.name_any();
        api.patch(&name, &params, &Patch::Apply(&crd)).await.unwrap();
        eventually("the CRD is served", async || {
            let status = api.get(&name).await.unwrap().status;
            let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "Established" && c.status == "True")
        })
        .await;
    }
    // Established is not served yet: neither the first tenant's object nor the controller's first list must fall into
    // that gap.
    let few = ListParams::default().limit(1);
    eventually("the custom resources are served", async || {
        Api::<Function>::all(client.clone()).list(&few).await.is_ok()
            && Api::<Invocation>::all(client.clone()).list(&few).await.is_ok()
            && Api::<Tenant>::all(client.clone()).list(&few).await.is_ok()
            && Api::<QuotaLedger>::all(client.clone()).list(&few).await.is_ok()
    })
    .await;
    let tiers: Api<Tier> = Api::all(client);
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/tiers.yaml")).unwrap();
    for document in text.split("\n---\n") {
        let tier: Tier = serde_saphyr::from_str(document).unwrap();
        eventually("the tier is accepted", async || {
            tiers.patch(&tier.name_any(), &params, &Patch::Apply(&tier)).await.is_ok()
        })
        .await;
    }
}

async fn kube_through(cluster: &TestCluster, address: &str) -> kube::Client {
    let path = std::env::temp_dir().join(format!("kubeconfig-{}", uuid::Uuid::new_v4().simple()));
    cluster.write_kubeconfig_through(address, &path).unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

fn url_of(cluster: &TestCluster, database: &str) -> String {
    let url = cluster.database_url();
    let end = url.find('?').unwrap_or(url.len());
    let start = url[..end].rfind('/').unwrap();
    format!("{}/{database}{}", &url[..start], &url[end..])
}

async fn admin(cluster: &TestCluster, sql: &str) {
    let (client, connection) = tokio_postgres::connect(cluster.database_url(), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    let _ = connection.await;
}
